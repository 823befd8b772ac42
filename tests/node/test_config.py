"""The configuration file: what it becomes, and how every mistake is told."""

from __future__ import annotations

import re
import stat
from dataclasses import FrozenInstanceError
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from node.cli.main import app
from node.config.default import default_config
from node.config.file import Config, check, load
from node.config.problems import ConfigError, Problem
from node.config.quantities import FreeSpace
from node.config.rule_checks import ModelCard

PIPELINES, MODELS = {"haemorrhage", "dementia"}, {"haemorrhage-demo"}

GOOD = """\
schema: 1
node:
  ae_title: SCORENODE
  listen: { host: 127.0.0.1, port: 11113 }
  data: store
  accept_from: [PACS, CT1]
  disk: { refuse_free: 10GB }
  memory: { step: 4GiB }
peers:
  PACS:
    address: { host: pacs.hospital.lan, port: 104, ae_title: MAINPACS }
    sends_as: [MAINPACS, MAINPACS_OUT1]
    from_networks: [10.4.0.0/24]
    takes_demonstration: yes
    supports: { commitment: yes, find: yes }
    timeout: 20s
  CT1:
    sends_as: ['NO']
    from_networks: [10.5.0.7/32]
completion: { quiet: 30s, max_wait: 20m }
models: { folders: [packages] }
rules:
  - name: head-ct-haemorrhage
    mode: live
    priority: urgent
    when:
      Modality: CT
      BodyPartExamined: { any_of: [HEAD, BRAIN], if_missing: ignore }
      StudyDescription: { matches: '(?i)head|brain', not_matches: '(?i)angio' }
      PatientAge: { min: 18y, if_missing: hold }
      SliceThickness: { min: 0.4, max: 6.0mm }
      ContrastBolusAgent: { present: no }
      (0029,1010 "SIEMENS CSA HEADER"): { not: BAD, if_missing: ignore }
      (0008,103E): { not: [scout, topogram] }
      SOPClassUID: CTImageStorage
    run: { pipeline: haemorrhage, model: haemorrhage-demo, timeout: 4m }
    deliver:
      - to: PACS
        send: [sr, seg]
        series: { number: 9301, description: AI ICH }
        confirm: [commitment, find]
        retry: { after: [30s, 2m], give_up: 3d }
    if_not_run: { tell_reader: sr }
    note: ask the stroke team
unmatched: { keep: 2d }
retention: { inputs: 7d, results: 30d }
"""


def _write(folder: Path, text: str | bytes) -> Path:
    path = folder / "scorenode.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)
    return path


def _load(folder: Path, text: str) -> Config:
    return load(_write(folder, text))


def _problems(folder: Path, text: str | bytes) -> list[Problem]:
    return check(_write(folder, text), pipelines=PIPELINES, models=MODELS)


def _line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("written", "size"), [("", 256 * 10**6), (", ballast: 1GB", 10**9), (", ballast: off", 0)]
)
def test_the_ballast_has_a_size_or_is_off(tmp_path: Path, written: str, size: int) -> None:
    config = _load(tmp_path, GOOD.replace("10GB", f"10GB{written}"))

    assert config.node.disk.ballast_bytes == size


def test_a_good_file_becomes_frozen_values_with_units_in_their_names(tmp_path: Path) -> None:
    config = _load(tmp_path, GOOD)

    assert config.node.data_folder == tmp_path / "store"
    assert config.node.database_url == f"sqlite:///{tmp_path}/store/node.db"
    assert config.node.broker_url == "sql"
    assert config.node.disk.refuse_free == FreeSpace(size_bytes=10**10)
    assert config.node.memory.step_bytes == 4 * 2**30
    assert config.peers["PACS"].from_networks == (ip_network("10.4.0.0/24"),)
    assert config.peers["PACS"].takes_demonstration
    assert config.peers["CT1"].sends_as == ("NO",)
    assert (config.completion.quiet_seconds, config.completion.max_wait_seconds) == (30.0, 1200.0)
    assert config.models.folders == (tmp_path / "packages",)
    assert config.unmatched.keep_seconds == 2 * 86400
    rule = config.rule("head-ct-haemorrhage")
    assert [condition.key for condition in rule.conditions] == [
        "Modality",
        "BodyPartExamined",
        "StudyDescription",
        "PatientAge",
        "SliceThickness",
        "ContrastBolusAgent",
        '(0029,1010 "SIEMENS CSA HEADER")',
        "SeriesDescription",
        "SOPClassUID",
    ]
    assert rule.run.timeout_seconds == 240.0
    assert rule.deliver[0].send == ("sr", "seg")
    assert rule.labels()["seg"].number == 9302
    assert [rule.deliver[0].retry.wait_seconds(n) for n in (1, 2, 3)] == [30.0, 120.0, 120.0]
    with pytest.raises(FrozenInstanceError):
        config.node.ae_title = "OTHER"  # type: ignore[misc]


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    assert _problems(tmp_path, GOOD) == []


