"""Views of a camera that is pitched and rolled, out of what a level one with other rows and columns sees.

Turning a camera about its centre moves no point against another: a pixel of the tilted camera looks along a ray that
the level one has, too, at the slopes right / forward and up / forward. Without roll the slope upwards is the same all
along a row, and the level camera is given these very rows; with roll it is given rows an even step apart. Its columns
are as fine as the finest of the tilted view, and every pixel takes what lies beside it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.sim.sensors.mounting import MountedCamera

LEAST_FORWARD = 0.2  # rays that look farther up or down than this have no level counterpart of a sensible size
SAME_SURFACE = 0.05  # relative difference of depth up to which neighbouring rays see one surface
HORIZON = 1e-7  # the slope of a level row, which nothing is divided by


class TiltedView:
    """From rows and columns of a level camera to the pixels of a tilted one.

    Attributes:
        slopes_right: (V,) offsets to the right of the level camera's columns, per unit of depth.
        slopes_up: (U,) rise of its rows.
    """

    def __init__(self, camera: MountedCamera, device: torch.device) -> None:
        """Prepare the view; raise ConfigError for a camera that looks straight up or down at an edge."""
        own = camera.intrinsics
        right, down, forward = np.moveaxis(camera.rays_optical @ camera.R_level_camera.T, -1, 0)
        if forward.min() < LEAST_FORWARD:
            high = math.degrees(2.0 * math.atan(max(own.cy, own.height - own.cy) / own.fy))
            raise ConfigError(
                f"pitch_rad {camera.pitch_rad:.2f} turns a camera {high:.0f} degrees high so far that it sees straight "
                "down or up, which the built-in worlds cannot show; choose a smaller pitch or view"
            )
        across, rise = right / forward, -down / forward
        finest = 1.0 / (own.fx * float(forward.max()))
        columns, left, share = _steps(across, finest)
        rows, self._share_down = rise[:, 0], None
        self._rows: tuple[int, ...] = (0,)
        top: NDArray[np.int64] = np.arange(own.height)[:, None]
        if camera.roll_rad:
            rows, top, share_down = _steps(rise, 1.0 / own.fy)
            self._rows = (0, 1)
            self._share_down = torch.from_numpy(share_down).float().to(device)
        rows = np.where(np.abs(rows) < HORIZON, HORIZON, rows)
        self.slopes_right, self.slopes_up = (torch.from_numpy(slopes).float().to(device) for slopes in (columns, rows))
        self._share = torch.from_numpy(share).float().to(device)  # (H, W) of the right column
        self._left, self._top = (torch.from_numpy(index).to(device) for index in (left, top))
        self._optical = torch.from_numpy(1.0 / forward).float().to(device)  # z-depth per level depth

    def resample(
        self, colours: torch.Tensor, depth: torch.Tensor, images: torch.Tensor, depth_out: torch.Tensor
    ) -> None:
        """Fill images (B, 3, H, W) and z-depth (B, H, W) from colours (B, 3, V, U) and level depth (B, V, U)."""
        images.copy_(self._between(self._around(colours)))
        inverse = self._around(depth.reciprocal())  # inverse depth is linear on planes
        between, nearest = self._between(inverse), self._nearest(inverse)
        highest, lowest = torch.stack(inverse).amax(0), torch.stack(inverse).amin(0)
        smooth = highest - lowest < SAME_SURFACE * len(self._rows) * highest
        depth_out.copy_(self._optical / torch.where(smooth, between, nearest))

    def _around(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return values (..., H, W) at the columns left and right of every pixel, above it and, with roll, below it."""
        return [values[..., self._left + side, self._top + down] for down in self._rows for side in (0, 1)]

    def _between(self, around: list[torch.Tensor]) -> torch.Tensor:
        share = self._share.expand_as(around[0])
        level = [torch.lerp(left, right, share) for left, right in zip(around[::2], around[1::2], strict=True)]
        if self._share_down is None:
            return level[0]
        return torch.lerp(level[0], level[1], self._share_down.expand_as(level[0]))

    def _nearest(self, around: list[torch.Tensor]) -> torch.Tensor:
        nearer = self._share < 0.5
        level = [torch.where(nearer, left, right) for left, right in zip(around[::2], around[1::2], strict=True)]
        return level[0] if self._share_down is None else torch.where(self._share_down < 0.5, level[0], level[1])


def _steps(
    slopes: NDArray[np.float64], step: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return slopes (N,), an even step apart, and for each of (H, W) the one before it and the share of the next."""
    low, high = float(slopes.min()), float(slopes.max())
    count = math.ceil((high - low) / step) + 1
    place = (slopes - low) * ((count - 1) / (high - low))
    before = np.clip(np.floor(place), 0, count - 2).astype(np.int64)
    return np.asarray(np.linspace(low, high, count), np.float64), before, place - before
