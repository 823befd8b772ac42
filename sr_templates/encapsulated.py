"""The page and the report's sentences as an Encapsulated PDF."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from highdicom.base import SOPClass
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from sr_templates import codes, stamp
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.text_report import sentences

A4 = (8.27, 11.69)
"""Inches."""
LINE_CHARACTERS = 92
PAGE_LINES = 50
FONTS: Any = {"pdf.fonttype": 42, "font.family": "DejaVu Sans"}
"""Text is kept as text, so that it can be searched."""
MIME_TYPE = "application/pdf"


def encapsulated_pdf(
    report: Dataset,
    picture: NDArray[np.uint8] | None,
    sources: Sequence[Dataset],
    identity: ObjectIdentity,
    maker: Maker,
) -> Dataset:
    """Write a PDF: the picture, then what a measurement report says.

    Parameters
    ----------
    report : Dataset
        Of TID 1500, of this node.
    picture : NDArray[np.uint8] or None
        RGB, shape (rows, columns, 3), such as `sr_templates.capture.page` draws.
    sources : sequence of Dataset
        As `normalised` returns them.
    identity : ObjectIdentity
    maker : Maker

    Returns
    -------
    Dataset
        The document names nobody: a viewer shows whose it is from the object's attributes.

    References
    ----------
    DICOM PS3.3 A.45.1, C.24.2.
    """
    source = sources[0]
    general = stamp.general(source, identity, maker)
    equipment = general.pop("contributing_equipment")
    result = SOPClass(
        study_instance_uid=source.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set="ISO_IR 192",
        **general,
    )
    result.ContributingEquipmentSequence = list(equipment)
    result.ConversionType = "WSD"
    result.BurnedInAnnotation = "NO"
    result.AcquisitionDateTime = ""
    result.SourceInstanceSequence = [_instance(ds) for ds in sources]
    result.DocumentTitle = stamp.series_description(identity, maker)
    result.ConceptNameCodeSequence = [codes.concept(codes.DIAGNOSTIC_REPORT)]
    result.MIMETypeOfEncapsulatedDocument = MIME_TYPE
    document = pdf(picture, [maker.model.title, "", *sentences(report, maker)])
    result.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    result.EncapsulatedDocumentLength = len(document)
    stamp.stamp(result, source, maker)
    return result


def pdf(picture: NDArray[np.uint8] | None, lines: Sequence[str]) -> bytes:
    """Draw a picture on a page of its own, then lines; the same input gives the same bytes."""
    buffer = BytesIO()
    nothing = {"CreationDate": None, "Creator": None, "Producer": None}
    with mpl.rc_context(FONTS), PdfPages(buffer, metadata=nothing) as pages:
        if picture is not None:
            pages.savefig(_picture_page(picture))
        for part in _pages(lines):
            pages.savefig(_text_page(part))
    return buffer.getvalue()


def _picture_page(picture: NDArray[np.uint8]) -> Figure:
    figure = Figure(figsize=A4)
    axes = figure.add_axes((0.05, 0.05, 0.9, 0.9))
    axes.imshow(picture, interpolation="nearest")
    axes.set_anchor("N")
    axes.set_axis_off()
    return figure


def _text_page(lines: Sequence[str]) -> Figure:
    figure = Figure(figsize=A4)
    for place, line in enumerate(lines):
        figure.text(0.08, 0.94 - place * 0.0178, line, fontsize=9.5, parse_math=False)
    return figure


def _pages(lines: Sequence[str]) -> Iterator[list[str]]:
    broken = [part for line in lines for part in textwrap.wrap(line, LINE_CHARACTERS) or [""]]
    for start in range(0, len(broken), PAGE_LINES):
        yield broken[start : start + PAGE_LINES]


def _instance(ds: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return item
