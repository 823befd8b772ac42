"""A folder of DICOM series and SEG objects, written as labelled volumes that can be trained on."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.base import Volume
from models.labelled_cases import BadData
from pipelines.base import NotScored, Progress
from pipelines.folders import FolderSeries, content_of
from pipelines.steps.nifti import save_nifti
from pipelines.steps.read import third_party_warnings_off
from pipelines.steps.series import open_whole_series
from pipelines.steps.volume import volume_from_series

SEG = "SEG"


def has_segmentations(folder: Path) -> bool:
    """Whether a folder holds SEG objects, to any depth."""
    return folder.is_dir() and any(one.modality == SEG for one in content_of(folder).series)


def write_labelled(folder: Path, out: Path, names: Sequence[str], progress: Progress) -> None:
    """Write every series that a SEG refers to, and its label map, in nnU-Net's layout.

    Patient IDs become numbers that only tell patients apart.

    Parameters
    ----------
    folder : Path
        Searched to any depth.
    out : Path
        ``imagesTr labelsTr dataset.json cases.csv`` come into it.
    names : sequence of str
        Label of each structure of the recipe: the Segment Label of the SEG objects, upper and
        lower case alike. Where both have one structure only, the name does not matter.
    progress : callable

    Raises
    ------
    BadData
        A SEG cannot be used; everything that is wrong is told.
    """
    series = {one.series_instance_uid: one for one in content_of(folder).series}
    mistakes: list[str] = []
    labelled = _referred(series, mistakes)
    for place in ("imagesTr", "labelsTr"):
        (out / place).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (uid, segmentations) in enumerate(sorted(labelled.items())):
        progress(number / len(labelled), "reading series")
        case = f"series_{number:04d}"
        try:
            patient = _write_case(out, case, series[uid], segmentations, names)
        except (NotScored, ValueError, RuntimeError, KeyError) as error:
            mistakes.append(f"series {uid}: {error}")
            continue
        rows.append((case, patient, ""))
    if mistakes or not rows:
        raise BadData(folder, mistakes or ["no SEG refers to a series that is there"])
    labels = {"background": 0, **{name: number for number, name in enumerate(names, start=1)}}
    content = {"channel_names": {"0": "image"}, "labels": labels, "file_ending": ".nii"}
    (out / "dataset.json").write_text(json.dumps(content, indent=1) + "\n")
    with (out / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "patient", "kind"), *rows])


def _referred(series: Mapping[str, FolderSeries], mistakes: list[str]) -> dict[str, list[Path]]:
    """Series Instance UID of what is labelled, to the SEG objects that do so."""
    found: dict[str, list[Path]] = defaultdict(list)
    for one in series.values():
        for path in one.paths if one.modality == SEG else ():
            ds = dcmread(path, specific_tags=["ReferencedSeriesSequence", "SOPInstanceUID"])
            name = ds.get("SOPInstanceUID") or path.name
            uids = [str(item.SeriesInstanceUID) for item in ds.get("ReferencedSeriesSequence", [])]
            if len(uids) != 1:
                mistakes.append(f"SEG {name} refers to {len(uids)} series, wanted one")
            elif uids[0] not in series:
                mistakes.append(f"SEG {name} refers to a series that is not there")
            else:
                found[uids[0]].append(path)
    return found


def _write_case(
    out: Path, case: str, series: FolderSeries, segmentations: Sequence[Path], names: Sequence[str]
) -> str:
    """Write image and label map; return what tells the patient apart."""
    with third_party_warnings_off():
        instances = open_whole_series(series.paths)
        volume = volume_from_series(instances)
        labels = np.zeros(volume.array.shape, np.uint8)
        for path in sorted(segmentations):
            _put(labels, path, volume, names)
    save_nifti(volume.array, volume.affine, out / "imagesTr" / f"{case}_0000.nii")
    save_nifti(labels, volume.affine, out / "labelsTr" / f"{case}.nii")
    patient = str(instances[0].header.get("PatientID") or series.series_instance_uid)
    return hashlib.sha256(patient.encode()).hexdigest()[:16]


def _put(labels: NDArray[np.uint8], path: Path, volume: Volume, names: Sequence[str]) -> None:
    """Mark what a SEG marks, slice by slice as it refers to them."""
    described, found = _read(path, volume)
    if found.shape != (*labels.shape[::-1], len(described)):
        raise ValueError(f"the frames of {path.name} have another size than the images")
    for number, description in enumerate(described):
        value = _number_of(description, len(described), names)
        mask = found[..., number].transpose(2, 1, 0) > 0.5
        if (labels[mask] > 0).any():
            raise ValueError(f"segment {number + 1} of {path.name} overlaps another")
        labels[mask] = value


def _read(path: Path, volume: Volume) -> tuple[Sequence[Dataset], NDArray[Any]]:
    """Segments, and what each marks, (slices, rows, columns, segments)."""
    from highdicom.seg import segread

    try:
        seg = segread(path)
        found = seg.get_pixels_by_source_instance(
            list(volume.source_instance_uids),
            ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
            combine_segments=False,
            rescale_fractional=True,
        )
        return list(seg.SegmentSequence), np.asarray(found)
    except Exception as error:
        raise ValueError(
            f"{path.name} is no whole SEG, or does not say of which images its frames are "
            f"({type(error).__name__})"
        ) from error


def _number_of(description: Dataset, count: int, names: Sequence[str]) -> int:
    label = str(description.get("SegmentLabel", "")).strip().lower()
    known = [name.strip().lower() for name in names]
    if label in known:
        return known.index(label) + 1
    if count == len(names) == 1:
        return 1
    number = description.get("SegmentNumber")
    raise ValueError(
        f"the Segment Label of segment {number} is none of the recipe: {', '.join(names)}"
    )
