"""Seconds and peak memory of a network over a volume, beside a plain loop in the same run.

Each figure is from a process of its own: ``python -m benchmarks.inference``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import product
from typing import Any

import numpy as np
import torch

from models.architectures import build_network
from models.manifest import Inference
from models.memory import activation_bytes
from models.sliding import Plan, plans, slide, window_size, window_starts

NETWORK = {
    "network": "DynUNet",
    "arguments": {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "kernel_size": [3, 3, 3, 3],
        "strides": [1, 2, 2, 2],
        "upsample_kernel_size": [2, 2, 2],
        "filters": [16, 32, 64, 128],
        "norm_name": "instance",
    },
}
CLASSES = 3
PATCH = (64, 64, 64)
OVERLAP = 0.5
SIZES = {"small": (96, 96, 64), "medium": (160, 160, 96), "large": (256, 256, 128)}
WAYS = ("plain loop", "scorenode", "scorenode on disk")


def volume_of(size: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise of a size, the same every time."""
    return np.random.default_rng(0).normal(0, 1, (1, *SIZES[size])).astype(np.float32)


def plain_loop(network: torch.nn.Module, image: np.ndarray[Any, Any]) -> Any:
    """Score windows one after the other, as a tutorial does it."""
    tensor = torch.from_numpy(image)[None]
    total = torch.zeros((1, CLASSES, *image.shape[1:]))
    count = torch.zeros((1, CLASSES, *image.shape[1:]))
    starts = [
        window_starts(n, size, OVERLAP) for n, size in zip(image.shape[1:], PATCH, strict=True)
    ]
    with torch.no_grad():
        for place in product(*starts):
            box = tuple(slice(p, p + n) for p, n in zip(place, PATCH, strict=True))
            index = (slice(None), slice(None), *box)
            total[index] += network(tensor[index])
            count[index] += 1
    return (total / count).softmax(1).argmax(1)


def ours(network: torch.nn.Module, image: np.ndarray[Any, Any], *, on_disk: bool) -> Any:
    """Score with the windows of the node."""
    rules = Inference(patch=PATCH, overlap=OVERLAP)
    plan = Plan(torch.device("cpu"), 1, on_disk, 0, 0)
    said = slide(network, image, CLASSES, rules, plan, lambda done: None)
    return said.argmax(0)


def estimate(network: torch.nn.Module, size: str, *, on_disk: bool) -> int:
    """Bytes the node expects."""
    rules = Inference(patch=PATCH, overlap=OVERLAP)
    window = window_size(SIZES[size], rules)
    voxels = 4 * int(np.prod(SIZES[size]))
    listed = plans(
        [torch.device("cpu")],
        lambda batch: activation_bytes(network, (batch, 1, *window)),
        sums_bytes=(CLASSES + 1) * voxels,
        fixed_bytes=6 * voxels,
        windows=8,
    )
    return next(plan.needs for plan in listed if plan.on_disk == on_disk)


def measured(way: str, size: str, threads: int) -> dict[str, Any]:
    """Run one way in this process: seconds, and megabytes beyond what it held before."""
    torch.set_num_threads(threads)
    network = build_network(NETWORK)
    image = volume_of(size)
    expected = 0 if way == WAYS[0] else estimate(network, size, on_disk=way == WAYS[2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if way == WAYS[0]:
        plain_loop(network, image)
    else:
        ours(network, image, on_disk=way == WAYS[2])
    return {
        "way": way,
        "volume": " x ".join(map(str, SIZES[size])),
        "seconds": round(time.perf_counter() - started, 2),
        "peak_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10,
        "estimated_mib": expected >> 20,
    }


def main() -> None:
    """Print a table; `--one` is a child's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["small", "medium"], choices=list(SIZES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", nargs=2, metavar=("WAY", "SIZE"))
    given = parser.parse_args()
    if given.one:
        way, size = given.one
        print(json.dumps(measured(way, size, given.threads)))
        return
    print("| way | volume | seconds | peak MiB | estimated MiB |")
    print("| --- | --- | --- | --- | --- |")
    for size, way in product(given.sizes, WAYS):
        command = [sys.executable, "-m", "benchmarks.inference", "--one", way, size]
        command += ["--threads", str(given.threads)]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        print(
            "| {way} | {volume} | {seconds} | {peak_mib} | {estimated_mib} |".format(
                **json.loads(done.stdout.splitlines()[-1])
            )
        )


if __name__ == "__main__":
    main()