@pytest.mark.parametrize("port", [11112, 104])
def test_the_first_file_passes_the_check(tmp_path: Path, port: int) -> None:
    path = _write(tmp_path, default_config(Path("it's data"), port))

    problems = check(path, pipelines=PIPELINES, models=MODELS)

    assert [problem.severity for problem in problems] == ["warning"]
    assert "any AE title" in problems[0].sentence
    config = load(path)
    assert config.node.listen is not None
    assert config.node.listen.port == port
    assert config.node.data_folder == tmp_path / "it's data"
    assert config.rules[0].mode == "shadow"


def test_the_first_file_passes_the_check_with_its_examples_switched_on(tmp_path: Path) -> None:
    text = default_config(Path("data"))
    for line in text.splitlines():
        body = line.lstrip()
        if body.startswith(("#   address", "# PACS", "#   sends_as", "#   from", "#   takes")):
            text = text.replace(line, line.replace("# ", "", 1))
        if body.startswith(("# deliver", "#   - to", "#     send", "#     series")):
            text = text.replace(line, line.replace("# ", "", 1))

    assert [p.severity for p in _problems(tmp_path, text)] == ["warning"]
    assert _load(tmp_path, text).rules[0].deliver[0].peer == "PACS"


def test_the_digest_follows_the_content_and_not_the_looks(tmp_path: Path) -> None:
    digest = _load(tmp_path, GOOD).digest

    assert _load(tmp_path, "# a comment\n" + GOOD).digest == digest
    assert _load(tmp_path, GOOD.replace("quiet: 30s", "quiet: '30s'")).digest == digest
    assert _load(tmp_path, GOOD.replace("quiet: 30s", "quiet: 31s")).digest != digest


