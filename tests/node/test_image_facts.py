"""Geometry from headers, held against what a rule wants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from node.candidates import Evidence, SeriesFacts
from node.cli.folders import series_of
from node.config.conditions import Header
from node.image_facts import IMAGE_KEYS, image_facts
from node.routing import decide
from tests.node.test_routing import _rules
from tests.shared_data import shared

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SAGITTAL = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]


def _stack(heights: list[float], orientation: list[float] = AXIAL, **more: Any) -> list[Header]:
    return [
        {
            "ImageOrientationPatient": orientation,
            "ImagePositionPatient": [-100.0, -100.0, height],
            **more,
        }
        for height in heights
    ]


def _outcomes(tmp_path: Path, gate: str, headers: list[Header]) -> dict[str, tuple[str, str]]:
    (rule,) = _rules(
        tmp_path, f"mode: live\nwhen: {{ Rows: {{ min: 0, if_missing: ignore }} }}\n"
        f"inputs: {{ ct: {{ image: {gate} }} }}",
    )  # fmt: skip
    (decision,) = decide([rule], SeriesFacts("1", "1.2", "CT", headers, len(headers), "quiet"))
    lines = decision.conditions[1:]
    return {line.key.removeprefix("image."): (line.outcome, line.found) for line in lines}


EVEN = [5.0 * n for n in range(10)]
GATES = [
    ("{ plane: axial }", _stack(EVEN), {"plane": ("met", "axial")}),
    ("{ plane: axial }", _stack(EVEN, SAGITTAL), {"plane": ("not_met", "sagittal")}),
    ("{ slices: { min: 10, max: 10 } }", _stack(EVEN[::-1]), {"slices": ("met", "10")}),
    ("{ slices: { min: 11 } }", _stack(EVEN), {"slices": ("not_met", "10")}),
    ("{ slices: { min: 10 }, frames: { max: 19 } }", _stack(EVEN * 2),
     {"slices": ("met", "10"), "frames": ("not_met", "20")}),
    ("{ gap_free: yes }", _stack(EVEN), {"gap_free": ("met", "gap-free")}),
    ("{ gap_free: yes }", _stack(EVEN[:4] + EVEN[5:]), {"gap_free": ("not_met", "gaps")}),
    ("{ min_coverage: 50mm }", _stack(EVEN), {"min_coverage": ("met", "50mm")}),
    ("{ min_coverage: 51mm }", _stack(EVEN), {"min_coverage": ("not_met", "50mm")}),
    ("{ spacing: { max: 5mm } }", _stack(EVEN), {"spacing": ("met", "5mm")}),
    ("{ spacing: { max: 5mm } }", _stack([0, 5, 11]),
     {"spacing": ("not_met", "varies: 5mm to 6mm")}),
    ("{ orientation: single }", _stack(EVEN) + _stack(EVEN, SAGITTAL),
     {"orientation": ("not_met", "2 orientations")}),
    ("{ plane: axial, slices: { min: 1 } }", [{"Rows": [512]}],
     {"plane": ("not_met", "missing"), "slices": ("not_met", "missing")}),
    ("{ plane: axial, if_missing: ignore }", [{"Rows": [512]}],
     {"plane": ("missing_ignored", "missing")}),
    ("{ plane: axial, if_missing: hold }", [{"Rows": [512]}],
     {"plane": ("missing_hold", "missing")}),
    ("{ min_coverage: 4mm }", _stack([0.0], SliceThickness=["4"]),
     {"min_coverage": ("met", "4mm")}),
]  # fmt: skip


@pytest.mark.parametrize(("gate", "headers", "outcomes"), GATES, ids=[g[0] for g in GATES])
def test_a_gate_is_held_against_the_geometry(
    tmp_path: Path, gate: str, headers: list[Header], outcomes: dict[str, tuple[str, str]]
) -> None:
    assert _outcomes(tmp_path, gate, headers) == outcomes


@pytest.mark.parametrize("degrees", [0.0, 12.5, 25.0])
def test_the_tilt_of_a_gantry_is_known_from_positions_alone(tmp_path: Path, degrees: float) -> None:
    angle = math.radians(degrees)
    tilted = [1.0, 0.0, 0.0, 0.0, math.cos(angle), -math.sin(angle)]

    facts = image_facts(_stack(EVEN, tilted))

    assert facts.tilt_deg == pytest.approx(degrees, abs=1e-6)
    assert facts.spacing_mm == pytest.approx([5.0 * math.cos(angle)] * 2)
    found = _outcomes(tmp_path, "{ tilt: { max: 20deg } }", _stack(EVEN, tilted))
    assert found["tilt"][0] == ("met" if degrees < 20 else "not_met")


def test_frames_of_an_enhanced_image_count_as_slices(tmp_path: Path) -> None:
    folder = shared("t1_siemens_xa30_enhanced", "dicom")

    (series,), _ = series_of(folder, IMAGE_KEYS)
    facts = Evidence(
        SeriesFacts("1", "1.2", "MR", series.headers, len(series.headers), "quiet")
    ).image

    assert len(series.headers) == 1
    assert facts.slices == facts.frames == 96
    assert facts.gap_free
    assert facts.tilt_deg == pytest.approx(0.0, abs=0.1)


def test_the_geometry_of_a_real_head_ct(tmp_path: Path) -> None:
    folder = shared("ct_head_phantom_philips_study", "dicom")

    found, _ = series_of(folder, IMAGE_KEYS)
    facts = {len(series.headers): image_facts(series.headers) for series in found}

    assert (facts[28].plane, facts[28].slices, facts[28].gap_free) == ("axial", 28, True)
