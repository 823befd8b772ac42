"""The model package of a job: verified each time, its wishes checked against a volume."""

from __future__ import annotations

from pathlib import Path

from models.base import BrokenPackage, Volume
from models.loading import open_package
from models.package import Limits, ModelPackage
from models.prognosis_manifest import PrognosisPackage
from pipelines.base import Misconfigured, NotScored

Package = ModelPackage | PrognosisPackage
LIMITED = (
    ("slices", "a number of slices", ""),
    ("slice_step_mm", "a slice step", " mm"),
    ("coverage_mm", "a coverage", " mm"),
)
"""Facts a manifest may limit, with words and unit for a sentence."""


def package_of(folder: str) -> Package:
    """Load and verify a model package, without its weights and without torch.

    Raises
    ------
    Misconfigured
        It is missing, altered, or not what its manifest says.
    """
    try:
        return open_package(Path(folder))
    except BrokenPackage as error:
        raise Misconfigured(f"The model package cannot be used: {error}") from error


def network_of(folder: str) -> ModelPackage:
    """Load and verify the package of a model that predicts from volumes alone.

    Raises
    ------
    Misconfigured
        It is missing, altered, or a prognosis, which wants scores too.
    """
    package = package_of(folder)
    if isinstance(package, PrognosisPackage):
        raise Misconfigured(
            f"The model {package.identity.family} is a prognosis; only the pipeline dementia "
            "runs it."
        )
    return package


def refuse_unfit(package: Package, volume: Volume, name: str = "") -> None:
    """Refuse a volume whose facts are not what the package's manifest asks for.

    Parameters
    ----------
    package : ModelPackage or PrognosisPackage
    volume : Volume
    name : str
        Of the input; empty: the first.

    Raises
    ------
    NotScored
        Modality, plane, or a number of the geometry is not the model's.
    """
    wanted = package.manifest.channels[name] if name else package.input
    facts = volume.facts
    model = f"{package.identity.family} {package.identity.version}"
    model += f" as {name}" if name else ""
    for word, limit in (("modality", wanted.modality), ("plane", wanted.plane)):
        if limit not in ("any", facts[word]):
            raise NotScored(f"wrong_{word}", f"The {word} is {facts[word]}; {model} takes {limit}.")
    for word, words, unit in LIMITED:
        limits: Limits = getattr(wanted, word)
        found = float(facts[word])
        if not limits.min <= found <= limits.max:
            raise NotScored(
                f"unfit_{word}",
                f"The volume has {words} of {found:g}{unit}; {model} takes {limits.min:g} to "
                f"{limits.max:g}{unit}.",
            )
