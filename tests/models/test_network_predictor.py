"""Packaged networks of any kind: they label what they were made to label, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.loading import load_predictor
from models.package import load_package
from tests.models.small import shades_volume, write_shades
from tests.models.tiny import orientations, quiet, turned


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shades(tmp_path_factory.mktemp("shades") / "shades")


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_structures_are_labelled_on_the_source_grid_whatever_its_axes(shades: Path) -> None:
    predictor = load_predictor(load_package(shades), "cpu")
    volume, truth = shades_volume()

    for axes, flips in orientations()[::7]:
        moved, turn = turned(volume, axes, flips)
        findings = predictor.predict(moved, quiet)

        assert findings.labels is not None
        for number in (1, 2):
            assert dice(findings.labels == number, turn(truth) == number) > 0.9
        ml = float((findings.labels == 1).sum()) * volume.voxel_ml
        assert findings.number("volume", 1) == pytest.approx(ml)
