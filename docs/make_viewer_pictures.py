"""Pictures of results in a viewer: python -m docs.make_viewer_pictures [haemorrhage] [dementia]."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from models.phantom_ct import make_head_ct
from pipelines.base import SLOTS, SeriesLabel
from pipelines.offline import score_folder
from pipelines.phantom_series import write_ct_series
from tests.end_to_end.pacs import Orthanc, orthanc
from tests.viewer.dementia import TO_THE_MIDDLE, prognosed
from tests.viewer.ohif import Viewer, site, viewer
from tests.viewer.test_viewer import push

IMAGES = Path(__file__).parent / "images"
MODEL = Path(__file__).parents[1] / "models" / "packages" / "haemorrhage-demo"
LABELS = {slot: SeriesLabel(9101 + n, f"AI ICH {slot}") for n, slot in enumerate(SLOTS)}
SEG, CAPTURE, TEXT = (LABELS[slot].number for slot in ("seg", "capture", "text"))
SETTLE_MS = 8000


def scored(folder: Path) -> list[Dataset]:
    """Score a phantom with a bleed; its images and all that is made of them."""
    phantom = make_head_ct(seed=7, kind="iph")
    write_ct_series(phantom, folder / "study", seed=7)
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    score_folder(
        folder / "study",
        "haemorrhage",
        MODEL,
        folder / "out",
        lambda fraction, note: None,
        at=moment,
        labels=LABELS,
    )
    paths = [*(folder / "study").rglob("*.dcm"), *(folder / "out").rglob("*.dcm")]
    return [dcmread(path) for path in sorted(paths)]


def haemorrhage(folder: Path, pacs: Orthanc, shown: Viewer) -> None:
    """Score, send to Orthanc, look with OHIF."""
    objects = scored(folder)
    push(pacs, objects, folder)
    look(shown, objects[0], "viewer", {SEG: "seg", CAPTURE: "page", TEXT: "text"})


def dementia(folder: Path, pacs: Orthanc, shown: Viewer) -> None:
    """Show a prognosis; its slices through the middle of the brain."""
    made = prognosed(folder / "t1")
    push(pacs, [*made.images, *made.results], folder)
    pictures = {9001: "seg", 9003: "page", 9006: "text"}
    look(shown, made.images[0], "viewer-prognosis", pictures, TO_THE_MIDDLE)


def look(
    shown: Viewer, image: Dataset, name: str, pictures: Mapping[int, str], images: int = 0
) -> None:
    """Open a study, and keep a picture of each of some series; the first is a segmentation."""
    shown.open(str(image.StudyInstanceUID))
    first = True
    for number, word in pictures.items():
        shown.show(number)
        if first:
            shown.say_yes()
            shown.page.wait_for_timeout(SETTLE_MS)
            shown.scroll(images)
        shown.page.wait_for_timeout(SETTLE_MS)
        shown.page.screenshot(path=IMAGES / f"{name}-{word}.png")
        first = False


STUDIES = {"haemorrhage": haemorrhage, "dementia": dementia}


def main(wanted: Sequence[str]) -> None:
    """Make the pictures of some studies, or of all."""
    with (
        tempfile.TemporaryDirectory() as name,
        orthanc(Path(name) / "orthanc", dicom_web=True) as pacs,
        site(pacs.http_port) as address,
        viewer(address) as shown,
    ):
        for study in wanted or STUDIES:
            folder = Path(name) / study
            folder.mkdir()
            STUDIES[study](folder, pacs, shown)


if __name__ == "__main__":
    main(sys.argv[1:])
