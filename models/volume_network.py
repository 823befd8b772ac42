"""The network of a 3-D U-Net package, what ``arch.json`` says of it, and what it sees."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets.basic_unet import BasicUNet
from numpy.typing import NDArray

from models.network import MULTIPLE, between


@dataclass(frozen=True)
class VolumeNetworkConfig:
    """What ``arch.json`` of a 3-D U-Net holds.

    Parameters
    ----------
    channels : tuple of int
        Width of the five levels, each half the size of the one before, and of the last layer.
    spacing_mm : tuple of float
        Voxel size the network sees: right, anterior, superior.
    patch : tuple of int
        Voxels of what it is trained on, in the same order; multiples of 16.
    windows : tuple of tuple of float
        Each makes a channel: values between are spread over -1 to 1. Empty: one channel, the
        z-score of the volume, for MR.
    mirror : bool
        Whether probabilities are averaged with those of the volume mirrored from right to left.
    classes : int
        Background and the segments.
    """

    channels: tuple[int, ...] = (16, 32, 64, 96, 96, 16)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    patch: tuple[int, int, int] = (64, 64, 64)
    windows: tuple[tuple[float, float], ...] = ()
    mirror: bool = False
    classes: int = 2

    def __post_init__(self) -> None:
        between("channels", len(self.channels), 6, 6)
        for width in self.channels:
            between("channels", width, 1, 1024)
        between("axes of spacing_mm", len(self.spacing_mm), 3, 3)
        between("axes of patch", len(self.patch), 3, 3)
        for step in self.spacing_mm:
            between("spacing_mm", step, 0.1, 20.0)
        for size in self.patch:
            between("patch", size, MULTIPLE, 512)
            between(f"rest of patch by {MULTIPLE}", size % MULTIPLE, 0, 0)
        between("windows", len(self.windows), 0, 8)
        for low, high in self.windows:
            between("width of a window", high - low, 1.0, 1e5)
        between("classes", self.classes, 2, 256)

    @property
    def in_channels(self) -> int:
        """Channels of the network's input."""
        return max(len(self.windows), 1)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> VolumeNetworkConfig:
        """Read what `to_json` gave.

        Raises
        ------
        TypeError
            A key is unknown, or a value of the wrong type.
        ValueError
            A value is out of bounds.
        """
        values = {key: _tuples(value) for key, value in content.items()}
        return cls(**values)

    def to_json(self) -> dict[str, object]:
        """Content of ``arch.json``."""
        return asdict(self)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def build_volume_network(config: VolumeNetworkConfig) -> BasicUNet:
    """Make the network; there is no norm between its last convolution and the logits."""
    return BasicUNet(
        spatial_dims=3,
        in_channels=config.in_channels,
        out_channels=config.classes,
        features=config.channels,
        norm="batch",
    )


def seen_size(
    shape: tuple[int, ...], spacing: NDArray[np.float64], config: VolumeNetworkConfig
) -> list[int]:
    """Voxels along right, anterior, superior at the network's spacing."""
    steps = zip(shape, spacing, config.spacing_mm, strict=True)
    return [max(round(n * step / wanted), 1) for n, step, wanted in steps]


def seen(
    array: NDArray[np.float32], spacing: NDArray[np.float64], config: VolumeNetworkConfig
) -> torch.Tensor:
    """Bring a volume to the network's spacing and intensities.

    Parameters
    ----------
    array : NDArray[np.float32]
        (right, anterior, superior), modality units.
    spacing : NDArray[np.float64]
        Of the array, mm.
    config : VolumeNetworkConfig

    Returns
    -------
    Tensor
        (channels, right, anterior, superior), float32, about -1 to 1 or a z-score.
    """
    image = torch.from_numpy(np.ascontiguousarray(array, np.float32))[None]
    image = resized(image, seen_size(array.shape, spacing, config))
    if config.windows:
        return torch.cat([_windowed(image, window) for window in config.windows])
    return (image - image.mean()) / image.std(correction=0).clamp_min(1e-6)


def _windowed(image: torch.Tensor, window: tuple[float, float]) -> torch.Tensor:
    low, high = window
    return (image.clamp(low, high) - low) * (2.0 / (high - low)) - 1.0


def resized(image: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Resample (channels, right, anterior, superior) linearly; corners of the volume stay."""
    if list(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="trilinear")[0]
