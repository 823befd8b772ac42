"""A window slides over a volume: where it stands, what the parts add up to, in how much memory."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product

import numpy as np
import torch
import torch.nn.functional as F
from monai.data.utils import compute_importance_map
from numpy.typing import NDArray

from models.base import NotEnoughMemory, Progress
from models.manifest import Inference
from models.memory import free_bytes, give_back, is_out_of_memory

F32 = NDArray[np.float32]
Network = Callable[[torch.Tensor], torch.Tensor]
"""(batch, channels, x, y, z) to (batch, classes, x, y, z), on the plan's device."""


@dataclass(frozen=True)
class Plan:
    """How a volume is run.

    Parameters
    ----------
    device : torch.device
    batch : int
        Windows at once.
    on_disk : bool
        Whether what the windows add up to is kept in a file.
    needs : int
        Estimated bytes on the device.
    needs_here : int
        Estimated bytes of main memory.
    """

    device: torch.device
    batch: int
    on_disk: bool
    needs: int
    needs_here: int


def plans(
    devices: Sequence[torch.device],
    window_bytes: Callable[[int], int],
    sums_bytes: int,
    fixed_bytes: int,
    windows: int,
) -> list[Plan]:
    """List ways to run a volume, the quickest first, the smallest last.

    Parameters
    ----------
    devices : sequence of torch.device
        The preferred one first.
    window_bytes : callable
        Windows at once to bytes of the network for them.
    sums_bytes : int
        What the windows add up to.
    fixed_bytes : int
        What is in main memory in any case: the volume as the network sees it, the labels.
    windows : int
        How many there are.
    """
    found = []
    for device in devices:
        on_cpu = device.type == "cpu"
        batches = (1,) if on_cpu or windows < 2 else (4, 1)
        choices = [(batch, False) for batch in batches] + [(1, True)]
        for batch, on_disk in choices:
            here = fixed_bytes + (0 if on_disk else sums_bytes)
            network = window_bytes(batch)
            found.append(
                Plan(device, batch, on_disk, network + on_cpu * here, here + on_cpu * network)
            )
    return found


def fitting(all_plans: Sequence[Plan], limit: int) -> Iterator[Plan]:
    """Yield the plans that fit what is free, in order.

    Raises
    ------
    NotEnoughMemory
        None fits.
    """
    fits = False
    for plan in all_plans:
        here = free_bytes(torch.device("cpu"), limit)
        there = here if plan.device.type == "cpu" else free_bytes(plan.device)
        if plan.needs <= there and plan.needs_here <= here:
            fits = True
            yield plan
    if not fits:
        least = min(plan.needs_here for plan in all_plans)
        raise NotEnoughMemory(least, free_bytes(torch.device("cpu"), limit))


