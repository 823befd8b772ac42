"""The infer step: a volume to findings, with models that stay loaded."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from models.base import BrokenPackage, Predictor, UnfitInput
from models.loading import load_predictor
from models.package import load_package
from pipelines.base import Misconfigured, NotScored, StepContext
from pipelines.steps.artefacts import Scored, load_volume, save_findings
from pipelines.steps.packages import package_of

WARM_MODELS = 4


def infer(context: StepContext) -> Mapping[str, Any]:
    """Write ``findings.json``, and ``mask.nii.gz`` where the model labels voxels.

    Raises
    ------
    NotScored
        The volume is not what the model was made for.
    Misconfigured
        The model package is missing, altered, or fails its own test.
    """
    context.progress(0.0, "loading the model")
    predictor = warm_predictor(context.spec.model)
    volume = load_volume(context.output_of("convert"))
    try:
        findings = predictor.predict(
            volume, lambda done: context.progress(0.1 + 0.8 * done, "scoring")
        )
    except UnfitInput as error:
        raise NotScored(error.reason, error.sentence) from error
    context.progress(0.95, "writing findings")
    save_findings(Scored(findings, predictor.identity), volume, context.folder)
    return {
        "present": findings.present,
        "numbers": {
            number.name: number.value for number in findings.numbers if number.segment is None
        },
    }


def warm_predictor(folder: str) -> Predictor:
    """Load a model package's predictor, or return the one that is loaded already.

    The package is verified every time; a package whose content has changed is loaded anew.
    """
    return _predictor(folder, package_of(folder).identity.sha256)


@lru_cache(maxsize=WARM_MODELS)
def _predictor(folder: str, sha256: str) -> Predictor:
    try:
        return load_predictor(load_package(folder))
    except BrokenPackage as error:
        raise Misconfigured(f"The model package cannot be used: {error}") from error
