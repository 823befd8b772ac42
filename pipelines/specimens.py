"""Results made of small phantoms under many circumstances, to see what their attributes follow."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

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
from pipelines.base import SLOTS, SOP_CLASSES, EarlierResult, JobSpec, SeriesLabel
from pipelines.phantom_series import write_mr_series
from pipelines.steps.artefacts import Scored
from pipelines.steps.identity import maker_of, object_identity
from pipelines.steps.results import build_results
from pipelines.steps.volume import volume_from_series
from sr_templates.normalise import SERIES, TYPE_2, TYPE_3, normalised
from sr_templates.notice import Notice, status_report
from sr_templates.notice_page import notice_capture
from sr_templates.part10 import to_bytes
from sr_templates.rejection import maker_of_result, rejection_note

Origin = Literal["COPIED", "GENERATED", "MODEL", "CONFIGURATION", "FIXED"]
"""Where a value comes from."""
Made = dict[str, Dataset]
"""Objects by slot."""
REJECTION = "rejection note"
_MODEL = ModelIdentity(
    "model", "1.0", "A model", "research", "a" * 64, "b" * 64,
    ("SCT", "1386000", "Intracranial hemorrhage"), {"threshold": "0.5"},
)  # fmt: skip
_OTHER_MODEL = ModelIdentity(
    "another", "2.0", "Another model", "clinical", "c" * 64, "d" * 64,
    ("SCT", "49755003", "Morphologically Abnormal Structure"), {"limit": "0.1"},
)  # fmt: skip


def _labels(first: int, word: str) -> dict[str, SeriesLabel]:
    return {slot: SeriesLabel(first + n, word + slot) for n, slot in enumerate(SLOTS)}


@dataclass(frozen=True)
class Circumstances:
    """All that a result depends on.

    Parameters
    ----------
    kind : str
        Of model; or a notice that there is no result.
    images : str
        Another letter: other images, of another patient.
    missing : frozenset of str
        Keywords that the images lack, of those that a result takes over where they are there.
    found : int
        How many of two structures are marked.
    model : ModelIdentity
    key, at, station, uid_root, labels
        As in `JobSpec`.
    earlier : bool
        Whether the result replaces another.
    """

    kind: Literal["segmentation", "prognosis", "notice"] = "segmentation"
    images: str = "A"
    missing: frozenset[str] = frozenset()
    found: int = 2
    model: ModelIdentity = _MODEL
    key: str = "a job"
    at: datetime = datetime(2026, 3, 1, 12, 34, 56, 789, tzinfo=UTC)
    station: str = "node-01"
    uid_root: str = "1.2.826.0.1.3680043.8.498."
    labels: Mapping[str, SeriesLabel] = field(default_factory=lambda: _labels(9001, ""))
    earlier: bool = False


BASE = Circumstances()
ACQUIRED = frozenset({"AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime"})
LATER = BASE.at + timedelta(days=40, seconds=7)
VARIED: Mapping[str, tuple[Circumstances, Origin]] = {
    "images": (replace(BASE, images="B"), "COPIED"),
    "findings": (replace(BASE, found=1), "GENERATED"),
    "job": (replace(BASE, key="another", at=LATER, earlier=True), "GENERATED"),
    "model": (replace(BASE, model=_OTHER_MODEL), "MODEL"),
    "node.station": (replace(BASE, station="node-02"), "CONFIGURATION"),
    "node.uid_root": (replace(BASE, uid_root="1.2.840.113619."), "CONFIGURATION"),
    "deliver[].series": (replace(BASE, labels=_labels(801, "other ")), "CONFIGURATION"),
}
"""What is varied, one at a time, and where a value comes from that follows it."""
FURTHER = (
    replace(BASE, missing=frozenset((*TYPE_2, *TYPE_3, *SERIES))),
    replace(BASE, found=0),
    replace(BASE, kind="prognosis", missing=ACQUIRED),
    replace(BASE, kind="notice"),
)
"""Circumstances that only tell what is not always there."""


def objects(there: Circumstances) -> Made:
    """Every kind of result under some circumstances; none that has nothing to say."""
    sources, volume = images_of(there.images, there.missing)
    spec = JobSpec(
        job_id=1,
        pipeline="any",
        inputs=(),
        model="",
        idem_key=there.key,
        uid_root=there.uid_root,
        station=there.station,
        frozen_at=there.at,
        labels=there.labels,
        earlier=_earlier() if there.earlier else (),
    )
    if there.kind == "notice":
        made = _notices(spec, sources, there.model)
    else:
        findings = _findings(volume, there.found, there.model)
        if there.kind == "prognosis":
            findings = replace(findings, prognosis=_PROGNOSIS, present=None)
        made = build_results(spec, Scored(findings, there.model), volume, sources)
    maker = maker_of_result(made["sr"], there.at)
    own = object_identity(spec, "sr", there.model)
    made[REJECTION] = rejection_note(list(made.values()), "A reason.", own, maker)
    return {slot: dcmread(BytesIO(to_bytes(ds))) for slot, ds in made.items()}


def _notices(spec: JobSpec, sources: Sequence[Dataset], model: ModelIdentity) -> Made:
    """Make what tells a reader that there is no result."""
    said = Notice("not_scored", "a_reason", "A sentence.", "An advice.")
    maker = maker_of(spec, model)
    return {
        "sr": status_report(said, sources, object_identity(spec, "sr", model), maker),
        "capture": notice_capture(said, sources, object_identity(spec, "capture", model), maker),
    }


def images_of(letter: str, missing: Collection[str] = ()) -> tuple[list[Dataset], Volume]:
    """Clean headers of a small series, and its volume; other values for another letter."""
    number = ord(letter) - ord("A")
    shape = (40 + 4 * number, 36 + 2 * number, 4)
    x, y, z = np.indices(shape)
    array = np.asarray(300 + 20 * number + (x - y + z), np.float32)
    step, angle = 2.0 + number, np.deg2rad(10 * number)
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-step, -step, step + 1])
    affine[:3, 3] = 30 + number, 40, -20
    with tempfile.TemporaryDirectory() as folder:
        given = write_mr_series(Volume(array, affine), Path(folder), seed=number)
        datasets = [dcmread(path) for path in given]
    for ds in datasets:
        if letter != "A":
            ds.SOPClassUID = CTImageStorage
            ds.RescaleIntercept, ds.RescaleSlope = 0, 1
        for keyword in (*TYPE_2, *TYPE_3, *SERIES):
            _set(ds, keyword, "" if keyword in missing else letter)
    return normalised(datasets), volume_from_series(datasets)


def _set(ds: Dataset, keyword: str, letter: str) -> None:
    """Give an attribute a value that no other letter has; without a letter, take it away."""
    if keyword in _TERMS and letter:
        setattr(ds, keyword, _TERMS[keyword][letter])
        return
    values = {
        "PN": f"Patient^{letter}", "DA": f"2025010{ord(letter or 'A') - 60}",
        "TM": f"10000{ord(letter or 'A') - 64}", "DT": f"2025010{ord(letter or 'A') - 60}",
        "AS": f"0{ord(letter or 'A')}Y", "DS": str(ord(letter or "A")),
        "LO": f"{keyword[-12:]} {letter}", "SH": f"{keyword[-8:]} {letter}",
    }  # fmt: skip
    vr = dictionary_VR(keyword)
    if not letter and keyword not in _NEEDED:
        ds.pop(keyword, None)
    elif vr in values and letter:
        setattr(ds, keyword, values[vr])


_NEEDED = frozenset({"Modality", "InstanceNumber", "ImageType", "FrameOfReferenceUID"})
"""Without these no image is scored, or no segmentation made."""


def _code(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", f"Meaning {value}"
    return [item]


_TERMS: Mapping[str, Mapping[str, object]] = {
    "PatientSex": {"A": "M", "B": "F"},
    "PatientIdentityRemoved": {"A": "YES", "B": "NO"},
    "BodyPartExamined": {"A": "HEAD", "B": "BRAIN"},
    "TimezoneOffsetFromUTC": {"A": "+0100", "B": "+0200"},
    "DeidentificationMethodCodeSequence": {"A": _code("113100"), "B": _code("113105")},
}


def _findings(volume: Volume, found: int, model: ModelIdentity) -> Findings:
    """As many of two ellipsoids as are to be found."""
    category, kind, region = _CODES[model.family]
    color = len(kind[2])
    segments = (
        Segment(1, f"{kind[2]} 1", category, kind, region, (color, 1, 0)),
        Segment(2, f"{kind[2]} 2", category, kind, None, (color, 2, 0), "left"),
    )
    labels = np.zeros(volume.array.shape, np.uint8)
    column, row, slice_ = np.indices(labels.shape)
    for segment, middle in zip(segments[:found], ((12, 14, 1), (26, 20, 2)), strict=False):
        away = (column - middle[0]) ** 2 + (row - middle[1]) ** 2 + 8 * (slice_ - middle[2]) ** 2
        labels[away < (0, 5, 14)[found]] = segment.number
    counts = [int((labels == segment.number).sum()) for segment in segments]
    numbers = [
        Number("volume", count * volume.voxel_ml, "ml", segment.number)
        for count, segment in zip(counts, segments, strict=True)
    ]
    numbers += [Number("volume", sum(counts) * volume.voxel_ml, "ml"), _PROBABILITY]
    return Findings(labels, segments, tuple(numbers), found > 0)


_CODES: Mapping[str, tuple[Code, Code, Code]] = {
    "model": (
        ("SCT", "49755003", "Morphologically Abnormal Structure"),
        ("SCT", "50960005", "Hemorrhage"),
        ("SCT", "12738006", "Brain"),
    ),
    "another": (
        ("SCT", "85756007", "Tissue"),
        ("SCT", "389081007", "Gray Matter"),
        ("SCT", "69536005", "Head"),
    ),
}
_PROGNOSIS = CasePrognosis(
    projection=0.7,
    projection_interval=(0.6, 0.8),
    probability=0.8,
    probability_interval=(0.7, 0.9),
    outcome="declining",
    stable="stable",
    declining="declining",
    threshold=0.5,
    features=(
        UsedFeature("score", "Score", "{score}", 25.0, 0.3, 28.0, 26.0, source="a-table"),
        UsedFeature("filled", "Filled", "{score}", 25.0, 0.4, 28.0, 26.0, source="imputed"),
    ),
    reasons=(Reason("imputed", "A value was filled."),),
    age_years=70.0,
    volumes_ml={"gm": 600.0, "wm": 500.0, "csf": 300.0, "icv": 1400.0},
)
_PROBABILITY = Number("probability", 0.9, "1")


def _earlier() -> tuple[EarlierResult, ...]:
    return tuple(
        EarlierResult(slot, f"1.2.3.{n}", SOP_CLASSES[slot], f"1.2.3.{n}.1", "2026-01-01")
        for n, slot in enumerate(SLOTS, start=1)
    )
