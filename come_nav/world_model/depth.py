"""Depth of a camera image, estimated by a small U-Net: what lets a camera-only model move pixels as space demands.

It is trained in built-in worlds, where depth is known; the height and tilt of the camera it learned with are part of
what it knows.
"""

from __future__ import annotations

import math
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
        canonical_focal: focal length, as a share of the image's side, of the camera that the network thinks it looks
            through; its answer is scaled by the real one's over this (the canonical camera of Metric3D,
            arXiv 2307.10984, section 3.2). 0 = the network knows one camera only.
    """

    widths: tuple[int, ...] = (32, 48, 64, 96)
    inner_blocks: int = 2
    canonical_focal: float = 0.0

    def __post_init__(self) -> None:
        check_range("depth.inner_blocks", self.inner_blocks, 1)
        check_range("depth.canonical_focal", self.canonical_focal, 0.0, 10.0)
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

    def forward(self, images: Tensor, camera: Tensor | None = None) -> Tensor:
        """Return log depth (B, H, W).

        ``camera`` (B or 1, 4) is fx, fy, cx, cy as fractions of width and height, for estimators with a
        ``canonical_focal``; without one (or in rows of NaN) the image counts as the canonical camera's.
        """
        sizes = check_shape("images", images, "B 3 H W")
        step = 2 ** len(self.settings.widths)
        if sizes["H"] % step or sizes["W"] % step:
            raise ConfigError(f"the depth estimator needs image sides that are multiples of {step}, got {images.shape}")
        cells = pixel_unshuffle(images, 2)
        places, log_scale = self._places(cells, camera)
        hidden = self.stem(torch.cat([cells, places], dim=1))
        skips = []
        for level, block in enumerate(self.encoder):
            hidden = block(hidden)
            if level < len(self.down):
                skips.append(hidden)
                hidden = self.down[level](hidden)
        for level in reversed(range(len(self.down))):
            hidden = self.decoder[level](skips[level] + pixel_shuffle(self.up[level](hidden), 2))
        log_depth: Tensor = pixel_shuffle(self.head(silu(hidden)), 2)[:, 0].float()
        return (log_depth if log_scale is None else log_depth + log_scale[:, None, None]).clamp(*LOG_DEPTH_RANGE)

    def depth_m(self, images: Tensor, camera: Tensor | None = None) -> Tensor:
        """Return z-depth (B, H, W) in metres; ``camera`` as in :meth:`forward`."""
        return self(images, camera).exp()  # type: ignore[no-any-return]

    def features(self, images: Tensor) -> Tensor:
        """Return features (B, 2 C) of images: mean and deviation over the image of each channel of the innermost level.

        They tell images of rooms apart by what they show, and serve to compare sets of images.
        """
        cells = pixel_unshuffle(images, 2)
        hidden = self.stem(torch.cat([cells, self._places(cells, None)[0]], dim=1))
        for level, block in enumerate(self.encoder):
            hidden = block(hidden)
            if level < len(self.down):
                hidden = self.down[level](hidden)
        return torch.cat([hidden.mean((2, 3)), hidden.std((2, 3))], dim=1)

    def _places(self, cells: Tensor, camera: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return where each cell looks (B, 2, h, w), and the log (B or 1,) of the real focal length over the canonical.

        With a canonical camera those are the slopes of its rays, down and right, in half images of that camera.
        """
        places, canonical = _rows_and_columns(cells), self.settings.canonical_focal
        if not canonical:
            return places, None
        usual = torch.tensor([[canonical, canonical, 0.5, 0.5]], device=cells.device)
        if camera is not None:
            camera = camera.to(usual)
            usual = torch.where(torch.isfinite(camera).all(1, keepdim=True), camera, usual)
        centre = (2.0 * usual[:, [3, 2]] - 1.0)[:, :, None, None]
        focal = usual[:, [1, 0]][:, :, None, None]
        slopes = (places.float() - centre) * canonical / focal
        log_scale = 0.5 * (usual[:, 0] * usual[:, 1]).log() - math.log(canonical)
        return slopes.to(cells).expand(len(cells), -1, -1, -1), log_scale


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
