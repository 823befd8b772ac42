"""Pictures of results in a viewer, for radiologists.md: python -m docs.make_viewer_pictures."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from models.phantom_ct import make_head_ct
from pipelines.base import SLOTS, SeriesLabel
from pipelines.offline import score_folder
from pipelines.phantom_series import write_ct_series
from tests.end_to_end.pacs import orthanc
from tests.viewer.ohif import site, viewer
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


def main() -> None:
    """Score, send to Orthanc, look with OHIF."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = scored(folder)
        (folder / "sent").mkdir()
        with orthanc(folder / "orthanc", dicom_web=True) as pacs:
            push(pacs, objects, folder / "sent")
            with site(pacs.http_port) as address, viewer(address) as shown:
                shown.open(str(objects[0].StudyInstanceUID))
                shown.show(SEG)
                shown.say_yes()
                for number, picture in ((0, "seg"), (CAPTURE, "page"), (TEXT, "text")):
                    if number:
                        shown.show(number)
                    shown.page.wait_for_timeout(SETTLE_MS)
                    shown.page.screenshot(path=IMAGES / f"viewer-{picture}.png")


if __name__ == "__main__":
    main()
