"""Nested cross-validation of GMLVQ: settings are chosen inside, measured outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from sklearn.metrics import roc_auc_score

from models.binary_metrics import Scores
from models.clinical_table import ClinicalTable, impute
from models.gmlvq import GMLVQClassifier
from models.gmlvq_config import BadTable, TrainingConfig
from models.gmlvq_cost import Floats, Ints
from models.gmlvq_probability import folds

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Setting:
    """What inner cross-validation chooses."""

    beta: float
    regularization: float

    def model(self, calibration_folds: int, seed: int) -> GMLVQClassifier:
        """Make the classifier, not yet fitted."""
        return GMLVQClassifier(
            activation="sigmoid" if self.beta else "identity",
            beta=self.beta or 1.0,
            regularization=self.regularization,
            calibration_folds=calibration_folds,
            random_state=seed,
        )


@dataclass(frozen=True, eq=False)
class Validated:
    """What nested cross-validation found.

    Parameters
    ----------
    scores : Scores
        Of every row, by a model that saw nothing of its patient.
    chosen : tuple of Setting
        Of each outer fold.
    relevances : NDArray[np.float64]
        Shape (outer folds, features).
    """

    scores: Scores
    chosen: tuple[Setting, ...]
    relevances: Floats


def settings_of(config: TrainingConfig) -> list[Setting]:
    """Every setting to try."""
    pairs = product(config.search.beta, config.search.regularization)
    return [Setting(beta, regularization) for beta, regularization in pairs]


def choose(table: ClinicalTable, rows: Ints, config: TrainingConfig) -> Setting:
    """Choose by the mean AUC over inner folds; of equals the first.

    Raises
    ------
    BadTable
        A class has too few patients to be split.
    """
    tried = settings_of(config)
    if len(tried) == 1:
        return tried[0]
    totals = np.zeros(len(tried))
    for train, test in _splits(table, rows, config.inner_folds, config.seed):
        x = _prepared(table, train, test, config)
        for place, setting in enumerate(tried):
            model = setting.model(0, config.seed).fit(x[0], table.declining[train])
            totals[place] += roc_auc_score(table.declining[test], model.scalar_projection(x[1]))
    return tried[int(totals.argmax())]


def cross_validate(table: ClinicalTable, config: TrainingConfig, progress: Progress) -> Validated:
    """Score every row with a model that was chosen and learned without its patient.

    Raises
    ------
    BadTable
        A class has too few patients to be split.
    """
    everyone = np.arange(len(table.x))
    projection, probability = np.full(len(table.x), np.nan), np.full(len(table.x), np.nan)
    chosen, relevances = [], []
    splits = list(_splits(table, everyone, config.outer_folds, config.seed))
    for number, (train, test) in enumerate(splits):
        progress(number / len(splits), f"fold {number + 1} of {len(splits)}")
        setting = choose(table, train, config)
        x = _prepared(table, train, test, config)
        model = setting.model(config.inner_folds, config.seed)
        model.fit(x[0], table.declining[train], table.group[train])
        projection[test] = model.scalar_projection(x[1])
        probability[test] = model.predict_proba(x[1])[:, 1]
        chosen.append(setting)
        relevances.append(model.relevances_)
    done = np.isfinite(projection)
    scores = Scores(table.declining[done], projection[done], probability[done], table.group[done])
    return Validated(scores, tuple(chosen), np.array(relevances))


def _splits(table: ClinicalTable, rows: Ints, count: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Split some rows, stratified, groups together; both classes are on both sides."""
    label, group = table.declining[rows], table.group[rows]
    found = [
        (rows[train], rows[test])
        for train, test in folds(label, group, count, np.random.RandomState(seed))
        if len(np.unique(label[test])) == 2
    ]
    if not found:
        raise BadTable("A class has too few patients for cross-validation.")
    yield from found


def _prepared(
    table: ClinicalTable, train: Ints, test: Ints, config: TrainingConfig
) -> tuple[Floats, Floats]:
    """Both sides, at the mean age and filled, by the training side only."""
    everyone = table.at_mean_age(table.ageing(train))
    reference = everyone[train]
    return (
        impute(reference, reference, config.neighbours),
        impute(everyone[test], reference, config.neighbours),
    )
