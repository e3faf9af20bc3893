"""Depth of a camera image, estimated by a small U-Net: what lets a camera-only model move pixels as space demands.

It is trained in built-in worlds, where depth is known; the height and tilt of the camera it learned with are part of
what it knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ConfigError

MEAN_LOG_DEPTH = 0.7  # log of 2 m: where an untrained network starts
LOG_DEPTH_RANGE = (-3.0, 4.0)  # 5 cm to 55 m


@dataclass(frozen=True)
class DepthSettings:
    """Shape of the estimator.

    Attributes:
        widths: channels from half the image's size inwards, each level half as large as the one before; multiples of 8.
        inner_blocks: residual blocks per level from the third level on (one before).
    """

    widths: tuple[int, ...] = (32, 48, 64, 96)
    inner_blocks: int = 2

    def __post_init__(self) -> None:
        check_range("depth.inner_blocks", self.inner_blocks, 1)
        if not self.widths or any(width < 8 or width % 8 for width in self.widths):
            raise ConfigError(f"depth.widths must be multiples of 8, got {list(self.widths)}")


class DepthEstimator(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to log z-depth (B, H, W), natural logarithm of metres.

    H and W must be multiples of 2^(number of widths).
    """

    def __init__(self, settings: DepthSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or DepthSettings()
        widths = self.settings.widths
        levels = range(len(widths))
        self.stem = nn.Conv2d(12 + 2, widths[0], 3, padding=1)  # 2x2 pixels of 3 colours, and the cell's row and column
        self.down = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 2, stride=2) for i in levels[:-1])
        self.up = nn.ModuleList(nn.Conv2d(widths[i + 1], 4 * widths[i], 1) for i in levels[:-1])
        blocks = [self.settings.inner_blocks if level >= 2 else 1 for level in levels]
        self.encoder = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(widths[level]) for _ in range(blocks[level]))) for level in levels
        )
        self.decoder = nn.ModuleList(ResidualBlock(widths[level]) for level in levels[:-1])
        self.head = nn.Conv2d(widths[0], 4, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, MEAN_LOG_DEPTH)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Return log depth (B, H, W)."""
        sizes = check_shape("images", images, "B 3 H W")
        step = 2 ** len(self.settings.widths)
        if sizes["H"] % step or sizes["W"] % step:
            raise ConfigError(f"the depth estimator needs image sides that are multiples of {step}, got {images.shape}")
        cells = pixel_unshuffle(images, 2)
        hidden = self.stem(torch.cat([cells, _rows_and_columns(cells)], dim=1))
        skips = []
        for level, block in enumerate(self.encoder):
            hidden = block(hidden)
            if level < len(self.down):
                skips.append(hidden)
                hidden = self.down[level](hidden)
        for level in reversed(range(len(self.down))):
            hidden = self.decoder[level](skips[level] + pixel_shuffle(self.up[level](hidden), 2))
        log_depth: Tensor = pixel_shuffle(self.head(silu(hidden)), 2)[:, 0]
        return log_depth.float().clamp(*LOG_DEPTH_RANGE)

    def depth_m(self, images: Tensor) -> Tensor:
        """Return z-depth (B, H, W) in metres."""
        return self(images).exp()  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Group norm, SiLU and two 3x3 convolutions beside an identity; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """Transform features (B, width, h, w)."""
        changed: Tensor = self.second(silu(self.first(silu(self.norm(features)))))
        return features + changed


def _rows_and_columns(like: Tensor) -> Tensor:
    """Return (B, 2, h, w): each cell's row and column in [-1, 1]. Depth depends on the row: the floor is level."""
    batch, _, height, width = like.shape
    rows = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    columns = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return grid.expand(batch, -1, -1, -1)
