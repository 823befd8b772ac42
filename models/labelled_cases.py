"""Labelled volumes in folders as people keep them: find them, and tell what is wrong with them.

Layouts: nnU-Net and Decathlon (``imagesTr labelsTr dataset.json``), plain ``images labels`` (BHSD),
CT-ICH of PhysioNet (``ct_scans masks *.csv``). A ``cases.csv`` with the columns ``case``,
``patient`` and ``kind`` may lie beside any of them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from models.base import Volume
from models.case_tables import ct_ich_rows, read_csv

ENDINGS = (".nii.gz", ".nii")
IMAGE_FOLDERS = ("imagesTr", "images", "image", "ct_scans")
LABEL_FOLDERS = ("labelsTr", "labels", "label", "masks", "ground truths", "ground_truths")
MOST_MISTAKES = 30
MOST_OFF_MM = 0.05
"""Corners of a label map may lie this far from those of its image."""
VOXEL_MM = (0.01, 100.0)
"""Sides of voxels beyond these are a mistake of the header."""


class BadData(ValueError):
    """Raised when a folder of labelled volumes cannot be trained on.

    Parameters
    ----------
    mistakes : sequence of str
        Each names a file and what is wrong with it.
    """

    def __init__(self, folder: Path, mistakes: Sequence[str]) -> None:
        told = list(mistakes[:MOST_MISTAKES])
        if len(mistakes) > len(told):
            told.append(f"and {len(mistakes) - len(told)} more")
        super().__init__("\n".join([f"{folder} cannot be used:", *(f"- {one}" for one in told)]))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True)
class LabelledCase:
    """One volume and its label map.

    Parameters
    ----------
    name : str
        Of the image file, without ending and channel number.
    patient : str
        Cases of one patient are never split between training and test.
    kind : str
        Kinds are drawn equally often and spread over the folds; empty: there are none.
    image, label : Path
    """

    name: str
    patient: str
    kind: str
    image: Path
    label: Path


@dataclass(frozen=True)
class LabelledData:
    """A folder of cases.

    Parameters
    ----------
    folder : Path
    cases : tuple of LabelledCase
        In the order of their names.
    values : mapping of int to int
        From a value of a label map to a class, where they differ from 0, 1, 2 and so on.
    """

    folder: Path
    cases: tuple[LabelledCase, ...]
    values: Mapping[int, int]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, patients, kinds and the bytes of every file."""
        digest = hashlib.sha256()
        for case in self.cases:
            digest.update(json.dumps([case.name, case.patient, case.kind]).encode())
            for path in (case.image, case.label):
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def find_cases(folder: Path, classes: int) -> LabelledData:
    """Find every case of a folder, and look at all of them before anything is done.

    Parameters
    ----------
    folder : Path
    classes : int
        Background and the structures of the recipe.

    Raises
    ------
    BadData
        Something is missing or does not fit; everything is told at once.
    """
    if not folder.is_dir():
        raise BadData(folder, ["there is no such folder"])
    images = _folder(folder, IMAGE_FOLDERS, "images")
    labels = _folder(folder, LABEL_FOLDERS, "label maps")
    mistakes: list[str] = []
    cases = list(_pairs(images, labels, mistakes))
    cases = _described(folder, cases, mistakes)
    values = _values(folder, classes, labels.name == "masks", mistakes)
    for case in cases:
        mistakes.extend(_wrong_with(case, values, classes))
    mistakes.extend(_same_twice(cases))
    if not cases and not mistakes:
        mistakes.append(f"{images.name} holds no .nii or .nii.gz file")
    if mistakes:
        raise BadData(folder, mistakes)
    return LabelledData(folder, tuple(sorted(cases, key=lambda case: case.name)), values)


def read_case(case: LabelledCase, values: Mapping[int, int]) -> tuple[Volume, NDArray[np.uint8]]:
    """Read a case.

    Returns
    -------
    volume : Volume
    labels : NDArray[np.uint8]
        On its grid; 0 is background, 1 the first structure.
    """
    image = nib.Nifti1Image.from_filename(case.image)
    label = nib.Nifti1Image.from_filename(case.label)
    array = _three_axes(np.asarray(image.dataobj, np.float32))
    found = _three_axes(np.asarray(label.dataobj))
    labels = np.zeros(found.shape, np.uint8)
    for value, number in values.items():
        labels[found == value] = number
    facts: dict[str, str | float | int | bool] = {"plane": "any"}
    return Volume(array, np.asarray(image.affine, np.float64), facts=facts), labels


