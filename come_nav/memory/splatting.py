"""Rendering of a voxel cloud without holes in near surfaces: what shines through the gaps between points is covered.

A point in a z-buffer is one pixel wide, so that a wall nearer than (focal length x voxel) has gaps that show what lies
behind. A morphological closing of the inverse depth (dilation, then erosion) finds these gaps: it fills what is
narrower than the spacing of the points at that depth and leaves outlines where they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, pad

from come_nav.core.geometry.point_rendering import close_gaps, render_points

SPREAD = 1.4  # mean positions of neighbouring cells lie up to so many voxels apart
WINDOWS_PX = (3, 5, 9, 17, 33)  # close gaps between points that lie up to 2, 4, 8, 16, 32 px apart
BEHIND = -0.1  # cosine between a normal and the direction to the camera, below which a point is seen from behind
POINTS_PER_CHUNK = 2_000_000


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

    def towards_camera(self, size: tuple[int, int]) -> Tensor:
        """Return unit vectors (B, 3, H, W) in the reference frame from what each pixel shows to the camera."""
        fx, fy, cx, cy = (self.camera[:, index, None, None] for index in range(4))
        u = (torch.arange(size[1], device=fx.device, dtype=fx.dtype) + 0.5) / size[1]
        v = (torch.arange(size[0], device=fx.device, dtype=fx.dtype)[:, None] + 0.5) / size[0]
        right, down = ((u - cx) / fx).expand(-1, *size), ((v - cy) / fy).expand(-1, *size)
        optical = torch.stack([right, down, torch.ones_like(right)], dim=1)
        base = torch.einsum("bij,bjhw->bihw", self.T_base_camera[:, :3, :3], optical)
        cosine, sine = (value[:, None, None] for value in (self.poses_xyyaw[:, 2].cos(), self.poses_xyyaw[:, 2].sin()))
        x, y, z = base.unbind(1)
        rays = torch.stack([cosine * x - sine * y, sine * x + cosine * y, z.expand(len(cosine), *size)], dim=1)
        towards: Tensor = -rays / rays.norm(dim=1, keepdim=True)
        return towards

    def part(self, rows: slice) -> Viewpoint:
        """Return some rows of the batch."""
        camera, extrinsic = (value if len(value) == 1 else value[rows] for value in (self.camera, self.T_base_camera))
        return Viewpoint(self.poses_xyyaw[rows], camera, extrinsic)


def render_splats(
    points_xyz: Tensor,
    features: Tensor,
    normals: Tensor,
    view: Viewpoint,
    size: tuple[int, int],
    point_m: float,
    gaps: bool = True,
) -> SpatialView:
    """Render points that each stand for ``point_m`` metres; see the module.

    Args:
        points_xyz: (N, 3).
        features: (N, C).
        normals: (N, 3) mean normals, towards where the points were seen from. A point that is looked at from behind
            hides what is farther away, but what it looks like from there is not known.
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
    values = torch.cat([features, normals], dim=1)[None]
    parts = [
        _render(points_xyz[None], values, view.part(slice(start, start + step)), size, point_m)
        for start in range(0, batch, step)
    ]
    image, depth, visible = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    if gaps:
        joined = torch.cat([image, depth[:, None]], dim=1)
        joined, visible = close_gaps(joined, visible, least_neighbours=5)
        image, depth = joined[:, :-1], joined[:, -1]
    return SpatialView(image, torch.where(visible, depth, math.nan), visible)


def _render(
    points: Tensor, values: Tensor, view: Viewpoint, size: tuple[int, int], point_m: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, depth (0 = unknown) and visibility."""
    image, depth, _ = render_points(points, values, view.poses_xyyaw, view.camera, view.T_base_camera, size)
    inverse = (1.0 / depth).nan_to_num()[:, None]
    front = (image[:, -3:] * view.towards_camera(size)).sum(dim=1, keepdim=True) > BEHIND
    image = image[:, :-3]
    points_px = SPREAD * point_m * view.camera[:, 0, None, None, None] * size[1] * inverse
    for window in WINDOWS_PX:
        near = points_px > (window - 1) / 2
        if not bool(near.any()):
            break
        image, inverse, front = _cover(image, inverse, front, near, window, point_m)
    visible = (inverse > 0) & front
    return image * visible, torch.where(visible, 1.0 / inverse, 0.0)[:, 0], visible[:, 0]


def _cover(
    image: Tensor, inverse: Tensor, front: Tensor, near: Tensor, window: int, point_m: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Close gaps up to ``window`` px among the ``near`` points that are seen from the front."""
    surface = near & front
    closed = -_dilate(-_dilate(torch.where(surface, inverse, 0.0), window), window)
    slack = 1.0 - 0.6 * point_m * closed - 0.02  # a depth that is larger by more than this lies behind
    leak = (inverse < closed * slack.clamp_min(0.1)) | (~front & (inverse < closed))
    mask = surface.to(image)
    total, share = (_mean(value, window) for value in (image * mask, mask))
    leak &= share > 0
    image = torch.where(leak, total / share.clamp_min(1e-6), image)
    return image, torch.where(leak, closed, inverse), front | leak


def _dilate(image: Tensor, window: int) -> Tensor:
    """Largest value in a square window, one axis after the other."""
    half = window // 2
    rows = max_pool2d(image, (window, 1), 1, (half, 0))
    return max_pool2d(rows, (1, window), 1, (0, half))


def _mean(image: Tensor, window: int) -> Tensor:
    half = window // 2
    return avg_pool2d(pad(image, (half, half, half, half)), window, 1)
