"""The objects of a job: what its destinations want, of the findings there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from highdicom.sr import Comprehensive3DSR, ComprehensiveSR
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Volume
from pipelines.base import DOCUMENTS, OF_LABEL_MAP, EarlierResult, JobSpec, NotScored
from pipelines.steps.artefacts import Scored, findings_summary
from pipelines.steps.identity import maker_of, object_identity
from pipelines.steps.straighten import is_straight
from sr_templates import stamp
from sr_templates.base import Maker, NoFrameOfReference, ObjectIdentity, Overlap, UnfitSource
from sr_templates.capture import capture, instance_numbers_of
from sr_templates.described import ReportTemplate, TemplateMismatch
from sr_templates.described_report import described_report
from sr_templates.encapsulated import encapsulated_pdf
from sr_templates.outlines import outline_report
from sr_templates.outputs import view
from sr_templates.prognosis_page import prognosis_capture
from sr_templates.prognosis_report import prognosis_report
from sr_templates.report import DocumentClass, measurement_report
from sr_templates.segmentation import SegmentationType, segmentation
from sr_templates.structure_set import structure_set
from sr_templates.text_report import text_report
from sr_templates.wording import images

LOSSY = "The source images have been compressed with loss."
NO_SEGMENTATION = (
    "What was marked is not sent as a segmentation: the images name no Frame of Reference."
)
NO_LABEL_MAP = "What was marked is not sent as a label map: structures overlap."
SEGMENTATIONS: Mapping[str, SegmentationType] = {"seg": "BINARY", "labelmap": "LABELMAP"}
REPORTS: Mapping[str, tuple[DocumentClass, str]] = {
    "sr": (ComprehensiveSR, "seg"),
    "sr3d": (Comprehensive3DSR, "seg"),
    OF_LABEL_MAP["sr"]: (ComprehensiveSR, "labelmap"),
    OF_LABEL_MAP["sr3d"]: (Comprehensive3DSR, "labelmap"),
}
"""Measurement reports, and the segmentation each refers to."""


def seen_with(slot: str) -> str:
    """Name the result that a result refers to; empty for none."""
    return REPORTS[slot][1] if slot in REPORTS else ""


@dataclass(eq=False)
class _Making:
    """What every builder needs, and what is made so far."""

    spec: JobSpec
    scored: Scored
    volume: Volume
    sources: Sequence[Dataset]
    maker: Maker
    comments: list[str]
    results: dict[str, Dataset] = field(default_factory=dict)

    def add(self, slot: str, build: Callable[[ObjectIdentity], Dataset | None]) -> None:
        """Make one kind of result where the job wants it and there is anything to say."""
        if slot not in self.spec.labels:
            return
        made = build(object_identity(self.spec, slot, self.maker.model))
        if made is not None:
            self.results[slot] = made

    @property
    def marked(self) -> Dataset | None:
        """Any segmentation: they mark the same."""
        return next((self.results[s] for s in SEGMENTATIONS if s in self.results), None)

    @property
    def report(self) -> Dataset | None:
        """Any measurement report: they say the same."""
        return next((self.results[s] for s in REPORTS if s in self.results), None)


def build_results(
    spec: JobSpec, scored: Scored, volume: Volume, sources: Sequence[Dataset]
) -> dict[str, Dataset]:
    """Build what a job wants, what is referred to before what refers to it.

    Parameters
    ----------
    spec : JobSpec
        Its labels name what is wanted.
    scored : Scored
    volume : Volume
    sources : sequence of Dataset
        As `normalised` returns them.

    Returns
    -------
    dict
        By slot; what has nothing to say is left out.

    Raises
    ------
    NotScored
        The headers cannot carry a result, or the findings do not fit the template.
    """
    maker = maker_of(spec, scored.identity)
    making = _Making(spec, scored, volume, sources, maker, _comments(spec, scored, sources, volume))
    try:
        _add_segmentations(making)
        _add_reports(making)
        _add_drawings(making)
        _add_readable(making)
    except UnfitSource as error:
        raise NotScored("unfit_source", f"The headers cannot carry a result: {error}.") from error
    for slot in DOCUMENTS & making.results.keys():
        stamp.replaces(making.results[slot], _earlier(spec, slot, making.results[slot]))
    return making.results


def pixels_of(capture_image: Dataset) -> NDArray[np.uint8]:
    """Pixels of a secondary capture of ours, RGB, shape (rows, columns, 3)."""
    shape = int(capture_image.Rows), int(capture_image.Columns), 3
    return np.frombuffer(capture_image.PixelData, np.uint8)[: np.prod(shape)].reshape(shape)


def template_of(spec: JobSpec) -> ReportTemplate | None:
    """Report template of a job; None: the pipeline's own report."""
    given = spec.report_template
    return None if given is None else ReportTemplate.from_json(given)


