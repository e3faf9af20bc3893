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

from come_nav.core.checks import check_range
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.spatial.latent.features import depth_of_cells

FloatArray = NDArray[np.float32]
SAMPLES = 6  # a side, of points that a frame is kept as
NEAREST_M = 0.05


@dataclass(frozen=True)
class RetrievalSettings:
    """How frames are chosen.

    Attributes:
        cells: a side, that a view is divided into, >= 1; with more than a frame has points, what lies behind shines
            through.
        shortlist: frames whose points are looked at one by one, those nearest to the middle of the view first, >= 1.
        forget_s: age at which a frame is worth half, s, > 0.
        reach_m: where a frame's points are taken to lie whose depth is not known, m, > 0.
        behind_ratio: a point farther than the nearest one of its cell by this fraction is hidden, >= 0.
    """

    cells: int = SAMPLES
    shortlist: int = 512
    forget_s: float = 600.0
    reach_m: float = 3.0
    behind_ratio: float = 0.25

    def __post_init__(self) -> None:
        for name in ("cells", "shortlist"):
            check_range(f"retrieval.{name}", getattr(self, name), 1)
        for name in ("forget_s", "reach_m"):
            check_range(f"retrieval.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("retrieval.behind_ratio", self.behind_ratio, 0.0)


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
        self._count = 0
        self._points: FloatArray = np.zeros((64, SAMPLES * SAMPLES, 3), np.float32)  # in the base of each frame
        self._poses: NDArray[np.float64] = np.zeros((64, 3))
        self._stamps_s: NDArray[np.float64] = np.zeros(64)
        self._world: tuple[FloatArray, FloatArray, FloatArray] | None = None  # points, their centres and radii

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory of what is kept of the frames, in bytes."""
        return int(self._points.nbytes + self._poses.nbytes + self._stamps_s.nbytes)

    def add(self, frame: Frame, pose_xyyaw: NDArray[Any]) -> None:
        """Remember what a frame shows from the pose (3,) of base_link.

        Raises:
            DataError: for a frame without calibration.
        """
        if frame.intrinsics is None or frame.T_base_camera is None:
            raise DataError("a frame is found again by what it shows: it needs intrinsics and T_base_camera")
        if self._count == len(self._stamps_s):
            self._points, self._poses, self._stamps_s = (
                np.concatenate([own, np.zeros_like(own)]) for own in (self._points, self._poses, self._stamps_s)
            )
        self._points[self._count] = sampled_points(frame, self.config.reach_m)
        self._poses[self._count], self._stamps_s[self._count] = pose_xyyaw, frame.stamp_s
        self._count += 1
        self._world = None

    def move(self, poses_xyyaw: NDArray[Any]) -> None:
        """Take the poses (N, 3) of all frames anew, e.g. after drift was taken out."""
        self._poses[: self._count] = poses_xyyaw
        self._world = None

    def query(
        self,
        pose_xyyaw: NDArray[Any],
        camera: CameraIntrinsics,
        T_base_camera: NDArray[Any],
        count: int,
        now_s: float | None = None,
    ) -> Retrieved:
        """Return at most ``count`` frames that show the view of a camera from the pose (3,) of base_link.

        Frames that show nothing of it are left out. ``now_s`` is what ages are counted from; the newest frame's stamp
        by default.
        """
        nothing = Retrieved(np.zeros(0, np.int64), np.zeros(0), 0.0)
        if not self._count or count < 1:
            return nothing
        T_camera_world = se3.inverse(se3.transform_from_xyyaw(np.asarray(pose_xyyaw, np.float64)) @ T_base_camera)
        points, centres, radii = self._in_world()
        near = _in_front(centres, radii, T_camera_world, camera, self.config.shortlist)
        seen = _cells_seen(points[near], T_camera_world, camera, self.config)
        now_s = float(self._stamps_s[: self._count].max()) if now_s is None else now_s
        ages_s = np.maximum(0.0, now_s - self._stamps_s[near])
        chosen = _greedy(seen, 0.5 ** (ages_s / self.config.forget_s), count)
        if not len(chosen):
            return nothing
        return Retrieved(near[chosen], seen[chosen].mean(axis=1), float(seen[chosen].any(axis=0).mean()))

    def _in_world(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return points (N, M, 3) of all frames, and centre (N, 3) and radius (N,) of those of each."""
        if self._world is None:
            local, poses = self._points[: self._count], self._poses[: self._count]
            points = local.copy()
            points[..., :2] = se2.transform_points(poses, local[..., :2].astype(np.float64))
            centres = points.mean(axis=1)
            self._world = points, centres, np.linalg.norm(points - centres[:, None], axis=2).max(axis=1)
        return self._world


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