CHANGES = [
    # syntax
    ("ae_title: SCORENODE", "ae_title: NO", "ae_title: NO", "truth value"),
    ("[MAINPACS, MAINPACS_OUT1]", "[on]", "[on]", "Write 'on' in quotes"),
    ("quiet: 30s", "quiet: 22:00", "quiet: 22:00", "base 60"),
    ("quiet: 30s", "quiet: 30s, quiet: 40s", "quiet: 30s", "quiet is here twice"),
    ("Modality: CT", "Modality: !CT", "!CT", "The tag !CT is not allowed"),
    ("{ min: 0.4, max: 6.0mm }", ">= 3", ">= 3", "write min: or max:"),
    ("  ae_title", "\tae_title", "\tae_title", "A tab"),
    ("'(?i)angio'", '"\\d"', '"\\d"', "single quotes"),
    # vocabulary
    ("completion:", "compltion:", "compltion:", "Did you mean completion?"),
    ("  disk:", "  dsk:", "dsk:", "Did you mean disk?"),
    ("refuse_free", "refuse_fre", "refuse_fre", "Did you mean refuse_free?"),
    ("sends_as: ['NO']", "send_as: ['NO']", "send_as: [", "Did you mean sends_as?"),
    ("    priority: urgent", "    prio: urgent", "prio", "Did you mean priority?"),
    ("give_up: 3d", "giveup: 3d", "giveup", "Did you mean give_up?"),
    ("      Modality: CT", "      Modallity: CT", "Modallity", "Did you mean Modality?"),
    ("{ min: 18y,", "{ minimum: 18y,", "minimum", "not an operator. Did you mean min?"),
    ("{ min: 18y,", "{ '>=': 18y,", "'>='", "Did you mean min?"),
    ("if_missing: hold", "if_missing: wait", "if_missing: wait", "Write fail, ignore or hold"),
    ("send: [sr, seg]", "send: [sr, sec]", "sec]", "Did you mean seg?"),
    ("mode: live", "mode: alive", "alive", "Did you mean live?"),
    ("    mode: live\n", "", "name: head-ct", "The key mode is missing"),
    ("schema: 1", "schema: 2", "schema: 2", "reads schema 1"),
    ("BodyPartExamined: { any_of: [HEAD, BRAIN], if_missing: ignore }",
     "BodyPartExamined: [HEAD, BRAIN]", "BodyPart", "any_of: [A, B]"),
    ("      Modality: CT", "      PixelData: CT", "PixelData", "holds bytes"),
    ("      Modality: CT", "      RequestAttributesSequence: CT", "RequestAttr", "is a sequence"),
    ("      Modality: CT", "      Modality.Rows: CT", "Modality.R", "Modality is not a sequence"),
    ("      Modality: CT", "      (0008,00zz): CT", "(0008,00zz)", "is not a tag"),
    ("      Modality: CT", "      (0008,0007): CT", "(0008,0007)", "not an attribute"),
    ("CTImageStorage", "CTImageStorag", "CTImageStorag", "Did you mean CTImageStorage?"),
    # references
    ("accept_from: [PACS, CT1]", "accept_from: [PACS, CT2]", "CT2", "Did you mean CT1?"),
    ("- to: PACS", "- to: PAC", "to: PAC", "Did you mean PACS?"),
    ("- to: PACS", "- to: CT1", "to: CT1", "has no address"),
    ("pipeline: haemorrhage,", "pipeline: hemorrhage,", "hemorrhage", "Did you mean haemorrhage?"),
    ("model: haemorrhage-demo", "model: other", "model: other", "model other is not installed"),
    ("sends_as: ['NO']\n    from_networks: [10.5.0.7/32]",
     "sends_as: [MAINPACS]\n    from_networks: [10.4.0.7/32]", "sends_as: [MAINPACS]\n",
     "PACS also sends as MAINPACS"),
    ("    sends_as: ['NO']\n    from_networks: [10.5.0.7/32]", "    timeout: 3s", "CT1:",
     "neither an address nor sends_as"),
    ("sends_as: ['NO']\n    from_networks: [10.5.0.7/32]",
     "sends_as: ['*']\n    from_networks: [8.8.8.0/24]", "sends_as: ['*']", "loopback or private"),
    ("sends_as: ['NO']\n    from_networks: [10.5.0.7/32]", "sends_as: ['*']", "['*']",
     "loopback or private"),
    ("sends_as: ['NO']", "sends_as: ['*', CT]", "['*', CT]", "stands alone"),
    # values
    ("ae_title: SCORENODE", "ae_title: SCORENODE_OF_RADIOLOGY", "SCORENODE_OF", "at most 16"),
    ("ae_title: SCORENODE", "ae_title: 'A\\B'", "ae_title: 'A", "is not an AE title"),
    ("port: 11113", "port: 111130", "111130", "out of range: 0 to 65535"),
    ("port: 104", "port: 0", "port: 0", "out of range: 1 to 65535"),
    ("port: 104", "port: many", "port: many", "not a whole number"),
    ("quiet: 30s", "quiet: 30", "quiet: 30", "needs a unit"),
    ("quiet: 30s", "quiet: soon", "quiet: soon", "not a duration"),
    ("10GB", "10", "refuse_free: 10", "neither a share nor a size"),
    ("10GB", "120%", "120%", "out of range"),
    ("10GB", "10GB, ballast: much", "much", "not a size"),
    ("4GiB", "4 apples", "4 apples", "not a size"),
    ("10.4.0.0/24", "10.4.0.9/24", "10.4.0.9/24", "Did you mean 10.4.0.0/24?"),
    ("10.4.0.0/24", "everywhere", "everywhere", "not a network"),
    ("takes_demonstration: yes", "takes_demonstration: maybe", "maybe", "neither yes nor no"),
    ("(?i)head|brain", "(?i)head|(brain", "(brain", "at character"),
    ("(?i)head|brain", "(\\w+\\s*)+x", "(\\w+", "itself holds a repeat or |"),
    ("(?i)head|brain", "(a|aa)+$", "(a|aa)", "itself holds a repeat or |"),
    ("(?i)head|brain", "a.*b.*c.*d.*e", "a.*b", "more than 3 of * and +"),
    ("{ min: 0.4, max: 6.0mm }", "{ min: 7, max: 6.0mm }", "min: 7", "min 7 is above max 6.0mm"),
    ("{ min: 0.4, max: 6.0mm }", "{ min: 0.4kg }", "0.4kg", "is in mm"),
    ("{ min: 18y,", "{ min: 18,", "min: 18", "Write 18y for years"),
    ("{ min: 18y,", "{ min: 18mm,", "18mm", "not an age"),
    ("      Modality: CT", "      StudyDate: { min: 2026-02-30 }", "2026-02", "not a date"),
    ("      Modality: CT", "      Modality: { min: 3 }", "min: 3", "Modality is text (VR CS)"),
    ("      Modality: CT", "      Rows: CT", "Rows: CT", "is not a number"),
    ("description: AI ICH", f"description: {'A' * 65}", "AAAA", "at most 64"),
    ("description: AI ICH", "description: AI ????", "????", "question marks in place of letters"),
    ("data: store", "data: ~nobody-here/store", "~nobody", "nobody who has a home folder"),
    ("name: head-ct-haemorrhage", "name: head ct", "name: head ct", "is not a name"),
    ("data: store", "data: store\n  uid_root: 2.25", "uid_root", "2.25. is for UUIDs"),
    ("data: store", "data: store\n  uid_root: 1.02.3", "uid_root", "not the root of UIDs"),
    ("data: store", "data: store\n  database: mysql://x", "database", "must start with one of"),
    ("data: store", "data: store\n  broker: rabbit", "broker", "must start with one of"),
    ("data: store", "data: store\n  broker: 'redis://:${env:SCORENODE_UNSET}@h'", "broker:",
     "variable SCORENODE_UNSET is not set"),
    ("data: store", "data: store\n  database: '${file:nowhere}'", "database:", "cannot be read"),
    # contradictions
    ("quiet: 30s", "quiet: 20m", "quiet: 20m", "must be shorter than max_wait"),
    ("      Modality: CT", "      Modality: { equals: CT, not: ct }", "not: ct", "never match"),
    ("      Modality: CT", "      Modality: { any_of: [CT, MR], matches: XA }", "matches: XA",
     "never match"),
    ("      Modality: CT", "      Rows: { equals: 512, max: 256 }", "Rows", "never match"),
    ("      Modality: CT", "      Modality: {}", "Modality: {}", "wants nothing"),
    ("      Modality: CT", "      Modality: CT\n      (0008,0060): MR", "      Modality: CT",
     "Modality is here twice"),
    ("      Modality: CT", "      ImageType: ORIGINAL", "ImageType", "has several values"),
    ("      Modality: CT", "      ImageType: { includes: A, excludes: a }", "ImageType",
     "both included and excluded"),
    ("{ present: no }", "{ present: no, matches: x }", "present: no", "present stands alone"),
    ("send: [sr, seg]", "send: [sr, sr]", "send: [sr, sr]", "listed twice"),
    # inputs, images and the rest of a rule
    ("note: ask", "level: stdy\n    note: ask", "stdy", "Did you mean study?"),
    ("note: ask", "inputs: { ct: { hedaer: {} } }\n    note: ask", "inputs",
     "Did you mean header?"),
    ("note: ask", "inputs: { ct: { image: { plan: axial } } }\n    note: ask", "inputs",
     "Did you mean plane?"),
    ("note: ask", "inputs: { ct: { image: { slices: { min: 9, max: 3 } } } }\n    note: ask",
     "inputs", "min 9 is above max 3"),
    ("note: ask", "inputs: { ct: { image: { spacing: { min: 9deg } } } }\n    note: ask",
     "inputs", "this is in mm"),
    ("note: ask", "inputs: { ct: { pick: [most_slice] } }\n    note: ask", "inputs",
     "Did you mean most_slices?"),
    ("note: ask", "inputs: { ct: { pick: [{ nearest: { Modality: 5 } }] } }\n    note: ask",
     "inputs", "holds no numbers"),
    ("note: ask", "inputs: { ct: { table: t, retrieve_from: PACS } }\n    note: ask", "inputs",
     "of one kind"),
    ("note: ask", "inputs: { ct: { table: t, pick: [newest] } }\n    note: ask", "inputs",
     "pick does not belong"),
    ("note: ask", "inputs: { ct: {}, s: { table: scors } }\n    note: ask", "inputs",
     "The table scors is not defined"),
    ("note: ask", "inputs: { ct: {}, p: { retrieve_from: PAC, like: ct } }\n    note: ask",
     "inputs", "Did you mean PACS?"),
    ("note: ask", "inputs: { ct: {}, p: { retrieve_from: CT1, like: ct } }\n    note: ask",
     "inputs", "nothing can be retrieved"),
    ("note: ask", "inputs: { ct: {}, p: { retrieve_from: PACS, like: ctt } }\n    note: ask",
     "inputs", "Did you mean ct?"),
    ("note: ask", "inputs: { r: { result_of: head-ct-hemorrhage } }\n    note: ask", "inputs",
     "Did you mean head-ct-haemorrhage?"),
    ("note: ask", "inputs: { r: { result_of: head-ct-haemorrhage } }\n    note: ask", "inputs",
     "wait for each other"),
    ("note: ask", "level: series\n    inputs: { a: {}, b: {} }\n    note: ask", "level: series",
     "level: study"),
    ("note: ask", "inputs: { ct: { header: { Modality: MR } } }\n    note: ask", "inputs",
     "This can never match: when wants CT, and this MR"),
    ("note: ask", "expires: 2026-13-01\n    note: ask", "2026-13", "is not a date"),
    ("note: ask", "accept_result: { volume: { max: 3 } }\n    note: ask", "accept_result",
     "Did you mean volume_ml?"),
    ("mode: live", "mode: { canary: 10 }", "canary", "is not a share"),
    ("{ tell_reader: sr }", "{ tell_reader: sms }", "tell_reader", "Write sr or capture"),
    ("timeout: 4m", "timeout: 4m, version: 1.0", "version", "A version needs quotes"),
    ("timeout: 4m", "timeout: 4m, version: '1.y'", "version", "is not a version"),
    ("timeout: 4m", "timeout: 25h", "timeout: 25h", "24h at most"),
    ("timeout: 4m", "timeout: 4m, gpu_memory: lots", "gpu_memory", "not a size"),
    ("supports: { commitment: yes, find: yes }", "supports: { find: yes }", "        confirm:",
     "is not said to support commitment"),
    ("supports: { commitment: yes, find: yes }", "supports: { comitment: yes }", "supports:",
     "Did you mean commitment?"),
    ("confirm: [commitment, find]", "confirm: [mail]", "confirm: [mail]", "is not known"),
    ("max_wait: 20m", "max_wait: 20m, if_incomplete: score", "completion:", "Write hold, run"),
    ("results: 30d }", "results: 30d }\nalerts: { on: [held] }", "alerts:", "'on' is not known"),
    ("results: 30d }", "results: 30d }\nalerts: { silence: { peer: CT2, longer_than: 2h } }",
     "alerts:", "Did you mean CT1?"),
    ("models: {", "tables: { t: { id: x } }\nmodels: {", "tables:", "has one source"),
    ("models: {", "tables: { t: { id: x, csv: { file: a }, parquet: { file: a } } }\nmodels: {",
     "tables:", "csv and parquet"),
    ("models: {", "tables: { t: { id: x, redcap: { url: 'https://r', token: ABC } } }\nmodels: {",
     "tables:", "A secret does not belong here"),
    ("models: {", "tables: { t: { id: x, redcap: { url: 'http://r', token: '${env:PATH}' } } }\n"
     "models: {", "tables:", "must start with one of: https://"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "at", "sentence"), CHANGES, ids=[f"{c[1].strip()} {c[3]}"[:60] for c in CHANGES]
)
def test_a_mistake_is_told_with_its_line_and_what_to_write(
    tmp_path: Path, old: str, new: str, at: str, sentence: str
) -> None:
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)

    problems = _problems(tmp_path, text)

    assert [problem for problem in problems if sentence in problem.sentence], problems
    problem = next(problem for problem in problems if sentence in problem.sentence)
    assert problem.line == _line_of(text, at)
    assert problem.severity == "error"
    assert str(problem).startswith(f"{tmp_path}/scorenode.yaml:{problem.line}: {problem.where}: ")
    assert len(problems) == 1


