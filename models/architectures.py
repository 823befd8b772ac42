"""Networks a package may name: classes of MONAI by name, and those of nnU-Net.

``arch.json`` holds the name and plain values; nothing in it is imported, called or evaluated.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch

from models.base import BrokenPackage

MONAI = {
    "UNet": "monai.networks.nets.unet",
    "BasicUNet": "monai.networks.nets.basic_unet",
    "DynUNet": "monai.networks.nets.dynunet",
    "SegResNet": "monai.networks.nets.segresnet",
    "SegResNetDS": "monai.networks.nets.segresnet_ds",
    "AttentionUnet": "monai.networks.nets.attentionunet",
    "VNet": "monai.networks.nets.vnet",
    "HighResNet": "monai.networks.nets.highresnet",
    "UNETR": "monai.networks.nets.unetr",
    "SwinUNETR": "monai.networks.nets.swin_unetr",
}
"""Segmentation networks that load nothing from elsewhere, whatever their arguments."""
NNUNET = ("PlainConvUNet", "ResidualEncoderUNet")
MOST_MEMBERS = 10
MOST_ARGUMENTS = 64
MOST_VALUES = 4096
LARGEST = 1 << 16
"""No argument of a real network is larger."""


def names() -> list[str]:
    """Networks there are."""
    return sorted((*MONAI, *NNUNET))


def build_network(content: Mapping[str, Any]) -> torch.nn.Module:
    """Make the network that ``arch.json`` describes, with weights by chance.

    Parameters
    ----------
    content : mapping
        ``network``: one of `names`; ``arguments``: its arguments by name, plain values;
        ``members``: how many of them there are, where the mean of several counts.

    Raises
    ------
    BrokenPackage
        The network is not one of those, or does not take the arguments.
    """
    strange = content.keys() - {"network", "arguments", "members"}
    if strange:
        raise BrokenPackage(f"The architecture has unknown keys: {', '.join(sorted(strange))}.")
    name, arguments = content.get("network"), content.get("arguments", {})
    if name not in names():
        raise BrokenPackage(f"There is no network {name!r}; there are: {', '.join(names())}.")
    if not isinstance(arguments, dict) or len(arguments) > MOST_ARGUMENTS or not _plain(arguments):
        raise BrokenPackage(f"The arguments of {name} are not plain values of a sensible size.")
    maker = _maker(str(name))
    known = inspect.signature(maker).parameters
    members = content.get("members", 1)
    if type(members) is not int or not 1 <= members <= MOST_MEMBERS:
        raise BrokenPackage(f"members must be a whole number from 1 to {MOST_MEMBERS}.")
    unknown = sorted(arguments.keys() - known.keys())
    if unknown:
        raise BrokenPackage(f"{name} has no argument {unknown[0]!r}; it has: {', '.join(known)}.")
    try:
        with torch.random.fork_rng(devices=[]):
            made = [maker(**arguments) for _ in range(members)]
    except Exception as error:
        raise BrokenPackage(
            f"{name} cannot be made with these arguments ({type(error).__name__})."
        ) from error
    return (Mean(made) if "members" in content else made[0]).eval()


class Mean(torch.nn.Module):
    """The mean of what several networks say before it becomes a probability."""

    def __init__(self, members: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.members = torch.nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, channels, *space); one member after the other, for memory's sake."""
        first, *others = self.members
        found: torch.Tensor = first(x)
        for member in others:
            found = found + member(x)
        return found / len(self.members)


def _maker(name: str) -> Callable[..., torch.nn.Module]:
    if name in MONAI:
        maker: Callable[..., torch.nn.Module] = getattr(import_module(MONAI[name]), name)
        return maker
    from models import nnunet_network

    made: Callable[..., torch.nn.Module] = getattr(nnunet_network, name)
    return made


def _plain(value: Any) -> bool:
    """Whether a value is made of words and small numbers only."""
    counted = 0
    waiting: list[Any] = [value]
    while waiting:
        counted += 1
        item = waiting.pop()
        if counted > MOST_VALUES:
            return False
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
        elif isinstance(item, str):
            if len(item) > 64:
                return False
        elif isinstance(item, (int, float)):
            if not (math.isfinite(item) and abs(item) <= LARGEST):
                return False
        elif item is not None:
            return False
    return True
