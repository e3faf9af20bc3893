"""Walks through a maze by discrete moves: half a cell ahead, or a turn of 45 degrees, from cell centre to cell centre.

A walker goes from goal to goal, at times to a place where it was before, and at times looks around. Poses lie on a
lattice, so that a place that is come back to is seen from exactly the pose of before.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.sim.episodes import Episode
from come_nav.sim.mazes.grid import MAZE_CELLS
from come_nav.sim.mazes.maze_looks import CELL_M, cell_centre_m
from come_nav.sim.worlds import World

HEADINGS = 8
MOVES_PER_S = 4.0  # the control rate of Memory Maze
AHEAD = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
WALK_DRIVER = "walk"
SAME_POSE = 6  # decimals of metres and radians

Cell = tuple[int, int]


class Move(IntEnum):
    """What a walker does from one frame to the next."""

    STAY = 0
    AHEAD = 1
    LEFT = 2
    RIGHT = 3


@dataclass(frozen=True)
class WalkSettings:
    """How a walker chooses where to go.

    Attributes:
        revisit: share of goals that are cells where it was before.
        look_around: probability of a full turn at a goal.
    """

    revisit: float = 0.7
    look_around: float = 0.4


def open_cells(world: World) -> NDArray[np.bool_]:
    """Return which cells of a maze are open (9, 9), index [x, y].

    Raises:
        ConfigError: for a world that is no maze.
    """
    if world.settings.kind != "maze":
        raise ConfigError(
            f"world {world.seed} is a {world.settings.kind}, not a maze; draw it with set of worlds 'maze'"
        )
    cells = np.zeros((MAZE_CELLS, MAZE_CELLS), dtype=bool)
    for x0, y0, x1, y1 in np.rint(world.rooms.double().numpy() / CELL_M).astype(int) - 1:
        cells[x0:x1, y0:y1] = True
    return cells


def walk(
    world: World, frames: int, seed: int, settings: WalkSettings = WalkSettings()
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Walk through a maze.

    Args:
        world: a maze.
        frames: number of poses, N.
        seed: of the walk; the maze has its own.
        settings: how goals are chosen.

    Returns:
        poses (N, 3) of base_link in the world, and the moves (N,) that led to them, the first of which is STAY.
    """
    walker = _Walker(open_cells(world), np.random.default_rng([world.seed, seed]), settings)
    moves = [Move.STAY]
    places = [walker.place]
    while len(moves) < frames:
        moves.append(walker.step())
        places.append(walker.place)
    lattice = np.array(places, np.float64)
    yaw = se2.wrap_angle(lattice[:, 2] * math.pi / 4)
    return np.column_stack([cell_centre_m(lattice[:, :2] / 2.0), yaw]), np.array(moves, np.int64)


def walked_episode(world: World, frames: int, seed: int, settings: WalkSettings = WalkSettings()) -> Episode:
    """Return a walk as a drive with perfect odometry: a recording, a suite's window, a bag can be made of it."""
    poses, _ = walk(world, frames, seed, settings)
    return Episode(
        stamps_s=np.arange(frames) / MOVES_PER_S,
        poses_world_xyyaw=poses,
        odometry_xyyaw=se2.relative(poses[:1], poses),
        twists=np.zeros((frames, 2)),
        world_seed=world.seed,
        driver=WALK_DRIVER,
        collisions=0,
        seed=seed,
    )


def distinct_poses(poses_xyyaw: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the poses (V, 3) among (N, 3) that differ by more than rounding, and which of them (N,) each is."""
    distinct, numbers = np.unique(poses_xyyaw.round(SAME_POSE), axis=0, return_inverse=True)
    return distinct, numbers.reshape(-1)


class _Walker:
    """State of a walk: twice the cell (so that halves are whole numbers), heading, and the moves that are planned."""

    def __init__(self, cells: NDArray[np.bool_], rng: np.random.Generator, settings: WalkSettings) -> None:
        self._cells, self._rng, self._settings = cells, rng, settings
        self._open: list[Cell] = [(int(x), int(y)) for x, y in np.argwhere(cells)]
        self._cell = self._open[int(rng.integers(len(self._open)))]
        self._visited = [self._cell]
        x, y = self._cell
        self.place = (2 * x, 2 * y, 2 * int(rng.integers(4)))
        self._planned: deque[Move] = deque()

    def step(self) -> Move:
        """Make one move."""
        if not self._planned:
            self._plan()
        move = self._planned.popleft()
        x, y, heading = self.place
        if move is Move.AHEAD:
            x, y = x + AHEAD[heading][0], y + AHEAD[heading][1]
        elif move is not Move.STAY:
            heading = (heading + (1 if move is Move.LEFT else -1)) % HEADINGS
        self.place = (x, y, heading)
        return move

    def _plan(self) -> None:
        """Plan the moves to another goal, and perhaps a look around there."""
        past = self._visited if self._rng.random() < self._settings.revisit else self._open
        goal = past[int(self._rng.integers(len(past)))]
        heading = self.place[2]
        here = self._cell
        for there in _way(self._cells, here, goal):
            wanted = AHEAD.index((there[0] - here[0], there[1] - here[1]))
            turn = (wanted - heading + HEADINGS // 2) % HEADINGS - HEADINGS // 2
            self._planned += [Move.LEFT if turn > 0 else Move.RIGHT] * abs(turn) + [Move.AHEAD, Move.AHEAD]
            heading, here = wanted, there
            self._visited.append(there)
        self._cell = here
        if self._rng.random() < self._settings.look_around:
            self._planned += [Move.LEFT if self._rng.random() < 0.5 else Move.RIGHT] * HEADINGS
        if not self._planned:
            self._planned.append(Move.STAY)


def _way(cells: NDArray[np.bool_], start: Cell, goal: Cell) -> list[Cell]:
    """Return the cells of a shortest way from ``start`` (left out) to ``goal``."""
    came_from: dict[Cell, Cell] = {goal: goal}
    queue = deque([goal])
    while queue and start not in came_from:
        x, y = queue.popleft()
        for dx, dy in AHEAD[::2]:
            beside = (x + dx, y + dy)
            inside = 0 <= beside[0] < MAZE_CELLS and 0 <= beside[1] < MAZE_CELLS
            if inside and cells[beside] and beside not in came_from:
                came_from[beside] = (x, y)
                queue.append(beside)
    way = []
    while start != goal:
        start = came_from[start]
        way.append(start)
    return way