def test_all_mistakes_of_a_file_are_told_at_once_by_line(tmp_path: Path) -> None:
    text = GOOD
    mistakes = [change for change in CHANGES if change[0] in ("port: 104", "mode: live")]
    mistakes += [change for change in CHANGES if change[3] in ("Did you mean give_up?",)]
    for old, new, _, _ in (mistakes[0], *mistakes[2:]):
        text = text.replace(old, new)
    text = text.replace("[PACS, CT1]", "[PACS, CT2]").replace("min: 0.4", "min: 0.4kg")

    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)

    lines = [problem.line for problem in caught.value.problems]
    assert lines == sorted(lines)
    assert len(lines) == 5
    assert "rule head-ct-haemorrhage, when.SliceThickness.min" in str(caught.value)


WRONG = """\
schema: 1
node:
  ae_title: A_TITLE_THAT_IS_TOO_LONG             # at most 16
  accept_from: [PACS, CT2]                       # The peer CT2 is not defined
peers:
  PACS:
    sends_as: [22:00]                            # base 60
    from_networks: [10.4.0.0/24]
completion:
  quiet: 20m                                     # must be shorter than max_wait
  max_wait: 20m
  evidence: [geometri]                           # Did you mean geometry?
rules:
  - name: head ct                                # is not a name
    mode: liv                                    # Did you mean live?
    when:
      Modallity: CT                              # Did you mean Modality?
      Modality: !CT                              # The tag !CT is not allowed
      StudyDescription: { matches: '(', not_match: x }  # is not a regular expression
      SliceThickness: { min: 6kg }               # is in mm
      PatientSex: { equals: M, not: m }          # can never match
    inputs:
      ct:
        header: { ImageType: ORIGINAL }          # has several values
        pick: [most_slice]                       # Did you mean most_slices?
      prior: { retrieve_from: PAX, like: cta }   # The peer PAX is not defined
      row: { table: scores, newest_within: 180 } # The table scores is not defined
      other: { result_of: nobody }               # There is no rule nobody
    run: { pipeline: haemorrhage, model: none, timeout: 25h, gpu_memory: lots }  # 24h at most
    deliver:
      - to: PAC                                  # Did you mean PACS?
        send: [sge, sc]                          # Did you mean seg?
    priority: high
    priority: low                                # priority is here twice
"""