def _folder(folder: Path, names: Sequence[str], what: str) -> Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise BadData(folder, [f"there is no folder of {what}; looked for: {', '.join(names)}"])


def _stem(path: Path) -> str | None:
    for ending in ENDINGS:
        if path.name.lower().endswith(ending) and not path.name.startswith("."):
            return _composed(path.name[: -len(ending)])
    return None


def _composed(name: str) -> str:
    """Name with letters in one piece; macOS writes the dots of an umlaut apart."""
    return unicodedata.normalize("NFC", name)


def _files(folder: Path, mistakes: list[str]) -> Iterator[tuple[str, Path]]:
    """Name each file that can be an image, without its ending."""
    for path in sorted(folder.iterdir()):
        stem = _stem(path)
        if stem is None:
            continue
        if path.is_file():
            yield stem, path
        else:
            mistakes.append(f"{folder.name}/{path.name} is no file, or a link to none")


def _pairs(images: Path, labels: Path, mistakes: list[str]) -> Iterator[LabelledCase]:
    named: dict[str, Path] = {}
    for stem, path in _files(labels, mistakes):
        other = named.setdefault(stem, path)
        if other is not path:
            mistakes.append(f"{labels.name} holds {stem} twice: {other.name} and {path.name}")
    used: set[str] = set()
    for stem, path in _files(images, mistakes):
        name, channel = _channel(stem, named)
        if channel not in (None, 0):
            mistakes.append(f"{images.name}/{path.name} is channel {channel}; one channel is read")
        elif name not in named:
            mistakes.append(f"{images.name}/{path.name} has no label map in {labels.name}")
        elif name in used:
            mistakes.append(f"{images.name} holds {name} twice: {path.name} is the second")
        else:
            used.add(name)
            yield LabelledCase(name, name, "", path, named[name])
    mistakes.extend(
        f"{labels.name}/{named[name].name} has no image in {images.name}"
        for name in sorted(named.keys() - used)
    )


def _channel(stem: str, labels: Mapping[str, Path]) -> tuple[str, int | None]:
    """Name of a case and its channel; nnU-Net writes CASE_0000."""
    found = re.fullmatch(r"(.+)_(\d{4})", stem)
    if found is None or stem in labels:
        return stem, None
    return found[1], int(found[2])


def _described(
    folder: Path, cases: Sequence[LabelledCase], mistakes: list[str]
) -> list[LabelledCase]:
    """Add patients and kinds from ``cases.csv``, or kinds from the table of CT-ICH."""
    own = folder / "cases.csv"
    table = read_csv(own, mistakes) if own.exists() else []
    if table and not {"case", "patient"} <= table[0].keys():
        mistakes.append("cases.csv needs the columns case and patient")
        return list(cases)
    rows = {_composed(row["case"]): row for row in table} or ct_ich_rows(folder, mistakes)
    if table:
        count = Counter(_composed(row["case"]) for row in table)
        twice = sorted(name for name, times in count.items() if times > 1)
        mistakes.extend(f"cases.csv has several rows for {name}" for name in twice)
        missing = (case.name for case in cases if case.name not in rows)
        mistakes.extend(f"cases.csv has no row for {name}" for name in missing)
    return [
        replace(case, patient=row.get("patient") or case.name, kind=row.get("kind") or "")
        if (row := rows.get(case.name))
        else case
        for case in cases
    ]


def _values(folder: Path, classes: int, is_mask: bool, mistakes: list[str]) -> Mapping[int, int]:
    """Which value of a label map is which class."""
    plain = {number: number for number in range(1, classes)}
    path = folder / "dataset.json"
    if not path.exists():
        return {1: 1, 255: 1} if is_mask and classes == 2 else plain
    try:
        content: Any = json.loads(path.read_text())
        labels = content["labels"]
        odd = [*_not_read(labels)]
        if odd:
            mistakes.extend(odd)
            return plain
        found = sorted(_number_of(key, value) for key, value in labels.items())
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        mistakes.append(f"dataset.json cannot be read ({type(error).__name__})")
        return plain
    wanted = list(range(len(found)))
    if found != wanted:
        mistakes.append(f"dataset.json has labels {found}, wanted {wanted}: regions are not read")
    elif len(found) != classes:
        mistakes.append(
            f"dataset.json has {len(found) - 1} structures, the recipe has {classes - 1}"
        )
    return plain


