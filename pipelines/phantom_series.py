"""A head CT phantom as the CT series a scanner would send."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, generate_uid
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
    folder.mkdir(parents=True, exist_ok=True)
    uids = _Uids(phantom, seed, patient_id)
    series = Dataset()
    if not f"{patient_name}{patient_id}{study_description}".isascii():
        series.SpecificCharacterSet = "ISO_IR 192"
    series.PatientName, series.PatientID = patient_name, patient_id
    series.PatientBirthDate, series.PatientSex = patient_birth_date, "O"
    series.StudyDescription = study_description
    _put_study_and_series(series, uids)
    _put_equipment_and_image(series, phantom.volume)
    paths = []
    for k in range(phantom.volume.array.shape[2]):
        path = folder / f"CT{k + 1:04d}.dcm"
        path.write_bytes(to_bytes(_image(series, phantom.volume, k, uids)))
        paths.append(path)
    return paths


class _Uids:
    """UIDs by name, of one phantom scanned of one patient."""

    def __init__(self, phantom: HeadPhantom, seed: int, patient_id: str) -> None:
        content = hashlib.sha256(np.ascontiguousarray(phantom.volume.array).tobytes())
        content.update(np.ascontiguousarray(phantom.volume.affine).tobytes())
        self._entropy = [str(seed), phantom.kind, patient_id, content.hexdigest()]

    def of(self, name: str) -> str:
        return str(generate_uid(entropy_srcs=["scorenode phantom", *self._entropy, name]))


def _put_study_and_series(ds: Dataset, uids: _Uids) -> None:
    ds.SOPClassUID = CTImageStorage
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
    ds.SeriesDescription = "Head, axial, without contrast"
    ds.Modality = "CT"
    ds.BodyPartExamined = "HEAD"
    ds.PatientPosition = "HFS"


def _put_equipment_and_image(ds: Dataset, volume: Volume) -> None:
    ds.Manufacturer, ds.ManufacturerModelName = MANUFACTURER, MANUFACTURER_MODEL_NAME
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.AcquisitionNumber = 1
    ds.KVP = "120"
    ds.ConvolutionKernel = "BRAIN"
    column, row, _ = (_decimal(step) for step in volume.spacing)
    ds.PixelSpacing = [row, column]
    across = volume.voxel_ml * 1000.0 / float(volume.spacing[0] * volume.spacing[1])
    ds.SliceThickness = ds.SpacingBetweenSlices = _decimal(across)
    rise = volume.affine[2, 1] / volume.affine[1, 1]
    ds.GantryDetectorTilt = _decimal(np.rad2deg(np.arctan(rise)))
    directions = (np.diag((-1.0, -1.0, 1.0)) @ volume.affine[:3, :3] / volume.spacing).T[:2]
    ds.ImageOrientationPatient = [_decimal(value) for value in directions.ravel()]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Columns, ds.Rows = volume.array.shape[:2]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.RescaleIntercept, ds.RescaleSlope = RESCALE_INTERCEPT, 1
    ds.RescaleType = "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 80


def _image(series: Dataset, volume: Volume, k: int, uids: _Uids) -> Dataset:
    """Add to the attributes of the series those of one slice."""
    ds = Dataset()
    ds.update(series)
    ds.SOPInstanceUID = uids.of(f"image {k}")
    ds.InstanceNumber = k + 1
    position = (volume.affine @ (0, 0, k, 1))[:3] * (-1, -1, 1)
    ds.ImagePositionPatient = [_decimal(value) for value in position]
    ds.SliceLocation = _decimal(position[2])
    stored = np.rint(volume.array[:, :, k].T - RESCALE_INTERCEPT)
    limits = np.iinfo(np.int16)
    if not (stored >= limits.min).all() or not (stored <= limits.max).all():
        raise ValueError(f"slice {k} holds values that do not fit 16 bits")
    ds.PixelData = stored.astype("<i2").tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def _decimal(value: float) -> str:
    return format_number_as_ds(round(float(value), 9) + 0.0)
