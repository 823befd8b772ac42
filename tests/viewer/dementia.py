"""A T1-weighted head and the result of a prognosis, made by the report step's builders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.base import Findings, Number, Volume
from models.dementia import SEGMENTS
from models.phantom_scan import Scan
from models.phantom_t1 import HeadShape, T1Phantom, make_t1_head
from pipelines.phantom_series import write_mr_series
from pipelines.steps.volume import volume_from_series
from sr_templates.base import ObjectIdentity
from sr_templates.normalise import normalised
from sr_templates.prognosis_page import prognosis_capture
from sr_templates.prognosis_report import prognosis_report
from sr_templates.segmentation import segmentation
from sr_templates.text_report import text_report
from tests.sr_templates.objects import ROOT, SLOTS, identity
from tests.sr_templates.test_prognosis import CASE, MADE_BY

GREY_MATTER = 1
TO_THE_MIDDLE = 14
"""Images from the lowest that is marked to one through the middle of the brain."""
SCAN = Scan(spacing=(1.5, 1.475, 6.0), axes=(-1, -2, 3))
"""Nose up, the patient's right on the left. 124 x 160 pixels: Orthanc 1.10 gives no single frame of
a segmentation whose frames end within a byte, and OHIF waits for it for ever."""


@dataclass(frozen=True, eq=False)
class Prognosed:
    """A series, the tissues that were marked in it, and the results.

    Parameters
    ----------
    images, results : list of Dataset
    labels : NDArray[np.uint8]
        Shape (columns, rows, slices), as `models.dementia.SEGMENTS` numbers them.
    page : Dataset
        The secondary capture, one of the results.
    """

    images: list[Dataset]
    results: list[Dataset]
    labels: NDArray[np.uint8]
    page: Dataset

    @property
    def middle(self) -> list[int]:
        """Slices with at least half as much grey matter as the one with most."""
        areas = (self.labels == GREY_MATTER).sum(axis=(0, 1))
        return np.flatnonzero(areas > areas.max() / 2).tolist()

    @property
    def study_uid(self) -> str:
        return str(self.images[0].StudyInstanceUID)


def prognosed(folder: Path) -> Prognosed:
    """Make a head with small hippocampi, its series and its results."""
    head = make_t1_head(5, HeadShape(hippocampal_loss=0.4), SCAN)
    images: list[Dataset] = [dcmread(path) for path in write_mr_series(head.volume, folder, seed=5)]
    volume = volume_from_series(images)
    assert np.allclose(volume.affine, head.volume.affine, atol=1e-6)
    findings = _findings(head, volume)
    clean = normalised(images)
    seg = segmentation(findings, volume, clean, _own("seg"), MADE_BY)
    report = prognosis_report(findings, clean, seg, _own("sr"), MADE_BY)
    page = prognosis_capture(findings, volume, clean, _own("capture"), MADE_BY)
    text = text_report(report, clean, _own("text"), MADE_BY)
    assert seg is not None
    assert findings.labels is not None
    return Prognosed(images, [seg, report, page, text], findings.labels, page)


def _findings(head: T1Phantom, volume: Volume) -> Findings:
    """Say the truth: what most of a voxel is, and how much there is of it."""
    parts = np.stack([head.gm, head.wm, head.csf])
    labels = np.where(parts.max(axis=0) > 0.5, parts.argmax(axis=0) + 1, 0).astype(np.uint8)
    counts = np.bincount(labels.ravel(), minlength=len(SEGMENTS) + 1)
    numbers = tuple(
        Number("volume", float(counts[one.number]) * volume.voxel_ml, "ml", one.number)
        for one in SEGMENTS
    )
    tissues = {"gm": head.gm, "wm": head.wm, "csf": head.csf}
    measured = {name: head.millilitres(tissue) for name, tissue in tissues.items()}
    volumes = {**CASE.volumes_ml, **measured, "icv": sum(measured.values())}
    return Findings(labels, SEGMENTS, numbers, None, replace(CASE, volumes_ml=volumes))


def _own(slot: str) -> ObjectIdentity:
    """Give the identity of a result other UIDs than those of the haemorrhage in the same PACS."""
    number = SLOTS.index(slot) + 1
    return replace(
        identity(slot),
        sop_instance_uid=f"{ROOT}8{number}.1",
        series_instance_uid=f"{ROOT}8{number}",
        series_description=f"Dementia {slot} (AI)",
        entropy=("job", "43"),
    )
