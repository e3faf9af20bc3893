"""The context frames seen from another pose by their true depth: what geometry alone can know of a future view.

This is a reference for tables, made for quality: whole poses in space, so that it also holds for a camera in the hand,
and smoothed edges. Models and memories render points in batches from planar poses (core.geometry.point_rendering).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame

# Every pixel is projected as a grid of so many by so many points, so that a surface three times nearer has no cracks.
POINTS_PER_PIXEL_SIDE = 3
NEAR_M = 0.05
# Points of one target pixel within this share of the nearest one's depth belong to one surface and are averaged.
SURFACE_THICKNESS = 0.05
# Neighbouring pixels whose depths differ by more than this share lie on two surfaces; nothing is drawn between them.
DEPTH_STEP = 0.15


@dataclass(frozen=True)
class ColouredPoints:
    """Pixels of one frame in space.

    Attributes:
        points_world: (N, 3) metres.
        colours: (N, 3) in 0..255.
        T_world_camera: (4, 4) camera that saw them.
    """

    points_world: torch.Tensor
    colours: torch.Tensor
    T_world_camera: NDArray[np.float64]


def can_warp(frame: Frame) -> bool:
    """Return whether ``frame`` has all that warping needs: depth, intrinsics and the place of the camera."""
    return frame.depth_m is not None and frame.intrinsics is not None and frame.T_base_camera is not None


def warp_context(
    frames: Sequence[Frame], T_world_base: NDArray[np.float64], T_world_target: NDArray[np.float64]
) -> list[NDArray[np.uint8]]:
    """Return the context seen from each target pose, uint8 (H, W, 3), in the camera of the last frame.

    The frame whose camera is nearest to the target's is drawn first; the others fill what it leaves open or pass in
    front of it; what no frame saw takes the colour of the nearest pixel that one did.

    Args:
        frames: context, oldest first; frames without depth are left out.
        T_world_base: (C, 4, 4) true pose of base_link at each frame.
        T_world_target: (K, 4, 4) true poses of base_link to look from.

    Raises:
        DataError: when the last frame lacks intrinsics or the place of the camera.
    """
    last = frames[-1]
    if last.intrinsics is None or last.T_base_camera is None:
        raise DataError("warping by depth needs camera intrinsics and the pose of the camera on the robot")
    clouds = [lift(frame, pose) for frame, pose in zip(frames, T_world_base, strict=True) if can_warp(frame)]
    views = []
    for target in T_world_target:
        T_world_camera = target @ last.T_base_camera
        ordered = sorted(clouds, key=lambda cloud: _distance(cloud.T_world_camera, T_world_camera))
        image, depth = _draw_all(ordered, T_world_camera, last.intrinsics)
        views.append(_fill(image, torch.isfinite(depth).numpy(), last.rgb))
    return views


def lift(frame: Frame, T_world_base: NDArray[np.float64]) -> ColouredPoints:
    """Return the pixels of a frame with known depth as points in the world.

    Inverse depth is affine over the image of a plane, so it is interpolated between the pixels of one surface.
    """
    assert frame.depth_m is not None and frame.intrinsics is not None and frame.T_base_camera is not None
    side = POINTS_PER_PIXEL_SIDE
    depth = torch.from_numpy(np.nan_to_num(frame.depth_m, nan=0.0, posinf=0.0)).float()[None, None]
    inverse = torch.where(depth > 0, 1.0 / depth.clamp_min(NEAR_M), 0.0)
    highest = functional.max_pool2d(inverse, 3, 1, 1)
    lowest = -functional.max_pool2d(-inverse, 3, 1, 1)
    smooth = functional.interpolate(inverse, scale_factor=side, mode="bilinear", align_corners=False)
    one_surface = _repeat(highest <= (1.0 + DEPTH_STEP) * lowest, side)
    fine = torch.where(one_surface, smooth, _repeat(inverse, side))[0, 0]
    known = fine > 0
    z = 1.0 / fine[known]
    camera = frame.intrinsics
    v, u = torch.nonzero(known, as_tuple=True)
    x = ((u + 0.5) / side - camera.cx) / camera.fx * z
    y = ((v + 0.5) / side - camera.cy) / camera.fy * z
    T_world_camera = np.asarray(T_world_base @ frame.T_base_camera, float)
    points = se3.transform_points(torch.from_numpy(T_world_camera).float(), torch.stack([x, y, z], dim=1))
    colours = torch.from_numpy(frame.rgb.astype(np.float32))
    return ColouredPoints(points, colours[v // side, u // side], T_world_camera)


def draw(
    cloud: ColouredPoints, T_world_camera: NDArray[np.float64], camera: CameraIntrinsics
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the colours (H, W, 3) and z-depth (H, W) of points in a camera; depth is infinite where there is none."""
    T_camera_world = torch.from_numpy(se3.inverse(np.asarray(T_world_camera, float))).float()
    points = se3.transform_points(T_camera_world, cloud.points_world)
    z = points[:, 2].clamp_min(NEAR_M)
    column = torch.floor(camera.fx * points[:, 0] / z + camera.cx)
    row = torch.floor(camera.fy * points[:, 1] / z + camera.cy)
    seen = (points[:, 2] > NEAR_M) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    pixel, z = (row * camera.width + column)[seen].long(), z[seen]
    nearest = torch.full((camera.height * camera.width,), torch.inf).scatter_reduce(0, pixel, z, "amin")
    front = z <= (1.0 + SURFACE_THICKNESS) * nearest[pixel]
    pixel, colours = pixel[front], cloud.colours[seen][front]
    count = torch.zeros(len(nearest)).index_add_(0, pixel, torch.ones(len(pixel)))
    total = torch.zeros(len(nearest), 3).index_add_(0, pixel, colours)
    image = total / count.clamp_min(1.0)[:, None]
    return image.view(camera.height, camera.width, 3), nearest.view(camera.height, camera.width)


def _draw_all(
    clouds: Sequence[ColouredPoints], T_world_camera: NDArray[np.float64], camera: CameraIntrinsics
) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.zeros(camera.height, camera.width, 3)
    depth = torch.full((camera.height, camera.width), torch.inf)
    for cloud in clouds:
        other, other_depth = draw(cloud, T_world_camera, camera)
        better = other_depth < (1.0 - DEPTH_STEP) * depth  # also where there was nothing: inf stays inf
        image = torch.where(better[..., None], other, image)
        depth = torch.where(better, other_depth, depth)
    return image, depth


def _fill(image: torch.Tensor, seen: NDArray[np.bool_], fallback: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give unseen pixels the colour of the nearest seen one; nothing seen at all is the ``fallback``."""
    if not seen.any():
        return fallback
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~seen, return_distances=False, return_indices=True)
    rgb = image.round().clamp(0, 255).to(torch.uint8).numpy()
    return np.ascontiguousarray(rgb[rows, columns])


def _distance(T_world_a: NDArray[np.float64], T_world_b: NDArray[np.float64]) -> float:
    """Return how far apart two cameras look: metres plus radians."""
    difference = se3.relative(T_world_a, T_world_b)
    return float(np.linalg.norm(difference[:3, 3]) + se3.rotation_angle(difference[:3, :3]))


def _repeat(values: torch.Tensor, side: int) -> torch.Tensor:
    return values.repeat_interleave(side, -1).repeat_interleave(side, -2)
