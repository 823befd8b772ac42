"""Phantoms as the series a scanner would send: a head CT, and a T1-weighted head."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from models.base import Volume
from models.phantom_ct import HeadPhantom
from sr_templates.base import MANUFACTURER, MANUFACTURER_MODEL_NAME
from sr_templates.part10 import to_bytes

RESCALE_INTERCEPT = -1024
DATE, TIME = "20250101", "120000"
"""When every phantom was scanned, so that its files are always the same."""


def write_ct_series(
    phantom: HeadPhantom,
    folder: Path,
    *,
    seed: int,
    patient_name: str = "Phantom^Head",
    patient_id: str = "PHANTOM",
    patient_birth_date: str = "19500101",
    study_description: str = "CT head phantom",
) -> list[Path]:
    """Write one single-frame CT Image Storage file for each slice.

    Parameters
    ----------
    phantom : HeadPhantom
    folder : Path
        Made when it is not there; files are named ``CT0001.dcm`` and so on, by Instance Number.
    seed : int
        Together with the phantom and the patient's ID it decides every UID: what differs in
        pixels, place or patient never shares a UID.
    patient_name, patient_id, patient_birth_date, study_description : str
        Values of the attributes of those names.

    Returns
    -------
    list of Path
        From the lowest slice to the highest.

    Raises
    ------
    ValueError
        The array holds values that CT pixels cannot.

    References
    ----------
    DICOM PS3.3 A.3.3, CT Image IOD.
    """
    series = _patient(patient_name, patient_id, patient_birth_date, study_description)
    uids = _Uids(phantom.volume, [str(seed), phantom.kind, patient_id])
    _put_study_and_series(series, uids)
    _put_ct(series)
    return _write(series, phantom.volume, folder, "CT", uids)


def write_mr_series(
    volume: Volume,
    folder: Path,
    *,
    seed: int,
    patient_name: str = "Phantom^Head",
    patient_id: str = "PHANTOM",
    patient_birth_date: str = "19500101",
    study_description: str = "MR head phantom",
) -> list[Path]:
    """Write one single-frame MR Image Storage file for each slice of a T1-weighted volume.

    Parameters
    ----------
    volume : Volume
        Values 0 to 65535; its third axis runs across the slices.
    folder : Path
        Made when it is not there; files are named ``MR0001.dcm`` and so on.
    seed : int
        As in `write_ct_series`.
    patient_name, patient_id, patient_birth_date, study_description : str
        Values of the attributes of those names.

    Returns
    -------
    list of Path
        In the order of the third axis.

    Raises
    ------
    ValueError
        The array holds values that 16 bits cannot.

    References
    ----------
    DICOM PS3.3 A.4.3, MR Image IOD.
    """
    series = _patient(patient_name, patient_id, patient_birth_date, study_description)
    uids = _Uids(volume, [str(seed), "MR", patient_id])
    _put_study_and_series(series, uids)
    _put_mr(series)
    return _write(series, volume, folder, "MR", uids)


class _Uids:
    """UIDs by name, of one phantom scanned of one patient."""

    def __init__(self, volume: Volume, words: list[str]) -> None:
        content = hashlib.sha256(np.ascontiguousarray(volume.array).tobytes())
        content.update(np.ascontiguousarray(volume.affine).tobytes())
        self._entropy = [*words, content.hexdigest()]

    def of(self, name: str) -> str:
        return str(generate_uid(entropy_srcs=["scorenode phantom", *self._entropy, name]))


def _patient(name: str, patient_id: str, birth_date: str, study_description: str) -> Dataset:
    ds = Dataset()
    if not f"{name}{patient_id}{study_description}".isascii():
        ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID = name, patient_id
    ds.PatientBirthDate, ds.PatientSex = birth_date, "O"
    ds.StudyDescription = study_description
    return ds


def _put_study_and_series(ds: Dataset, uids: _Uids) -> None:
    ds.StudyInstanceUID = uids.of("study")
    ds.SeriesInstanceUID = uids.of("series")
    ds.FrameOfReferenceUID = uids.of("frame of reference")
    ds.PositionReferenceIndicator = ""
    for part in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{part}Date", DATE)
        setattr(ds, f"{part}Time", TIME)
    ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID = "1"
    ds.SeriesNumber = 2
    ds.AcquisitionNumber = 1
    ds.BodyPartExamined = "HEAD"
    ds.PatientPosition = "HFS"
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, MANUFACTURER_MODEL_NAME


def _put_ct(ds: Dataset) -> None:
    ds.SOPClassUID = CTImageStorage
    ds.Modality = "CT"
    ds.SeriesDescription = "Head, axial, without contrast"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.KVP = "120"
    ds.ConvolutionKernel = "BRAIN"
    ds.PixelRepresentation = 1
    ds.RescaleIntercept, ds.RescaleSlope = RESCALE_INTERCEPT, 1
    ds.RescaleType = "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 80


def _put_mr(ds: Dataset) -> None:
    ds.SOPClassUID = MRImageStorage
    ds.Modality = "MR"
    ds.SeriesDescription = "T1 MPRAGE 3D phantom"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = ["GR", "IR"], ["SP", "MP"], ""
    ds.MRAcquisitionType = "3D"
    ds.RepetitionTime, ds.EchoTime, ds.InversionTime = "2300", "3", "900"
    ds.FlipAngle, ds.EchoTrainLength, ds.MagneticFieldStrength = "9", 1, "3"
    ds.PixelRepresentation = 0
    ds.WindowCenter, ds.WindowWidth = 450, 900


def _write(series: Dataset, volume: Volume, folder: Path, name: str, uids: _Uids) -> list[Path]:
    _put_grid(series, volume)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(volume.array.shape[2]):
        path = folder / f"{name}{k + 1:04d}.dcm"
        path.write_bytes(to_bytes(_image(series, volume, k, uids)))
        paths.append(path)
    return paths


def _put_grid(ds: Dataset, volume: Volume) -> None:
    column, row, _ = (_decimal(step) for step in volume.spacing)
    ds.PixelSpacing = [row, column]
    across = volume.voxel_ml * 1000.0 / float(volume.spacing[0] * volume.spacing[1])
    ds.SliceThickness = ds.SpacingBetweenSlices = _decimal(across)
    if ds.Modality == "CT":
        rise = volume.affine[2, 1] / volume.affine[1, 1]
        ds.GantryDetectorTilt = _decimal(np.rad2deg(np.arctan(rise)))
    directions = (np.diag((-1.0, -1.0, 1.0)) @ volume.affine[:3, :3] / volume.spacing).T[:2]
    ds.ImageOrientationPatient = [_decimal(value) for value in directions.ravel()]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Columns, ds.Rows = volume.array.shape[:2]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15


def _image(series: Dataset, volume: Volume, k: int, uids: _Uids) -> Dataset:
    """Add to the attributes of the series those of one slice."""
    ds = Dataset()
    ds.update(series)
    ds.SOPInstanceUID = uids.of(f"image {k}")
    ds.InstanceNumber = k + 1
    position = (volume.affine @ (0, 0, k, 1))[:3] * (-1, -1, 1)
    ds.ImagePositionPatient = [_decimal(value) for value in position]
    ds.SliceLocation = _decimal(position[2])
    kind = np.dtype(np.int16 if ds.PixelRepresentation else np.uint16)
    stored = np.rint(volume.array[:, :, k].T - float(ds.get("RescaleIntercept", 0)))
    limits = np.iinfo(kind)
    if not (stored >= limits.min).all() or not (stored <= limits.max).all():
        raise ValueError(f"slice {k} holds values that do not fit 16 bits")
    ds.PixelData = stored.astype(kind.newbyteorder("<")).tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _decimal(value: float) -> str:
    return format_number_as_ds(round(float(value), 9) + 0.0)
