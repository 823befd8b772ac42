"""Secondary captures: pixels that fit their description and hold no patient data."""

from __future__ import annotations

from collections.abc import Iterator

from sr_templates.checks.base import Found, Subject
from sr_templates.checks.voxels import is_encapsulated

SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1, "RGB": 3}
CONVERSIONS = ("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN")
"""Defined Terms of Conversion Type, PS3.3 C.8.6.1."""


def captures(subject: Subject) -> Iterator[Found]:
    """Judge a Secondary Capture Image."""
    ds = subject.ds
    if ds.get("ConversionType") and ds.ConversionType not in CONVERSIONS:
        yield Found("bad_value", "ConversionType", "is no Defined Term")
    samples = int(ds.SamplesPerPixel)
    wanted = SAMPLES.get(str(ds.PhotometricInterpretation), 3)
    if samples != wanted:
        sentence = f"is {samples}, {ds.PhotometricInterpretation} wants {wanted}"
        yield Found("photometric", "SamplesPerPixel", sentence)
    if samples > 1 and "PlanarConfiguration" not in ds:
        yield Found("missing", "PlanarConfiguration", "is missing")
    stored, allocated = int(ds.BitsStored), int(ds.BitsAllocated)
    if stored > allocated or int(ds.HighBit) != stored - 1:
        yield Found("photometric", "BitsStored", "does not fit BitsAllocated and HighBit")
    if not is_encapsulated(ds):
        frames = int(ds.get("NumberOfFrames") or 1)
        length = frames * int(ds.Rows) * int(ds.Columns) * samples * (allocated // 8)
        length += length % 2
        if len(ds.PixelData) != length:
            yield Found("pixels", "PixelData", f"has {len(ds.PixelData)} bytes, wanted {length}")
    if subject.own and ds.get("BurnedInAnnotation") != "NO":
        sentence = "does not say that the pixels are free of patient data"
        yield Found("burned_in", "BurnedInAnnotation", sentence)
