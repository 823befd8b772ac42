"""How much memory there is, and how much a network will take."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WORKSPACE = 1.6
"""What libraries take beside the tensors, for copies in layouts of their own, as measured."""
LEAST_WORKSPACE = 48 << 20


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of tensors that live at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._holders:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._holders[key] = self._holders.get(key, 0) + 1
        weakref.finalize(tensor, self._dropped, key, size)

    def _dropped(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.now -= size


def activation_bytes(network: torch.nn.Module, shape: Sequence[int]) -> int:
    """Estimate what a network takes for one input, without computing anything.

    Parameters
    ----------
    network : torch.nn.Module
    shape : sequence of int
        (batch, channels, *space), float32.

    Returns
    -------
    int
        Bytes beside the weights: the most tensors that live at once, and what libraries add.
    """
    shadow = copy.deepcopy(network).to("meta")
    live = _Live()
    with torch.inference_mode(False), torch.no_grad(), live:
        shadow(torch.empty(tuple(shape), device="meta"))
    return int(live.peak * WORKSPACE) + LEAST_WORKSPACE


def free_bytes(device: torch.device, limit: int = 0) -> int:
    """Memory that may still be taken on a device.

    Parameters
    ----------
    device : torch.device
    limit : int
        Most bytes this process may hold in main memory; 0: no limit.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_available(), *_container()]
    if limit:
        found.append(limit - resident_bytes())
    return min(found)


def resident_bytes() -> int:
    """Memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 1 << 40


def _container() -> list[int]:
    """Room under the limit of a container, where there is one; its file cache can be given up."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    cache = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    return [int(most) - used + cache] if most.isdigit() else []


def is_out_of_memory(error: BaseException) -> bool:
    """MemoryError, or what torch and onnxruntime raise in its place."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("DefaultCPUAllocator", "out of memory", "Failed to allocate")
    )


def give_back() -> None:
    """Let go of what an attempt that ran out of memory left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
