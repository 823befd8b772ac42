"""What can be said of a volume without patient data: for rules, reports and people."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydicom.dataset import Dataset

from pipelines.steps.frames import MULTI_FRAME
from pipelines.steps.geometry import gap_sentence, nearest_plane
from pipelines.steps.split import Stack

TIMING = {
    "EchoTime": "echo_time_ms",
    "EffectiveEchoTime": "echo_time_ms",
    "InversionTime": "inversion_time_ms",
    "TriggerTime": "trigger_time_ms",
    "DiffusionBValue": "b_value",
    "TemporalPositionIdentifier": "temporal_position",
    "TemporalPositionIndex": "temporal_position",
}
"""Attributes that all images of a volume may share, and the facts they become."""

Facts = Mapping[str, str | float | int | bool]


def facts_of(ds: Dataset, stack: Stack, padding: float | None = None) -> Facts:
    """Describe a volume.

    Parameters
    ----------
    ds : Dataset
        Header of one of its instances.
    stack : Stack
    padding : float or None
        Which part of its voxels is padding; None before pixels are read.

    Returns
    -------
    mapping
        ``modality plane obliquity_degrees columns rows slices frames column_spacing_mm
        row_spacing_mm slice_step_mm smallest_step_mm largest_step_mm even gap_free missing
        tilt_degrees coverage_mm orientation padding_fraction multi_frame``, what of `TIMING` is
        known, and ``only_<keyword>`` for what sets the volume apart in its series.
    """
    grid, frames = stack.grid, stack.frames
    steps = np.linalg.norm(grid.affine[:3, :2], axis=0)
    normal = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    plane, off = nearest_plane(normal / np.linalg.norm(normal))
    low, high = grid.step_range_mm
    return {
        "modality": str(ds.get("Modality") or ""),
        "plane": plane,
        "obliquity_degrees": round(off, 2),
        "orientation": orientation_letters(grid.affine),
        "columns": frames[0].columns,
        "rows": frames[0].rows,
        "slices": len(frames),
        "column_spacing_mm": round(float(steps[0]), 5),
        "row_spacing_mm": round(float(steps[1]), 5),
        "slice_step_mm": round(grid.slice_step_mm, 5),
        "smallest_step_mm": round(low, 5),
        "largest_step_mm": round(high, 5),
        "even": grid.origins is None,
        "gap_free": not grid.missing,
        "missing": gap_sentence(grid),
        "tilt_degrees": round(grid.tilt_degrees, 3),
        "sheared": grid.is_sheared,
        "coverage_mm": round(grid.extent_mm + grid.slice_step_mm, 3),
        **({} if padding is None else {"padding_fraction": round(padding, 5)}),
        "multi_frame": ds.SOPClassUID in MULTI_FRAME,
        **_timing(stack),
        **{f"only_{keyword}": value for keyword, value in stack.names.items()},
    }


def orientation_letters(affine: np.ndarray) -> str:
    """Anatomical direction in which each axis runs, nearest first: ``LPS``."""
    letters = (("R", "L"), ("A", "P"), ("S", "I"))
    found = ""
    for axis in range(3):
        direction = affine[:3, axis]
        nearest = int(np.argmax(np.abs(direction)))
        found += letters[nearest][int(direction[nearest] < 0)]
    return found


def _timing(stack: Stack) -> Facts:
    facts: dict[str, float] = {}
    for keyword, name in TIMING.items():
        values = {frame.kind.get(keyword, "") for frame in stack.frames}
        if len(values) != 1:
            continue
        try:
            facts[name] = float(values.pop())
        except ValueError:
            continue
    return facts
