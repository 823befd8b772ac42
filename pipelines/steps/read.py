"""Part 10 files of one series, read into datasets, within bounds and with every failure named."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pipelines.base import NotScored, Transient
from storage.place import Place

MAX_INSTANCES = 10_000
MAX_INSTANCE_BYTES = 2 << 30
MAX_SERIES_BYTES = 8 << 30
META_BYTES = 4096
DEFLATED = b"\x02\0\x10\0UI\x16\0" + DeflatedExplicitVRLittleEndian.encode()
"""The element Transfer Syntax UID with this value."""


def read_series(files: Sequence[Path | Place], *, pixels: bool = True) -> list[FileDataset]:
    """Read the instances of one series.

    An instance that is there twice with the same bytes is read once. A SOP Instance UID or SOP
    Class UID that is empty in the data set is taken from the file meta information.

    Parameters
    ----------
    files : sequence of Path or Place
        Part 10 files.
    pixels : bool
        False leaves the pixel data in the files.

    Raises
    ------
    NotScored
        There is nothing to read, too much of it, a file is not DICOM or damaged, or two
        instances of different content share a SOP Instance UID.
    Transient
        The store does not answer.
    """
    places = [Place.of(file) for file in files]
    refuse_too_much(places)
    first: dict[str, Place] = {}
    datasets = []
    for number, place in enumerate(places, start=1):
        ds = read_instance(place, number, pixels=pixels)
        uid = str(ds.SOPInstanceUID)
        if uid not in first:
            first[uid] = place
            datasets.append(ds)
        elif first[uid].read() != place.read():
            raise NotScored(
                "conflicting_instances",
                f"Two instances of different content share SOP Instance UID {uid}.",
            )
    return datasets


def read_instance(
    source: Path | Place, number: int = 1, *, pixels: bool = True, deflated: bool = False
) -> FileDataset:
    """Read one Part 10 file.

    Parameters
    ----------
    source : Path or Place
    number : int
        Its place in the series, which names it while its UID is not known.
    pixels : bool
        False leaves the pixel data in the file.
    deflated : bool
        Whether to inflate deflated data sets, whose size is not known before.
    """
    try:
        with third_party_warnings_off(), Place.of(source).open() as file:
            if not deflated:
                _refuse_deflated(file, number)
            ds = dcmread(file, stop_before_pixels=not pixels)
            complete_identity(ds)
    except NotScored:
        raise
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno is None:
            raise _damaged(number, error) from error
        raise Transient(f"File {number} of the series could not be read now.") from error
    except InvalidDicomError as error:
        raise NotScored("not_dicom", f"File {number} of the series is not a DICOM file.") from error
    except Exception as error:  # pydicom raises what a damaged file provokes
        raise _damaged(number, error) from error
    return ds


@contextmanager
def damage_refused(what: str) -> Iterator[None]:
    """Turn whatever a library raises at damaged values into a refusal that says `what` it was."""
    try:
        yield
    except (NotScored, MemoryError):
        raise
    except Exception as error:
        raise NotScored(
            "unreadable_header", f"{what} cannot be read ({type(error).__name__})."
        ) from error


@contextmanager
def third_party_warnings_off() -> Iterator[None]:
    """Silence what libraries say about odd headers, as warnings and as log: it quotes values."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "dicom2nifti", "nibabel")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _refuse_deflated(file: BinaryIO, number: int) -> None:
    head = file.read(META_BYTES)
    file.seek(0)
    if DEFLATED in head:
        raise NotScored(
            "deflated", f"File {number} of the series is deflated; that is not enabled."
        )


def _damaged(number: int, error: Exception) -> NotScored:
    return NotScored(
        "unreadable_instance",
        f"File {number} of the series is damaged: reading it ended in {type(error).__name__}.",
    )


def complete_identity(ds: Dataset) -> None:
    """Take UIDs that are empty in the data set from the file meta information."""
    meta = getattr(ds, "file_meta", Dataset())
    for keyword, fallback in (
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
        ("SOPClassUID", "MediaStorageSOPClassUID"),
    ):
        if not ds.get(keyword):
            setattr(ds, keyword, meta.get(fallback, ""))
    if not ds.SOPInstanceUID:
        raise NotScored("no_identity", "An instance of the series has no SOP Instance UID.")


def refuse_too_much(places: Sequence[Place]) -> None:
    """Refuse no files, too many of them, or too large ones."""
    if not places:
        raise NotScored("no_images", "The series holds no instances.")
    if len(places) > MAX_INSTANCES:
        raise NotScored(
            "series_too_large",
            f"The series holds {len(places)} instances; at most {MAX_INSTANCES} are read.",
        )
    try:
        sizes = [place.size for place in places]
    except OSError as error:
        raise Transient("A file of the series is not in the store now.") from error
    if max(sizes) > MAX_INSTANCE_BYTES or sum(sizes) > MAX_SERIES_BYTES:
        raise NotScored(
            "series_too_large",
            f"The series holds {sum(sizes) / 2**30:.1f} GiB, its largest instance "
            f"{max(sizes) / 2**30:.1f} GiB; at most {MAX_SERIES_BYTES >> 30} and "
            f"{MAX_INSTANCE_BYTES >> 30} GiB are read.",
        )
