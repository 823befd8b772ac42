"""What age alone does to volumes: regressed out with the numbers of a reference cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ageing:
    """How features change with age in people without disease; part of a model's data.

    Parameters
    ----------
    mean_age : float
        Years; what features are brought to.
    slopes : mapping
        Change of each feature in a year.
    ages : tuple of float
        Youngest and oldest of the cohort: beyond them nothing is known.
    """

    mean_age: float
    slopes: Mapping[str, float]
    ages: tuple[float, float]

    def knows(self, age: float) -> bool:
        """Whether an age is one of the cohort's."""
        return self.ages[0] <= age <= self.ages[1]

    def adjusted(self, features: Mapping[str, float], age: float) -> dict[str, float]:
        """Bring features to the mean age.

        Raises
        ------
        ValueError
            The age is outside the cohort's, or a feature is unknown.
        """
        if not self.knows(age):
            raise ValueError(
                f"age {age:g} is outside the reference cohort's {self.ages[0]:g} to "
                f"{self.ages[1]:g} years"
            )
        missing = sorted(set(features) - set(self.slopes))
        if missing:
            raise ValueError(f"the reference cohort has no feature {', '.join(missing)}")
        years = age - self.mean_age
        return {name: value - self.slopes[name] * years for name, value in features.items()}

    def change(self, names: Sequence[str], ages: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give what age did to features, shape (rows, features); 0 for those that have no slope.

        Parameters
        ----------
        names : sequence of str
        ages : NDArray[np.float64]
            Years, shape (rows,).
        """
        slopes = np.array([self.slopes.get(name, 0.0) for name in names])
        found: NDArray[np.float64] = np.outer(ages - self.mean_age, slopes)
        return found


def fit_ageing(rows: Sequence[Mapping[str, float]], ages: Sequence[float]) -> Ageing:
    """Fit straight lines by least squares.

    Parameters
    ----------
    rows : sequence of mapping
        Features of each person without disease, all of the same names.
    ages : sequence of float
        Years.

    Raises
    ------
    ValueError
        There are fewer than three people, or all have one age.
    """
    years = np.asarray(ages, np.float64)
    if len(rows) != len(years) or len(rows) < 3 or np.ptp(years) == 0:
        raise ValueError(f"{len(rows)} people of {len(set(ages))} ages are too few for a line")
    away = years - years.mean()
    slopes = {
        name: float(away @ np.array([row[name] for row in rows]) / (away @ away))
        for name in rows[0]
    }
    return Ageing(float(years.mean()), slopes, (float(years.min()), float(years.max())))
