"""A 3-D U-Net over any volume: a window slides over it, labelled voxels on the source grid out."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from scipy import ndimage

from models.base import Findings, ModelIdentity, Number, Progress, Segment, Volume
from models.canonical import orientation_of
from models.head_ct import refuse_unless_finite, refuse_unless_head
from models.package import ModelPackage
from models.unet import deterministic
from models.volume_network import VolumeNetworkConfig, resized, seen

OVERLAP = 0.5
WINDOWS_AT_ONCE = 2
STEP = 8


class VolumeUNetPredictor:
    """A loaded package, warm on its device.

    Parameters
    ----------
    package : ModelPackage
    network : torch.nn.Module
    config : VolumeNetworkConfig
    device : torch.device
    """

    def __init__(
        self,
        package: ModelPackage,
        network: torch.nn.Module,
        config: VolumeNetworkConfig,
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
        """Label a volume.

        Parameters
        ----------
        volume : Volume
            Any orientation, modality units.
        progress : callable

        Returns
        -------
        Findings
            ``volume`` of each segment and in all, ml; ``probability``: of the surest voxel.

        Raises
        ------
        UnfitInput
            A voxel holds no number, or the volume is not what the manifest asks for.
        """
        refuse_unless_finite(volume)
        if self._package.input.content == "head-ct":
            refuse_unless_head(volume)
        probabilities = self.probabilities(volume, progress)
        rules = self._package.manifest.postprocess
        least = rules.min_component_ml / volume.voxel_ml
        labels = labelled_volume(probabilities, rules.threshold, least)
        peak = float(probabilities.sum(axis=0).max())
        return _findings(labels, peak, self._package.segments, volume)

    def probabilities(self, volume: Volume, progress: Progress) -> NDArray[np.float32]:
        """Probability of each class but the background, (classes - 1, *volume.array.shape)."""
        return volume_probabilities_of(self._network, self._config, volume, progress, self._device)


def volume_probabilities_of(
    network: torch.nn.Module,
    config: VolumeNetworkConfig,
    volume: Volume,
    progress: Progress,
    device: torch.device,
) -> NDArray[np.float32]:
    """Run a network over a volume.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode, on `device`.
    config : VolumeNetworkConfig
    volume : Volume
        Any orientation, modality units.
    progress : callable
    device : torch.device

    Returns
    -------
    NDArray[np.float32]
        Probability of each class but the background, (classes - 1, *volume.array.shape).
    """
    orientation = orientation_of(volume.affine)
    array = orientation.to_ras(volume.array)
    spacing = volume.spacing[list(orientation.axes)]
    image = seen(array, spacing, config)
    with deterministic(), torch.inference_mode():
        found = _slide(network, config, image, device)
        if config.mirror:
            progress(0.5)
            mirrored = _slide(network, config, image.flip(1), device).flip(1)
            found = (found + mirrored) / 2
    progress(1.0)
    on_source = resized(found, list(array.shape))[1:].numpy()
    return np.stack([orientation.from_ras(one) for one in on_source])


def _slide(
    network: torch.nn.Module,
    config: VolumeNetworkConfig,
    image: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """Probabilities of all classes, (classes, right, anterior, superior), on the CPU."""
    shape = image.shape[1:]
    padded = [n + -n % STEP for n in shape]
    around = [
        amount
        for n, wanted in reversed(list(zip(shape, padded, strict=True)))
        for amount in ((wanted - n) // 2, wanted - n - (wanted - n) // 2)
    ]
    window = [min(wanted, 2 * size) for wanted, size in zip(padded, config.patch, strict=True)]
    found: torch.Tensor = sliding_window_inference(
        F.pad(image, around)[None],
        roi_size=window,
        sw_batch_size=WINDOWS_AT_ONCE,
        predictor=lambda patch: network(patch).softmax(1),
        overlap=OVERLAP,
        mode="gaussian",
        sw_device=device,
        device=torch.device("cpu"),
    )
    cut = tuple(slice((w - n) // 2, (w - n) // 2 + n) for n, w in zip(shape, padded, strict=True))
    return found[0][(slice(None), *cut)].float()


def labelled_volume(
    probabilities: NDArray[np.float32], threshold: float, least_voxels: float
) -> NDArray[np.uint8]:
    """Label voxels that are foreground by more than the threshold with their likeliest class.

    Between two structures neither may be likely alone: their sum decides.

    Parameters
    ----------
    probabilities : NDArray[np.float32]
        (classes, columns, rows, slices), without the background.
    threshold : float
    least_voxels : float
        Smaller connected parts of a class (26 neighbours) are dropped.
    """
    labels = (probabilities.argmax(axis=0) + 1).astype(np.uint8)
    labels[probabilities.sum(axis=0) <= threshold] = 0
    for number in range(1, len(probabilities) + 1):
        drop_specks(labels, number, least_voxels)
    return labels


def drop_specks(labels: NDArray[np.uint8], number: int, least_voxels: float) -> None:
    """Set connected parts of one label that are too small to background, in place."""
    if least_voxels <= 1:
        return
    parts, count = ndimage.label(labels == number, np.ones((3, 3, 3)))
    if count:
        small = np.bincount(parts.ravel()) < least_voxels
        labels[small[parts] & (parts > 0)] = 0


def _findings(
    labels: NDArray[np.uint8], peak: float, segments: tuple[Segment, ...], volume: Volume
) -> Findings:
    counts = np.bincount(labels.ravel(), minlength=len(segments) + 1)
    numbers = [
        Number("volume", float(counts[s.number]) * volume.voxel_ml, "ml", s.number)
        for s in segments
    ]
    total = float(counts[1:].sum())
    numbers.append(Number("volume", total * volume.voxel_ml, "ml"))
    numbers.append(Number("probability", peak, "1"))
    return Findings(labels, segments, tuple(numbers), present=total > 0)
