"""The words of `models`: a volume goes in, findings come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

IntendedUse = Literal["demonstration", "research", "clinical"]
Code = tuple[str, str, str]
"""Coding Scheme Designator, Code Value, Code Meaning."""
Voxels = NDArray[np.float32 | np.int16]
Progress = Callable[[float], None]
"""Told the fraction done, 0 to 1."""


class UnfitInput(ValueError):
    """Raised when a volume is not what a model was made for, so that it must not be scored.

    Parameters
    ----------
    reason : str
        A short stable word, such as ``no_brain``.
    sentence : str
        What was found and what was wanted, without patient data.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


class BrokenPackage(ValueError):
    """Raised when a model package is missing, altered, or not what its manifest says."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One stack of slices in patient space.

    Parameters
    ----------
    array : NDArray
        Shape (columns, rows, slices), in modality units (HU for CT); float32, or int16 where a
        conversion of whole numbers has not gone through a file yet.
    affine : NDArray[np.float64]
        4 x 4, takes voxel indices (column, row, slice) to RAS+ millimetres. Its third column is
        sheared against the slices where the gantry was tilted.
    frame_of_reference_uid : str
        Frame of Reference UID of the source; empty where the source has none.
    source_instance_uids : tuple of str
        SOP Instance UID of each slice, in the order of the third axis.
    facts : mapping
        What was computed on the way (``plane``, ``slice_step_mm``, ...), for rules and reports.
    source_frame_numbers : tuple of int
        Of each slice, the number of its frame in its instance, from 1.
    slice_origins : NDArray[np.float64] or None
        Where slices are unequally spaced, the centre of each slice's first voxel in RAS+
        millimetres, shape (slices, 3); `affine` then only connects the first slice with the
        last. None: `affine` is exact.
    """

    array: Voxels
    affine: NDArray[np.float64]
    frame_of_reference_uid: str = ""
    source_instance_uids: tuple[str, ...] = ()
    facts: Mapping[str, str | float | int | bool] = field(default_factory=dict)
    source_frame_numbers: tuple[int, ...] = ()
    slice_origins: NDArray[np.float64] | None = None

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Distance between neighbouring voxels along each axis, millimetres, shape (3,)."""
        lengths: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return lengths

    @property
    def origins(self) -> NDArray[np.float64]:
        """Centre of each slice's first voxel, RAS+ millimetres, shape (slices, 3)."""
        if self.slice_origins is not None:
            return self.slice_origins
        places = np.arange(self.array.shape[2])[:, None]
        origins: NDArray[np.float64] = self.affine[:3, 3] + places * self.affine[:3, 2]
        return origins

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres; the mean where slices are unequally spaced."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    @property
    def voxel_ml_by_slice(self) -> NDArray[np.float64]:
        """Volume of one voxel of each slice in millilitres, shape (slices,).

        A slice reaches half way to its neighbours; the outer ones as far outwards as inwards.
        """
        slices = self.array.shape[2]
        if self.slice_origins is None:
            return np.full(slices, self.voxel_ml)
        across = np.cross(self.affine[:3, 0], self.affine[:3, 1])
        gaps = np.diff(self.slice_origins @ across)
        padded = np.concatenate([gaps[:1], gaps, gaps[-1:]])
        volumes: NDArray[np.float64] = np.abs(padded[1:] + padded[:-1]) / 2000.0
        return volumes


@dataclass(frozen=True)
class Segment:
    """One kind of labelled voxel.

    Parameters
    ----------
    number : int
        The value of its voxels in `Findings.labels`, 1 and up.
    label : str
        What a reader sees, at most 64 characters.
    category, type : Code
        Segmented Property Category and Type, from the model's manifest.
    anatomic_region : Code or None
        Anatomic Region.
    color : tuple of int
        Recommended display colour, sRGB 0 to 255.
    """

    number: int
    label: str
    category: Code
    type: Code
    anatomic_region: Code | None = None
    color: tuple[int, int, int] = (255, 0, 0)


@dataclass(frozen=True)
class Number:
    """A named number a model found.

    Parameters
    ----------
    name : str
        A word `sr_templates.codes` knows: ``volume``, ``probability``, ...
    value : float
    unit : str
        UCUM code: ``ml``, ``1``.
    segment : int or None
        The segment it belongs to; None: it is about the whole study.
    """

    name: str
    value: float
    unit: str
    segment: int | None = None


@dataclass(frozen=True, eq=False)
class Findings:
    """What a model saw.

    Parameters
    ----------
    labels : NDArray[np.uint8] or None
        Shape and grid of the volume that was scored; 0 is background.
    segments : tuple of Segment
        Every kind of voxel the model can label, also those it did not find.
    numbers : tuple of Number
    present : bool or None
        Whether the finding the model looks for is there; None: undetermined.
    """

    labels: NDArray[np.uint8] | None
    segments: tuple[Segment, ...]
    numbers: tuple[Number, ...]
    present: bool | None = None

    def number(self, name: str, segment: int | None = None) -> float:
        """Value of a named number; KeyError when the model gave none."""
        for item in self.numbers:
            if item.name == name and item.segment == segment:
                return item.value
        raise KeyError(f"no number {name!r} for segment {segment}")


@dataclass(frozen=True)
class ModelIdentity:
    """What a report cites of a model.

    `finding` is the coded concept the model decides about (present, absent); `sha256` is the
    digest of the manifest, which in turn holds the digest of every other file.
    """

    family: str
    version: str
    title: str
    intended_use: IntendedUse
    sha256: str
    weights_sha256: str
    finding: Code
    parameters: Mapping[str, str] = field(default_factory=dict)


class Predictor(Protocol):
    """A loaded model, warm on its device."""

    @property
    def identity(self) -> ModelIdentity:
        """What to cite."""

    def predict(self, volume: Volume, progress: Progress) -> Findings:
        """Score one volume.

        Raises
        ------
        UnfitInput
            The volume is not what the model was made for.
        """
