"""Make the pictures of the handbooks: phantoms, scored by the model that comes with scorenode.

Run in the project's root: ``python docs/make_pictures.py``. The page is drawn by the code that
draws it for the PACS. Look at the pictures, and at the numbers in ``radiologists.md``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from models.catalogue import find_package
from models.loading import load_predictor
from models.package import load_package
from models.phantom_ct import make_head_ct
from sr_templates.base import Maker
from sr_templates.capture import page
from sr_templates.notice import Notice
from sr_templates.notice_page import notice_page

FOLDER = Path(__file__).parent / "images"
CASES = {"found": (7, "iph"), "not-found": (11, "none")}
"""Seed and kind of the phantom."""
NOT_SCORED = Notice(
    "not_scored",
    "missing_slices",
    "1 image missing from the stack: no image at z = -32.5 mm (steps 5.00 to 10.00 mm).",
)
WIDTH = 800
MOST_BYTES = 200_000


def main() -> None:
    """Write ``images/page-<case>.png`` for every case."""
    package = load_package(find_package("haemorrhage-demo", ()))
    predictor = load_predictor(package, "cpu")
    maker = Maker("ct-node-1", version("scorenode"), package.identity, "2.25.1", datetime.now(UTC))
    for name, (seed, kind) in CASES.items():
        volume = make_head_ct(seed, kind).volume
        findings = predictor.predict(volume, lambda done: None)
        numbers = {k: k + 1 for k in range(volume.array.shape[2])}
        pixels = page(findings, volume, maker, instance_numbers=numbers)
        save(Image.fromarray(pixels), FOLDER / f"page-{name}.png")
    save(Image.fromarray(notice_page(NOT_SCORED, maker)), FOLDER / "page-not-scored.png")


def save(image: Image.Image, path: Path) -> None:
    """Write a smaller PNG of few colours, light enough for a repository."""
    size = (WIDTH, round(image.height * WIDTH / image.width))
    smaller = image.resize(size, Image.Resampling.LANCZOS)
    smaller.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3).save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, more than {MOST_BYTES}")


if __name__ == "__main__":
    main()
