"""Rendering of a voxel cloud without holes in near surfaces: each point covers as many pixels as its voxel does.

A point in a z-buffer is one pixel wide, so that a wall nearer than (focal length x voxel) has gaps, through which
what lies behind shines. Here near points are rendered into coarser z-buffers as well, in which they touch each other; a coarse
buffer fills the gaps of the finer ones and hides what lies behind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from come_nav.core.geometry.point_rendering import NOWHERE, close_gaps, project_points, render_points

SPREAD = 1.4  # mean positions of neighbouring cells lie up to so many voxels apart
MAX_LEVELS = 5
POINTS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class SpatialView:
    """What is remembered of a view.

    Attributes:
        image: (B, C, H, W) features, zero where nothing is remembered; colours lie in [-1, 1].
        depth_m: (B, H, W) metres along the optical axis, NaN where nothing is remembered.
        visible: (B, H, W) bool, where something is remembered.
    """

    image: Tensor
    depth_m: Tensor
    visible: Tensor

    @property
    def coverage(self) -> Tensor:
        """Part (B,) of each view that is remembered."""
        return self.visible.float().mean(dim=(1, 2))


@dataclass(frozen=True)
class Viewpoint:
    """Cameras of a batch, as :mod:`come_nav.core.geometry.point_rendering` takes them.

    Attributes:
        poses_xyyaw: (B, 3) poses of base_link.
        camera: (B or 1, 4) fractions.
        T_base_camera: (B or 1, 4, 4).
    """

    poses_xyyaw: Tensor
    camera: Tensor
    T_base_camera: Tensor

    def part(self, rows: slice) -> Viewpoint:
        """Return some rows of the batch."""
        camera, extrinsic = (value if len(value) == 1 else value[rows] for value in (self.camera, self.T_base_camera))
        return Viewpoint(self.poses_xyyaw[rows], camera, extrinsic)


def render_splats(
    points_xyz: Tensor, features: Tensor, view: Viewpoint, size: tuple[int, int], point_m: float, gaps: bool = True
) -> SpatialView:
    """Render points (N, 3) with features (N, C) that each stand for ``point_m`` metres; see the module.

    Args:
        points_xyz: (N, 3).
        features: (N, C).
        view: B cameras.
        size: rows and columns of the picture.
        point_m: size of what a point stands for, m.
        gaps: close single unseen pixels among seen ones.
    """
    batch, channels = len(view.poses_xyyaw), features.shape[1]
    if not len(points_xyz) or not batch:
        empty = points_xyz.new_zeros(batch, *size)
        return SpatialView(points_xyz.new_zeros(batch, channels, *size), empty + math.nan, empty.bool())
    step = max(1, POINTS_PER_CHUNK // len(points_xyz))
    parts = [
        _render(points_xyz[None], features[None], view.part(slice(start, start + step)), size, point_m)
        for start in range(0, batch, step)
    ]
    image, depth, visible = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    if gaps:
        joined = torch.cat([image, depth.nan_to_num()[:, None]], dim=1)
        joined, visible = close_gaps(joined, visible)
        image, depth = joined[:, :-1], torch.where(visible, joined[:, -1], math.nan)
    return SpatialView(image, depth, visible)


def _render(
    points: Tensor, features: Tensor, view: Viewpoint, size: tuple[int, int], point_m: float
) -> tuple[Tensor, Tensor, Tensor]:
    cameras = (view.camera, view.T_base_camera)
    image, depth, visible = render_points(points, features, view.poses_xyyaw, *cameras, size)
    pixels = _pixels_wide(points, view, size, point_m * SPREAD)
    for level in range(1, MAX_LEVELS):
        coarse = (-(-size[0] >> level), -(-size[1] >> level))
        near = pixels > 2 ** (level - 1)
        seen_near = near.any(dim=0)
        if not bool(seen_near.any()) or min(coarse) < 2:
            break
        # The points that any view of the batch is near to; for the other views they are moved out of sight.
        chosen = torch.where(near[:, seen_near, None], points[:, seen_near], NOWHERE)
        rough = render_points(chosen, features[:, seen_near], view.poses_xyyaw, *cameras, coarse)
        image, depth, visible = _behind_gaps((image, depth, visible), rough, level, point_m)
    return image, depth, visible


def _pixels_wide(points: Tensor, view: Viewpoint, size: tuple[int, int], point_m: float) -> Tensor:
    """Return (B, N) how many pixels a point covers, 0 for points that are out of sight."""
    u, v, depth = project_points(points, view.poses_xyyaw, view.camera, view.T_base_camera)
    inside = (u > 0) & (u < 1) & (v > 0) & (v < 1) & (depth > 0)
    return torch.where(inside, point_m * view.camera[:, 0:1] * size[1] / depth.clamp_min(1e-3), 0.0)


def _behind_gaps(
    fine: tuple[Tensor, Tensor, Tensor], rough: tuple[Tensor, Tensor, Tensor], level: int, point_m: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the coarse buffer where the fine one sees nothing, or something clearly farther away."""
    image, depth, visible = fine
    height, width = visible.shape[1:]
    block = 2**level
    wide_image, wide_depth, wide_visible = (
        tensor.repeat_interleave(block, -1).repeat_interleave(block, -2)[..., :height, :width] for tensor in rough
    )
    slack = 2.0 * point_m + 0.05 * wide_depth
    leak = wide_visible & (~visible | (depth > wide_depth + slack))
    image = torch.where(leak[:, None], wide_image, image)
    return image, torch.where(leak, wide_depth, depth), visible | wide_visible
