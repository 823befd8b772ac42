"""Any packaged segmentation model: volume of each structure, SEG, report, one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.base import Pipeline, StepContext

MODALITIES = frozenset({"CT", "MR", "PT", "NM", "XA"})
"""Those whose series are volumes; the model's manifest says which of them it takes."""


def convert(context: StepContext) -> Mapping[str, Any]:
    """Turn the series into a volume in modality units."""
    from pipelines.steps.convert import convert as convert_series

    return convert_series(context, MODALITIES)


def infer(context: StepContext) -> Mapping[str, Any]:
    """Label the structures of the model."""
    from pipelines.steps.infer import infer as predict

    return predict(context)


def report(context: StepContext) -> Mapping[str, Any]:
    """Write the SEG, the SR and the secondary capture."""
    from pipelines.steps.report import report as write_results

    return write_results(context)


PIPELINE = Pipeline("segmentation", "1", MODALITIES, convert, infer, report)
