"""Intracranial haemorrhage on non-contrast head CT: SEG, measurement report, one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.base import Pipeline, StepContext

MODALITIES = frozenset({"CT"})


def convert(context: StepContext) -> Mapping[str, Any]:
    """Turn the series into a volume in Hounsfield units."""
    from pipelines.steps.convert import convert as convert_series

    return convert_series(context, MODALITIES)


def infer(context: StepContext) -> Mapping[str, Any]:
    """Label blood."""
    from pipelines.steps.infer import infer as predict

    return predict(context)


def report(context: StepContext) -> Mapping[str, Any]:
    """Write the SEG, the SR and the secondary capture."""
    from pipelines.steps.report import report as write_results

    return write_results(context)


PIPELINE = Pipeline("haemorrhage", "1", MODALITIES, convert, infer, report)
