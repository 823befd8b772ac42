"""What a fitted GMLVQ classifier does with samples: classes, probabilities, reasons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from models.base import Reason
from models.gmlvq_case import Bootstrap, Metric, TrainingRange, eigen, interval, reasons_of
from models.gmlvq_cost import SMALLEST, Floats, Ints, margins
from models.gmlvq_probability import Calibration

NO_PROBABILITIES = "A class or a feature had too few samples to learn probabilities from."


def _has_calibration(model: FittedGMLVQ) -> bool:
    return model.calibration_folds > 0


class FittedGMLVQ(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    ClassifierMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """The half of `GMLVQClassifier`, which describes its attributes, that comes after `fit`."""

    local: bool
    missing: Literal["forbid", "partial"]
    calibration_folds: int
    classes_: NDArray[Any]
    mean_: Floats
    scale_: Floats
    prototypes_: Floats
    prototype_classes_: Ints
    omega_: Floats
    relevance_matrix_: Floats
    n_features_in_: int
    calibration_: Calibration | None
    bootstrap_: Bootstrap | None
    training_range_: TrainingRange

    def _metric(self) -> Metric:
        check_is_fitted(self)
        omega = self.omega_ if self.local else self.omega_[None]
        return Metric(self.mean_, self.scale_, self.prototypes_, self.prototype_classes_, omega)

    def _read(self, X: ArrayLike) -> Floats:
        check_is_fitted(self)
        finite: bool | str = "allow-nan" if self.missing == "partial" else True
        x: Floats = validate_data(self, X, dtype=np.float64, ensure_all_finite=finite, reset=False)
        if np.isnan(x).all(1).any():
            raise ValueError("A sample has no value at all.")
        return x

    def _label(self, y: ArrayLike, samples: int) -> Ints:
        """Index of the class of each sample."""
        told = column_or_1d(y)
        if len(told) != samples:
            raise ValueError(f"y must hold one label for each of {samples} samples.")
        label: Ints = np.minimum(np.searchsorted(self.classes_, told), len(self.classes_) - 1)
        if not np.array_equal(self.classes_[label], told):
            raise ValueError("y holds a class that was not learned.")
        return label

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Class of the closest prototype, shape (samples,)."""
        nearest = self._metric().class_distances(self._read(X)).argmin(1)
        found: NDArray[Any] = self.classes_[nearest]
        return found

    def decision_function(self, X: ArrayLike) -> Floats:
        """How much closer each class is than the closest other one.

        Shape (samples, classes): difference of squared distances, positive for the class that
        `predict` gives. With two classes shape (samples,), for the second.
        """
        found = self._metric().class_distances(self._read(X))
        if len(self.classes_) == 2:
            return found[:, 0] - found[:, 1]
        nearest = np.sort(found, axis=1)[:, :2]
        first = found == nearest[:, :1]
        return np.where(first, nearest[:, 1:], nearest[:, :1]) - found

    def margin(self, X: ArrayLike, y: ArrayLike) -> Floats:
        """Relative margin mu of samples of known class: -1 surely right, above 0 wrong."""
        x = self._read(X)
        label = self._label(y, len(x))
        return margins(self._metric().distances(x), label, self.prototype_classes_)

    @available_if(_has_calibration)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: ArrayLike) -> Floats:
        """Probability of each class, shape (samples, classes), learned out of fold.

        Where classes are not equally frequent its largest may be another class than that of the
        closest prototype.

        Raises
        ------
        ValueError
            A class or a feature had fewer than two samples (or groups) in training.
        """
        x = self._read(X)
        if self.calibration_ is None:
            raise ValueError(NO_PROBABILITIES)
        return self.calibration_.probabilities(self._metric().class_distances(x))

    def transform(self, X: ArrayLike, eigenvectors: int | None = None) -> Floats:
        """Map samples to where the squared distance is Euclidean, shape (samples, rank).

        Parameters
        ----------
        X : array of shape (samples, features)
            A row with a missing value has no place, and gives a row of NaN.
        eigenvectors : int, optional
            Gives coordinates along so many leading eigenvectors of Lambda instead, scaled with
            the roots of their eigenvalues; so always with local matrices, for the mean of them.
        """
        z, present = self._metric().standardised(self._read(X))
        if eigenvectors is None and not self.local:
            found: Floats = z @ self.omega_.T
        else:
            matrix = self.relevance_matrix_.mean(0) if self.local else self.relevance_matrix_
            values, vectors = eigen(matrix)
            count = eigenvectors or len(values)
            found = (z @ vectors[:, :count]) * np.sqrt(values[:count])
        if present is not None:
            found[(present == 0).any(1)] = np.nan
        return found

    def explain(self, X: ArrayLike, *, stable: Any = None, declining: Any = None) -> Floats:
        """Contribution of each feature to the scalar projection, shape (samples, features).

        They add up to `scalar_projection`, whose parameters and errors it has.
        """
        x = self._read(X)
        return self._metric().contributions(x, *self._ends(stable, declining))

    def scalar_projection(
        self, X: ArrayLike, *, stable: Any = None, declining: Any = None
    ) -> Floats:
        """Where samples lie between the prototypes of two classes, shape (samples,).

        0 on the closest prototype of `stable`, 1 on that of `declining`, 0.5 where both are equally
        far; beyond 0 and 1 it goes on. With w0 and w1 the two prototypes,
        (x - w0)^T Lambda (w1 - w0) / (w1 - w0)^T Lambda (w1 - w0).

        Parameters
        ----------
        X : array of shape (samples, features)
        stable, declining : label, optional
            By default the two classes in their order; needed where there are more.

        Raises
        ------
        ValueError
            A class is unknown, the model has local matrices and so no common line, or both
            prototypes lie at one place.
        """
        shares = self.explain(X, stable=stable, declining=declining)
        found: Floats = shares.sum(1)
        return found

    def _ends(self, stable: Any, declining: Any) -> tuple[int, int]:
        check_is_fitted(self)
        if self.local:
            raise ValueError("Prototypes with matrices of their own share no line to project on.")
        known = self.classes_.tolist()
        if stable is None and declining is None and len(known) == 2:
            return 0, 1
        for label in (stable, declining):
            if label not in known:
                raise ValueError(f"stable and declining must each be one of {known}, not {label}.")
        if stable == declining:
            raise ValueError("stable and declining must be different classes.")
        return known.index(stable), known.index(declining)

    def projection_interval(
        self, X: ArrayLike, *, stable: Any = None, declining: Any = None, level: float = 0.95
    ) -> Floats:
        """Bootstrap interval of the scalar projection, shape (samples, 2): low, high.

        Raises
        ------
        ValueError
            `bootstrap` was not called, or as for `scalar_projection`.
        """
        x, ends = self._read(X), self._ends(stable, declining)
        found = [metric.contributions(x, *ends).sum(1) for metric in self._replicates()]
        return interval(np.array(found), level)

    def probability_interval(self, X: ArrayLike, *, level: float = 0.95) -> Floats:
        """Bootstrap interval of each probability, shape (samples, classes, 2): low, high.

        Distances were learned again in each replicate, and so was the step from them to
        probabilities.

        Raises
        ------
        ValueError
            `bootstrap` was not called, or there are no probabilities.
        """
        x = self._read(X)
        if self.calibration_ is None:
            raise ValueError(NO_PROBABILITIES)
        metrics = self._replicates()
        again = None if self.bootstrap_ is None else self.bootstrap_.calibration
        if again is None:
            own = [self.calibration_] * len(metrics)
        else:
            own = [Calibration.of(numbers) for numbers in again]
        found = [
            calibration.probabilities(metric.class_distances(x))
            for calibration, metric in zip(own, metrics, strict=True)
        ]
        return interval(np.array(found), level)

    def _replicates(self) -> list[Metric]:
        if self.bootstrap_ is None:
            raise ValueError("There are no replicates to take an interval from; call bootstrap.")
        return self.bootstrap_.metrics(self.prototype_classes_)

    def reject_score(self, X: ArrayLike) -> Floats:
        """Distance to the closest prototype, 1 at the 99th percentile of training; (samples,)."""
        nearest = self._metric().distances(self._read(X)).min(1)
        found: Floats = nearest / max(self.training_range_.distance_limit, SMALLEST)
        return found

    def reject_reasons(
        self, X: ArrayLike, indeterminate: float = 0.0, names: Sequence[str] | None = None
    ) -> list[tuple[Reason, ...]]:
        """Why each sample should not be scored, or only with care; empty where nothing speaks.

        Parameters
        ----------
        X : array of shape (samples, features)
        indeterminate : float
            A sample is indeterminate when no class is more probable than 0.5 plus this; 0 asks for
            no probabilities (Chow, IEEE Transactions on Information Theory 16:41, 1970).
        names : sequence of str, optional
            Of the features; by default those of the table that was learned from, or numbers.
        """
        x = self._read(X)
        features: list[object] = list(range(self.n_features_in_))
        features = list(names or getattr(self, "feature_names_in_", features))
        far = self.reject_score(x) > 1
        unsure = np.zeros(len(x), dtype=bool)
        if indeterminate > 0:
            unsure = self.predict_proba(x).max(1) < 0.5 + indeterminate
        beyond = self.training_range_.outside(x)
        return [
            reasons_of(features, *facts)
            for facts in zip(unsure.tolist(), far.tolist(), beyond, np.isnan(x), strict=True)
        ]
