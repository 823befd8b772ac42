"""Where pixels of source images truly are, from their headers; apart from the code it checks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy.ndimage import map_coordinates

SAMPLES = 400
CT_MR = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4")


@dataclass(frozen=True, eq=False)
class SourceImage:
    """Pixels of one image.

    Parameters
    ----------
    points : NDArray
        Pixel centres, RAS+ millimetres, shape (n, 3).
    values : NDArray
        Modality values, shape (n,).
    """

    points: NDArray[np.float64]
    values: NDArray[np.float64]


def source_images(folder: Path) -> list[SourceImage]:
    """Sample the CT and MR images of a folder, but for localizers, mosaics and single images."""
    found: list[SourceImage] = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found += _images(dcmread(path))
            except Exception:  # noqa: BLE001, S112 - what cannot be read has no pixels to look up
                continue
    return found if len(found) > 1 else []


def best_agreement(images: Sequence[SourceImage], volumes: Sequence[Any]) -> NDArray[np.float64]:
    """Correlation of each image with that volume which agrees best, shape (images,)."""
    best = np.full(len(images), -1.0)
    for volume in volumes:
        array = np.asarray(volume.dataobj, np.float32)
        if array.ndim > 4 or array.ndim < 3:
            continue
        inverse = np.linalg.inv(volume.affine)
        for moment in np.moveaxis(array, 3, 0) if array.ndim == 4 else [array]:
            for k, image in enumerate(images):
                best[k] = max(best[k], _agreement(image, moment, inverse))
    return best


def _agreement(
    image: SourceImage, array: NDArray[np.float32], inverse: NDArray[np.float64]
) -> float:
    places = inverse[:3, :3] @ image.points.T + inverse[:3, 3:]
    sizes = np.array(array.shape)[:, None]
    if ((places < -0.51) | (places > sizes - 0.49)).any():
        return -1.0
    found = map_coordinates(array, np.clip(places, 0, sizes - 1), order=1)
    if np.ptp(image.values) == 0:
        return 1.0 if np.ptp(found) < 1e-3 * max(1.0, abs(float(found[0]))) else 0.0
    if np.ptp(found) == 0:
        return 0.0
    return float(np.corrcoef(found, image.values)[0, 1])


def _images(ds: Dataset) -> Iterator[SourceImage]:
    sop_class = str(ds.get("SOPClassUID") or ds.file_meta.MediaStorageSOPClassUID)
    kind = [str(value) for value in ds.get("ImageType") or []]
    if "LOCALIZER" in kind or "MOSAIC" in kind:
        return
    if not (sop_class in CT_MR or sop_class.startswith(tuple(f"{uid}." for uid in CT_MR))):
        return
    pixels = ds.pixel_array
    if ds.get("PerFrameFunctionalGroupsSequence"):
        shared = ds.SharedFunctionalGroupsSequence[0]
        for plane, own in zip(pixels, ds.PerFrameFunctionalGroupsSequence, strict=True):
            levels = [
                item[0]
                for level in (own, shared)
                for item in (
                    level.get("PlanePositionSequence"),
                    level.get("PlaneOrientationSequence"),
                    level.get("PixelMeasuresSequence"),
                    level.get("PixelValueTransformationSequence"),
                )
                if item
            ]
            yield _image(plane, levels)
    else:
        yield _image(pixels, [ds])


def _image(pixels: NDArray[np.integer], levels: Sequence[Dataset]) -> SourceImage:
    def value(keyword: str, default: object = None) -> NDArray[np.float64]:
        found = next((level.get(keyword) for level in levels if keyword in level), default)
        return np.array(found, dtype=np.float64)

    position, cosines = value("ImagePositionPatient"), value("ImageOrientationPatient")
    spacing = value("PixelSpacing")
    scatter = np.random.default_rng(1)
    rows = scatter.integers(pixels.shape[0], size=SAMPLES)
    columns = scatter.integers(pixels.shape[1], size=SAMPLES)
    lps = position + np.outer(columns * spacing[1], cosines[:3])
    lps = lps + np.outer(rows * spacing[0], cosines[3:])
    padding = next((level.get("PixelPaddingValue") for level in levels), None)
    if padding is not None:  # whose place is known, and whose value means nothing
        kept = pixels[rows, columns] != padding
        rows, columns, lps = rows[kept], columns[kept], lps[kept]
    values = pixels[rows, columns] * value("RescaleSlope", 1) + value("RescaleIntercept", 0)
    return SourceImage(lps * (-1, -1, 1), np.asarray(values, np.float64))
