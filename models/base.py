"""The words of `models`: a volume goes in, findings come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

IntendedUse = Literal["demonstration", "research", "clinical"]
Side = Literal["left", "right", "both"]
Code = tuple[str, str, str]
"""Coding Scheme Designator, Code Value, Code Meaning."""
ElementValue = str | float | tuple[str | float, ...] | None
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
    """Raised when a model package is missing, altered, or not what its manifest says.

    Parameters
    ----------
    sentence : str
    mistakes : sequence of str
        All that is wrong with the manifest; the sentence may only count some.
    """

    def __init__(self, sentence: str, mistakes: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.mistakes = tuple(mistakes)


class Recalled(BrokenPackage):
    """Raised when a package is recalled or withdrawn: nothing may be scored with it."""


class NotEnoughMemory(MemoryError):
    """Raised when not even the smallest plan fits; `wanted` and `free` are bytes."""

    def __init__(self, wanted: int, free: int) -> None:
        super().__init__(
            f"The model needs about {wanted >> 20} MiB of memory for this volume, and "
            f"{max(free, 0) >> 20} MiB are free."
        )
        self.wanted, self.free = wanted, free


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
    others : mapping
        Further inputs of a model by name, resampled to this grid.
    elements : mapping
        Values of DICOM elements by the name the manifest gives them.
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
    others: Mapping[str, Volume] = field(default_factory=dict)
    elements: Mapping[str, ElementValue] = field(default_factory=dict)

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
    side : str or None
        ``left``, ``right`` or ``both``: of the patient.
    """

    number: int
    label: str
    category: Code
    type: Code
    anatomic_region: Code | None = None
    color: tuple[int, int, int] = (255, 0, 0)
    side: Side | None = None


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
    code : Code or None
        Concept of a number that `sr_templates.codes` has no word for.
    """

    name: str
    value: float
    unit: str
    segment: int | None = None
    code: Code | None = None


@dataclass(frozen=True)
class Reason:
    """Why a case should not be scored, or only with care.

    Parameters
    ----------
    code : str
        A short stable word.
    sentence : str
        Without values of the case.
    """

    code: str
    sentence: str


@dataclass(frozen=True)
class UsedFeature:
    """One number that a prognosis was made of.

    Parameters
    ----------
    name : str
        Of the model's feature.
    label : str
        What a reader sees.
    unit : str
        UCUM.
    value : float
        As the model used it: of an image, by intracranial volume and at the mean age.
    contribution : float
        Its share in the projection.
    stable, declining : float
        What the two prototypes have.
    usual : tuple of float or None
        Central 95 % of the people who stayed stable.
    code : Code or None
        What it is called in a report.
    source : str
        ``image``, ``imputed``, or the name of the table it is from.
    date : str
        Of the table's row, ISO 8601; may be empty.
    days_before : int or None
        From that date to the study; negative: after it.
    regions : tuple of str
        Of the atlas, where it was measured in the image.
    """

    name: str
    label: str
    unit: str
    value: float
    contribution: float
    stable: float
    declining: float
    usual: tuple[float, float] | None = None
    code: Code | None = None
    source: str = "image"
    date: str = ""
    days_before: int | None = None
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class CasePrognosis:
    """Where one person lies between two prototypes, and what that was made of.

    Parameters
    ----------
    projection : float
        0 on the prototype of stable people, 1 on that of declining ones.
    projection_interval : tuple of float
        95 % bootstrap interval.
    probability : float
        Of declining, calibrated on the training cohort.
    probability_interval : tuple of float
    outcome : str
        ``stable``, ``declining`` or ``undetermined``.
    stable, declining : str
        What the model calls the two.
    threshold : float
        Projection above which a case is called declining.
    features : tuple of UsedFeature
        Contributions add up to the projection.
    reasons : tuple of Reason
        What speaks against the score.
    age_years : float
        At the study.
    volumes_ml : mapping
        ``gm``, ``wm``, ``csf``, ``icv``, and grey matter of each region of the atlas.
    population : str
        On whom the model was trained.
    """

    projection: float
    projection_interval: tuple[float, float]
    probability: float
    probability_interval: tuple[float, float]
    outcome: Literal["stable", "declining", "undetermined"]
    stable: str
    declining: str
    threshold: float
    features: tuple[UsedFeature, ...]
    reasons: tuple[Reason, ...]
    age_years: float
    volumes_ml: Mapping[str, float]
    population: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether nothing was filled from the reference cohort."""
        return all(feature.source != "imputed" for feature in self.features)


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
    prognosis : CasePrognosis or None
        What a prognostic model says; then `present` is None.
    overlapping : mapping
        Number of each segment that shares voxels with another to all of its voxels; in `labels` a
        voxel has one number only.
    texts : tuple of str
        Sentences for the reader. No patient data.
    priority : bool or None
        Whether the finding is over the threshold of urgency; None: the model has none.
    classes : mapping
        Name of an output that is a class to the model's word for it.
    named_texts : mapping
        Name of an output that is a text to what the model says in it; among `texts`, too.
    """

    labels: NDArray[np.uint8] | None
    segments: tuple[Segment, ...]
    numbers: tuple[Number, ...]
    present: bool | None = None
    prognosis: CasePrognosis | None = None
    overlapping: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    priority: bool | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    named_texts: Mapping[str, str] = field(default_factory=dict)

    def mask(self, segment: int) -> NDArray[np.bool_]:
        """All voxels of a segment, also those that others share; ValueError without labels."""
        if self.labels is None:
            raise ValueError("the model labels no voxels")
        whole = self.overlapping.get(segment)
        return self.labels == segment if whole is None else whole

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

        A model of several inputs finds the others in `Volume.others`.

        Raises
        ------
        UnfitInput
            The volume is not what the model was made for.
        """
