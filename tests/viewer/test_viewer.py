"""What a radiologist sees: results in OHIF, by the pixels and the words on the screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from node.scu import Destination, OutgoingObject, send
from sr_templates.capture import VERDICT, capture
from sr_templates.outlines import outline_report
from sr_templates.part10 import to_bytes
from sr_templates.sheet import TOP
from sr_templates.text_report import text_report
from tests.end_to_end.harness import until
from tests.end_to_end.pacs import Orthanc, orthanc
from tests.phantoms import Shape, ct_series
from tests.sr_templates.objects import MAKER, Case, case, identity
from tests.viewer.dementia import GREY_MATTER, SCAN, TO_THE_MIDDLE, Prognosed, prognosed
from tests.viewer.ohif import Viewer, installed, site, viewer

pytestmark = pytest.mark.slow
SHAPES = {
    "square": Shape(columns=160, rows=144, slices=8, spacing=(1.25, 1.25, 6.0)),
    "not square": Shape(columns=160, rows=120, slices=8, spacing=(1.25, 1.5, 6.0)),
}
RIM = 70
"""Pixels at the edges of the image where the viewer has its own signs."""
LEAST_DICE = 0.8
"""Of what is drawn with what was marked: the viewer smooths edges, and has its own signs on it."""
LESION = (100, 45, 22)
"""Column, row and radius in columns of a lesion that goes through all slices."""


@dataclass(frozen=True)
class Shown:
    """A study in the PACS, and the viewer."""

    made: Case
    page: Dataset
    has_outlines: bool
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


@pytest.fixture(scope="module", params=list(SHAPES.values()), ids=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> Shape:
    found: Shape = request.param
    return found


@pytest.fixture(scope="module")
def pacs(shape: Shape, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Each study has a PACS of its own: results have the same UIDs in both."""
    installed()
    with orthanc(tmp_path_factory.mktemp("viewer") / "orthanc", dicom_web=True) as found:
        yield found


@pytest.fixture(scope="module")
def browser(pacs: Orthanc) -> Iterator[Viewer]:
    with site(pacs.http_port) as address, viewer(address) as found:
        yield found


@pytest.fixture(scope="module")
def shown(
    shape: Shape,
    pacs: Orthanc,
    browser: Viewer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shown:
    series = ct_series(shape, seed=str(shape.spacing))
    made = case(shape, lesion(shape), series)
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    text = text_report(made.sr, made.clean, identity("text"), MAKER)
    outlines = outline_report(made.findings, made.seg, made.clean, identity("outlines"), MAKER)
    results = [made.segmentation, made.sr, page, text, *([outlines] if outlines else [])]
    push(pacs, [*series, *results], tmp_path_factory.mktemp("objects"))
    return Shown(made, page, outlines is not None, shape, browser)


def push(pacs: Orthanc, objects: list[Dataset], folder: Path) -> None:
    """Send objects to Orthanc, as the node sends results."""
    files = []
    for number, ds in enumerate(objects):
        path = folder / f"{number}.dcm"
        path.write_bytes(to_bytes(ds))
        files.append(
            OutgoingObject(str(ds.SOPClassUID), str(ds.SOPInstanceUID), "1.2.840.10008.1.2.1", path)
        )
    outcomes = send(Destination("127.0.0.1", pacs.port, "PACS", "TESTS"), files)
    assert {outcome.kind for outcome in outcomes} == {"sent"}


def colored(
    viewer: Viewer, strong: int, weak: tuple[int, ...], least: int = 60
) -> NDArray[np.bool_]:
    """Where one channel (or two) stands out in the image on the screen, shape of the screen."""
    picture = viewer.picture()
    left, top, width, height = viewer.canvas()
    found = np.ones(picture.shape[:2], bool)
    for channel in weak:
        found &= picture[..., strong] - picture[..., channel] > least
    inside = np.zeros_like(found)
    inside[top + RIM : top + height - RIM, left + RIM : left + width - RIM] = True
    return found & inside


def on_screen(shown: Shown, number: int) -> tuple[float, float, float]:
    """Column, row and size that a segment must have on the screen: the image fills its canvas."""
    shape = shown.shape
    left, top, width, height = shown.viewer.canvas()
    per_mm = min(
        width / (shape.columns * shape.spacing[0]), height / (shape.rows * shape.spacing[1])
    )
    columns, rows = np.nonzero(lesion(shape)[:, :, 0] == number)
    right = (columns.mean() - (shape.columns - 1) / 2) * shape.spacing[0] * per_mm
    down = (rows.mean() - (shape.rows - 1) / 2) * shape.spacing[1] * per_mm
    size = len(columns) * shape.spacing[0] * shape.spacing[1] * per_mm**2
    return left + width / 2 + right, top + height / 2 + down, size


def check_overlay(shown: Shown) -> None:
    """Both segments are drawn in their colours, where they lie, as large as they are."""
    red, cyan = (0, (1, 2)), (1, (0,))
    for number, (strong, weak) in ((1, red), (3, cyan)):
        column, row, size = on_screen(shown, number)

        def drawn(strong: int = strong, weak: tuple[int, ...] = weak, size: float = size) -> bool:
            return int(colored(shown.viewer, strong, weak).sum()) > 0.9 * size

        until(drawn, f"segment {number} to be drawn", 60)
        rows, columns = np.nonzero(colored(shown.viewer, strong, weak))
        assert abs(columns.mean() - column) < 4
        assert abs(rows.mean() - row) < 4
        assert len(rows) == pytest.approx(size, rel=0.12)


def check_page(viewer: Viewer, page: Dataset) -> None:
    """The verdict and the caution can be read: nothing of the viewer lies over them."""
    height, width = int(page.Rows), int(page.Columns)
    pixels = np.frombuffer(page.PixelData, np.uint8)[: height * width * 3]
    image = Image.fromarray(pixels.reshape(height, width, 3))
    left, top, room, tall = viewer.canvas()
    scale = min(room / width, tall / height)
    size = round(width * scale), round(height * scale)
    wanted = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).astype(np.int16)
    corner = left + (room - size[0]) // 2, top + (tall - size[1]) // 2
    band = slice(round(TOP * scale), round((TOP + VERDICT + 52) * scale))

    def legible() -> bool:
        seen = viewer.picture()[corner[1] :, corner[0] : corner[0] + size[0]]
        return float(np.abs(seen[band] - wanted[band]).mean()) < 12.0

    until(legible, "the verdict to be on the screen as it is on the page", 60)


