"""Routing: which rules a series matches, and what is said of it."""

from __future__ import annotations

import json
import struct
import time
import unicodedata
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest
from pydicom.filereader import _read_file_meta_info, read_preamble

from node.config.conditions import Header, evaluate, tally
from node.config.default import default_config
from node.config.file import load
from node.config.rules import Rule
from node.receive.header import scan
from node.routing import (
    ROUTING_KEYS,
    CompletionVerdict,
    Decision,
    SeriesFacts,
    StudyFacts,
    decide,
    header_keys,
)
from tests.shared_data import shared


def _rules(folder: Path, *rules: str) -> tuple[Rule, ...]:
    path = folder / "scorenode.yaml"
    text = "schema: 1\nnode: { ae_title: A }\nrules:\n"
    for number, rule in enumerate(rules):
        text += f"  - name: rule-{number}\n    run: {{ pipeline: p, model: m }}\n"
        text += "".join(f"    {line}\n" for line in rule.splitlines())
    path.write_text(text)
    return load(path).rules


def _facts(
    headers: Sequence[Header],
    verdict: CompletionVerdict = "quiet",
    own_result: bool = False,
) -> SeriesFacts:
    return SeriesFacts("1.2.3", "1.2.3.4", "CT", headers, len(headers), verdict, own_result)


def _outcome(folder: Path, line: str, headers: Sequence[Header]) -> tuple[str, str]:
    (rule,) = _rules(folder, f"mode: live\nwhen:\n  {line}")
    condition = rule.conditions[0]
    result = evaluate(condition, tally(condition.key, headers))
    return result.outcome, result.found


