"""One of every kind of object that is made, of every pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom.dataset import Dataset

from node.config.report_template import load_template
from sr_templates.capture import capture
from sr_templates.notice import Notice, status_report
from sr_templates.notice_page import notice_capture
from sr_templates.outputs import SEGMENTATION_OUTPUTS
from tests.sr_templates.further import OBJECTS, SQUARE
from tests.sr_templates.objects import MAKER, Case, case, identity
from tests.sr_templates.test_described_report import (
    SAYING,
    TEMPLATES,
    output_of,
    report_of,
    without_segmentation,
)
from tests.sr_templates.test_prognosis import made as prognosis


@dataclass(frozen=True)
class Sample:
    """An object, the slot it is of, the images it was made of, as they are after cleaning, and
    the segmentation it refers to."""

    name: str
    slot: str
    ds: Dataset
    images: Sequence[Dataset]
    seg: Dataset | None = None


def samples() -> Iterator[Sample]:
    """Make one of every kind of object, of every pipeline."""
    made, square = case(), case(SQUARE)
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    yield Sample("seg", "seg", made.segmentation, made.clean)
    yield Sample("sr", "sr", made.sr, made.clean, made.seg)
    yield Sample("capture", "capture", page, made.clean)
    yield Sample("labelmap", "labelmap", case(kind="LABELMAP").segmentation, made.clean)
    for name, (build, _) in OBJECTS.items():
        images = (square if name == "outlines" else made).clean
        slot = "rejection note" if name == "rejection" else name
        yield Sample(name, slot, build(made), images, made.seg if name == "sr3d" else None)
    template = load_template(TEMPLATES / "haemorrhage.yaml", SEGMENTATION_OUTPUTS)
    described = report_of(template, output_of(made), made)
    yield Sample("described", "sr", described, made.clean, made.seg)
    template = load_template(TEMPLATES / "outlined.yaml", SEGMENTATION_OUTPUTS)
    described = report_of(template, output_of(square), square)
    yield Sample("described outlines", "sr", described, square.clean, square.seg)
    yield from _of_texts(made)
    yield from _of_a_prognosis()
    yield from _notices(made)


def _of_texts(made: Case) -> Iterator[Sample]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "saying.yaml"
        path.write_text(SAYING)
        template = load_template(path)
    said = report_of(template, {"said": "Blut.", "more": "Wenig."}, without_segmentation(made))
    yield Sample("described texts", "sr", said, made.clean)


def _of_a_prognosis() -> Iterator[Sample]:
    _, clean, seg, sr, page = prognosis()
    for slot, ds in (("seg", seg), ("sr", sr), ("capture", page)):
        yield Sample(f"prognosis {slot}", slot, ds, clean, seg if slot == "sr" else None)


def _notices(made: Case) -> Iterator[Sample]:
    said = Notice("not_scored", "no_brain", "The images show no head.")
    document = status_report(said, made.clean, identity("sr"), MAKER)
    page = notice_capture(said, made.clean, identity("capture"), MAKER)
    yield Sample("notice sr", "sr", document, made.clean)
    yield Sample("notice capture", "capture", page, made.clean)
