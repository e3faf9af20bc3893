"""A differential-drive robot: limits of speed and acceleration, and a circular footprint."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from come_nav.core.checks import check_range
from come_nav.sim.spaces import GRID_M, DriveSpace

HALF_DIAGONAL_M = 0.5 * math.sqrt(2.0) * GRID_M


@dataclass(frozen=True)
class RobotSettings:
    """Limits of the robot.

    Attributes:
        radius_m: of the circular footprint.
        v_max_mps, w_max_radps: largest speeds (it never drives backwards on its own, but may be told to).
        v_acceleration, w_acceleration: m/s^2 and rad/s^2.
        step_s: internal time step.
    """

    radius_m: float = 0.2
    v_max_mps: float = 0.6
    w_max_radps: float = 1.5
    v_acceleration: float = 1.0
    w_acceleration: float = 3.0
    step_s: float = 0.05

    def __post_init__(self) -> None:
        check_range("robot.radius_m", self.radius_m, 0.05, 0.5)
        check_range("robot.v_max_mps", self.v_max_mps, 0.0, 3.0, open_low=True)
        check_range("robot.w_max_radps", self.w_max_radps, 0.0, 6.0, open_low=True)
        check_range("robot.v_acceleration", self.v_acceleration, 0.0, 20.0, open_low=True)
        check_range("robot.w_acceleration", self.w_acceleration, 0.0, 50.0, open_low=True)
        check_range("robot.step_s", self.step_s, 0.001, 0.2)


class CollisionMap:
    """Fast distance queries of single points: a grid rules most out, exact footprints decide near things.

    Where the space has no footprints (a mesh) the grid alone decides.
    """

    def __init__(self, world: DriveSpace) -> None:
        self.grid = world.distance_grid
        self.x0, self.y0 = world.bounds[0], world.bounds[1]
        self._bounds = world.bounds
        solid = world.solid if world.solid is not None else np.empty((0, 5))
        self._exact = world.solid is not None
        self._centre_x, self._centre_y, self._half_x, self._half_y = solid[:, :4].T
        self._cosine, self._sine = np.cos(solid[:, 4]), np.sin(solid[:, 4])

    def near(self, x: float, y: float) -> float:
        """Distance at the grid cell of (x, y), within 3.6 cm of the truth; 0 outside the building."""
        column, row = int((x - self.x0) / GRID_M), int((y - self.y0) / GRID_M)
        if x < self.x0 or y < self.y0 or column >= self.grid.shape[0] or row >= self.grid.shape[1]:
            return 0.0
        return float(self.grid[column, row])

    def touches(self, x: float, y: float, radius_m: float) -> bool:
        """Whether a disc at (x, y) touches something solid or leaves the building, exactly."""
        rough = self.near(x, y)
        if rough > radius_m + HALF_DIAGONAL_M:
            return False
        if not self._exact:
            return rough <= radius_m
        edge = min(x - self._bounds[0], y - self._bounds[1], self._bounds[2] - x, self._bounds[3] - y)
        if edge <= radius_m:
            return True
        dx, dy = x - self._centre_x, y - self._centre_y
        out_x = np.maximum(np.abs(self._cosine * dx + self._sine * dy) - self._half_x, 0.0)
        out_y = np.maximum(np.abs(self._cosine * dy - self._sine * dx) - self._half_y, 0.0)
        return bool((out_x * out_x + out_y * out_y).min(initial=math.inf) <= radius_m * radius_m)


class Robot:
    """The robot's true state in a world."""

    def __init__(self, world: DriveSpace, config: RobotSettings, pose_world_xyyaw: tuple[float, float, float]) -> None:
        self.config = config
        self.map = CollisionMap(world)
        self.x, self.y, self.yaw = pose_world_xyyaw
        self.v_mps = self.w_radps = 0.0
        self.collisions = 0

    def step(self, v_mps: float, w_radps: float, duration_s: float | None = None) -> bool:
        """Advance by one short step towards a commanded twist; on collision stand still and return True.

        The step lasts ``config.step_s`` unless ``duration_s`` is given.
        """
        config = self.config
        dt = config.step_s if duration_s is None else duration_s
        self.v_mps = _approach(self.v_mps, _clip(v_mps, config.v_max_mps), config.v_acceleration * dt)
        self.w_radps = _approach(self.w_radps, _clip(w_radps, config.w_max_radps), config.w_acceleration * dt)
        half_turn = 0.5 * self.w_radps * dt
        chord = self.v_mps * dt * (math.sin(half_turn) / half_turn if abs(half_turn) > 1e-9 else 1.0)
        x = self.x + chord * math.cos(self.yaw + half_turn)
        y = self.y + chord * math.sin(self.yaw + half_turn)
        if chord != 0.0 and self.map.touches(x, y, config.radius_m):
            self.v_mps = self.w_radps = 0.0
            self.collisions += 1
            return True
        self.x, self.y = x, y
        self.yaw = math.pi - (math.pi - self.yaw - 2.0 * half_turn) % (2.0 * math.pi)
        return False


def _clip(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


def _approach(value: float, target: float, change: float) -> float:
    return value + _clip(target - value, change)
