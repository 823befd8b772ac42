"""A folder of DICOM files to NIfTI and JSON: every volume, and every image that is in none."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from models.base import Volume
from pipelines.base import NotScored, Progress
from pipelines.folders import FolderSeries, content_of
from pipelines.steps.artefacts import write_json
from pipelines.steps.instances import Instance
from pipelines.steps.nifti import save_straightened, write_nifti
from pipelines.steps.run import verdict_of
from pipelines.steps.series import open_series, whole_datasets
from pipelines.steps.split import REPETITION, Stack, Unused, unused_frames
from pipelines.steps.straighten import is_straight
from pipelines.steps.volume import plan_of, refusal_of, volume_of_stack

IN_TIME = frozenset(
    {
        REPETITION,
        "TemporalPositionIdentifier",
        "TemporalPositionIndex",
        "TriggerTime",
        "NominalCardiacTriggerDelayTime",
        "DiffusionBValue",
        "DiffusionGradientOrientation",
        "AcquisitionNumber",
        "FrameAcquisitionNumber",
    }
)
"""Volumes on one grid that differ in these alone are points of one fourth axis."""
SAME_GRID_MM = 1e-3
MAX_SECONDS = 600.0
"""For a series whose pixels other people's decoders read."""


@dataclass(frozen=True)
class Options:
    """How a folder is converted.

    Parameters
    ----------
    with_dicom2nifti : bool
        Keep dicom2nifti's file where it equals ours.
    compressed : bool
        ``.nii.gz`` rather than ``.nii``.
    deflated : bool
        Inflate deflated data sets, whose size is not known before.
    """

    with_dicom2nifti: bool = True
    compressed: bool = True
    deflated: bool = False


@dataclass
class SeriesConversion:
    """What became of one series.

    Parameters
    ----------
    series_instance_uid, modality : str
    instances : int
        Files of the series.
    images : int
        Images in them; a file that holds none counts as one.
    images_used : int
    volumes : list of dict
        File names, converter, type of the voxels, facts, affine, and the source of each slice.
    unused : list of Unused
        Images in no volume, and why; with `images_used` they make up `images`.
    reason, sentence : str
        Why there is no volume, where there is none.
    """

    series_instance_uid: str
    modality: str
    instances: int
    images: int = 0
    images_used: int = 0
    volumes: list[dict[str, Any]] = field(default_factory=list)
    unused: list[Unused] = field(default_factory=list)
    reason: str = ""
    sentence: str = ""


def convert_folder(
    folder: Path, out: Path, progress: Progress, options: Options = Options()
) -> list[SeriesConversion]:
    """Convert every series of a folder.

    Series ``n`` of modality ``CT`` becomes ``n-CT.nii.gz`` and ``n-CT.json``; where it holds
    several volumes, ``n-CT-1.nii.gz``, ``n-CT-2.nii.gz``. A tilted volume is written with its
    exact, sheared affine, and once more on a straight grid as ``..._straight.nii.gz``; one of
    unequally spaced slices, which NIfTI cannot say, only so.

    Parameters
    ----------
    folder : Path
        Searched to any depth.
    out : Path
        Made when it is not there.
    progress : callable
    options : Options

    Returns
    -------
    list of SeriesConversion
        In the order of Series Number. Nothing that is wrong with a series is raised.

    Raises
    ------
    Misconfigured
        There is no such folder.
    """
    series = content_of(folder).series
    out.mkdir(parents=True, exist_ok=True)
    done = []
    with _Apart() as apart:
        for number, item in enumerate(series, start=1):
            progress((number - 1) / len(series), f"series {number} of {len(series)}")
            name = f"{number}-{item.modality or 'none'}"
            is_plain = item.trouble or all(path in item.heads for path in item.paths)
            convert = _converted if is_plain else apart.converted
            conversion = convert(item, out, name, options)
            write_json(asdict(conversion), out / f"{name}.json")
            done.append(conversion)
    progress(1.0, "done")
    return done


