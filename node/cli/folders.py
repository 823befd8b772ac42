"""A folder of DICOM files, looked at as the receiver would look at them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from node.candidates import SeriesFacts
from node.completeness import CompletenessJudge
from node.deciding import is_ours
from node.receive.header import HeaderError, scan

_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality")


@dataclass
class FolderSeries:
    """The instances of one series, as headers that rules look at."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    headers: list[dict[str, Any]] = field(default_factory=list)


def series_of(folder: Path, wanted: Collection[str]) -> tuple[list[FolderSeries], int]:
    """Group the DICOM files of a folder by series.

    Returns
    -------
    list of FolderSeries
    int
        How many files were passed over because they are not DICOM or damaged.
    """
    found: dict[tuple[str, str], FolderSeries] = {}
    passed_over = 0
    keys = frozenset(wanted).union(_IDENTITY)
    for header in _headers(folder, keys):
        if header is None:
            passed_over += 1
            continue
        study, series = _text(header, "StudyInstanceUID"), _text(header, "SeriesInstanceUID")
        entry = found.setdefault(
            (study, series), FolderSeries(study, series, _text(header, "Modality"))
        )
        entry.headers.append(header)
    return list(found.values()), passed_over


def studies_of(
    folder: Path, wanted: Collection[str], judge: CompletenessJudge
) -> tuple[list[list[SeriesFacts]], int]:
    """Group the series of a folder by study, as facts that rules look at.

    Returns
    -------
    list of list of SeriesFacts
    int
        How many files were passed over because they are not DICOM or damaged.
    """
    found, passed_over = series_of(folder, wanted)
    studies: dict[str, list[SeriesFacts]] = {}
    for item in found:
        proved = judge.judge("", item.headers, None)
        facts = SeriesFacts(
            item.study_instance_uid,
            item.series_instance_uid,
            item.modality,
            item.headers,
            len(item.headers),
            proved.verdict.value if proved else "quiet",
            own_result=is_ours(item.headers),
            evidence=proved.sentence if proved else "",
        )
        studies.setdefault(item.study_instance_uid, []).append(facts)
    return list(studies.values()), passed_over


def _headers(folder: Path, keys: Collection[str]) -> Iterator[dict[str, Any] | None]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        try:
            meta = read_file_meta_info(path)
            yield dict(scan(_data_set(path), str(meta.TransferSyntaxUID), keys).values)
        except (InvalidDicomError, HeaderError, AttributeError, OSError, EOFError):
            yield None


def _data_set(path: Path) -> bytes:
    """Bytes after the File Meta Information."""
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, force=False)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()


def _text(header: dict[str, Any], keyword: str) -> str:
    values = header.get(keyword) or [""]
    return str(values[0])
