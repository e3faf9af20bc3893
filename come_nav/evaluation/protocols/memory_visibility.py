"""Which part of a view was seen before: pixels with depth, looked up in the depth of earlier frames.

A point of the target's view was seen in another frame when it projects into that frame's image and the frame
measured the same depth there. So what stood behind a corner, or out of the field of view, counts as never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.protocols import Recording
from come_nav.core.types import CameraIntrinsics

FloatArray = NDArray[np.float32]
GRID = 16  # a view is evaluated by so many pixels a side
MAX_SIDE = 96  # larger depth images are thinned to this many pixels a side
TOLERANCE_M, TOLERANCE_RATIO = 0.05, 0.05  # depths that differ by no more than the sum belong to one surface
NEAREST_M = 0.05


@dataclass(frozen=True)
class DepthViews:
    """Depth images of one drive with the true poses of their cameras.

    Attributes:
        depth_m: (N, h, w) along the optical axis, NaN = unknown.
        camera: of these images.
        T_world_camera: (N, 4, 4) true poses.
    """

    depth_m: FloatArray
    camera: CameraIntrinsics
    T_world_camera: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.depth_m)

    def points(self, index: int) -> NDArray[np.float64]:
        """Return the points (P, 3) in the world of a grid of pixels of frame ``index``, those with a depth."""
        rows, columns = (_spread(GRID, size) for size in self.depth_m.shape[1:])
        v, u = (values.ravel() for values in np.meshgrid(rows, columns, indexing="ij"))
        depth = self.depth_m[index, v, u].astype(np.float64)
        known = np.isfinite(depth)
        v, u, depth = v[known], u[known], depth[known]
        x = (u + 0.5 - self.camera.cx) / self.camera.fx * depth
        y = (v + 0.5 - self.camera.cy) / self.camera.fy * depth
        return np.asarray(se3.transform_points(self.T_world_camera[index], np.stack([x, y, depth], axis=1)))

    def see(self, points_world: NDArray[np.float64], frames: range) -> NDArray[np.bool_]:
        """Return (F, P): which points each of ``frames`` saw."""
        part = slice(frames.start, frames.stop)
        T_camera_world = se3.inverse(self.T_world_camera[part])
        rotation, shift = T_camera_world[:, :3, :3].astype(np.float32), T_camera_world[:, :3, 3].astype(np.float32)
        optical = points_world.astype(np.float32) @ rotation.transpose(0, 2, 1) + shift[:, None]
        z = optical[..., 2]
        ahead = np.maximum(z, NEAREST_M)
        u = self.camera.fx * optical[..., 0] / ahead + self.camera.cx
        v = self.camera.fy * optical[..., 1] / ahead + self.camera.cy
        height, width = self.depth_m.shape[1:]
        inside = (z > NEAREST_M) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
        frame, point = np.nonzero(inside)
        measured = _read(self.depth_m[part], frame, u[inside], v[inside])
        z = z[inside]
        same = np.zeros(len(z), bool)
        with np.errstate(invalid="ignore"):
            for depth in measured:
                same |= np.abs(z - depth) <= TOLERANCE_M + TOLERANCE_RATIO * z
        seen = np.zeros(inside.shape, bool)
        seen[frame[same], point[same]] = True
        return seen


def depth_views(recording: Recording, T_odom_base: NDArray[np.float64]) -> DepthViews:
    """Read the depth of a whole drive.

    Args:
        recording: with depth registered to its images.
        T_odom_base: (N, 4, 4) or (N, 3) true poses of base_link.

    Raises:
        DataError: when frames lack depth, intrinsics or the place of the camera.
    """
    first = recording.frame(0)
    if first.intrinsics is None or first.T_base_camera is None:
        raise DataError(f"{recording.name}: needs camera intrinsics and the pose of the camera on the robot")
    rows = _spread(min(MAX_SIDE, first.intrinsics.height), first.intrinsics.height)
    columns = _spread(min(MAX_SIDE, first.intrinsics.width), first.intrinsics.width)
    depth = np.full((len(recording), len(rows), len(columns)), np.nan, np.float32)
    for index in range(len(recording)):
        measured = recording.frame(index).depth_m
        if measured is not None:
            depth[index] = measured[rows[:, None], columns]
    depth[~(depth > 0.0) | ~np.isfinite(depth)] = np.nan
    if np.isnan(depth).all():
        raise DataError(
            f"{recording.name}: has no depth registered to its images, which tells what was seen before; name the "
            "topic with --depth-topic"
        )
    poses = np.asarray(T_odom_base, np.float64)
    transforms = se3.transform_from_xyyaw(poses) if poses.ndim == 2 else poses
    camera = first.intrinsics.scaled(len(columns), len(rows))
    return DepthViews(depth, camera, transforms @ first.T_base_camera)


def longest_unseen(seen: NDArray[np.bool_], share: float) -> NDArray[np.int64]:
    """Return for each of F frames in order how many frames ago (0 = now) more than ``share`` of the points were seen.

    ``seen`` is (F, P); a frame before which that never happened gets F.
    """
    count = len(seen)
    order = np.arange(count)
    last = np.maximum.accumulate(np.where(seen.mean(axis=1) > share, order, -1)) if count else order
    return np.where(last >= 0, order - last, count)


def union_share(seen: NDArray[np.bool_], length: int) -> NDArray[np.float64]:
    """Return (F,): which share of the points each run of ``length`` frames saw together, NaN before it is complete."""
    shares = np.full(len(seen), np.nan)
    if len(seen) >= length:
        together: NDArray[np.bool_] = np.logical_or.reduce(
            [seen[age : len(seen) - length + 1 + age] for age in range(length)]
        )
        shares[length - 1 :] = together.mean(axis=1)
    return shares


def _spread(count: int, size: int) -> NDArray[np.int64]:
    """Return the middles of ``count`` equal parts of ``size`` pixels."""
    return ((np.arange(count) + 0.5) * size / count).astype(np.int64)


def _read(
    depth_m: FloatArray, frame: NDArray[np.int64], u: NDArray[np.floating], v: NDArray[np.floating]
) -> Sequence[FloatArray]:
    """Return the depth at pixel coordinates (M,): of the pixel itself, and interpolated between the four around.

    Inverse depth is linear over the image of a plane, so the second is exact on a slanted floor; the first holds at
    edges.
    """
    height, width = depth_m.shape[1:]
    own = depth_m[frame, v.astype(np.int64), u.astype(np.int64)]
    left, top = np.clip(u - 0.5, 0, width - 1), np.clip(v - 0.5, 0, height - 1)
    u0, v0 = left.astype(np.int64), top.astype(np.int64)
    u1, v1 = np.minimum(u0 + 1, width - 1), np.minimum(v0 + 1, height - 1)
    right, down = (left - u0).astype(np.float32), (top - v0).astype(np.float32)
    inverse = (1.0 / depth_m[frame, v0, u0] * (1 - right) + 1.0 / depth_m[frame, v0, u1] * right) * (1 - down)
    inverse += (1.0 / depth_m[frame, v1, u0] * (1 - right) + 1.0 / depth_m[frame, v1, u1] * right) * down
    return own, 1.0 / inverse
