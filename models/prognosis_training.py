"""Train a prognosis on a site's own table, and measure one on another table."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.binary_metrics import Scores, with_intervals
from models.clinical_table import ClinicalTable, impute, read_table, refuse_few, refuse_other_priors
from models.gmlvq import GMLVQClassifier
from models.gmlvq_case import interval
from models.gmlvq_config import BadTable, TrainingConfig
from models.gmlvq_pictures import draw_calibration, draw_relevances, draw_roc
from models.gmlvq_validation import Progress, Setting, Validated, choose, cross_validate
from models.prior_maps import BadPriors, load_priors, prior_files
from models.prognosis_package import Prognosis, load_prognosis, write_prognosis
from models.tissue_priors import ICBM152

METRIC_REPLICATES = 1000
SHARE_OF_VALIDATION = 0.7
"""Part of the progress bar."""


def train_prognosis(
    table_path: Path, config: TrainingConfig, out: Path, progress: Progress
) -> dict[str, Any]:
    """Cross-validate, train on all rows, write the package with pictures and card.

    Parameters
    ----------
    table_path : Path
        CSV, one row a visit.
    config : TrainingConfig
    out : Path
        A new or empty folder.
    progress : Progress

    Returns
    -------
    dict
        What ``metrics.json`` holds.

    Raises
    ------
    BadTable
        The table or the folder cannot be used.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadTable(f"{out} is not an empty folder.")
    table = _table_of(table_path, config)
    try:
        validated = cross_validate(
            table, config, lambda done, note: progress(SHARE_OF_VALIDATION * done, note)
        )
        progress(SHARE_OF_VALIDATION, "final model")
        setting = choose(table, np.arange(len(table.x)), config)
        model = _final(table, config, setting)
    except BadTable:
        raise
    except ValueError as error:
        raise BadTable(f"{table_path} cannot be learned from: {error}") from error
    progress(0.9, "package")
    metrics = _metrics(table, config, validated, setting)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as unfinished:
        folder = Path(unfinished, "package")
        package = write_prognosis(
            folder, model, config, table, _summary(table, config, model, setting)
        )
        _draw(folder, package, validated.scores, metrics["cross_validation"])
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
        (folder / "MODEL_CARD.md").write_text(_card(config, metrics))
        folder.rename(out)
    progress(1.0, "done")
    return metrics


def _table_of(path: Path, config: TrainingConfig) -> ClinicalTable:
    """Read the table; its volumes must come from the tissue maps of the configuration."""
    source = ICBM152
    if config.priors is not None:
        try:
            source = load_priors(prior_files(Path(config.priors))).source
        except BadPriors as error:
            raise BadTable(str(error)) from error
    refuse_other_priors(path, config.features, source)
    return read_table(path, config.features, config.outcome, config.group, config.age)


