"""Where the robot is led in one world, and its starts and goals; all of it follows from the world's seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.evaluation.suites.closed_loop.settings import KINDS
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.driving.grid_planner import GridPlanner
from come_nav.sim.robot import RobotSettings

FAR_M = 3.0
AHEAD_LOW, AHEAD_HIGH = (0.6, -0.3, -0.4), (1.5, 0.3, 0.4)  # of an image in view, in the start's base: m, m, rad


@dataclass(frozen=True)
class LoopGoal:
    """One goal: ``kind`` of it, the start (3,) and the goal (3,) in the world."""

    kind: str
    start_world_xyyaw: NDArray[np.float64]
    goal_world_xyyaw: NDArray[np.float64]


class Course:
    """The tour through all rooms, and starts and goals on it.

    Attributes:
        legs: ways (N, 2) from room to room.
        start_world_xyyaw: (3,) where the tour begins.
        map: shortest ways of the true world.
    """

    def __init__(self, simulator: BuiltInSimulator) -> None:
        """Take a simulator of the world, which is used to look at poses and left at another one."""
        self._simulator = simulator
        self.world = simulator.world
        self.start_world_xyyaw = simulator.pose_world_xyyaw.copy()
        self.map = GridPlanner(self.world, RobotSettings().radius_m)
        self.legs = self._tour()
        points, heading = np.concatenate(self.legs), np.concatenate([headings(leg) for leg in self.legs])
        self._stops = np.column_stack([points, heading])

    def goals(self) -> Iterator[LoopGoal]:
        """Yield goals of all kinds in turn, without end."""
        rng = np.random.default_rng(self.world.seed)
        for kind in itertools.cycle(KINDS):
            yield self._draw(kind, rng)

    def way_m(self, start_world_xyyaw: NDArray[np.float64], goal_world_xyyaw: NDArray[np.float64]) -> float:
        """Return the length of the shortest way, m; infinite where there is none."""
        way = self.way(start_world_xyyaw, goal_world_xyyaw)
        return math.inf if way is None else float(np.hypot(*np.diff(way, axis=0).T).sum())

    def way(
        self, start_world_xyyaw: NDArray[np.float64], goal_world_xyyaw: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Return the shortest way (N, 2) between two poses (3,), or None."""
        start, goal = start_world_xyyaw, goal_world_xyyaw
        return self.map.plan((float(start[0]), float(start[1])), (float(goal[0]), float(goal[1])))

    def image(self, pose_world_xyyaw: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Return what the camera sees (H, W, 3) from a true pose."""
        self._simulator.reset(pose_world_xyyaw)
        return self._simulator.observe()[0].rgb

    def _tour(self) -> list[NDArray[np.float64]]:
        legs, here = [], self.start_world_xyyaw
        for room in self.world.rooms.numpy():
            centre = (float(room[0] + room[2]) / 2, float(room[1] + room[3]) / 2)
            way = self.map.plan((float(here[0]), float(here[1])), centre)
            if way is not None and len(way) > 2:
                legs.append(way)
                here = way[-1]
        if not legs:
            raise ConfigError(
                f"world {self.world.seed}: no room can be reached from the start; choose another --worlds"
            )
        return legs

    def _draw(self, kind: str, rng: np.random.Generator) -> LoopGoal:
        while True:
            start = self._stops[rng.integers(len(self._stops))]
            goal = self._stops[rng.integers(len(self._stops))]
            if kind == KINDS[0]:
                goal = se2.compose(start, rng.uniform(AHEAD_LOW, AHEAD_HIGH))
            line = torch.from_numpy(np.linspace(start[:2], goal[:2], 50)).float()
            ahead = se2.relative(start, goal)
            seen = bool(self.world.free(line, 0.0).all()) and abs(math.atan2(ahead[1], ahead[0])) < 0.25 * math.pi
            away_m = self.way_m(start, goal)
            if seen != (kind == KINDS[0]) or (away_m >= FAR_M) == seen or not math.isfinite(away_m):
                continue
            if self._fits(start) and self._fits(goal):
                return LoopGoal(kind, start, goal)

    def _fits(self, pose_world_xyyaw: NDArray[np.float64]) -> bool:
        try:
            self._simulator.reset(pose_world_xyyaw)
        except ConfigError:
            return False
        return True


def headings(way_xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the direction (N,) of a way (N, 2) at each of its points."""
    steps = np.diff(way_xy, axis=0)
    directions: NDArray[np.float64] = np.arctan2(steps[:, 1], steps[:, 0])
    return np.append(directions, directions[-1])
