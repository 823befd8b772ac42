"""Every mistake of a report template is told at once, with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.loading import load_predictor
from models.package import load_package
from node.cli.main import app
from node.config.file import check, load
from node.config.problems import ConfigError
from node.config.report_template import load_template
from node.job_opening import Models, jobs_from, model_cards
from node.routing import Decision
from pipelines.steps.artefacts import Scored, load_findings, save_findings
from sr_templates.described import ReportTemplate
from sr_templates.outputs import SEGMENTATION_OUTPUTS
from sr_templates.preview import preview
from storage.base import ClosedSeries, CompletionVerdict, NewJob
from tests.models.small import shades_volume
from tests.models.test_python_model import write_code, write_ours
from tests.models.tiny import quiet

TEMPLATES = Path(__file__).parents[2] / "docs" / "templates"
BAD = """\
template: Report with mistakes
procedure: [SCT, "303653007", "Computed tomography of head (procedure)"]
qualification: CLINICAL
private: {designator: MINE, uid: 1.2.03, organisation: Us, codes: {A: Alpha}}
local_codes:
  - {code: [SCT, "12738006", "Liver"], source: memory, reviewed: yesterday}
groups:
  - id: study
    kind: picture
    finding: [SCT, "95455008", "Subdural hemorrhage"]
    site: [SCT, 69536005, "Head"]
    measurments: []
    measurements:
      - name: [DCM, "111047", "Probability"]
        value: probability.any
        unit: [UCUM, "mls", "milliliter"]
        range: [1, 0]
        digits: many
      - name: [SNM3, "T-A0100", "Brain"]
        value: item.volume
        unit: [SCT, "12738006", "Brain"]
    evaluations:
      - name: [DCM, "121052", "Presence of property"]
        value: present
        map:
          "true": [SCT, "2667000", "Absent"]
          "false": [SCT, Absent]
          "null": [99OTHER, "X", "Unknown"]
  - id: study
    kind: volume
    finding: [MADEUP, "1", "Something"]
"""
WANTED = [
    (1, "file", "The key version is missing"),
    (3, "qualification", "'CLINICAL' is none of PRODUCT, RESEARCH or SERVICE"),
    (4, "private.designator", "A private scheme begins with 99"),
    (4, "private.uid", "This is no UID"),
    (6, "local_codes[1].code", 'PS3.16 says SCT 12738006 is "Brain"'),
    (6, "local_codes[1].reviewed", "Write the date of the review as 2026-03-01"),
    (9, "groups[1].kind", "'picture' is none of image, volume or planar"),
    (10, "groups[1].finding", "SCT 95455008 is in no table of PS3.16. If it is right, list it"),
    (11, "groups[1].site", 'Put 69536005 in quotes ("69536005")'),
    (12, "groups[1].measurments", "Did you mean measurements?"),
    (14, "groups[1].measurements[1].name", 'means "Probability of cancer", not "Probability"'),
    (14, "groups[1].measurements[1].name", '"Probability" is DCM 122157'),
    (15, "groups[1].measurements[1].value", "The model does not say probability.any"),
    (16, "groups[1].measurements[1].unit", '"milliliter" is UCUM ml'),
    (17, "groups[1].measurements[1].range", "The least value of a range comes first"),
    (18, "groups[1].measurements[1].digits", "This wants a number"),
    (19, "groups[1].measurements[2].name", "SNM3 is a retired scheme. Use SCT"),
    (20, "groups[1].measurements[2].value", "item. is for groups with for_each only"),
    (21, "groups[1].measurements[2].unit", "A unit is a code of UCUM"),
    (26, "groups[1].evaluations[1].map.true", '"Absent" is SCT 272519000'),
    (27, "groups[1].evaluations[1].map.false", 'A code is [SCHEME, "value", "meaning"]'),
    (28, "groups[1].evaluations[1].map.null", "scheme 99OTHER is not described under private"),
    (29, "groups[2].id", "The id study is there twice"),
    (29, "groups[2]", "for_each: segments"),
    (31, "groups[2].finding", "There is no table of the scheme MADEUP here"),
]


def test_every_mistake_is_told_at_once_by_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)

    with pytest.raises(ConfigError) as refused:
        load_template(path, SEGMENTATION_OUTPUTS)

    told = [(p.line, p.where, p.sentence) for p in refused.value.problems]
    for line, where, sentence in WANTED:
        assert any((line, where) == item[:2] and sentence in item[2] for item in told), told
    assert len(told) == len(WANTED) - 1  # one sentence is looked for in two parts
    assert str(refused.value.problems[0]).startswith(f"{path}:1: file: ")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("kind: image", "kind: planar", "A planar group is written for each segment"),
        ("digits: 2", "digits: 2.5", "This wants a whole number"),
        ('version: "1"', 'version: "1"\nimage_library: some', "'some' is neither yes nor no"),
        ('version: "1"', 'version: "1"\nimage_library: [yes]', "This wants one value, not a list"),
        ('version: "1"', 'version: "1"\nimage_library:', "This has no value"),
        ("template: Own", 'template: "O\\0wn"', "This holds a control character"),
        ("template: Own", "template: Own????", "This holds question marks in place of letters"),
        ("reviewed: 2026-11-28", "reviewed: 2026-02-30", "Write the date of the review"),
        (
            "    evaluations:",
            "    texts: [{name: [DCM, X, Y], value: b}]\n    evaluations:",
            "DCM X is in no table of PS3.16",
        ),
        ("{a: [SCT", "{}#", "A map needs at least one word"),
    ],
)
def test_a_smaller_mistake_is_told_too(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    load_template(path)
    path.write_text(OWN.replace(old, new))

    with pytest.raises(ConfigError, match=sentence) as refused:
        load_template(path)

    assert len(refused.value.problems) == 1


OWN = """\
template: Own
version: "1"
local_codes:
  - {code: [SCT, "999999999", "Looked up"], source: a browser, reviewed: 2026-11-28}
