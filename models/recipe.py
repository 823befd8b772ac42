"""What a person writes to train a segmentation: the package, the network, the training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.base import BrokenPackage, IntendedUse
from models.manifest import Inference, Input, Postprocess, PreprocessStep, SegmentEntry
from models.network import MULTIPLE, NetworkConfig
from models.package import mistakes, parse_yaml

RECIPES = Path(__file__).parent / "recipes"
MOST_RECIPE_BYTES = 256 << 10
Code = tuple[str, str, str]


class BadRecipe(ValueError):
    """Raised when a recipe cannot be used."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Described(_Closed):
    """What the manifest of the package will say; docs/models.md."""

    family: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "0.1.0"
    title: Annotated[str, Field(min_length=1, max_length=128)]
    intended_use: IntendedUse = "research"
    licence: str
    finding: Code
    input: Input
    preprocess: tuple[PreprocessStep, ...] = ()
    inference: Inference = Inference()
    segments: Annotated[tuple[SegmentEntry, ...], Field(min_length=1)]
    postprocess: Postprocess = Postprocess()
    data: Annotated[str, Field(max_length=2000)] = ""
    """Where the data come from and how they may be used, for the model card."""


class EarlyStop(_Closed):
    """Stop when cases that are not trained on get no better.

    Parameters
    ----------
    every : int
        Steps between two looks.
    patience : int
        Looks without a better Dice until training stops.
    cases : int
        How many cases are watched; they are taken from the training side of the fold.
    """

    every: Annotated[int, Field(ge=1)] = 250
    patience: Annotated[int, Field(ge=1)] = 4
    cases: Annotated[int, Field(ge=1)] = 8


class Augmentation(_Closed):
    """How far training patches are changed; zero and empty: not at all.

    Parameters
    ----------
    mirror : tuple of str
        Axes that are mirrored half of the time.
    degrees, shift : float
        Standard deviation of the turn about each axis (2.5-D: in the plane only) and of the
        shift, a share of the patch.
    scale : tuple of float
        Smallest and largest factor.
    elastic_mm : float
        Standard deviation of a smooth bending (3-D), voxels of the network.
    gain, bias : float
        Standard deviation of the factor and of the sum, in the network's intensities.
    noise : float
        Largest standard deviation.
    blur : float
        Largest sigma, voxels; half of the patches.
    field : float
        Standard deviation of a smooth factor across the patch, as of a coil.
    low_resolution : float
        Share of patches (3-D) of which every other slice is lost.
    """

    mirror: tuple[Literal["right", "anterior", "superior"], ...] = ("right",)
    degrees: Annotated[float, Field(ge=0, le=90)] = 7.0
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.015
    scale: tuple[float, float] = (0.9, 1.1)
    elastic_mm: Annotated[float, Field(ge=0, le=20)] = 0.0
    gain: Annotated[float, Field(ge=0, le=1)] = 0.05
    bias: Annotated[float, Field(ge=0, le=1)] = 0.05
    noise: Annotated[float, Field(ge=0, le=1)] = 0.08
    blur: Annotated[float, Field(ge=0, le=4)] = 0.0
    field: Annotated[float, Field(ge=0, le=1)] = 0.0
    low_resolution: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> Augmentation:
        if not 0.2 <= self.scale[0] <= self.scale[1] <= 5.0:
            raise ValueError("scale is a smallest and a largest factor, between 0.2 and 5")
        return self


class Training(_Closed):
    """How long, how fast, on what.

    Parameters
    ----------
    steps, batch : int
        Of each process, where there are several.
    patch : tuple of int
        Voxels of what the network is trained on, after preprocessing; multiples of 16. 2.5-D: in
        the plane only, to the right and to anterior.
    learning_rate : float
        Highest of a one-cycle schedule.
    foreground : float
        Share of patches that are drawn around a labelled voxel, classes and kinds as often.
    alike : tuple of float or None
        Values that may be mistaken for what is labelled, HU in 2.5-D, else those of the first
        channel after preprocessing: the other patches are around unlabelled voxels between the two.
        None, and in cases without such a voxel: they are anywhere.
    kinds : mapping
        How many times as often as others a kind is drawn, for kinds that are hard to learn.
    cross_entropy : float
        Its weight beside Dice.
    ema : float
        Decay of the average of weights that becomes the model.
    folds : int
    """

    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1, le=1024)] = 2
    patch: Annotated[tuple[Annotated[int, Field(ge=MULTIPLE, le=1024)], ...], Field(min_length=2)]
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 4e-3
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    clip_gradient: Annotated[float, Field(gt=0)] = 5.0
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.5
    alike: tuple[float, float] | None = None
    kinds: Mapping[str, Annotated[int, Field(ge=1, le=10)]] = Field(default_factory=dict)
    cross_entropy: Annotated[float, Field(ge=0)] = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    seed: Annotated[int, Field(ge=0)] = 1
    early_stop: EarlyStop | None = None