def evaluate_prognosis(
    folder: Path, table_path: Path, out: Path | None, group: str | None
) -> dict[str, Any]:
    """Measure a package on a second table of known outcome.

    Parameters
    ----------
    folder : Path
        The package.
    table_path : Path
        CSV with the package's columns.
    out : Path, optional
        Where pictures and ``metrics.json`` go.
    group : str, optional
        Column of patients, for intervals.

    Raises
    ------
    BadTable, BrokenPackage
        The table or the package cannot be used.
    """
    package = load_prognosis(folder)
    manifest = package.manifest
    ageing = manifest.ageing
    column = ageing.column if ageing else None
    source = manifest.priors.sha256 if manifest.priors else ICBM152
    refuse_other_priors(table_path, manifest.features, source)
    table = read_table(table_path, manifest.features, manifest.outcome, group, column)
    if ageing is not None:
        table = table.known_to(ageing.ageing())
        refuse_few(table_path, table, manifest.outcome)
    seen = table.at_mean_age(ageing.ageing() if ageing else None)
    x = impute(seen, package.reference, manifest.neighbours)
    scores = Scores(
        table.declining,
        package.model.scalar_projection(x),
        package.model.predict_proba(x)[:, 1],
        table.group,
    )
    at = manifest.thresholds[0].projection
    reasons = package.model.reject_reasons(x, manifest.indeterminate)
    metrics = {
        "model": {"family": manifest.family, "version": manifest.version},
        "model_sha256": package.identity.sha256,
        **_counts(table),
        "units": {feature.name: feature.unit for feature in manifest.features},
        "rows_with_reasons": sum(bool(found) for found in reasons),
        "rows_beyond_training": _beyond(package, x),
        "threshold": manifest.thresholds[0].model_dump(),
        "evaluation": with_intervals(scores, at, METRIC_REPLICATES, seed=1),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _draw(out, package, scores, metrics["evaluation"])
        (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics


def _beyond(package: Prognosis, x: NDArray[np.float64]) -> dict[str, int]:
    """How many rows have a value beyond those of training, by feature."""
    places = np.concatenate([*package.model.training_range_.outside(x), np.empty(0, np.intp)])
    counts = np.bincount(places, minlength=x.shape[1])
    return {
        feature.name: int(count)
        for feature, count in zip(package.manifest.features, counts, strict=True)
    }


def _final(table: ClinicalTable, config: TrainingConfig, setting: Setting) -> GMLVQClassifier:
    seen = table.at_mean_age(table.ageing(np.arange(len(table.x))))
    x = impute(seen, seen, config.neighbours)
    model = setting.model(config.outer_folds, config.seed)
    model.fit(x, table.declining, table.group)
    return model.bootstrap(x, table.declining, table.group, config.bootstrap)


def _counts(table: ClinicalTable) -> dict[str, Any]:
    return {
        "rows": len(table.x),
        "patients": int(table.group.max()) + 1,
        "declining": int(table.declining.sum()),
        "missing_share": round(float(np.isnan(table.x).mean()), 4),
        "left_out": table.left_out,
    }


def _metrics(
    table: ClinicalTable, config: TrainingConfig, validated: Validated, setting: Setting
) -> dict[str, Any]:
    at = config.thresholds[0]
    names = [feature.name for feature in config.features]
    return {
        **_counts(table),
        "threshold": at.model_dump(),
        "cross_validation": with_intervals(
            validated.scores, at.projection, METRIC_REPLICATES, config.seed
        ),
        "settings_of_folds": [vars(chosen) for chosen in validated.chosen],
        "setting": vars(setting),
        "relevance_of_folds": {
            name: [round(float(low), 4), round(float(high), 4)]
            for name, low, high in zip(
                names, validated.relevances.min(0), validated.relevances.max(0), strict=True
            )
        },
    }


def _summary(
    table: ClinicalTable, config: TrainingConfig, model: GMLVQClassifier, setting: Setting
) -> Mapping[str, str | int | float]:
    return {
        "rows": len(table.x),
        "patients": int(table.group.max()) + 1,
        "declining": int(table.declining.sum()),
        "data_sha256": model.training_sha256_,
        "beta": setting.beta,
        "regularization": setting.regularization,
        "seed": config.seed,
        "scorenode": version("scorenode"),
    }


def _draw(
    out: Path, package: Prognosis, scores: Scores, metrics: Mapping[str, list[float]]
) -> None:
    draw_roc(scores, package.manifest.thresholds[0].projection, metrics["auc"], out / "roc.png")
    draw_calibration(scores, metrics["calibration_error"][0], out / "calibration.png")
    bootstrap = package.model.bootstrap_
    assert bootstrap is not None  # noqa: S101 - load_prognosis refuses packages without
    replicates = (bootstrap.omega[:, 0] ** 2).sum(1)
    names = [feature.name for feature in package.manifest.features]
    draw_relevances(
        names, package.model.relevances_, interval(replicates, 0.95), out / "relevances.png"
    )


def _card(config: TrainingConfig, metrics: Mapping[str, Any]) -> str:
    """Text of ``MODEL_CARD.md``."""
    lines = "\n".join(
        f"| {name.replace('_', ' ')} | {value:.3f} | {' to '.join(f'{end:.3f}' for end in ends)} |"
        for name, (value, *ends) in metrics["cross_validation"].items()
    )
    left_out = ", ".join(f"{n} {why}" for why, n in metrics["left_out"].items() if n) or "none"
    features = ", ".join(
        f"{f.name} ({f.unit}{', required' if f.required else ''})" for f in config.features
    )
    return f"""# {config.title} {config.version}

**{config.intended_use.capitalize()} use only; not for diagnosis.** {config.population}

- Method: generalized matrix learning vector quantization; the score is the scalar projection
  between the prototypes of "{config.outcome.stable}" (0) and "{config.outcome.declining}" (1).
- Features: {features}.
- Training: {metrics["rows"]} rows of {metrics["patients"]} patients, {metrics["declining"]}
  declining; {100 * metrics["missing_share"]:.1f} % of values missing, filled from the
  {config.neighbours} nearest rows of this cohort. Left out: {left_out}.
- Settings: beta {metrics["setting"]["beta"]:g}, regularization
  {metrics["setting"]["regularization"]:g}, chosen by inner cross-validation.
- Threshold "{metrics["threshold"]["name"]}": projection above
  {metrics["threshold"]["projection"]:g}.

Nested cross-validation, {config.outer_folds} folds, patients apart; intervals of 95 % from
{METRIC_REPLICATES} draws of patients:

| | value | interval |
|---|---|---|
{lines}

The package holds the features of the training rows (`reference.safetensors`), without names or
dates, because missing values are filled from them: treat it as patient data.
Not verified: other scanners, other sites, other populations than that of the table.
"""
