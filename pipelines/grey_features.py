"""Volumes of grey matter of every T1-weighted head of an archive, as a table.

The table is for training at the site that owns it: it holds Patient ID and dates, so that rows can
be joined with cognitive scores, and heads of one person kept together.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from models.atlas import NAMES
from models.base import UnfitInput
from models.grey_matter import segment_tissues
from models.regions import TOTALS, regional_volumes
from models.t1_head import refuse_unless_t1_head, refuse_unless_whole_head
from pipelines.base import Misconfigured, NotScored, Progress
from pipelines.folders import FolderSeries, content_of
from pipelines.steps.read import read_series, third_party_warnings_off
from pipelines.steps.volume import volume_from_series

WHO = ("PatientID", "StudyDate", "PatientAge", "PatientSex", "StudyInstanceUID")
COLUMNS = (
    "SeriesInstanceUID",
    *WHO,
    "verdict",
    "reason",
    "sentence",
    *(f"{name}_ml" for name in (*TOTALS, *NAMES)),
)


@dataclass
class Count:
    """Series of a run: measured, refused, known from an earlier run."""

    measured: int = 0
    refused: int = 0
    known: int = 0


def write_features(folder: Path, out: Path, progress: Progress, *, device: str = "cpu") -> Count:
    """Measure every MR series of a folder.

    Each row is on disk before the next series begins; series that have a row are passed over.

    Parameters
    ----------
    folder : Path
        Searched to any depth.
    out : Path
        CSV, UTF-8, volumes in millilitres; made when it is not there.
    progress : callable
    device : str
        ``cpu`` or ``cuda``.

    Raises
    ------
    Misconfigured
        There is no such folder, or `out` is a table with other columns.
    """
    known = _known(out)
    found = [one for one in content_of(folder).series if one.modality == "MR" or one.trouble]
    count = Count()
    with out.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="")
        if not known and out.stat().st_size == 0:
            table.writeheader()
        for index, series in enumerate(found):
            if series.series_instance_uid in known:
                count.known += 1
                continue
            told = functools.partial(_told, progress, index, len(found))
            row = _row(series, device, told)
            count.measured += row["verdict"] == "ok"
            count.refused += row["verdict"] != "ok"
            table.writerow(row)
            file.flush()
    progress(1.0, "done")
    return count


def _told(progress: Progress, index: int, count: int, part: float) -> None:
    progress((index + part) / count, f"series {index + 1} of {count}")


def _known(out: Path) -> set[str]:
    """Series of an earlier run; a last row that was cut off is not one of them."""
    if not out.exists() or out.stat().st_size == 0:
        return set()
    data = out.read_bytes()
    if not data.endswith(b"\n"):
        data = data[: data.rfind(b"\n") + 1]
        out.write_bytes(data)
    rows = csv.DictReader(data.decode("utf-8").splitlines(keepends=True))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise Misconfigured("The table to go on with has other columns; name another file.")
    return {row["SeriesInstanceUID"] for row in rows}


def _row(series: FolderSeries, device: str, told: functools.partial[None]) -> Mapping[str, object]:
    row: dict[str, object] = {"SeriesInstanceUID": series.series_instance_uid}
    if series.trouble:
        return _refused(row, "unreadable_instance", series.trouble)
    try:
        datasets = read_series(series.paths)
        row.update(_who(datasets[0]))
        with third_party_warnings_off():
            volume = volume_from_series(datasets)
        refuse_unless_whole_head(volume)
        tissues = segment_tissues(volume, device=device, progress=told)
        refuse_unless_t1_head(tissues)
    except (NotScored, UnfitInput) as error:
        return _refused(row, error.reason, error.sentence)
    found = regional_volumes(tissues)
    values = {**found.totals_ml, **found.values_ml}
    numbers = {f"{name}_ml": f"{value:.3f}" for name, value in values.items()}
    return {**row, "verdict": "ok", **numbers}


def _refused(row: dict[str, object], reason: str, sentence: str) -> Mapping[str, object]:
    return {**row, "verdict": "not_scored", "reason": reason, "sentence": sentence}


def _who(ds: Dataset) -> dict[str, str]:
    return {keyword: str(ds.get(keyword) or "") for keyword in WHO}