@pytest.mark.parametrize(
    ("old", "new"), [("- to: PACS", "- to: NOBODY"), ("schema: 1", "schema: 1\nmodel: {}")]
)
def test_a_mistake_makes_no_model_unknown(tmp_path: Path, old: str, new: str) -> None:
    package = tmp_path / "packages" / "mine"
    package.mkdir(parents=True)
    (package / "model.yaml").write_text("family: mine\n")
    text = GOOD.replace("model: haemorrhage-demo", "model: mine").replace(
        "schema: 1", "schema: 1\nmodels: { folders: [packages], trusted: {} }"
    )
    path = _write(tmp_path, text.replace(old, new))

    done = CliRunner().invoke(app, ["config", "check", str(path)])

    assert done.exit_code == 1
    assert "'trusted'" in done.output
    assert "is not installed" not in done.output


def test_no_mistake_hides_another(tmp_path: Path) -> None:
    problems = _problems(tmp_path, WRONG)

    for number, line in enumerate(WRONG.splitlines(), 1):
        here = " ".join(problem.sentence for problem in problems if problem.line == number)
        assert line.partition("# ")[2] in here, (number, here)
    everything = " ".join(problem.sentence for problem in problems)
    for beside in (
        "Did you mean not_matches?",
        "no input cta. Did you mean ct?",
        "'180' is not a duration",
        "'lots' is not a size",
        "'sc' is not known",
        "The model none is not installed",
    ):
        assert beside in everything
    assert len(problems) == 27


