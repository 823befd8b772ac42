"""What a rule wants of the geometry of a series: ``image`` under an input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from node.config.base import CLOSED, Flag
from node.config.conditions import IfMissing
from node.config.quantities import degrees, millimetres, whole, word

Plane = Literal["axial", "sagittal", "coronal", "oblique"]
_COUNT = whole(0, 100_000)


@dataclass(frozen=True)
class UpperBound:
    """A validator for ``max``, which must not be below ``min``."""

    read: Callable[[object], float]

    def __call__(self, value: object, info: ValidationInfo) -> float:
        """Read one."""
        high, low = float(self.read(value)), info.data.get("min")
        if low is not None and low > high:
            raise ValueError(f"min {low:g} is above max {high:g}, so nothing can match.")
        return high


@dataclass(frozen=True)
class Counts:
    """Lowest and highest number, both included."""

    __pydantic_config__ = CLOSED

    min: Annotated[float | None, BeforeValidator(_COUNT)] = None
    max: Annotated[float | None, BeforeValidator(UpperBound(_COUNT))] = None


@dataclass(frozen=True)
class Lengths:
    """Lowest and highest length in millimetres, both included."""

    __pydantic_config__ = CLOSED

    min: Annotated[float | None, BeforeValidator(millimetres)] = None
    max: Annotated[float | None, BeforeValidator(UpperBound(millimetres))] = None


@dataclass(frozen=True)
class Angles:
    """Lowest and highest angle in degrees, both included."""

    __pydantic_config__ = CLOSED

    min: Annotated[float | None, BeforeValidator(degrees)] = None
    max: Annotated[float | None, BeforeValidator(UpperBound(degrees))] = None


@dataclass(frozen=True)
class ImageGate:
    """What is wanted of the geometry of a series; what is None is not looked at.

    Parameters
    ----------
    plane : str or None
        Of the slices, by the largest component of their normal.
    slices : Counts or None
        Distinct positions along the normal.
    gap_free : bool or None
        No step from slice to slice is over 1.5 times the usual one: no slice is missing, and the
        distance of slices changes little.
    min_coverage_mm : float or None
        From the outer face of the first slice to that of the last.
    spacing : Lengths or None
        Every step from slice to slice, millimetres.
    tilt : Angles or None
        Between the normal of the slices and the direction in which they follow each other.
    orientation : str or None
        ``single``: all slices lie parallel.
    frames : Counts or None
        Frames of all instances together.
    content : str or None
        What the pixels must show; the model looks before it runs.
    if_missing : str
        What follows where the headers do not say.
    """

    __pydantic_config__ = CLOSED

    plane: Annotated[
        Plane | None, BeforeValidator(word("axial", "sagittal", "coronal", "oblique"))
    ] = None
    slices: Counts | None = None
    gap_free: Flag | None = None
    min_coverage_mm: Annotated[
        float | None, BeforeValidator(millimetres), Field(alias="min_coverage")
    ] = None
    spacing: Lengths | None = None
    tilt: Angles | None = None
    orientation: Annotated[Literal["single"] | None, BeforeValidator(word("single"))] = None
    frames: Counts | None = None
    content: Annotated[
        Literal["head-ct", "any"] | None, BeforeValidator(word("head-ct", "any"))
    ] = None
    if_missing: Annotated[IfMissing, BeforeValidator(word("fail", "ignore", "hold"))] = "fail"
