"""CPU time and memory of a Segmentation of 100 structures on 512 x 512 x 300.

python -m benchmarks.many_structures [BINARY|LABELMAP] [--check]

Measured after a first small one, as in a runner that is warm: the tables of attributes that
highdicom loads with its first object (60 MB) are no part of what a mask costs.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from models.base import Findings, Number, Segment, Volume
from sr_templates.check import problems
from sr_templates.normalise import normalised
from sr_templates.part10 import to_file
from sr_templates.segmentation import SegmentationType, segmentation
from tests.phantoms import Shape, ct_series
from tests.sr_templates.objects import ABNORMAL, BRAIN, HEMORRHAGE, MAKER, identity

SHAPE = Shape(columns=512, rows=512, slices=300, spacing=(0.8, 0.8, 1.5))
STRUCTURES = 100
MOST_SECONDS = 30.0
MOST_TIMES_THE_MASK = 3.0


def structures(shape: Shape, count: int, seed: int = 3) -> NDArray[np.uint8]:
    """Ellipsoids of all sizes that do not overlap, as organs do; shape (columns, rows, slices)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((shape.columns, shape.rows, shape.slices), np.uint8)
    limits = np.array(labels.shape)
    for number in range(1, count + 1):
        radii = rng.uniform((12, 12, 8), (60, 60, 50))
        center = rng.uniform(radii * 0.5, limits - radii * 0.5)
        low = np.maximum(0, np.floor(center - radii)).astype(int)
        high = np.minimum(limits, np.ceil(center + radii) + 1).astype(int)
        grid = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        away = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radii, strict=True))
        part = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        part[(away < 1.0) & (part == 0)] = number
        part[tuple(s // 2 for s in part.shape)] = number
    return labels


def sources(shape: Shape) -> list[Dataset]:
    """Headers of the series, without pixels."""
    empty = np.zeros((shape.columns, shape.rows, 1), np.float32)
    thin = Shape(shape.columns, shape.rows, 1, shape.spacing)
    [one] = ct_series(thin, empty)
    del one.PixelData
    found = []
    for index in range(shape.slices):
        ds = deepcopy(one)
        ds.SOPInstanceUID = f"{one.SOPInstanceUID[:50]}.{index + 1}"
        ds.InstanceNumber = index + 1
        ds.ImagePositionPatient = [round(float(v), 4) for v in shape.position(index)]
        found.append(ds)
    return normalised(found)


def peak_bytes() -> int:
    """Most resident memory since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def forget_peak() -> int:
    """Begin to watch; resident memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def _make(
    labels: NDArray[np.uint8],
    clean: list[Dataset],
    segments: tuple[Segment, ...],
    kind: SegmentationType,
) -> Dataset:
    volume = Volume(
        np.broadcast_to(np.float32(0), labels.shape), SHAPE.affine(), clean[0].FrameOfReferenceUID
    )
    findings = Findings(labels, segments, (Number("volume", 1.0, "ml"),), True)
    seg = segmentation(findings, volume, clean, identity("seg"), MAKER, kind)
    if seg is None:
        raise SystemExit("nothing was marked")
    return seg


def main() -> None:
    """Measure, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["BINARY", "LABELMAP"], nargs="?", default="BINARY")
    parser.add_argument("--check", action="store_true", help="also judge it, as before it leaves")
    options = parser.parse_args()
    labels = structures(SHAPE, STRUCTURES)
    clean = sources(SHAPE)
    segments = tuple(
        Segment(n, f"Structure {n}", ABNORMAL, HEMORRHAGE, BRAIN, (n * 2, 255 - n, 90))
        for n in range(1, STRUCTURES + 1)
    )
    middle = SHAPE.slices // 2
    _make(labels[:, :, middle : middle + 1], clean[:1], segments, options.kind)
    before, began = forget_peak(), time.process_time()
    seg = _make(labels, clean, segments, options.kind)
    built = time.process_time() - began
    built_peak = peak_bytes() - before
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "seg.dcm")
        to_file(seg, path)
        size = path.stat().st_size
    seconds, peak = time.process_time() - began, peak_bytes() - before
    mask = labels.nbytes
    print(f"{options.kind}: {seg.NumberOfFrames} frames, {size / 1e6:.0f} MB")
    print(f"built in {built:.1f} s, at most {built_peak / mask:.2f} times the mask")
    print(f"written in {seconds:.1f} s in all, at most {peak / mask:.2f} times the mask")
    met = seconds <= MOST_SECONDS and peak <= MOST_TIMES_THE_MASK * mask
    print("goals met" if met else "goals NOT met")
    if options.check:
        held, began = forget_peak(), time.process_time()
        found = problems(seg, clean)
        print(f"judged in {time.process_time() - began:.1f} s: {found or 'nothing wrong'}")
        most = (peak_bytes() - before) / mask
        print(f"at most {most:.2f} times the mask, of which {(held - before) / mask:.2f} are held")


if __name__ == "__main__":
    main()
