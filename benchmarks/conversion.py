"""Converters side by side: ``python -m benchmarks.conversion DATA [--markdown FILE]``.

Every folder of DATA that holds DICOM files is converted by dicom2nifti, dcm2niix (found, or
installed into a temporary environment from PyPI) and `pipelines.conversion`. What is written is
looked up at the true centre of source pixels, computed here from the headers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.goals import Goal
from benchmarks.true_centres import SourceImage, best_agreement, source_images

TIMED = (
    ("ct_head_ge_tilted", 28, "28-slice CT, tilted and uneven"),
    ("ct_head_phantom_philips_study", 28, "28-slice CT"),
    ("t1_philips_whole_head_gm_ref", 170, "170-slice MR"),
)
EXACT = 0.99999
ROUNDS = 5
WARM = "ours, in a warm runner"
SKIPPED = {".md", ".txt", ".nii", ".gz", ".json", ".mgz", ".bval", ".bvec"}


@dataclass(frozen=True)
class Run:
    """One conversion: seconds from start to end of the process, peak of its memory."""

    seconds: float
    peak_mb: float
    status: int
    files: tuple[Path, ...]
    told: dict[str, Any] = field(default_factory=dict)


Converter = Callable[[Path, Path], list[str]]


def main(arguments: list[str]) -> int:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion")
    parser.add_argument("data", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        converters = _converters(Path(scratch))
        folders = _folders(chosen.data)
        rows = [_row(folder, chosen.data, converters, Path(scratch)) for folder in folders]
        load = _load()
        times = [
            _times(
                next(f for f in folders if name in str(f) and _count(f) == count),
                title,
                converters,
                Path(scratch),
                chosen.rounds,
            )
            for name, count, title in TIMED
        ]
        reading = _reading(Path(scratch), chosen.rounds)
    goals = [goal for row in times for goal in _goals(row)]
    text = _page(rows, times, goals, reading, load, chosen.rounds)
    print(text)
    if chosen.markdown:
        chosen.markdown.write_text(text, encoding="utf-8")
    return 0


def _converters(scratch: Path) -> dict[str, Converter]:
    program = _dcm2niix(scratch)
    own = [sys.executable, "-m", "benchmarks.convert_once"]
    return {
        "dicom2nifti": lambda source, out: [*own, "dicom2nifti", str(source), str(out)],
        "dcm2niix": lambda source, out: [
            program, "-z", "n", "-b", "n", "-f", "%s_%e", "-o", str(out), str(source)
        ],
        "ours": lambda source, out: [
            sys.executable, "-m", "node", "convert", str(source), "--out", str(out),
            "--no-dicom2nifti", "--no-gzip", "--json",
        ],
    }  # fmt: skip


def _warm(source: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.convert_once", "ours", str(source), str(out)]


def _dcm2niix(scratch: Path) -> str:
    found = os.environ.get("DCM2NIIX")
    if found:
        return found
    home = scratch / "venv"
    venv.create(home, with_pip=True)
    python = str(home / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "dcm2niix"]
    subprocess.run(install, check=True, capture_output=True)
    # The program itself: what pip puts on the path is a script that starts Python first.
    where = [python, "-c", "import dcm2niix; print(dcm2niix.bin_path)"]
    return subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()


def _folders(data: Path) -> list[Path]:
    parents = {path.parent for path in data.rglob("*") if path.is_file() and _is_source(path)}
    return sorted(parents)


def _is_source(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix not in SKIPPED and file.read(132)[128:] == b"DICM"


def _count(folder: Path) -> int:
    return sum(_is_source(path) for path in folder.iterdir() if path.is_file())


def _run(converter: Converter, folder: Path, scratch: Path) -> Run:
    """Run a converter in a process of its own, on a copy without anything but the images."""
    with tempfile.TemporaryDirectory(dir=scratch) as space:
        source, out = Path(space) / "in", scratch / f"out-{time.monotonic_ns()}"
        source.mkdir()
        out.mkdir()
        for path in folder.iterdir():
            if path.is_file() and path.suffix not in SKIPPED:
                shutil.copy(path, source)
        with (out / "stdout").open("wb") as log:
            began = time.monotonic()
            child = subprocess.Popen(converter(source, out), stdout=log, stderr=subprocess.DEVNULL)
            peak = 0.0
            while child.poll() is None:
                peak = max(peak, _peak_mb(child.pid))
                time.sleep(0.001)
            seconds = time.monotonic() - began
    told = (out / "stdout").read_text(errors="replace").strip().splitlines()
    figures = json.loads(told[-1]) if told and told[-1].startswith("{") else {}
    files = tuple(sorted(path for path in out.iterdir() if ".nii" in path.name))
    return Run(seconds, peak, child.returncode, files, figures)


def _peak_mb(pid: int) -> float:
    """Peak of the resident memory of a process so far."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) / 1024 if lines else 0.0


def _row(
    folder: Path, data: Path, converters: dict[str, Converter], scratch: Path
) -> dict[str, str]:
    images = source_images(folder)
    row = {"series": str(folder.relative_to(data)), "images": str(len(images))}
    for name, converter in converters.items():
        run = _run(converter, folder, scratch)
        row[name] = _verdict(run, images)
    print(row, flush=True)
    return row