def _add_segmentations(making: _Making) -> None:
    findings, volume, sources = making.scored.findings, making.volume, making.sources
    for slot, kind in SEGMENTATIONS.items():
        try:
            making.add(
                slot,
                lambda own, kind=kind: segmentation(  # type: ignore[misc]
                    findings, volume, sources, own, making.maker, kind
                ),
            )
        except NoFrameOfReference:
            if NO_SEGMENTATION not in making.comments:
                making.comments.append(NO_SEGMENTATION)
        except Overlap:
            making.comments.append(NO_LABEL_MAP)


def _add_reports(making: _Making) -> None:
    for slot, (document, referred) in REPORTS.items():
        seg = making.results.get(referred)
        making.add(
            slot,
            lambda own, seg=seg, document=document: _report(  # type: ignore[misc]
                making, seg, own, document
            ),
        )


def _report(
    making: _Making, seg: Dataset | None, own: ObjectIdentity, document: DocumentClass
) -> Dataset:
    """Write the report: as the job's template describes it, else our own."""
    scored, sources, comments = making.scored, making.sources, making.comments
    template = template_of(making.spec)
    if template is None:
        write = prognosis_report if scored.findings.prognosis else measurement_report
        return write(scored.findings, sources, seg, own, making.maker, comments, document)
    data = view(json.loads(json.dumps(findings_summary(scored))))
    try:
        return described_report(template, data, sources, seg, own, making.maker, comments, document)
    except TemplateMismatch as error:
        sentence = f"The report template {template.name} cannot be filled in: {error}."
        raise NotScored("template_mismatch", sentence) from error


def _add_drawings(making: _Making) -> None:
    """Add what draws the findings for viewers that do not show a segmentation."""
    findings, sources, maker, seg = (
        making.scored.findings,
        making.sources,
        making.maker,
        making.marked,
    )
    making.add("outlines", lambda own: outline_report(findings, seg, sources, own, maker))
    making.add("rtstruct", lambda own: structure_set(findings, seg, sources, own, maker))
    draw = prognosis_capture if findings.prognosis else capture
    making.add("capture", lambda own: draw(findings, making.volume, sources, own, maker))


def _add_readable(making: _Making) -> None:
    """Add what says in sentences what the report says."""
    report = making.report
    if report is None:
        return
    shown = making.results.get("capture")
    picture = None if shown is None else pixels_of(shown)
    sources, maker = making.sources, making.maker
    making.add("text", lambda own: text_report(report, sources, own, maker))
    making.add("pdf", lambda own: encapsulated_pdf(report, picture, sources, own, maker))


def _comments(
    spec: JobSpec, scored: Scored, sources: Sequence[Dataset], volume: Volume
) -> list[str]:
    """Say where something is marked, and what a reader should know of images and results."""
    comments = _marked(scored, volume, sources)
    if any(ds.get("LossyImageCompression") == "01" for ds in sources):
        comments.append(LOSSY)
    if not is_straight(volume):
        comments.append(_geometry(volume))
    if spec.completion:
        comments.append(spec.completion)
    if spec.earlier:
        comments.append(f"This result replaces that of {spec.earlier[0].at}.")
    return comments


def _marked(scored: Scored, volume: Volume, sources: Sequence[Dataset]) -> list[str]:
    """Say on which images something is marked."""
    labels = scored.findings.labels
    if labels is None or not labels.any():
        return []
    slices = np.flatnonzero(labels.any(axis=(0, 1))).tolist()
    return [f"Marked on {images(slices, instance_numbers_of(volume, sources))}."]


def _earlier(spec: JobSpec, slot: str, made: Dataset) -> list[Dataset]:
    """Give the documents of the same kind that a document replaces."""
    return [_identifiers(one, made) for one in spec.earlier if one.slot == slot]


def _identifiers(one: EarlierResult, made: Dataset) -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID = made.StudyInstanceUID
    ds.SeriesInstanceUID = one.series_instance_uid
    ds.SOPClassUID, ds.SOPInstanceUID = one.sop_class_uid, one.sop_instance_uid
    return ds


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
