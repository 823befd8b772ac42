"""What computes a packaged network, whatever computes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class Engine:
    """What computes: weights that are loaded, on the devices they can run on.

    Parameters
    ----------
    run : callable
        (batch, channels, x, y, z) on a device to (batch, outputs, x, y, z).
    outputs : int
        Channels of the output.
    devices : tuple of torch.device
        The preferred one first.
    window_bytes : callable
        Shape of a batch to bytes of memory.
    """

    run: Callable[[torch.Tensor], torch.Tensor]
    outputs: int
    devices: tuple[torch.device, ...]
    window_bytes: Callable[[Sequence[int]], int]
