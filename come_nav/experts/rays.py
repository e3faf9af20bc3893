"""Rays of image patches as Pluecker coordinates: where each patch of a frame looks from and to, in one common frame.

The tokens of remembered frames and those of the target get the rays of their patches, all in the base of the newest
context frame, so that attention can tell which patch shows what the target will show (relative, dense pose embedding:
WorldMem, arXiv 2504.12369). A ray of direction d through the point o is (d, o x d).
"""

from __future__ import annotations

import torch
from torch import Tensor

from come_nav.core.geometry import se2

RAY_VALUES = 6


def patch_rays(camera_values: Tensor, poses_xyyaw: Tensor, grid: int, scale_m: float = 1.0) -> Tensor:
    """Return the rays (R, N * grid * grid, 6) of the patches of N frames, row by row; zero where the camera is unknown.

    Args:
        camera_values: (R or 1, 7) as :func:`come_nav.experts.optional_inputs.camera_values`; NaN = unknown. The camera
            lies above base_link's origin and looks ahead.
        poses_xyyaw: (R or 1, N, 3) of base_link in a common frame, metres and radians.
        grid: patches a side.
        scale_m: metres that count as 1.
    """
    known = torch.isfinite(camera_values).all(dim=1)
    values = torch.where(known[:, None], camera_values, torch.zeros_like(camera_values))
    ahead = _directions(values, grid)  # (R or 1, L, 3) in base_link
    rows, frames = max(len(ahead), len(poses_xyyaw)), poses_xyyaw.shape[1]
    poses = poses_xyyaw.to(ahead).expand(rows, -1, -1)
    ahead = ahead.expand(rows, -1, -1)[:, None].expand(-1, frames, -1, -1)
    still = torch.cat([torch.zeros_like(poses[..., :2]), poses[..., 2:]], dim=-1)
    turned = se2.transform_points(still, ahead[..., :2])
    direction = torch.cat([turned, ahead[..., 2:]], dim=-1)
    height = values[:, None, 4:5].expand(rows, frames, 1)
    origin = torch.cat([poses[..., :2], height], dim=-1)[:, :, None] / scale_m
    moment = torch.linalg.cross(origin.expand_as(direction), direction)
    rays = torch.cat([direction, moment], dim=-1).flatten(1, 2)
    return torch.where(known[:, None, None], rays, torch.zeros_like(rays))


def _directions(values: Tensor, grid: int) -> Tensor:
    """Return unit vectors (R, grid * grid, 3) in base_link to the middles of the patches of an image."""
    places = (torch.arange(grid, device=values.device, dtype=values.dtype) + 0.5) / grid - 0.5
    v, u = torch.meshgrid(places, places, indexing="ij")
    half_x, half_y, off_x, off_y, _, pitch, roll = values.unbind(dim=1)
    x = (u.flatten() - off_x[:, None]) * 2.0 * half_x.tan()[:, None]
    y = (v.flatten() - off_y[:, None]) * 2.0 * half_y.tan()[:, None]
    # first the roll about the optical axis: the image's right and down in a camera that is level to the sides
    right = roll.cos()[:, None] * x - roll.sin()[:, None] * y
    down = roll.sin()[:, None] * x + roll.cos()[:, None] * y
    sine, cosine = pitch.sin()[:, None], pitch.cos()[:, None]
    rays = torch.stack([cosine + sine * down, -right, sine - cosine * down], dim=-1)
    unit: Tensor = rays / rays.norm(dim=-1, keepdim=True)
    return unit
