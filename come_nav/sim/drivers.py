"""Scripted drivers: they look at the true map and command twists like a person with a steady hand."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError, suggest
from come_nav.sim.grid_planner import GridPlanner
from come_nav.sim.robot import Robot
from come_nav.sim.worlds import World

DRIVERS = ("wander", "tour", "point_to_point")
START_CLEARANCE_M = 0.4
BRAKE_CLEARANCE_M = 0.03


class Driver(Protocol):
    """Commands a twist from the robot's true state at every internal step."""

    def command(self, robot: Robot) -> tuple[float, float]:
        """Return (v m/s, w rad/s)."""
        ...


def make_driver(name: str, world: World, planner: GridPlanner, rng: np.random.Generator) -> Driver:
    """Return the driver ``name`` (one of DRIVERS); raise ConfigError for another name."""
    if name == "wander":
        return Wander(world, planner, rng)
    if name == "tour":
        return Tour(world, planner, rng)
    if name == "point_to_point":
        return PointToPoint(world, planner, rng)
    raise ConfigError(f"driver must be one of {', '.join(DRIVERS)}, got '{name}'{suggest(name, DRIVERS)}")


def _wrap(angle: float) -> float:
    return math.pi - (math.pi - angle) % (2.0 * math.pi)


def _brake(robot: Robot, v_mps: float, w_radps: float) -> tuple[float, float]:
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


class _PathFollower:
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
        x, y = self._points[-1]
        return math.hypot(x - robot.x, y - robot.y) < 0.15

    def command(self, robot: Robot) -> tuple[float, float]:
        reach = 0.3 + 0.35 * robot.v_mps
        last = len(self._points) - 1
        while self._index < last:  # move the target along until it is a look-ahead distance away
            x, y = self._points[self._index]
            if math.hypot(x - robot.x, y - robot.y) >= reach:
                break
            self._index += 1
        x, y = self._points[self._index]
        distance = math.hypot(x - robot.x, y - robot.y)
        error = _wrap(math.atan2(y - robot.y, x - robot.x) - robot.yaw)
        if abs(error) > 1.0 or (self._turning and abs(error) > 0.25):
            self._turning = True
            return 0.0, math.copysign(min(1.2, 0.3 + 1.6 * abs(error)), error)
        self._turning = False
        curvature = 2.0 * math.sin(error) / max(distance, 0.15)
        left = float(self.remaining_m[self._index]) + distance
        v_mps = min(self.cruise_mps, 1.1 / (abs(curvature) + 1e-6), 0.08 + math.sqrt(1.0 * left))
        v_mps = min(v_mps, 0.22 + 0.9 * max(0.0, robot.map.near(robot.x, robot.y) - robot.config.radius_m))
        return v_mps, v_mps * curvature


class _GoalDriver:
    """Drives from goal to goal; between goals it pauses or looks around at times."""

    def __init__(self, world: World, planner: GridPlanner, rng: np.random.Generator) -> None:
        self.world, self.planner, self.rng = world, planner, rng
        self._follower: _PathFollower | None = None
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
        v_mps, w_radps = _brake(robot, *self._follower.command(robot))
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
                self._follower = _PathFollower(path, float(self.rng.uniform(0.45, 0.6)))
                return
        self._follower = None


class Tour(_GoalDriver):
    """Visits the rooms one after another and returns to places where it was before."""

    def __init__(self, world: World, planner: GridPlanner, rng: np.random.Generator) -> None:
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


