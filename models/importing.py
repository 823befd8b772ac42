"""From a model of others to a package of ours, in one go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.base import BrokenPackage, Volume
from models.foreign_draft import Draft
from models.foreign_models import read_foreign
from models.foreign_orientation import laid_as
from models.importer import import_weights
from models.manifest import FIRST
from models.package import ModelPackage, dump_manifest, parse_yaml
from models.packaging import finish_package

ANATOMY = ["SCT", "91723000", "Anatomical Structure"]
ABNORMAL = ["SCT", "49755003", "Morphologically Abnormal Structure"]
KNOWN: Mapping[str, tuple[list[str], list[str]]] = {
    "spleen": (ANATOMY, ["SCT", "78961009", "Spleen"]),
    "liver": (ANATOMY, ["SCT", "10200004", "Liver"]),
    "kidney": (ANATOMY, ["SCT", "64033007", "Kidney"]),
    "pancreas": (ANATOMY, ["SCT", "15776009", "Pancreas"]),
    "lung": (ANATOMY, ["SCT", "39607008", "Lung"]),
    "heart": (ANATOMY, ["SCT", "80891009", "Heart"]),
    "brain": (ANATOMY, ["SCT", "12738006", "Brain"]),
    "prostate": (ANATOMY, ["SCT", "41216001", "Prostate"]),
    "hippocampus": (ANATOMY, ["SCT", "5366008", "Hippocampus"]),
    "hemorrhage": (ABNORMAL, ["SCT", "50960005", "Hemorrhage"]),
    "haemorrhage": (ABNORMAL, ["SCT", "50960005", "Hemorrhage"]),
}
"""Codes of structures by a word of their name."""
COLORS = (
    (230, 60, 60),
    (70, 190, 90),
    (70, 120, 240),
    (240, 190, 50),
    (180, 90, 220),
    (60, 200, 210),
    (240, 130, 60),
    (150, 150, 150),
)


@dataclass(frozen=True)
class Wishes:
    """What a person says about a model that its own files do not.

    Parameters
    ----------
    modality : str
        DICOM's word; empty: as the model's files say.
    orient : str
        Such as ``RAS``; empty: as they say.
    fold : str
        Of nnU-Net.
    codes : mapping
        Name of a structure to keys of its segment in ``model.yaml``.
    intended_use : str
    """

    modality: str = ""
    orient: str = ""
    fold: str = ""
    codes: Mapping[str, Mapping[str, Any]] | None = None
    intended_use: str = "research"


def read_codes(path: Path) -> dict[str, Mapping[str, Any]]:
    """Read a YAML of segments by name; BrokenPackage when it is none."""
    try:
        content = parse_yaml(path, path.read_bytes())
    except OSError as error:
        raise BrokenPackage(f"{path} cannot be read: {error.strerror}.") from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise BrokenPackage(f"{path} does not name structures, each with its keys.")
    return content


def import_model(
    source: Path, out: Path, wishes: Wishes, sample: Volume | None = None
) -> tuple[ModelPackage, list[str]]:
    """Make a package of a MONAI bundle or an nnU-Net v2 folder.

    Returns
    -------
    package : ModelPackage
    remarks : list of str
        What a person should look at.

    Raises
    ------
    BrokenPackage
        It cannot be read safely, or does not work here.
    """
    _refuse_full(out)
    draft = read_foreign(source, wishes.fold)
    segments, remarks = _segments(draft.labels, wishes.codes or {})
    laid, how = laid_as(draft, wishes.orient, sample)
    manifest = _manifest(replace(draft, preprocess=laid), segments, wishes)
    try:
        with _nothing_by_half(out):
            (out / "weights.safetensors").write_bytes(draft.weights)
            (out / "arch.json").write_text(json.dumps(draft.architecture, indent=1) + "\n")
            dump_manifest(out, manifest)
            return finish_package(out, sample), [*draft.remarks, *how, *remarks]
    except BrokenPackage as error:
        then = (
            f"What was read is in {out}: correct model.yaml or arch.json there and go on with "
            "scorenode models package, or remove the folder and begin anew."
        )
        raise BrokenPackage(f"{error} {then}", [*(error.mistakes or [str(error)]), then]) from error


def import_file(source: Path, out: Path) -> list[str]:
    """Convert one file of weights to ``weights.safetensors``; names of its tensors."""
    from safetensors.torch import load  # numpy has no bfloat16

    _refuse_full(out)
    data = import_weights(source).safetensors
    with _nothing_by_half(out):
        (out / "weights.safetensors").write_bytes(data)
    return sorted(load(data))


def _refuse_full(out: Path) -> None:
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise BrokenPackage(f"{out} is there already and not empty.")


@contextmanager
def _nothing_by_half(out: Path) -> Iterator[None]:
    """Make the folder, and take it away when it cannot be filled: half weights look whole."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except OSError:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _manifest(draft: Draft, segments: list[dict[str, Any]], wishes: Wishes) -> dict[str, Any]:
    modality = wishes.modality or draft.modality
    if not modality:
        raise BrokenPackage("The model does not say its modality: --modality CT, for one.")
    several = len(draft.channels) > 1
    inputs = {name: {"modality": modality} for name in draft.channels}
    return {
        "schema": "scorenode-model/1",
        "family": draft.name,
        "version": draft.version,
        "title": draft.title,
        "intended_use": wishes.intended_use,
        "licence": draft.licence,
        "source": draft.source,
        "finding": segments[0]["type"],
        "files": {"weights": "weights.safetensors", "config": "arch.json"},
        "runtime": {
            "kind": "torch-safetensors",
            "architecture": "network",
            "activation": draft.activation,
        },
        **({"inputs": inputs} if several else {"input": inputs.get(FIRST, {"modality": modality})}),
        "preprocess": draft.preprocess,
        "inference": draft.inference,
        "segments": segments,
        "postprocess": {"decide": "argmax"},
        "test_vector": {"atol": 0.005},
    }


def _segments(
    labels: Mapping[int, str], codes: Mapping[str, Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Coded segments; what has no code of its own gets that of an anatomical structure."""
    made, general = [], []
    for number, name in labels.items():
        category, kind, known = _code_of(name)
        given = dict(codes.get(name, {}))
        if not known and "type" not in given:
            general.append(name)
        made.append(
            {
                "number": number,
                "label": name[:64],
                "category": category,
                "type": kind,
                "color": list(COLORS[(number - 1) % len(COLORS)]),
                **_side_of(name),
                **given,
            }
        )
    return made, _remarks(general, codes, labels)


def _remarks(
    general: Sequence[str], codes: Mapping[str, Any], labels: Mapping[int, str]
) -> list[str]:
    found = []
    if general:
        found.append(
            f"segments: {', '.join(general)} have the general code Anatomical Structure; give "
            "their own with --codes, or in model.yaml"
        )
    strange = sorted(codes.keys() - set(labels.values()))
    if strange:
        found.append(f"codes: the model has no structure {', '.join(strange)}")
    return found


def _code_of(name: str) -> tuple[list[str], list[str], bool]:
    for word, (category, kind) in KNOWN.items():
        if word in name.lower():
            return category, kind, True
    return ANATOMY, ANATOMY, False


def _side_of(name: str) -> dict[str, str]:
    words = name.lower().replace("_", " ").replace("-", " ").split()
    return next(({"side": side} for side in ("left", "right") if side in words), {})
