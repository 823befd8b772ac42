"""The page shows the right slices, the right way round, in the right place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from models.base import Findings, Volume
from sr_templates.capture import TILE, capture, page
from sr_templates.check import problems
from sr_templates.part10 import to_bytes
from sr_templates.sheet import MARGIN, TOP
from sr_templates.tiles import chosen_slices, magnified, scout, tile, view_of
from tests.noise import dciodvfy
from tests.phantoms import Shape, ball, ct_series, ct_volume, oblique
from tests.sr_templates.objects import (
    MAKER,
    PHANTOM,
    bleeds,
    case,
    findings_of,
    identity,
    maker,
    save,
)

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
PRONE = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
FEET_UP = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def phantom(shape: Shape) -> Volume:
    return ct_volume(ct_series(shape), shape)


def flipped(volume: Volume, axis: int) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (volume.array.shape[axis] - 1)
    affine[:3, axis] *= -1
    return replace(volume, array=np.flip(volume.array, axis), affine=affine)


def swapped(volume: Volume) -> Volume:
    return replace(
        volume, array=volume.array.transpose(1, 0, 2), affine=volume.affine[:, [1, 0, 2, 3]]
    )


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        (PHANTOM.orientation, ("R", "L", "A", "P")),
        (PRONE, ("R", "L", "A", "P")),
        (FEET_UP, ("R", "L", "A", "P")),
        (CORONAL, ("R", "L", "S", "I")),
        (oblique(), ("A", "P", "S", "I")),
    ],
    ids=["axial", "prone", "feet up", "coronal", "oblique sagittal"],
)
def test_slices_are_shown_the_radiological_way(
    orientation: tuple[float, ...], letters: tuple[str, ...]
) -> None:
    volume = phantom(replace(PHANTOM, orientation=orientation))

    for turned in (volume, flipped(volume, 0), flipped(volume, 1), swapped(volume)):
        assert view_of(turned, None).letters == letters


def red_center(picture: NDArray[np.uint8]) -> tuple[float, float]:
    red = (picture[..., 0].astype(int) - picture[..., 2]) > 40
    rows, columns = np.nonzero(red)
    return float(columns.mean()), float(rows.mean())


@pytest.mark.parametrize("turn", [0, 1, 2, 3], ids=["as is", "columns", "rows", "swapped"])
def test_a_bleed_on_the_patients_right_is_drawn_on_the_left(turn: int) -> None:
    labels = ball(PHANTOM, (40.0, 30.0, 0.0), (12.0, 12.0, 12.0)).astype(np.float32)
    volume = replace(phantom(PHANTOM), array=labels * 1000)
    volume = (volume, flipped(volume, 0), flipped(volume, 1), swapped(volume))[turn]
    findings = findings_of((volume.array > 0).astype(np.uint8), volume)
    view = replace(view_of(volume, (40.0, 80.0)), box=(0, 52, 0, 60))

    picture, _ = tile(view, findings, 8, 300)

    x, y = red_center(np.asarray(picture))
    height_mm = 61 * 3.5
    assert x == pytest.approx(150 - 40.0 / height_mm * 300, abs=4)
    assert y == pytest.approx(150 - 30.0 / height_mm * 300, abs=4)


def test_a_round_lesion_is_round_on_non_square_pixels() -> None:
    shape = Shape(columns=120, rows=60, spacing=(1.5, 3.0, 9.0))
    labels = ball(shape, (0.0, 0.0, 0.0), (30.0, 30.0, 12.0)).astype(np.uint8)
    volume = phantom(shape)

    picture, _ = tile(view_of(volume, (40.0, 80.0)), findings_of(labels, volume), 8, 300)

    red = np.asarray(picture)[..., 0].astype(int) - np.asarray(picture)[..., 2] > 40
    rows, columns = np.nonzero(red)
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=6)


def test_the_slices_shown_hold_the_largest_and_one_of_each_segment() -> None:
    labels = np.zeros_like(bleeds(PHANTOM))
    labels[ball(PHANTOM, (30.0, 10.0, 30.0), (18.0, 18.0, 14.0))] = 1
    labels[25, 30, 2] = 2
    volume = phantom(PHANTOM)

    slices, largest = chosen_slices(findings_of(labels, volume), volume, 5)

    assert largest == int(np.count_nonzero(labels, axis=(0, 1)).argmax())
    assert {2, largest} <= set(slices)
    assert slices == sorted(set(slices))
    assert len(slices) == 5


def test_without_a_finding_slices_are_spread_evenly() -> None:
    volume = phantom(PHANTOM)

    slices, largest = chosen_slices(findings_of(np.zeros_like(bleeds(PHANTOM)), volume), volume, 6)

    assert largest is None
    assert len(slices) == 6
    assert set(np.diff(slices)) <= {1, 2, 3}
    assert slices[-1] - slices[0] >= 8


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("found", [True, False])
def test_a_thin_volume_still_makes_a_page(count: int, found: bool) -> None:
    shape = replace(PHANTOM, slices=count, spacing=(3.25, 3.5, 30.0))
    labels = np.zeros((shape.columns, shape.rows, count), np.uint8)
    labels[20:25, 20:28, 0] = int(found)
    volume = phantom(shape)

    pixels = page(findings_of(labels, volume), volume, MAKER)

    assert pixels.shape[1:] == (1024, 3)


def test_a_small_lesion_is_ringed_and_a_large_one_is_not() -> None:
    volume = phantom(PHANTOM)
    view = view_of(volume, (40.0, 80.0))
    small = np.zeros_like(bleeds(PHANTOM))
    small[30, 30, 8] = 1
    large = findings_of(bleeds(PHANTOM), volume)
    edge = np.flatnonzero((bleeds(PHANTOM) == 1).any(axis=(0, 1)))[0]

    assert len(tile(view, findings_of(small, volume), 8, TILE)[1]) == 1
    assert tile(view, large, int(edge), TILE)[1] == []


def test_a_small_lesion_is_magnified_about_its_middle() -> None:
    volume = phantom(PHANTOM)
    view = view_of(volume, (40.0, 80.0))
    small = np.zeros_like(bleeds(PHANTOM))
    small[30, 20, 8] = 1

    left, right, top, bottom = magnified(view, findings_of(small, volume), 8).box

    assert ((left + right) / 2, (top + bottom) / 2) == (30, 20)
    assert (right - left) * 3.25 == pytest.approx(50, abs=4)


@pytest.mark.parametrize("downwards", [False, True])
def test_the_scout_shows_the_head_up_and_where_slices_lie(downwards: bool) -> None:
    labels = np.zeros_like(bleeds(PHANTOM))
    labels[20:30, 25:35, 14] = 1
    volume = phantom(PHANTOM)
    if downwards:
        volume, labels = flipped(volume, 2), labels[:, :, ::-1]

    picture, middles = scout(view_of(volume, (40.0, 80.0)), findings_of(labels, volume), (300, 212))

    _, y = red_center(np.asarray(picture))
    assert middles == sorted(middles, reverse=not downwards)
    assert y == pytest.approx(2.5 / 17 * picture.height, abs=3)
    assert y == pytest.approx(middles[2 if downwards else 14], abs=2)


@pytest.mark.parametrize("found", [True, False], ids=["bleeds", "nothing"])
def test_the_capture_passes_dciodvfy_and_our_check(found: bool, tmp_path: Path) -> None:
    made = case(labels=None if found else np.zeros_like(bleeds(PHANTOM)))

    ds = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)

    path = save(ds, tmp_path / "capture.dcm")
    assert dciodvfy(path) == []
    assert problems(ds, made.sources) == []
    np.testing.assert_array_equal(dcmread(path).pixel_array[:TOP], page_top(made.findings))


def test_the_capture_of_an_unnamed_body_part_passes_dciodvfy(tmp_path: Path) -> None:
    sources = ct_series()
    for ds in sources:
        del ds.BodyPartExamined
    made = case(sources=sources)

    ds = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)

    assert dciodvfy(save(ds, tmp_path / "capture.dcm")) == []


def page_top(findings: Findings) -> NDArray[np.uint8]:
    return page(findings, phantom(PHANTOM), MAKER)[:TOP]


def test_the_top_of_the_page_is_free_of_text() -> None:
    top = page_top(case().findings)

    assert len(np.unique(top.reshape(-1, 3), axis=0)) == 1


def test_the_caution_is_yellow_for_demonstration_and_not_there_for_clinical_use() -> None:
    made = case()
    yellow = np.array((255, 214, 10))

    demonstration = page(made.findings, made.volume, MAKER)
    clinical = page(made.findings, made.volume, maker("clinical"))

    assert ((demonstration == yellow).all(axis=2).sum(axis=1) > 500).sum() > 20
    assert ((clinical == yellow).all(axis=2).sum(axis=1) > 500).sum() == 0


def test_drawing_twice_gives_the_same_bytes() -> None:
    first, second = case(), case(sources=ct_series()[::-1])

    assert to_bytes(
        capture(first.findings, first.volume, first.clean, identity("capture"), MAKER)
    ) == to_bytes(capture(second.findings, second.volume, second.clean, identity("capture"), MAKER))


def test_another_patient_gives_the_same_pixels() -> None:
    made = case()
    other = case(sources=ct_series(patient_name="Somebody^Else"))

    first = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    second = capture(other.findings, other.volume, other.clean, identity("capture"), MAKER)

    assert first.PixelData == second.PixelData


def test_tiles_carry_the_instance_number_where_slices_are_instances() -> None:
    made = case()

    counted = page(made.findings, made.volume, MAKER)
    named = page(
        made.findings,
        made.volume,
        MAKER,
        instance_numbers={i: 17 - i for i in range(17)},
    )

    assert counted.shape == named.shape
    assert (counted != named).any()
    np.testing.assert_array_equal(counted[:, : MARGIN - 1], named[:, : MARGIN - 1])
