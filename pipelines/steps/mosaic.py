"""Siemens mosaics: the slices of one volume side by side in one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, sqrt
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from pipelines.base import NotScored
from pipelines.steps.frames import Frame, Tile, image_frames, number
from pipelines.steps.geometry import FloatArray, Plane

MAX_TILES = 1024


def mosaic_frames(ds: Dataset, instance: int = 0) -> list[Frame]:
    """Cut the slices of a mosaic.

    The position in the header is where the first pixel of the whole image would lie if one tile
    of that size lay around the same centre; slices follow each other along the slice normal of
    the private header.

    Parameters
    ----------
    ds : Dataset
    instance : int
        Its place in the series.

    Raises
    ------
    NotScored
        As of `image_frames`, or the private header does not say how many slices there are and
        where.

    References
    ----------
    nibabel, "Siemens mosaic format" (nipy.org/nibabel/dicom/dicom_mosaic.html).
    """
    name = f"Instance {ds.SOPInstanceUID}"
    private = _private_header(ds)
    count = _count(private)
    side = ceil(sqrt(count)) if count else 0
    whole, *further = image_frames(ds, instance)
    if further or not 2 <= count <= MAX_TILES or whole.rows % side or whole.columns % side:
        raise NotScored("mosaic", f"{name} is a mosaic of an unknown number of slices.")
    rows, columns = whole.rows // side, whole.columns // side
    plane = whole.plane
    margin = np.array([whole.rows - rows, whole.columns - columns]) / 2
    along_row, along_column = plane.orientation[:3], plane.orientation[3:]
    first = (
        plane.position
        + along_column * margin[0] * plane.spacing[0]
        + along_row * margin[1] * plane.spacing[1]
    )
    stride = _normal(private, np.cross(along_row, along_column)) * _step(name, ds)
    return [
        replace(
            whole,
            rows=rows,
            columns=columns,
            plane=Plane(first + stride * k, plane.orientation, plane.spacing),
            tile=Tile(k // side * rows, k % side * columns),
        )
        for k in range(count)
    ]


def _private_header(ds: Dataset) -> Mapping[str, Any]:
    """CSA Image Header Info; empty where it cannot be read."""
    from nibabel.nicom import csareader

    try:
        found = csareader.get_csa_header(ds, "image")
    except Exception:  # noqa: BLE001 - damaged private data raises what it likes
        return {}
    tags: Mapping[str, Any] = found["tags"] if found else {}
    return tags


def _values(private: Mapping[str, Any], name: str) -> list[float]:
    try:
        return [float(value) for value in private[name]["items"]]
    except (KeyError, TypeError, ValueError):
        return []


def _count(private: Mapping[str, Any]) -> int:
    found = _values(private, "NumberOfImagesInMosaic")
    return int(found[0]) if found and np.isfinite(found[0]) else 0


def _normal(private: Mapping[str, Any], normal: FloatArray) -> FloatArray:
    """Slice normal, turned to the side on which the private header has it."""
    found = _values(private, "SliceNormalVector")
    if len(found) == 3 and float(np.dot(found, normal)) < 0:
        return -normal
    return normal


def _step(name: str, ds: Dataset) -> float:
    step = number(ds, "SpacingBetweenSlices")
    if step is None or step <= 0:
        raise NotScored("missing_attribute", f"{name} is a mosaic without SpacingBetweenSlices.")
    return step
