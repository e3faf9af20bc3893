"""Paths through a world for the scripted drivers: Dijkstra on a 10 cm grid that keeps away from furniture."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from come_nav.core.ways import way_through
from come_nav.sim.spaces import GRID_M, DriveSpace

CELL_M = 2 * GRID_M
START_CLEARANCE_M = 0.4  # around starts and goals
COMFORT_M = 0.55  # nearer to something solid than this a path costs more


class GridPlanner:
    """Plans for a robot of ``radius_m`` with ``margin_m`` to spare."""

    def __init__(self, world: DriveSpace, radius_m: float, margin_m: float = 0.06) -> None:
        from scipy import sparse

        fine = world.distance_grid
        columns, rows = fine.shape[0] // 2, fine.shape[1] // 2
        blocks = fine[: 2 * columns, : 2 * rows].reshape(columns, 2, rows, 2)
        self.clearance: NDArray[np.float32] = blocks.min(axis=(1, 3))
        self.x0, self.y0 = world.bounds[0], world.bounds[1]
        self.open = self.clearance > radius_m + margin_m
        self.cells = np.flatnonzero(self.open)
        node = np.full(self.open.shape, -1)
        node.ravel()[self.cells] = np.arange(len(self.cells))
        self._node = node
        toll = 1.0 + 4.0 * np.maximum(COMFORT_M - self.clearance, 0.0) / COMFORT_M
        starts, ends, weights = [], [], []
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            here = np.s_[: columns - dx, max(0, -dy) : rows - max(0, dy)]
            there = np.s_[dx:, max(0, dy) : rows + min(0, dy)]
            both = (node[here] >= 0) & (node[there] >= 0)
            starts.append(node[here][both])
            ends.append(node[there][both])
            weights.append(math.hypot(dx, dy) * 0.5 * (toll[here][both] + toll[there][both]))
        shape = (len(self.cells), len(self.cells))
        edges = (np.concatenate(weights), (np.concatenate(starts), np.concatenate(ends)))
        self._graph = sparse.csr_matrix(edges, shape=shape)

    def random_point(
        self, rng: np.random.Generator, clearance_m: float, rectangle: NDArray[np.float64] | None = None
    ) -> tuple[float, float]:
        """Return a random open point with ``clearance_m`` around it (the clearest there is, if none has as much)."""
        allowed = self.open & (self.clearance > clearance_m)
        if rectangle is not None:
            inside = np.zeros_like(allowed)
            low = [int((rectangle[axis] - origin) / CELL_M) + 1 for axis, origin in ((0, self.x0), (1, self.y0))]
            high = [int((rectangle[axis + 2] - origin) / CELL_M) for axis, origin in ((0, self.x0), (1, self.y0))]
            inside[low[0] : high[0], low[1] : high[1]] = True
            allowed &= inside
        choices = np.flatnonzero(allowed)
        if len(choices) == 0:
            masked = np.where(self.open if rectangle is None else self.open & inside, self.clearance, -1.0)
            choices = np.array([int(masked.argmax())])
        return self._centre(int(choices[int(rng.integers(len(choices)))]))

    def plan(self, start_xy: tuple[float, float], goal_xy: tuple[float, float]) -> NDArray[np.float64] | None:
        """Return a smooth path (M, 2) from start to goal, about 10 cm between points; None if there is no way."""
        start, goal = self._nearest_node(start_xy), self._nearest_node(goal_xy)
        way = way_through(self._graph, goal, start)
        if way is None:
            return None
        points = np.array([self._centre(int(self.cells[node])) for node in reversed(way)])
        return self._smooth(
            np.concatenate([[start_xy], points[1:]]) if len(points) > 1 else np.array([start_xy, goal_xy])
        )

    def _smooth(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Round the corners of a grid path; a point that would leave the open cells stays where it was."""
        for _ in range(4):
            if len(points) < 3:
                break
            middle = 0.25 * points[:-2] + 0.5 * points[1:-1] + 0.25 * points[2:]
            middle = middle + 0.5 * (0.5 * (points[:-2] + points[2:]) - middle)
            index = self._index(middle)
            fine = self.open.ravel()[index]
            points[1:-1][fine] = middle[fine]
        return points

    def _index(self, points_xy: NDArray[np.float64]) -> NDArray[np.int64]:
        column = np.clip(((points_xy[:, 0] - self.x0) / CELL_M).astype(int), 0, self.open.shape[0] - 1)
        row = np.clip(((points_xy[:, 1] - self.y0) / CELL_M).astype(int), 0, self.open.shape[1] - 1)
        index: NDArray[np.int64] = column * self.open.shape[1] + row
        return index

    def _centre(self, cell: int) -> tuple[float, float]:
        column, row = divmod(cell, self.open.shape[1])
        return self.x0 + (column + 0.5) * CELL_M, self.y0 + (row + 0.5) * CELL_M

    def _nearest_node(self, point_xy: tuple[float, float]) -> int:
        index = int(self._index(np.array([point_xy]))[0])
        node = int(self._node.ravel()[index])
        if node >= 0:
            return node
        column, row = np.divmod(self.cells, self.open.shape[1])
        x, y = self.x0 + (column + 0.5) * CELL_M, self.y0 + (row + 0.5) * CELL_M
        return int(np.argmin((x - point_xy[0]) ** 2 + (y - point_xy[1]) ** 2))
