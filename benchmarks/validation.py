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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydicom import config
from pydicom.dataset import Dataset

from benchmarks.planted import FURTHER, MATRIX, Defect, planted
from node.validation import Judged, validate
from sr_templates.capture import capture
from sr_templates.part10 import to_bytes
from tests.noise import complaints
from tests.sr_templates.objects import MAKER, case, identity

PAGE = Path(__file__).with_name("validation.md")
OTHERS = Path(__file__).resolve().parents[2] / "shared/data/seg_and_sr_by_others"
Said = frozenset[str]


@dataclass(frozen=True)
class Validator:
    """A program, and how to ask it: a result among the images and other results."""

    name: str
    ask: Callable[[Path, Sequence[Path]], Said]


@dataclass(frozen=True)
class Row:
    """What became of one defect, by validator; an empty word: unnoticed."""

    defect: Defect
    seen: Mapping[str, str]


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
        if path.stem.startswith("seg"):
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


def matrix(folder: Path) -> tuple[list[Row], list[Judged]]:
    """Plant every defect; ours sees it only when it gives the reason that fits.

    Returns
    -------
    tuple
        One row for each defect, and what we say of the good objects.
    """
    made = case()
    page = capture(made.findings, made.volume, made.clean, identity("capture"), MAKER)
    good = {"seg": made.segmentation, "sr": made.sr, "capture": page}
    images = [_save(ds, folder / "images" / f"{n:03d}.dcm") for n, ds in enumerate(made.sources)]
    paths = {kind: _save(ds, folder / f"{kind}.dcm") for kind, ds in good.items()}
    said = {kind: _ask(path, images) for kind, path in paths.items()}
    rows = []
    for number, defect in enumerate((*MATRIX, *FURTHER)):
        with config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = folder / f"{defect.kind}_{number:02d}.dcm"
            planted(defect, good).save_as(path)
        seen = {"ours": _ours(defect, path, images, paths["seg"])}
        for name, lines in _ask(path, images).items():
            seen[name] = _word(lines - said[defect.kind][name])
        rows.append(Row(defect, seen))
    return rows, validate([*paths.values(), *images])


def _ask(path: Path, images: Sequence[Path]) -> dict[str, Said]:
    """Ask the public validators; dcmqi reads no captures."""
    return {
        validator.name: validator.ask(path, images)
        for validator in validators()
        if validator.name != "dcmqi" or not path.stem.startswith("capture")
    }


def _word(lines: Said) -> str:
    if not lines:
        return ""
    return "warning" if all("Warning" in line for line in lines) else "error"


def _ours(defect: Defect, path: Path, images: Sequence[Path], seg: Path) -> str:
    given = [path, *images, *([seg] if defect.kind == "sr" else [])]
    found = next(item for item in validate(given, strict=True) if item.file == path)
    return (
        "error" if defect.rule in {d.rule for d in found.defects if d.severity == "error"} else ""
    )


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
    from benchmarks.validation_page import page

    with tempfile.TemporaryDirectory() as folder:
        rows, good = matrix(Path(folder))
    others = validate([given.others]) if given.others.is_dir() else []
    text, failed = page(rows, good, others, given.others, date.today())  # noqa: DTZ011 a heading
    given.markdown.write_text(text)
    print(text)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