def first_that_works(all_plans: Sequence[Plan], limit: int, run: Callable[[Plan], F32]) -> F32:
    """Run with the first plan that does not run out of memory.

    Raises
    ------
    MemoryError
        None did.
    """
    failed: BaseException | None = None
    for plan in fitting(all_plans, limit):
        try:
            return run(plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = error
        give_back()
    raise MemoryError("the volume did not fit into memory, however it was run") from failed


def window_size(shape: Sequence[int], rules: Inference) -> tuple[int, ...]:
    """Size of the window: the patch, or the whole volume, on a multiple of the network's."""
    wanted = rules.patch or tuple(shape)
    return tuple(-(-size // rules.multiple) * rules.multiple for size in wanted)


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along an axis: evenly spread, with at least the overlap."""
    if length <= window:
        return [0]
    count = math.ceil((length - window) / (window * (1 - overlap))) + 1
    return [round(place) for place in np.linspace(0, length - window, count)]


def slide(
    network: Network,
    image: F32,
    classes: int,
    rules: Inference,
    plan: Plan,
    progress: Progress,
) -> F32:
    """Average what a network says of overlapping windows, weighted towards their middles.

    Parameters
    ----------
    network : callable
    image : F32
        (channels, x, y, z).
    classes : int
        Channels of the network's output.
    rules : Inference
    plan : Plan
    progress : callable

    Returns
    -------
    F32
        (classes, x, y, z), logits or whatever the network says; in a file where the plan says so.
    """
    window = window_size(image.shape[1:], rules)
    padded, inner = _padded(image, window)
    starts = [
        window_starts(n, size, rules.overlap)
        for n, size in zip(padded.shape[1:], window, strict=True)
    ]
    places = list(product(*starts))
    sums = _zeros((classes, *padded.shape[1:]), on_disk=plan.on_disk)
    weights = np.zeros(padded.shape[1:], np.float32)
    importance = _importance(window)
    flips = _flips(rules.mirror)
    for first in range(0, len(places), plan.batch):
        boxes = [_box(place, window) for place in places[first : first + plan.batch]]
        batch = torch.from_numpy(np.stack([padded[(slice(None), *box)] for box in boxes]))
        with torch.inference_mode():
            said = _said(network, batch.to(plan.device), flips, rules).float().cpu().numpy()
        for box, one in zip(boxes, said, strict=True):
            sums[(slice(None), *box)] += one * importance
            weights[box] += importance
        _let_go(sums)
        progress(min(first + plan.batch, len(places)) / len(places))
    np.maximum(weights, 1e-8, out=weights)
    for one in sums:
        one /= weights
        _let_go(sums)
    return sums[(slice(None), *inner)]


def _said(
    network: Network, batch: torch.Tensor, flips: Sequence[tuple[int, ...]], rules: Inference
) -> torch.Tensor:
    """Mean over the mirrored windows."""
    low = rules.precision == "bfloat16"
    with torch.autocast(batch.device.type, torch.bfloat16, enabled=low):
        total = network(batch)
        for axes in flips:
            total = total + network(batch.flip(axes)).flip(axes)
    return total / (1 + len(flips))


def _flips(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every combination of mirrored axes but none, as axes of a batch."""
    chosen = chain.from_iterable(combinations(axes, n) for n in range(1, len(axes) + 1))
    return [tuple(axis + 2 for axis in one) for one in chosen]


def _padded(image: F32, window: Sequence[int]) -> tuple[F32, tuple[slice, ...]]:
    """Volume that is at least as large as the window, and where the volume is in it."""
    more = [max(size - n, 0) for n, size in zip(image.shape[1:], window, strict=True)]
    before = [extra // 2 for extra in more]
    inner = tuple(slice(b, b + n) for b, n in zip(before, image.shape[1:], strict=True))
    if not any(more):
        return np.ascontiguousarray(image), inner
    pad = [side for b, extra in zip(before, more, strict=True) for side in (b, extra - b)]
    order = [pad[4], pad[5], pad[2], pad[3], pad[0], pad[1]]
    return F.pad(torch.from_numpy(np.ascontiguousarray(image)), order).numpy(), inner


def _box(place: Sequence[int], window: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + size) for start, size in zip(place, window, strict=True))


def _importance(window: Sequence[int]) -> F32:
    """Gaussian weights; never so small that a corner is divided by nothing."""
    weights = compute_importance_map(tuple(window), mode="gaussian", sigma_scale=0.125)
    found: F32 = weights.float().numpy()
    floored: F32 = np.maximum(found, np.float32(1e-4) * found.max())
    return floored


def _let_go(sums: F32) -> None:
    """Drop pages of a file from this process's memory; the file keeps them."""
    mapped = getattr(sums, "_mmap", None)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


def _zeros(shape: Sequence[int], *, on_disk: bool) -> F32:
    if not on_disk:
        return np.zeros(tuple(shape), np.float32)
    with tempfile.TemporaryFile(prefix="scorenode-sums-") as file:
        return np.memmap(file, np.float32, "w+", shape=tuple(shape))
