"""The network of a 2.5-D U-Net package, and what ``arch.json`` says of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from monai.networks.nets.unet import UNet

MULTIPLE = 16
"""Columns and rows the network sees are padded to a multiple of this."""

ACTIVATIONS: dict[str, str | tuple[Any, ...]] = {
    "prelu": "prelu",
    "relu": ("relu", {"inplace": True}),
}
"""As MONAI names them."""


@dataclass(frozen=True)
class NetworkConfig:
    """What ``arch.json`` holds.

    Parameters
    ----------
    channels : tuple of int
        Width of each level; every level but the last halves the size of the one before, the
        first that of the input.
    neighbours : int
        Slices on each side of the one that is labelled.
    spacing_mm : float
        Pixel size in the plane that the network sees.
    window_hu : tuple of float
        Values between are spread over -1 to 1, for all slices.
    wide_window_hu : tuple of float
        The same for one more channel of the middle slice, which shows bone and air.
    classes : int
        Background and the segments.
    residual_units : int
    full_resolution : bool
        The first level keeps the size of the input, as thin sheets of blood need.
    activation : str
        ``prelu``, or ``relu``, with which a CPU trains a fifth faster.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    neighbours: int = 1
    spacing_mm: float = 1.25
    window_hu: tuple[float, float] = (-10.0, 110.0)
    wide_window_hu: tuple[float, float] = (-600.0, 1000.0)
    classes: int = 2
    residual_units: int = 1
    full_resolution: bool = False
    activation: str = "prelu"

    def __post_init__(self) -> None:
        most = 1 + int(math.log2(MULTIPLE)) + int(self.full_resolution)
        _between("levels", len(self.channels), 2, most)
        for width in self.channels:
            _between("channels", width, 1, 1024)
        _between("neighbours", self.neighbours, 0, 8)
        _between("spacing_mm", self.spacing_mm, 0.1, 20.0)
        _between("classes", self.classes, 2, 256)
        _between("residual_units", self.residual_units, 0, 8)
        _between("full_resolution", self.full_resolution, 0, 1)
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation {self.activation!r} of the network is none of {', '.join(ACTIVATIONS)}"
            )
        for low, high in (self.window_hu, self.wide_window_hu):
            _between("width of a window", high - low, 1.0, 1e5)

    @property
    def in_channels(self) -> int:
        """Channels of the network's input."""
        return 2 * self.neighbours + 2

    @property
    def strides(self) -> tuple[int, ...]:
        """By what each level but the last makes the one before smaller."""
        return (1 if self.full_resolution else 2, *(2,) * (len(self.channels) - 2))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> NetworkConfig:
        """Read what `to_json` gave.

        Raises
        ------
        TypeError
            A key is unknown, or a value of the wrong type.
        ValueError
            A value is out of bounds.
        """
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
        return cls(**values)

    def to_json(self) -> dict[str, object]:
        """Content of ``arch.json``."""
        return asdict(self)


def _between(what: str, found: float, least: float, most: float) -> None:
    if not least <= found <= most:
        raise ValueError(f"{what} of the network: {found:g}, wanted {least:g} to {most:g}")


def build(config: NetworkConfig) -> UNet:
    """Make the network.

    Batch norm on purpose: MONAI's default instance norm stands in front of the last convolution
    and bounds the logits of a sparse foreground, so that nothing is ever found.
    """
    return UNet(
        spatial_dims=2,
        in_channels=config.in_channels,
        out_channels=config.classes,
        channels=config.channels,
        strides=config.strides,
        num_res_units=config.residual_units,
        norm="batch",
        act=ACTIVATIONS[config.activation],
    )
