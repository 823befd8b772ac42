"""A volume as NIfTI: dicom2nifti's file where it is right, ours otherwise."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Volume
from pipelines.steps.geometry import FloatArray
from pipelines.steps.read import third_party_warnings_off

AFFINE_TOLERANCE_MM = 1e-2
VALUE_TOLERANCE = 1e-4
SCANNER = 1
"""NIfTI code of a transform to scanner coordinates."""


@dataclass(frozen=True, eq=False)
class _Image:
    """Voxels and their affine to RAS+ millimetres."""

    array: NDArray[np.float32]
    affine: FloatArray


def write_nifti(volume: Volume, datasets: Sequence[Dataset], path: Path) -> str:
    """Write a volume's voxels and grid as ``.nii.gz``.

    dicom2nifti converts the same datasets; its file is kept when its voxels and its affine equal
    the volume's up to the order and direction of axes, else ours is written.

    Parameters
    ----------
    volume : Volume
        Made from `datasets`.
    datasets : sequence of Dataset
        With their pixels; not changed.
    path : Path
        Ends in ``.nii.gz``.

    Returns
    -------
    str
        ``"dicom2nifti"``, or ``"scorenode: "`` and why dicom2nifti's file was not kept.
    """
    trial = path.with_name("dicom2nifti-" + path.name)
    try:
        why = _try_dicom2nifti(volume, datasets, trial)
        if not why:
            trial.replace(path)
            return "dicom2nifti"
    finally:
        trial.unlink(missing_ok=True)
    save_nifti(volume.array, volume.affine, path)
    return f"scorenode: {why}"


def save_nifti(array: NDArray[np.generic], affine: FloatArray, path: Path) -> None:
    """Write voxels and an affine to RAS+ millimetres; the same input gives the same bytes.

    Parameters
    ----------
    array : NDArray
        Shape (columns, rows, slices). Whole numbers that fit are stored as int16, labels
        (uint8) as they are, everything else as float32.
    affine : FloatArray
        4 x 4.
    path : Path
        Ends in ``.nii.gz``.
    """
    import nibabel as nib

    image = nib.Nifti1Image(_compact(array), affine)
    image.set_sform(affine, code=SCANNER)
    image.set_qform(affine, code=SCANNER)
    image.header.set_xyzt_units("mm")
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 5, raw, mtime=0) as packed:
        image.to_stream(packed)


def load_nifti(path: Path) -> tuple[NDArray[np.float32], FloatArray]:
    """Read voxels, shape as stored, and the affine to RAS+ millimetres."""
    import nibabel as nib

    image = nib.Nifti1Image.from_filename(str(path))
    array = np.asarray(image.dataobj, dtype=np.float32)
    return array, np.asarray(image.affine, dtype=np.float64)


def difference(ours: Volume, array: NDArray[np.float32], affine: FloatArray) -> str:
    """Say how another conversion differs from a volume; empty when it does not.

    Parameters
    ----------
    ours : Volume
    array : NDArray[np.float32]
    affine : FloatArray
        To RAS+ millimetres; axes may be in another order and direction than ours.
    """
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        return f"it made {array.ndim} dimensions"
    here = _canonical(_Image(ours.array, ours.affine))
    there = _canonical(_Image(array, affine))
    if here.array.shape != there.array.shape:
        return f"it made {' x '.join(str(n) for n in array.shape)} voxels"
    corners = np.array(np.meshgrid(*([0, n - 1] for n in here.array.shape))).reshape(3, -1)
    apart = (here.affine - there.affine)[:3, :3] @ corners
    apart = apart + (here.affine - there.affine)[:3, 3:]
    off = float(np.linalg.norm(apart, axis=0).max())
    if not off <= AFFINE_TOLERANCE_MM:
        return f"its grid is up to {off:.2f} mm off the headers"
    if not np.allclose(here.array, there.array, rtol=VALUE_TOLERANCE, atol=VALUE_TOLERANCE):
        return "its voxels differ from the modality values"
    return ""


def _try_dicom2nifti(volume: Volume, datasets: Sequence[Dataset], path: Path) -> str:
    """Let dicom2nifti write `path`; return what is wrong with the result, or nothing."""
    from dicom2nifti import convert_dicom

    try:
        with third_party_warnings_off(), contextlib.redirect_stdout(io.StringIO()):
            convert_dicom.dicom_array_to_nifti([copy.copy(ds) for ds in datasets], str(path))
            array, affine = load_nifti(path)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - it raises whatever its assumptions meet
        return f"dicom2nifti ended in {_word(error)}"
    wrong = difference(volume, array, affine)
    return f"dicom2nifti was not used, {wrong}" if wrong else ""


def _word(error: Exception) -> str:
    """Name of an exception, with dicom2nifti's own reason word."""
    from dicom2nifti.exceptions import ConversionError, ConversionValidationError

    name = type(error).__name__
    if isinstance(error, ConversionError | ConversionValidationError):
        return f"{name} {error}"
    return name


def _canonical(image: _Image) -> _Image:
    """Turn axes so that they run right, anterior, superior as nearly as they can."""
    from nibabel import orientations

    turn = orientations.io_orientation(image.affine)
    back = orientations.inv_ornt_aff(turn, image.array.shape)
    return _Image(orientations.apply_orientation(image.array, turn), image.affine @ back)


def _compact(array: NDArray[np.generic]) -> NDArray[np.generic]:
    if array.dtype == np.uint8:
        return array
    values = array.astype(np.float32, copy=False)
    low, high = float(values.min()), float(values.max())
    if low >= -32768 and high <= 32767:
        whole = values.astype(np.int16)
        if np.array_equal(whole, values):
            return whole
    return values