class _Apart:
    """A process apart for pixels that other people's decoders read: some end it when damaged."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._own: set[BaseProcess] = set()

    def __enter__(self) -> _Apart:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def converted(
        self, series: FolderSeries, out: Path, name: str, options: Options
    ) -> SeriesConversion:
        """Convert a series in the process, which is started when it is first needed."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        others = set(multiprocessing.active_children()) - self._own
        job = self._pool.submit(_converted, series, out, name, options)
        self._own = set(multiprocessing.active_children()) - others
        try:
            return job.result(timeout=MAX_SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            for process in self._own:
                process.kill()
            self._pool, self._own = None, set()
            found = _started(series)
            found.images = found.instances
            found.reason = "decoder_crashed"
            what = "crashed" if isinstance(error, BrokenProcessPool) else "did not end"
            found.sentence = f"A decoder {what} at the compressed pixels of the series."
            found.unused = [Unused("", None, found.reason, found.sentence)] * found.instances
            for path in out.glob(f"{name}[-._]*"):
                path.unlink()
            return found


def _started(series: FolderSeries) -> SeriesConversion:
    return SeriesConversion(series.series_instance_uid, series.modality, len(series.paths))


def _converted(series: FolderSeries, out: Path, name: str, options: Options) -> SeriesConversion:
    found = _started(series)
    if series.trouble:
        found.images = found.instances
        found.reason, found.sentence = "unreadable_instance", series.trouble
        found.unused = [Unused("", None, found.reason, found.sentence)] * found.instances
        return found
    try:
        _convert(series, out, name, options, found)
    except Exception as error:  # noqa: BLE001 - one series never ends the others
        verdict = verdict_of(error, "convert")
        found.images = found.images or found.instances
        lost = found.images - found.images_used - len(found.unused)
        found.unused += [Unused("", None, verdict.reason, verdict.sentence)] * lost
        if not found.volumes:
            found.reason, found.sentence = verdict.reason, verdict.sentence
    return found


def _convert(
    series: FolderSeries, out: Path, name: str, options: Options, found: SeriesConversion
) -> None:
    instances, found.unused = open_series(series.paths, series.heads, deflated=options.deflated)
    plan = plan_of(instances)
    found.images = plan.frames + len(found.unused)
    found.unused += plan.unused
    batches = _batches(plan.stacks)
    for number, batch in enumerate(batches, start=1):
        own = name if len(batches) == 1 else f"{name}-{number}"
        volumes, made = [], []
        for stack in batch:
            try:
                volumes.append(volume_of_stack(stack, instances))
                made.append(stack)
            except NotScored as error:
                found.unused += unused_frames(stack, error)
        if not volumes:
            continue
        sources = [instances[k] for k in sorted({f.instance for s in made for f in s.frames})]
        try:
            found.volumes.append(_written(volumes, sources, out, own, options))
            found.images_used += sum(volume.array.shape[2] for volume in volumes)
        except NotScored as error:
            for stack in made:
                found.unused += unused_frames(stack, error)
    if not found.volumes:
        refusal = refusal_of(found.unused)
        found.reason, found.sentence = refusal.reason, refusal.sentence


def _batches(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Put together what is one volume in time."""
    batches: list[list[Stack]] = []
    for stack in stacks:
        near = (batch for batch in batches if _is_next(batch[0], stack))
        batch = next(near, None)
        if batch is None:
            batches.append([stack])
        else:
            batch.append(stack)
    return batches


def _is_next(first: Stack, other: Stack) -> bool:
    apart = {
        keyword
        for keyword in first.names.keys() | other.names.keys()
        if first.names.get(keyword) != other.names.get(keyword)
    }
    one, two = first.frames[0], other.frames[0]
    return bool(
        apart
        and apart <= IN_TIME
        and (one.rows, one.columns, len(first.frames)) == (two.rows, two.columns, len(other.frames))
        and first.grid.origins is None
        and other.grid.origins is None
        and np.abs(first.grid.affine - other.grid.affine).max() <= SAME_GRID_MM
    )


def _written(
    volumes: Sequence[Volume],
    sources: Sequence[Instance],
    out: Path,
    name: str,
    options: Options,
) -> dict[str, Any]:
    """Write a volume; describe it, and the files."""
    first, suffix = volumes[0], ".nii.gz" if options.compressed else ".nii"
    even = first.slice_origins is None
    path = out / f"{name}{'' if even else '_straight'}{suffix}"
    datasets = (lambda: whole_datasets(sources)) if options.with_dicom2nifti else None
    files, converter = [path.name], write_nifti(volumes, datasets, path)
    no_straight_copy = ""
    if even and not is_straight(first):
        path = out / f"{name}_straight{suffix}"
        try:
            save_straightened(volumes, path)
            files.append(path.name)
        except NotScored as error:
            no_straight_copy = error.sentence
    return {
        "files": files,
        "converter": converter,
        "voxel_type": str(first.array.dtype),
        "no_straight_copy": no_straight_copy,
        "facts": [dict(volume.facts) for volume in volumes],
        "affine_ras_mm": first.affine.tolist(),
        "slice_origins_ras_mm": None if even else first.origins.tolist(),
        "slices": [
            [
                {"sop_instance_uid": uid, "frame": frame}
                for uid, frame in zip(
                    volume.source_instance_uids, volume.source_frame_numbers, strict=True
                )
            ]
            for volume in volumes
        ],
    }
