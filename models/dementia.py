"""Prognosis of one head: tissues, volumes by region, scores of a table, and what GMLVQ says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.base import (
    CasePrognosis,
    Findings,
    Number,
    Progress,
    Segment,
    UnfitInput,
    UsedFeature,
    Volume,
)
from models.clinical_table import LEAST_SHARE
from models.gmlvq_config import Feature
from models.grey_matter import Tissues, segment_tissues
from models.prognosis_manifest import PrognosisManifest
from models.prognosis_package import CaseScore, Prognosis
from models.regions import Regional, regional_volumes
from models.t1_head import refuse_unless_t1_head, refuse_unless_whole_head

BRAIN = ("SCT", "12738006", "Brain")
SEGMENTS = (
    Segment(
        1, "Grey matter", ("SCT", "85756007", "Tissue"), ("SCT", "389081007", "Gray Matter"),
        BRAIN, (226, 92, 62),
    ),
    Segment(
        2, "White matter", ("SCT", "85756007", "Tissue"), ("SCT", "389080008", "White Matter"),
        BRAIN, (214, 206, 178),
    ),
    Segment(
        3, "Cerebrospinal fluid", ("SCT", "91720002", "Body Substance"),
        ("SCT", "65216001", "Cerebrospinal Fluid"), None, (70, 130, 220),
    ),
)  # fmt: skip
"""Tissues as they are labelled: what most of a voxel is."""
UNDECIDED = frozenset({"indeterminate", "outside_training_range", "feature_out_of_range"})
"""Reasons for which no class is named."""
Outcome = Literal["stable", "declining", "undetermined"]


@dataclass(frozen=True)
class TableScore:
    """A value of a table, such as a cognitive score.

    Parameters
    ----------
    value : float
    unit : str
        As the table says; empty where it does not.
    table : str
        Name of the table.
    date : str
        Of the row, ISO 8601; may be empty.
    days_before : int or None
        From the row to the study.
    """

    value: float
    unit: str = ""
    table: str = ""
    date: str = ""
    days_before: int | None = None


def refuse_unless_ready(
    manifest: PrognosisManifest, scores: Mapping[str, TableScore], age_years: float
) -> None:
    """Refuse before any work what cannot be scored for want of a score, or at this age.

    Raises
    ------
    UnfitInput
        A required score or most values are missing, a value cannot be, a unit is another, or the
        age is outside the reference cohort's.
    """
    wanted = [feature for feature in manifest.features if not feature.regions]
    for feature in wanted:
        _refuse_unfit_score(feature, scores.get(feature.name))
    missing = [feature.name for feature in wanted if feature.name not in scores]
    count = len(manifest.features)
    if count - len(missing) < LEAST_SHARE * count:
        raise UnfitInput(
            "too_few_values",
            f"{len(missing)} of {count} values are missing, more than half: {', '.join(missing)}.",
        )
    ageing = manifest.ageing
    if ageing is not None and not ageing.ageing().knows(age_years):
        low, high = ageing.ages
        raise UnfitInput(
            "age_out_of_range",
            f"The patient's age is outside that of the model's cohort, {low:.0f} to "
            f"{high:.0f} years.",
        )


def _refuse_unfit_score(feature: Feature, score: TableScore | None) -> None:
    if score is None:
        if feature.required:
            raise UnfitInput(
                "required_missing", f"The score {feature.name} is missing, and the model needs it."
            )
        return
    if feature.range and not feature.range[0] <= score.value <= feature.range[1]:
        low, high = feature.range
        raise UnfitInput(
            "score_out_of_range",
            f"The score {feature.name} of table {score.table} is outside {low:g} to {high:g}.",
        )
    if score.unit and score.unit != feature.unit:
        raise UnfitInput(
            "score_unit",
            f"The score {feature.name} of table {score.table} is in {score.unit}, the model takes "
            f"{feature.unit}.",
        )


def predict(
    prognosis: Prognosis,
    volume: Volume,
    scores: Mapping[str, TableScore],
    age_years: float,
    progress: Progress,
    device: str = "cpu",
) -> Findings:
    """Segment a head and say where its person lies between two prototypes.

    Parameters
    ----------
    prognosis : Prognosis
    volume : Volume
        T1-weighted.
    scores : mapping
        Feature to its value; features of the manifest that are neither here nor in the image are
        filled from the reference cohort, which is told.
    age_years : float
        At the study.
    progress : callable
    device : str
        ``cpu`` or ``cuda``.

    Raises
    ------
    UnfitInput
        A score is missing or cannot be, or the volume is no T1-weighted whole head.
    """
    refuse_unless_ready(prognosis.manifest, scores, age_years)
    refuse_unless_whole_head(volume)
    tissues = segment_tissues(
        volume,
        priors=prognosis.priors,
        device=device,
        progress=lambda done: progress(0.9 * done),
    )
    refuse_unless_t1_head(tissues)
    regional = regional_volumes(tissues)
    case = case_of(prognosis, regional, scores, age_years)
    labels = _labels(tissues)
    progress(1.0)
    return Findings(labels, SEGMENTS, _numbers(labels, volume, case), None, case)


def case_of(
    prognosis: Prognosis, regional: Regional, scores: Mapping[str, TableScore], age_years: float
) -> CasePrognosis:
    """Score one person from volumes and scores.

    Parameters
    ----------
    prognosis : Prognosis
    regional : Regional
    scores : mapping
        As `refuse_unless_ready` lets pass.
    age_years : float
    """
    manifest = prognosis.manifest
    row = _row(manifest, regional, scores, age_years)
    found = prognosis.score(row[None])[0]
    filled = prognosis.filled(row)[0]
    threshold = manifest.thresholds[0].projection
    return CasePrognosis(
        projection=found.projection,
        projection_interval=found.projection_interval,
        probability=found.probability,
        probability_interval=found.probability_interval,
        outcome=_outcome(found, threshold),
        stable=manifest.outcome.stable,
        declining=manifest.outcome.declining,
        threshold=threshold,
        features=tuple(
            _used(prognosis, k, float(filled[k]), float(found.contributions[k]), scores)
            for k in range(len(filled))
        ),
        reasons=found.reasons,
        age_years=age_years,
        volumes_ml={**regional.totals_ml, **regional.values_ml},
        population=manifest.population,
    )


def _row(
    manifest: PrognosisManifest,
    regional: Regional,
    scores: Mapping[str, TableScore],
    age_years: float,
) -> NDArray[np.float64]:
    """Features in the manifest's order; NaN where there is none."""
    measured = {
        feature.name: 100 * regional.part(feature.regions)
        for feature in manifest.features
        if feature.regions
    }
    if manifest.ageing is not None:
        measured = manifest.ageing.ageing().adjusted(measured, age_years)
    known = {name: score.value for name, score in scores.items()} | measured
    return np.array([known.get(feature.name, np.nan) for feature in manifest.features])


