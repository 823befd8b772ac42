"""Where other people's readers find the voxels of a segmentation, in millimetres.

dcmqi reads every segmentation whose slices lie straight above each other; of a tilted gantry it
says "Frame 0 origin is outside image geometry" and writes nothing, though it ends with 0.
dcm2niix (1.0.20260724) takes the frames of all segments for one stack of equal steps: it finds one
segment on neighbouring slices, BINARY or in a label map, where it is, and misplaces several
segments on different slices, a gap, and a tilt (it leaves the shear out). So each is asked what it
can read, and a tilted segmentation is read frame by frame with highdicom.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from highdicom.seg import segread
from highdicom.spatial import PixelToReferenceTransformer
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Volume
from pipelines.steps.volume import volume_from_series
from sr_templates.normalise import normalised
from sr_templates.segmentation import SegmentationType, segmentation
from tests.noise import segimage2itkimage
from tests.phantoms import Shape, ct_series, oblique
from tests.sr_templates.objects import MAKER, bleeds, findings_of, identity, save
from tests.tools import run

TILT_DEGREES = 14.0
LABELS = (1, 3)
"""Numbers of what is marked, in the order of the segments."""
STRAIGHT = {
    "axial": Shape(),
    "oblique": Shape(orientation=oblique(), slices=15, spacing=(2.5, 4.0, 9.0)),
}
Points = NDArray[np.float64]
"""RAS+ millimetres, shape (voxels, 3), in no order."""


def tilted(shape: Shape = STRAIGHT["axial"]) -> list[Dataset]:
    """Slices of a tilted gantry: each is moved against the direction of its columns."""
    series = ct_series(shape)
    for ds in series:
        rise = (shape.slices - int(ds.InstanceNumber)) * shape.spacing[2]
        moved = rise * np.tan(np.deg2rad(TILT_DEGREES)) * np.array(shape.orientation[3:])
        position = np.array(ds.ImagePositionPatient, float) - moved
        ds.ImagePositionPatient = [round(float(value), 4) for value in position]
    return series


def marked(volume: Volume, labels: NDArray[np.uint8], number: int) -> Points:
    """Where the mask that we were given has a number."""
    return np.asarray(nib.affines.apply_affine(volume.affine, np.argwhere(labels == number)))


def write(
    series: list[Dataset], labels: NDArray[np.uint8], kind: SegmentationType, path: Path
) -> Volume:
    """Write the labels as a segmentation of a series; the volume they lie on."""
    volume = volume_from_series(series)
    findings = findings_of(labels, volume)
    seg = segmentation(findings, volume, normalised(series), identity("seg"), MAKER, kind)
    assert seg is not None
    save(seg, path)
    return volume


def read(path: Path, value: int) -> Points:
    """Voxels of a NIfTI file that have a value."""
    image = nib.nifti1.Nifti1Image.from_filename(path)
    voxels = np.argwhere(np.asarray(image.dataobj) == value)
    return np.asarray(nib.affines.apply_affine(image.affine, voxels))


def assert_same_places(found: Points, wanted: Points) -> None:
    """Compare voxel by voxel, to a hundredth of a millimetre and what headers round away."""
    assert len(found) == len(wanted) > 0
    order, same = np.lexsort(found.round(1).T), np.lexsort(wanted.round(1).T)
    assert np.abs(found[order] - wanted[same]).max() < 0.02


@pytest.mark.parametrize("shape", STRAIGHT.values(), ids=STRAIGHT)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_dcmqi_finds_both_segments_where_they_were_marked(
    shape: Shape, kind: SegmentationType, tmp_path: Path
) -> None:
    labels = bleeds(shape)
    volume = write(ct_series(shape), labels, kind, tmp_path / "seg.dcm")

    assert segimage2itkimage(tmp_path / "seg.dcm", tmp_path) == []

    for segment, number in enumerate(LABELS, start=1):
        file = tmp_path / f"{segment if kind == 'BINARY' else 1}.nii.gz"
        assert_same_places(read(file, segment), marked(volume, labels, number))


def test_dcmqi_refuses_a_tilted_gantry_and_says_so(tmp_path: Path) -> None:
    write(tilted(), bleeds(STRAIGHT["axial"]), "BINARY", tmp_path / "seg.dcm")

    said = segimage2itkimage(tmp_path / "seg.dcm", tmp_path)

    assert any("outside image geometry" in line for line in said)
    assert list(tmp_path.glob("*.nii*")) == []


@pytest.mark.parametrize("shape", STRAIGHT.values(), ids=STRAIGHT)
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_dcm2niix_finds_a_segment_where_it_was_marked(
    shape: Shape, kind: SegmentationType, tmp_path: Path
) -> None:
    labels = bleeds(shape)
    labels[labels != LABELS[0]] = 0
    volume = write(ct_series(shape), labels, kind, tmp_path / "seg.dcm")

    said = run("dcm2niix", "-b", "n", "-f", "seg", "-o", tmp_path, tmp_path)

    assert said.returncode == 0, said.stdout
    [file] = tmp_path.glob("*.nii")
    assert_same_places(read(file, 1), marked(volume, labels, LABELS[0]))


def test_frames_of_a_tilted_gantry_lie_where_the_slices_lay(tmp_path: Path) -> None:
    labels = bleeds(STRAIGHT["axial"])
    volume = write(tilted(), labels, "BINARY", tmp_path / "seg.dcm")

    seg = segread(BytesIO((tmp_path / "seg.dcm").read_bytes()))
    found: dict[int, list[Points]] = {1: [], 2: []}
    for number, groups in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        rows, columns = np.nonzero(seg.get_stored_frame(number))
        to_lps = PixelToReferenceTransformer.for_image(seg, frame_number=number)
        lps = to_lps(np.stack([columns, rows], axis=1))
        found[segment].append(lps * (-1, -1, 1))

    for segment, number in enumerate(LABELS, start=1):
        assert_same_places(np.concatenate(found[segment]), marked(volume, labels, number))
    assert np.abs(volume.affine[:3, 2] @ volume.affine[:3, 1]) > 1.0, "the slices are not sheared"
