"""The report step: findings to DICOM objects, each checked before it may leave."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from models.base import Code, ModelIdentity, Volume
from pipelines.base import FaultyResult, JobSpec, NotScored, Slot, StepContext
from pipelines.steps.artefacts import (
    FINDINGS,
    Scored,
    findings_summary,
    load_findings,
    load_volume,
    write_json,
)
from pipelines.steps.read import read_series
from pipelines.steps.straighten import is_straight
from sr_templates.base import Maker, NoFrameOfReference, ObjectIdentity, UnfitSource
from sr_templates.capture import capture, instance_numbers_of
from sr_templates.check import problems
from sr_templates.described import ReportTemplate, TemplateMismatch
from sr_templates.described_report import described_report
from sr_templates.normalise import normalised
from sr_templates.outputs import view
from sr_templates.part10 import to_bytes
from sr_templates.prognosis_codes import brought
from sr_templates.prognosis_page import prognosis_capture
from sr_templates.prognosis_report import prognosis_report
from sr_templates.repairs import repairs
from sr_templates.report import measurement_report
from sr_templates.segmentation import segmentation
from sr_templates.wording import images
from storage.place import Place

LOSSY = "The source images have been compressed with loss."
NO_SEGMENTATION = (
    "What was marked is not sent as a segmentation: the images name no Frame of Reference."
)


def report(context: StepContext) -> Mapping[str, Any]:
    """Write ``seg.dcm`` (where something is found), ``sr.dcm`` and ``capture.dcm``.

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
    results = _results(spec, scored, volume, sources)
    template = _template(spec)
    case = scored.findings.prognosis
    reviewed = template.reviewed if template else frozenset()
    reviewed |= brought(case.features) if case else frozenset()
    for slot, ds in results.items():
        _refuse_faulty(slot, ds, sources, results.get("seg"), reviewed)
        (context.folder / f"{slot}.dcm").write_bytes(to_bytes(ds))
    if "capture" in results:
        _save_picture(results["capture"], context.folder / "capture.png")
    uids = {slot: str(ds.SOPInstanceUID) for slot, ds in results.items()}
    summary = findings_summary(scored) | _provenance(spec, volume, sources, uids)
    summary["repaired"] = repaired
    write_json(summary, context.folder / FINDINGS)
    return {
        "results": uids,
        "intended_use": scored.identity.intended_use,
        "numbers": {n.name: n.value for n in scored.findings.numbers if n.segment is None},
    }


def object_identity(spec: JobSpec, slot: Slot, model: ModelIdentity) -> ObjectIdentity:
    """Return the UIDs and the label of a result, the same in every run of a job.

    The model that really ran is part of them: one that was exchanged after the job was opened
    makes other objects, not other bytes under the same UIDs. So does a row of a table that was
    corrected since.
    """
    entropy = (spec.idem_key, model.sha256, *_rows_digest(spec))

    def uid(*words: str) -> str:
        return str(generate_uid(prefix=spec.uid_root, entropy_srcs=[*entropy, *words]))

    return ObjectIdentity(
        sop_instance_uid=uid(slot, "instance"),
        series_instance_uid=uid(slot, "series"),
        series_number=spec.labels[slot].number,
        series_description=spec.labels[slot].description,
        uid_root=spec.uid_root,
        entropy=entropy,
    )


def _rows_digest(spec: JobSpec) -> tuple[str, ...]:
    """Digest of the rows of tables a job was given; nothing where there are none."""
    if not spec.rows:
        return ()
    text = json.dumps(spec.rows, sort_keys=True)
    return (hashlib.sha256(text.encode()).hexdigest(),)


def maker_of(spec: JobSpec, model: ModelIdentity) -> Maker:
    """Say who makes the results of a job; the Device UID is that of the model's content."""
    device = generate_uid(prefix=spec.uid_root, entropy_srcs=["model", model.sha256])
    return Maker(
        station=spec.station,
        software_version=version("scorenode"),
        model=model,
        device_uid=str(device),
        at=spec.frozen_at,
    )


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


