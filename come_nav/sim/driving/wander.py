"""The wandering driver."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from come_nav.sim.driving.grid_planner import START_CLEARANCE_M, GridPlanner
from come_nav.sim.driving.motion import PathFollower, brake, wrap
from come_nav.sim.robot import Robot


class Wander:
    """Drifts through the free space in bends of ever changing curvature; turns on the spot or stops now and then."""

    PERIOD_STEPS = 4
    LURE_POINTS = 12  # about 1.2 m ahead
    HORIZON_S = np.array([0.25, 0.5, 0.75, 1.0, 1.3, 1.6, 2.0])
    RATES = np.linspace(-1.2, 1.2, 13)

    def __init__(self, planner: GridPlanner, rng: np.random.Generator) -> None:
        self.planner, self.rng = planner, rng
        self._steps = 0
        self._hold_steps = 0
        self._command = (0.0, 0.0)
        self._drift = 0.0
        self._way: NDArray[np.float64] = np.empty((0, 2))
        self._cruise = 0.5
        self._follower: PathFollower | None = None
        self._follow_steps = 0

    def command(self, robot: Robot) -> tuple[float, float]:
        """Decide five times a second; brake at once when something comes too close."""
        if self._hold_steps > 0:
            self._hold_steps -= 1
            return self._command
        if self._follower is not None:  # out of a tight place along a planned way
            self._follow_steps -= 1
            command = brake(robot, *self._follower.command(robot))
            if self._follow_steps <= 0 or self._follower.done(robot):
                self._follower = None
            return command
        if self._steps % self.PERIOD_STEPS == 0:
            self._decide(robot)
        self._steps += 1
        return brake(robot, *self._command)

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
            self._escape(robot)
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
        return wrap(math.atan2(y - robot.y, x - robot.x) - robot.yaw)

    def _escape(self, robot: Robot) -> None:
        """Follow a planned way to anywhere for a few seconds."""
        way = self.planner.plan((robot.x, robot.y), self.planner.random_point(self.rng, START_CLEARANCE_M))
        self._command = (0.0, 0.0)
        if way is not None and len(way) > 2:
            self._way = way
            self._follower = PathFollower(way, self._cruise)
            self._follow_steps = int(self.rng.uniform(3.0, 7.0) / robot.config.step_s)

    def _turn(self, robot: Robot, angle: float) -> None:
        rate = math.copysign(float(self.rng.uniform(0.7, 1.2)), angle)
        self._hold(robot, rate, abs(angle / rate))

    def _hold(self, robot: Robot, w_radps: float, duration_s: float) -> None:
        self._command = (0.0, w_radps)
        self._hold_steps = int(duration_s / robot.config.step_s)
