"""Figures of label maps against values known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.segmentation_metrics import Agreement, Scored, agreement, concordance, summary

SPACING = np.array((1.0, 2.0, 5.0))


def box(*corners: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((30, 20, 12), bool)
    mask[tuple(slice(*corner) for corner in corners)] = True
    return mask


def test_a_shifted_box_has_the_dice_and_distances_of_its_shift() -> None:
    truth, found = box((5, 15), (5, 15), (3, 9)), box((8, 18), (5, 15), (3, 9))

    result = agreement(truth, found, SPACING, tolerance_mm=3.5)

    assert result.dice == pytest.approx(2 * 7 / 20)
    assert result.hd95_mm == pytest.approx(3.0)
    assert result.nsd == 1.0
    assert agreement(truth, found, SPACING, tolerance_mm=1.0).nsd < 0.9
    assert result.truth_ml == result.found_ml == pytest.approx(600 * 10 / 1000)


def test_nothing_found_where_nothing_is_agrees() -> None:
    empty = np.zeros((5, 5, 5), bool)

    result = agreement(empty, empty, SPACING)

    assert (result.dice, result.nsd) == (1.0, 1.0)
    assert np.isnan(result.hd95_mm)
    assert (result.lesions, result.false_lesions) == (0, 0)


def test_something_missed_and_something_made_up() -> None:
    some, empty = box((5, 15), (5, 15), (3, 9)), box((0, 0), (0, 0), (0, 0))

    missed, made_up = agreement(some, empty, SPACING), agreement(empty, some, SPACING)

    assert (missed.dice, missed.nsd, missed.lesions, missed.lesions_found) == (0.0, 0.0, 1, 0)
    assert (made_up.dice, made_up.nsd, made_up.false_lesions) == (0.0, 0.0, 1)


def test_lesions_are_counted_from_a_millilitre() -> None:
    """One of 1.2 ml found, one of 1.2 ml missed, one of 0.5 ml not counted."""
    first, second, speck = (
        box((0, 6), (0, 5), (0, 4)),
        box((15, 21), (0, 5), (0, 4)),
        box((0, 5), (10, 15), (6, 8)),
    )

    result = agreement(first | second | speck, box((1, 4), (0, 5), (0, 4)), SPACING)

    assert (result.lesions, result.lesions_found, result.false_lesions) == (2, 1, 0)


def test_concordance_of_known_pairs() -> None:
    """Same as Pearson's r for equal means and spreads; lowered by a shift."""
    one = np.array((1.0, 2.0, 3.0, 4.0))

    assert concordance(one, one) == pytest.approx(1.0)
    assert concordance(one, one[::-1]) == pytest.approx(-1.0)
    assert concordance(one, one + 1) == pytest.approx(2 * 1.25 / (1.25 + 1.25 + 1.0))


def scored(name: str, truth: float, found: float, dice: float, probability: float) -> Scored:
    part = Agreement(dice, dice, 2.0, truth, found, int(truth > 1), int(found > 1), 0)
    return Scored(name, name[:2], "iph" if truth else "none", probability, (part,))


def test_the_summary_counts_only_cases_that_have_the_structure() -> None:
    cases = [
        scored("p1a", 10.0, 12.0, 0.8, 0.9),
        scored("p1b", 20.0, 19.0, 0.9, 0.8),
        scored("p2a", 4.0, 0.0, 0.0, 0.2),
        scored("p3a", 0.0, 0.0, 1.0, 0.1),
        scored("p4a", 0.0, 0.3, 0.0, 0.4),
    ]

    metrics = summary(cases, ["blood"])

    found = metrics["structures"]["blood"]
    assert metrics["dice"] == {"blood": pytest.approx(1.7 / 3, abs=1e-4)}
    assert (metrics["held_out"], metrics["patients"], found["cases_with"]) == (5, 4, 3)
    assert found["volume_mae_ml"][0] == pytest.approx(7 / 3, abs=1e-4)
    assert found["bland_altman_ml"]["bias"] == pytest.approx((2 - 1 - 4 + 0.3) / 5)
    assert found["lesion_sensitivity"][0] == pytest.approx(2 / 3, abs=1e-4)
    assert found["false_ml_median"] == pytest.approx(0.15)
    assert found["false_ml_worst"] == 0.3
    assert metrics["presence_auc"][0] == pytest.approx(5 / 6, abs=1e-4)
    assert metrics["dice_by_kind"] == {"iph": pytest.approx(1.7 / 3, abs=1e-4), "none": 0.5}
    low, high = found["dice"][1:]
    assert 0.0 <= low < found["dice"][0] < high <= 0.9


def test_what_cannot_be_computed_is_null() -> None:
    metrics = summary([scored("p1", 10.0, 10.0, 1.0, 0.9)], ["blood"])

    assert metrics["presence_auc"] == [None, None, None]
    assert metrics["structures"]["blood"]["volume_ccc"][0] is None
    assert metrics["structures"]["blood"]["false_ml_median"] is None


def test_without_cases_nothing_is_measured() -> None:
    with pytest.raises(ValueError, match="Without held-out cases"):
        summary([], ["blood"])
