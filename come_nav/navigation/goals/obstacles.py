"""What the robot keeps away from: points that were seen, and places where it ran into something."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.navigation.goals.settings import ObstacleSettings
from come_nav.planning.objectives import Clearance

TOUCHED_RAD = np.radians(np.arange(-60.0, 61.0, 15.0))  # where on its front a blocked robot may touch something
TOUCHED = 0.9  # and how far away, over the robot's radius, which has a little to spare
MOST_TOUCHED = 50


class ObstacleMap:
    """The newest cloud of obstacles, reduced to planar points in odom, and what the robot ran into.

    One thread may show it a new cloud while another asks.

    Attributes:
        settings: may be replaced while it is in use; heights and cells count from the next cloud on.
    """

    def __init__(self, settings: ObstacleSettings | None = None) -> None:
        self.settings = settings or ObstacleSettings()
        self._seen_odom_xy: NDArray[np.float64] = np.zeros((0, 2))
        self._seen_s: float | None = None
        self._touched: tuple[tuple[float, NDArray[np.float64]], ...] = ()  # when, and points (N, 2)

    @property
    def seen_odom_xy(self) -> NDArray[np.float64]:
        """Points (N, 2) of the newest cloud that count."""
        return self._seen_odom_xy

    @property
    def touched_count(self) -> int:
        """Places where the robot was blocked."""
        return len(self._touched)

    @property
    def points_odom_xy(self) -> NDArray[np.float64]:
        """Everything (N, 2) to keep away from."""
        return np.concatenate([self._seen_odom_xy, *(arc for _, arc in self._touched)])

    def blindness(self, now_s: float) -> str:
        """Return why what is seen cannot be relied on at a time on the clock of the stamps; empty where it can."""
        own = self.settings
        if not own.use or own.max_age_s is None:
            return ""
        if self._seen_s is None:
            return "no cloud of obstacles has come yet"
        age_s = now_s - self._seen_s
        if abs(age_s) <= own.max_age_s:
            return ""
        return f"the newest obstacles are of {age_s:.1f} s ago, allowed are {own.max_age_s:g} s"

    def see(self, points_odom_xyz: NDArray[np.floating], stamp_s: float = 0.0) -> None:
        """Take a cloud (N, 3) in odom instead of the one before, and when it was measured."""
        own, heights = self.settings, points_odom_xyz[:, 2]
        inside = (heights >= own.min_height_m) & (heights <= own.max_height_m)
        found = points_odom_xyz[inside, :2].astype(np.float64)
        _, first = np.unique(np.floor(found / own.cell_m).astype(np.int64), axis=0, return_index=True)
        self._seen_s = stamp_s
        self._seen_odom_xy = found[first]  # not the cells' centres, which may lie centimetres off

    def touch(self, blocked_odom_xyyaw: NDArray[np.float64], stamp_s: float) -> None:
        """Take it that something stands at the front of a robot at this pose (3,)."""
        radius_m, angle = TOUCHED * self.settings.radius_m, blocked_odom_xyyaw[2] + TOUCHED_RAD
        arc = blocked_odom_xyyaw[:2] + radius_m * np.column_stack([np.cos(angle), np.sin(angle)])
        self._touched = (*self._touched, (stamp_s, arc))[-MOST_TOUCHED:]

    def expire(self, now_s: float) -> None:
        """Forget what the robot ran into too long ago."""
        limit_s = self.settings.blocked_memory_s
        self._touched = tuple(entry for entry in self._touched if abs(now_s - entry[0]) <= limit_s)

    def rebase(self, T_before_after_xyyaw: NDArray[np.float64]) -> None:
        """Take it that odometry began anew: (3,) is where the new odom lies in the one before."""
        T = se2.inverse(T_before_after_xyyaw)
        self._seen_odom_xy = se2.transform_points(T, self._seen_odom_xy)
        self._touched = tuple((stamp_s, se2.transform_points(T, arc)) for stamp_s, arc in self._touched)

    def forget(self) -> None:
        """Forget what the robot ran into; what is seen goes with the next cloud."""
        self._touched = ()

    def clearance(self, pose_odom_xyyaw: NDArray[np.float64]) -> Clearance | None:
        """Return the cost term for paths that start at a pose (3,), or None without obstacles."""
        own, points = self.settings, self.points_odom_xy
        if not own.use or len(points) == 0:
            return None
        near = points[np.hypot(*(points - pose_odom_xyyaw[:2]).T) <= own.range_m]
        if len(near) == 0:
            return None
        local = se2.transform_points(se2.inverse(pose_odom_xyyaw), near)
        return Clearance(torch.from_numpy(local).float(), own.radius_m, own.margin_m)

    def clear(self, start_odom_xy: NDArray[np.float64], end_odom_xy: NDArray[np.float64]) -> bool:
        """Return whether the robot fits along a straight line between two points (2,)."""
        own = self.settings
        return not own.use or line_is_clear(self.points_odom_xy, start_odom_xy, end_odom_xy, own.radius_m)


def line_is_clear(
    points_xy: NDArray[np.float64], start_xy: NDArray[np.float64], end_xy: NDArray[np.float64], radius_m: float
) -> bool:
    """Return whether no point (N, 2) is nearer than ``radius_m`` to the line between two points (2,).

    Points that are that near to its start do not count: the robot stands there.
    """
    points = points_xy[np.hypot(*(points_xy - start_xy).T) > radius_m]
    way = end_xy - start_xy
    along = np.clip((points - start_xy) @ way / max(float(way @ way), 1e-12), 0.0, 1.0)
    return bool((np.hypot(*(points - start_xy - along[:, None] * way).T) > radius_m).all())
