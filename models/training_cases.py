"""Cases as a network sees them, on disk: only the patches in use are in memory."""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from models.base import Volume, Voxels
from models.canonical import orientation_of
from models.labelled_cases import BadData, LabelledCase, read_case
from models.manifest import FIRST, GEOMETRY
from models.network import NetworkConfig
from models.preprocess import prepared
from models.recipe import Recipe
from models.unet import channels_of, resampled

PLACES_A_SLICE = 16
"""So many voxels of each class are remembered of each slice, so that small slices count too."""

IMAGE, TRUTH, ALIKE, FACTS = "image.npy", "truth.npy", "alike.npy", "case.json"
LAYOUT = 2
"""Of the files of a case, and of how batches are drawn; a training that was begun with another
release does not go on."""
Cut = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case in the cache; its voxels stay on disk.

    Parameters
    ----------
    folder : Path
    kind : str
    labelled_ml : float
        Of all structures.
    shape, image_shape : tuple of int
        Of `truth` and of `image`.
    offset, image_offset : int
        Where their voxels begin in their files.
    places : tuple of NDArray[np.int32]
        For each class but the background, voxels that have it, shape (n, 3).
    alike : NDArray[np.int32]
        Voxels of the background with values that the recipe calls alike; none where it says
        nothing.
    """

    folder: Path
    kind: str
    labelled_ml: float
    shape: tuple[int, ...]
    image_shape: tuple[int, ...]
    offset: int
    image_offset: int
    places: tuple[NDArray[np.int32], ...]
    alike: NDArray[np.int32]

    @property
    def image(self) -> NDArray[np.float16]:
        """Mapped. 2.5-D: (slices, right, anterior), HU; else (channels, x, y, z)."""
        return _mapped(self.folder / IMAGE, np.float16, self.image_shape, self.image_offset)

    @property
    def truth(self) -> NDArray[np.uint8]:
        """Mapped; classes, the image's shape without channels."""
        return _mapped(self.folder / TRUTH, np.uint8, self.shape, self.offset)


def prepare(
    cases: Sequence[LabelledCase],
    values: Mapping[int, int],
    recipe: Recipe,
    cache: Path,
    progress: Callable[[float], None],
) -> list[PreparedCase]:
    """Resample every case once and keep it in a folder; what is there already is taken.

    Parameters
    ----------
    cases : sequence of LabelledCase
    values : mapping of int to int
        From values of label maps to classes.
    recipe : Recipe
    cache : Path
        One folder a case is made in it.
    progress : callable
        Told the fraction done.

    Raises
    ------
    BadData
        Values are too large for half precision.
    OSError
        The folder cannot be written; a case that is half there is made anew.
    """
    found = []
    for number, case in enumerate(cases):
        folder = cache / f"{number:05d}"
        made = _open(folder, case.kind, recipe.classes)
        if made is None:
            _write(folder, case, values, recipe)
            made = _open(folder, case.kind, recipe.classes)
        if made is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))
        found.append(made)
        progress((number + 1) / len(cases))
    return found


