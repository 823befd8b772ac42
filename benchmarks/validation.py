"""Which defects we find, and which public validators find.

``python -m benchmarks.validation [--markdown FILE] [--others FOLDER]`` plants defects in good
results, one at a time, and asks our checker and whatever of dciodvfy, dcentvfy and dcmqi's readers
is installed. What a program says of the good object too is left out.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydicom import config
from pydicom.dataset import Dataset

from benchmarks.planted import FURTHER, MATRIX, Defect, planted
from benchmarks.validation_page import Row, page
from node.validation import Judged, validate
from sr_templates.part10 import to_bytes
from tests.noise import complaints
from tests.phantoms import ct_series
from tests.sr_templates.further import SQUARE
from tests.sr_templates.objects import PHANTOM
from tests.sr_templates.samples import Sample, samples

PAGE = Path(__file__).with_name("validation.md")
OTHERS = Path(__file__).resolve().parents[2] / "shared/data/seg_and_sr_by_others"
SEGMENTATIONS = frozenset({"seg", "labelmap"})
READ_BY_DCMQI = SEGMENTATIONS | {"sr", "sr3d", "outlines"}
Said = frozenset[str]


@dataclass(frozen=True)
class Validator:
    """A program, and how to ask it: a result among the images and other results."""

    name: str
    ask: Callable[[Path, Sequence[Path]], Said]


def _run(command: Sequence[str | Path]) -> tuple[int, str]:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        check=False,
        timeout=120,
        encoding="latin-1",
    )
    return done.returncode, done.stdout + done.stderr


def _dciodvfy(path: Path, _: Sequence[Path]) -> Said:
    return frozenset(complaints("dciodvfy", _run(["dciodvfy", "-new", path])[1]))


def _dcentvfy(path: Path, images: Sequence[Path]) -> Said:
    text = _run(["dcentvfy", *images, path])[1]
    return frozenset(line.replace(str(path), "FILE") for line in complaints("dcentvfy", text))


def _dcmqi(path: Path, _: Sequence[Path]) -> Said:
    """Whether dcmqi's reader of the kind gives what it should give."""
    with tempfile.TemporaryDirectory() as folder:
        if _kind(path) in SEGMENTATIONS:
            code = _run([*_SEG_READER, "--inputDICOM", path, "--outputDirectory", folder])[0]
            good = code == 0 and any(Path(folder).glob("*.n*"))
        else:
            out = Path(folder, "sr.json")
            code = _run([*_SR_READER, "--inputDICOM", path, "--outputMetadata", out])[0]
            good = code == 0 and out.exists()
    return frozenset() if good else frozenset({"Error: not read"})


def _beside_python(name: str) -> list[str]:
    return [str(Path(sys.executable).with_name(name))]


_SEG_READER = [*_beside_python("segimage2itkimage"), "--mergeSegments", "--outputType", "nii"]
_SR_READER = _beside_python("tid1500reader")


def validators() -> list[Validator]:
    """Public validators that are installed."""
    found = [
        Validator(name, ask)
        for name, ask in (("dciodvfy", _dciodvfy), ("dcentvfy", _dcentvfy))
        if shutil.which(name)
    ]
    if Path(_SEG_READER[0]).exists() and Path(_SR_READER[0]).exists():
        found.append(Validator("dcmqi", _dcmqi))
    return found


def _kind(path: Path) -> str:
    """Return the kind of object in a file of ours: its name begins with it."""
    return path.stem.partition("_")[0]


def matrix(folder: Path) -> tuple[list[Row], list[Judged]]:
    """Plant every defect; ours sees it only when it gives the reason that fits.

    Returns
    -------
    tuple
        One row for each defect, and what we say of the good objects.
    """
    good = {one.name: one for one in samples()}
    kept = {name: _keep(one, folder / name.replace(" ", "-")) for name, one in good.items()}
    kinds = {defect.kind for defect in (*MATRIX, *FURTHER)}
    said = {kind: _ask(kept[kind].path, kept[kind].images) for kind in kinds}
    rows = []
    for number, defect in enumerate((*MATRIX, *FURTHER)):
        beside = kept[defect.kind]
        with config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = beside.path.with_name(f"{defect.kind}_{number:02d}.dcm")
            planted(defect, {defect.kind: good[defect.kind].ds}).save_as(path)
        seen = {"ours": _ours(defect, path, beside)}
        for name, lines in _ask(path, beside.images).items():
            seen[name] = _word(lines - said[defect.kind][name])
        rows.append(Row(defect, seen))
    return rows, [_judged(one.path, one, strict=False) for one in kept.values()]


@dataclass(frozen=True)
class Kept:
    """Files of a good object, of its images, and of the segmentation it refers to."""

    path: Path
    images: Sequence[Path]
    others: Sequence[Path]


def _keep(one: Sample, folder: Path) -> Kept:
    folder.mkdir()
    images = [_save(ds, folder / "images" / f"{n:03d}.dcm") for n, ds in enumerate(_received(one))]
    others = [] if one.seg is None else [_save(one.seg, folder / "referred.dcm")]
    return Kept(_save(one.ds, folder / f"{folder.name}.dcm"), images, others)


def _received(one: Sample) -> Sequence[Dataset]:
    """Return the images as they came, in Latin-1, where they are the phantom's."""
    if one.name.startswith("prognosis"):
        return one.images
    return ct_series(SQUARE if one.name == "outlines" else PHANTOM)


def _ask(path: Path, images: Sequence[Path]) -> dict[str, Said]:
    """Ask the public validators; dcmqi reads segmentations and measurement reports."""
    return {
        validator.name: validator.ask(path, images)
        for validator in validators()
        if validator.name != "dcmqi" or _kind(path) in READ_BY_DCMQI
    }


def _word(lines: Said) -> str:
    if not lines:
        return ""
    return "warning" if all("Warning" in line for line in lines) else "error"


def _ours(defect: Defect, path: Path, beside: Kept) -> str:
    found = _judged(path, beside, strict=True).defects
    return "error" if defect.rule in {d.rule for d in found if d.severity == "error"} else ""


def _judged(path: Path, beside: Kept, *, strict: bool) -> Judged:
    found = validate([path, *beside.images, *beside.others], strict=strict)
    return next(item for item in found if item.file == path)


def _save(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_bytes(ds))
    return path


def main() -> int:
    """Measure, write the page, and end badly where ours missed a defect or raised an alarm."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--markdown", type=Path, default=PAGE)
    options.add_argument("--others", type=Path, default=OTHERS)
    given = options.parse_args()
    others = validate([given.others]) if given.others.is_dir() else []
    with tempfile.TemporaryDirectory() as folder:
        rows, good = matrix(Path(folder))
        today = date.today()  # noqa: DTZ011 a heading
        text, failed = page(rows, good, others, given.others, today)
    given.markdown.write_text(text)
    print(text)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
