"""What a prognosis package says of itself: read and verified without scikit-learn and torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from models.ageing import Ageing
from models.base import BrokenPackage, ModelIdentity, Segment
from models.catalogue import MANIFEST
from models.gmlvq_config import Closed, Feature, Outcome, Threshold
from models.manifest import FIRST, Element, FileEntry, Input, Status
from models.package import (
    digest_of,
    manifest_bytes,
    manifest_digest,
    mistakes,
    parse_yaml,
    refuse_pickles,
    refuse_recalled,
    verify,
)

FINDING = ("SCT", "386805003", "Mild cognitive disorder")


class Files(Closed):
    """The files a package is made of."""

    arrays: FileEntry
    header: FileEntry
    reference: FileEntry
    test_vector: FileEntry


class PriorEntries(Closed):
    """A site's own tissue maps, which its cohort was measured with; NIfTI."""

    gm: FileEntry
    wm: FileEntry
    csf: FileEntry

    @property
    def entries(self) -> tuple[FileEntry, FileEntry, FileEntry]:
        """The three files."""
        return self.gm, self.wm, self.csf

    @property
    def sha256(self) -> str:
        """One digest of all three, as `models.tissue_priors.Priors.source`."""
        return digest_of(one.sha256 for one in self.entries)


class Runtime(Closed):
    """What runs the model."""

    kind: Literal["gmlvq"]


class AgeingLines(Closed):
    """What age alone does to features measured in images, by the people who stayed stable.

    Parameters
    ----------
    column : str
        That held the age of each row, in years.
    mean_age : float
        Years; what features are brought to.
    ages : tuple of float
        Youngest and oldest.
    slopes : mapping
        Change of each feature in a year.
    """

    column: str
    mean_age: float
    ages: tuple[float, float]
    slopes: Mapping[str, float]

    def ageing(self) -> Ageing:
        """Give what brings features to the mean age."""
        return Ageing(self.mean_age, self.slopes, self.ages)


class PrognosisManifest(Closed):
    """The content of ``model.yaml``."""

    schema_: Annotated[Literal["scorenode-model/1"], Field(alias="schema")]
    family: str
    version: str
    title: str
    intended_use: Literal["demonstration", "research", "clinical"]
    licence: str
    population: str = ""
    finding: tuple[str, str, str] = FINDING
    runtime: Runtime
    files: Files
    input: Input = Input(modality="MR")
    outcome: Outcome
    features: tuple[Feature, ...]
    ageing: AgeingLines | None = None
    usual: Mapping[str, tuple[float, float]] = Field(default_factory=dict)
    priors: PriorEntries | None = None
    neighbours: Annotated[int, Field(ge=1, le=20)]
    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1)]
    indeterminate: float = 0.0
    training: Mapping[str, str | int | float] = Field(default_factory=dict)
    status: Status = "active"
    status_reason: str = ""

    @property
    def channels(self) -> Mapping[str, Input]:
        """Series the model takes, by name: one."""
        return {FIRST: self.input}

    @property
    def elements(self) -> Mapping[str, Element]:
        """DICOM elements the model is given: none."""
        return {}

    @model_validator(mode="after")
    def _every_measured_feature_ages(self) -> PrognosisManifest:
        known = self.ageing.slopes if self.ageing else {}
        lacking = [f.name for f in self.features if f.regions and f.name not in known]
        if lacking:
            raise ValueError(f"ageing.slopes has no {', '.join(lacking)}")
        return self


@dataclass(frozen=True)
class PrognosisPackage:
    """A verified package, its model not loaded.

    Parameters
    ----------
    folder : Path
    manifest : PrognosisManifest
    identity : ModelIdentity
    """

    folder: Path
    manifest: PrognosisManifest
    identity: ModelIdentity

    @property
    def input(self) -> Input:
        """What series the model is for."""
        return self.manifest.input

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Kinds of voxels its manifest names: none, tissues are the pipeline's own."""
        return ()

    @property
    def scores(self) -> tuple[Feature, ...]:
        """Features that are not measured in the images: a table must have them."""
        return tuple(feature for feature in self.manifest.features if not feature.regions)


def open_prognosis(folder: Path | str) -> PrognosisPackage:
    """Read and verify a package that is to be used.

    Raises
    ------
    Recalled
        It is recalled or withdrawn.
    BrokenPackage
        As `read_prognosis`.
    """
    package = read_prognosis(folder)
    manifest = package.manifest
    refuse_recalled(package.folder, manifest.status, manifest.status_reason)
    return package


def read_prognosis(folder: Path | str) -> PrognosisPackage:
    """Read the manifest and verify every file, also of a package that is recalled.

    Raises
    ------
    BrokenPackage
        A file is missing, altered or not allowed, or the manifest is not as the schema wants.
    """
    folder = Path(folder)
    data = manifest_bytes(folder)
    try:
        manifest = PrognosisManifest.model_validate(parse_yaml(folder / MANIFEST, data))
    except ValidationError as error:
        raise BrokenPackage(f"{folder / MANIFEST} is not a manifest: {mistakes(error)}.") from error
    refuse_pickles(folder)
    files = manifest.files
    maps = manifest.priors.entries if manifest.priors else ()
    for entry in (files.arrays, files.header, files.reference, files.test_vector, *maps):
        verify(folder, entry)
    return PrognosisPackage(folder, manifest, _identity(manifest, data))


def _identity(manifest: PrognosisManifest, data: bytes) -> ModelIdentity:
    return ModelIdentity(
        family=manifest.family,
        version=manifest.version,
        title=manifest.title,
        intended_use=manifest.intended_use,
        sha256=manifest_digest(data),
        weights_sha256=manifest.files.arrays.sha256,
        finding=manifest.finding,
        parameters={item.name: f"{item.projection:g}" for item in manifest.thresholds}
        | {"reference-sha256": manifest.files.reference.sha256}
        | ({"priors-sha256": manifest.priors.sha256} if manifest.priors else {}),
    )
