"""What a site writes to train GMLVQ on its own table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.atlas import NAMES
from models.base import BrokenPackage
from models.package import parse_yaml

MOST_CONFIG_BYTES = 256 << 10
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]
CodeText = Annotated[str, Field(min_length=1, max_length=64)]
ICV = "icv_ml"
"""Column of the intracranial volume."""


class BadTable(ValueError):
    """Raised when a table or the file that describes it cannot be used; tells no value of a row."""


class Closed(BaseModel):
    """What a person or a file gives: no unknown keys, no NaN."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )


class Feature(Closed):
    """One number that is learned from.

    Parameters
    ----------
    name : str
        Of the column, or of what is measured in the image.
    unit : str
        UCUM, such as ``mL`` or ``{score}``; ``%`` where `regions` are given.
    range : tuple of float, optional
        Lowest and highest value that can be; others are taken as missing, and counted.
    required : bool
        Whether a row without it is left out, instead of imputed.
    label : str
        What a reader sees; empty: the name.
    code : tuple of str, optional
        What it is called in a report: scheme, value, meaning.
    regions : tuple of str
        Of `models.atlas`: the feature is their grey matter together, in percent of the
        intracranial volume, at the mean age. In a table they are the columns ``<region>_ml`` and
        ``icv_ml`` that ``scorenode features`` writes.
    """

    name: Name
    unit: Annotated[str, Field(max_length=32)] = "1"
    range: tuple[float, float] | None = None
    required: bool = False
    label: Annotated[str, Field(max_length=32)] = ""
    code: tuple[CodeText, CodeText, CodeText] | None = None
    regions: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What a reader sees."""
        return self.label or self.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of a table that it is made of."""
        return (*(f"{name}_ml" for name in self.regions), ICV) if self.regions else (self.name,)

    @model_validator(mode="after")
    def _known_regions(self) -> Feature:
        strange = sorted(set(self.regions) - set(NAMES))
        if strange:
            raise ValueError(f"the atlas has no region {', '.join(strange)}")
        twice = sorted({name for name in self.regions if self.regions.count(name) > 1})
        if twice:
            raise ValueError(f"regions are named twice: {', '.join(twice)}")
        if self.regions and self.unit != "%":
            raise ValueError("what is measured in regions has the unit %")
        return self

    @model_validator(mode="after")
    def _range_rises(self) -> Feature:
        if self.range and self.range[0] > self.range[1]:
            raise ValueError("the lowest value is above the highest")
        return self


class Outcome(Closed):
    """The column with the class, and the two classes of it."""

    column: Name
    stable: Name
    declining: Name

    @model_validator(mode="after")
    def _differ(self) -> Outcome:
        if self.stable == self.declining:
            raise ValueError("stable and declining are the same")
        return self


class Threshold(Closed):
    """A named place on the scalar projection; data of the model, never of the program."""

    name: Name
    projection: float


class Search(Closed):
    """Settings that inner cross-validation chooses from; a beta of 0 is the identity."""

    beta: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0, 2, 5, 10)
    regularization: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        1e-4,
        1e-3,
        1e-2,
    )


class TrainingConfig(Closed):
    """The content of the file given as ``--config``."""

    family: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: Annotated[str, Field(min_length=1, max_length=128)]
    intended_use: Literal["demonstration", "research"] = "research"
    licence: str = "proprietary"
    population: Annotated[str, Field(max_length=500)] = ""
    outcome: Outcome
    group: Name | None = None
    age: Name | None = None
    features: Annotated[tuple[Feature, ...], Field(min_length=1)]
    neighbours: Annotated[int, Field(ge=1, le=20)] = 3
    search: Search = Search()
    outer_folds: Annotated[int, Field(ge=2, le=20)] = 5
    inner_folds: Annotated[int, Field(ge=2, le=20)] = 4
    bootstrap: Annotated[int, Field(ge=20, le=5000)] = 200
    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1)] = (
        Threshold(name="declining", projection=0.5),
    )
    indeterminate: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    priors: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _each_column_once(self) -> TrainingConfig:
        names = [feature.name for feature in self.features]
        names += [name for name in (self.outcome.column, self.group, self.age) if name]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"columns are used twice: {', '.join(twice)}")
        called = [item.name for item in self.thresholds]
        again = sorted({name for name in called if called.count(name) > 1})
        if again:
            raise ValueError(f"thresholds have the same name: {', '.join(again)}")
        if any(feature.regions for feature in self.features) and not self.age:
            raise ValueError("what is measured in images needs age: the column of years")
        if self.priors and not any(feature.regions for feature in self.features):
            raise ValueError("priors are of no use: no feature is measured in images")
        return self


def load_training_config(path: Path) -> TrainingConfig:
    """Read the file; a relative folder of tissue maps is beside it.

    Raises
    ------
    BadTable
        It cannot be read, or holds mistakes; all are told at once.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_CONFIG_BYTES + 1)
        if len(data) > MOST_CONFIG_BYTES:
            raise BadTable(f"{path} is larger than {MOST_CONFIG_BYTES >> 10} KiB.")
        config = TrainingConfig.model_validate(parse_yaml(path, data))
        maps = str(path.parent / config.priors) if config.priors else None
        return config.model_copy(update={"priors": maps})
    except OSError as error:
        raise BadTable(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        told = [f"{'.'.join(map(str, e['loc'])) or 'content'}: {e['msg']}" for e in error.errors()]
        raise BadTable(f"{path}: {'; '.join(told)}.") from error
    except BrokenPackage as error:
        raise BadTable(str(error)) from error