CT: Header = {"Modality": ["CT"], "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}
SCOUT: Header = {"Modality": ["CT"], "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}

ONE_INSTANCE = [
    # equality: trimmed, whatever the case
    ("Modality: CT", {"Modality": ["CT"]}, "met"),
    ("Modality: ct", {"Modality": [" Ct "]}, "met"),
    ("Modality: CT", {"Modality": ["MR"]}, "not_met"),
    ("StudyDescription: 'SCHÄDEL nativ'", {"StudyDescription": ["Schädel Nativ"]}, "met"),
    ("ImageType: 'ORIGINAL\\PRIMARY'", {"ImageType": ["ORIGINAL", "PRIMARY"]}, "met"),
    ("ImageType: 'ORIGINAL\\PRIMARY'", CT, "not_met"),
    ("SeriesNumber: 3", {"SeriesNumber": ["003"]}, "met"),
    ("SeriesNumber: 3", {"SeriesNumber": [3.0]}, "met"),
    ("PatientAge: 18y", {"PatientAge": ["018Y"]}, "met"),
    ("StudyDate: 2026-01-31", {"StudyDate": ["20260131"]}, "met"),
    ("SOPClassUID: CTImageStorage", {"SOPClassUID": ["1.2.840.10008.5.1.4.1.1.2"]}, "met"),
    ("SOPClassUID: CTImageStorage", {"SOPClassUID": ["1.2.840.10008.5.1.4.1.1.2.1"]}, "not_met"),
    # lists
    ("BodyPartExamined: { any_of: [HEAD, BRAIN] }", {"BodyPartExamined": ["brain"]}, "met"),
    ("BodyPartExamined: { any_of: [HEAD, BRAIN] }", {"BodyPartExamined": ["ABDOMEN"]}, "not_met"),
    ("Modality: { not: MR }", {"Modality": ["CT"]}, "met"),
    ("Modality: { not: [MR, CT] }", {"Modality": ["CT"]}, "not_met"),
    ("ImageType: { includes: [primary, ORIGINAL] }", CT, "met"),
    ("ImageType: { includes: [ORIGINAL, MPR] }", CT, "not_met"),
    ("ImageType: { excludes: LOCALIZER }", CT, "met"),
    ("ImageType: { excludes: [LOCALIZER, MPR] }", SCOUT, "not_met"),
    # patterns
    ("StudyDescription: { matches: '(?i)head|brain' }", {"StudyDescription": ["CT HEAD"]}, "met"),
    ("StudyDescription: { matches: 'head' }", {"StudyDescription": ["CT HEAD"]}, "not_met"),
    ("StudyDescription: { not_matches: angio }", {"StudyDescription": ["ct angio"]}, "not_met"),
    ("SeriesDescription: { matches: '^頭部' }", {"SeriesDescription": ["頭部 CT"]}, "met"),
    # order, by VR
    ("SliceThickness: { min: 0.4, max: 6mm }", {"SliceThickness": ["5.0"]}, "met"),
    ("SliceThickness: { min: 0.4, max: 6mm }", {"SliceThickness": ["10"]}, "not_met"),
    ("SliceThickness: { max: 6 }", {"SliceThickness": ["thick"]}, "not_met"),
    ("SliceThickness: { max: 6 }", {"SliceThickness": [float("nan")]}, "not_met"),
    ("PixelSpacing: { max: 0.6 }", {"PixelSpacing": [0.5, 0.7]}, "not_met"),
    ("Rows: { min: 256 }", {"Rows": [512]}, "met"),
    ("PatientAge: { min: 18y }", {"PatientAge": ["216M"]}, "met"),
    ("PatientAge: { min: 18y }", {"PatientAge": ["017Y"]}, "not_met"),
    ("PatientAge: { max: 90d }", {"PatientAge": ["012W"]}, "met"),
    ("PatientAge: { min: 18y }", {"PatientAge": ["old"]}, "not_met"),
    ("StudyDate: { min: 2026-01-01, max: 20261231 }", {"StudyDate": ["20260704"]}, "met"),
    ("StudyDate: { min: 2026-01-01 }", {"StudyDate": ["20251231"]}, "not_met"),
    ("StudyTime: { min: '08:00', max: '17:30' }", {"StudyTime": ["173000.12"]}, "met"),
    ("StudyTime: { max: '17:30' }", {"StudyTime": ["1731"]}, "not_met"),
    ("AcquisitionDateTime: { min: 2026-01-01 }",
     {"AcquisitionDateTime": ["20260101000000.0+0100"]}, "met"),
    # missing
    ("Modality: CT", {}, "not_met"),
    ("Modality: CT", {"Modality": None}, "missing_hold"),
    ("Modality: CT", {"Modality": [" "]}, "not_met"),
    ("Modality: { equals: CT, if_missing: ignore }", {}, "missing_ignored"),
    ("Modality: { equals: CT, if_missing: hold }", {"Modality": []}, "missing_hold"),
    ("Modality: { equals: CT, if_missing: ignore }", {"Modality": ["MR"]}, "not_met"),
    ("StudyDescription: { not_matches: angio }", {}, "not_met"),
    ("ContrastBolusAgent: { present: no }", {}, "met"),
    ("ContrastBolusAgent: { present: no }", {"ContrastBolusAgent": ["Iodine"]}, "not_met"),
    ("ContrastBolusAgent: { present: yes }", {"ContrastBolusAgent": [""]}, "not_met"),
    # sequences and private attributes
    ("RequestAttributesSequence.RequestedProcedureDescription: { matches: (?i)head }",
     {"RequestAttributesSequence.RequestedProcedureDescription": ["Neck", "Head"]}, "met"),
    ("(0029,1010): X", {"(0029,1010)": ["x"]}, "met"),
    ("(0029,1010): { min: 3 }", {"(0029,1010)": ["4"]}, "met"),
    ('(0029,1010 "ACME"): 4', {"(0029,0010)": ["ACME"], "(0029,1010)": [4.0]}, "met"),
    ('(0029,1010 "ACME"): X', {"(0029,0011)": ["acme "], "(0029,1110)": ["X"]}, "met"),
    ('(0029,1010 "ACME"): X', {"(0029,0010)": ["OTHER"], "(0029,1010)": ["X"]}, "not_met"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "header", "outcome"), ONE_INSTANCE, ids=[f"{c[0]} {c[1]}"[:70] for c in ONE_INSTANCE]
)
def test_a_line_is_held_against_the_value(
    tmp_path: Path, line: str, header: Header, outcome: str
) -> None:
    assert _outcome(tmp_path, line, [header])[0] == outcome


THICK, THIN, NONE = {"SliceThickness": ["5"]}, {"SliceThickness": ["1"]}, dict[str, list[str]]()

SEVERAL_INSTANCES = [
    ("SliceThickness: { min: 2 }", [THICK, THIN], "not_met", "varies (2 values): 5, 1"),
    ("SliceThickness: { min: 1 }", [THICK, THIN], "met", "varies (2 values): 5, 1"),
    ("SliceThickness: 5", [THICK, THIN], "not_met", "varies (2 values): 5, 1"),
    ("SliceThickness: { any_of: [1, 5] }", [THICK, THIN], "met", "varies (2 values): 5, 1"),
    ("SliceThickness: { min: 2 }", [THICK, NONE], "not_met", "5; missing in 1 of 2"),
    ("SliceThickness: { min: 2, if_missing: ignore }", [THICK, NONE], "met",
     "5; missing in 1 of 2"),
    ("SliceThickness: { min: 2, if_missing: hold }", [THICK, NONE], "missing_hold",
     "5; missing in 1 of 2"),
    ("SliceThickness: { min: 2, if_missing: hold }", [THIN, NONE], "not_met",
     "1; missing in 1 of 2"),
    ("SliceThickness: { present: yes }", [THICK, NONE], "not_met", "5; missing in 1 of 2"),
    ("SliceThickness: { present: no }", [THICK, NONE], "not_met", "5; missing in 1 of 2"),
    ("SliceThickness: { present: yes }", [THICK, THIN], "met", "varies (2 values): 5, 1"),
    ("ImageType: { includes: LOCALIZER }", [CT, SCOUT], "met",
     "varies (2 values): ORIGINAL\\PRIMARY\\AXIAL, ORIGINAL\\PRIMARY\\LOCALIZER"),
    ("ImageType: { excludes: LOCALIZER }", [CT, SCOUT], "not_met",
     "varies (2 values): ORIGINAL\\PRIMARY\\AXIAL, ORIGINAL\\PRIMARY\\LOCALIZER"),
    ("ImageType: { includes: PRIMARY }", [CT, NONE], "met",
     "ORIGINAL\\PRIMARY\\AXIAL; missing in 1 of 2"),
    ("SliceThickness: { max: 9 }", [{"SliceThickness": [str(n)]} for n in range(9)], "met",
     "varies (9 values): 0, 1, 2, 3, ..."),
    ("Modality: { if_missing: hold, equals: CT }", [], "missing_hold", "missing"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "headers", "outcome", "found"), SEVERAL_INSTANCES)
def test_values_are_taken_from_all_instances(
    tmp_path: Path, line: str, headers: list[Header], outcome: str, found: str
) -> None:
    assert _outcome(tmp_path, line, headers) == (outcome, found)


@pytest.mark.parametrize(
    ("line", "headers", "outcome"),
    [
        ("Modality: CT", [{"Modality": None}], "missing_hold"),
        ("Modality: CT", [{"Modality": ["CT"]}, {"Modality": None}], "missing_hold"),
        ("Modality: CT", [{"Modality": ["MR"]}, {"Modality": None}], "not_met"),
        ("Modality: { present: yes }", [{"Modality": None}], "missing_hold"),
        ("Modality: { present: no }", [{"Modality": None}], "missing_hold"),
        ("Modality: { present: no }", [{"Modality": ["CT"]}, {"Modality": None}], "not_met"),
        ("Modality: { not: MR, if_missing: ignore }", [{"Modality": None}], "missing_hold"),
    ],
)
def test_what_a_header_is_too_long_to_tell_holds_a_rule(
    tmp_path: Path, line: str, headers: list[Header], outcome: str
) -> None:
    found = _outcome(tmp_path, line, headers)
    assert found[0] == outcome
    assert ("too long" in found[1]) == any(header["Modality"] is None for header in headers)


def test_the_worst_pattern_that_is_allowed_ends_soon_on_the_worst_text(tmp_path: Path) -> None:
    line = "StudyDescription: { matches: '(?i)a.*a.*a.*b' }"
    started = time.perf_counter()

    outcome, _ = _outcome(tmp_path, line, [{"StudyDescription": ["a" * 10_000]}])

    assert outcome == "not_met"
    assert time.perf_counter() - started < 20


def test_what_was_found_is_short_and_printable(tmp_path: Path) -> None:
    hostile = "\x1b[31m" + "x" * 500

    _, found = _outcome(tmp_path, "StudyDescription: a", [{"StudyDescription": [hostile]}])

    assert found.startswith("�[31mxxx")
    assert found.endswith("...")
    assert len(found) == 163


def test_every_rule_is_decided_and_all_that_match_run(tmp_path: Path) -> None:
    rules = _rules(
        tmp_path,
        "mode: live\nwhen: { Modality: CT }",
        "mode: live\nwhen: { Modality: MR, ImageType: { excludes: AXIAL } }",
        "mode: off\nwhen: { Modality: CT }",
        "mode: shadow\nwhen: { Modality: CT, PatientAge: { min: 18y, if_missing: hold } }",
        "mode: shadow\nwhen: { Modality: { any_of: [CT, MR] } }",
    )

    decisions = decide(rules, _facts([CT, CT]))

    assert [(d.rule, d.outcome) for d in decisions] == [
        ("rule-0", "matched"),
        ("rule-1", "not_matched"),
        ("rule-2", "off"),
        ("rule-3", "held"),
        ("rule-4", "matched"),
    ]
    assert [d.sentence for d in decisions] == [
        "Scored: rule rule-0 matches.",
        "Not scored: rule rule-1 wants Modality MR, found CT; "
        "ImageType excludes AXIAL, found ORIGINAL\\PRIMARY\\AXIAL.",
        "Not scored: rule rule-2 is off.",
        "Held: rule rule-3 needs PatientAge, which is missing.",
        "Scored: rule rule-4 matches. Its results stay in the node (shadow).",
    ]
    assert all(
        len(d.conditions) == len(r.conditions) for d, r in zip(decisions, rules, strict=True)
    )


def test_a_line_that_fails_outweighs_a_line_that_waits(tmp_path: Path) -> None:
    (rule,) = _rules(
        tmp_path, "mode: live\nwhen: { PatientAge: { min: 18y, if_missing: hold }, Modality: MR }"
    )

    assert decide([rule], _facts([CT]))[0].outcome == "not_matched"


STOPS = [
    ("mode: live\nwhen: { Modality: CT }\nstop: yes", "stopped"),
    ("mode: shadow\nwhen: { Modality: CT }\nstop: yes", "matched"),
    ("mode: off\nwhen: { Modality: CT }\nstop: yes", "matched"),
    ("mode: live\nwhen: { Modality: MR }\nstop: yes", "matched"),
    ("mode: live\nwhen: { PatientAge: { min: 1y, if_missing: hold } }\nstop: yes", "held"),
]


@pytest.mark.parametrize(
    ("first", "outcome"), STOPS, ids=["live", "shadow", "off", "other", "held"]
)
def test_a_rule_that_stops_ends_the_list_only_when_it_is_live_and_matches(
    tmp_path: Path, first: str, outcome: str
) -> None:
    rules = _rules(
        tmp_path, first, "mode: live\nwhen: { ImageType: { includes: AXIAL } }",
        "mode: live\nwhen: { Modality: PT }",
    )  # fmt: skip

    _, second, third = decide(rules, _facts([CT]))

    assert second.outcome == outcome
    assert third.outcome == "not_matched"


def test_a_series_that_is_proved_incomplete_is_held_and_never_scored(tmp_path: Path) -> None:
    rules = _rules(
        tmp_path, "mode: live\nwhen: { Modality: CT }", "mode: live\nwhen: { Modality: MR }"
    )

    held, other = decide(rules, _facts([CT], "proved_incomplete"))

    assert (held.outcome, other.outcome) == ("held", "not_matched")
    assert "images of the series are missing" in held.sentence
    for verdict in ("proved_complete", "quiet", "forced"):
        assert decide(rules, _facts([CT], verdict))[0].outcome == "matched"


def test_our_own_results_are_never_scored(tmp_path: Path) -> None:
    rules = _rules(tmp_path, "mode: live\nwhen: { Modality: CT }")

    (decision,) = decide(rules, _facts([CT], own_result=True))

    assert decision.outcome == "not_matched"
    assert "scorenode made this series" in decision.sentence


def _real_series(folder: Path, rules: Sequence[Rule]) -> dict[str, list[Header]]:
    """Headers of every series of a folder, as the receiver collects them."""
    series: dict[str, list[Header]] = {}
    keys = header_keys(rules) | {"SeriesInstanceUID"}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            read_preamble(file, force=False)
            syntax = str(_read_file_meta_info(file).TransferSyntaxUID)
            values = scan(file.read(), syntax, keys).values
        [uid] = values["SeriesInstanceUID"] or [""]
        series.setdefault(str(uid), []).append(values)
    return series


def test_the_first_rule_takes_the_axial_series_of_a_real_study_and_not_its_scout(
    tmp_path: Path,
) -> None:
    path = tmp_path / "scorenode.yaml"
    path.write_text(default_config(Path("data")))
    rules = load(path).rules
    study = _real_series(shared("ct_head_phantom_philips_study", "dicom"), rules)

    decided = {len(headers): decide(rules, _facts(headers))[0] for headers in study.values()}

    assert {n: decision.outcome for n, decision in decided.items()} == {
        1: "not_matched",
        28: "matched",
    }
    assert "ImageType includes ORIGINAL, PRIMARY and excludes LOCALIZER" in decided[1].sentence


def test_the_first_rule_takes_no_mr(tmp_path: Path) -> None:
    path = tmp_path / "scorenode.yaml"
    path.write_text(default_config(Path("data")))
    rules = load(path).rules
    (headers,) = _real_series(shared("t1_siemens_xa30_enhanced", "dicom"), rules).values()

    assert decide(rules, _facts(headers))[0].outcome == "not_matched"


def test_decisions_survive_the_database(tmp_path: Path) -> None:
    rules = _rules(tmp_path, "mode: live\nwhen: { Modality: CT, StudyDescription: äöü }")

    for decision in decide(rules, _facts([CT])):
        assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision


def test_the_header_scan_collects_what_rules_name_and_the_usual_attributes(tmp_path: Path) -> None:
    rules = _rules(
        tmp_path,
        "mode: live\nwhen:\n  RequestAttributesSequence.ScheduledProcedureStepID: A\n"
        '  (0029,1010 "ACME"): B\n  (0008,103E): C\n  (0019,10aB): D',
    )

    keys = header_keys(rules)

    assert keys > ROUTING_KEYS
    assert keys - ROUTING_KEYS >= {
        "RequestAttributesSequence.ScheduledProcedureStepID",
        "(0029,0010)",
        "(0029,1010)",
        "(0029,1110)",
        "(0019,10ab)",
    }
    assert "SeriesDescription" in keys


def test_a_rule_that_has_expired_is_off(tmp_path: Path) -> None:
    rules = _rules(tmp_path, "mode: live\nexpires: 2026-03-01\nwhen: { Modality: CT }")

    before, after = (
        decide(rules, _facts([CT]), today=day)[0] for day in (date(2026, 2, 28), date(2026, 3, 1))
    )

    assert (before.outcome, after.outcome) == ("matched", "off")
    assert "expired on 2026-03-01" in after.sentence
    assert after.runs == ()


def test_a_canary_is_live_for_its_share_of_the_studies_and_always_for_the_same(
    tmp_path: Path,
) -> None:
    (rule,) = _rules(tmp_path, "mode: { canary: 20% }\nwhen: { Modality: CT }")
    studies = [f"1.2.{number}" for number in range(1000)]

    modes = [
        decide([rule], SeriesFacts(uid, "1.2.3.4", "CT", [CT], 1, "quiet"))[0].mode
        for uid in studies * 2
    ]

    assert modes[:1000] == modes[1000:]
    assert 160 <= modes[:1000].count("live") <= 240
    assert set(modes) == {"live", "shadow"}


@pytest.mark.parametrize(
    ("policy", "outcome"), [("hold", "held"), ("run", "matched"), ("discard", "not_matched")]
)
def test_a_rule_says_what_becomes_of_an_incomplete_series(
    tmp_path: Path, policy: str, outcome: str
) -> None:
    rules = _rules(
        tmp_path,
        f"mode: live\nwhen: {{ Modality: CT }}\ncompletion: {{ if_incomplete: {policy} }}",
    )

    assert decide(rules, _facts([CT], "proved_incomplete"))[0].outcome == outcome


def _study(*thicknesses: float) -> list[SeriesFacts]:
    return [
        SeriesFacts(
            "1.2.3",
            f"1.2.3.{number}",
            "CT",
            [{**CT, "SliceThickness": [thickness], "SeriesDate": [f"2026010{number}"]}] * number,
            number,
            "quiet",
        )
        for number, thickness in enumerate(thicknesses, 1)
    ]


PICKS = [
    ("pick: [ { nearest: { SliceThickness: 5mm } } ]", [1, 4, 8], ["2"]),
    ("pick: [ most_slices ]", [1, 5, 8], ["3"]),
    ("pick: [ newest ]", [1, 5, 8], ["3"]),
    ("pick: [ oldest ]", [1, 5, 8], ["1"]),
    ("pick: [ { nearest: { SliceThickness: 5 } }, newest ]", [4, 6, 8], ["2"]),
    ("if_ambiguous: each, pick: [ { nearest: { SliceThickness: 5 } } ]", [4, 6, 8], ["1", "2"]),
    ("if_ambiguous: best, pick: [ { nearest: { SliceThickness: 5 } } ]", [4, 6, 8], ["1"]),
    ("header: { SliceThickness: { max: 5 } }, pick: [ newest ]", [4, 5, 8], ["2"]),
]


@pytest.mark.parametrize(("line", "thicknesses", "taken"), PICKS, ids=[p[0] for p in PICKS])
def test_a_rule_picks_among_the_series_of_a_study(
    tmp_path: Path, line: str, thicknesses: list[float], taken: list[str]
) -> None:
    rules = _rules(
        tmp_path, f"mode: live\nwhen: {{ Modality: CT }}\ninputs: {{ ct: {{ {line} }} }}"
    )
    series = _study(*thicknesses)

    (decision,) = decide(rules, series[0], StudyFacts(series))

    assert decision.outcome == "matched"
    assert [run["ct"][-1] for run in decision.runs] == taken
    assert len(decision.inputs[0].candidates) == len(thicknesses)
    assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision


def test_series_that_nothing_tells_apart_are_held_and_all_are_named(tmp_path: Path) -> None:
    rules = _rules(tmp_path, "mode: live\nwhen: { Modality: CT }\nlevel: study\ninputs: { ct: {} }")
    series = _study(5, 5)

    (decision,) = decide(rules, series[0], StudyFacts(series))

    assert decision.outcome == "held"
    assert "2 series fit" in decision.sentence
    assert decision.runs == ({"ct": "1.2.3.1"},)


def test_an_input_that_waits_for_a_missing_value_holds_the_rule(tmp_path: Path) -> None:
    rules = _rules(
        tmp_path,
        "mode: live\nwhen: { Modality: CT }\nlevel: study\n"
        "inputs: { ct: { header: { PatientAge: { min: 18y, if_missing: hold } } } }",
    )
    series = _study(5)

    (decision,) = decide(rules, series[0], StudyFacts(series))

    assert decision.outcome == "held"
    assert "PatientAge is missing" in decision.sentence


NAME = "Schädel-Übersicht"
CHARACTER_SETS = {
    "Latin-1": ("ISO_IR 100", NAME.encode("latin-1")),
    "UTF-8": ("ISO_IR 192", NAME.encode()),
    "Latin-1 by code extension": ("\\ISO 2022 IR 100", b"\x1b-A" + NAME.encode("latin-1")),
    "GB18030": ("GB18030", NAME.encode("gb18030")),
    "UTF-8 with accents of their own": (
        "ISO_IR 192",
        unicodedata.normalize("NFD", NAME).encode(),
    ),
}


@pytest.mark.parametrize("charset", CHARACTER_SETS)
def test_a_rule_with_an_umlaut_matches_whatever_the_character_set(
    tmp_path: Path, charset: str
) -> None:
    term, raw = CHARACTER_SETS[charset]
    rules = _rules(
        tmp_path,
        "mode: live\nwhen:\n  StudyDescription: { matches: '(?i)^SCHÄDEL' }",
        "mode: live\nwhen: { StudyDescription: schädel-übersicht }",
    )
    elements = {0x00080005: (b"CS", term.encode()), 0x00081030: (b"LO", raw)}
    data = b"".join(
        struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value) + len(value) % 2)
        + value
        + b" " * (len(value) % 2)
        for tag, (vr, value) in elements.items()
    )

    header = scan(data, "1.2.840.10008.1.2.1", header_keys(rules)).values

    assert [d.outcome for d in decide(rules, _facts([header]))] == ["matched", "matched"]
