"""Which remembered frames show a view: by the overlap of frustums, by depth, and by age.

Each frame is kept as a few points that its camera measured, so that ten thousand frames are asked in milliseconds. A
frame is worth the cells of the view that its points fall into, where nothing that another frame saw lies in front of
them. Frames are taken one after another, each for the cells that those before it do not show. (WorldMem,
arXiv 2504.12369, and Context-as-Memory, 2506.03141, take the frames with the largest overlap of frustums alone.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.growing import GrowingRows
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.retrieval_settings import SAMPLES, RetrievalSettings
from come_nav.memory.spatial.latent.features import depth_of_cells

__all__ = ["SAMPLES", "FrameRetrieval", "RetrievalSettings", "Retrieved", "sampled_points"]

FloatArray = NDArray[np.float32]
NEAREST_M = 0.05


@dataclass(frozen=True)
class Retrieved:
    """Frames that show a view together.

    Attributes:
        indices: (K,) of the frames in the order they were added, the most useful first.
        overlap: (K,) share of the view's cells that each shows by itself.
        covered: share of the view's cells that all of them show.
    """

    indices: NDArray[np.int64]
    overlap: NDArray[np.float64]
    covered: float


class FrameRetrieval:
    """Finds the remembered frames that show a view. Bounded by whoever adds frames: 36 points of 12 bytes for each."""

    def __init__(self, config: RetrievalSettings | None = None) -> None:
        self.config = config or RetrievalSettings()
        self._points = GrowingRows((SAMPLES * SAMPLES, 3), np.float32)  # in the base of each frame
        self._balls = GrowingRows((4,), np.float32)  # centre in the base, and radius, of those points
        self._centres = GrowingRows((3,), np.float32)  # the same centres in the world
        self._poses = GrowingRows((3,))
        self._stamps_s = GrowingRows(())

    def __len__(self) -> int:
        return len(self._stamps_s)

    @property
    def nbytes(self) -> int:
        """Memory of what is kept of the frames, in bytes."""
        return sum(own.nbytes for own in self._columns)

    @property
    def _columns(self) -> tuple[GrowingRows, ...]:
        return self._points, self._balls, self._centres, self._poses, self._stamps_s

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Poses (N, 3) of the frames, in the order they were added."""
        return self._poses.rows.copy()

    def add(self, frame: Frame, pose_xyyaw: NDArray[Any]) -> None:
        """Remember what a frame shows from the pose (3,) of base_link.

        Raises:
            DataError: for a frame without calibration.
        """
        if frame.intrinsics is None or frame.T_base_camera is None:
            raise DataError("a frame is found again by what it shows: it needs intrinsics and T_base_camera")
        points = sampled_points(frame, self.config.reach_m)
        centre, pose = points.mean(axis=0), np.asarray(pose_xyyaw, np.float64)
        self._points.append(points)
        self._balls.append([*centre, np.linalg.norm(points - centre, axis=1).max()])
        self._centres.append(_turned(centre[None], pose[None])[0])
        self._poses.append(pose)
        self._stamps_s.append(frame.stamp_s)

    def drop(self, index: int) -> None:
        """Forget one frame; those after it move up by one."""
        if not 0 <= index < len(self):
            raise DataError(f"retrieval: frame {index} must be in [0, {len(self) - 1}]")
        for column in self._columns:
            column.drop(index)

    def move(self, poses_xyyaw: NDArray[Any]) -> None:
        """Take the poses (N, 3) of all frames anew, e.g. after drift was taken out."""
        self._poses.rows[:] = poses_xyyaw
        self._centres.rows[:] = _turned(self._balls.rows[:, :3], self._poses.rows)

    def query(
        self,
        poses_xyyaw: NDArray[Any],
        camera: CameraIntrinsics,
        T_base_camera: NDArray[Any],
        count: int,
        now_s: float | None = None,
        before_s: float = np.inf,
    ) -> Retrieved:
        """Return at most ``count`` frames that show the view of a camera, or several views together.

        Frames that show nothing of them are left out.

        Args:
            poses_xyyaw: (3,) or (V, 3) of base_link.
            camera: of the views.
            T_base_camera: (4, 4) of the views.
            count: most frames.
            now_s: what ages are counted from; the newest frame's stamp by default.
            before_s: only frames older than this count.
        """
        nothing = Retrieved(np.zeros(0, np.int64), np.zeros(0), 0.0)
        if not len(self) or count < 1:
            return nothing
        poses, stamps_s = np.atleast_2d(np.asarray(poses_xyyaw, np.float64)), self._stamps_s.rows
        views = [se3.inverse(se3.transform_from_xyyaw(pose) @ T_base_camera) for pose in poses]
        centres, radii = self._centres.rows, self._balls.rows[:, 3]
        own = max(1, self.config.shortlist // len(views))
        radii = radii if np.isinf(before_s) else np.where(stamps_s < before_s, radii, np.float32(np.nan))  # in no view
        parts = [_in_front(centres, radii, view, camera, own) for view in views]
        near = parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))
        points = _turned(self._points.rows[near], self._poses.rows[near]).astype(np.float32)
        seen = np.concatenate([_cells_seen(points, view, camera, self.config) for view in views], axis=1)
        now_s = float(stamps_s.max()) if now_s is None else now_s
        ages_s = np.maximum(0.0, now_s - stamps_s[near])
        chosen = _greedy(seen, 0.5 ** (ages_s / self.config.forget_s), count)
        if not len(chosen):
            return nothing
        return Retrieved(near[chosen], seen[chosen].mean(axis=1), float(seen[chosen].any(axis=0).mean()))


