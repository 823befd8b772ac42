"""What steps leave for each other: a volume, findings, and the model that found them, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.base import (
    CasePrognosis,
    Code,
    Findings,
    ModelIdentity,
    Number,
    Reason,
    Segment,
    UsedFeature,
    Volume,
)
from pipelines.steps.nifti import load_nifti, save_nifti

VOLUME = "volume.npy"
GRID = "grid.json"
FACTS = "facts.json"
MASK = "mask.nii.gz"
LABELS = "labels.npz"
FINDINGS = "findings.json"
OVERLAPPING = "overlapping.npz"
ELEMENTS = "elements.json"


@dataclass(frozen=True, eq=False)
class Scored:
    """Findings and the model they are from."""

    findings: Findings
    identity: ModelIdentity


def save_volume(volume: Volume, folder: Path) -> None:
    """Write ``volume.npy``, ``grid.json`` and ``facts.json``."""
    np.save(folder / VOLUME, volume.array, allow_pickle=False)
    origins = volume.slice_origins
    grid = {
        "affine": volume.affine.tolist(),
        "frame_of_reference_uid": volume.frame_of_reference_uid,
        "source_instance_uids": volume.source_instance_uids,
        "source_frame_numbers": volume.source_frame_numbers,
        "slice_origins": None if origins is None else origins.tolist(),
    }
    write_json(grid, folder / GRID)
    write_json(dict(volume.facts), folder / FACTS)


def load_volume(folder: Path) -> Volume:
    """Read what `save_volume` wrote; voxels become float32, as models take them."""
    grid = json.loads((folder / GRID).read_text())
    origins = grid["slice_origins"]
    stored = np.load(folder / VOLUME, mmap_mode="r", allow_pickle=False)
    return Volume(
        array=np.array(stored, np.float32, order="K"),
        affine=np.array(grid["affine"]),
        frame_of_reference_uid=grid["frame_of_reference_uid"],
        source_instance_uids=tuple(grid["source_instance_uids"]),
        facts=json.loads((folder / FACTS).read_text()),
        source_frame_numbers=tuple(grid["source_frame_numbers"]),
        slice_origins=None if origins is None else np.array(origins),
    )


def save_findings(
    scored: Scored, volume: Volume, folder: Path, straight: Volume | None = None
) -> None:
    """Write ``findings.json``, and ``mask.nii.gz`` when the model labels voxels.

    Where the volume's slices are unequally spaced, which NIfTI cannot say, the mask lies on the
    straight grid of the image, and the labels of the slices themselves go to ``labels.npz``.

    Parameters
    ----------
    scored : Scored
        Labels lie on the slices of `volume`.
    volume : Volume
    folder : Path
    straight : Volume or None
        The grid of the image, its ``array`` the labels on it, where slices are unequally spaced.
    """
    labels = scored.findings.labels
    if labels is not None and straight is not None:
        np.savez_compressed(folder / LABELS, labels=labels)
        save_nifti(straight.array.astype(np.uint8), straight.affine, folder / MASK)
    elif labels is not None:
        save_nifti(labels, volume.affine, folder / MASK)
    if scored.findings.overlapping:
        whole = {str(number): mask for number, mask in scored.findings.overlapping.items()}
        np.savez_compressed(folder / OVERLAPPING, **whole)  # type: ignore[arg-type]
    write_json(findings_summary(scored), folder / FINDINGS)


def findings_summary(scored: Scored) -> dict[str, Any]:
    """Put findings, but for their voxels, and their model into JSON values."""
    return {
        "present": scored.findings.present,
        "numbers": [asdict(number) for number in scored.findings.numbers],
        "segments": [asdict(segment) for segment in scored.findings.segments],
        **_prognosis_summary(scored.findings.prognosis),
        "texts": list(scored.findings.texts),
        "priority": scored.findings.priority,
        "classes": dict(scored.findings.classes),
        "named_texts": dict(scored.findings.named_texts),
        "model": {**vars(scored.identity), "parameters": dict(scored.identity.parameters)},
    }


def load_findings(folder: Path) -> Scored:
    """Read what `save_findings` wrote."""
    data = json.loads((folder / FINDINGS).read_text())
    findings = Findings(
        labels=_labels(folder),
        segments=tuple(_segment(item) for item in data["segments"]),
        numbers=tuple(_number(item) for item in data["numbers"]),
        present=data["present"],
        prognosis=_prognosis(data["prognosis"]) if "prognosis" in data else None,
        overlapping=_overlapping(folder),
        texts=tuple(data.get("texts", ())),
        priority=data.get("priority"),
        classes=data.get("classes", {}),
        named_texts=data.get("named_texts", {}),
    )
    model = data["model"]
    return Scored(findings, ModelIdentity(**model | {"finding": _code(model["finding"])}))


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """Write JSON a person can read; the same value gives the same bytes."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _labels(folder: Path) -> NDArray[np.uint8] | None:
    if (folder / LABELS).exists():
        with np.load(folder / LABELS, allow_pickle=False) as stored:
            return np.asarray(stored["labels"], np.uint8)
    if not (folder / MASK).exists():
        return None
    array, _ = load_nifti(folder / MASK)
    return array.astype(np.uint8)


def _overlapping(folder: Path) -> dict[int, NDArray[np.bool_]]:
    if not (folder / OVERLAPPING).exists():
        return {}
    with np.load(folder / OVERLAPPING, allow_pickle=False) as stored:
        return {int(name): np.asarray(stored[name], bool) for name in stored.files}


def _number(item: Mapping[str, Any]) -> Number:
    code = item.get("code")
    return Number(**{**item, "code": _code(code) if code else None})


def _segment(item: Mapping[str, Any]) -> Segment:
    region = item["anatomic_region"]
    return Segment(
        number=item["number"],
        label=item["label"],
        category=_code(item["category"]),
        type=_code(item["type"]),
        anatomic_region=_code(region) if region else None,
        color=tuple(item["color"]),
        side=item.get("side"),
    )


def _code(item: list[str]) -> Code:
    scheme, value, meaning = item
    return scheme, value, meaning


def _prognosis_summary(case: CasePrognosis | None) -> dict[str, Any]:
    """Give a prognosis, with its features and volumes by name besides, for report templates."""
    return {} if case is None else {"prognosis": asdict(case)}


def _prognosis(item: Mapping[str, Any]) -> CasePrognosis:
    """Read what `asdict` made of a prognosis, after JSON."""
    low, high = item["projection_interval"]
    p_low, p_high = item["probability_interval"]
    return CasePrognosis(
        **{
            **item,
            "projection_interval": (low, high),
            "probability_interval": (p_low, p_high),
            "features": tuple(_used(one) for one in item["features"]),
            "reasons": tuple(Reason(**one) for one in item["reasons"]),
        }
    )


def _used(item: Mapping[str, Any]) -> UsedFeature:
    usual, code = item["usual"], item["code"]
    return UsedFeature(
        **{
            **item,
            "usual": (usual[0], usual[1]) if usual else None,
            "code": _code(code) if code else None,
            "regions": tuple(item["regions"]),
        }
    )
