"""GMLVQ: classes by the nearest prototype in a metric that is learned with the prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from models.base import BrokenPackage
from models.gmlvq_case import Bootstrap, TrainingRange, draw_whole, eigen, lacks_a_feature
from models.gmlvq_contents import contents_of, fingerprint
from models.gmlvq_cost import Floats, Ints
from models.gmlvq_file import read, write
from models.gmlvq_fitted import FittedGMLVQ
from models.gmlvq_learning import Learned, learn
from models.gmlvq_probability import Calibration, calibrate, folds, numbered
from models.gmlvq_settings import check_settings
from models.gmlvq_start import Init

SURELY_LABELS = "biuUS"
"""Kinds of arrays that cannot hold a continuous target, which is slow to find out."""


class GMLVQClassifier(FittedGMLVQ):
    """Generalized matrix learning vector quantization.

    A sample belongs to the class of its closest prototype w, by the squared distance
    (x - w)^T Lambda (x - w). Prototypes and Lambda = Omega^T Omega, of trace 1, are learned
    together. Large entries on Lambda's diagonal mark features that matter.

    Parameters
    ----------
    prototypes_per_class : int or dict
        How many prototypes each class gets; a dict goes by class, 1 where it is silent.
    rank : int, optional
        Rows of Omega; as many as features by default.
    local : bool
        Whether each prototype has a matrix of its own.
    solver : {"lbfgs", "waypoint"}
        ``waypoint`` repeats the steps of Biehl's MATLAB toolbox, to rounding; give it 10 to 50 as
        `max_iter`, because stopping early is what keeps it from over-fitting.
    activation : {"sigmoid", "identity"}
        What the cost makes of a margin.
    beta : float
        Slope of the sigmoid; the larger, the more only samples near a boundary count.
    regularization : float
        Factor of the penalty -1/2 ln det(Omega Omega^T), which keeps relevances from going to one
        direction. The toolbox's ``mu`` is this times samples / 4.
    init : {"kmeans", "mean"} or array
        Where prototypes start: centres of k-means in each class, class means, or an array of shape
        (prototypes, features) in the units of X, ordered by class.
    null_space : {"auto", True, False}
        Whether Lambda keeps to the span of the data; ``auto`` does so unless values are missing.
    subspace_correction : array, optional
        Shape (features, directions), of standardised features: directions that Lambda must not use,
        such as those that tell scanners apart.
    class_weight : "balanced" or dict, optional
        How much a sample of each class counts.
    missing : {"forbid", "partial"}
        ``partial`` leaves missing features (NaN) out of distances, which are rescaled by the share
        of relevance that is there.
    standardize : bool
        Whether features are brought to mean 0 and standard deviation 1 first; relevances can be
        compared only then.
    max_iter : int
        At most so many iterations of L-BFGS; exactly so many steps of ``waypoint``.
    tol : float
        L-BFGS ends when no component of the gradient is larger, or when an iteration gains less
        than a tenth of it, as a part of the cost.
    calibration_folds : int
        Folds of the cross-validation that probabilities are learned from; with 0 there is no
        `predict_proba`. Each fold costs as much as fitting once.
    random_state : int or RandomState, optional
        For k-means, matrices of limited rank, and folds.

    Attributes
    ----------
    classes_ : array of shape (classes,)
    mean_, scale_ : arrays of shape (features,)
        What standardises a feature.
    prototypes_, prototypes_original_ : arrays of shape (prototypes, features)
        Standardised, and in the units of X.
    prototype_labels_ : array of shape (prototypes,)
        Their classes.
    omega_ : array of shape (rank, features)
        With ``local``, (prototypes, rank, features); so too for the next four.
    relevance_matrix_ : array of shape (features, features)
        Lambda, of trace 1.
    relevances_ : array of shape (features,)
        Its diagonal.
    eigenvalues_, eigenvectors_ : arrays of shape (features,) and (features, features)
        Of Lambda, falling; a column is a vector.
    cost_curve_ : array of shape (n_iter_ + 1,)
    n_iter_ : int
    converged_ : bool
    calibration_ : Calibration or None
        None where it was not wanted, or a class has fewer than two samples.
    training_sha256_ : str
        Fingerprint of X and y.
    training_range_ : TrainingRange
        What samples were learned from, for `reject_reasons`.
    bootstrap_ : Bootstrap or None
        Set by `bootstrap`, for intervals.

    References
    ----------
    Schneider, Biehl, Hammer, Neural Computation 21:3532 (2009).
    """

    def __init__(
        self,
        prototypes_per_class: int | Mapping[Any, int] = 1,
        *,
        rank: int | None = None,
        local: bool = False,
        solver: Literal["lbfgs", "waypoint"] = "lbfgs",
        activation: Literal["sigmoid", "identity"] = "sigmoid",
        beta: float = 2.0,
        regularization: float = 1e-3,
        init: Init = "kmeans",
        null_space: Literal["auto"] | bool = "auto",
        subspace_correction: ArrayLike | None = None,
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        missing: Literal["forbid", "partial"] = "forbid",
        standardize: bool = True,
        max_iter: int = 500,
        tol: float = 1e-5,
        calibration_folds: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.prototypes_per_class = prototypes_per_class
        self.rank = rank
        self.local = local
        self.solver = solver
        self.activation = activation
        self.beta = beta
        self.regularization = regularization
        self.init = init
        self.null_space = null_space
        self.subspace_correction = subspace_correction
        self.class_weight = class_weight
        self.missing = missing
        self.standardize = standardize
        self.max_iter = max_iter
        self.tol = tol
        self.calibration_folds = calibration_folds
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn prototypes, matrix and probabilities.

        Parameters
        ----------
        X : array of shape (samples, features)
        y : array of shape (samples,)
        groups : array of shape (samples,), optional
            Such as the patient of each sample: probabilities are never learned from a sample whose
            patient was learned from.

        Raises
        ------
        ValueError
            Data or parameters cannot be used; the sentence says why.
        """
        check_settings(self)
        finite: bool | str = "allow-nan" if self.missing == "partial" else True
        x, y = validate_data(self, X, y, dtype=np.float64, ensure_all_finite=finite)
        given = numbered(groups, len(x))
        if np.asarray(y).dtype.kind not in SURELY_LABELS:
            check_classification_targets(y)
        self.classes_, label = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("GMLVQ needs samples of at least two classes; y holds one class.")
        random = check_random_state(self.random_state)
        self._keep(learn(self, x, self.classes_, label, random))
        self.training_sha256_ = fingerprint(x, np.asarray(y))
        nearest = self._metric().distances(x).min(1)
        self.training_range_ = TrainingRange.of(x, nearest)
        self.bootstrap_: Bootstrap | None = None
        self.calibration_: Calibration | None = None
        if self.calibration_folds:
            self._calibrate(x, label, given, random)
        return self

    def save(self, folder: Path | str, units: Mapping[str, str] | None = None) -> None:
        """Write ``model.safetensors`` and ``model.json``; nothing in them can run code.

        Parameters
        ----------
        folder : Path or str
            Made where there is none.
        units : mapping, optional
            Units of features by name, for people.
        """
        check_is_fitted(self)
        write(Path(folder), contents_of(self, units or {}))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        BrokenPackage
            A file is missing, altered, not of this kind, or does not fit the other.
        """
        contents = read(Path(folder))
        try:
            parameters = contents.parameters()
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenPackage(f"{folder} has parameters that cannot be.") from error
        if set(parameters) != set(cls().get_params()):
            raise BrokenPackage(f"{folder} has parameters of another version.")
        model = cls(**parameters)
        try:
            check_settings(model)
        except ValueError as error:
            raise BrokenPackage(f"{folder}: {error}") from error
        model.classes_ = contents.classes()
        model.n_features_in_ = len(contents.arrays["mean"])
        if contents.header.features is not None:
            model.feature_names_in_ = np.array(contents.header.features, dtype=object)
        model._keep(contents.learned())
        model.training_sha256_ = contents.header.training_sha256
        model.training_range_ = contents.training_range()
        model.calibration_ = contents.calibration()
        model.bootstrap_ = contents.bootstrap()
        return model

    def _keep(self, learned: Learned) -> None:
        """Set what follows from matrices and prototypes."""
        omega = learned.omega if self.local else learned.omega[0]
        self.mean_, self.scale_ = learned.mean, learned.scale
        self.prototypes_, self.omega_ = learned.prototypes, omega
        self.prototype_classes_ = learned.prototype_classes
        self.prototype_labels_ = self.classes_[self.prototype_classes_]
        self.prototypes_original_ = learned.prototypes * learned.scale + learned.mean
        self.cost_curve_, self.n_iter_ = learned.curve, len(learned.curve) - 1
        self.converged_ = learned.converged
        self.relevance_matrix_ = np.swapaxes(omega, -1, -2) @ omega
        self.relevances_ = np.diagonal(self.relevance_matrix_, axis1=-2, axis2=-1).copy()
        self.eigenvalues_, self.eigenvectors_ = eigen(self.relevance_matrix_)
        self._n_features_out = omega.shape[-1 if self.local else -2]

    def _calibrate(
        self,
        x: Floats,
        label: Ints,
        groups: Ints | None,
        random: np.random.RandomState,
    ) -> None:
        distance, there = self._out_of_fold(x, label, groups, random)
        if there.any():
            self.calibration_ = calibrate(distance[there], label[there])

    def _out_of_fold(
        self,
        x: Floats,
        label: Ints,
        groups: Ints | None,
        random: np.random.RandomState,
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Distances of samples that were not learned from, and which of them were held out."""
        distance, there = np.zeros((len(x), len(self.classes_))), np.zeros(len(x), dtype=bool)
        for train, test in folds(label, groups, self.calibration_folds, random):
            if lacks_a_feature(x[train]):
                continue
            other = clone(self).set_params(calibration_folds=0)
            other.fit(x[train], self.classes_[label[train]])
            distance[test], there[test] = other._metric().class_distances(x[test]), True
        return distance, there

    def bootstrap(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        replicates: int = 200,
    ) -> Self:
        """Learn again from samples drawn with replacement, so that intervals can be told.

        Parameters
        ----------
        X, y, groups
            As given to `fit`. Groups are drawn, not their samples, and in each class as many as
            there are.
        replicates : int

        Raises
        ------
        ValueError
            These are not samples of what was learned.
        """
        x = self._read(X)
        label, given = self._label(y, len(x)), numbered(groups, len(x))
        if len(np.unique(label)) < len(self.classes_):
            raise ValueError("y must hold samples of every class that was learned.")
        if replicates < 1:
            raise ValueError(f"replicates must be at least 1, not {replicates!r}.")
        random = check_random_state(self.random_state)
        distance, there = np.empty(0), np.zeros(len(x), dtype=bool)
        if self.calibration_ is not None:
            other = check_random_state(self.random_state)
            distance, there = self._out_of_fold(x, label, given, other)
        drawn_from = np.arange(len(x)) if given is None else given
        found, calibrations = [], []
        for _ in range(replicates):
            rows = draw_whole(x, label, drawn_from, random)
            if there.any():
                kept = rows[there[rows]]
                calibrations.append(calibrate(distance[kept], label[kept]).numbers)
            settings = clone(self).set_params(init=self.prototypes_original_)
            found.append(learn(settings, x[rows], self.classes_, label[rows], random))
        self.bootstrap_ = Bootstrap(
            np.array([item.mean for item in found]),
            np.array([item.scale for item in found]),
            np.array([item.prototypes for item in found]),
            _stacked([item.omega for item in found]),
            np.array(calibrations) if calibrations else None,
        )
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing == "partial"
        return tags


def _stacked(omegas: list[Floats]) -> Floats:
    """Stack matrices; those of lower rank get rows of zeros, which change no distance."""
    most = max(omega.shape[1] for omega in omegas)
    return np.array([np.pad(o, ((0, 0), (0, most - o.shape[1]), (0, 0))) for o in omegas])
