"""Generated studies: valid, not compressible, the same on every machine."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)


@dataclass(frozen=True)
class Prepared:
    """One instance, ready to be sent.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid, transfer_syntax_uid : bytes
    data : bytes
        The data set.
    """

    sop_class_uid: bytes
    sop_instance_uid: bytes
    transfer_syntax_uid: bytes
    data: bytes


def _header(sop_class: str, modality: str, series: str, number: int) -> Dataset:
    """Build what a scanner writes: some 70 elements, a few sequences, nobody's data."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20250314"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101010.1"
    ds.AccessionNumber, ds.Modality = "A0", modality
    ds.Manufacturer, ds.InstitutionName = "SynthCo", "Synthetic Hospital"
    ds.ReferringPhysicianName, ds.StationName = "", "SCAN01"
    ds.StudyDescription, ds.SeriesDescription = f"Head {modality}", "AX 1.0 soft"
    ds.ManufacturerModelName = "Phantom 64"
    ds.ReferencedImageSequence = Sequence([_reference(sop_class, number, n) for n in range(3)])
    ds.PatientName, ds.PatientID, ds.PatientSex = "SYNTH^PATIENT", "PID0001", "O"
    ds.PatientBirthDate, ds.PatientAge, ds.PatientWeight = "19600101", "065Y", "75"
    ds.BodyPartExamined, ds.ProtocolName, ds.PatientPosition = "HEAD", "HEAD ROUTINE", "HFS"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "SN1234", ["one 1", "B12"]
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[series, "study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "1", 2, 1, number
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=[series, "frame"])
    ds.PositionReferenceIndicator = ""
    ds.ImagePositionPatient = [-125.0, -130.0, float(number)]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.SliceLocation = [0.488, 0.488], "1.0", number
    ds.WindowCenter, ds.WindowWidth = "40", "80"
    ds.RescaleIntercept, ds.RescaleSlope = "0", "1"
    return ds


def _reference(sop_class: str, number: int, other: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = generate_uid(entropy_srcs=[str(number), str(other)])
    return item


def _write(ds: Dataset, array: NDArray[np.int16], path: Path) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = array.shape[-2:]
    if array.ndim == 3:
        ds.NumberOfFrames = array.shape[0]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = array.tobytes()
    ds["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    ds.save_as(path, enforce_file_format=True)


def _noise(shape: tuple[int, ...], number: int) -> NDArray[np.int16]:
    return np.random.default_rng(number).integers(0, 4095, shape, dtype=np.int16)


def ct(folder: Path, count: int, series: str = "ct") -> None:
    """Slices of 512 x 512, 526 KB each; their headers count them."""
    for number in range(count):
        ds = _header(CTImageStorage, "CT", series, number)
        ds.ImagesInAcquisition = count
        ds.KVP, ds.ConvolutionKernel, ds.GantryDetectorTilt = "120", "J40s", "0"
        _write(ds, _noise((512, 512), number), folder / f"{number:04}.dcm")


def mr(folder: Path, count: int) -> None:
    """Slices of 256 x 256 with 79 KB of private header, 212 KB each."""
    for number in range(count):
        ds = _header(MRImageStorage, "MR", "mr", number)
        ds.RepetitionTime, ds.EchoTime, ds.MagneticFieldStrength = "2300", "2.98", "3"
        block = ds.private_block(0x0029, "SYNTH CSA HEADER", create=True)
        block.add_new(0x10, "OB", _noise((5500,), number).tobytes())
        block.add_new(0x20, "OB", _noise((34_000,), number).tobytes())
        _write(ds, _noise((256, 256), number), folder / f"{number:04}.dcm")


def cr(folder: Path, count: int) -> None:
    """Small images of series of their own, 104 KB each."""
    for number in range(count):
        ds = _header(ComputedRadiographyImageStorage, "CR", f"cr{number}", number)
        _write(ds, _noise((256, 200), number), folder / f"{number:04}.dcm")


def tiny(folder: Path, count: int) -> None:
    """Images of 8 x 8, 2 KB each: for associations with one instance."""
    for number in range(count):
        ds = _header(ComputedRadiographyImageStorage, "CR", f"tiny{number}", number)
        _write(ds, _noise((8, 8), number), folder / f"{number:04}.dcm")


def large(folder: Path, count: int) -> None:
    """Multi-frame images of 300 frames, 157 MB each."""
    for number in range(count):
        ds = _header(EnhancedMRImageStorage, "MR", f"large{number}", number)
        _write(ds, _noise((300, 512, 512), number), folder / f"{number:04}.dcm")


LOADS: dict[str, Callable[[Path, int], None]] = {
    "ct": ct,
    "mr": mr,
    "cr": cr,
    "tiny": tiny,
    "large": large,
}


def generated(folder: Path, load: str, count: int) -> list[Path]:
    """Generate a load; the files."""
    target = folder / load
    target.mkdir(parents=True)
    LOADS[load](target, count)
    return sorted(target.glob("*.dcm"))


def prepared(paths: list[Path]) -> Iterator[Prepared]:
    """Read files as they are to be sent."""
    for path in paths:
        meta = read_file_meta_info(path)
        start = 132 + 12 + struct.unpack("<I", path.read_bytes()[140:144])[0]
        yield Prepared(
            meta.MediaStorageSOPClassUID.encode(),
            meta.MediaStorageSOPInstanceUID.encode(),
            meta.TransferSyntaxUID.encode(),
            path.read_bytes()[start:],
        )


WARM_BYTES = 384 << 20


def warm_memory(folder: Path, size: int = WARM_BYTES) -> None:
    """Touch as much memory as a load will, then free it.

    A host that takes unused memory back from its guests would otherwise charge the first who
    writes.

    Parameters
    ----------
    folder : Path
        Where a file of `size` bytes is written and removed.
    size : int
        Bytes.
    """
    path = folder / "warm"
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    path.unlink()
