"""EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946) with the tensor names of the package efficientnet_pytorch.

Padding is that package's: what TensorFlow's "same" gives for images of 224 px, whatever the image's size is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# kernel, repeats, channels in, channels out, expansion, stride of the first repeat
STAGES = (
    (3, 1, 32, 16, 1, 1),
    (3, 2, 16, 24, 6, 2),
    (5, 2, 24, 40, 6, 2),
    (3, 3, 40, 80, 6, 2),
    (5, 3, 80, 112, 6, 1),
    (5, 4, 112, 192, 6, 2),
    (3, 1, 192, 320, 6, 1),
)
STEM_CHANNELS, FEATURES, CLASSES = 32, 1280, 1000
SQUEEZE_RATIO = 0.25
MOMENTUM, EPSILON = 0.01, 1e-3  # of batch normalisation
DROP_CONNECT, DROPOUT = 0.2, 0.2
GROUP_CHANNELS = 16  # channels of a group, where NoMaD has group in place of batch normalisation


class SamePadConv(nn.Conv2d):
    """Convolution that pads an even size to half of it (stride 2) or keeps it (stride 1), more on the far side."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H / stride, W / stride) of (B, C, H, W)."""
        total = self.kernel_size[0] - self.stride[0]
        near = total // 2
        return super().forward(functional.pad(x, (near, total - near, near, total - near)))


def same_pad_conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, **options: Any) -> nn.Conv2d:
    """Return the convolution; kernels of one pixel need no padding."""
    kind = nn.Conv2d if kernel == 1 else SamePadConv
    return kind(channels_in, channels_out, kernel, stride, **options)


def scaled(channels: int, width: float) -> int:
    """Return channels of a network that is ``width`` times as wide, a multiple of the 16 that a group holds.

    At width 1 they are the published ones, whatever they are a multiple of.
    """
    return channels if width == 1.0 else max(GROUP_CHANNELS, GROUP_CHANNELS * round(channels * width / GROUP_CHANNELS))


def normalisation(channels: int, group_norm: bool) -> nn.Module:
    """Return batch normalisation, or the groups of 16 channels that NoMaD has instead."""
    return (
        nn.GroupNorm(channels // GROUP_CHANNELS, channels)
        if group_norm
        else nn.BatchNorm2d(channels, EPSILON, MOMENTUM)
    )


class MBConv(nn.Module):
    """Inverted residual with depthwise convolution and squeeze-and-excitation."""

    def __init__(
        self,
        kernel: int,
        channels_in: int,
        channels_out: int,
        expansion: int,
        stride: int,
        group_norm: bool,
        drop: float,
    ) -> None:
        super().__init__()
        wide, squeezed = channels_in * expansion, max(1, int(channels_in * SQUEEZE_RATIO))
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = same_pad_conv(channels_in, wide, 1, bias=False)
            self._bn0 = normalisation(wide, group_norm)
        self._depthwise_conv = same_pad_conv(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = normalisation(wide, group_norm)
        self._se_reduce = same_pad_conv(wide, squeezed, 1)
        self._se_expand = same_pad_conv(squeezed, wide, 1)
        self._project_conv = same_pad_conv(wide, channels_out, 1, bias=False)
        self._bn2 = normalisation(channels_out, group_norm)
        self.has_skip, self.drop = stride == 1 and channels_in == channels_out, drop

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, C', H', W') of (B, C, H, W)."""
        x = functional.silu(self._bn0(self._expand_conv(inputs))) if self.expands else inputs
        x = functional.silu(self._bn1(self._depthwise_conv(x)))
        squeezed = functional.silu(self._se_reduce(functional.adaptive_avg_pool2d(x, 1)))
        x = torch.sigmoid(self._se_expand(squeezed)) * x
        x = self._bn2(self._project_conv(x))
        return _drop_samples(x, self.drop, self.training) + inputs if self.has_skip else x


class EfficientNetB0(nn.Module):
    """The backbone, ``width`` times as wide as the published one.

    The unused classifier ``_fc`` is part of the published weights, so a network of their width keeps it.
    """

    def __init__(self, channels_in: int = 3, group_norm: bool = False, width: float = 1.0) -> None:
        super().__init__()
        stem, features = scaled(STEM_CHANNELS, width), scaled(FEATURES, width)
        self._conv_stem = same_pad_conv(channels_in, stem, 3, 2, bias=False)
        self._bn0 = normalisation(stem, group_norm)
        shapes = [
            (
                kernel,
                scaled(first if repeat == 0 else last, width),
                scaled(last, width),
                expansion,
                1 if repeat else stride,
            )
            for kernel, repeats, first, last, expansion, stride in STAGES
            for repeat in range(repeats)
        ]
        self._blocks = nn.ModuleList(
            MBConv(*shape, group_norm, DROP_CONNECT * index / len(shapes)) for index, shape in enumerate(shapes)
        )
        self._conv_head = same_pad_conv(scaled(STAGES[-1][3], width), features, 1, bias=False)
        self._bn1 = normalisation(features, group_norm)
        self._dropout = nn.Dropout(DROPOUT)
        if width == 1.0:
            self._fc = nn.Linear(features, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, 1280 * width) of images (B, C, H, W)."""
        x = functional.silu(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            x = block(x)
        x = functional.silu(self._bn1(self._conv_head(x)))
        pooled: Tensor = self._dropout(functional.adaptive_avg_pool2d(x, 1).flatten(start_dim=1))
        return pooled


def _drop_samples(x: Tensor, share: float, training: bool) -> Tensor:
    """Leave a block's own contribution out for a share of the samples while training."""
    if not training or share == 0.0:
        return x
    return x * functional.dropout(x.new_ones(len(x), 1, 1, 1), share)