def _outcome(found: CaseScore, threshold: float) -> Outcome:
    if UNDECIDED & {reason.code for reason in found.reasons}:
        return "undetermined"
    return "declining" if found.projection > threshold else "stable"


def _used(
    prognosis: Prognosis,
    place: int,
    value: float,
    contribution: float,
    scores: Mapping[str, TableScore],
) -> UsedFeature:
    feature = prognosis.manifest.features[place]
    score = None if feature.regions else scores.get(feature.name)
    prototypes = prognosis.model.prototypes_original_
    source = "image" if feature.regions else "imputed"
    return UsedFeature(
        name=feature.name,
        label=feature.words,
        unit=feature.unit,
        value=value,
        contribution=contribution,
        stable=float(prototypes[0, place]),
        declining=float(prototypes[-1, place]),
        usual=prognosis.manifest.usual.get(feature.name),
        code=feature.code,
        source=score.table if score else source,
        date=score.date if score else "",
        days_before=score.days_before if score else None,
        regions=feature.regions,
    )


def _labels(tissues: Tissues) -> NDArray[np.uint8]:
    parts = np.stack([tissues.gm, tissues.wm, tissues.csf])
    labels: NDArray[np.uint8] = (1 + parts.argmax(axis=0)).astype(np.uint8)
    labels[parts.sum(axis=0) <= 0.5] = 0
    return labels


def _numbers(labels: NDArray[np.uint8], volume: Volume, case: CasePrognosis) -> tuple[Number, ...]:
    counts = np.bincount(labels.ravel(), minlength=len(SEGMENTS) + 1)
    volumes = [
        Number("volume", float(counts[segment.number]) * volume.voxel_ml, "ml", segment.number)
        for segment in SEGMENTS
    ]
    return (
        Number("score", case.projection, "1"),
        Number("probability", case.probability, "1"),
        *volumes,
    )
