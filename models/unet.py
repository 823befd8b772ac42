"""A 2.5-D U-Net for axial CT: neighbouring slices in, labelled voxels on the source grid out."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from scipy import ndimage

from models.base import (
    BrokenPackage,
    Findings,
    ModelIdentity,
    Number,
    Progress,
    Segment,
    Volume,
    Voxels,
)
from models.canonical import orientation_of
from models.filling import fill
from models.head_ct import refuse_unless_finite, refuse_unless_head
from models.network import MULTIPLE, NetworkConfig, build
from models.package import ModelPackage
from models.skull import strays

BATCH = 8
_PEAK_VOXELS = 20
_MOST_VECTOR_BYTES = 256 << 20


def resampled(array: Voxels, spacing: NDArray[np.float64], config: NetworkConfig) -> torch.Tensor:
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
    stack = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1), np.float32))[:, None]
    size = _network_size(array.shape, spacing, config)
    if size != list(array.shape[:2]):
        stack = F.interpolate(stack, size=size, mode="bilinear", antialias=True)
    pad = [-n % MULTIPLE for n in size]
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
            highest voxel probabilities of the largest lesion, or of everything but dropped specks
            when there is none, so that it is above the threshold only where a lesion is.

        Raises
        ------
        UnfitInput
            The volume is no head CT with a brain, or a voxel holds no number.
        """
        refuse_unless_finite(volume)
        if self._package.input.content == "head-ct":
            refuse_unless_head(volume)
        probabilities = self.probabilities(volume, progress)
        rules = self._package.manifest.postprocess
        if rules.within == "skull":
            marks = probabilities.max(axis=0) > rules.threshold
            probabilities[:, strays(volume, marks, rules.min_component_ml)] = 0
        least = rules.min_component_ml / volume.voxel_ml
        labels, peak = labelled(probabilities, rules.threshold, least)
        return _findings(labels, peak, self._package.segments, volume)

    def probabilities(self, volume: Volume, progress: Progress) -> NDArray[np.float32]:
        """Probability of each class but the background, (classes - 1, *volume.array.shape)."""
        return probabilities_of(self._network, self._config, volume, progress, self._device)


def probabilities_of(
    network: torch.nn.Module,
    config: NetworkConfig,
    volume: Volume,
    progress: Progress,
    device: torch.device,
) -> NDArray[np.float32]:
    """Run a network over a volume.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, on `device`.
    config : NetworkConfig
    volume : Volume
        Any orientation, HU.
    progress : callable
    device : torch.device

    Returns
    -------
    NDArray[np.float32]
        Probability of each class but the background, (classes - 1, *volume.array.shape).
    """
    orientation = orientation_of(volume.affine)
    spacing = volume.spacing[list(orientation.axes)]
    array = orientation.to_ras(volume.array)
    stack = resampled(array, spacing, config)
    found = np.empty((config.classes - 1, *array.shape), np.float32)
    count = array.shape[2]
    with deterministic(), torch.inference_mode():
        for start in range(0, count, BATCH):
            slices = torch.arange(start, min(start + BATCH, count))
            inputs = channels_of(stack, slices, config).to(device)
            outputs = network(inputs).softmax(1)[:, 1:].float().cpu()
            size = _network_size(array.shape, spacing, config)
            found[..., start : start + len(slices)] = _on_source(outputs, size, array.shape)
            progress((start + len(slices)) / count)
    return np.stack([orientation.from_ras(one) for one in found])


def _network_size(
    shape: tuple[int, ...], spacing: NDArray[np.float64], config: NetworkConfig
) -> list[int]:
    """Columns and rows of a slice in the network's pixels, before padding."""
    return [
        max(round(n * s / config.spacing_mm), 1)
        for n, s in zip(shape[:2], spacing[:2], strict=True)
    ]


def _on_source(
    outputs: torch.Tensor, size: list[int], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Cut the padding off and go back to the source's pixels."""
    outputs = outputs[:, :, : size[0], : size[1]]
    if size != list(shape[:2]):
        outputs = F.interpolate(outputs, size=list(shape[:2]), mode="bilinear", antialias=True)
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
    region = best[parts == 0]
    if count:
        sizes = np.bincount(parts.ravel())
        small = sizes < least_voxels
        labels[small[parts] & (parts > 0)] = 0
        sizes[0] = 0
        if not small[sizes.argmax()]:
            region = best[parts == sizes.argmax()]
    top = min(_PEAK_VOXELS, region.size)
    if top == 0:
        return labels, threshold
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
def deterministic() -> Iterator[None]:
    """Ask for the same bits every time; what cannot give them goes on all the same.

    TensorFloat-32 is off: it would move probabilities in the third decimal between machines. These
    are settings of the whole process: one thread at a time.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def load_predictor(package: ModelPackage, device: str = "auto") -> UNetPredictor:
    """Load a package's weights and run its test vector.

    Parameters
    ----------
    package : ModelPackage
    device : str
        A torch device; ``auto`` is the GPU where there is one.

    Raises
    ------
    BrokenPackage
        Weights and architecture do not fit, or the test vector comes out differently.
    """
    config, network = _load_network(package)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    predictor = UNetPredictor(package, network, config, torch.device(name))
    _run_test_vector(package, predictor)
    return predictor


def _load_network(package: ModelPackage) -> tuple[NetworkConfig, torch.nn.Module]:
    family, segments = package.identity.family, len(package.segments)
    try:
        config = NetworkConfig.from_json(package.configuration())
        with torch.random.fork_rng(devices=[]):
            network = build(config)
        fill(network, load_tensors(package.read(package.weights_entry)), family)
    except BrokenPackage:
        raise
    except (TypeError, RuntimeError, SafetensorError, ValueError, KeyError) as error:
        raise BrokenPackage(
            f"The weights of {family} do not fit its architecture ({type(error).__name__})."
        ) from error
    if config.classes != segments + 1:
        raise BrokenPackage(
            f"The network of {family} tells {config.classes - 1} kinds of voxel apart, "
            f"its manifest names {segments}."
        )
    return config, network


def _run_test_vector(package: ModelPackage, predictor: UNetPredictor) -> None:
    volume, wanted = _test_vector(package)
    found = predictor.probabilities(volume, lambda done: None)
    worst = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else math.inf
    if not worst <= package.manifest.test_vector.atol:
        raise BrokenPackage(
            f"The test vector of {package.identity.family} comes out {worst:.2g} off, allowed is "
            f"{package.manifest.test_vector.atol:g}: this machine computes something else."
        )


def _test_vector(package: ModelPackage) -> tuple[Volume, NDArray[np.float32]]:
    """Read the volume and the probabilities that belong to it."""
    data = io.BytesIO(package.read(package.manifest.files.test_vector))
    try:
        with zipfile.ZipFile(data) as archive:
            if sum(item.file_size for item in archive.infolist()) > _MOST_VECTOR_BYTES:
                raise ValueError("too large")
        with np.load(data, allow_pickle=False) as vector:
            volume = Volume(vector["array"].astype(np.float32), vector["affine"].astype(np.float64))
            wanted = vector["probabilities"].astype(np.float32)
        refuse_unless_finite(volume)
        orientation_of(volume.affine)
    except (ValueError, KeyError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BrokenPackage(
            f"The test vector of {package.identity.family} cannot be read ({type(error).__name__})."
        ) from error
    return volume, wanted