def _results(
    spec: JobSpec, scored: Scored, volume: Volume, sources: Sequence[Dataset]
) -> dict[Slot, Dataset]:
    """Build what the job wants, the SEG first because the SR refers to it."""
    findings, maker = scored.findings, maker_of(spec, scored.identity)
    results: dict[Slot, Dataset] = {}
    comments = [*_marked(scored, volume, sources), *_comments(sources, volume)]

    def add(slot: Slot, build: Callable[[ObjectIdentity], Dataset | None]) -> None:
        if slot not in spec.labels:
            return
        made = build(object_identity(spec, slot, maker.model))
        if made is not None:
            results[slot] = made

    try:
        try:
            add("seg", lambda own: segmentation(findings, volume, sources, own, maker))
        except NoFrameOfReference:
            comments.append(NO_SEGMENTATION)
        seg = results.get("seg")
        add("sr", lambda own: _sr(spec, scored, sources, seg, own, comments))
        add("capture", lambda own: _capture(scored, volume, sources, own, maker))
    except UnfitSource as error:
        raise NotScored("unfit_source", f"The headers cannot carry a result: {error}.") from error
    return results


def _sr(
    spec: JobSpec,
    scored: Scored,
    sources: Sequence[Dataset],
    seg: Dataset | None,
    own: ObjectIdentity,
    comments: Sequence[str],
) -> Dataset:
    """Write the report: as the job's template describes it, else our own."""
    template, maker = _template(spec), maker_of(spec, scored.identity)
    if template is None:
        write = prognosis_report if scored.findings.prognosis else measurement_report
        return write(scored.findings, sources, seg, own, maker, comments)
    data = view(json.loads(json.dumps(findings_summary(scored))))
    try:
        return described_report(template, data, sources, seg, own, maker, comments)
    except TemplateMismatch as error:
        sentence = f"The report template {template.name} cannot be filled in: {error}."
        raise NotScored("template_mismatch", sentence) from error


def _capture(
    scored: Scored,
    volume: Volume,
    sources: Sequence[Dataset],
    own: ObjectIdentity,
    maker: Maker,
) -> Dataset:
    """Draw the page: of a prognosis, else of what was marked."""
    draw = prognosis_capture if scored.findings.prognosis else capture
    return draw(scored.findings, volume, sources, own, maker)


def _template(spec: JobSpec) -> ReportTemplate | None:
    given = spec.report_template
    return None if given is None else ReportTemplate.from_json(given)


def _marked(scored: Scored, volume: Volume, sources: Sequence[Dataset]) -> list[str]:
    """Say on which images something is marked."""
    labels = scored.findings.labels
    if labels is None or not labels.any():
        return []
    slices = np.flatnonzero(labels.any(axis=(0, 1))).tolist()
    return [f"Marked on {images(slices, instance_numbers_of(volume, sources))}."]


def _comments(sources: Sequence[Dataset], volume: Volume) -> list[str]:
    """Say what a reader should know of the images that were scored."""
    comments = []
    if any(ds.get("LossyImageCompression") == "01" for ds in sources):
        comments.append(LOSSY)
    if not is_straight(volume):
        comments.append(_geometry(volume))
    return comments


def _geometry(volume: Volume) -> str:
    facts, found = volume.facts, []
    if facts["sheared"]:
        found.append(f"tilted {facts['tilt_degrees']:.1f} degrees")
    if volume.slice_origins is not None:
        low, high = facts["smallest_step_mm"], facts["largest_step_mm"]
        found.append(f"{low:.2f} to {high:.2f} mm apart")
    return (
        f"The slices are {' and '.join(found)}; they were resampled to a straight grid for the "
        "model, and its labels brought back to the slices."
    )


def _refuse_faulty(
    slot: Slot,
    ds: Dataset,
    sources: Sequence[Dataset],
    seg: Dataset | None,
    reviewed: frozenset[Code],
) -> None:
    found = problems(ds, sources, seg if slot == "sr" else None, reviewed)
    if found:
        raise FaultyResult(f"The {slot} failed its own check: {'; '.join(found)}.")


def _save_picture(ds: Dataset, path: Path) -> None:
    pixels = np.frombuffer(ds.PixelData, np.uint8)[: ds.Rows * ds.Columns * 3]
    Image.fromarray(pixels.reshape(ds.Rows, ds.Columns, 3)).save(path, optimize=True)


def _provenance(
    spec: JobSpec, volume: Volume, sources: Sequence[Dataset], uids: Mapping[Slot, str]
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
