"""Make the pictures of the dementia pipeline: the pages of two phantoms.

Run in the project's root: ``python docs/make_prognosis_pictures.py``. Phantoms of 2 mm are
segmented, scored by the demonstration model, and drawn by the code of the real page. Look at
the pictures, and at the numbers in ``dementia.md`` and ``radiologists.md``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version

from make_pictures import FOLDER, save
from PIL import Image

from models.catalogue import find_package
from models.dementia import TableScore, predict
from models.phantom_t1 import HeadShape, Scan, make_t1_head
from models.prognosis_package import load_prognosis
from sr_templates.base import Maker
from sr_templates.prognosis_page import prognosis_page

SPACING = (2.0, 2.0, 2.0)
AGE = 74.0
CASES = {
    "declining": (2, HeadShape(hippocampal_loss=0.25), {"mmse": 24.0, "adas_cog_13": 23.0}),
    "filled": (1, HeadShape(), {"mmse": 28.0}),
}
"""Seed and shape of the phantom, and the scores of a table."""


def main() -> None:
    """Write ``images/page-prognosis-<case>.png`` for every case."""
    prognosis = load_prognosis(find_package("dementia-demo", ()))
    made_by = prognosis.identity
    maker = Maker("mr-node-1", version("scorenode"), made_by, "2.25.1", datetime.now(UTC))
    for name, (seed, shape, values) in CASES.items():
        volume = make_t1_head(seed, shape=shape, scan=Scan(spacing=SPACING)).volume
        scores = {
            key: TableScore(value, "", "cognitive-scores", "2026-11-02", 26)
            for key, value in values.items()
        }
        findings = predict(prognosis, volume, scores, AGE, lambda done: None)
        save(Image.fromarray(prognosis_page(findings, volume, maker)),
             FOLDER / f"page-prognosis-{name}.png")  # fmt: skip
        print(name, findings.prognosis)


if __name__ == "__main__":
    main()