class Recipe(_Closed):
    """The content of the file given as ``--config``."""

    package: Described
    architecture: Literal["monai-unet-2.5d", "network"]
    network: dict[str, Any]
    training: Training
    augmentation: Augmentation = Augmentation()
    tolerance_mm: Annotated[float, Field(gt=0, le=20)] = 2.0
    """Surfaces this close agree (normalised surface Dice)."""
    window: tuple[float, float] | None = None
    """Black and white of pictures."""

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        wrong = list(_contradictions(self))
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def classes(self) -> int:
        """Background and the structures."""
        return len(self.package.segments) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """Label of each class but the background."""
        return tuple(entry.label for entry in self.package.segments)

    @property
    def slices(self) -> NetworkConfig | None:
        """Of a network that sees a slice and its neighbours; None: it sees volumes."""
        if self.architecture != "monai-unet-2.5d":
            return None
        return NetworkConfig.from_json({**self.network, "classes": self.classes})

    @property
    def arch(self) -> dict[str, Any]:
        """What ``arch.json`` of the package will hold."""
        return dict(self.slices.to_json()) if self.slices else self.network


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """Say what does not fit together, all of it."""
    numbers = [entry.number for entry in recipe.package.segments]
    if numbers != list(range(1, len(numbers) + 1)):
        yield "segments are numbered 1, 2, 3 and so on, in this order"
    patch = recipe.training.patch
    is_flat = recipe.architecture == "monai-unet-2.5d"
    if len(patch) != (2 if is_flat else 3) or any(size % MULTIPLE for size in patch):
        yield f"training.patch has {2 if is_flat else 3} sizes, multiples of {MULTIPLE}"
    low, high = recipe.training.alike or (0.0, 1.0)
    if not low < high:
        yield "training.alike is a range, the smaller value first"
    if is_flat:
        if "classes" in recipe.network:
            yield "network.classes is not written: it is the number of segments + 1"
        else:
            try:
                _ = recipe.slices
            except (TypeError, ValueError) as error:
                yield f"network: {error}"
        if recipe.package.preprocess:
            yield "package.preprocess: monai-unet-2.5d does its own"
        return
    if any(step.crop for step in recipe.package.preprocess):
        yield "package.preprocess: crop cannot be trained with"
    arguments = recipe.network.get("arguments")
    if not isinstance(arguments, dict):
        yield "network: has a network and its arguments"
    elif arguments.get("in_channels") != 1 or arguments.get("out_channels") != recipe.classes:
        yield f"network.arguments: in_channels is 1 and out_channels is {recipe.classes}"


def recipe_path(name: str) -> Path:
    """Find a file, or a recipe that comes with scorenode.

    Raises
    ------
    BadRecipe
        There is neither.
    """
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise BadRecipe(f"There is no file {name} and no recipe of this name; there are: {known}.")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises
    ------
    BadRecipe
        It cannot be read, or holds mistakes; all are told at once.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_RECIPE_BYTES + 1)
        if len(data) > MOST_RECIPE_BYTES:
            raise BadRecipe(f"{path} is larger than {MOST_RECIPE_BYTES >> 10} KiB.")
        return Recipe.model_validate(parse_yaml(path, data))
    except OSError as error:
        raise BadRecipe(f"{path} cannot be read: {error.strerror}.") from error
    except BrokenPackage as error:
        raise BadRecipe(str(error)) from error
    except ValidationError as error:
        raise BadRecipe(f"{path} is no recipe: {mistakes(error)}.") from error
