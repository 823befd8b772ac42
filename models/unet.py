"""A 2.5-D U-Net for axial CT: neighbouring slices in, labelled voxels on the source grid out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets.unet import UNet
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy import ndimage

from models.base import BrokenPackage, Findings, ModelIdentity, Number, Progress, Segment, Volume
from models.canonical import orientation_of
from models.head_ct import refuse_unless_head
from models.package import ModelPackage

BATCH = 8
_MULTIPLE = 16
_PEAK_VOXELS = 20


@dataclass(frozen=True)
class NetworkConfig:
    """What ``arch.json`` holds.

    Parameters
    ----------
    channels : tuple of int
        Width of each level; every level halves the size of the one before.
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
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    neighbours: int = 1
    spacing_mm: float = 1.25
    window_hu: tuple[float, float] = (-10.0, 110.0)
    wide_window_hu: tuple[float, float] = (-600.0, 1000.0)
    classes: int = 2
    residual_units: int = 1

    @property
    def in_channels(self) -> int:
        """Channels of the network's input."""
        return 2 * self.neighbours + 2

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> NetworkConfig:
        """Read what `to_json` gave."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
        return cls(**values)

    def to_json(self) -> dict[str, object]:
        """Content of ``arch.json``."""
        return asdict(self)


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
        strides=(2,) * (len(config.channels) - 1),
        num_res_units=config.residual_units,
        norm="batch",
    )


def resampled(
    array: NDArray[np.float32], spacing: NDArray[np.float64], config: NetworkConfig
) -> torch.Tensor:
    """Bring slices to the network's pixel size.

    Parameters
    ----------
    array : NDArray[np.float32]
        (right, anterior, superior), HU.
    spacing : NDArray[np.float64]
        Of the array, mm.

    Returns
    -------
    Tensor
        (slices, rows, columns), HU, sizes a multiple of 16, padded with air.
    """
    stack = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[:, None]
    size = [max(round(n * s / config.spacing_mm), 1) for n, s in zip(array.shape, spacing[:2])]  # noqa: B905
    if size != list(array.shape[:2]):
        stack = F.interpolate(stack, size=size, mode="bilinear", antialias=True)
    pad = [-n % _MULTIPLE for n in size]
    return F.pad(stack, (0, pad[1], 0, pad[0]), value=-1024.0)[:, 0]


def channels_of(stack: torch.Tensor, slices: torch.Tensor, config: NetworkConfig) -> torch.Tensor:
    """Gather the network's input for some slices.

    Parameters
    ----------
    stack : Tensor
        (slices, rows, columns), HU.
    slices : Tensor
        Indices of the slices to label.

    Returns
    -------
    Tensor
        (len(slices), channels, rows, columns), -1 to 1.
    """
    offsets = range(-config.neighbours, config.neighbours + 1)
    last = stack.shape[0] - 1
    narrow = [_windowed(stack[(slices + o).clamp(0, last)], config.window_hu) for o in offsets]
    wide = _windowed(stack[slices], config.wide_window_hu)
    return torch.stack([*narrow, wide], dim=1)


def _windowed(values: torch.Tensor, window: tuple[float, float]) -> torch.Tensor:
    low, high = window
    return (values.clamp(low, high) - low) * (2.0 / (high - low)) - 1.0


class UNetPredictor:
    """A loaded package, warm on its device.

    Parameters
    ----------
    package : ModelPackage
    network : torch.nn.Module
    config : NetworkConfig
    device : torch.device
    """

    def __init__(
        self,
        package: ModelPackage,
        network: torch.nn.Module,
        config: NetworkConfig,
        device: torch.device,
    ) -> None:
        self._package = package
        self._network = network.eval().to(device)
        self._config = config
        self._device = device

    @property
    def identity(self) -> ModelIdentity:
        """What to cite."""
        return self._package.identity

    def predict(self, volume: Volume, progress: Progress) -> Findings:
        """Label blood in a head CT.

        Parameters
        ----------
        volume : Volume
            Any orientation close to axial slices along the third axis, HU.
        progress : callable

        Returns
        -------
        Findings
            ``volume`` of each segment and in all, ml; ``probability``: the mean of the 20
            highest voxel probabilities of the largest lesion, or of the whole head when there is
            none. A single bright voxel does not make it high.

        Raises
        ------
        UnfitInput
            The volume is no head CT with a brain.
        """
        if self._package.input.content == "head-ct":
            refuse_unless_head(volume)
        probabilities = self.probabilities(volume, progress)
        rules = self._package.manifest.postprocess
        least = rules.min_component_ml / volume.voxel_ml
        labels, peak = labelled(probabilities, rules.threshold, least)
        return _findings(labels, peak, self._package.segments, volume)

    def probabilities(self, volume: Volume, progress: Progress) -> NDArray[np.float32]:
        """Probability of each class but the background, (classes - 1, *volume.array.shape)."""
        orientation = orientation_of(volume.affine)
        spacing = volume.spacing[list(orientation.axes)]
        array = orientation.to_ras(volume.array)
        stack = resampled(array, spacing, self._config)
        found = np.empty((self._config.classes - 1, *array.shape), np.float32)
        count = array.shape[2]
        with _deterministic(), torch.inference_mode():
            for start in range(0, count, BATCH):
                slices = torch.arange(start, min(start + BATCH, count))
                inputs = channels_of(stack, slices, self._config).to(self._device)
                outputs = self._network(inputs).softmax(1)[:, 1:].float().cpu()
                found[..., start : start + len(slices)] = self._on_source(outputs, array, spacing)
                progress((start + len(slices)) / count)
        return np.stack([orientation.from_ras(one) for one in found])

    def _on_source(
        self, outputs: torch.Tensor, array: NDArray[np.float32], spacing: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Cut the padding off and go back to the source's pixels."""
        shape = array.shape[:2]
        size = [max(round(n * s / self._config.spacing_mm), 1) for n, s in zip(shape, spacing)]  # noqa: B905
        outputs = outputs[:, :, : size[0], : size[1]]
        if size != list(shape):
            outputs = F.interpolate(outputs, size=list(shape), mode="bilinear", antialias=True)
        turned: NDArray[np.float32] = outputs.permute(1, 2, 3, 0).numpy()
        return turned


