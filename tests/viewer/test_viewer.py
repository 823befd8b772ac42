"""What a radiologist sees: results in OHIF, by the pixels and the words on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.scu import Destination, OutgoingObject, send
from sr_templates.capture import capture
from sr_templates.outlines import outline_report
from sr_templates.part10 import to_bytes
from sr_templates.text_report import text_report
from tests.end_to_end.pacs import Orthanc, orthanc
from tests.phantoms import Shape, ct_series
from tests.sr_templates.objects import MAKER, Case, case, identity
from tests.viewer.ohif import Viewer, installed, site, viewer

pytestmark = pytest.mark.slow
SHAPES = {
    "square": Shape(columns=160, rows=144, slices=8, spacing=(1.25, 1.25, 6.0)),
    "not square": Shape(columns=160, rows=120, slices=8, spacing=(1.25, 1.5, 6.0)),
}
LESION = (100, 45, 22)
"""Column, row and radius in columns of a lesion that goes through all slices."""


@dataclass(frozen=True)
class Shown:
    """A study in the PACS, and the viewer."""

    made: Case
    shape: Shape
    viewer: Viewer

    @property
    def study_uid(self) -> str:
        return str(self.made.sources[0].StudyInstanceUID)


def lesion(shape: Shape) -> NDArray[np.uint8]:
    """A cylinder that is round in the patient, of segment 1, and a small one of segment 3."""
    columns, rows, _ = np.indices((shape.columns, shape.rows, shape.slices))
    column, row, radius = LESION
    ratio = shape.spacing[1] / shape.spacing[0]
    labels = np.zeros(columns.shape, np.uint8)
    labels[np.hypot(columns - column, (rows - row) * ratio) <= radius] = 1
    labels[np.hypot(columns - 45, (rows - 80) * ratio) <= 6] = 3
    return labels


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    installed()
    with orthanc(tmp_path_factory.mktemp("viewer") / "orthanc", dicom_web=True) as found:
        yield found


@pytest.fixture(scope="module")
def browser(pacs: Orthanc) -> Iterator[Viewer]:
    with site(pacs.http_port) as address, viewer(address) as found:
        yield found


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def shown(
    request: pytest.FixtureRequest,
    pacs: Orthanc,
    browser: Viewer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shown:
    shape: Shape = request.param
    series = ct_series(shape, seed=str(shape.spacing))
    made = case(shape, lesion(shape), series)
    _push(pacs, [*series, *_results(made)], tmp_path_factory.mktemp("objects"))
    return Shown(made, shape, browser)


def _results(made: Case) -> list[Dataset]:
    outlines = outline_report(made.findings, made.seg, made.clean, identity("outlines"), MAKER)
    assert outlines is not None
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    text = text_report(made.sr, made.clean, identity("text"), MAKER)
    return [made.segmentation, made.sr, outlines, page, text]


def _push(pacs: Orthanc, objects: list[Dataset], folder: Path) -> None:
    files = []
    for number, ds in enumerate(objects):
        path = folder / f"{number}.dcm"
        path.write_bytes(to_bytes(ds))
        files.append(
            OutgoingObject(str(ds.SOPClassUID), str(ds.SOPInstanceUID), "1.2.840.10008.1.2.1", path)
        )
    outcomes = send(Destination("127.0.0.1", pacs.port, "PACS", "TESTS"), files)
    assert {outcome.kind for outcome in outcomes} == {"sent"}


def test_everything(shown: Shown) -> None:
    shown.viewer.open(shown.study_uid)