class Wander:
    """Drifts through the free space in bends of ever changing curvature; turns on the spot or stops now and then."""

    PERIOD_STEPS = 4
    LURE_POINTS = 12  # about 1.2 m ahead
    HORIZON_S = np.array([0.25, 0.5, 0.75, 1.0, 1.3, 1.6, 2.0])
    RATES = np.linspace(-1.2, 1.2, 13)

    def __init__(self, world: World, planner: GridPlanner, rng: np.random.Generator) -> None:
        self.world, self.planner, self.rng = world, planner, rng
        self._steps = 0
        self._hold_steps = 0
        self._command = (0.0, 0.0)
        self._drift = 0.0
        self._way: NDArray[np.float64] = np.empty((0, 2))
        self._cruise = 0.5

    def command(self, robot: Robot) -> tuple[float, float]:
        """Decide five times a second; brake at once when something comes too close."""
        if self._hold_steps > 0:
            self._hold_steps -= 1
            return self._command
        if self._steps % self.PERIOD_STEPS == 0:
            self._decide(robot)
        self._steps += 1
        return _brake(robot, *self._command)

    def _decide(self, robot: Robot) -> None:
        dt = self.PERIOD_STEPS * robot.config.step_s
        self._drift += -self._drift * dt / 2.5 + 0.55 * math.sqrt(dt) * float(self.rng.standard_normal())
        chance = self.rng.random()
        if chance < dt / 40.0:
            self._hold(robot, 0.0, float(self.rng.uniform(0.4, 1.6)))
            return
        if chance < dt / 18.0:
            self._turn(robot, float(self.rng.uniform(0.5, 2.6)) * (1 if self.rng.random() < 0.5 else -1))
            return
        bearing = self._follow_lure(robot)
        wanted = max(-1.1, min(1.1, self._drift + 0.8 * math.tanh(bearing)))
        open_s, clearance = self._look_ahead(robot)
        cost = np.abs(self.RATES - wanted) + 2.5 * np.maximum(0.0, 0.5 - clearance) + 1.2 * (2.0 - open_s)
        best = int(np.argmin(cost))
        if open_s[best] < 0.75:
            angle = bearing + 0.4 * float(self.rng.standard_normal())
            self._turn(robot, math.copysign(max(0.5, min(abs(angle), 2.5)), angle))
            return
        rate = float(self.RATES[best])
        speed = self._cruise * (1.0 - 0.3 * abs(rate)) * min(1.0, 0.4 + 0.4 * float(open_s[best]))
        self._command = (speed, rate if abs(rate - wanted) > 0.1 else wanted)

    def _look_ahead(self, robot: Robot) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return for each turning rate how long its arc is open (s) and the least clearance on that part (m)."""
        turn = self.RATES[:, None] * self.HORIZON_S
        half = 0.5 * turn
        speed = self._cruise * (1.0 - 0.3 * np.abs(self.RATES))[:, None]
        chord = speed * self.HORIZON_S * np.sinc(half / np.pi)
        x, y = robot.x + chord * np.cos(robot.yaw + half), robot.y + chord * np.sin(robot.yaw + half)
        grid = robot.map.grid
        column = np.clip(((x - robot.map.x0) * 20.0).astype(int), 0, grid.shape[0] - 1)
        row = np.clip(((y - robot.map.y0) * 20.0).astype(int), 0, grid.shape[1] - 1)
        clearance = grid[column, row] - robot.config.radius_m
        blocked = clearance < 0.07
        first = np.where(blocked.any(1), blocked.argmax(1), len(self.HORIZON_S))
        open_s = np.concatenate([[0.0], self.HORIZON_S])[first]
        ahead = np.arange(len(self.HORIZON_S)) < first[:, None]
        return open_s, np.where(ahead, clearance, np.inf).min(1, initial=1.0)

    def _follow_lure(self, robot: Robot) -> float:
        """Return the bearing (rad) of a point ahead on the way to a far place, changed every ten seconds or so."""
        if len(self._way) == 0 or self.rng.random() < self.PERIOD_STEPS * robot.config.step_s / 12.0:
            self._cruise = float(self.rng.uniform(0.42, 0.6))
            goal = self.planner.random_point(self.rng, START_CLEARANCE_M)
            way = self.planner.plan((robot.x, robot.y), goal)
            self._way = np.array([goal]) if way is None else way
        distance = np.hypot(self._way[:, 0] - robot.x, self._way[:, 1] - robot.y)
        nearest = int(distance.argmin())
        if nearest > len(self._way) - 6:
            self._way = self._way[:0]  # arrived: think of another place the next time
            return 0.0
        x, y = self._way[min(nearest + self.LURE_POINTS, len(self._way) - 1)]
        return _wrap(math.atan2(y - robot.y, x - robot.x) - robot.yaw)

    def _turn(self, robot: Robot, angle: float) -> None:
        rate = math.copysign(float(self.rng.uniform(0.7, 1.2)), angle)
        self._hold(robot, rate, abs(angle / rate))

    def _hold(self, robot: Robot, w_radps: float, duration_s: float) -> None:
        self._command = (0.0, w_radps)
        self._hold_steps = int(duration_s / robot.config.step_s)
