"""A packaged model against a folder of labelled volumes; run in a process of its own.

Each line of output is JSON: progress, then the figures.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from models.base import BrokenPackage, Findings, Segment, UnfitInput
from models.labelled_cases import BadData, LabelledCase, find_cases, read_case
from models.loading import load_predictor, open_package
from models.package import ModelPackage
from models.segmentation_metrics import Scored, agreement, summary

TOLERANCE_MM = 2.0


def evaluate_package(
    folder: Path, data: Path, progress: Callable[[float, str], None], *, trust_code: bool = False
) -> dict[str, Any]:
    """Score every case of a folder and compare it with its label map.

    Parameters
    ----------
    folder : Path
        A package.
    data : Path
        ``images`` and ``labels``, nnU-Net, Decathlon or CT-ICH.
    progress : callable
        Told the fraction done and the case.
    trust_code : bool

    Returns
    -------
    dict
        ``dice``: mean of each structure; see `models.segmentation_metrics.summary`; ``model``;
        ``refused``: cases the model was not made for, with the sentence; they count in nothing.

    Raises
    ------
    BrokenPackage
        The package cannot be used.
    BadData
        The folder is not as it should be; everything is told at once.
    """
    package = open_package(folder)
    if not isinstance(package, ModelPackage):
        raise BrokenPackage(
            f"{folder.name} is a prognosis; say scorenode evaluate {folder} --table CSV."
        )
    names = names_of(package.segments)
    found = find_cases(data, len(names) + 1)
    predictor = load_predictor(package, trust_code=trust_code)
    scored, refused = [], {}
    for number, case in enumerate(found.cases):
        progress(number / len(found.cases), case.name)
        volume, truth = read_case(case, found.values)
        try:
            findings = predictor.predict(volume, lambda done: None)
        except UnfitInput as error:
            refused[case.name] = error.sentence
            continue
        except BrokenPackage as error:
            raise BrokenPackage(f"{case.name}: {error}") from error
        except Exception as error:
            raise BrokenPackage(
                f"{case.name}: the model failed ({type(error).__name__}: {error})."
            ) from error
        parts = tuple(
            agreement(truth == n, findings.mask(n), volume.spacing, TOLERANCE_MM)
            for n in range(1, len(names) + 1)
        )
        scored.append(_scored(case, findings, parts))
    if not scored:
        raise BadData(data, [f"{name}: {why}" for name, why in refused.items()])
    identity = predictor.identity
    model = {"family": identity.family, "version": identity.version, "sha256": identity.sha256}
    return summary(scored, names) | {"model": model, "refused": refused}


def names_of(segments: Sequence[Segment]) -> list[str]:
    """Name each structure so that no two are alike: by label, side, and number if need be."""
    labels = [segment.label for segment in segments]
    sided = [f"{s.label}, {s.side}" if s.side else s.label for s in segments]
    names = [
        side if labels.count(label) > 1 else label
        for label, side in zip(labels, sided, strict=True)
    ]
    return [
        f"{name} ({segment.number})" if names.count(name) > 1 else name
        for name, segment in zip(names, segments, strict=True)
    ]


def _scored(case: LabelledCase, findings: Findings, parts: tuple[Any, ...]) -> Scored:
    try:
        probability = findings.number("probability")
    except KeyError:
        probability = float(bool(findings.present))
    return Scored(case.name, case.patient, case.kind, probability, parts)


def main(folder: Path, data: Path, *, trust_code: bool) -> None:
    """Evaluate and tell in lines of JSON."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a model prints is not our answer

    def tell(**line: Any) -> None:
        os.write(out, json.dumps(line).encode() + b"\n")

    try:
        metrics = evaluate_package(
            folder, data, lambda done, note: tell(done=done, note=note), trust_code=trust_code
        )
        tell(metrics=metrics)
    except (BrokenPackage, BadData) as error:
        tell(error=str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), trust_code="--trust-code" in sys.argv[3:])
