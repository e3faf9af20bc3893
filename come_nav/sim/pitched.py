"""Views of a camera that is pitched up or down, out of what a level one with other rows and columns sees.

A pixel at (x, y) of the pitched camera (y upwards, in units of the focal length) looks along forward
F = cos p - y sin p, up U = sin p + y cos p and right x, seen from the level frame. Its level row has the slope U / F,
which depends on y alone: the level camera is given these very rows. Its level column is x / F, which differs from row
to row: the level camera is given columns as fine as the finest of these, and every pixel takes the two beside it.
"""

from __future__ import annotations

import math

import torch

from come_nav.core.errors import ConfigError
from come_nav.core.types import CameraIntrinsics

LEAST_FORWARD = 0.2  # rows that look farther up or down than this have no level counterpart of a sensible size
SAME_SURFACE = 0.05  # relative difference of depth up to which two columns see one surface


class PitchedView:
    """From columns of a level camera to the pixels of a pitched one.

    Attributes:
        slopes_right: (V,) offsets to the right of the level camera's columns, per unit of depth.
        slopes_up: (H,) rise of its rows.
    """

    def __init__(self, intrinsics: CameraIntrinsics, pitch_rad: float, device: torch.device) -> None:
        """Prepare the view; raise ConfigError for a camera that looks straight up or down at an edge."""
        x = (torch.arange(intrinsics.width, dtype=torch.float64) + 0.5 - intrinsics.cx) / intrinsics.fx
        y = (intrinsics.cy - torch.arange(intrinsics.height, dtype=torch.float64) - 0.5) / intrinsics.fy
        cosine, sine = math.cos(pitch_rad), math.sin(pitch_rad)
        forward = cosine - y * sine
        if float(forward.min()) < LEAST_FORWARD:
            raise ConfigError(
                f"pitch_rad {pitch_rad:.2f} turns a camera {2 * math.degrees(math.atan(float(y.abs().max()))):.0f} "
                "degrees high too far; choose a smaller pitch or view"
            )
        up = (sine + y * cosine) / forward
        up[up.abs() < 1e-7] = 1e-7
        low, high = float((x[0] / forward).min()), float((x[-1] / forward).max())
        finest = 1.0 / (intrinsics.fx * float(forward.max()))
        count = math.ceil((high - low) / finest) + 1
        columns = torch.linspace(low, high, count, dtype=torch.float64)
        place = (x / forward[:, None] - low) * ((count - 1) / (high - low))
        left = place.floor().clamp(0, count - 2)
        self.slopes_right, self.slopes_up = columns.float().to(device), up.float().to(device)
        self._share = (place - left).float().to(device)  # (H, W) of the right column
        self._left = left.long().to(device)
        self._row = torch.arange(intrinsics.height, device=device)[:, None]
        self._optical = (cosine + up * sine).float().to(device)

    def resample(
        self, colours: torch.Tensor, depth: torch.Tensor, images: torch.Tensor, depth_out: torch.Tensor
    ) -> None:
        """Fill images (B, 3, H, W) and z-depth (B, H, W) from colours (B, 3, V, H) and level depth (B, V, H)."""
        at_left, at_right = (colours[:, :, self._left + side, self._row] for side in (0, 1))
        torch.lerp(at_left, at_right, self._share.expand_as(images), out=images)
        near, far = (depth[:, self._left + side, self._row].reciprocal() for side in (0, 1))
        between = torch.lerp(near, far, self._share.expand_as(depth_out))  # inverse depth is linear on planes
        nearest = torch.where(self._share < 0.5, near, far)
        smooth = (near - far).abs() < SAME_SURFACE * torch.maximum(near, far)
        depth_out.copy_(self._optical[:, None] / torch.where(smooth, between, nearest))
