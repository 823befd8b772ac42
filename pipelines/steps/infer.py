"""The infer step: a volume to findings, with models that stay loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from models.base import (
    BrokenPackage,
    Findings,
    NotEnoughMemory,
    Predictor,
    UnfitInput,
    Volume,
)
from models.loading import load_predictor
from models.package import ModelPackage, load_package
from pipelines.base import FaultyResult, Misconfigured, NotScored, StepContext
from pipelines.steps.artefacts import ELEMENTS, Scored, load_volume, save_findings
from pipelines.steps.coregister import on_grid_of
from pipelines.steps.packages import network_of, package_of
from pipelines.steps.straighten import is_straight, labels_on_source, straightened

WARM_MODELS = 4


Describe = Callable[[Findings, Volume, ModelPackage], Findings]
"""Adds to findings on the slices of the source what a pipeline says beside them."""


def _as_they_are(findings: Findings, source: Volume, package: ModelPackage) -> Findings:
    return findings


def infer(context: StepContext, describe: Describe = _as_they_are) -> Mapping[str, Any]:
    """Write ``findings.json``, and ``mask.nii.gz`` where the model labels voxels.

    A model sees a straight, even grid; labels of a tilted or unequally stepped volume are
    brought back to its slices.

    Raises
    ------
    NotScored
        The volume is not what the model was made for.
    Misconfigured
        The model package is missing, altered, or fails its own test; or there is less memory than
        the smallest way to run it takes.
    FaultyResult
        What the model returned is not what its manifest says.
    """
    context.progress(0.0, "loading the model")
    package = network_of(context.spec.model)
    predictor = warm_predictor(context.spec.model, trust_code=context.spec.trust_code)
    source = load_volume(context.output_of("convert"))
    volume = _with_others(straightened(source), package, context)
    try:
        findings = predictor.predict(
            volume, lambda done: context.progress(0.1 + 0.8 * done, "scoring")
        )
    except UnfitInput as error:
        raise NotScored(error.reason, error.sentence) from error
    except BrokenPackage as error:
        raise FaultyResult(str(error)) from error
    except NotEnoughMemory as error:
        raise Misconfigured(f"{error} Raise node.memory.step, or give the node more.") from error
    context.progress(0.95, "writing findings")
    scored = Scored(findings, predictor.identity)
    found = keep(context, scored, source, volume, lambda one: describe(one, source, package))
    return {
        "present": found.present,
        "numbers": {
            number.name: number.value for number in found.numbers if number.segment is None
        },
    }


def keep(
    context: StepContext,
    scored: Scored,
    source: Volume,
    volume: Volume,
    describe: Callable[[Findings], Findings] = lambda findings: findings,
) -> Findings:
    """Write findings, their labels brought back to the slices of the source; give them back.

    Parameters
    ----------
    context : StepContext
    scored : Scored
        Labels lie on `volume`.
    source : Volume
        As it was converted.
    volume : Volume
        Straightened: what the model saw.
    describe : callable
        Adds to findings on the slices of the source.
    """
    labels = scored.findings.labels
    straight = None
    if labels is not None and source.slice_origins is not None:
        straight = replace(volume, array=labels.astype(np.float32))
    found = describe(_on_slices(scored.findings, source))
    save_findings(replace(scored, findings=found), source, context.folder, straight)
    return found


def _with_others(volume: Volume, package: ModelPackage, context: StepContext) -> Volume:
    """Add the further inputs of the model, on the grid of the first, and elements by name."""
    converted = context.output_of("convert")
    names = list(package.manifest.channels)[1:]
    others = {name: on_grid_of(volume, load_volume(converted / name), name) for name in names}
    elements = {}
    if (converted / ELEMENTS).exists():
        elements = json.loads((converted / ELEMENTS).read_text())
    return replace(volume, others=others, elements=elements)


def _on_slices(findings: Findings, source: Volume) -> Findings:
    """Bring labels to the slices of the source, and volumes to what they take up there."""
    if findings.labels is None or is_straight(source):
        return findings
    whole = {
        number: labels_on_source(mask.astype(np.uint8), source) > 0
        for number, mask in findings.overlapping.items()
    }
    moved = replace(findings, labels=labels_on_source(findings.labels, source), overlapping=whole)
    each = source.voxel_ml_by_slice

    def volume_of(segment: int | None) -> float:
        assert moved.labels is not None  # noqa: S101 - just made
        mask = moved.labels > 0 if segment is None else moved.mask(segment)
        return float(np.count_nonzero(mask, axis=(0, 1)) @ each)

    numbers = tuple(
        replace(number, value=volume_of(number.segment)) if number.name == "volume" else number
        for number in findings.numbers
    )
    return replace(moved, numbers=numbers)


def warm_predictor(folder: str, *, trust_code: bool = False) -> Predictor:
    """Load a model package's predictor, or return the one that is loaded already.

    The package is verified every time; a package whose content has changed is loaded anew.
    """
    return _predictor(folder, package_of(folder).identity.sha256, trust_code)


@lru_cache(maxsize=WARM_MODELS)
def _predictor(folder: str, sha256: str, trust_code: bool) -> Predictor:
    try:
        return load_predictor(load_package(folder), trust_code=trust_code)
    except BrokenPackage as error:
        raise Misconfigured(f"The model package cannot be used: {error}") from error
