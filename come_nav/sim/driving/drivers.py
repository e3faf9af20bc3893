"""Scripted drivers: they look at the true map and command twists like a person with a steady hand."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch

from come_nav.core.errors import ConfigError, suggest
from come_nav.sim.driving.grid_planner import START_CLEARANCE_M, GridPlanner
from come_nav.sim.driving.motion import PathFollower, brake
from come_nav.sim.driving.wander import Wander
from come_nav.sim.robot import Robot
from come_nav.sim.spaces import DriveSpace

DRIVERS = ("wander", "tour", "point_to_point")


class Driver(Protocol):
    """Commands a twist from the robot's true state at every internal step."""

    def command(self, robot: Robot) -> tuple[float, float]:
        """Return (v m/s, w rad/s)."""
        ...


def make_driver(name: str, world: DriveSpace, planner: GridPlanner, rng: np.random.Generator) -> Driver:
    """Return the driver ``name`` (one of DRIVERS); raise ConfigError for another name."""
    if name == "wander":
        return Wander(planner, rng)
    if name == "tour":
        return Tour(world, planner, rng)
    if name == "point_to_point":
        return PointToPoint(world, planner, rng)
    raise ConfigError(f"driver must be one of {', '.join(DRIVERS)}, got '{name}'{suggest(name, DRIVERS)}")


class _GoalDriver:
    """Drives from goal to goal; between goals it pauses or looks around at times."""

    def __init__(self, world: DriveSpace, planner: GridPlanner, rng: np.random.Generator) -> None:
        self.world, self.planner, self.rng = world, planner, rng
        self._follower: PathFollower | None = None
        self._pause_steps = 0
        self._pause_w = 0.0
        self._still_steps = 0

    def next_goal(self, robot: Robot) -> tuple[float, float]:
        raise NotImplementedError

    def command(self, robot: Robot) -> tuple[float, float]:
        if self._pause_steps > 0:
            self._pause_steps -= 1
            return 0.0, self._pause_w
        if self._follower is None or self._follower.done(robot):
            if self._follower is not None:
                self._draw_pause(robot)
            self._replan(robot)
            return 0.0, self._pause_w
        assert self._follower is not None
        v_mps, w_radps = brake(robot, *self._follower.command(robot))
        self._still_steps = self._still_steps + 1 if abs(robot.v_mps) + abs(robot.w_radps) < 0.02 else 0
        if self._still_steps * robot.config.step_s > 1.5:  # pinched between things: go somewhere else
            self._still_steps = 0
            self._replan(robot)
        return v_mps, w_radps

    def _draw_pause(self, robot: Robot) -> None:
        kind = self.rng.random()
        if kind < 0.35:  # look around
            angle = self.rng.uniform(0.7, 3.0) * (1 if self.rng.random() < 0.5 else -1)
            self._pause_w = math.copysign(float(self.rng.uniform(0.6, 1.1)), angle)
            self._pause_steps = int(abs(angle / self._pause_w) / robot.config.step_s)
        elif kind < 0.5:
            self._pause_w, self._pause_steps = 0.0, int(self.rng.uniform(0.4, 1.5) / robot.config.step_s)
        else:
            self._pause_w, self._pause_steps = 0.0, 0

    def _replan(self, robot: Robot) -> None:
        for _ in range(10):
            path = self.planner.plan((robot.x, robot.y), self.next_goal(robot))
            if path is not None and len(path) > 2:
                self._follower = PathFollower(path, float(self.rng.uniform(0.45, 0.6)))
                return
        self._follower = None


class Tour(_GoalDriver):
    """Visits the rooms one after another and returns to places where it was before."""

    def __init__(self, world: DriveSpace, planner: GridPlanner, rng: np.random.Generator) -> None:
        super().__init__(world, planner, rng)
        self._to_visit: list[int] = []
        self._visited: list[tuple[float, float]] = []
        self._since_revisit = 0

    def next_goal(self, robot: Robot) -> tuple[float, float]:
        """Return an open point of the nearest room not yet visited, or at every third goal an earlier place."""
        if not self._visited:
            self._visited.append((robot.x, robot.y))
        if self._since_revisit >= 2 and len(self._visited) > 2:
            self._since_revisit = 0
            return self._visited[int(self.rng.integers(len(self._visited) - 1))]
        if not self._to_visit:
            here = int(self.world.room_of(_point(robot.x, robot.y)))
            self._to_visit = [room for room in range(len(self.world.rooms)) if room != here]
        centres = 0.5 * (self.world.rooms[:, :2] + self.world.rooms[:, 2:]).double().numpy()
        distance = [
            math.hypot(centres[room, 0] - robot.x, centres[room, 1] - robot.y) * self.rng.uniform(0.6, 1.4)
            for room in self._to_visit
        ]
        room = self._to_visit.pop(int(np.argmin(distance)))
        rectangle = self.world.rooms[room].double().numpy() + np.array([0.4, 0.4, -0.4, -0.4])
        goal = self.planner.random_point(self.rng, START_CLEARANCE_M, rectangle)
        self._visited.append(goal)
        self._since_revisit += 1
        return goal


class PointToPoint(_GoalDriver):
    """Drives to a far random point, then to the next."""

    def next_goal(self, robot: Robot) -> tuple[float, float]:
        """Return the farthest of four random open points."""
        points = [self.planner.random_point(self.rng, START_CLEARANCE_M) for _ in range(4)]
        return max(points, key=lambda point: math.hypot(point[0] - robot.x, point[1] - robot.y))


def _point(x: float, y: float) -> torch.Tensor:
    return torch.tensor([x, y], dtype=torch.float64)