RULE = """\
  - name: {name}
    mode: {mode}
    when: {when}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo }}
"""


def _with_rules(*rules: str) -> str:
    return GOOD[: GOOD.index("rules:")] + "rules:\n" + "".join(rules)


def test_two_rules_with_one_name_are_refused(tmp_path: Path) -> None:
    rule = RULE.format(name="a", mode="shadow", when="{ Modality: CT }")
    text = _with_rules(rule, RULE.format(name="a", mode="off", when="{ Modality: MR }"))

    problems = _problems(tmp_path, text)

    assert [(p.line, p.sentence) for p in problems] == [(27, "Rule 1 has this name too.")]


def test_a_rule_that_another_always_stops_is_refused(tmp_path: Path) -> None:
    first = RULE.format(name="a", mode="live", when="{ Modality: CT }") + "    stop: yes\n"
    second = RULE.format(name="b", mode="live", when="{ Modality: ct, PatientSex: F }")

    problems = _problems(tmp_path, _with_rules(first, second))

    assert any("never used" in p.sentence and p.where == "rule b" for p in problems)


WARNINGS = [
    ("    from_networks: [10.5.0.7/32]\n", "", "CT1:", "an AE title is a label"),
    ("sends_as: ['NO']\n    from_networks: [10.5.0.7/32]",
     "sends_as: ['*']\n    from_networks: [10.5.0.0/16]", "['*']", "under any AE title"),
    ("inputs: 7d", "inputs: 1d", "retry: {", "tried for longer than inputs"),
    ("mode: live", "mode: shadow\n    stop: yes", "stop: yes", "stops no other rule"),
    ("        confirm: [commitment, find]\n", "", "- to: PACS", "will never be proved"),
    ("    if_not_run: { tell_reader: sr }\n", "", "- name: head", "a reader is not told"),
    ("note: ask", "expires: 2020-01-01\n    note: ask", "expires", "has expired"),
    ("note: ask", "level: series\n    inputs: { ct: { pick: [newest] } }\n    note: ask", "inputs",
     "pick does nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "sentence"), WARNINGS, ids=[w[3] for w in WARNINGS])
def test_doubtful_lines_are_warnings_and_the_file_is_used(
    tmp_path: Path, old: str, new: str, at: str, sentence: str
) -> None:
    text = GOOD.replace(old, new)

    (problem,) = _load(tmp_path, text).warnings

    assert sentence in problem.sentence
    assert (problem.severity, problem.line) == ("warning", _line_of(text, at))
    assert ": warning: " in str(problem)


CARD = ModelCard("1.2.0", "clinical", "axial", (12.0, 600.0), (80.0, 400.0))
AGAINST_MODELS = [
    ("timeout: 4m", "timeout: 4m, version: '1.x'", CARD, ""),
    ("timeout: 4m", "timeout: 4m, version: '2.x'", CARD, "installed has version 1.2.0"),
    ("timeout: 4m", "timeout: 4m", ModelCard("1.2.0", "research"), "a rule with it is shadow"),
    ("takes_demonstration: yes", "takes_demonstration: no", ModelCard("1.2.0", "demonstration"),
     "nothing would be sent"),
    ("note: ask", "inputs: { a: { image: { slices: { min: 5 } } } }\n    note: ask", CARD,
     "takes 12 to 600 slices"),
    ("note: ask", "inputs: { a: { image: { plane: sagittal } } }\n    note: ask", CARD,
     "takes axial slices"),
    ("note: ask", "inputs: { a: { image: { min_coverage: 50mm } } }\n    note: ask", CARD,
     "takes 80 to 400 mm"),
    ("timeout: 4m", "timeout: 4m", ModelCard("1.2.0", "clinical", kind="prognosis"),
     "runs a segmentation; haemorrhage-demo is a prognosis"),
    ("timeout: 4m", "timeout: 4m", ModelCard("1.2.0", "clinical", inputs=("t1", "flair")),
     "takes an input t1; the rule names none"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "card", "sentence"), AGAINST_MODELS)
def test_a_rule_may_not_contradict_the_card_of_its_model(
    tmp_path: Path, old: str, new: str, card: ModelCard, sentence: str
) -> None:
    path = _write(tmp_path, GOOD.replace(old, new))
    cards = {"haemorrhage-demo": card}

    problems = check(path, pipelines=PIPELINES, models=MODELS, cards=cards)

    assert [problem.severity for problem in problems] == ["error"] * bool(sentence)
    assert all(sentence in problem.sentence for problem in problems)


def test_a_recalled_model_is_a_warning(tmp_path: Path) -> None:
    card = ModelCard("1.2.0", "clinical", status="recalled")

    [problem] = check(
        _write(tmp_path, GOOD),
        pipelines=PIPELINES,
        models=MODELS,
        cards={"haemorrhage-demo": card},
    )

    assert problem.severity == "warning"
    assert "haemorrhage-demo is recalled: its jobs are held" in problem.sentence


@pytest.mark.parametrize(
    ("fields", "sentences"),
    [
        ("{ mmse: {}, other: {} }", []),
        ("{ other: {} }", ["needs the score mmse, which no table of the inputs has as a field"]),
        ("{}", []),
    ],
)
def test_a_prognosis_needs_its_scores_from_a_table(
    tmp_path: Path, fields: str, sentences: list[str]
) -> None:
    text = GOOD.replace("pipeline: haemorrhage", "pipeline: dementia").replace(
        "note: ask", "inputs: { s: { table: scores } }\n    note: ask"
    )
    text += f"tables:\n  scores: {{ csv: {{ file: s.csv }}, id: patient, fields: {fields} }}\n"
    card = ModelCard("1.2.0", "clinical", kind="prognosis", scores=frozenset({"mmse"}))

    problems = check(
        _write(tmp_path, text),
        pipelines={*PIPELINES, "dementia"},
        models=MODELS,
        cards={"haemorrhage-demo": card},
    )

    assert len(problems) == len(sentences), problems
    assert all(part in problem.sentence for part, problem in zip(sentences, problems, strict=True))


def test_rules_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    rules = [
        RULE.format(name=one, mode="shadow", when="{ Modality: CT }")
        + f"    inputs: {{ r: {{ result_of: {other} }} }}\n"
        for one, other in ("ab", "bc", "ca")
    ]

    sentences = [problem.sentence for problem in _problems(tmp_path, _with_rules(*rules))]

    assert "These rules wait for each other: a needs b needs c needs a." in sentences


def test_rules_that_share_series_numbers_are_a_warning(tmp_path: Path) -> None:
    rules = [
        RULE.format(name=n, mode="live", when="{ Modality: CT }") + "    deliver: [{ to: PACS }]\n"
        for n in "abc"
    ]

    warnings = [
        warning
        for warning in _load(tmp_path, _with_rules(*rules)).warnings
        if "Series Numbers" in warning.sentence
    ]

    assert [w.where for w in warnings] == ["rule b, deliver", "rule c, deliver"]
    assert all("The rule a uses the same Series Numbers" in w.sentence for w in warnings)


def test_a_live_rule_that_delivers_nothing_is_a_warning(tmp_path: Path) -> None:
    text = _with_rules(RULE.format(name="a", mode="live", when="{ Modality: CT }"))

    assert "nobody gets its results" in "".join(w.sentence for w in _load(tmp_path, text).warnings)


@pytest.mark.parametrize("mode", ["off", "Off", "'off'"])
def test_the_words_of_yaml_for_no_are_also_the_mode_off(tmp_path: Path, mode: str) -> None:
    assert _load(tmp_path, GOOD.replace("mode: live", f"mode: {mode}")).rules[0].mode == "off"


def test_health_can_be_off(tmp_path: Path) -> None:
    text = GOOD.replace("data: store", "data: store\n  health: off")

    assert _load(tmp_path, text).node.health is None


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "line", "sentence"),
    [
        (b"", 1, "The file is empty"),
        (b"- a\n", 1, "must hold sections"),
        (b"a: \xff\n", 1, "not UTF-8"),
        (b"a: b\x00\n", 0, "characters that YAML does not allow"),
        (b"a: [1\nb: 2\n", 2, "This is not YAML"),
        (b"a: 1\n---\nb: 2\n", 2, "This is not YAML"),
        (b"? [a, b]\n: c\n", 1, "A key must be a word"),
        (BOMB.encode(), 0, "and its aliases hold more than"),
        (b"a: &a [*a]\n", 1, "contains itself"),
        (b"a: &a b\nc: &a d\n", 0, "An anchor (&name) is defined twice"),
        (b"[" * 5000, 1, "nested too deeply"),
        (b"a:\n " + b"- " * 5000, 0, "nested too deeply"),
        (b"#" * (1024 * 1024 + 1), 0, "at most 1048576"),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, str) else None,
)
def test_a_file_that_is_no_configuration_is_refused(
    tmp_path: Path, content: bytes, line: int, sentence: str
) -> None:
    (problem, *others) = _problems(tmp_path, content)

    assert sentence in problem.sentence
    assert others == []
    assert line in (problem.line, 0)


