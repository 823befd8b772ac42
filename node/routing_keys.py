"""Attributes whose values are collected from every instance, whatever the rules say."""

from __future__ import annotations

ROUTING_KEYS = frozenset({
    "SpecificCharacterSet", "Modality", "SOPClassUID", "ImageType", "BodyPartExamined",
    "StudyDescription", "SeriesDescription", "ProtocolName", "SeriesNumber", "InstanceNumber",
    "StudyDate", "SeriesDate", "AcquisitionNumber", "PatientAge", "PatientSex", "SliceThickness",
    "SpacingBetweenSlices", "PixelSpacing", "Rows", "Columns", "NumberOfFrames",
    "ImagesInAcquisition", "InConcatenationTotalNumber", "ImageOrientationPatient",
    "ImagePositionPatient", "PatientPosition",
    "GantryDetectorTilt", "ConvolutionKernel", "KVP", "ContrastBolusAgent", "Manufacturer",
    "ManufacturerModelName", "DeviceSerialNumber", "StationName", "FrameOfReferenceUID",
    "BurnedInAnnotation",
})  # fmt: skip
"""Collected whatever the rules say, so that a new rule can be tried on what came before it."""