groups:
  - id: a
    kind: image
    finding: [SCT, "999999999", "Looked up"]
    measurements:
      - name: [SCT, "118565006", "Volume"]
        value: a
        unit: [UCUM, "ml", "milliliter"]
        digits: 2
    evaluations:
      - name: [DCM, "121052", "Presence of property"]
        value: b
        map: {a: [SCT, "52101004", "Present"]}
"""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: [1\n", "This is not YAML"),
        ("groups: 3\ntemplate: x\nversion: '1'\n", "This wants a list"),
        ("groups: []\ntemplate: x\nversion: '1'\n", "A report needs at least one group"),
        ("groups: [a]\ntemplate: x\nversion: '1'\n", "This wants a section of keys"),
        (f"template: {'x' * 50}\nversion: '1'\ngroups: []\n", "This has 50 characters; at most 40"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(content)

    with pytest.raises(ConfigError, match=sentence):
        load_template(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_template(tmp_path / "nowhere.yaml")


def test_the_command_checks_and_prints_every_mistake(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)

    result = CliRunner().invoke(app, ["report", "check", str(path), "--json"])

    assert result.exit_code == 2
    assert {item["line"] for item in json.loads(result.stdout)} == {line for line, _, _ in WANTED}


def test_the_templates_of_the_manual_are_in_order(tmp_path: Path) -> None:
    sample = tmp_path / "output.json"
    sample.write_text(json.dumps({"class": "stable"}))

    def check(*arguments: str) -> int:
        return CliRunner().invoke(app, ["report", "check", *arguments]).exit_code

    assert check(str(TEMPLATES / "haemorrhage.yaml")) == 0
    assert check(str(TEMPLATES / "outlined.yaml")) == 0
    assert check(str(TEMPLATES / "dementia.yaml"), "--any-model") == 0
    assert check(str(TEMPLATES / "dementia.yaml"), "--findings", str(sample)) == 2


def test_the_command_prints_the_tree(tmp_path: Path) -> None:
    numbers = [
        {"name": "volume", "value": 20.99, "unit": "ml", "segment": 1},
        {"name": "volume", "value": 20.99, "unit": "ml", "segment": None},
        {"name": "probability", "value": 0.9712, "unit": "1", "segment": None},
    ]
    findings = {"present": None, "numbers": numbers, "segments": [{"number": 1, "label": "Blood"}]}
    path = tmp_path / "findings.json"
    path.write_text(json.dumps(findings))
    arguments = ["report", "render", str(TEMPLATES / "haemorrhage.yaml"), "--findings", str(path)]

    good = CliRunner().invoke(app, arguments)
    path.write_text(json.dumps(findings | {"numbers": numbers[:1]}))
    lacking = CliRunner().invoke(app, arguments)

    assert good.exit_code == 0
    assert "      Presence of property: Undetermined\n" in good.stdout
    assert "      Tracking Identifier: Blood\n" in good.stdout
    assert lacking.exit_code == 1
    assert "has no study.probability" in lacking.stderr.replace("\n", "")


OWN_WORDS = """\
template: Another model
version: "1"
groups:
  - id: items
    kind: image
    for_each: things
    finding: [SCT, "12738006", "Brain"]
    measurements:
      - {name: [SCT, "118565006", "Volume"], value: item.size, unit: [UCUM, "ml", "milliliter"]}
