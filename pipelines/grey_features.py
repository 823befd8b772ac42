"""Volumes of grey matter of every T1-weighted head of an archive, as a table; voxel maps beside it.

The table is for training at the site that owns it: it holds Patient ID and dates, so that rows can
be joined with cognitive scores, and heads of one person kept together.
"""

from __future__ import annotations

import csv
import functools
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.atlas import NAMES
from models.base import UnfitInput
from models.grey_matter import Tissues, segment_tissues
from models.prior_maps import BadPriors, load_priors, prior_files
from models.regions import TOTALS, regional_volumes
from models.t1_head import refuse_unless_t1_head, refuse_unless_whole_head
from models.tissue_priors import Priors, default_priors
from models.voxel_maps import grey_map, map_grid
from pipelines.base import Misconfigured, NotScored, Progress
from pipelines.folders import FolderSeries, content_of
from pipelines.steps.nifti import load_nifti, save_nifti
from pipelines.steps.prognosis import CONTRAST_MEDIUM, has_contrast_medium
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
    "priors",
)
MAP_END = ".nii.gz"


@dataclass
class Count:
    """Series of a run: measured, refused, known from an earlier run."""

    measured: int = 0
    refused: int = 0
    known: int = 0


@dataclass(frozen=True, eq=False)
class _How:
    """How heads are measured: device, tissue maps, and the folder of voxel maps or None."""

    device: str
    priors: Priors
    maps: Path | None

    def map_of(self, uid: str) -> Path | None:
        """Where the voxel map of a series goes."""
        return self.maps / f"{uid}{MAP_END}" if self.maps else None

    def done(self, uid: str, verdict: str | None) -> bool:
        """Whether nothing is left to do for a series."""
        path = self.map_of(uid)
        return verdict is not None and (verdict != "ok" or path is None or path.is_file())


def write_features(
    folder: Path,
    out: Path,
    progress: Progress,
    *,
    device: str = "cpu",
    priors: Path | None = None,
    maps: Path | None = None,
) -> Count:
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
    priors : Path or None
        Folder of a site's own tissue maps; None: the ICBM152 maps.
    maps : Path or None
        Folder for voxel maps, ``<SeriesInstanceUID>.nii.gz``; series that have a row and no map
        are measured again.

    Raises
    ------
    Misconfigured
        There is no such folder, tissue maps cannot be used, or `out` is a table with other
        columns or of other tissue maps.
    """
    how = _How(device, _priors(priors), maps)
    known = _known(out, how.priors.source)
    found = [one for one in content_of(folder).series if one.modality == "MR" or one.trouble]
    if maps:
        maps.mkdir(parents=True, exist_ok=True)
    count = Count()
    with out.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="")
        if not known and out.stat().st_size == 0:
            table.writeheader()
        for index, series in enumerate(found):
            uid = series.series_instance_uid
            if how.done(uid, known.get(uid)):
                count.known += 1
                continue
            row = _row(series, how, functools.partial(_told, progress, index, len(found)))
            count.measured += row["verdict"] == "ok"
            count.refused += row["verdict"] != "ok"
            if uid not in known:
                table.writerow(row)
                file.flush()
                os.fsync(file.fileno())
    progress(1.0, "done")
    return count


def read_map_features(maps: Path) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Read the voxel maps of a folder, for `models.voxel_score.fit_voxel_score`.

    Returns
    -------
    tuple
        SeriesInstanceUIDs, ascending, and features of each, shape (series, voxels): millilitres
        of grey matter in the voxels of `models.voxel_maps.map_grid`.

    Raises
    ------
    Misconfigured
        A file is no such map.
    """
    shape, affine, mask = map_grid()
    rows: dict[str, NDArray[np.float32]] = {}
    for path in sorted(maps.glob(f"[!.]*{MAP_END}")):
        array, place = load_nifti(path)
        if array.shape != shape or not np.allclose(place, affine, atol=1e-3):
            raise Misconfigured(f"{path} is no voxel map of scorenode features: another grid.")
        rows[path.name.removesuffix(MAP_END)] = array[mask]
    empty = np.zeros((0, int(mask.sum())), np.float32)
    return tuple(rows), np.stack(list(rows.values())) if rows else empty


