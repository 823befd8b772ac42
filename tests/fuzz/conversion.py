"""Series with mutated headers and truncated files: each ends as volumes, refusals and reasons."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import struct
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pydicom.tag import Tag

from pipelines.base import NotScored
from pipelines.steps.series import open_series
from pipelines.steps.straighten import straightened
from pipelines.steps.volume import volumes_of_series
from tests.phantoms import Shape, ct_series
from tests.shared_data import SHARED

MAX_SECONDS = 5.0
MAX_EXTRA_MB = 64.0
MAX_WAIT = 20.0
REAL = (
    ("reference_conversions", "generic_anatomical_001"),
    ("reference_conversions", "generic_compressed_j2k_001"),
    ("reference_conversions", "generic_compressed_jpeg_001"),
    ("reference_conversions", "generic_compressed_jpegls_001"),
    ("reference_conversions", "generic_compressed_rle_001"),
    ("reference_conversions", "ge_anatomical_001_implicit"),
    ("reference_conversions", "philips_enhanced_anatomical_001"),
    ("reference_conversions", "hyperfine_anatomical_001"),
    ("seg_and_sr_by_others", "dcmqi_24x38x3", "image"),
)
HOSTILE: dict[str, Sequence[bytes]] = {
    "Rows": (b"\xff\xff", b"\0\0", b"\x01\0", b"\x00\x20"),
    "Columns": (b"\xff\xff", b"\0\0", b"\x02\0", b"\x00\x20"),
    "BitsAllocated": (b"\x20\0", b"\x01\0", b"\x08\0", b"\0\0", b"\x40\0"),
    "BitsStored": (b"\x01\0", b"\xff\xff", b"\0\0"),
    "HighBit": (b"\x00\0", b"\xff\xff"),
    "PixelRepresentation": (b"\x01\0", b"\xff\xff"),
    "SamplesPerPixel": (b"\x03\0", b"\xff\xff", b"\0\0"),
    "NumberOfFrames": (b"999999", b"-1", b"0 ", b"65535 ", b"1e9 "),
    "ImagePositionPatient": (b"1e308\\1e308\\-1e308 ", b"nan\\inf\\0", b"0\\0\\0 ", b"1\\2 "),
    "ImageOrientationPatient": (b"0\\0\\0\\0\\0\\0 ", b"nan\\1\\0\\0\\1\\0", b"2\\0\\0\\0\\2\\0 "),
    "PixelSpacing": (b"0\\0 ", b"1e-30\\1e30 ", b"-1\\1", b"nan\\nan "),
    "RescaleSlope": (b"0 ", b"1e308 ", b"nan ", b"-1"),
    "RescaleIntercept": (b"1e308 ", b"inf ", b"x "),
    "PixelPaddingValue": (b"\xff\xff", b"\0\x80"),
    "InstanceNumber": (b"99999999999999999999", b"x ", b""),
    "SOPInstanceUID": (b"", b"1.2.3.", b"x" * 64),
    "SOPClassUID": (b"1.2.840.10008.5.1.4.1.1.2.1 ", b"1.2", b""),
    "ImageType": (b"ORIGINAL\\PRIMARY\\MOSAIC", b"\\\\\\\\", b"A\\B\\LOCALIZER "),
    "PhotometricInterpretation": (b"MONOCHROME1 ", b"RGB ", b""),
}


def seeds() -> list[list[bytes]]:
    """Whole series to start from: our phantom, and real ones where they are."""
    with tempfile.TemporaryDirectory() as folder:
        phantom = []
        for number, ds in enumerate(ct_series(Shape(columns=24, rows=20, slices=6))):
            path = Path(folder) / str(number)
            ds.save_as(path, enforce_file_format=True)
            phantom.append(path.read_bytes())
    found = [phantom]
    for parts in REAL:
        home = SHARED.joinpath(*parts)
        if home.is_dir():
            files = [path for path in sorted(home.iterdir()) if path.suffix not in (".md", ".txt")]
            found.append([path.read_bytes() for path in files])
    return found


def fuzz_series(count: int, seed: int) -> Counter[str]:
    """Convert mutated series.

    Parameters
    ----------
    count : int
    seed : int

    Returns
    -------
    Counter
        How often each reason came up, and ``volume`` for volumes.

    Raises
    ------
    AssertionError
        An image was lost, or a series took too long or too much memory, or ended the process
        in another way than gdcm does.
    """
    harm = random.Random(seed)
    starts = seeds()
    reasons: Counter[str] = Counter()
    pool = _process()
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(count):
            series = [bytes(data) for data in harm.choice(starts)]
            for _ in range(harm.choice((1, 1, 1, 2, len(series)))):
                victim = harm.randrange(len(series))
                series[victim] = mutated(series[victim], harm)
            paths = []
            for number, data in enumerate(series):
                path = Path(folder) / f"{number}.dcm"
                path.write_bytes(data)
                paths.append(path)
            which = f"seed {seed}, turn {turn}"
            try:
                reasons += pool.submit(_converted, paths, which).result(timeout=MAX_WAIT)
            except BrokenProcessPool:  # gdcm ends its process at some damaged JPEG
                assert any(is_jpeg(data) for data in series), which
                reasons["decoder_crashed"] += 1
                pool = _process()
            except TimeoutError:
                kept = Path(tempfile.mkdtemp(prefix="slow-series-"))
                for path in paths:
                    shutil.copy(path, kept)
                for process in multiprocessing.active_children():
                    process.kill()
                raise AssertionError(
                    f"{which}: no end within {MAX_WAIT:.0f} s, see {kept}"
                ) from None
        pool.shutdown()
    return reasons


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _silence)


def _silence() -> None:
    warnings.simplefilter("ignore")


def is_jpeg(data: bytes) -> bool:
    """Tell whether gdcm decodes the pixels of a file."""
    return b"1.2.840.10008.1.2.4.5" in data[:2000] or b"1.2.840.10008.1.2.4.7" in data[:2000]


def _converted(paths: Sequence[Path], which: str) -> Counter[str]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
    before, began = _status_mb("VmRSS"), time.monotonic()
    reasons: Counter[str] = Counter()
    largest = 0
    try:
        instances, unused = open_series(paths)
        found = volumes_of_series(instances)
        used = sum(len(volume.source_instance_uids) for volume in found.volumes)
        assert used + len(found.unused) == found.frames, which
        for item in (*unused, *found.unused):
            assert item.reason, which
            assert item.sentence.endswith("."), which
            reasons[item.reason] += 1
        for volume in found.volumes:
            reasons["volume"] += 1
            largest += volume.array.nbytes
            try:
                largest += straightened(volume).array.nbytes
            except NotScored as error:
                reasons[error.reason] += 1
    except NotScored as error:
        reasons[error.reason] += 1
    seconds = time.monotonic() - began
    extra = _status_mb("VmHWM") - before - largest / 2**20
    assert seconds < MAX_SECONDS, f"{which}: {seconds:.1f} s"
    assert extra < MAX_EXTRA_MB, f"{which}: {extra:.0f} MB above the volume's"
    return reasons


def mutated(data: bytes, harm: random.Random) -> bytes:
    """Harm one file once; what is left of a file that was cut is left alone."""
    if len(data) < 300:
        return data
    match harm.choice(("value", "value", "value", "bytes", "lost", "cut", "length")):
        case "value":
            return _other_value(data, harm)
        case "bytes":
            changed = bytearray(data)
            for _ in range(harm.randint(1, 8)):
                changed[harm.randrange(min(len(changed), 6000))] = harm.randrange(256)
            return bytes(changed)
        case "lost":
            start = harm.randrange(min(len(data), 6000))
            return data[:start] + data[start + harm.randint(1, 80) :]
        case "length":
            start = harm.randrange(132, min(len(data) - 8, 6000))
            return data[:start] + struct.pack("<I", harm.choice(LENGTHS)) + data[start + 4 :]
        case _:
            return data[: harm.randrange(len(data))]


LENGTHS = (0, 1, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0x10000)


def _other_value(data: bytes, harm: random.Random) -> bytes:
    """Give an attribute a hostile value, its length and those around it kept true."""
    keyword = harm.choice(list(HOSTILE))
    tag = Tag(keyword)
    place = data.find(struct.pack("<HH", tag.group, tag.element), 132)
    value = harm.choice(HOSTILE[keyword])
    value += b" " * (len(value) % 2)
    if place < 0:
        return data
    if data[place + 4 : place + 6].isalpha():
        old = struct.unpack_from("<H", data, place + 6)[0]
        head = data[: place + 6] + struct.pack("<H", len(value))
    else:
        old = struct.unpack_from("<I", data, place + 4)[0]
        head = data[: place + 4] + struct.pack("<I", len(value))
    return head + value + data[place + 8 + min(old, len(data)) :]


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