"""


@pytest.mark.parametrize(
    "output",
    [
        {"numbers": [3, 4], "segments": ["a"]},
        {"numbers": [{"name": "x", "value": 1}], "segments": [{}]},
        {"numbers": [], "segments": {"a": 1}},
        {"prognosis": "good", "model": "mine"},
        {"prognosis": {"features": 3}, "model": {"family": "mine", "colour": "blue"}},
    ],
)
def test_another_model_may_use_our_words_otherwise(
    tmp_path: Path, output: dict[str, object]
) -> None:
    template, findings = tmp_path / "own.yaml", tmp_path / "output.json"
    template.write_text(OWN_WORDS)
    findings.write_text(json.dumps({"things": [{"size": 12.5}]} | output))
    arguments = [str(template), "--findings", str(findings)]

    rendered = CliRunner().invoke(app, ["report", "render", *arguments])
    checked = CliRunner().invoke(app, ["report", "check", *arguments])

    assert (rendered.exit_code, checked.exit_code) == (0, 0)
    assert "Volume: 12.5 ml" in rendered.stdout


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ('{"things": null}', 1, "things is NoneType, wanted a list"),
        ('{"things": {"size": 1}}', 1, "things is dict, wanted a list"),
        ('{"things": [{"size": NaN}]}', 1, "no number a report can hold"),
        ('{"things": ["size"]}', 1, "has no item.size"),
        ('{"things": []}', 1, "gives no group for this output"),
        ("[" * 100_000, 2, "cannot be read as JSON"),
    ],
)
def test_an_output_that_does_not_fit_is_told_in_a_sentence(
    tmp_path: Path, text: str, code: int, sentence: str
) -> None:
    template, findings = tmp_path / "own.yaml", tmp_path / "output.json"
    template.write_text(OWN_WORDS)
    findings.write_text(text)

    found = CliRunner().invoke(
        app, ["report", "render", str(template), "--findings", str(findings)]
    )

    assert found.exit_code == code
    assert sentence in " ".join(found.stderr.split())


CONFIG = """
schema: 1
node: {{ ae_title: SCORENODE, listen: {{ port: 11112 }} }}
rules:
  - name: ich
    mode: live
    when: {{ Modality: CT }}
    run: {{ pipeline: haemorrhage, model: haemorrhage-demo, report: {report} }}
"""


def test_a_rule_names_a_template_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "scorenode.yaml").write_text(CONFIG.format(report="ich.yaml"))
    (tmp_path / "ich.yaml").write_text((TEMPLATES / "haemorrhage.yaml").read_text())

    config = load(tmp_path / "scorenode.yaml")

    assert config.rule("ich").run.report == load_template(tmp_path / "ich.yaml")


def test_mistakes_of_a_template_are_told_with_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "scorenode.yaml").write_text(CONFIG.format(report="bad.yaml"))
    (tmp_path / "bad.yaml").write_text(BAD)

    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "scorenode.yaml")

    told = str(refused.value)
    assert "scorenode.yaml:8: rule ich, run.report: " in told
    assert f"{tmp_path / 'bad.yaml'}:10: groups[1].finding: SCT 95455008 is in no table" in told
    assert f"{tmp_path / 'bad.yaml'}:31: groups[2].finding" in told


NOTE = """\
    texts:
      - { name: [DCM, "121077", "Conclusion"], value: study.note }
"""
SHIFT = """\
template: Shift
version: "1"
groups:
  - id: study
    kind: image
    finding: [SCT, "12738006", "Brain"]
    measurements:
      - {name: [SCT, "118565006", "Volume"], value: study.mean, unit: [UCUM, "ml", "milliliter"]}
    evaluations:
      - name: [DCM, "121052", "Presence of property"]
        value: study.grade
        map: { high: [SCT, "52101004", "Present"], low: [SCT, "272519000", "Absent"] }
"""


def test_a_template_may_read_what_the_package_of_its_rule_declares(tmp_path: Path) -> None:
    package = write_ours(tmp_path / "models" / "ours")
    cards = model_cards({"ours": package})
    config = tmp_path / "scorenode.yaml"
    config.write_text(
        CONFIG.format(report="shift.yaml")
        .replace("pipeline: haemorrhage", "pipeline: segmentation")
        .replace("haemorrhage-demo", "ours")
    )
    template = tmp_path / "shift.yaml"

    def told() -> list[str]:
        found = check(config, pipelines=["segmentation"], models=["ours"], cards=cards)
        return [str(one) for one in found if one.severity == "error"]

    template.write_text(SHIFT + NOTE)
    assert told() == []
    for old, new, sentence in (
        ("study.note", "study.notes", "The model does not say study.notes; here it says"),
        ("study.note", "study.mean", "says a number at study.mean; a text is wanted here"),
        ("study.note", "present", "says yes or no at present; a text is wanted here"),
    ):
        template.write_text(SHIFT + NOTE.replace(old, new))
        [mistake] = told()
        assert "scorenode.yaml:8: rule ich, run.report: " in mistake
        assert "groups[1].texts[1].value" in mistake
        assert sentence in mistake
    template.write_text(SHIFT.replace("study.mean", "study.note"))
    [mistake] = told()
    assert "says a text at study.note; a number is wanted here" in mistake
    template.write_text(SHIFT.replace("study.mean", "study.median"))
    [mistake] = told()
    assert "scorenode.yaml:8: rule ich, run.report: groups[1].measurements[1].value" in mistake
    assert (
        "The model does not say study.median; here it says: present, study.grade, study.mean, "
        in mistake
    )
    template.write_text(SHIFT.replace("study.mean", "elsewhere"))
    assert any(f"{template}:8: groups[1].measurements[1].value" in one for one in told())


ONLY_NUMBERS = """
class Model:
    def inference(self, *, image, age=None):
        return {"mean": float(image.array.mean())}
