"""Prognosis of dementia from a T1-weighted head and cognitive scores: SEG, report, one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.base import Pipeline, StepContext

MODALITIES = frozenset({"MR"})


def convert(context: StepContext) -> Mapping[str, Any]:
    """Turn the series into a volume, and look at what its header says of the patient."""
    from pipelines.steps.convert import convert as convert_series
    from pipelines.steps.prognosis import keep_person

    facts = convert_series(context, MODALITIES)
    keep_person(context)
    return facts


def infer(context: StepContext) -> Mapping[str, Any]:
    """Segment grey matter and score it together with the cognitive scores."""
    from pipelines.steps.prognosis import infer as predict

    return predict(context)


def report(context: StepContext) -> Mapping[str, Any]:
    """Write the SEG, the SR and the secondary capture."""
    from pipelines.steps.report import report as write_results

    return write_results(context)


PIPELINE = Pipeline("dementia", "1", MODALITIES, convert, infer, report, models="prognosis")
