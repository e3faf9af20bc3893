"""How scripted drivers move: braking before obstacles and pure pursuit along a path."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from come_nav.sim.robot import Robot

BRAKE_CLEARANCE_M = 0.03


def wrap(angle: float) -> float:
    """Wrap an angle to (-pi, pi]."""
    return math.pi - (math.pi - angle) % (2.0 * math.pi)


def brake(robot: Robot, v_mps: float, w_radps: float) -> tuple[float, float]:
    """Stop, but go on turning, when the motion of the next 0.6 s would come too close to something."""
    limit = robot.config.radius_m + BRAKE_CLEARANCE_M
    speed = max(v_mps, robot.v_mps)
    reach = speed * speed / (2.0 * robot.config.v_acceleration) + speed * 2.0 * robot.config.step_s
    if speed <= 0.0 or robot.map.near(robot.x, robot.y) > limit + reach + 0.04:
        return v_mps, w_radps
    for fraction in (0.3, 0.6, 1.0):
        distance = reach * fraction
        heading = robot.yaw + 0.5 * robot.w_radps * distance / max(speed, 0.1)
        x, y = robot.x + distance * math.cos(heading), robot.y + distance * math.sin(heading)
        if robot.map.touches(x, y, limit):
            return 0.0, w_radps
    return v_mps, w_radps


class PathFollower:
    """Pure pursuit along a polyline, slower in bends and near the end; turns on the spot when it looks away."""

    def __init__(self, path_xy: NDArray[np.float64], cruise_mps: float) -> None:
        self.path = path_xy
        self.cruise_mps = cruise_mps
        lengths = np.hypot(*np.diff(path_xy, axis=0).T)
        self.remaining_m = np.concatenate([np.cumsum(lengths[::-1])[::-1], [0.0]])
        self._points = [(float(x), float(y)) for x, y in path_xy]
        self._index = 0
        self._turning = False

    def done(self, robot: Robot) -> bool:
        """Whether the robot is at the end."""
        x, y = self._points[-1]
        return math.hypot(x - robot.x, y - robot.y) < 0.15

    def command(self, robot: Robot) -> tuple[float, float]:
        """Return the twist (v m/s, w rad/s) for now."""
        reach = 0.3 + 0.35 * robot.v_mps
        last = len(self._points) - 1
        while self._index < last:  # move the target along until it is a look-ahead distance away
            x, y = self._points[self._index]
            if math.hypot(x - robot.x, y - robot.y) >= reach:
                break
            self._index += 1
        x, y = self._points[self._index]
        distance = math.hypot(x - robot.x, y - robot.y)
        error = wrap(math.atan2(y - robot.y, x - robot.x) - robot.yaw)
        if abs(error) > 1.0 or (self._turning and abs(error) > 0.25):
            self._turning = True
            return 0.0, math.copysign(min(1.2, 0.3 + 1.6 * abs(error)), error)
        self._turning = False
        curvature = 2.0 * math.sin(error) / max(distance, 0.15)
        left = float(self.remaining_m[self._index]) + distance
        v_mps = min(self.cruise_mps, 1.1 / (abs(curvature) + 1e-6), 0.08 + math.sqrt(1.0 * left))
        v_mps = min(v_mps, 0.22 + 0.9 * max(0.0, robot.map.near(robot.x, robot.y) - robot.config.radius_m))
        return v_mps, v_mps * curvature