def _verdict(run: Run, images: Sequence[SourceImage]) -> str:
    """Say how many source images can be found in what was written, where their headers are."""
    if run.told.get("error"):
        return f"{run.told['error']}"
    if not run.files:
        return "nothing written" if images else "nothing written, rightly"
    volumes = [nib.Nifti1Image.from_filename(str(path)) for path in run.files]
    count = f"{len(volumes)} file{'s' if len(volumes) > 1 else ''}"
    if not images:
        return f"{count} written"
    agreement = best_agreement(images, volumes)
    exact = int((agreement >= EXACT).sum())
    if exact == len(images):
        return f"{count}: all images where they are"
    rest = agreement[agreement < EXACT]
    return (
        f"{count}: {exact} of {len(images)} exact"
        f"; the others r {np.median(rest):.3f} (least {rest.min():.3f})"
    )


def _times(
    folder: Path, title: str, converters: dict[str, Converter], scratch: Path, rounds: int
) -> dict[str, str]:
    runs: dict[str, list[Run]] = {name: [] for name in (*converters, WARM)}
    for _ in range(rounds):
        for name, converter in converters.items():
            runs[name].append(_run(converter, folder, scratch))
        runs[WARM].append(_run(_warm, folder, scratch))
    row = {"series": title}
    for name in converters:
        seconds = float(np.median([run.seconds for run in runs[name]]))
        peak = np.median([run.peak_mb for run in runs[name]])
        row[name] = f"{seconds:.2f} s, {peak:.0f} MB"
    told = [run.told for run in runs[WARM]]
    seconds = float(np.median([one["seconds"] for one in told]))
    above = float(np.median([one["above_mb"] for one in told]))
    size = told[0]["volume_mb"]
    row[WARM] = f"{seconds:.3f} s"
    row["memory above"] = f"{above:.0f} MB, {above / size:.2f} x volume"
    print(row, flush=True)
    return row


def _goals(row: dict[str, str]) -> list[Goal]:
    """Give what is wanted of one series, from the figures that the page shows."""
    title, peer = row["series"], _figure(row["dcm2niix"])
    return [
        Goal(f"{title}: whole process, ours / dcm2niix", _figure(row["ours"]) / peer, 1, True),
        Goal(f"{title}: {WARM} / dcm2niix", _figure(row[WARM]) / peer, 1, True),
        Goal(f"{title}: memory / volume", _figure(row["memory above"].split(", ")[1]), 2.5, True),
    ]


def _figure(text: str) -> float:
    return float(text.split(" ")[0])


def _reading(scratch: Path, rounds: int) -> dict[str, str]:
    """How long a warm process takes from 300 CT slices in segments to the checked volume."""
    runs = []
    for number in range(rounds):
        out = scratch / f"reading-{number}"
        out.mkdir()
        call = [sys.executable, "-m", "benchmarks.convert_once", "reading", "-", str(out)]
        done = subprocess.run(call, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
        shutil.rmtree(out)
    median = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
    return {
        "series": "300 CT slices of 526 KB in segments",
        "headers read": f"{median['headers_ms']:.0f} ms",
        "volume in memory, checked": f"{median['volume_ms']:.0f} ms",
        "slowest": f"{max(run['most_ms'] for run in runs):.0f} ms",
    }


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


def _page(
    rows: Sequence[dict[str, str]],
    times: Sequence[dict[str, str]],
    goals: Sequence[Goal],
    reading: dict[str, str],
    load: str,
    rounds: int,
) -> str:
    day = datetime.now(UTC).date().isoformat()
    return "\n".join(
        [
            "# Converters side by side",
            "",
            f"Measured on {day} by `python -m benchmarks.conversion DATA --markdown FILE`, "
            f"{os.cpu_count()} cores, {load} before times were taken and {_load()} after.",
            "",
            "Every image of a series is looked up in what a converter wrote, at the patient "
            "coordinates of its pixel centres as its header gives them (linear interpolation; r is "
            "the correlation of the values, so that scales do not matter). *Exact* is r of 1. A "
            "volume resampled to a straight grid cannot be exact. Images are counted as the "
            "headers describe them; mosaics, whose headers do not say where their slices are, "
            "are looked up by ours against the reference conversion in the tests.",
            "",
            *_table(rows),
            "",
            "## Time and memory",
            "",
            f"Medians of {rounds} interleaved rounds on the same files, in the page cache, from a "
            "folder to uncompressed NIfTI. dicom2nifti, dcm2niix and ours: the whole process, from "
            "its start to its end, of which the start of Python and its imports are the most in "
            "ours (`scorenode convert FOLDER --out DIR --no-dicom2nifti --no-gzip`) and in "
            f"dicom2nifti. *{WARM[0].upper()}{WARM[1:]}*: the same conversion, JSON included, in a "
            "process that has done one before, as a node's runners have. Memory above: by how much "
            "the first conversion raises the peak of its process, and in terms of the volume as it "
            "is held (int16 where values are whole, else float32).",
            "",
            *_table(times),
            "",
            "The goals: at least as fast as dcm2niix, and never over 2.5 times the volume in "
            "memory. A command of its own cannot be as fast, for Python starts first; a node's "
            "runners are.",
            "",
            *_table(
                [
                    {
                        "goal": goal.name,
                        "measured": f"{goal.value:.2f}",
                        "wanted": f"at most {goal.wanted:g}",
                        "": "reached" if goal.is_reached else "NOT reached",
                    }
                    for goal in goals
                ]
            ),
            "",
            "What a runner does first in a job, in a warm process: from the files, which lie one "
            "after the other in segments of 64 MiB in the page cache, to the volume.",
            "",
            *_table([reading]),
            "",
        ]
    )


def _table(rows: Sequence[dict[str, str]]) -> list[str]:
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    return lines + ["| " + " | ".join(row[head] for head in heads) + " |" for row in rows]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
