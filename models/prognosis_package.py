"""A prognosis as a model package: GMLVQ, a reference cohort, thresholds, a test vector."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ruamel.yaml import YAML
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.base import BrokenPackage, ModelIdentity, Reason
from models.catalogue import MANIFEST
from models.clinical_table import LEAST_SHARE, ClinicalTable, impute
from models.gmlvq import GMLVQClassifier
from models.gmlvq_config import TrainingConfig
from models.gmlvq_file import ARRAYS, HEADER
from models.package import FileEntry, entry_for, plain_file
from models.prior_maps import PREFIX, TISSUES, BadPriors, load_priors, prior_files
from models.prognosis_manifest import (
    AgeingLines,
    Files,
    PriorEntries,
    PrognosisManifest,
    Runtime,
    open_prognosis,
)
from models.tissue_priors import Priors

REFERENCE, TEST_VECTOR = "reference.safetensors", "test_vector.safetensors"
ATOL = 1e-9
USUAL_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, eq=False)
class CaseScore:
    """What the model says of one case; numbers are NaN where it must not be scored.

    Parameters
    ----------
    projection : float
        0 on the stable prototype, 1 on the declining one.
    projection_interval : tuple of float
        95 % bootstrap interval.
    probability : float
        Of declining.
    probability_interval : tuple of float
    contributions : NDArray[np.float64]
        Shape (features,); they add up to the projection.
    imputed : tuple of str
        Features that were filled from the reference cohort.
    above : tuple of str
        Names of thresholds that the projection exceeds.
    reasons : tuple of Reason
        What speaks against the score.
    """

    projection: float
    projection_interval: tuple[float, float]
    probability: float
    probability_interval: tuple[float, float]
    contributions: NDArray[np.float64]
    imputed: tuple[str, ...]
    above: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, eq=False)
class Prognosis:
    """A verified package, ready to score rows.

    Parameters
    ----------
    manifest : PrognosisManifest
    identity : ModelIdentity
    model : GMLVQClassifier
        Its classes are 0, stable, and 1, declining.
    reference : NDArray[np.float64]
        Shape (rows, features); the cohort that missing values are filled from.
    priors : Priors or None
        Tissue maps that the cohort was measured with; None: the ICBM152 maps.
    """

    manifest: PrognosisManifest
    identity: ModelIdentity
    model: GMLVQClassifier
    reference: NDArray[np.float64]
    priors: Priors | None = None

    def score(self, x: NDArray[np.float64]) -> list[CaseScore]:
        """Score rows, shape (rows, features), in the manifest's order and units; NaN is missing."""
        return [self._score(row) for row in np.asarray(x, dtype=np.float64)]

    def filled(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fill what is missing, shape (1, features)."""
        return impute(row[None], self.reference, self.manifest.neighbours)

    def _score(self, row: NDArray[np.float64]) -> CaseScore:
        missing = np.isnan(row)
        names = [feature.words for feature in self.manifest.features]
        imputed = tuple(name for name, gone in zip(names, missing, strict=True) if gone)
        refused = self._refused(missing)
        if refused is not None:
            nothing = (np.nan, np.nan)
            blank = np.full(len(row), np.nan)
            return CaseScore(np.nan, nothing, np.nan, nothing, blank, (), (), (refused,))
        x = self.filled(row)
        model = self.model
        projection = float(model.scalar_projection(x)[0])
        reasons = list(model.reject_reasons(x, self.manifest.indeterminate, names)[0])
        if imputed:
            reasons.append(
                Reason("imputed", f"Filled from the reference cohort: {', '.join(imputed)}.")
            )
        at = self.manifest.thresholds
        low, high = model.projection_interval(x)[0].tolist()
        p_low, p_high = model.probability_interval(x)[0, 1].tolist()
        return CaseScore(
            projection=projection,
            projection_interval=(low, high),
            probability=float(model.predict_proba(x)[0, 1]),
            probability_interval=(p_low, p_high),
            contributions=model.explain(x)[0],
            imputed=imputed,
            above=tuple(item.name for item in at if projection > item.projection),
            reasons=tuple(reasons),
        )

    def _refused(self, missing: NDArray[np.bool_]) -> Reason | None:
        features = self.manifest.features
        needed = [f.name for f, gone in zip(features, missing, strict=True) if f.required and gone]
        if needed:
            return Reason("required_missing", f"A required value is missing: {', '.join(needed)}.")
        if np.mean(~missing) < LEAST_SHARE:
            return Reason("too_few_values", "More than half of the values are missing.")
        return None


def write_prognosis(
    out: Path,
    model: GMLVQClassifier,
    config: TrainingConfig,
    table: ClinicalTable,
    training: Mapping[str, str | int | float],
) -> Prognosis:
    """Write a complete package and read it back; pictures and card come later.

    Parameters
    ----------
    out : Path
        A folder.
    model : GMLVQClassifier
        Fitted on classes 0 and 1, with probabilities and bootstrap.
    config : TrainingConfig
    table : ClinicalTable
        What it was fitted on: the reference cohort, and what age does to it.
    training : mapping
        How the model was trained, for the manifest.
    """
    ageing = table.ageing(np.arange(len(table.x)))
    reference = table.at_mean_age(ageing)
    model.save(out, units={feature.name: feature.unit for feature in config.features})
    (out / REFERENCE).write_bytes(save({"x": np.ascontiguousarray(reference)}))
    (out / TEST_VECTOR).write_bytes(save(_test_vector(model)))
    priors = _keep_priors(out, config)
    manifest = PrognosisManifest(
        schema_="scorenode-model/1",
        family=config.family,
        version=config.version,
        title=config.title,
        intended_use=config.intended_use,
        licence=config.licence,
        population=config.population,
        runtime=Runtime(kind="gmlvq"),
        files=Files(
            arrays=entry_for(out, ARRAYS),
            header=entry_for(out, HEADER),
            reference=entry_for(out, REFERENCE),
            test_vector=entry_for(out, TEST_VECTOR),
        ),
        outcome=config.outcome,
        features=config.features,
        ageing=None if ageing is None else AgeingLines(column=str(config.age), **vars(ageing)),
        usual=_usual(reference[table.declining == 0], config),
        priors=priors,
        neighbours=config.neighbours,
        thresholds=config.thresholds,
        indeterminate=config.indeterminate,
        training=training,
    )
    no_status = {"status", "status_reason", *(() if priors else ("priors",))}
    content = manifest.model_dump(by_alias=True, mode="json", exclude=no_status)
    content["input"] = manifest.input.model_dump(mode="json", exclude_defaults=True)
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    with (out / MANIFEST).open("w") as file:
        yaml.dump(content, file)
    return load_prognosis(out)


def _keep_priors(out: Path, config: TrainingConfig) -> PriorEntries | None:
    """Copy a site's own tissue maps into the package."""
    if config.priors is None:
        return None
    entries = {}
    for tissue, path in prior_files(Path(config.priors)).items():
        name = f"{PREFIX}{path.name}"
        shutil.copyfile(path, out / name)
        entries[tissue] = entry_for(out, name)
    return PriorEntries(**entries)


def _usual(stable: NDArray[np.float64], config: TrainingConfig) -> dict[str, tuple[float, float]]:
    """Central 95 % of each feature in people who stayed stable."""
    low, high = np.nanpercentile(stable, USUAL_PERCENTILES, axis=0)
    return {
        feature.name: (float(f"{low[k]:.6g}"), float(f"{high[k]:.6g}"))
        for k, feature in enumerate(config.features)
    }


def _test_vector(model: GMLVQClassifier) -> dict[str, NDArray[np.float64]]:
    """Points between the prototypes, which belong to no patient, and what is said of them."""
    stable, declining = model.prototypes_original_[0], model.prototypes_original_[-1]
    at = np.linspace(-0.5, 1.5, 9)[:, None]
    x = stable + at * (declining - stable)
    return {
        "x": x,
        "projection": model.scalar_projection(x),
        "probability": np.ascontiguousarray(model.predict_proba(x)[:, 1]),
    }


def load_prognosis(folder: Path | str) -> Prognosis:
    """Read and verify a package, and run its test vector.

    Raises
    ------
    BrokenPackage
        A file is missing, altered or not allowed, the manifest is not as the schema wants, the
        model is recalled, or the test vector comes out differently.
    """
    folder = Path(folder)
    package = open_prognosis(folder)
    files = package.manifest.files
    if (files.arrays.path, files.header.path) != (ARRAYS, HEADER):
        raise BrokenPackage(f"The model of {folder} must be {ARRAYS} and {HEADER}.")
    model = GMLVQClassifier.load(folder)
    reference = _arrays(folder, files.reference, ("x",))["x"]
    priors = _priors(folder, package.manifest)
    found = Prognosis(package.manifest, package.identity, model, reference, priors)
    _check_model(folder, found)
    _run_test_vector(folder, found)
    return found


def _priors(folder: Path, manifest: PrognosisManifest) -> Priors | None:
    if manifest.priors is None:
        return None
    try:
        names = zip(TISSUES, manifest.priors.entries, strict=True)
        return load_priors({tissue: plain_file(folder, one.path) for tissue, one in names})
    except BadPriors as error:
        raise BrokenPackage(str(error)) from error


def _arrays(folder: Path, entry: FileEntry, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    path = plain_file(folder, entry.path)
    try:
        found = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise BrokenPackage(f"{path} is not in the safetensors format.") from error
    if set(found) != set(names) or any(array.dtype != np.float64 for array in found.values()):
        raise BrokenPackage(f"{path} must hold {', '.join(names)} as 64 bit numbers.")
    return {name: array.copy() for name, array in found.items()}


def _check_model(folder: Path, found: Prognosis) -> None:
    model, features = found.model, len(found.manifest.features)
    if model.classes_.tolist() != [0, 1] or model.n_features_in_ != features:
        raise BrokenPackage(f"{folder}: the model is not one of two classes and these features.")
    if model.calibration_ is None or model.bootstrap_ is None or model.local:
        raise BrokenPackage(f"{folder}: the model has no probabilities, intervals or projection.")
    if found.reference.ndim != 2 or found.reference.shape[1] != features:
        raise BrokenPackage(f"{folder}: the reference cohort does not have these features.")


def _run_test_vector(folder: Path, found: Prognosis) -> None:
    wanted = _arrays(folder, found.manifest.files.test_vector, ("x", "projection", "probability"))
    x = wanted["x"]
    if x.ndim != 2 or x.shape[1] != len(found.manifest.features) or not np.isfinite(x).all():
        raise BrokenPackage(f"{folder}: the test vector does not have these features.")
    said = found.model.scalar_projection(x), found.model.predict_proba(x)[:, 1]
    for name, value in zip(("projection", "probability"), said, strict=True):
        if value.shape != wanted[name].shape or not np.allclose(value, wanted[name], atol=ATOL):
            raise BrokenPackage(f"{folder}: the test vector's {name} comes out differently here.")