def _turned(points_xyz: NDArray[Any], poses_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points (N, 3) or (N, M, 3) of N frames' bases in the world that poses (N, 3) lie in."""
    moved: NDArray[np.float64] = points_xyz.astype(np.float64)
    flat = moved[..., :2] if moved.ndim == 3 else moved[:, None, :2]
    turned = se2.transform_points(poses_xyyaw, flat)
    moved[..., :2] = turned if moved.ndim == 3 else turned[:, 0]
    return moved


def sampled_points(frame: Frame, reach_m: float) -> FloatArray:
    """Return points (M, 3) of a calibrated frame in base_link: of its depth, at ``reach_m`` where that is unknown."""
    camera, extrinsics = frame.intrinsics, frame.T_base_camera
    assert camera is not None  # the caller has checked
    assert extrinsics is not None
    grid = camera.scaled(SAMPLES, SAMPLES)
    unknown: FloatArray = np.full((SAMPLES, SAMPLES), np.nan, np.float32)
    depth = unknown if frame.depth_m is None else depth_of_cells(frame.depth_m, SAMPLES, SAMPLES, "nearest")
    depth = np.where(np.isnan(depth), reach_m, depth)
    v, u = np.mgrid[:SAMPLES, :SAMPLES] + 0.5
    rays = np.stack([(u - grid.cx) / grid.fx, (v - grid.cy) / grid.fy, np.ones_like(u)], axis=-1)
    optical: NDArray[np.float64] = (rays * depth[..., None]).reshape(-1, 3).astype(np.float64)
    points: FloatArray = se3.transform_points(np.asarray(extrinsics, np.float64), optical).astype(np.float32)
    return points


def _in_front(
    centres: FloatArray, radii: FloatArray, T_camera_world: NDArray[Any], camera: CameraIntrinsics, most: int
) -> NDArray[np.int64]:
    """Return the frames whose points may lie in view, at most so many: those nearest to its middle, by the angle."""
    optical = centres @ T_camera_world[:3, :3].T.astype(np.float32) + T_camera_world[:3, 3].astype(np.float32)
    distance = np.linalg.norm(optical, axis=1)
    aside = np.arccos(np.clip(optical[:, 2] / np.maximum(distance, 1e-6), -1.0, 1.0))
    corner_x = max(camera.cx, camera.width - camera.cx) / camera.fx
    corner_y = max(camera.cy, camera.height - camera.cy) / camera.fy
    half = np.arctan(np.hypot(corner_x, corner_y))
    spread = np.arcsin(np.clip(radii / np.maximum(distance, 1e-6), 0.0, 1.0))
    inside = np.flatnonzero((aside - spread <= half) | (distance <= radii))
    if len(inside) > most:
        inside = inside[np.argpartition(aside[inside], most)[:most]]
    return np.sort(inside)


def _cells_seen(
    points: FloatArray, T_camera_world: NDArray[Any], camera: CameraIntrinsics, config: RetrievalSettings
) -> NDArray[np.bool_]:
    """Return which cells of the view each frame shows, (F, cells * cells), of its points (F, M, 3) in the world."""
    side = config.cells
    optical = points @ T_camera_world[:3, :3].T.astype(np.float32) + T_camera_world[:3, 3].astype(np.float32)
    depth = optical[..., 2]
    safe = np.maximum(depth, NEAREST_M)
    u = (camera.fx * optical[..., 0] / safe + camera.cx) * (side / camera.width)
    v = (camera.fy * optical[..., 1] / safe + camera.cy) * (side / camera.height)
    inside = (depth > NEAREST_M) & (u >= 0.0) & (u < side) & (v >= 0.0) & (v < side)
    cell = np.where(inside, v.astype(np.int64) * side + u.astype(np.int64), side * side)
    nearest = np.full(side * side + 1, np.inf, np.float32)
    np.minimum.at(nearest, cell[inside], depth[inside])
    shown = inside & (depth <= nearest[cell] * (1.0 + config.behind_ratio))
    seen = np.zeros((len(points), side * side + 1), bool)
    frames = np.broadcast_to(np.arange(len(points))[:, None], cell.shape)
    seen[frames[shown], cell[shown]] = True
    return seen[:, :-1]


def _greedy(seen: NDArray[np.bool_], worth: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return at most ``count`` rows of ``seen`` (F, cells), each the one that adds most; then those that show most."""
    left, chosen = np.ones(seen.shape[1], bool), list[int]()
    free: NDArray[np.bool_] = np.asarray(seen.any(axis=1))
    whole = seen.sum(axis=1)
    while len(chosen) < count and free.any():
        value = worth * ((seen & left).sum(axis=1) + 1e-3 * whole)
        best = int(np.argmax(np.where(free, value, -1.0)))
        chosen.append(best)
        free[best] = False
        left &= ~seen[best]
    return np.array(chosen, np.int64)
