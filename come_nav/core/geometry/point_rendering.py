"""Images to points and back: lift depth images, render points from another pose, fill what nothing was seen of.

Points live in base_link (x forward, y left, z up) of some reference pose. A camera is given by two tensors, so that
one batch may mix cameras: ``camera`` (B or 1, 4) = fx, fy, cx, cy as fractions of the image's width and height, and
``T_base_camera`` (B or 1, 4, 4), the optical frame (z forward, x right) in base_link.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from come_nav.core import compiled
from come_nav.core.checks import check_shape
from come_nav.core.types import CameraIntrinsics

NOWHERE = -1.0e4  # coordinate of points that must never be seen
NEAREST_M, FARTHEST_M = 0.1, 100.0
_DEPTH_STEPS_PER_M = 1.0e4
_INDEX_BITS = 24
_EMPTY = 1 << 60


def camera_fractions(intrinsics: CameraIntrinsics) -> Tensor:
    """Return ``camera`` (1, 4) of a pinhole camera."""
    width, height = intrinsics.width, intrinsics.height
    values = [intrinsics.fx / width, intrinsics.fy / height, intrinsics.cx / width, intrinsics.cy / height]
    return torch.tensor([values], dtype=torch.float32)


def level_camera(height_m: float = 0.0) -> Tensor:
    """Return ``T_base_camera`` (1, 4, 4) of a level camera over base_link's origin that looks along x."""
    optical = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, height_m], [0.0, 0.0, 0.0, 1.0]])
    return torch.tensor(optical[None], dtype=torch.float32)


def lift_depth(depth_m: Tensor, camera: Tensor, T_base_camera: Tensor) -> Tensor:
    """Return points (B, H*W, 3) in base_link of z-depth (B, H, W) metres; unknown depth (NaN, <= 0) lies nowhere."""
    batch, height, width = depth_m.shape
    fx, fy, cx, cy = (camera[:, index, None, None] for index in range(4))
    columns = (torch.arange(width, device=depth_m.device) + 0.5) / width
    rows = (torch.arange(height, device=depth_m.device) + 0.5) / height
    known = torch.isfinite(depth_m) & (depth_m > 0.0)
    depth = torch.where(known, depth_m, torch.ones_like(depth_m))
    right = (columns - cx) / fx * depth
    down = (rows[:, None] - cy) / fy * depth
    optical = torch.stack([right, down, depth], dim=-1).reshape(batch, -1, 3)
    points = optical @ T_base_camera[:, :3, :3].transpose(1, 2) + T_base_camera[:, None, :3, 3]
    return torch.where(known.reshape(batch, -1, 1), points, points.new_tensor(NOWHERE))


def transform_points(pose_a_b: Tensor, points_b: Tensor) -> Tensor:
    """Map points (B or 1, N, 3) of base frame b into frame a with planar poses (B, 3)."""
    cosine, sine = pose_a_b[:, 2:].cos(), pose_a_b[:, 2:].sin()
    x, y, z = points_b.unbind(-1)
    ahead = cosine * x - sine * y + pose_a_b[:, 0:1]
    left = sine * x + cosine * y + pose_a_b[:, 1:2]
    return torch.stack([ahead, left, z.expand_as(ahead)], dim=-1)


