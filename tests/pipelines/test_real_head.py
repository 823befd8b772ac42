"""The model that comes with scorenode on the head of a person, and on a lesion painted into it.

The head has no known bleed, a tilted gantry and unequal slices; see the data's README.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from scipy import ndimage

from models.catalogue import find_package
from pipelines.offline import score_folder
from tests.shared_data import shared

pytestmark = pytest.mark.slow

MODEL = find_package("haemorrhage-demo", ())
LESION_HU = 65.0
RADIUS_MM = 14.2
LESION_ML = 4 / 3 * np.pi * RADIUS_MM**3 / 1000
CENTER_RAS_MM = np.array((30.0, 25.0, 75.0))
"""In the white matter of the right frontal lobe."""
EDGE_MM = 2.0
GRAIN_MM = 4.0


@dataclass(frozen=True)
class Marked:
    """What was marked, on the straight grid: in all, and the part at the painted place."""

    volume_ml: float
    part_ml: float
    part_center_ras_mm: NDArray[np.float64]


def quiet(fraction: float, note: str) -> None:
    assert 0 <= fraction <= 1 + 1e-9


def painted(ds: Dataset) -> Dataset:
    """Replace brain by blood around a place: its mean is `LESION_HU`, its noise stays."""
    slope, intercept = float(ds.RescaleSlope), float(ds.RescaleIntercept)
    stored = ds.pixel_array
    image = stored * slope + intercept
    origin = np.array(ds.ImagePositionPatient, float)
    right, down = np.reshape(np.array(ds.ImageOrientationPatient, float), (2, 3))
    row_mm, column_mm = (float(step) for step in ds.PixelSpacing)
    index = np.moveaxis(np.indices(image.shape), 0, -1)  # row, column
    places = origin + index @ np.stack([row_mm * down, column_mm * right])
    away = np.linalg.norm(places * (-1, -1, 1) - CENTER_RAS_MM, axis=-1)
    share = np.clip((RADIUS_MM - away) / EDGE_MM + 0.5, 0, 1)
    grain = image - ndimage.gaussian_filter(image, GRAIN_MM / column_mm)
    image = (1 - share) * image + share * (LESION_HU + grain)
    ds.PixelData = np.rint((image - intercept) / slope).astype(stored.dtype).tobytes()
    return ds


def marked(folder: Path, out: Path) -> Marked:
    """Score a series as the node would, and look at its mask."""
    [outcome] = score_folder(folder, "haemorrhage", MODEL, out, quiet)
    assert outcome.verdict.outcome == "ok", outcome.verdict.sentence
    assert outcome.folder is not None
    mask = nib.Nifti1Image.from_filename(outcome.folder / "mask.nii.gz")
    parts, _ = ndimage.label(np.asarray(mask.dataobj) > 0, np.ones((3, 3, 3)))
    affine = np.asarray(mask.affine)
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    there = np.rint(np.linalg.inv(affine) @ [*CENTER_RAS_MM, 1.0])[:3].astype(int)
    number = int(parts[tuple(there)])
    part = (parts == number) & (number > 0)
    middle = np.full(3, np.nan)
    if number:
        middle = affine[:3, :3] @ np.argwhere(part).mean(axis=0) + affine[:3, 3]
    total = float(np.count_nonzero(parts) * ml)
    return Marked(total, float(np.count_nonzero(part) * ml), middle)


def test_a_head_without_blood_is_left_nearly_clean(tmp_path: Path) -> None:
    found = marked(shared("ct_head_ge_tilted", "dicom"), tmp_path)

    assert found.volume_ml < 0.5, found


def test_a_painted_lesion_is_found_measured_and_placed(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    for path in sorted(shared("ct_head_ge_tilted", "dicom").glob("*.dcm")):
        painted(dcmread(path)).save_as(tmp_path / "dicom" / path.name)

    found = marked(tmp_path / "dicom", tmp_path / "out")

    assert found.part_ml == pytest.approx(LESION_ML, rel=0.15), found
    assert np.linalg.norm(found.part_center_ras_mm - CENTER_RAS_MM) < 3.0, found
