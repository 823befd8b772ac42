"""The report step: findings to DICOM objects, each checked before it may leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image
from pydicom.dataset import Dataset

from models.base import Code, ModelIdentity, Volume
from pipelines.base import FaultyResult, JobSpec, NotScored, StepContext
from pipelines.steps.artefacts import (
    FINDINGS,
    findings_summary,
    load_findings,
    load_volume,
    write_json,
)
from pipelines.steps.read import read_series
from pipelines.steps.results import build_results, pixels_of, seen_with, template_of
from sr_templates.base import UnfitSource
from sr_templates.check import problems
from sr_templates.described import ReportTemplate
from sr_templates.normalise import normalised
from sr_templates.part10 import to_file
from sr_templates.prognosis_codes import brought
from sr_templates.repairs import repairs
from storage.place import Place


def report(context: StepContext) -> Mapping[str, Any]:
    """Write one ``<slot>.dcm`` for each result, ``seg.dcm`` only where something is found.

    Beside them go ``capture.png`` and ``findings.json`` (numbers, model, UIDs). Only slots with a
    label in the job are made. Every run of the same job writes the same bytes.

    Raises
    ------
    NotScored
        The source's headers cannot carry a result, or its findings do not fit the template.
    FaultyResult
        A result failed its own check, which is a bug.
    """
    spec = context.spec
    context.progress(0.0, "reading headers")
    volume = load_volume(context.output_of("convert"))
    scored = load_findings(context.output_of("infer"))
    sources, repaired = _sources(spec, volume)
    context.progress(0.2, "building results")
    results = build_results(spec, scored, volume, sources)
    template = template_of(spec)
    case = scored.findings.prognosis
    reviewed = template.reviewed if template else frozenset()
    reviewed |= brought(case.features) if case else frozenset()
    for slot, ds in results.items():
        _refuse_faulty(slot, ds, sources, results.get(seen_with(slot)), reviewed)
        to_file(ds, context.folder / f"{slot}.dcm")
    if "capture" in results:
        _save_picture(results["capture"], context.folder / "capture.png")
    uids = {slot: str(ds.SOPInstanceUID) for slot, ds in results.items()}
    summary = findings_summary(scored) | _provenance(spec, volume, sources, uids)
    summary["repaired"] = repaired
    write_json(summary, context.folder / FINDINGS)
    return {
        "results": uids,
        "numbers": {n.name: n.value for n in scored.findings.numbers if n.segment is None},
        **origin(scored.identity, template),
    }


def _sources(spec: JobSpec, volume: Volume) -> tuple[list[Dataset], list[str]]:
    """Clean copies of the images that were scored, and what was repaired in them.

    A localizer among the images of a series is not in the volume, and no source.
    """
    places = [Place.from_text(text) for text in spec.inputs]
    scored = set(volume.source_instance_uids)
    given = [
        ds
        for ds in read_series(places, pixels=False)
        if not scored or str(ds.get("SOPInstanceUID", "")) in scored
    ]
    try:
        clean = normalised(given)
        return clean, repairs(given, clean)
    except UnfitSource as error:
        raise NotScored("unfit_source", f"The headers cannot carry a result: {error}.") from error


def _refuse_faulty(
    slot: str,
    ds: Dataset,
    sources: Sequence[Dataset],
    seg: Dataset | None,
    reviewed: frozenset[Code],
) -> None:
    found = problems(ds, sources, seg, reviewed)
    if found:
        raise FaultyResult(f"The {slot} failed its own check: {'; '.join(found)}.")


def origin(model: ModelIdentity, template: ReportTemplate | None) -> dict[str, Any]:
    """Say what results come from, for whoever asks of one of them later."""
    facts: dict[str, Any] = {
        "intended_use": model.intended_use,
        "software": version("scorenode"),
        "model": {
            "name": model.family,
            "version": model.version,
            "sha256": model.sha256,
            "weights_sha256": model.weights_sha256,
        },
    }
    if template is not None:
        facts["template"] = {
            "name": template.name,
            "version": template.version,
            "sha256": template.digest,
        }
    return facts


def _save_picture(ds: Dataset, path: Path) -> None:
    Image.fromarray(pixels_of(ds)).save(path, optimize=True)


def _provenance(
    spec: JobSpec, volume: Volume, sources: Sequence[Dataset], uids: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "pipeline": spec.pipeline,
        "idem_key": spec.idem_key,
        "at": spec.frozen_at.isoformat(),
        "study_instance_uid": str(sources[0].StudyInstanceUID),
        "series_instance_uid": str(sources[0].SeriesInstanceUID),
        "volume": dict(volume.facts),
        "results": dict(uids),
    }