"""


def test_an_outline_wants_a_model_that_marks_something(tmp_path: Path) -> None:
    numbers = {"mean": {"kind": "measurement", "name": ["SCT", "373098007", "Mean"]}}
    packages = {
        "ours": write_ours(tmp_path / "models" / "ours"),
        "numbers": write_code(
            tmp_path / "models" / "numbers",
            ONLY_NUMBERS,
            runtime={"kind": "python", "entry": "model:Model"},
            outputs=numbers,
        ),
    }
    cards = model_cards(packages)
    (tmp_path / "outlined.yaml").write_text((TEMPLATES / "outlined.yaml").read_text())
    config = tmp_path / "scorenode.yaml"

    def told(model: str) -> list[str]:
        config.write_text(
            CONFIG.format(report="outlined.yaml")
            .replace("pipeline: haemorrhage", "pipeline: segmentation")
            .replace("haemorrhage-demo", model)
        )
        found = check(config, pipelines=["segmentation"], models=list(packages), cards=cards)
        return [str(one) for one in found if one.severity == "error"]

    assert told("ours") == []
    [mistake] = told("numbers")
    assert "scorenode.yaml:8: rule ich, run.report: groups[2].kind of the template" in mistake
    assert "none of its outputs is a mask or a map, so a planar group is never" in mistake


def test_a_template_reads_numbers_classes_and_texts_of_a_package(tmp_path: Path) -> None:
    predictor = load_predictor(load_package(write_ours(tmp_path / "ours")), trust_code=True)
    volume, _ = shades_volume()
    scored = Scored(predictor.predict(volume, quiet), predictor.identity)
    save_findings(scored, volume, tmp_path)
    template = tmp_path / "shift.yaml"
    template.write_text(SHIFT + NOTE)

    kept = load_findings(tmp_path)
    text = preview(load_template(template), json.loads((tmp_path / "findings.json").read_text()))

    assert kept.findings.classes == scored.findings.classes
    assert kept.findings.named_texts == scored.findings.named_texts
    assert "\n      Conclusion: Looked at 13 slices, age unknown.\n" in text
    assert "Presence of property: Present" in text
    assert f"Volume: {scored.findings.number('mean'):.3f} ml" in text


def test_a_template_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "scorenode.yaml").write_text(CONFIG.format(report="nowhere.yaml"))

    with pytest.raises(ConfigError, match=r"nowhere\.yaml: file: The file cannot be read"):
        load(tmp_path / "scorenode.yaml")


def opened(config: Path) -> NewJob:
    """Open the job of a series that the rule ``ich`` takes."""
    loaded = load(config)
    closed = ClosedSeries(1, "1.2", "1.2.3", 0, CompletionVerdict.QUIET, (), "d" * 64, ())
    decision = Decision("ich", "live", "matched", (), "", runs=({"series": "1.2.3"},))
    models = Models(loaded.models.folders)
    [(_, job)] = jobs_from(decision, closed, {"1.2.3": closed}, loaded, models)
    return job


def test_a_job_keeps_the_template_of_its_rule_and_another_template_is_another_job(
    tmp_path: Path,
) -> None:
    plain, config, template = (tmp_path / f"{name}.yaml" for name in ("plain", "conf", "ich"))
    plain.write_text(CONFIG.format(report="ich.yaml").replace(", report: ich.yaml", ""))
    config.write_text(CONFIG.format(report="ich.yaml"))
    template.write_text((TEMPLATES / "haemorrhage.yaml").read_text())
    without, first = opened(plain), opened(config)
    kept = ReportTemplate.from_json(json.loads(json.dumps(first.snapshot))["report_template"])
    before = load_template(template)

    template.write_text(template.read_text().replace("digits: 2", "digits: 3"))
    second = opened(config)

    assert without.snapshot["report_template"] is None
    assert kept == before
    assert len({without.idem_key, first.idem_key, second.idem_key}) == 3