def test_a_missing_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml")


def test_secrets_come_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCORENODE_DB", "p@ss/word")
    (tmp_path / "broker-url").write_text("amqps://u:hunter2@rabbit/\n")
    text = GOOD.replace(
        "data: store",
        "data: store\n  database: postgresql+psycopg://sn:${env:SCORENODE_DB}@db/sn\n"
        "  broker: ${file:broker-url}",
    )

    config = _load(tmp_path, text)

    assert config.node.database_url == "postgresql+psycopg://sn:p%40ss%2Fword@db/sn"
    assert config.node.broker_url == "amqps://u:hunter2@rabbit/"
    assert "p%40ss" not in repr(config)
    assert "hunter2" not in repr(config)
    digest = config.digest
    monkeypatch.setenv("SCORENODE_DB", "rotated")
    assert _load(tmp_path, text).digest == digest


def test_a_password_in_a_file_that_others_read_is_a_warning(tmp_path: Path) -> None:
    text = GOOD.replace("data: store", "data: store\n  broker: redis://:hunter2@redis/0")
    path = _write(tmp_path, text)
    assert load(path).warnings == ()

    path.chmod(path.stat().st_mode | stat.S_IROTH)

    (problem,) = load(path).warnings
    assert "chmod 600" in problem.sentence
    assert "hunter2" not in str(problem)


