"""Any SR document can be read at a terminal."""

from __future__ import annotations

import pytest
from pydicom import dcmread
from pydicom.misc import is_dicom

from sr_templates.text import render, series_line
from tests.shared_data import shared
from tests.sr_templates.objects import case


def test_the_tree_is_indented_and_names_values_with_units() -> None:
    text = render(case().sr)

    assert "\nImaging Measurement Report (TID 1500)\n" in text
    assert "\n    Measurement Group (TID 1411)\n" in text
    assert "\n      Finding: Hemorrhage\n" in text
    assert " ml\n        Measurement Method: Sum of segmented voxel method for volume\n" in text
    assert "      Referenced Segment: Segmentation Storage " in text


def test_the_text_does_not_name_the_patient() -> None:
    made = case()

    text = render(made.sr) + series_line(made.segmentation)

    assert "ller" not in text
    assert "PHANTOM-1" not in text


def test_a_series_line_tells_what_and_how_much() -> None:
    made = case()

    assert series_line(made.segmentation).startswith("SEG  series 9001  Haemorrhage seg (AI)")
    assert "2 segments" in series_line(made.segmentation)
    assert series_line(made.sources[0]) == "CT  series 2  Head  53 x 61"


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_reports_by_others_are_rendered() -> None:
    folder = shared("seg_and_sr_by_others")
    reports = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and is_dicom(p)):
        ds = dcmread(path, stop_before_pixels=True)
        if ds.get("Modality") == "SR":
            reports.append(render(ds))

    assert len(reports) >= 3
    for text in reports:
        assert len(text.splitlines()) > 10
        assert "Finding" in text
