# Two commands do all their own set-up: make demo, make test. See README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL_VENV := test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq -y python3-venv
STUDY ?=
KEEP ?=

.PHONY: demo run test quick check install tools powercut kill durability fuzz fuzz-series delivery-faults

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "scorenode needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	    { $(INSTALL_VENV) && $(PYTHON) -m venv --clear $(VENV); } || \
	    { echo "Python cannot make a virtual environment here: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/scorenode demo $(if $(STUDY),--study "$(STUDY)") $(if $(KEEP),--keep "$(KEEP)")

run: $(STAMP)
	test -f scorenode.yaml || $(BIN)/scorenode init scorenode.yaml
	$(BIN)/scorenode serve --config scorenode.yaml

# Programs of other people that the tests talk to: DCMTK, dicom3tools, Orthanc; and strace.
tools:
	sh deploy/install-test-tools.sh

test: $(STAMP) tools
	$(BIN)/python -m tests.check

quick: $(STAMP)
	$(BIN)/python -m tests.check --quick

check: $(STAMP)
	$(BIN)/python -m tests.check --static

# Durability at length: minutes. STORE=files or arena for one way to keep objects, COUNT how often.
STORE ?=
DURABLY = SCORENODE_STORE=$(STORE) $(BIN)/python -m pytest -q -s tests/durability

powercut: $(STAMP)
	SCORENODE_POWER_CUTS=$(or $(COUNT),200) $(DURABLY)/test_power_cut.py

kill: $(STAMP)
	SCORENODE_KILLS=$(or $(COUNT),1000) $(DURABLY)/test_kill.py

durability: $(STAMP)
	$(BIN)/python -m benchmarks.durability --cuts $(or $(COUNT),25) --kills $(or $(COUNT),25)

# A PACS that goes wrong: 500 faults unless COUNT says otherwise.
delivery-faults: $(STAMP)
	SCORENODE_DELIVERY_FAULTS=$(or $(COUNT),500) $(BIN)/python -m pytest -q -s tests/delivery/test_faults.py

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz

# Only series for conversion: 10 000 of them unless COUNT says otherwise.
fuzz-series: $(STAMP)
	$(BIN)/python -m tests.fuzz --pdus 0 --data-sets 0 --conversations 0 --series $(or $(COUNT),10000)
