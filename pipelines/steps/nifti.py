"""A volume as NIfTI: dicom2nifti's file where it is right, ours otherwise."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Volume, Voxels
from models.canonical import orientation_of
from pipelines.steps.geometry import FloatArray
from pipelines.steps.nifti_header import is_sheared, nifti_header
from pipelines.steps.read import third_party_warnings_off
from pipelines.steps.straighten import straight_grid, straight_planes

AFFINE_TOLERANCE_MM = 1e-2
VALUE_TOLERANCE = 1e-4
GZIP_LEVEL = 5


@dataclass(frozen=True, eq=False)
class _Image:
    """Voxels and their affine to RAS+ millimetres."""

    array: Voxels
    affine: FloatArray


def write_nifti(
    volumes: Sequence[Volume],
    datasets: Callable[[], Sequence[Dataset]] | None,
    path: Path,
) -> str:
    """Write the voxels and the grid of one volume, or of several on one grid, as NIfTI.

    dicom2nifti converts the same datasets; its file is kept when its voxels and its affine equal
    the volume's up to the order and direction of axes, else ours is written. A volume of
    unequally spaced slices, which NIfTI cannot say, is written straightened.

    Parameters
    ----------
    volumes : sequence of Volume
        On one grid, as points of the fourth axis.
    datasets : callable or None
        Gives the datasets of just these volumes, with their pixels; None leaves dicom2nifti out.
    path : Path
        Ends in ``.nii.gz`` or ``.nii``.

    Returns
    -------
    str
        ``"dicom2nifti"``, or ``"scorenode: "`` and why dicom2nifti's file was not kept.
    """
    why = _ours_alone(volumes[0])
    if not why and datasets is None:
        why = "dicom2nifti was not asked"
    if not why and datasets is not None:
        trial = path.with_name("dicom2nifti-" + path.name)
        try:
            why = _try_dicom2nifti(volumes, datasets(), trial)
            if not why:
                trial.replace(path)
                return "dicom2nifti"
        finally:
            trial.unlink(missing_ok=True)
    if volumes[0].slice_origins is None:
        save_nifti([volume.array for volume in volumes], volumes[0].affine, path)
    else:
        save_straightened(volumes, path)
    return f"scorenode: {why}"


def _ours_alone(volume: Volume) -> str:
    """Say why dicom2nifti cannot convert a volume rightly, where that is known beforehand."""
    if volume.slice_origins is not None:
        return "unequally spaced slices were resampled to a straight grid"
    if is_sheared(volume.affine):
        return "dicom2nifti refuses a gantry tilt"
    return ""


def save_nifti(
    arrays: NDArray[np.generic] | Sequence[NDArray[np.generic]], affine: FloatArray, path: Path
) -> None:
    """Write voxels and an affine to RAS+ millimetres; the same input gives the same bytes.

    Parameters
    ----------
    arrays : NDArray or sequence of NDArray
        Shape (columns, rows, slices); several become a fourth axis. Whole numbers that fit are
        stored as int16, labels (uint8) as they are, everything else as float32.
    affine : FloatArray
        4 x 4.
    path : Path
        Ends in ``.nii.gz`` or ``.nii``.
    """
    arrays = [arrays] if isinstance(arrays, np.ndarray) else list(arrays)
    kind = _compact_kind(arrays)
    shape = (*arrays[0].shape, *([len(arrays)] if len(arrays) > 1 else []))
    planes = (array[:, :, k].T for array in arrays for k in range(array.shape[2]))
    _save(planes, nifti_header(shape, kind, affine), kind, path)


def save_straightened(volumes: Sequence[Volume], path: Path) -> None:
    """Write volumes of one grid on a straight one, float32; no more than slices of it in memory.

    Parameters
    ----------
    volumes : sequence of Volume
        On one grid; several become a fourth axis.
    path : Path
        Ends in ``.nii.gz`` or ``.nii``.

    Raises
    ------
    NotScored
        The straight grid would be far larger than the source.
    """
    grid, kind = straight_grid(volumes[0]), np.dtype("<f4")
    shape = (*grid.shape, *([len(volumes)] if len(volumes) > 1 else []))
    planes = (plane for volume in volumes for plane in straight_planes(volume, grid))
    _save(planes, nifti_header(shape, kind, grid.affine), kind, path)


def _save(
    planes: Iterable[NDArray[np.generic]], header: bytes, kind: np.dtype[np.generic], path: Path
) -> None:
    with path.open("wb") as raw, contextlib.ExitStack() as stack:
        file: BinaryIO = raw
        if path.suffix == ".gz":
            packed = gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0)
            file = stack.enter_context(packed)  # type: ignore[assignment]
        file.write(header)
        for plane in planes:
            file.write(np.ascontiguousarray(plane, kind).data)


def load_nifti(path: Path) -> tuple[NDArray[np.float32], FloatArray]:
    """Read voxels, shape as stored, and the affine to RAS+ millimetres."""
    import nibabel as nib

    image = nib.Nifti1Image.from_filename(str(path))
    array = np.asarray(image.dataobj, dtype=np.float32)
    return array, np.asarray(image.affine, dtype=np.float64)


def difference(ours: Volume | Sequence[Volume], array: Voxels, affine: FloatArray) -> str:
    """Say how another conversion differs from ours; empty when it does not.

    Parameters
    ----------
    ours : Volume or sequence of Volume
        Points of the fourth axis, in order.
    array : NDArray
    affine : FloatArray
        To RAS+ millimetres; axes may be in another order and direction than ours.
    """
    volumes = [ours] if isinstance(ours, Volume) else list(ours)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4:
        return f"it made {array.ndim} dimensions"
    if array.shape[3] != len(volumes):
        return f"it made {_counted(array.shape[3])}, not {len(volumes)}"
    found = (_difference(volume, array[..., k], affine) for k, volume in enumerate(volumes))
    return next((word for word in found if word), "")


def _counted(count: int) -> str:
    return "1 volume" if count == 1 else f"{count} volumes"


def _difference(ours: Volume, array: Voxels, affine: FloatArray) -> str:
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


def _try_dicom2nifti(volumes: Sequence[Volume], datasets: Sequence[Dataset], path: Path) -> str:
    """Let dicom2nifti write `path`; return what is wrong with the result, or nothing."""
    from dicom2nifti import convert_dicom

    try:
        with third_party_warnings_off(), contextlib.redirect_stdout(io.StringIO()):
            copies = [copy.copy(ds) for ds in datasets]
            convert_dicom.dicom_array_to_nifti(copies, str(path))
            array, affine = load_nifti(path)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - it raises whatever its assumptions meet
        return f"dicom2nifti ended in {_word(error)}"
    wrong = difference(volumes, array, affine)
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


def _compact_kind(arrays: Sequence[NDArray[np.generic]]) -> np.dtype[np.generic]:
    """Return the smallest type that holds all values as they are."""
    for known in (np.dtype(np.uint8), np.dtype("<i2")):
        if all(array.dtype == known for array in arrays):
            return known
    for array in arrays:
        for k in range(array.shape[2]):
            part = array[:, :, k]
            low, high = float(part.min()), float(part.max())
            if not (low >= -32768 and high <= 32767) or (part.astype(np.int16) != part).any():
                return np.dtype("<f4")
    return np.dtype("<i2")


def volume_of_files(path: Path, others: Mapping[str, Path] | None = None) -> Volume:
    """Read a NIfTI image as a volume, and further inputs of a model on the same grid.

    Raises
    ------
    ValueError
        A file is no whole NIfTI file, or lies nowhere in space; an image has not three axes, or
        does not lie on the grid of the first.
    OSError
        A file cannot be read.
    """
    array, affine = _loaded(path)
    if array.ndim != 3:
        raise ValueError(f"{path.name} has {array.ndim} axes, wanted three.")
    found = {}
    for name, other in (others or {}).items():
        more, its = _loaded(other)
        if more.shape != array.shape or not np.allclose(its, affine, atol=AFFINE_TOLERANCE_MM):
            raise ValueError(f"{other.name} does not lie on the grid of {path.name}.")
        found[name] = Volume(more.astype(np.float32), affine)
    return Volume(array.astype(np.float32), affine, facts={"plane": "any"}, others=found)


def _loaded(path: Path) -> tuple[NDArray[np.float32], FloatArray]:
    try:
        array, affine = load_nifti(path)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path.name} is no whole NIfTI file ({type(error).__name__}).") from error
    orientation_of(affine)
    return array, affine