def seen_case(
    volume: Volume, labels: NDArray[np.uint8], recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring image and label map to the network's grid, the same way.

    Returns
    -------
    image : Tensor
        As `PreparedCase.image`, float32.
    truth : Tensor
        uint8.
    """
    parts = [(labels == number).astype(np.float32) for number in range(1, recipe.classes)]
    if recipe.slices:
        image = _in_slices(volume, volume.array, recipe.slices)
        # Padding is -1024 for both: what is not padded becomes a share, 0 to 1.
        shares = [
            _in_slices(volume, part * 1024 - 1024, recipe.slices) / 1024 + 1 for part in parts
        ]
    else:
        steps = recipe.package.preprocess
        image = torch.from_numpy(prepared({FIRST: volume}, steps).array)
        moves = [step for step in steps if step.name in GEOMETRY]
        shares = [
            torch.from_numpy(prepared({FIRST: replace(volume, array=part)}, moves).array[0])
            for part in parts
        ]
    return image, argmax_of(torch.stack(shares)).to(torch.uint8)


def _in_slices(volume: Volume, array: Voxels, config: NetworkConfig) -> torch.Tensor:
    orientation = orientation_of(volume.affine)
    spacing = volume.spacing[list(orientation.axes)]
    return resampled(orientation.to_ras(array), spacing, config)


def argmax_of(shares: torch.Tensor) -> torch.Tensor:
    """Class of each voxel from the share of each class but the background, (classes - 1, ...).

    The first of equal shares, as `torch.argmax` would; that takes ten times as long on a CPU.
    """
    most = 1 - shares.sum(0)
    found = torch.zeros(most.shape, dtype=torch.int64, device=shares.device)
    for number, share in enumerate(shares, start=1):
        found.masked_fill_(share > most, number)
        most = torch.maximum(most, share)
    return found


def _write(folder: Path, case: LabelledCase, values: Mapping[int, int], recipe: Recipe) -> None:
    volume, labels = read_case(case, values)
    image, truth = seen_case(volume, labels, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / IMAGE, _halved(image.numpy(), case))
    _save(folder / TRUTH, truth.numpy())
    along = 0 if recipe.slices else 2
    for number in range(1, recipe.classes):
        _save(folder / f"places_{number}.npy", _places(truth.numpy() == number, along))
    _save(folder / ALIKE, _places(_alike(image, truth, recipe), along))
    labelled_ml = float(np.count_nonzero(labels)) * volume.voxel_ml
    told = {"name": case.name, "labelled_ml": labelled_ml}
    part = folder / f".{FACTS}.part"
    part.write_text(json.dumps(told))
    part.replace(folder / FACTS)


def _alike(image: torch.Tensor, truth: torch.Tensor, recipe: Recipe) -> NDArray[np.bool_]:
    """Find background that may be mistaken for what is labelled."""
    if recipe.training.alike is None:
        return np.zeros(truth.shape, bool)
    low, high = recipe.training.alike
    values = image if recipe.slices else image[0]
    found: NDArray[np.bool_] = ((values > low) & (values < high) & (truth == 0)).numpy()
    return found


def _halved(image: NDArray[np.float32], case: LabelledCase) -> NDArray[np.float16]:
    most = float(np.abs(image).max())
    if most > float(np.finfo(np.float16).max):
        sentence = (
            f"{case.name}: after package.preprocess its values reach {most:.3g}; bring them near "
            "1, with zscore, minmax or rescale"
        )
        raise BadData(case.image.parent.parent, [sentence])
    return image.astype(np.float16)


def _save(path: Path, array: NDArray[Any]) -> None:
    """Write an array; numpy does not say of a file that was not written whole why."""
    try:
        np.save(path, np.ascontiguousarray(array))
    except OSError as error:
        code = error.errno or errno.ENOSPC
        raise OSError(code, os.strerror(code), str(path)) from error


def _places(mask: NDArray[np.bool_], along: int) -> NDArray[np.int32]:
    """Up to `PLACES_A_SLICE` voxels of each slice along one axis, evenly picked."""
    kept = [np.empty((0, 3), np.int32)]
    for z in range(mask.shape[along]):
        inside = np.argwhere(mask.take(z, along))
        step = max(len(inside) // PLACES_A_SLICE, 1)
        picked = inside[step // 2 :: step][:PLACES_A_SLICE]
        kept.append(np.insert(picked, along, z, axis=1).astype(np.int32))
    return np.concatenate(kept)


def _open(folder: Path, kind: str, classes: int) -> PreparedCase | None:
    """Read what there is of a case; None: it was not made whole, or lost something since."""
    try:
        told: Mapping[str, Any] = json.loads((folder / FACTS).read_text())
        image, truth = (np.load(folder / name, mmap_mode="r") for name in (IMAGE, TRUTH))
        places = [np.load(folder / f"places_{number}.npy") for number in range(1, classes)]
        alike = np.load(folder / ALIKE)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    shapes, offsets = (truth.shape, image.shape), (truth.offset, image.offset)
    return PreparedCase(folder, kind, told["labelled_ml"], *shapes, *offsets, tuple(places), alike)


def _mapped(
    path: Path, dtype: type[np.generic], shape: tuple[int, ...], offset: int
) -> NDArray[Any]:
    """Map a .npy whose header is known: reading it again would be felt in every batch."""
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)


def patch_of(recipe: Recipe) -> tuple[int, ...]:
    """Size of what is cut of a case: 2.5-D one slice in the plane, else the patch."""
    return (1, *recipe.training.patch) if recipe.slices else recipe.training.patch


def cut(case: PreparedCase, center: NDArray[np.int64], patch: Sequence[int], recipe: Recipe) -> Cut:
    """Cut a patch of a case around a voxel, moved inside where the case is large enough.

    Returns
    -------
    inputs : Tensor
        (channels, *patch without the axis of a single slice), float32.
    truth : Tensor
        The same size, int64.
    """
    starts = [
        int(np.clip(c - size // 2, 0, n - size)) if n >= size else (n - size) // 2
        for c, size, n in zip(center, patch, case.shape, strict=True)
    ]
    image, truth = case.image, torch.from_numpy(_part(case.truth, starts, patch))
    truth = _padded(truth, starts, patch, case, 0.0)
    config = recipe.slices
    if config:
        z = starts[0]
        near = slice(max(z - config.neighbours, 0), z + config.neighbours + 1)
        rows, columns = (
            slice(max(s, 0), s + p) for s, p in zip(starts[1:], patch[1:], strict=True)
        )
        stack = torch.from_numpy(np.asarray(image[near, rows, columns], np.float32))
        inputs = channels_of(stack, torch.tensor([z - near.start]), config)[0]
        inputs = _padded(inputs[:, None], starts, patch, case, -1.0)[:, 0]
        return inputs, truth[0].long()
    part = np.stack([_part(channel, starts, patch) for channel in image])
    inputs = torch.from_numpy(part.astype(np.float32))
    return _padded(inputs, starts, patch, case, 0.0), truth.long()


def _part(
    array: NDArray[np.generic], starts: Sequence[int], patch: Sequence[int]
) -> NDArray[np.generic]:
    where = tuple(slice(max(s, 0), s + p) for s, p in zip(starts, patch, strict=True))
    return np.array(array[where], order="C")


def _padded(
    part: torch.Tensor,
    starts: Sequence[int],
    patch: Sequence[int],
    case: PreparedCase,
    value: float,
) -> torch.Tensor:
    """Pad what lies outside of the case."""
    around: list[int] = []
    for start, size, n in reversed(list(zip(starts, patch, case.shape, strict=True))):
        around += [max(-start, 0), max(start + size - n, 0)]
    return F.pad(part, around, value=value)