def project_points(
    points_xyz: Tensor, poses_xyyaw: Tensor, camera: Tensor, T_base_camera: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return u, v (fractions of the image's width and height) and z-depth (m), each (B, N), seen from poses (B, 3)."""
    cosine, sine = poses_xyyaw[:, 2:].cos(), poses_xyyaw[:, 2:].sin()
    x, y = points_xyz[..., 0] - poses_xyyaw[:, 0:1], points_xyz[..., 1] - poses_xyyaw[:, 1:2]
    base = torch.stack([cosine * x + sine * y, cosine * y - sine * x, points_xyz[..., 2].expand_as(x)], dim=-1)
    optical = (base - T_base_camera[:, None, :3, 3]) @ T_base_camera[:, :3, :3]
    right, down, depth = optical.unbind(-1)
    safe = depth.clamp_min(NEAREST_M)
    return camera[:, 0:1] * right / safe + camera[:, 2:3], camera[:, 1:2] * down / safe + camera[:, 3:4], depth


def render_points(
    points_xyz: Tensor,
    colours: Tensor,
    poses_xyyaw: Tensor,
    camera: Tensor,
    T_base_camera: Tensor,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Render points from other poses: the nearest point of each pixel wins (z-buffer).

    Args:
        points_xyz: (B or 1, N, 3) in the reference frame.
        colours: (B or 1, N, C) of the points: RGB, or any features.
        poses_xyyaw: (B, 3) poses of base_link in the reference frame.
        camera: (B or 1, 4), see the module.
        T_base_camera: (B or 1, 4, 4), see the module.
        size: rows and columns of the image.

    Returns:
        image (B, C, H, W), zero where nothing is seen; depth (B, H, W) metres, NaN there; visible (B, H, W) bool.
    """
    check_shape("poses_xyyaw", poses_xyyaw, "B 3")
    tensors = points_xyz, colours, poses_xyyaw, camera, T_base_camera
    if points_xyz.shape[1] and compiled.suits(*tensors):
        return _compiled_points(tensors, size)
    return _tensor_points(*tensors, size)


def _compiled_points(tensors: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what :func:`_tensor_points` does."""
    from come_nav.core.geometry.point_loops import Images, Limits, render

    limits = Limits(np.float32(NEAREST_M), np.float32(FARTHEST_M), np.float32(_DEPTH_STEPS_PER_M))
    points, colours, poses, camera, extrinsics = (tensor.detach().contiguous() for tensor in tensors)
    batch = len(poses)
    image, depth_m = torch.empty(batch, colours.shape[-1], *size), torch.empty(batch, *size)
    visible = torch.empty(batch, *size, dtype=torch.bool)

    def some(start: int, stop: int) -> None:
        given = (points, colours, poses, camera, extrinsics)
        own = (tensor[start:stop] if len(tensor) > 1 or tensor is poses else tensor for tensor in given)
        written = (tensor[start:stop] for tensor in (image, depth_m, visible))
        render(*(tensor.numpy() for tensor in own), limits, Images(*(tensor.numpy() for tensor in written)))

    compiled.shared_out(some, batch)
    return image, depth_m, visible


def _tensor_points(
    points_xyz: Tensor,
    colours: Tensor,
    poses_xyyaw: Tensor,
    camera: Tensor,
    T_base_camera: Tensor,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Render as :func:`render_points` does, with operations on tensors, on any device."""
    batch = len(poses_xyyaw)
    height, width = size
    count, channels = points_xyz.shape[1], colours.shape[-1]
    u, v, depth = project_points(points_xyz, poses_xyyaw, camera, T_base_camera)
    column, row = (u * width).floor(), (v * height).floor()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    inside &= (depth > NEAREST_M) & (depth < FARTHEST_M)
    cell = torch.where(inside, row * width + column, height * width).long()
    # One integer holds depth above the point's index, so that a single minimum finds the nearest point and names it.
    depth_steps = (torch.where(inside, depth, 0.0) * _DEPTH_STEPS_PER_M).long()
    keys = (depth_steps << _INDEX_BITS) | torch.arange(count, device=depth.device)
    nearest = torch.full((batch, height * width + 1), _EMPTY, dtype=torch.int64, device=depth.device)
    nearest = nearest.scatter_reduce_(1, cell, keys, "amin")[:, :-1]
    visible = nearest < _EMPTY
    index = torch.where(visible, nearest & ((1 << _INDEX_BITS) - 1), 0)
    seen = torch.gather(colours.expand(batch, -1, -1), 1, index[..., None].expand(-1, -1, channels))
    image = (seen * visible[..., None]).transpose(1, 2).reshape(batch, channels, height, width)
    seen_m = torch.where(visible, (nearest >> _INDEX_BITS).float() / _DEPTH_STEPS_PER_M, math.nan)
    return image, seen_m.reshape(batch, height, width), visible.reshape(batch, height, width)


def close_gaps(image: Tensor, visible: Tensor, least_neighbours: int = 3) -> tuple[Tensor, Tensor]:
    """Give unseen pixels the mean of their seen neighbours where at least so many of the eight were seen.

    Args:
        image: (B, C, H, W).
        visible: (B, H, W) bool.
        least_neighbours: of the eight that must be seen.

    Returns:
        image and visible with the cracks between rendered points closed.
    """
    if not compiled.suits(image) or not len(image):
        return _tensor_gaps(image, visible, least_neighbours)
    from come_nav.core.geometry.point_loops import close_gaps as close

    seen, known = visible.detach().contiguous(), visible.detach().clone(memory_format=torch.contiguous_format)
    closed = image.detach().clone(memory_format=torch.contiguous_format)

    def some(start: int, stop: int) -> None:
        mine, was, now = (tensor[start:stop].numpy() for tensor in (closed, seen, known))
        close(mine, was, least_neighbours, now)

    compiled.shared_out(some, len(image), least=32)
    return closed, known


def _tensor_gaps(image: Tensor, visible: Tensor, least_neighbours: int) -> tuple[Tensor, Tensor]:
    """Close gaps as :func:`close_gaps` does, with operations on tensors, on any device."""
    mask = visible[:, None].to(image)
    total = avg_pool2d(pad(image * mask, (1, 1, 1, 1)), 3, 1)
    share = avg_pool2d(pad(mask, (1, 1, 1, 1)), 3, 1)
    crack = (share > (least_neighbours - 0.5) / 9.0) & ~visible[:, None]
    return torch.where(crack, total / share.clamp_min(1e-6), image), visible | crack[:, 0]


def fill_unseen(image: Tensor, visible: Tensor) -> Tensor:
    """Fill unseen pixels (B, C, H, W) smoothly from coarser and coarser means of seen ones (push-pull, SIGGRAPH 1996).

    ``visible`` is (B, H, W) bool. An image of which nothing is seen becomes zero.
    """
    return _push_pull(image * visible[:, None], visible[:, None].to(image))


def _push_pull(image: Tensor, weight: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    if height <= 1 or width <= 1 or height % 2 or width % 2:
        total = weight.sum((2, 3), keepdim=True)
        mean = (image * weight).sum((2, 3), keepdim=True) / total.clamp_min(1e-6)
        return torch.where(weight > 0, image, mean)
    share = avg_pool2d(weight, 2)
    coarse = _push_pull(avg_pool2d(image * weight, 2) / share.clamp_min(1e-6), (share > 0).to(image))
    return torch.where(weight > 0, image, interpolate(coarse, (height, width), mode="bilinear", align_corners=False))
