"""A contour holds what was marked, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from sr_templates.contours import Polygon, area, marked_slices, polygons
from sr_templates.report import source_image
from tests.sr_templates.objects import bleeds, case


def filled(outlines: list[Polygon], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside, each ring by the even-odd rule."""
    rows, columns = np.indices(shape)
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    inside = np.zeros(len(centres), bool)
    for outline in outlines:
        inside |= Outline(np.concatenate([outline, outline[:1]]), closed=True).contains_points(
            centres
        )
    return inside.reshape(shape)


def disc(radius: float, hole: float = 0.0) -> NDArray[np.bool_]:
    rows, columns = np.indices((41, 53))
    away = np.hypot(rows - 17, columns - 30)
    return np.asarray((away <= radius) & (away >= hole))


@settings(max_examples=60, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_the_pixels_inside_are_those_that_were_marked(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(filled(polygons(mask), mask.shape), mask)


def test_a_hole_is_joined_to_its_outline() -> None:
    mask = disc(14.0, hole=6.0)

    outlines = polygons(mask)

    assert len(outlines) == 1
    assert np.array_equal(filled(outlines, mask.shape), mask)
    assert area(outlines[0]) == pytest.approx(mask.sum(), rel=0.03)


def test_straight_stretches_have_no_points_between_their_ends() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:15, 5:25] = True

    assert len(polygons(mask)[0]) == 8


def test_the_largest_outline_comes_first() -> None:
    mask = disc(9.0)
    mask[0:2, 0:3] = True

    sizes = [area(outline) for outline in polygons(mask)]

    assert len(sizes) == 2
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_marked_slices_hold_every_labelled_voxel(kind: str) -> None:
    made = case(kind=kind)  # type: ignore[arg-type]

    counted = {1: 0, 2: 0}
    for one in marked_slices(made.segmentation):
        counted[one.segment] += int(one.mask.sum())
        assert source_image(one.group)[1] in {str(ds.SOPInstanceUID) for ds in made.sources}

    labels = bleeds_of()
    assert counted == {1: int((labels == 1).sum()), 2: int((labels == 3).sum())}


def bleeds_of() -> NDArray[np.uint8]:
    """Labels of the default case: segments 1 and 2 of its SEG are numbers 1 and 3."""
    from tests.sr_templates.objects import PHANTOM

    return bleeds(PHANTOM)
