"""A side is the patient's, and is named only where it is clear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import rotate

from models.base import Volume
from models.phantom_ct import make_head_ct
from sr_templates.laterality import side_of
from sr_templates.tiles import view_of
from tests.phantoms import Shape, ball, ct_series, ct_volume, oblique
from tests.sr_templates.objects import findings_of

pytestmark = pytest.mark.slow

BRAIN = (40.0, 80.0)
SHAPE = Shape(columns=95, rows=111, slices=17, spacing=(2.1, 1.9, 9.0), center=(34.5, -20.25, 31.0))
LEFT, RIGHT, MIDDLE = (-30.0, 10.0, 12.0), (30.0, 10.0, 12.0), (0.0, -10.0, 12.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def marked(shape: Shape, *centers: tuple[float, float, float]) -> NDArray[np.uint8]:
    labels = np.zeros((shape.columns, shape.rows, shape.slices), np.uint8)
    for center in centers:
        labels[ball(shape, center, (12.0, 14.0, 14.0))] = 1
    return labels


def side(volume: Volume, labels: NDArray[np.uint8]) -> str | None:
    return side_of(view_of(volume, BRAIN), findings_of(labels, volume))


@pytest.mark.parametrize(
    ("centers", "wanted"),
    [
        ([LEFT], "left"),
        ([RIGHT], "right"),
        ([LEFT, RIGHT], "both sides"),
        ([MIDDLE], None),
        ([(5.0, 10.0, 12.0)], None),
        ([], None),
    ],
    ids=["left", "right", "both", "middle", "nearly middle", "nothing"],
)
@pytest.mark.parametrize("orientation", [SHAPE.orientation, PRONE, CORONAL])
def test_the_side_is_the_patients_in_every_orientation(
    orientation: tuple[float, ...], centers: list[tuple[float, float, float]], wanted: str | None
) -> None:
    shape = replace(SHAPE, orientation=orientation)
    volume = ct_volume(ct_series(shape), shape)

    assert side(volume, marked(shape, *centers)) == wanted


def test_a_side_is_not_read_off_sagittal_slices() -> None:
    shape = replace(SHAPE, orientation=oblique())
    volume = ct_volume(ct_series(shape), shape)

    assert side(volume, marked(shape, LEFT)) is None


@pytest.mark.parametrize(
    ("center", "wanted"),
    [((0.0, 50.0, 12.0), None), ((19.0, 50.0, 12.0), "right"), ((-19.0, 50.0, 12.0), "left")],
    ids=["middle", "right", "left"],
)
@pytest.mark.parametrize("degrees", [-20.0, 20.0])
def test_a_turned_head_has_a_turned_midline(
    degrees: float, center: tuple[float, float, float], wanted: str | None
) -> None:
    """Turned by 20 degrees, a frontal bleed in the middle lies 17 mm beside the table's middle."""
    shape = replace(SHAPE, columns=121, rows=121, spacing=(2.0, 2.0, 9.0))
    volume = ct_volume(ct_series(shape), shape)
    labels = np.zeros((121, 121, 17), np.uint8)
    labels[ball(shape, center, (9.0, 9.0, 14.0))] = 1

    head = rotate(volume.array, degrees, reshape=False, order=1, cval=-1000.0)
    blood = rotate(labels, degrees, reshape=False, order=0)

    assert side(replace(volume, array=head), blood) == wanted


def test_a_head_cut_in_half_has_no_side() -> None:
    volume = ct_volume(ct_series(SHAPE), SHAPE)
    array = volume.array.copy()
    array[: SHAPE.columns * 2 // 5] = -1000.0

    assert side(replace(volume, array=array), marked(SHAPE, LEFT)) is None


def test_an_empty_picture_has_no_side() -> None:
    volume = ct_volume(ct_series(SHAPE), SHAPE)
    air = replace(volume, array=np.full_like(volume.array, -1000.0))

    assert side(air, marked(SHAPE, LEFT)) is None


def test_a_side_is_said_of_heads_only() -> None:
    volume = ct_volume(ct_series(SHAPE), SHAPE)
    findings = findings_of(marked(SHAPE, LEFT), volume)
    liver = ("SCT", "10200004", "Liver")
    elsewhere = tuple(replace(s, anatomic_region=liver) for s in findings.segments)

    view = view_of(volume, BRAIN)

    assert side_of(view, findings) == "left"
    assert side_of(view, replace(findings, segments=elsewhere)) is None


def test_heads_with_one_sided_bleeds_get_the_side_of_the_blood() -> None:
    said = []
    for seed, kind in enumerate(["iph", "sdh", "edh"] * 3):
        phantom = make_head_ct(seed, kind, (1.6, 1.6, 6.0))
        labels = (phantom.labels > 0).astype(np.uint8)
        middle = phantom.volume.affine @ (*np.argwhere(labels).mean(axis=0), 1.0)
        if abs(middle[0]) > 20:
            said.append((side(phantom.volume, labels), "right" if middle[0] > 0 else "left"))

    assert len(said) >= 5
    assert all(found == wanted for found, wanted in said)
