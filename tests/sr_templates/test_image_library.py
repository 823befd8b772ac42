"""A report describes the images it refers to, as far as they can be described."""

from __future__ import annotations

from highdicom.sr import ImageContentItem
from highdicom.sr.templates import ImageLibrary
from pydicom import dcmread
from pydicom.dataset import Dataset

from sr_templates import codes
from sr_templates.image_library import images_referred_to
from sr_templates.normalise import normalised
from sr_templates.text import render_tree
from tests.phantoms import ct_series
from tests.shared_data import shared


def group_about(image: Dataset) -> Dataset:
    """Return what holds a reference to an image, two levels down."""
    group, inner = Dataset(), Dataset()
    inner.ContentSequence = [
        ImageContentItem(
            codes.concept(codes.FINDING), image.SOPClassUID, image.SOPInstanceUID, None, None, None
        )
    ]
    group.ContentSequence = [inner]
    return group


def test_only_images_that_are_referred_to_are_chosen_in_their_order() -> None:
    sources = normalised(ct_series())

    found = images_referred_to([group_about(sources[5]), group_about(sources[2])], sources)

    assert [ds.SOPInstanceUID for ds in found] == [
        sources[place].SOPInstanceUID for place in (2, 5)
    ]
    assert {str(ds.PatientName) for ds in found} == {""}
    assert str(sources[2].PatientName)


def test_of_a_multi_frame_image_its_size_is_described_and_no_place() -> None:
    path = next(p for p in sorted(shared("t1_siemens_xa30_enhanced").rglob("*.dcm")))
    [source] = normalised([dcmread(path)])

    library = ImageLibrary(images_referred_to([group_about(source)], [source]))

    shown = render_tree(library[0])
    assert f"Pixel Data Rows: {float(source.Rows)} {{pixels}}" in shown
    assert "Modality: Magnetic Resonance" in shown
    assert "Position" not in shown
