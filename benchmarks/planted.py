"""Defects to plant in good results, one at a time, to see which validator notices them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

Kind = Literal[
    "seg", "sr", "capture", "labelmap", "sr3d", "outlines", "text", "pdf", "rtstruct", "rejection"
]
Spoil = Callable[[Dataset], object]


@dataclass(frozen=True)
class Defect:
    """One thing that can be wrong.

    Parameters
    ----------
    kind : str
        Result it is planted in.
    name : str
    spoil : callable
        Changes a good result in place.
    rule : str
        Reason we must give.
    unseen : bool
        Whether no public validator saw it when this list was made.
    """

    kind: Kind
    name: str
    spoil: Spoil
    rule: str
    unseen: bool = False


def planted(defect: Defect, good: Mapping[str, Dataset]) -> Dataset:
    """Return a spoiled copy of the good result of its kind."""
    ds = deepcopy(good[defect.kind])
    defect.spoil(ds)
    return ds


def without(*keywords: str) -> Spoil:
    """Delete an attribute; all but the last keyword lead to its first item."""
    return lambda ds: delattr(_inside(ds, keywords[:-1]), keywords[-1])


def with_value(value: Any, *keywords: str) -> Spoil:
    """Set an attribute; all but the last keyword lead to its first item."""
    return lambda ds: setattr(_inside(ds, keywords[:-1]), keywords[-1], value)


def _inside(ds: Dataset, path: tuple[str, ...]) -> Dataset:
    for keyword in path:
        ds = ds[keyword].value[0]
    return ds


def items(ds: Dataset, code: str) -> Iterator[tuple[Dataset, Dataset]]:
    """Yield content items of a concept name, each after the one that holds it."""
    for child in ds.get("ContentSequence") or ():
        if child.ConceptNameCodeSequence[0].CodeValue == code:
            yield ds, child
        yield from items(child, code)


def _last(ds: Dataset, code: str) -> Dataset:
    return list(items(ds, code))[-1][1]


def without_item(code: str, ds: Dataset) -> None:
    """Delete the last content item of a concept name."""
    parent, child = list(items(ds, code))[-1]
    place = next(n for n, item in enumerate(parent.ContentSequence) if item is child)
    del parent.ContentSequence[place]


def _frames(ds: Dataset) -> Any:
    return ds.PerFrameFunctionalGroupsSequence


def _swap_spacing(ds: Dataset) -> None:
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = list(measures.PixelSpacing)[::-1]


def _flip(ds: Dataset) -> None:
    places = [deepcopy(frame.PlanePositionSequence) for frame in _frames(ds)]
    for frame, place in zip(_frames(ds), places[::-1], strict=True):
        frame.PlanePositionSequence = place


def _no_derivation(ds: Dataset) -> None:
    for frame in _frames(ds):
        del frame.DerivationImageSequence


def _half_the_pixels(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 4 * 2]


def _of_source(ds: Dataset) -> None:
    ds.SeriesInstanceUID = ds.ReferencedSeriesSequence[0].SeriesInstanceUID


def _greek_in_latin_1(ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 100"
    for element in ds.iterall():
        if element.VR == "PN" and element.value:  # else it keeps the bytes of UTF-8
            element.value = str(element.value)
    _last(ds, TRACKING_ID).TextValue = "Αιμορραγία"


def _not_in_evidence(ds: Dataset) -> None:
    seg = _last(ds, "121191").ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    for series in ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence:
        kept = [i for i in series.ReferencedSOPSequence if i.ReferencedSOPInstanceUID != seg]
        series.ReferencedSOPSequence = kept


def _measured(ds: Dataset) -> Dataset:
    found: Dataset = _last(ds, VOLUME).MeasuredValueSequence[0]
    return found


def _more_volume(ds: Dataset) -> None:
    measured = _measured(ds)
    measured.NumericValue = float(measured.NumericValue) + 0.2


def _no_name_of_model(ds: Dataset) -> None:
    _last(ds, "121015").TextValue = "another-model"


def _twice_encoded(ds: Dataset) -> None:
    _last(ds, TRACKING_ID).TextValue = "Hämorrhagie".encode().decode("latin-1")


def _swap_pixel_number(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData.replace(b"\x01", b"\x09")


def _outline(ds: Dataset) -> Dataset:
    return next(child for _, child in items(ds, "111030"))


def _odd_coordinates(ds: Dataset) -> None:
    _outline(ds).GraphicData = list(_outline(ds).GraphicData)[:-1]


def _beyond_the_image(ds: Dataset) -> None:
    _outline(ds).GraphicData = [float(value) + 1000.0 for value in _outline(ds).GraphicData]


def _without_image(ds: Dataset) -> None:
    del _outline(ds).ContentSequence


def _move_contour(ds: Dataset) -> None:
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [str(float(value) + 1.0) for value in contour.ContourData]


def _shorten_contour(ds: Dataset) -> None:
    contour = ds.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = contour.ContourData[:-3]


def _end_document(ds: Dataset) -> None:
    ds.EncapsulatedDocument = ds.EncapsulatedDocument[:2000]
    ds.EncapsulatedDocumentLength = 2000


def _rename_note(ds: Dataset) -> None:
    ds.ConceptNameCodeSequence[0].CodeValue = "113000"
    ds.ConceptNameCodeSequence[0].CodeMeaning = "Of Interest"


def _number_in_text(ds: Dataset) -> None:
    item = ds.ContentSequence[-1].ContentSequence[0]
    item.ValueType = "NUM"
    item.MeasuredValueSequence = []


def _forget_evidence(ds: Dataset) -> None:
    series = ds[EVIDENCE].value[0].ReferencedSeriesSequence
    del series[-1].ReferencedSOPSequence[-1]


TRACKING_ID, TRACKING_UID, FINDING, VOLUME = "112039", "112040", "121071", "118565006"
TYPE = "SegmentedPropertyTypeCodeSequence"
MEASURES = ("SharedFunctionalGroupsSequence", "PixelMeasuresSequence")
ORIENTATION = ("SharedFunctionalGroupsSequence", "PlaneOrientationSequence")
PER_FRAME = "PerFrameFunctionalGroupsSequence"
IDENTIFICATION = (PER_FRAME, "SegmentIdentificationSequence")
EVIDENCE = "CurrentRequestedProcedureEvidenceSequence"

Row = tuple[str, Spoil, str]

SEG: tuple[Row, ...] = (
    ("Type 2 StudyDate missing", without("StudyDate"), "missing"),
    ("Frame of Reference UID missing", without("FrameOfReferenceUID"), "missing"),
    ("Frame of Reference UID of another series",
     lambda ds: setattr(ds, "FrameOfReferenceUID", generate_uid()), "differs_from_source"),
    ("another Patient ID", with_value("SOMEBODY", "PatientID"), "differs_from_source"),
    ("another Study Date", with_value("20200101", "StudyDate"), "differs_from_source"),
    ("Series Instance UID of the images", _of_source, "uid_of_source"),
    ("property type missing", without("SegmentSequence", TYPE), "missing"),
    ("empty code meaning", with_value("", "SegmentSequence", TYPE, "CodeMeaning"),
     "code_incomplete"),
    ("wrong code meaning", with_value("Liver", "SegmentSequence", TYPE, "CodeMeaning"),
     "code_mixed_up"),
    ("retired scheme SRT", with_value("SRT", "SegmentSequence", TYPE, "CodingSchemeDesignator"),
     "code_retired_scheme"),
    ("algorithm name missing", without("SegmentSequence", "SegmentAlgorithmName"),
     "segment_algorithm"),
    ("half the pixel data", _half_the_pixels, "pixels"),
    ("one per-frame item short", lambda ds: _frames(ds).pop(), "frames"),
    ("reference to segment 9", with_value(9, *IDENTIFICATION, "ReferencedSegmentNumber"),
     "segment_undescribed"),
    ("no pixel measures", without(*MEASURES), "frame_group"),
    ("no plane orientation", without(*ORIENTATION), "frame_group"),
    ("no derivation references", _no_derivation, "frame_source"),
    ("no Referenced Series Sequence", without("ReferencedSeriesSequence"), "reference_unlisted"),
    ("Dimension Index Value 0",
     with_value([0, 0], PER_FRAME, "FrameContentSequence", "DimensionIndexValues"), "frame_index"),
    ("invalid UID", with_value("1.2.03.4", "SOPInstanceUID"), "bad_value"),
    ("segment label of 80 characters", with_value("x" * 80, "SegmentSequence", "SegmentLabel"),
     "bad_value"),
    ("lower-case Content Label", with_value("lower case", "ContentLabel"), "bad_value"),
    ("Modality OT", with_value("OT", "Modality"), "modality"),
    ("pixel spacing swapped", _swap_spacing, "frame_place"),
    ("slices flipped", _flip, "frame_place_promised"),
)  # fmt: skip
SR: tuple[Row, ...] = (
    ("no evidence", without(EVIDENCE), "evidence"),
    ("segmentation not in the evidence", _not_in_evidence, "evidence"),
    ("Verification Flag missing", without("VerificationFlag"), "missing"),
    ("Completion Flag missing", without("CompletionFlag"), "missing"),
    ("Modality missing", without("Modality"), "missing"),
    ("Content Date missing", without("ContentDate"), "missing"),
    ("another Patient ID", with_value("SOMEBODY", "PatientID"), "differs_from_source"),
    ("template id missing", without("ContentTemplateSequence"), "template_row"),
    ("root name missing", without("ConceptNameCodeSequence"), "missing"),
    ("unit missing", lambda ds: delattr(_measured(ds), "MeasurementUnitsCodeSequence"), "item"),
    ("numeric value empty", lambda ds: setattr(_measured(ds), "NumericValue", ""), "item"),
    ("illegal relationship",
     lambda ds: setattr(_last(ds, VOLUME), "RelationshipType", "HAS ACQ CONTEXT"),
     "relationship_template"),
    ("no tracking UID", partial(without_item, TRACKING_UID), "template_row"),
    ("no finding", partial(without_item, FINDING), "template_row_own"),
    ("no observer UID", partial(without_item, "121012"), "template_row"),
    ("no procedure", partial(without_item, "121058"), "template_row"),
    ("wrong code meaning",
     lambda ds: setattr(_last(ds, FINDING).ConceptCodeSequence[0], "CodeMeaning", "Liver"),
     "code_mixed_up"),
    ("text replaced by question marks", _greek_in_latin_1, "text_substituted"),
)  # fmt: skip
UNSEEN: Mapping[Kind, set[str]] = {
    "seg": {
        "Frame of Reference UID of another series",
        "wrong code meaning",
        "no derivation references",
        "pixel spacing swapped",
        "slices flipped",
    },
    "sr": {
        "illegal relationship",
        "no tracking UID",
        "no finding",
        "no observer UID",
        "no procedure",
        "wrong code meaning",
        "text replaced by question marks",
    },
}
"""The twelve that no public validator saw."""
MORE: tuple[tuple[Kind, str, Spoil, str], ...] = (
    ("seg", "no colour", without("SegmentSequence", "RecommendedDisplayCIELabValue"),
     "segment_colour"),
    ("seg", "no tracking UID", without("SegmentSequence", "TrackingUID"), "segment_tracking"),
    ("seg", "empty segment", lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData))),
     "segment_empty"),
    ("seg", "another version of the model",
     with_value("9.9", "SegmentSequence", "SegmentationAlgorithmIdentificationSequence",
                "AlgorithmVersion"), "air"),
    ("sr", "volume that the voxels do not make", _more_volume, "volume_differs"),
    ("sr", "another Tracking UID",
     lambda ds: setattr(_last(ds, TRACKING_UID), "UID", "1.2.3"), "tracking_differs"),
    ("sr", "segment without a group", partial(without_item, "125007"), "segment_unreported"),
    ("sr", "another model as observer", _no_name_of_model, "air"),
    ("sr", "text encoded twice", _twice_encoded, "text_twice_encoded"),
    ("capture", "another Patient ID", with_value("SOMEBODY", "PatientID"), "differs_from_source"),
    ("capture", "another Study Instance UID",
     lambda ds: setattr(ds, "StudyInstanceUID", generate_uid()), "differs_from_source"),
    ("capture", "pixel data cut short",
     lambda ds: setattr(ds, "PixelData", ds.PixelData[:-1000]), "pixels"),
    ("capture", "conversion type missing", without("ConversionType"), "missing"),
    ("capture", "colours said to be grey values",
     with_value("MONOCHROME2", "PhotometricInterpretation"), "photometric"),
    ("capture", "planar configuration missing", without("PlanarConfiguration"), "missing"),
    ("capture", "high bit 15", with_value(15, "HighBit"), "photometric"),
    ("capture", "burned in annotation", with_value("YES", "BurnedInAnnotation"), "burned_in"),
    ("capture", "Modality SEG", with_value("SEG", "Modality"), "modality"),
    ("labelmap", "pixels of a number nobody describes", _swap_pixel_number, "segment_undescribed"),
    ("labelmap", "pixel spacing swapped", _swap_spacing, "frame_place"),
    ("labelmap", "slices flipped", _flip, "frame_place_promised"),
    ("labelmap", "16 bits said of 8", with_value(16, "BitsAllocated"), "pixels"),
    ("sr3d", "volume that the voxels do not make", _more_volume, "volume_differs"),
    ("sr3d", "no tracking UID", partial(without_item, TRACKING_UID), "template_row"),
    ("outlines", "a coordinate too few", _odd_coordinates, "item"),
    ("outlines", "an outline beyond its image", _beyond_the_image, "contour"),
    ("outlines", "an outline of no image", _without_image, "item"),
    ("text", "a number in a Basic Text SR", _number_in_text, "relationship"),
    ("text", "another Patient ID", with_value("SOMEBODY", "PatientID"), "differs_from_source"),
    ("text", "no evidence", without(EVIDENCE), "evidence"),
    ("pdf", "a document cut off",
     lambda ds: setattr(ds, "EncapsulatedDocument", ds.EncapsulatedDocument[:2000]), "document"),
    ("pdf", "a document without end", _end_document, "document"),
    ("pdf", "a document of another kind",
     with_value("text/html", "MIMETypeOfEncapsulatedDocument"), "bad_value"),
    ("pdf", "images not listed", without("SourceInstanceSequence"), "evidence"),
    ("rtstruct", "a region without contours", lambda ds: ds.ROIContourSequence.pop(), "region"),
    ("rtstruct", "a contour beside its image", _move_contour, "contour"),
    ("rtstruct", "a contour with a point too few", _shorten_contour, "contour"),
    ("rtstruct", "Frame of Reference of another series",
     with_value("1.2.3", "ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID"),
     "differs_from_source"),
    ("rtstruct", "a contour on an image not listed",
     with_value("1.2.3", "ROIContourSequence", "ContourSequence", "ContourImageSequence",
                "ReferencedSOPInstanceUID"), "reference_unlisted"),
    ("rejection", "a listed object not referred to", lambda ds: ds.ContentSequence.pop(),
     "selection"),
    ("rejection", "an object that is not listed", _forget_evidence, "evidence"),
    ("rejection", "a note that rejects nothing", _rename_note, "title"),
)  # fmt: skip
MATRIX = (
    *(Defect("seg", *row, row[0] in UNSEEN["seg"]) for row in SEG),
    *(Defect("sr", *row, row[0] in UNSEEN["sr"]) for row in SR),
)
"""The 43 defects whose fate in public validators is known."""
FURTHER = tuple(Defect(*row) for row in MORE)
"""What only a node that made both objects can know, and defects of other classes."""
