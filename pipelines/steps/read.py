"""Part 10 files of one series, read into datasets, within bounds and with every failure named."""

from __future__ import annotations

import filecmp
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError

from pipelines.base import NotScored, Transient

MAX_INSTANCES = 10_000
MAX_INSTANCE_BYTES = 2 << 30
MAX_SERIES_BYTES = 8 << 30


def read_series(paths: Sequence[Path], *, pixels: bool = True) -> list[FileDataset]:
    """Read the instances of one series.

    An instance that is there twice with the same bytes is read once. A SOP Instance UID or SOP
    Class UID that is empty in the data set is taken from the file meta information.

    Parameters
    ----------
    paths : sequence of Path
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
    _refuse_too_much(paths)
    first: dict[str, Path] = {}
    datasets = []
    for number, path in enumerate(paths, start=1):
        ds = read_instance(path, number, pixels=pixels)
        uid = str(ds.SOPInstanceUID)
        if uid not in first:
            first[uid] = path
            datasets.append(ds)
        elif not filecmp.cmp(first[uid], path, shallow=False):
            raise NotScored(
                "conflicting_instances",
                f"Two instances of different content share SOP Instance UID {uid}.",
            )
    return datasets


def read_instance(path: Path, number: int = 1, *, pixels: bool = True) -> FileDataset:
    """Read one Part 10 file.

    Parameters
    ----------
    path : Path
    number : int
        Its place in the series, which names it while its UID is not known.
    pixels : bool
        False leaves the pixel data in the file.
    """
    try:
        with third_party_warnings_off():
            ds = dcmread(path, stop_before_pixels=not pixels)
            _complete_identity(ds)
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


def _damaged(number: int, error: Exception) -> NotScored:
    return NotScored(
        "unreadable_instance",
        f"File {number} of the series is damaged: reading it ended in {type(error).__name__}.",
    )


def _complete_identity(ds: Dataset) -> None:
    meta = getattr(ds, "file_meta", Dataset())
    for keyword, fallback in (
        ("SOPInstanceUID", "MediaStorageSOPInstanceUID"),
        ("SOPClassUID", "MediaStorageSOPClassUID"),
    ):
        if not ds.get(keyword):
            setattr(ds, keyword, meta.get(fallback, ""))
    if not ds.SOPInstanceUID:
        raise NotScored("no_identity", "An instance of the series has no SOP Instance UID.")


def _refuse_too_much(paths: Sequence[Path]) -> None:
    if not paths:
        raise NotScored("no_images", "The series holds no instances.")
    if len(paths) > MAX_INSTANCES:
        raise NotScored(
            "series_too_large",
            f"The series holds {len(paths)} instances; at most {MAX_INSTANCES} are read.",
        )
    try:
        sizes = [path.stat().st_size for path in paths]
    except OSError as error:
        raise Transient("A file of the series is not in the store now.") from error
    if max(sizes) > MAX_INSTANCE_BYTES or sum(sizes) > MAX_SERIES_BYTES:
        raise NotScored(
            "series_too_large",
            f"The series holds {sum(sizes) / 2**30:.1f} GiB, its largest instance "
            f"{max(sizes) / 2**30:.1f} GiB; at most {MAX_SERIES_BYTES >> 30} and "
            f"{MAX_INSTANCE_BYTES >> 30} GiB are read.",
        )
