# Two commands do all their own set-up: make demo, make test. See README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
STUDY ?=
KEEP ?=

.PHONY: demo run test quick check install tools

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/scorenode demo $(if $(STUDY),--study "$(STUDY)") $(if $(KEEP),--keep "$(KEEP)")

run: $(STAMP)
	test -f scorenode.yaml || $(BIN)/scorenode init scorenode.yaml
	$(BIN)/scorenode serve --config scorenode.yaml

# Programs of other people that the tests talk to: DCMTK, dicom3tools, Orthanc.
tools:
	sh deploy/install-test-tools.sh

test: $(STAMP) tools
	$(BIN)/python -m tests.check

quick: $(STAMP)
	$(BIN)/python -m tests.check --quick

check: $(STAMP)
	$(BIN)/python -m tests.check --static