def _not_read(labels: Mapping[str, Any]) -> Iterator[str]:
    """Tell of labels of nnU-Net that are more than a number."""
    regions = [name for name, value in labels.items() if isinstance(value, list)]
    if regions:
        yield f"dataset.json has regions, which are not read: {', '.join(regions[:5])}"
    if "ignore" in labels:
        yield "dataset.json has the label ignore, which is not read"


def _number_of(key: str, value: Any) -> int:
    """Decathlon writes ``"1": "name"``, nnU-Net v2 ``"name": 1``."""
    return int(key) if isinstance(value, str) and key.isdigit() else int(value)


def _wrong_with(case: LabelledCase, values: Mapping[int, int], classes: int) -> Iterator[str]:
    try:
        image, label = (
            nib.Nifti1Image.from_filename(case.image),
            nib.Nifti1Image.from_filename(case.label),
        )
        strange = [what for what in (image, label) if what.get_data_dtype().kind not in "biuf"]
        if strange:
            yield f"{case.name}: voxels are {strange[0].get_data_dtype()}, wanted plain numbers"
            return
        array = np.asarray(image.dataobj, np.float32)
        labels = np.asarray(label.dataobj)
        _check_sums(case)
    except Exception as error:  # noqa: BLE001 - nibabel raises many kinds on broken files
        yield f"{case.name}: image or label map is no whole NIfTI file ({type(error).__name__})"
        return
    if array.ndim != 3 and not (array.ndim == 4 and array.shape[3] == 1):
        yield f"{case.name}: the image has {array.ndim} axes, wanted 3"
        return
    if labels.shape[:3] != array.shape[:3] or _three_axes(labels).ndim != 3:
        yield f"{case.name}: the label map is {_size(labels)}, the image {_size(array)}"
        return
    yield from _wrong_in(case, array, labels, values, classes)
    yield from _wrong_place(case, image.affine, label.affine, array.shape[:3])


def _check_sums(case: LabelledCase) -> None:
    """Read compressed files to their end, where their check sum is; nibabel stops before."""
    for path in (case.image, case.label):
        if path.name.lower().endswith(".gz"):
            with gzip.open(path) as file:
                while file.read(1 << 20):
                    pass


def _wrong_in(
    case: LabelledCase,
    array: NDArray[Any],
    labels: NDArray[Any],
    values: Mapping[int, int],
    classes: int,
) -> Iterator[str]:
    if not np.isfinite(array).all():
        yield f"{case.name}: the image holds voxels that are no numbers"
    elif array.min() == array.max():
        yield f"{case.name}: all voxels of the image are the same"
    strange = sorted(set(np.unique(labels).tolist()) - {0, *values})
    if strange:
        told = ", ".join(f"{value:g}" for value in strange[:5])
        yield f"{case.name}: the label map holds {told}; wanted 0 to {classes - 1}"


def _wrong_place(case: LabelledCase, one: Any, other: Any, shape: Sequence[int]) -> Iterator[str]:
    """Tell of a grid that is none, or of two that are not the same."""
    for what, affine in (("image", one), ("label map", other)):
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        if not _is_grid(affine, sides):
            told = " x ".join(f"{side:.3g}" for side in sides)
            yield f"{case.name}: the {what} has no sensible place in space (voxels of {told} mm)"
            return
    off = _corners_apart(one, other, shape)
    if off > MOST_OFF_MM:
        yield f"{case.name}: the label map lies up to {off:.1f} mm away from the image"


def _is_grid(affine: Any, sides: NDArray[np.float64]) -> bool:
    if not np.isfinite(affine).all() or sides.min() < VOXEL_MM[0] or sides.max() > VOXEL_MM[1]:
        return False
    return bool(abs(np.linalg.det(affine[:3, :3])) > 1e-3 * np.prod(sides))


def _corners_apart(one: Any, other: Any, shape: Sequence[int]) -> float:
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    apart = nib.affines.apply_affine(one, corners) - nib.affines.apply_affine(other, corners)
    return float(np.abs(apart).max())


def _same_twice(cases: Sequence[LabelledCase]) -> Iterator[str]:
    """Tell of an image that two patients have: it could be in training and in test."""
    seen: dict[bytes, LabelledCase] = {}
    for case in cases:
        with case.image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        other = seen.setdefault(digest, case)
        if other is not case and other.patient != case.patient:
            yield f"{case.name} and {other.name} are the same image; give them one patient"


def _size(array: NDArray[Any]) -> str:
    return " x ".join(map(str, array.shape))


def _three_axes(array: NDArray[Any]) -> NDArray[Any]:
    return array[..., 0] if array.ndim == 4 else array
