"""The topic of obstacles, and the parameters that say what counts as one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import PointCloud2

from come_nav.core.errors import DataError
from come_nav.navigation.goals.obstacles import ObstacleMap
from come_nav.navigation.goals.settings import ObstacleSettings
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
    Parameter("max_obstacle_age_s", 2.0, "with use_obstacles, stand still without a cloud this fresh, s", 0.1, 60.0),
    Parameter("blocked_memory_s", 120.0, "keep away this long from where the robot was blocked, s", 0.0, 86400.0),
)
WAYS_OUT = "start spatial_memory or another source, or set use_obstacles to false, which drives blind"
COARSEST_M = 0.01  # steps of the coordinates of a cloud, beyond which the robot does not rely on it


def obstacle_settings(values: Mapping[str, Any]) -> ObstacleSettings:
    """Return what the parameters say of obstacles."""
    return ObstacleSettings(
        use=values["use_obstacles"],
        radius_m=values["robot_radius_m"],
        margin_m=values["clearance_margin_m"],
        min_height_m=values["obstacle_min_height_m"],
        max_height_m=values["obstacle_max_height_m"],
        range_m=values["obstacle_range_m"],
        cell_m=values["obstacle_cell_m"],
        blocked_memory_s=values["blocked_memory_s"],
        max_age_s=values["max_obstacle_age_s"],
    )


class ObstacleInput:
    """Shows the clouds of a topic to a map of obstacles."""

    def __init__(self, node: Any, obstacles: ObstacleMap) -> None:
        self._node, self._obstacles = node, obstacles
        self._stream = node.watch("obstacles", "obstacles", float("inf"), required=False)

    def take(self, message: PointCloud2) -> None:
        """Take a cloud in odom."""
        odom, frame = self._node.values["odom_frame"], message.header.frame_id.lstrip("/")
        try:
            if frame != odom.lstrip("/"):
                raise DataError(f"obstacles are in frame '{frame}', must be '{odom}'")
            points = messages.points_from_cloud(message)
            farthest_m = np.float32(np.abs(points[:, :2]).max(initial=0.0))
            if np.spacing(farthest_m) > COARSEST_M:
                raise DataError(
                    f"obstacles lie {farthest_m / 1000.0:.0f} km from the origin of '{odom}', where float32 counts in "
                    f"steps of {np.spacing(farthest_m):.2g} m; give odom an origin near the robot (REP 105)"
                )
        except DataError as error:
            self._stream.failed(time.monotonic(), str(error))
            return
        self._stream.received(time.monotonic())
        self._obstacles.see(points, messages.seconds_from_stamp(message.header.stamp))

    def reports(self) -> Sequence[Report]:
        """Return how many points there are, and whether they can be relied on."""
        own = self._obstacles
        values = {"points": len(own.seen_odom_xy), "places_where_blocked": own.touched_count}
        blindness = own.blindness(self._node.now_s())
        if blindness:
            return [Report("clearance", Level.ERROR, f"{blindness} on {self._stream.topic}; {WAYS_OUT}", values)]
        return [Report("clearance", Level.OK, "points that paths keep away from", values)]
