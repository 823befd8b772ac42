"""A folder of files, as the series that lie in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag
from pydicom.uid import MediaStorageDirectoryStorage

from pipelines.base import Misconfigured
from pipelines.steps.head_reader import HeadReader
from pipelines.steps.headers import Head
from pipelines.steps.read import third_party_warnings_off
from storage.place import Place

HEADER = ["SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber"]
TAGS = frozenset(int(Tag(keyword)) for keyword in HEADER)
GROUPING = tuple(int(Tag(keyword)) for keyword in HEADER[1:])
BROKEN = "These files are DICOM but too damaged to be read."


@dataclass
class FolderSeries:
    """Files of one series, as they are found.

    Parameters
    ----------
    series_instance_uid : str
        Empty for files that name no series or could not be read.
    modality : str
        Fit to be part of a folder's name.
    number : int
        Series Number.
    paths : list of Path
    trouble : str
        Why these files cannot be read; empty where they can.
    """

    series_instance_uid: str
    modality: str
    number: int
    paths: list[Path] = field(default_factory=list)
    trouble: str = ""
    heads: dict[Path, Head] = field(default_factory=dict)
    """Heads that were read on the way, to be used again."""


@dataclass(frozen=True)
class FolderContent:
    """What lies in a folder.

    Parameters
    ----------
    series : tuple of FolderSeries
        In the order of Series Number and file name; files that could not be read last.
    not_dicom : int
        Files that are no DICOM objects.
    directories : int
        DICOMDIR files.
    """

    series: tuple[FolderSeries, ...]
    not_dicom: int
    directories: int

    @property
    def passed_over(self) -> str:
        """What is in no series, in a sentence; empty where there is no such thing."""
        kinds = [
            (self.not_dicom, "not DICOM (Part 10)"),
            (self.directories, "DICOM directories (DICOMDIR)"),
        ]
        told = [f"{count} {what}" for count, what in kinds if count]
        return f"Passed over: {' and '.join(told)}." if told else ""


def content_of(folder: Path) -> FolderContent:
    """Group the DICOM files of a folder, to any depth, by series.

    Raises
    ------
    Misconfigured
        There is no such folder.
    """
    found: dict[str, FolderSeries] = {}
    alike: dict[tuple[bytes | None, ...], FolderSeries] = {}
    broken = FolderSeries("", "", 0, [], BROKEN)
    not_dicom = directories = 0
    with HeadReader() as reader, third_party_warnings_off():
        for path in _files(folder):
            try:
                head = reader.head_of(Place(path))
                raw = head and tuple(head.elements.get(tag) for tag in GROUPING)
                series = alike.get(raw) if raw else None
                if series is None:
                    series = _series_of(head.dataset(TAGS) if head else _header(path), found)
            except InvalidDicomError:
                not_dicom += 1
                continue
            except Exception:  # noqa: BLE001 - pydicom raises what a damaged file provokes
                broken.paths.append(path)
                continue
            if series is None:
                directories += 1
                continue
            series.paths.append(path)
            if head is not None and raw:
                series.heads[path] = head
                alike[raw] = series
    ordered = sorted(found.values(), key=lambda series: (series.number, str(series.paths[0])))
    all_series = (*ordered, broken) if broken.paths else tuple(ordered)
    return FolderContent(tuple(all_series), not_dicom, directories)


def _series_of(header: Dataset | None, found: dict[str, FolderSeries]) -> FolderSeries | None:
    """Return the series a header belongs to, made when it is the first; None for a DICOMDIR."""
    if header is None:
        return None
    values = {keyword: str(header.get(keyword) or "") for keyword in HEADER}
    uid = values["SeriesInstanceUID"]
    return found.setdefault(uid, FolderSeries(uid, _modality(header), _number(header)))


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise Misconfigured("The folder is not there, or is not a folder.")
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent) / name
            if path.is_file():
                yield path


def _header(path: Path) -> Dataset | None:
    """Read what groups files into series with pydicom; None for a DICOMDIR."""
    ds = dcmread(path, stop_before_pixels=True, specific_tags=HEADER)
    is_directory = ds.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    return None if is_directory else ds


def _modality(header: Dataset) -> str:
    text = str(header.get("Modality") or "")
    return text if text.isalnum() and len(text) <= 16 else "none"


def _number(header: Dataset) -> int:
    try:
        return int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0
