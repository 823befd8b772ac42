"""Make the pictures of the handbooks: phantoms drawn by the page that goes to the PACS.

Run in the project's root: ``python docs/make_pictures.py``. The findings are the model's where
its package is there, else the phantom's own truth.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from models.base import BrokenPackage, Findings, ModelIdentity, Number, Segment
from models.catalogue import find_package
from models.package import ModelPackage, load_package
from models.phantom_ct import HeadPhantom, make_head_ct
from sr_templates.base import Maker
from sr_templates.capture import page

FOLDER = Path(__file__).parent / "images"
CASES = {"found": (7, "iph"), "not-found": (11, "none")}
MOST_BYTES = 200_000
BLOOD = Segment(
    1,
    "Intracranial haemorrhage",
    ("SCT", "49755003", "Morphologically Abnormal Structure"),
    ("SCT", "50960005", "Hemorrhage"),
    ("SCT", "12738006", "Brain"),
    (255, 0, 0),
)
IDENTITY = ModelIdentity(
    family="haemorrhage-demo",
    version="0.1.0",
    title="Haemorrhage on head CT (demonstration)",
    intended_use="demonstration",
    sha256="0" * 64,
    weights_sha256="0" * 64,
    finding=("SCT", "1386000", "Intracranial hemorrhage"),
)


def main() -> None:
    """Write ``images/page-<case>.png`` for every case."""
    package = _package()
    identity = IDENTITY if package is None else package.identity
    maker = Maker("ct-node-1", version("scorenode"), identity, "2.25.1", datetime.now(UTC))
    for name, (seed, kind) in CASES.items():
        phantom = make_head_ct(seed, kind)
        findings = _truth(phantom) if package is None else _scored(package, phantom)
        numbers = {k: k + 1 for k in range(phantom.volume.array.shape[2])}
        pixels = page(findings, phantom.volume, maker, instance_numbers=numbers)
        _save(Image.fromarray(pixels), FOLDER / f"page-{name}.png")


def _package() -> ModelPackage | None:
    try:
        return load_package(find_package("haemorrhage-demo", ()))
    except BrokenPackage:
        return None


def _scored(package: ModelPackage, phantom: HeadPhantom) -> Findings:
    return package.predictor("cpu").predict(phantom.volume, lambda done: None)


def _truth(phantom: HeadPhantom) -> Findings:
    present = phantom.kind != "none"
    numbers = [Number("probability", float(present), "1")]
    numbers += [Number("volume", phantom.volume_ml, "ml", segment) for segment in (None, 1)]
    labels = (phantom.labels > 0).astype("uint8")
    return Findings(labels, (BLOOD,), tuple(numbers), present)


def _save(image: Image.Image, path: Path) -> None:
    """Write a smaller PNG of few colours, light enough for a repository."""
    width = 800
    smaller = image.resize(
        (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
    )
    smaller.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3).save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, more than {MOST_BYTES}")


if __name__ == "__main__":
    main()
