"""What a destination may ask for beside SEG, SR and the page, made of one case."""

from __future__ import annotations

from collections.abc import Callable

from highdicom.sr import Comprehensive3DSR
from pydicom.dataset import Dataset

from sr_templates.capture import page
from sr_templates.encapsulated import encapsulated_pdf
from sr_templates.outlines import outline_report
from sr_templates.rejection import maker_of_result, rejection_note
from sr_templates.report import measurement_report
from sr_templates.structure_set import structure_set
from sr_templates.text_report import text_report
from tests.phantoms import Shape
from tests.sr_templates.objects import MAKER, Case, case, identity

SQUARE = Shape(columns=61, rows=57, slices=17, spacing=(3.25, 3.25, 9.0))


def sr3d(made: Case) -> Dataset:
    return measurement_report(
        made.findings, made.clean, made.seg, identity("sr3d"), MAKER, (), Comprehensive3DSR
    )


def outlines(made: Case) -> Dataset:
    """Outlines of a case whose pixels are square; of no other are any made."""
    del made
    square = case(SQUARE)
    found = outline_report(square.findings, square.seg, square.clean, identity("outlines"), MAKER)
    assert found is not None
    return found


def text(made: Case) -> Dataset:
    return text_report(made.sr, made.clean, identity("text"), MAKER)


def pdf(made: Case) -> Dataset:
    picture = page(made.findings, made.volume, MAKER)
    return encapsulated_pdf(made.sr, picture, made.clean, identity("pdf"), MAKER)


def rtstruct(made: Case) -> Dataset:
    found = structure_set(made.findings, made.seg, made.clean, identity("rtstruct"), MAKER)
    assert found is not None
    return found


def rejection(made: Case) -> Dataset:
    results = [made.segmentation, made.sr]
    maker = maker_of_result(made.sr, MAKER.at)
    return rejection_note(results, "Scored with the wrong model.", identity("rejection"), maker)


OBJECTS: dict[str, tuple[Callable[[Case], Dataset], str]] = {
    "sr3d": (sr3d, "1.2.840.10008.5.1.4.1.1.88.34"),
    "outlines": (outlines, "1.2.840.10008.5.1.4.1.1.88.33"),
    "text": (text, "1.2.840.10008.5.1.4.1.1.88.11"),
    "pdf": (pdf, "1.2.840.10008.5.1.4.1.1.104.1"),
    "rtstruct": (rtstruct, "1.2.840.10008.5.1.4.1.1.481.3"),
    "rejection": (rejection, "1.2.840.10008.5.1.4.1.1.88.59"),
}
