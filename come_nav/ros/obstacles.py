"""Remembered or measured obstacles as a term of the planner's cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2
from come_nav.planning.objectives import Clearance
from come_nav.ros import messages
from come_nav.ros.diagnostics import Level, Report
from come_nav.ros.parameters import Parameter

OBSTACLE_PARAMETERS = (
    Parameter("use_obstacles", True, "keep away from the points on the topic obstacles"),
    Parameter("robot_radius_m", 0.25, "reject paths nearer to obstacles; the robot and some room, m", 0.01, 5.0),
    Parameter("clearance_margin_m", 0.2, "paths within this further distance cost more, m", 0.01, 5.0),
    Parameter("obstacle_min_height_m", 0.1, "points lower than this are floor, m in odom", -10.0, 10.0),
    Parameter("obstacle_max_height_m", 1.2, "points higher than this are passed below, m in odom", -10.0, 10.0),
    Parameter("obstacle_range_m", 4.0, "points further away than this do not matter, m", 0.1, 100.0),
    Parameter("obstacle_cell_m", 0.05, "points are thinned to one per cell of this size, m", 0.005, 1.0),
    Parameter("blocked_memory_s", 120.0, "keep away this long from where the robot was blocked, s", 0.0, 86400.0),
)
TOUCHED_RAD = np.radians(np.arange(-60.0, 61.0, 15.0))  # where on its front a blocked robot may touch something
TOUCHED = 0.9  # and how far away, over the robot's radius, which has a little to spare
MOST_TOUCHED = 50


class Obstacles:
    """The newest cloud of obstacles, reduced to planar points in odom, and what the robot ran into."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._stream = node.watch("obstacles", "obstacles", float("inf"), required=False)
        self._seen_odom_xy: NDArray[np.float64] = np.zeros((0, 2))
        self._touched: tuple[tuple[float, NDArray[np.float64]], ...] = ()  # when, and points (N, 2)

    def take(self, message: PointCloud2) -> None:
        """Take a cloud in odom."""
        values = self._node.values
        frame = message.header.frame_id.lstrip("/")
        try:
            if frame != values["odom_frame"].lstrip("/"):
                raise DataError(f"obstacles are in frame '{frame}', must be '{values['odom_frame']}'")
            points = messages.points_from_cloud(message)
        except DataError as error:
            self._stream.failed(time.monotonic(), str(error))
            return
        self._stream.received(time.monotonic())
        heights = points[:, 2]
        inside = (heights >= values["obstacle_min_height_m"]) & (heights <= values["obstacle_max_height_m"])
        cell_m = values["obstacle_cell_m"]
        found = points[inside, :2].astype(np.float64)
        _, first = np.unique(np.floor(found / cell_m).astype(np.int64), axis=0, return_index=True)
        self._seen_odom_xy = found[first]  # not the cells' centres, which may lie centimetres off

    def touch(self, blocked_odom_xyyaw: NDArray[np.float64], now_s: float) -> None:
        """Take it that something stands at the front of a robot at this pose (3,)."""
        radius_m, angle = TOUCHED * self._node.values["robot_radius_m"], blocked_odom_xyyaw[2] + TOUCHED_RAD
        arc = blocked_odom_xyyaw[:2] + radius_m * np.column_stack([np.cos(angle), np.sin(angle)])
        self._touched = (*self._touched, (now_s, arc))[-MOST_TOUCHED:]

    def forget(self) -> None:
        """Forget what the robot ran into; what is seen comes from another node."""
        self._touched = ()

    @property
    def points_odom_xy(self) -> NDArray[np.float64]:
        """Everything (N, 2) to keep away from."""
        if not self._touched:
            return self._seen_odom_xy
        now_s, limit_s = self._node.now_s(), self._node.values["blocked_memory_s"]
        self._touched = tuple(entry for entry in self._touched if abs(now_s - entry[0]) <= limit_s)
        return np.concatenate([self._seen_odom_xy, *(arc for _, arc in self._touched)])

    def clearance(self, pose_odom_xyyaw: NDArray[np.float64]) -> Clearance | None:
        """Return the cost term for paths that start at a pose (3,), or None without obstacles."""
        values = self._node.values
        points = self.points_odom_xy
        if not values["use_obstacles"] or len(points) == 0:
            return None
        distance = np.hypot(*(points - pose_odom_xyyaw[:2]).T)
        near = points[distance <= values["obstacle_range_m"]]
        if len(near) == 0:
            return None
        local = se2.transform_points(se2.inverse(pose_odom_xyyaw), near)
        return Clearance(torch.from_numpy(local).float(), values["robot_radius_m"], values["clearance_margin_m"])

    def clear(self, start_odom_xy: NDArray[np.float64], end_odom_xy: NDArray[np.float64]) -> bool:
        """Return whether the robot fits along a straight line between two points (2,)."""
        if not self._node.values["use_obstacles"]:
            return True
        return line_is_clear(self.points_odom_xy, start_odom_xy, end_odom_xy, self._node.values["robot_radius_m"])

    def reports(self) -> Sequence[Report]:
        """Return how many points there are."""
        values = {"points": len(self._seen_odom_xy), "places_where_blocked": len(self._touched)}
        return [Report("clearance", Level.OK, "points that paths keep away from", values)]


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