def _priors(folder: Path | None) -> Priors:
    if folder is None:
        return default_priors()
    try:
        return load_priors(prior_files(folder))
    except BadPriors as error:
        raise Misconfigured(str(error)) from error


def _told(progress: Progress, index: int, count: int, part: float) -> None:
    progress((index + part) / count, f"series {index + 1} of {count}")


def _known(out: Path, source: str) -> dict[str, str]:
    """Verdicts of an earlier run; a last row that was cut off is not one of them."""
    if not out.exists():
        return {}
    data = out.read_bytes()
    if ",".join(COLUMNS).encode().startswith(data.rstrip(b"\r")):
        _cut(out, 0)  # not even the line of names was finished
        return {}
    whole = data[: data.rfind(b"\n") + 1]
    rows = csv.DictReader(io.StringIO(whole.decode("utf-8", "replace"), newline=""))
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise Misconfigured("The table to go on with has other columns; name another file.")
    found = {}
    for row in rows:
        if row["verdict"] == "ok" and row["priors"] != source:
            raise Misconfigured(
                "The table to go on with was measured with other tissue maps; name another file."
            )
        found[row["SeriesInstanceUID"]] = row["verdict"]
    _cut(out, len(whole))
    return found


def _cut(out: Path, size: int) -> None:
    with out.open("r+b") as file:
        file.truncate(size)


def _row(series: FolderSeries, how: _How, told: Callable[[float], None]) -> Mapping[str, object]:
    row: dict[str, object] = {"SeriesInstanceUID": series.series_instance_uid}
    if series.trouble:
        return _refused(row, "unreadable_instance", series.trouble)
    try:
        datasets = read_series(series.paths)
        row.update(_who(datasets[0]))
        _refuse_mixed(datasets)
        with third_party_warnings_off():
            volume = volume_from_series(datasets)
        refuse_unless_whole_head(volume)
        tissues = segment_tissues(volume, priors=how.priors, device=how.device, progress=told)
        refuse_unless_t1_head(tissues)
    except (NotScored, UnfitInput) as error:
        return _refused(row, error.reason, error.sentence)
    _keep_map(tissues, how.map_of(series.series_instance_uid))
    found = regional_volumes(tissues)
    values = {**found.totals_ml, **found.values_ml}
    numbers = {f"{name}_ml": f"{value:.3f}" for name, value in values.items()}
    return {**row, "verdict": "ok", **numbers, "priors": how.priors.source}


def _refuse_mixed(datasets: Sequence[Dataset]) -> None:
    """Refuse what images alone do not show: two patients in one series, contrast medium."""
    if len({_text(ds, "PatientID") for ds in datasets}) > 1:
        raise NotScored("mixed_patients", "The images of the series have more than one Patient ID.")
    if any(has_contrast_medium(ds) for ds in datasets):
        raise NotScored("contrast_medium", CONTRAST_MEDIUM)


def _keep_map(tissues: Tissues, path: Path | None) -> None:
    """Write the voxel map whole or not at all."""
    if path is None:
        return
    unfinished = path.with_name(f".{path.name}")
    save_nifti(grey_map(tissues), map_grid()[1], unfinished)
    unfinished.replace(path)


def _refused(row: dict[str, object], reason: str, sentence: str) -> Mapping[str, object]:
    return {**row, "verdict": "not_scored", "reason": reason, "sentence": sentence}


def _who(ds: Dataset) -> dict[str, str]:
    return {keyword: _text(ds, keyword) for keyword in WHO}


def _text(ds: Dataset, keyword: str) -> str:
    """Give a value on one line: a row that is cut off ends with the last line."""
    return re.sub(r"[\x00-\x1f\x7f]", " ", str(ds.get(keyword) or "")).strip()
