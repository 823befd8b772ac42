"""The networks of nnU-Net v2, with the names of its tensors, so that its weights fit.

References
----------
Isensee et al., Nature Methods 18:203 (2021); MIC-DKFZ/dynamic-network-architectures (Apache-2.0)
defines the order of layers that a checkpoint's names stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

Sizes = Sequence[int] | int
_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_POOL: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


def _tuple(value: Sizes, dimensions: int) -> tuple[int, ...]:
    return (value,) * dimensions if isinstance(value, int) else tuple(value)


class ConvNormAct(nn.Module):
    """Convolution, instance norm, leaky ReLU; the names are those of nnU-Net's checkpoints."""

    def __init__(
        self, dimensions: int, inside: int, out: int, kernel: Sizes, stride: Sizes, act: bool = True
    ) -> None:
        super().__init__()
        kernel = _tuple(kernel, dimensions)
        padding = tuple((size - 1) // 2 for size in kernel)
        stride = _tuple(stride, dimensions)
        self.conv = _CONV[dimensions](inside, out, kernel, stride, padding=padding, bias=True)
        self.norm = _NORM[dimensions](out, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True) if act else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, channels, *space)."""
        found: torch.Tensor = self.nonlin(self.norm(self.conv(x)))
        return found


class StackedConvs(nn.Module):
    """Several convolutions; the first has the stride."""

    def __init__(
        self, count: int, dimensions: int, inside: int, out: int, kernel: Sizes, stride: Sizes
    ) -> None:
        super().__init__()
        first = ConvNormAct(dimensions, inside, out, kernel, stride)
        more = [ConvNormAct(dimensions, out, out, kernel, 1) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, channels, *space)."""
        found: torch.Tensor = self.convs(x)
        return found


class ResidualBlock(nn.Module):
    """Two convolutions and what they are added to (BasicBlockD)."""

    def __init__(
        self, dimensions: int, inside: int, out: int, kernel: Sizes, stride: Sizes
    ) -> None:
        super().__init__()
        stride = _tuple(stride, dimensions)
        self.conv1 = ConvNormAct(dimensions, inside, out, kernel, stride)
        self.conv2 = ConvNormAct(dimensions, out, out, kernel, 1, act=False)
        self.nonlin2 = nn.LeakyReLU(inplace=True)
        skip: list[nn.Module] = []
        if any(step != 1 for step in stride):
            skip.append(_POOL[dimensions](stride, stride))
        if inside != out:
            skip.append(_Projection(dimensions, inside, out))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, channels, *space)."""
        found: torch.Tensor = self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))
        return found


class _Projection(nn.Module):
    """A 1 x 1 convolution without bias, then instance norm."""

    def __init__(self, dimensions: int, inside: int, out: int) -> None:
        super().__init__()
        self.conv = _CONV[dimensions](inside, out, 1, 1, bias=False)
        self.norm = _NORM[dimensions](out, eps=1e-5, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.conv(x))
        return found


class _Encoder(nn.Module):
    def __init__(self, stages: Sequence[nn.Module], stem: nn.Module | None) -> None:
        super().__init__()
        if stem is not None:
            self.stem = stem
        self.has_stem = stem is not None
        self.stages = nn.Sequential(*stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        if self.has_stem:
            x = self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class _Decoder(nn.Module):
    """Transposed convolutions up, skips in between; only the finest output is computed."""

    def __init__(
        self,
        dimensions: int,
        features: Sequence[int],
        kernels: Sequence[Sizes],
        strides: Sequence[Sizes],
        counts: Sequence[int],
        classes: int,
    ) -> None:
        super().__init__()
        ups, stages, heads = [], [], []
        for level in range(len(features) - 1, 0, -1):
            below, here = features[level], features[level - 1]
            step = _tuple(strides[level], dimensions)
            ups.append(_UP[dimensions](below, here, step, step, bias=True))
            count = counts[len(features) - 1 - level]
            stages.append(StackedConvs(count, dimensions, 2 * here, here, kernels[level - 1], 1))
            heads.append(_CONV[dimensions](here, classes, 1, 1, padding=0, bias=True))
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(ups)
        self.seg_layers = nn.ModuleList(heads)

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        x = skips[-1]
        for level, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = stage(torch.cat([up(x), skips[-(level + 2)]], dim=1))
        found: torch.Tensor = self.seg_layers[-1](x)
        return found


class PlainConvUNet(nn.Module):
    """nnU-Net's usual network.

    Parameters
    ----------
    dimensions : int
        2 or 3.
    input_channels, num_classes : int
    features_per_stage : sequence of int
    kernel_sizes, strides : sequence
        One for each stage, a number or one for each axis.
    n_conv_per_stage, n_conv_per_stage_decoder : sequence of int
    """

    def __init__(
        self,
        dimensions: int,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Any],
        strides: Sequence[Any],
        n_conv_per_stage: Sequence[int],
        n_conv_per_stage_decoder: Sequence[int],
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inside = input_channels
        per_stage = zip(features_per_stage, kernel_sizes, strides, n_conv_per_stage, strict=True)
        for out, kernel, stride, count in per_stage:
            stages.append(
                nn.Sequential(StackedConvs(count, dimensions, inside, out, kernel, stride))
            )
            inside = out
        self.encoder = _Encoder(stages, None)
        self.decoder = _Decoder(
            dimensions,
            features_per_stage,
            kernel_sizes,
            strides,
            n_conv_per_stage_decoder,
            num_classes,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, channels, *space) to (batch, classes, *space), logits."""
        found: torch.Tensor = self.decoder(self.encoder(x))
        return found


class ResidualEncoderUNet(nn.Module):
    """nnU-Net's network with residual blocks on the way down; arguments as `PlainConvUNet`."""

    def __init__(
        self,
        dimensions: int,
        input_channels: int,
        num_classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Any],
        strides: Sequence[Any],
        n_blocks_per_stage: Sequence[int],
        n_conv_per_stage_decoder: Sequence[int],
    ) -> None:
        super().__init__()
        first = features_per_stage[0]
        stem = StackedConvs(1, dimensions, input_channels, first, kernel_sizes[0], 1)
        stages: list[nn.Module] = []
        inside = first
        per_stage = zip(features_per_stage, kernel_sizes, strides, n_blocks_per_stage, strict=True)
        for out, kernel, stride, count in per_stage:
            stages.append(_Blocks(count, dimensions, inside, out, kernel, stride))
            inside = out
        self.encoder = _Encoder(stages, stem)
        self.decoder = _Decoder(
            dimensions,
            features_per_stage,
            kernel_sizes,
            strides,
            n_conv_per_stage_decoder,
            num_classes,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, channels, *space) to (batch, classes, *space), logits."""
        found: torch.Tensor = self.decoder(self.encoder(x))
        return found


class _Blocks(nn.Module):
    def __init__(
        self, count: int, dimensions: int, inside: int, out: int, kernel: Sizes, stride: Sizes
    ) -> None:
        super().__init__()
        first = ResidualBlock(dimensions, inside, out, kernel, stride)
        more = [ResidualBlock(dimensions, out, out, kernel, 1) for _ in range(count - 1)]
        self.blocks = nn.Sequential(first, *more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.blocks(x)
        return found
