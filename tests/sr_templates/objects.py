"""Findings on the phantom, and who is said to have made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Code, Findings, IntendedUse, ModelIdentity, Number, Segment, Volume
from sr_templates.base import Maker, ObjectIdentity
from sr_templates.normalise import normalised
from sr_templates.part10 import to_bytes
from sr_templates.report import measurement_report
from sr_templates.segmentation import SegmentationType, segmentation
from tests.phantoms import Shape, ball, ct_series, ct_volume

ROOT = "1.2.826.0.1.3680043.8.498."
HEMORRHAGE: Code = ("SCT", "50960005", "Hemorrhage")
ABNORMAL: Code = ("SCT", "49755003", "Morphologically Abnormal Structure")
BRAIN: Code = ("SCT", "12738006", "Brain")
SEGMENTS = tuple(
    Segment(number, f"{kind} haemorrhage", ABNORMAL, HEMORRHAGE, BRAIN, color)
    for number, (kind, color) in enumerate(
        {
            "Intraparenchymal": (255, 0, 0),
            "Intraventricular": (255, 200, 0),
            "Subdural": (0, 255, 255),
        }.items(),
        start=1,
    )
)
MODEL = ModelIdentity(
    family="haemorrhage-demo",
    version="0.1.0",
    title="Haemorrhage on head CT (demonstration)",
    intended_use="demonstration",
    sha256="a1" * 32,
    weights_sha256="b2" * 32,
    finding=("SCT", "1386000", "Intracranial hemorrhage"),
    parameters={"threshold": "0.5"},
)
MAKER = Maker(
    station="node-01",
    software_version="0.1.0",
    model=MODEL,
    device_uid=f"{ROOT}77",
    at=datetime(2026, 3, 1, 23, 30, 15, tzinfo=UTC),
)


PHANTOM = Shape()
SLOTS = ("seg", "sr", "capture", "sr3d", "outlines", "text", "pdf", "rtstruct", "rejection")


@dataclass(frozen=True, eq=False)
class Case:
    """A series, what was found in it, and the objects made of that."""

    sources: list[Dataset]
    clean: list[Dataset]
    volume: Volume
    findings: Findings
    seg: Dataset | None
    sr: Dataset

    @property
    def segmentation(self) -> Dataset:
        """Return the segmentation, where there must be one."""
        assert self.seg is not None
        return self.seg


def identity(slot: str) -> ObjectIdentity:
    """Return the identity of one kind of result of one job."""
    number = SLOTS.index(slot) + 1
    return ObjectIdentity(
        sop_instance_uid=f"{ROOT}9{number}.1",
        series_instance_uid=f"{ROOT}9{number}",
        series_number=9000 + number,
        series_description=f"Haemorrhage {slot} (AI)",
        uid_root=ROOT,
        entropy=("job", "42"),
    )


def maker(intended_use: IntendedUse) -> Maker:
    """Return a maker whose model has another intended use."""
    return replace(MAKER, model=replace(MODEL, intended_use=intended_use))


def bleeds(shape: Shape) -> NDArray[np.uint8]:
    """Two lesions that lie in no symmetric place: numbers 1 and 3, none of number 2."""
    labels = np.zeros((shape.columns, shape.rows, shape.slices), np.uint8)
    labels[ball(shape, (30.0, 10.0, 12.0), (14.0, 18.0, 20.0))] = 1
    labels[ball(shape, (-52.0, 4.0, -6.0), (7.0, 30.0, 25.0))] = 3
    return labels


def findings_of(labels: NDArray[np.uint8], volume: Volume) -> Findings:
    """Return what a model would say of these labels."""
    found = bool(labels.any())
    counts = {s.number: int(np.count_nonzero(labels == s.number)) for s in SEGMENTS}
    volumes = [Number("volume", n * volume.voxel_ml, "ml", s) for s, n in counts.items()]
    total = Number("volume", sum(counts.values()) * volume.voxel_ml, "ml")
    probability = Number("probability", 0.97123 if found else 0.02, "1")
    return Findings(labels, SEGMENTS, (*volumes, total, probability), found)


def case(
    shape: Shape = PHANTOM,
    labels: NDArray[np.uint8] | None = None,
    sources: Sequence[Dataset] | None = None,
    comments: Sequence[str] = (),
    kind: SegmentationType = "BINARY",
) -> Case:
    """Make a series, findings and both objects."""
    given = list(sources) if sources is not None else ct_series(shape)
    volume = ct_volume(given, shape)
    findings = findings_of(bleeds(shape) if labels is None else labels, volume)
    clean = normalised(given)
    seg = segmentation(findings, volume, clean, identity("seg"), MAKER, kind)
    sr = measurement_report(findings, clean, seg, identity("sr"), MAKER, comments)
    return Case(given, clean, volume, findings, seg, sr)


def save(ds: Dataset, path: Path) -> Path:
    """Write an object to a file."""
    path.write_bytes(to_bytes(ds))
    return path
