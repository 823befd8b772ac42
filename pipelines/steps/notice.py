"""The only step of a notice: it tells a reader what became of a job that made nothing yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from models.base import ModelIdentity
from pipelines.base import FaultyResult, JobSpec, NotScored, Slot, StepContext
from pipelines.steps.identity import maker_of, object_identity
from pipelines.steps.read import read_instance, refuse_too_much
from sr_templates.base import Maker, UnfitSource
from sr_templates.check import problems
from sr_templates.codes import private
from sr_templates.notice import Notice, fit_sources, status_report
from sr_templates.notice_page import notice_capture
from sr_templates.part10 import to_bytes
from storage.place import Place


def notice(context: StepContext) -> Mapping[str, Any]:
    """Write ``sr.dcm`` or ``capture.dcm`` or both, as the job's labels say.

    Raises
    ------
    NotScored
        Not one image of the series can carry a notice.
    FaultyResult
        A notice failed its own check, which is a bug.
    """
    spec = context.spec
    context.progress(0.0, "reading headers")
    try:
        sources = fit_sources(_readable(spec))
    except UnfitSource as error:
        raise NotScored("unfit_source", f"No image can carry a notice: {error}.") from error
    model = _model(spec)
    maker = maker_of(spec, model)
    context.progress(0.5, "writing the notice")
    uids = {}
    slots: tuple[Slot, ...] = ("sr", "capture")
    for slot in (slot for slot in slots if slot in spec.labels):
        made = _made(spec, slot, sources, maker)
        found = problems(made, sources)
        if found:
            raise FaultyResult(f"The notice failed its own check: {'; '.join(found)}.")
        (context.folder / f"{slot}.dcm").write_bytes(to_bytes(made))
        uids[slot] = str(made.SOPInstanceUID)
    return {"results": uids, "intended_use": model.intended_use}


def _said(spec: JobSpec) -> Mapping[str, Any]:
    if spec.notice is None:
        raise ValueError("the job is no notice")
    return spec.notice


def _made(spec: JobSpec, slot: Slot, sources: list[Dataset], maker: Maker) -> Dataset:
    given = _said(spec)
    words = ("status", "reason", "sentence", "advice", "minutes")
    said = Notice(**{word: given[word] for word in words if word in given})
    own = object_identity(spec, slot, maker.model)
    if slot != "sr":
        return notice_capture(said, sources, own, maker)
    earlier = dcmread(Place.from_text(given["earlier"]).open()) if given["earlier"] else None
    return status_report(said, sources, own, maker, earlier)


def _readable(spec: JobSpec) -> Iterator[Dataset]:
    """Images that can be read: that some cannot may be what is to be told."""
    places = [Place.from_text(text) for text in spec.inputs]
    refuse_too_much(places)
    seen: set[str] = set()
    for number, place in enumerate(places, start=1):
        try:
            ds = read_instance(place, number, pixels=False, deflated=True)
        except NotScored:
            continue
        if str(ds.SOPInstanceUID) not in seen:
            seen.add(str(ds.SOPInstanceUID))
            yield ds


def _model(spec: JobSpec) -> ModelIdentity:
    """Model that was to score the images; where it was missing, no more than its name is known."""
    given = _said(spec)
    if given["model"]:
        return ModelIdentity(**given["model"] | {"finding": tuple(given["model"]["finding"])})
    name = given["model_name"]
    return ModelIdentity(
        family=name,
        version="unknown",
        title=name,
        intended_use="research",
        sha256="",
        weights_sha256="",
        finding=private("NOT_KNOWN", name[:64]),
    )
