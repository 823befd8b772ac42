"""Intracranial haemorrhage on non-contrast head CT: SEG, measurement report, one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.base import Findings, Volume
from models.package import ModelPackage
from pipelines.base import Pipeline, StepContext

MODALITIES = frozenset({"CT"})
PRIORITY_ML = 1.0
"""More blood than this is urgent where the model's manifest has no ``priority_ml``."""


def convert(context: StepContext) -> Mapping[str, Any]:
    """Turn the series into a volume in Hounsfield units."""
    from pipelines.steps.convert import convert as convert_series

    return convert_series(context, MODALITIES)


def infer(context: StepContext) -> Mapping[str, Any]:
    """Label blood; count and measure lesions."""
    from models.lesions import with_lesions
    from pipelines.steps.infer import infer as predict

    def describe(findings: Findings, volume: Volume, package: ModelPackage) -> Findings:
        threshold = package.manifest.priority_ml
        return with_lesions(findings, volume, PRIORITY_ML if threshold is None else threshold)

    return predict(context, describe)


def report(context: StepContext) -> Mapping[str, Any]:
    """Write the SEG, the SR and the secondary capture."""
    from pipelines.steps.report import report as write_results

    return write_results(context)


PIPELINE = Pipeline("haemorrhage", "1", MODALITIES, convert, infer, report)
