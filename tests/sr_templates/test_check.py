"""Each planted defect is found, most of them seen by no public validator."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from sr_templates.capture import capture
from sr_templates.check import problems
from sr_templates.checks.texts import changes
from tests.phantoms import Shape
from tests.sr_templates.objects import MAKER, Case, case, identity


@pytest.fixture(scope="module")
def made() -> Case:
    return case()


def shared_groups(ds: Dataset) -> Dataset:
    group: Dataset = ds.SharedFunctionalGroupsSequence[0]
    return group


def wrong_patient(ds: Dataset) -> None:
    ds.PatientID = "SOMEBODY"


def wrong_name(ds: Dataset) -> None:
    ds.PatientName = "M?ller^J?rg"


def missing_study_date(ds: Dataset) -> None:
    del ds.StudyDate


def other_study(ds: Dataset) -> None:
    ds.StudyInstanceUID = generate_uid()


def wrong_modality(ds: Dataset) -> None:
    ds.Modality = "PR"


def no_latin(ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 6"


def other_frame_of_reference(ds: Dataset) -> None:
    ds.FrameOfReferenceUID = generate_uid()


def swapped_spacing(ds: Dataset) -> None:
    measures = shared_groups(ds).PixelMeasuresSequence[0]
    measures.PixelSpacing = list(measures.PixelSpacing)[::-1]


def flipped(ds: Dataset) -> None:
    frames = ds.PerFrameFunctionalGroupsSequence
    places = [deepcopy(frame.PlanePositionSequence) for frame in frames]
    for frame, place in zip(frames, places[::-1], strict=True):
        frame.PlanePositionSequence = place


def shifted(ds: Dataset) -> None:
    place = ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    place.ImagePositionPatient = [float(v) + 0.1 for v in place.ImagePositionPatient]


def turned(ds: Dataset) -> None:
    shared_groups(ds).PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]


def no_derivation(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[2].DerivationImageSequence


def foreign_source(ds: Dataset) -> None:
    derivation = ds.PerFrameFunctionalGroupsSequence[2].DerivationImageSequence[0]
    derivation.SourceImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"


def unlisted_source(ds: Dataset) -> None:
    del ds.ReferencedSeriesSequence


def no_colour(ds: Dataset) -> None:
    del ds.SegmentSequence[0].RecommendedDisplayCIELabValue


def no_tracking(ds: Dataset) -> None:
    del ds.SegmentSequence[0].TrackingUID


def undescribed_segment(ds: Dataset) -> None:
    del ds.SegmentSequence[1]


def empty_segment(ds: Dataset) -> None:
    ds.PixelData = bytes(len(ds.PixelData))


def no_orientation(ds: Dataset) -> None:
    del shared_groups(ds).PlaneOrientationSequence


def half_the_pixels(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 4 * 2]


def frame_lost(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[-1]


def no_sop_class(ds: Dataset) -> None:
    del ds.SOPClassUID


SEG_DEFECTS: dict[Callable[[Dataset], None], str] = {
    wrong_patient: "PatientID differs",
    wrong_name: "PatientName differs",
    missing_study_date: "StudyDate is missing",
    other_study: "StudyInstanceUID differs",
    wrong_modality: "Modality is 'PR'",
    no_latin: "cannot be written without loss: ReferringPhysicianName holds more than ASCII",
    other_frame_of_reference: "FrameOfReferenceUID differs",
    swapped_spacing: "lies where no source frame lies",
    flipped: "which lies elsewhere",
    shifted: "frame 1 lies where no source frame lies",
    turned: "lies where no source frame lies",
    no_derivation: "frame 3 names no source image",
    foreign_source: "names 1.2.3, which is no source",
    unlisted_source: "ReferencedSeriesSequence does not list",
    no_colour: "segment 1 has no RecommendedDisplayCIELabValue",
    no_tracking: "segment 1 has no TrackingUID",
    undescribed_segment: "segment 2, which is not described",
    empty_segment: "segment 1 has no voxel",
    half_the_pixels: "PixelData holds 2020 bytes, wanted 4042",
    frame_lost: "has 9 items, NumberOfFrames says 10",
    no_sop_class: "cannot be written",
    no_orientation: "has no ImageOrientationPatient",
}


@pytest.mark.parametrize("spoil", SEG_DEFECTS, ids=lambda spoil: spoil.__name__)
def test_a_defect_of_a_segmentation_is_found(made: Case, spoil: Callable[[Dataset], None]) -> None:
    seg = deepcopy(made.segmentation)
    spoil(seg)

    found = problems(seg, made.sources)

    assert any(SEG_DEFECTS[spoil] in sentence for sentence in found), found
    assert not any("SOMEBODY" in sentence or "M?ller" in sentence for sentence in found)


def items(ds: Dataset, code: str) -> list[tuple[Dataset, int]]:
    """Every content item of a name: the item that holds it, and its index there."""
    found = []
    for index, child in enumerate(ds.get("ContentSequence") or ()):
        if child.ConceptNameCodeSequence[0].CodeValue == code:
            found.append((ds, index))
        found += items(child, code)
    return found


def without(code: str) -> Callable[[Dataset], None]:
    def spoil(ds: Dataset) -> None:
        parent, index = items(ds, code)[-1]
        del parent.ContentSequence[index]

    spoil.__name__ = f"without {code}"
    return spoil


def wrong_volume(ds: Dataset) -> None:
    parent, index = items(ds, "118565006")[-1]
    measured = parent.ContentSequence[index].MeasuredValueSequence[0]
    measured.NumericValue = float(measured.NumericValue) + 0.2


def wrong_total(ds: Dataset) -> None:
    parent, index = items(ds, "118565006")[0]
    parent.ContentSequence[index].MeasuredValueSequence[0].NumericValue = 1.0


def other_tracking(ds: Dataset) -> None:
    parent, index = items(ds, "112040")[-1]
    parent.ContentSequence[index].UID = "1.2.3"


def wrong_segment(ds: Dataset) -> None:
    parent, index = items(ds, "121191")[-1]
    parent.ContentSequence[index].ReferencedSOPSequence[0].ReferencedSegmentNumber = 7


def no_evidence(ds: Dataset) -> None:
    del ds.CurrentRequestedProcedureEvidenceSequence


def wrong_title(ds: Dataset) -> None:
    ds.ConceptNameCodeSequence[0].CodeValue = "18748-4"


def replaced_text(ds: Dataset) -> None:
    parent, index = items(ds, "121106")[0]
    parent.ContentSequence[index].TextValue = "H�morrhage"


def last_group_lost(ds: Dataset) -> None:
    parent, index = items(ds, "125007")[-1]
    del parent.ContentSequence[index]


SR_DEFECTS: dict[Callable[[Dataset], None], str] = {
    wrong_patient: "PatientID differs",
    wrong_volume: "the report gives segment 2",
    wrong_total: "the report gives the study 1.00 ml",
    other_tracking: "the Tracking UID of segment 2 differs",
    wrong_segment: "segment 7, which the segmentation does not have",
    no_evidence: "instances are missing in the evidence",
    wrong_title: "no Imaging Measurement Report",
    replaced_text: "TextValue holds a replacement character",
    last_group_lost: "no Measurement Group for segment 2",
    without("112040"): "Measurement Group 3 has no Tracking Unique Identifier",
    without("121071"): "Measurement Group 3 has no Finding",
    without("121012"): "the report has no Device Observer UID",
    without("121058"): "the report has no Procedure reported",
    without("121049"): "the report has no language",
}


@pytest.mark.parametrize("spoil", SR_DEFECTS, ids=lambda spoil: spoil.__name__)
def test_a_defect_of_a_report_is_found(made: Case, spoil: Callable[[Dataset], None]) -> None:
    sr = deepcopy(made.sr)
    spoil(sr)

    found = problems(sr, made.sources, made.seg)

    assert any(SR_DEFECTS[spoil] in sentence for sentence in found), found


def test_a_missing_source_in_the_evidence_is_found(made: Case) -> None:
    more = [*made.sources, deepcopy(made.sources[0])]
    more[-1].SOPInstanceUID = "1.2.3"

    assert "1 of 19 instances are missing in the evidence" in problems(made.sr, more, made.seg)


def test_the_sources_own_series_uid_is_found(made: Case) -> None:
    seg = deepcopy(made.segmentation)
    seg.SeriesInstanceUID = made.sources[0].SeriesInstanceUID

    assert problems(seg, made.sources) == ["SeriesInstanceUID is the source's, wanted a new one"]


def test_good_results_have_no_problem(made: Case) -> None:
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)

    assert problems(made.segmentation, made.sources) == []
    assert problems(made.sr, made.sources[::-1], made.seg) == []
    assert problems(page, made.clean) == []


def test_what_writing_does_to_texts_is_told_with_its_place(made: Case) -> None:
    lost, changed = deepcopy(made.sr), deepcopy(made.sr)
    del lost.SeriesDescription
    changed.SeriesDescription = "x"

    found = [list(changes(made.sr, kept)) for kept in (made.sr, lost, changed)]

    assert [[item.where for item in items] for items in found] == [
        [],
        ["SeriesDescription"],
        ["SeriesDescription"],
    ]


def test_the_volume_on_a_single_slice_is_nobodys_mistake() -> None:
    made = case(Shape(slices=1, spacing=(1.5, 1.25, 6.7)))

    assert problems(made.sr, made.sources, made.segmentation) == []


def test_a_page_cut_short_is_found(made: Case) -> None:
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    page.PixelData = page.PixelData[:-1000]
    page.BurnedInAnnotation = "YES"

    found = problems(page, made.sources)

    assert [sentence.split()[0] for sentence in found] == ["PixelData", "BurnedInAnnotation"]


def test_an_object_we_do_not_make_is_refused(made: Case) -> None:
    found = problems(made.sources[0], made.sources[1:])

    assert "SOP Class 1.2.840.10008.5.1.4.1.1.2 is none that this node makes" in found
