"""Small synthetic series: anisotropic, of odd shape, so that a swapped axis shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from models.base import Volume

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


@dataclass(frozen=True)
class Shape:
    """Geometry of a series; millimetres and LPS as in its headers."""

    columns: int = 53
    rows: int = 61
    slices: int = 17
    spacing: tuple[float, float, float] = (3.25, 3.5, 9.0)
    """Between columns, between rows, between slices."""
    orientation: Sequence[float] = AXIAL
    center: Sequence[float] = (4.5, -20.25, 31.0)

    def position(self, index: int) -> NDArray[np.float64]:
        """Image Position (Patient) of a slice, counted along the normal."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        middle = (np.array((self.columns, self.rows, self.slices)) - 1) / 2 * self.spacing
        axes = np.stack([row, column, np.cross(row, column)])
        start = np.array(self.center) - middle @ axes
        return np.asarray(start + index * self.spacing[2] * axes[2], np.float64)

    def affine(self) -> NDArray[np.float64]:
        """Take (column, row, slice) to RAS+ millimetres."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        lps = np.eye(4)
        lps[:3, 0] = row * self.spacing[0]
        lps[:3, 1] = column * self.spacing[1]
        lps[:3, 2] = np.cross(row, column) * self.spacing[2]
        lps[:3, 3] = self.position(0)
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps

    def world(self) -> NDArray[np.float64]:
        """RAS+ millimetres of every voxel centre, shape (columns, rows, slices, 3)."""
        grid = np.indices((self.columns, self.rows, self.slices)).reshape(3, -1)
        points = self.affine()[:3, :3] @ grid + self.affine()[:3, 3:]
        return points.T.reshape(self.columns, self.rows, self.slices, 3)


def oblique(degrees: float = 17.0) -> tuple[float, ...]:
    """Image Orientation (Patient) of a sagittal acquisition, turned out of its plane."""
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    nod = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    axes = (nod @ turn @ np.array(SAGITTAL).reshape(2, 3).T).T
    return tuple(float(value) for value in axes.ravel())


def head_ct(shape: Shape = Shape()) -> NDArray[np.float32]:
    """Hounsfield units of a simple head, shape (columns, rows, slices)."""
    away = shape.world() - np.array((-shape.center[0], -shape.center[1], shape.center[2]))
    radius = (away / (70.0, 88.0, 68.0)) ** 2
    ellipsoid = radius.sum(axis=-1)
    array = np.full(ellipsoid.shape, -1000.0, np.float32)
    array[ellipsoid < 1.0] = 40.0
    array[ellipsoid < 0.92] = 900.0
    array[ellipsoid < 0.80] = 32.0
    ventricle = ((np.abs(away) - (9.0, 0.0, 0.0)) / (6.0, 24.0, 14.0)) ** 2
    array[ventricle.sum(axis=-1) < 1.0] = 6.0
    noise = np.random.default_rng(7).normal(0.0, 3.0, array.shape)
    return np.asarray(array + np.round(noise), np.float32)


def ball(shape: Shape, center: Sequence[float], radii: Sequence[float]) -> NDArray[np.bool_]:
    """Voxels of an ellipsoid given in RAS+ millimetres from the middle of the volume."""
    middle = np.array((-shape.center[0], -shape.center[1], shape.center[2]))
    away = (shape.world() - middle - np.array(center)) / np.array(radii)
    return np.asarray((away**2).sum(axis=-1) < 1.0)


def ct_series(
    shape: Shape = Shape(),
    array: NDArray[np.float32] | None = None,
    *,
    seed: str = "phantom",
    character_set: str | list[str] = "ISO_IR 100",
    patient_name: str = "Müller^Jörg^^Dr.",
) -> list[Dataset]:
    """Single-frame CT instances, from the last slice to the first.

    Instance Number runs against the order along the normal, as many scanners have it.
    """
    voxels = head_ct(shape) if array is None else array
    series = [
        _ct_instance(shape, index, voxels[:, :, index].T, seed) for index in range(shape.slices)
    ]
    for ds in series:
        ds.SpecificCharacterSet = character_set
        ds.PatientName = patient_name
    return series[::-1]


def ct_volume(
    sources: Sequence[Dataset],
    shape: Shape = Shape(),
    array: NDArray[np.float32] | None = None,
) -> Volume:
    """Return what a converter makes of `ct_series`."""
    ordered = sorted(sources, key=lambda ds: -int(ds.InstanceNumber))
    return Volume(
        array=head_ct(shape) if array is None else array,
        affine=shape.affine(),
        frame_of_reference_uid=str(sources[0].FrameOfReferenceUID),
        source_instance_uids=tuple(str(ds.SOPInstanceUID) for ds in ordered),
    )


def _uid(*entropy: str) -> str:
    return str(generate_uid(entropy_srcs=["scorenode phantom", *entropy]))


def _ct_instance(shape: Shape, index: int, pixels: NDArray[np.float32], seed: str) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = _uid(seed, "instance", str(index))
    _add_patient_and_study(ds, seed)
    _add_equipment(ds)
    _add_plane(ds, shape, index)
    _add_pixels(ds, pixels)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _add_patient_and_study(ds: Dataset, seed: str) -> None:
    ds.PatientID = "PHANTOM-1"
    ds.IssuerOfPatientID = "TESTS"
    ds.PatientBirthDate = "19500101"
    ds.PatientSex = "M"
    ds.PatientAge = "076Y"
    ds.StudyInstanceUID = _uid(seed, "study")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260301"
    ds.StudyTime = "101500"
    ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101700"
    ds.AccessionNumber = "ACC0001"
    ds.StudyID = "1"
    ds.StudyDescription = "CT Schädel nativ"
    ds.ReferringPhysicianName = "Özil^Anna"
    ds.TimezoneOffsetFromUTC = "+0100"


def _add_equipment(ds: Dataset) -> None:
    ds.Manufacturer = "Synthetic"
    ds.ManufacturerModelName = "Phantom CT"
    ds.InstitutionName = "Test Hospital"
    ds.StationName = "CT1"
    ds.DeviceSerialNumber = "0001"
    ds.SoftwareVersions = "1"
    ds.KVP = 120
    ds.ConvolutionKernel = "H40"
    ds.PatientPosition = "HFS"


def _add_plane(ds: Dataset, shape: Shape, index: int) -> None:
    ds.Modality = "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.BodyPartExamined = "HEAD"
    ds.SeriesInstanceUID = f"{ds.StudyInstanceUID[:50]}.2"
    ds.SeriesNumber = 2
    ds.SeriesDescription = "Head"
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = shape.slices - index
    ds.FrameOfReferenceUID = f"{ds.StudyInstanceUID[:50]}.3"
    ds.PositionReferenceIndicator = ""
    ds.ImagePositionPatient = [round(float(v), 4) for v in shape.position(index)]
    ds.ImageOrientationPatient = [round(float(v), 8) for v in shape.orientation]
    ds.PixelSpacing = [shape.spacing[1], shape.spacing[0]]
    ds.SliceThickness = shape.spacing[2]


def _add_pixels(ds: Dataset, pixels: NDArray[np.float32]) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.RescaleIntercept = 0
    ds.RescaleSlope = 1
    ds.RescaleType = "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 80
    ds.PixelData = pixels.round().astype("<i2").tobytes()
