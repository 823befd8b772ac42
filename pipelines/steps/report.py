"""The report step: findings to DICOM objects, each checked before it may leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from models.base import ModelIdentity, Volume
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
from sr_templates.base import Maker, ObjectIdentity, UnfitSource
from sr_templates.capture import capture
from sr_templates.check import problems
from sr_templates.normalise import normalised
from sr_templates.part10 import to_bytes
from sr_templates.report import measurement_report
from sr_templates.segmentation import segmentation

LOSSY = "The source images have been compressed with loss."


def report(context: StepContext) -> Mapping[str, Any]:
    """Write ``seg.dcm`` (where something is found), ``sr.dcm`` and ``capture.dcm``.

    Beside them go ``capture.png`` and ``findings.json`` (numbers, model, UIDs). Only slots with a
    label in the job are made. Every run of the same job writes the same bytes.

    Raises
    ------
    NotScored
        The source's headers cannot carry a result.
    FaultyResult
        A result failed its own check, which is a bug.
    """
    spec = context.spec
    context.progress(0.0, "reading headers")
    volume = load_volume(context.output_of("convert"))
    scored = load_findings(context.output_of("infer"))
    sources = _sources(spec)
    context.progress(0.2, "building results")
    results = _results(spec, scored, volume, sources)
    for slot, ds in results.items():
        _refuse_faulty(slot, ds, sources, results.get("seg"))
        (context.folder / f"{slot}.dcm").write_bytes(to_bytes(ds))
    if "capture" in results:
        _save_picture(results["capture"], context.folder / "capture.png")
    uids = {slot: str(ds.SOPInstanceUID) for slot, ds in results.items()}
    summary = findings_summary(scored) | _provenance(spec, volume, sources, uids)
    write_json(summary, context.folder / FINDINGS)
    return {"results": uids, "intended_use": scored.identity.intended_use}


def object_identity(spec: JobSpec, slot: Slot, model: ModelIdentity) -> ObjectIdentity:
    """Return the UIDs and the label of a result, the same in every run of a job.

    The model that really ran is part of them: one that was exchanged after the job was opened
    makes other objects, not other bytes under the same UIDs.
    """
    entropy = (spec.idem_key, model.sha256)

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


def _sources(spec: JobSpec) -> list[Dataset]:
    try:
        return normalised(read_series([Path(path) for path in spec.inputs], pixels=False))
    except UnfitSource as error:
        raise NotScored("unfit_source", f"The headers cannot carry a result: {error}.") from error


def _results(
    spec: JobSpec, scored: Scored, volume: Volume, sources: Sequence[Dataset]
) -> dict[Slot, Dataset]:
    """Build what the job wants, the SEG first because the SR refers to it."""
    findings, maker = scored.findings, maker_of(spec, scored.identity)
    results: dict[Slot, Dataset] = {}

    def add(slot: Slot, build: Callable[[ObjectIdentity], Dataset | None]) -> None:
        if slot not in spec.labels:
            return
        made = build(object_identity(spec, slot, maker.model))
        if made is not None:
            results[slot] = made

    try:
        add("seg", lambda own: segmentation(findings, volume, sources, own, maker))
        seg, comments = results.get("seg"), _comments(sources)
        add("sr", lambda own: measurement_report(findings, sources, seg, own, maker, comments))
        add("capture", lambda own: capture(findings, volume, sources, own, maker))
    except UnfitSource as error:
        raise NotScored("unfit_source", f"The headers cannot carry a result: {error}.") from error
    return results


def _comments(sources: Sequence[Dataset]) -> list[str]:
    lossy = any(ds.get("LossyImageCompression") == "01" for ds in sources)
    return [LOSSY] if lossy else []


def _refuse_faulty(
    slot: Slot, ds: Dataset, sources: Sequence[Dataset], seg: Dataset | None
) -> None:
    found = problems(ds, sources, seg if slot == "sr" else None)
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