def test_what_a_reader_sees(shown: Shown) -> None:
    shown.viewer.open(shown.study_uid)
    shown.viewer.show(9001)
    shown.viewer.say_yes()

    check_overlay(shown)

    shown.viewer.show(9006)
    shown.viewer.wait_for_text("Intraparenchymal haemorrhage. Volume: ")
    words = " ".join(shown.viewer.page.inner_text("body").split())
    volume = float((lesion(shown.shape) == 1).sum() * np.prod(shown.shape.spacing) / 1000.0)
    [said] = re.findall(r"Intraparenchymal haemorrhage\. Volume: ([0-9.]+) ml", words)
    assert float(said) == pytest.approx(volume, abs=0.02)
    assert "Presence of property: Present" in words
    assert "NOT FOR CLINICAL USE" in words

    shown.viewer.show(9003)
    check_page(shown.viewer, shown.page)

    if shown.has_outlines:
        shown.viewer.show(9005)
        shown.viewer.wait_for_text(f"Volume: {said}")


def grey_matter_on_screen(viewer: Viewer, made: Prognosed) -> float:
    """Dice of what is drawn in the colour of grey matter with the middle slice it fits best."""
    drawn = colored(viewer, 0, (1, 2), 25)
    left, top, width, height = viewer.canvas()
    field = np.array(made.labels.shape[:2]) * SCAN.spacing[:2]
    scale = min(width / field[0], height / field[1])
    size = round(field[0] * scale), round(field[1] * scale)
    corner = left + (width - size[0]) // 2, top + (height - size[1]) // 2
    best = 0.0
    for k in made.middle:
        mask = Image.fromarray((made.labels[:, :, k].T == GREY_MATTER).astype(np.uint8) * 255)
        wanted = np.zeros_like(drawn)
        wanted[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]] = (
            np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 0
        )
        best = max(best, 2.0 * float((drawn & wanted).sum()) / max(1, drawn.sum() + wanted.sum()))
    return best


@pytest.mark.parametrize("shape", [SHAPES["square"]], ids=["square"], indirect=True)
def test_what_a_reader_sees_of_a_prognosis(pacs: Orthanc, browser: Viewer, tmp_path: Path) -> None:
    made = prognosed(tmp_path / "series")
    push(pacs, [*made.images, *made.results], tmp_path)
    browser.open(made.study_uid)
    browser.show(9001)
    browser.say_yes()
    until(lambda: bool(colored(browser, 0, (1, 2), 25).any()), "the segmentation to be drawn", 60)
    browser.scroll(TO_THE_MIDDLE)

    until(
        lambda: grey_matter_on_screen(browser, made) > LEAST_DICE,
        "grey matter to be drawn where it lies",
        60,
    )

    browser.show(9006)
    browser.wait_for_text("GMLVQ class: Progressive")
    words = " ".join(browser.page.inner_text("body").split())
    for said in (
        "GMLVQ scalar projection: 0.72",
        "Probability: 0.81",
        "Total score [MMSE]: 25.0",
        "0 is the prototype of stable MCI, 1 that of progressive MCI",
        "NOT FOR CLINICAL USE",
    ):
        assert said in words

    browser.show(9003)
    check_page(browser, made.page)
