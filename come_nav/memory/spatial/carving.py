"""Free-space carving: what a later view sees through is no longer there.

A remembered cell that projects in front of everything a depth image measured around its pixel loses looks; with none
left it is forgotten. So people and moved chairs fade, and geometry that odometry drift has misplaced gives way to the
newer one.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.lifting import FeatureGrid
from come_nav.memory.spatial.settings import SpatialSettings

FloatArray = NDArray[np.float32]
MAX_CELLS = 96  # the depth image is coarsened to at most so many cells a side


def nearest_depth(depth_m: FloatArray, block: int) -> FloatArray:
    """Return the nearest depth (h, w) measured in and around each ``block`` x ``block`` cell; NaN where it has none."""
    height, width = depth_m.shape
    rows, columns = -(-height // block), -(-width // block)
    padded = np.full((rows * block, columns * block), np.inf, np.float32)
    padded[:height, :width] = np.where(np.isfinite(depth_m) & (depth_m > 0.0), depth_m, np.inf)
    cells = padded.reshape(rows, block, columns, block).min(axis=(1, 3))
    ring = np.pad(cells, 1, constant_values=np.inf)
    lines = np.minimum(np.minimum(ring[:-2], ring[1:-1]), ring[2:])
    nearest: FloatArray = np.minimum(np.minimum(lines[:, :-2], lines[:, 1:-1]), lines[:, 2:])
    nearest[np.isinf(cells)] = np.nan
    return nearest


def seen_through(
    points_xyz: FloatArray,
    T_camera_world: NDArray[np.float64],
    depth_m: FloatArray,
    camera: CameraIntrinsics,
    voxel_m: float,
    margin: tuple[float, float],
) -> tuple[NDArray[np.int64], FloatArray]:
    """Return which points a depth image sees through, and how surely.

    Args:
        points_xyz: (N, 3) in the world.
        T_camera_world: (4, 4) pose of the world in the optical frame.
        depth_m: (H, W).
        camera: of the depth image.
        voxel_m: size of what a point stands for.
        margin: metres, and fraction of the point's depth, that the surface behind must be farther than the point.

    Returns:
        rows (R,), and the part of a pixel (R,) that each point fills, at most 1: a ray may miss a small far thing.
    """
    block = max(1, -(-max(depth_m.shape) // MAX_CELLS))
    nearest = nearest_depth(depth_m, block)
    reach = float(np.nanmax(nearest)) if np.isfinite(nearest).any() else 0.0
    right, down, ahead = T_camera_world[:3].astype(np.float32)
    z = points_xyz[:, 0] * ahead[0] + points_xyz[:, 1] * ahead[1] + points_xyz[:, 2] * ahead[2] + ahead[3]
    rows = np.flatnonzero((z > 1e-3) & (z + margin[0] < reach))  # most points lie behind or beyond: first this one sum
    points, z = points_xyz[rows], z[rows]
    x, y = points @ right[:3] + right[3], points @ down[:3] + down[3]
    u = camera.fx * x / z + camera.cx
    v = camera.fy * y / z + camera.cy
    inside = (u >= 0.0) & (u < camera.width) & (v >= 0.0) & (v < camera.height)
    rows, z = rows[inside], z[inside]
    surface = nearest[v[inside].astype(np.int64) // block, u[inside].astype(np.int64) // block]
    with np.errstate(invalid="ignore"):
        through = surface > z * (1.0 + margin[1]) + margin[0]
    filled: FloatArray = np.minimum(1.0, voxel_m * camera.fx / z[through]).astype(np.float32)
    return rows[through], filled


class EarlierLooks:
    """The depth of the newest frames, to tell what is passing by: points where one of them saw right through.

    A person who walks stands now where the room was free a second ago. What one of the frames could not see, because
    something was nearer or out of its view, it does not speak of: new things that stand still are remembered.
    """

    def __init__(self, count: int) -> None:
        """Keep the last ``count`` frames; with 0 nothing is passing by."""
        self._looks: deque[tuple[NDArray[np.float64], FloatArray, CameraIntrinsics]] = deque(maxlen=count)

    def clear(self) -> None:
        """Forget the frames, e.g. where their poses changed."""
        self._looks.clear()

    def stays(
        self,
        settings: SpatialSettings,
        grid: FeatureGrid,
        T_map_camera: NDArray[np.float64],
        points_xyz: NDArray[np.float64],
    ) -> NDArray[np.bool_]:
        """Return which points (N, 3) of a frame are not passing by, and keep the frame for those to come."""
        margin = (settings.carve_margin_m, settings.carve_margin_ratio)
        found = ~self.passing(points_xyz, settings.voxel_m, margin)
        self.add(se3.inverse(T_map_camera), *(grid.surface or (grid.depth_m, grid.camera)))
        return found

    def add(self, T_camera_map: NDArray[np.float64], depth_m: FloatArray, camera: CameraIntrinsics) -> None:
        """Keep the depth (H, W) of a frame."""
        if self._looks.maxlen:
            self._looks.append((T_camera_map, depth_m, camera))

    def passing(
        self, points_xyz: NDArray[np.float64], voxel_m: float, margin: tuple[float, float]
    ) -> NDArray[np.bool_]:
        """Return which points (N, 3) in map one of the frames saw through; see :func:`seen_through`."""
        found = np.zeros(len(points_xyz), bool)
        for T_camera_map, depth_m, camera in self._looks:
            left = np.flatnonzero(~found)
            rows, _ = seen_through(points_xyz[left].astype(np.float32), T_camera_map, depth_m, camera, voxel_m, margin)
            found[left[rows]] = True
        return found