def test_a_mistake_beside_a_password_does_not_show_it(tmp_path: Path) -> None:
    text = GOOD.replace("data: store", "data: store\n  database: mysql://u:hunter2@db/x")

    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)

    assert "hunter2" not in str(caught.value)


def test_peers_without_calling_titles_are_not_accepted(tmp_path: Path) -> None:
    text = GOOD.replace("  accept_from: [PACS, CT1]\n", "").replace(
        "    sends_as: [MAINPACS, MAINPACS_OUT1]\n    from_networks: [10.4.0.0/24]\n", ""
    )

    assert [peer.name for peer in _load(tmp_path, text).accepted_peers()] == ["CT1"]


ODD = st.sampled_from(
    ["x", "'x'", "[x, [y]]", "{ x: y }", "[]", "{}", "", "~", "-1", "1e400", "'\0'", "ÄÖ", "2.25.",
     "[~]", "{ any_of: {} }", "{ min: [1] }", "{ matches: '(' }", "on", "'${env:}'", "&a [*a]",
     "10.0.0.0/33", "'(0029,1010)'", "9" * 400]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_file_brings_the_check_down(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    values = [match.span(1) for match in re.finditer(r"[\w>)]: ?([^\n]+)", GOOD)]
    values += [match.span() for match in re.finditer(r"[\w.:%/]+", GOOD)]
    text = GOOD
    for start, end in sorted(data.draw(st.lists(st.sampled_from(values), max_size=4)))[::-1]:
        text = text[:start] + data.draw(ODD) + text[end:]

    problems = _problems(tmp_path_factory.getbasetemp(), text)

    for problem in problems:
        assert 0 <= problem.line <= text.count("\n") + 1
        assert problem.where
        assert len(problem.sentence) < 700
        assert "pydantic" not in problem.sentence.lower()
        assert "Input should" not in problem.sentence
