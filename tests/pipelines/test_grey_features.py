"""The table of features of an archive: what is no head has a reason, and a run goes on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipelines.base import Misconfigured
from pipelines.grey_features import COLUMNS, write_features
from tests.shared_data import shared


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _quiet(fraction: float, note: str) -> None:
    assert 0 <= fraction <= 1
    assert note


def test_a_bottle_has_a_row_that_says_why_it_was_not_measured(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"

    count = write_features(shared("mr_multiecho_phantom_siemens"), out, _quiet)

    assert (count.measured, count.refused, count.known) == (0, 1, 0)
    (row,) = _rows(out)
    assert row["verdict"] == "not_scored"
    assert row["reason"]
    assert row["sentence"].endswith(".")
    assert row["gm_ml"] == ""


def test_a_second_run_passes_over_what_has_a_row(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    folder = shared("mr_multiecho_phantom_siemens")
    write_features(folder, out, _quiet)
    before = out.read_bytes()

    count = write_features(folder, out, _quiet)

    assert (count.measured, count.refused, count.known) == (0, 0, 1)
    assert out.read_bytes() == before


def test_a_row_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    folder = shared("mr_multiecho_phantom_siemens")
    write_features(folder, out, _quiet)
    whole = out.read_bytes()
    out.write_bytes(whole[:-20])

    count = write_features(folder, out, _quiet)

    assert count.refused == 1
    assert out.read_bytes() == whole


def test_a_table_of_other_columns_is_not_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"
    out.write_text("a,b\n1,2\n")

    with pytest.raises(Misconfigured, match="other columns"):
        write_features(tmp_path, out, _quiet)


@pytest.mark.slow
def test_a_real_head_has_volumes(tmp_path: Path) -> None:
    out = tmp_path / "features.csv"

    count = write_features(shared("t1_siemens_xa30_enhanced", "dicom"), out, _quiet)

    assert count.measured == 1
    (row,) = _rows(out)
    assert tuple(row) == COLUMNS
    assert 500 < float(row["gm_ml"]) < 900
    assert 2 < float(row["hippocampus_left_ml"]) < 7
