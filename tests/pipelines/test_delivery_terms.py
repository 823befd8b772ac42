"""Who gets which results, by the limits of a rule and the model that ran."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.verdicts import results_for


def terms(limits: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    return {"PACS": {"send": ["seg", "sr"], "takes_demonstration": True, "only_if": limits}}


def between(low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"min": low, "max": high}


@pytest.mark.parametrize(
    ("limits", "numbers", "goes"),
    [
        ({}, {"volume": 0.0}, True),
        ({"volume_ml": between(low=1.0)}, {"volume": 1.0}, True),
        ({"volume_ml": between(low=1.0)}, {"volume": 0.9}, False),
        ({"volume_ml": between(high=400.0)}, {"volume": 400.1}, False),
        ({"probability": between(0.5, 1.0)}, {"volume": 3.0, "probability": 0.7}, True),
        ({"probability": between(0.5, 1.0)}, {"volume": 3.0}, False),
        ({"probability": between(0.5, 1.0)}, {"probability": None}, False),
        ({"score": between()}, {"score": float("nan")}, True),
        ({"score": between(low=0.0)}, {"score": float("nan")}, False),
        ({"volume_ml": between(low=1.0)}, {}, False),
        ({"volume_ml": between(low=1.0)}, None, True),
    ],
    ids=[
        "no limits", "at the limit", "below", "above", "one of two", "no such number",
        "number without value", "nothing asked", "not a number", "no numbers at all",
        "a notice",
    ],
)  # fmt: skip
def test_results_go_only_where_they_lie_within_the_limits(
    limits: dict[str, dict[str, float | None]], numbers: dict[str, float | None] | None, goes: bool
) -> None:
    facts: dict[str, Any] = {"intended_use": "clinical"}
    facts |= {} if numbers is None else {"numbers": numbers}
    assert results_for(terms(limits), facts) == ({"PACS": ["seg", "sr"]} if goes else {})


@pytest.mark.parametrize(("use", "goes"), [("demonstration", False), ("clinical", True)])
def test_demonstrations_go_only_to_those_who_take_them(use: str, goes: bool) -> None:
    wanted = {"PACS": {"send": ["sr"], "takes_demonstration": False}}
    facts = {"intended_use": use, "numbers": {"volume": 1.0}}
    assert (results_for(wanted, facts) == {"PACS": ["sr"]}) is goes