def labelled(
    probabilities: NDArray[np.float32], threshold: float, least_voxels: float
) -> tuple[NDArray[np.uint8], float]:
    """Label voxels above the threshold, without specks; and how sure the largest lesion is.

    Parameters
    ----------
    probabilities : NDArray[np.float32]
        (classes, columns, rows, slices)
    threshold : float
    least_voxels : float
        Smaller connected parts (26 neighbours) are dropped.

    Returns
    -------
    labels : NDArray[np.uint8]
        0 is background, 1 the first class.
    peak : float
    """
    best = probabilities.max(axis=0)
    labels = (probabilities.argmax(axis=0) + 1).astype(np.uint8)
    labels[best <= threshold] = 0
    parts, count = ndimage.label(labels > 0, np.ones((3, 3, 3)))
    region = best.ravel()
    if count:
        sizes = np.bincount(parts.ravel())
        small = sizes < least_voxels
        labels[small[parts] & (parts > 0)] = 0
        sizes[0] = 0
        if not small[sizes.argmax()]:
            region = best[parts == sizes.argmax()]
    top = min(_PEAK_VOXELS, region.size)
    return labels, float(np.partition(region, -top)[-top:].mean())


def _findings(
    labels: NDArray[np.uint8], peak: float, segments: tuple[Segment, ...], volume: Volume
) -> Findings:
    counts = np.bincount(labels.ravel(), minlength=len(segments) + 1)
    numbers = [
        Number("volume", float(counts[segment.number]) * volume.voxel_ml, "ml", segment.number)
        for segment in segments
    ]
    total = float(counts[1:].sum())
    numbers.append(Number("volume", total * volume.voxel_ml, "ml"))
    numbers.append(Number("probability", peak, "1"))
    return Findings(labels, segments, tuple(numbers), present=total > 0)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Ask for the same bits every time; what cannot give them goes on all the same."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def load_predictor(package: ModelPackage, device: str = "auto") -> UNetPredictor:
    """Load a package's weights and run its test vector.

    Raises
    ------
    BrokenPackage
        Weights and architecture do not fit, or the test vector comes out differently.
    """
    content = package.configuration()
    try:
        config = NetworkConfig.from_json(content)
        network = build(config)
        network.load_state_dict(load_file(package.file(package.manifest.files.weights)))
    except (TypeError, RuntimeError, SafetensorError, ValueError) as error:
        raise BrokenPackage(
            f"The weights of {package.identity.family} do not fit its architecture "
            f"({type(error).__name__})."
        ) from error
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    predictor = UNetPredictor(package, network, config, torch.device(name))
    _run_test_vector(package, predictor)
    return predictor


def _run_test_vector(package: ModelPackage, predictor: UNetPredictor) -> None:
    path = package.file(package.manifest.files.test_vector)
    with np.load(path, allow_pickle=False) as vector:
        volume = Volume(vector["array"].astype(np.float32), vector["affine"].astype(np.float64))
        wanted = vector["probabilities"].astype(np.float32)
    found = predictor.probabilities(volume, lambda done: None)
    worst = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else float("inf")
    if worst > package.manifest.test_vector.atol:
        raise BrokenPackage(
            f"The test vector of {package.identity.family} comes out {worst:.2g} off, allowed is "
            f"{package.manifest.test_vector.atol:g}: this machine computes something else."
        )
