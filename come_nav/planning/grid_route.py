"""A whole path on a grid: around points that are known, along ways that were driven, and through what nobody has seen.

The search that drives the robot looks a few metres ahead; this one tells whether there is any way at all, and which.
Dijkstra's algorithm (SciPy) on cells with eight neighbours, whose cost rises towards obstacles as :class:`Clearance`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from come_nav.core.ways import way_through

Array = NDArray[np.float64]
FINEST_M = 0.05
MOST_CELLS = 250_000
AROUND_M = 3.0  # how far beside start, goal and driven ways a path may lead
DRIVEN_M = 0.4  # cells this near to a driven way are known to be free
UNKNOWN = 1.5  # what a metre costs elsewhere
NEAR = 3.0  # what a metre that nearly touches costs more
OVER_NO_WALL = 0.9  # 2 radii - the diagonal's half > the diagonal of a cell, in radii
FOUR = ((0, 1), (1, 0), (1, 1), (1, -1))  # neighbours on one side; the others follow


class RouteStatus(str, Enum):
    """Whether there is a path, or why not."""

    OK = "OK"
    START_OCCUPIED = "START_OCCUPIED"
    GOAL_OCCUPIED = "GOAL_OCCUPIED"
    TOO_FAR = "TOO_FAR"
    NO_ROUTE = "NO_ROUTE"
    NOT_READY = "NOT_READY"  # whoever asks does not know yet where the robot is, or what stands around it


@dataclass(frozen=True)
class Route:
    """What was found.

    Attributes:
        status: OK, or why there is no path.
        path_xyyaw: (N, 3) from start to goal, looking along the path but for its ends; empty unless OK.
        message: one sentence where there is none.
    """

    status: RouteStatus
    path_xyyaw: Array = field(default_factory=lambda: np.zeros((0, 3)))
    message: str = ""


@dataclass(frozen=True)
class Known:
    """What is known of the plane that the robot drives on.

    Attributes:
        points_xy: obstacles (N, 2).
        radius_m: the robot and some room, > 0.
        margin_m: paths within this further distance cost more, > 0.
        driven_xy: positions (M, 2) where the robot was.
    """

    points_xy: Array
    radius_m: float
    margin_m: float = 0.2
    driven_xy: Array = field(default_factory=lambda: np.zeros((0, 2)))

    def gap_m(self, at_xy: Array) -> Array:
        """Return distances (K,) of positions (K, 2) to the nearest obstacle; infinite beyond radius and margin."""
        return _distance(self.points_xy, at_xy, self.radius_m + self.margin_m)


def occupied(known: Known, at_xy: Array, tolerance_m: float = 0.0) -> bool:
    """Return whether the robot fits nowhere within ``tolerance_m`` of a position (2,)."""
    return bool((known.gap_m(_around(at_xy, tolerance_m)) < known.radius_m).all())


def grid_route(
    known: Known, start_xyyaw: Array, goal_xyyaw: Array, tolerance_m: float = 0.0, leaves: bool = True
) -> Route:
    """Return the cheapest path between two poses (3,) of one frame.

    Args:
        known: obstacles and ways.
        start_xyyaw: where it begins.
        goal_xyyaw: where it ends; a goal that is occupied is approached to within ``tolerance_m``.
        tolerance_m: see above.
        leaves: whether a start that touches something may be left, as the robot stands there.
    """
    start, goal = start_xyyaw[:2], goal_xyyaw[:2]
    if not leaves and occupied(known, start):
        return Route(RouteStatus.START_OCCUPIED, message="the start is nearer to an obstacle than the robot's radius")
    ends = _around(goal, tolerance_m)
    free = ends[known.gap_m(ends) >= known.radius_m]
    if not len(free):
        near = f" within {tolerance_m:g} m" if tolerance_m else ""
        return Route(RouteStatus.GOAL_OCCUPIED, message=f"an obstacle stands at the goal, and no place{near} is free")
    end = free[int(np.argmin(np.hypot(*(free - goal).T)))]
    ends = np.vstack([start, end])
    grid = _Grid.over(np.vstack([ends, known.points_xy, known.driven_xy]), known.radius_m)
    grid = grid or _Grid.over(np.vstack([ends, known.driven_xy]), known.radius_m) or _Grid.over(ends, known.radius_m)
    if grid is None:
        return Route(
            RouteStatus.TOO_FAR, message=f"the goal is {np.hypot(*(goal - start)):.0f} m away, too far to plan"
        )
    cells = grid.search(known, start, end)
    if cells is None:
        return Route(RouteStatus.NO_ROUTE, message="obstacles leave no way from here to the goal")
    path = _straightened(np.vstack([start, cells[1:-1], end]), known)
    return Route(RouteStatus.OK, _posed(path, start_xyyaw, goal_xyyaw))


@dataclass(frozen=True)
class _Grid:
    low_xy: Array
    cell_m: float
    shape: tuple[int, int]

    @classmethod
    def over(cls, points_xy: Array, radius_m: float) -> _Grid | None:
        """Return the grid that holds points (N, 2) and some room; None where it would be too coarse for the robot."""
        low, high = points_xy.min(axis=0) - AROUND_M, points_xy.max(axis=0) + AROUND_M
        cell_m = max(FINEST_M, float(np.sqrt(np.prod(high - low) / MOST_CELLS)))
        if cell_m > radius_m:
            return None
        rows, columns = (int(n) for n in np.ceil((high - low) / cell_m))
        return cls(low, cell_m, (rows, columns))

    def search(self, known: Known, start: Array, end: Array) -> Array | None:
        """Return the cells' centres (N, 2) of the cheapest path; None where there is none."""
        from scipy.sparse import coo_matrix

        first, last = (self._index(at) for at in (start, end))
        costs = self._costs(known, start).reshape(self.shape)
        own = np.divmod(last, self.shape[1])
        # The robot fits at the end itself, if not at the centre of its cell; no wall is so thin that cells reach over.
        if not np.isfinite(costs[own]) and self.cell_m <= OVER_NO_WALL * known.radius_m:
            costs[own] = UNKNOWN + NEAR
        count, numbers = costs.size, np.arange(costs.size).reshape(self.shape)
        sources, targets, lengths = [], [], []
        for down, right in FOUR:
            here, there = _shifted(numbers, down, right)
            mean = 0.5 * (costs.reshape(-1)[here] + costs.reshape(-1)[there])
            passable = np.isfinite(mean)
            sources.append(here[passable])
            targets.append(there[passable])
            lengths.append(mean[passable] * np.hypot(down, right) * self.cell_m)
        edges = np.concatenate(lengths), (np.concatenate(sources), np.concatenate(targets))
        graph = coo_matrix(edges, shape=(count, count)).tocsr()
        way = way_through(graph, first, last)
        return None if way is None else self._centres(np.array(way))

    def _costs(self, known: Known, start: Array) -> Array:
        """Return what a metre costs in each cell (rows * columns,); infinite where the robot does not fit."""
        centres = self._centres(np.arange(self.shape[0] * self.shape[1]))
        gap_m = known.gap_m(centres)
        near = np.clip((known.radius_m + known.margin_m - gap_m) / known.margin_m, 0.0, 1.0)
        costs = np.where(np.isfinite(_distance(known.driven_xy, centres, DRIVEN_M)), 1.0, UNKNOWN) + NEAR * near**2
        # A robot that touches something may leave it, but not come any nearer.
        stands_m = float(known.gap_m(start[None])[0])
        leaving = np.hypot(*(centres - start).T) <= known.radius_m
        needed_m = np.where(leaving, min(known.radius_m, stands_m - self.cell_m), known.radius_m)
        return np.where(gap_m < needed_m, np.inf, costs)

    def _index(self, at_xy: Array) -> int:
        row, column = np.clip(((at_xy - self.low_xy) / self.cell_m).astype(int), 0, np.array(self.shape) - 1)
        return int(row * self.shape[1] + column)

    def _centres(self, numbers: NDArray[np.int64]) -> Array:
        cells = np.stack(np.divmod(numbers, self.shape[1]), axis=-1)
        return self.low_xy + (cells + 0.5) * self.cell_m


def _shifted(numbers: NDArray[np.int64], down: int, right: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of the cells that lie (down, right) of each other."""
    rows, columns = numbers.shape
    here = numbers[: rows - down, max(0, -right) : columns - max(0, right)]
    there = numbers[down:, max(0, right) : columns - max(0, -right)]
    return here.reshape(-1), there.reshape(-1)


def _distance(points_xy: Array, at_xy: Array, limit_m: float) -> Array:
    from scipy.spatial import cKDTree

    if not len(points_xy):
        return np.full(len(at_xy), np.inf)
    return np.asarray(cKDTree(points_xy).query(at_xy, distance_upper_bound=limit_m)[0], np.float64)


def _around(at_xy: Array, radius_m: float) -> Array:
    """Return positions (K, 2) within a circle, its centre first."""
    if radius_m <= 0.0:
        return at_xy[None].astype(np.float64)
    angles = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    rings = np.linspace(radius_m / 4.0, radius_m, 4)
    circle = np.stack([np.outer(rings, np.cos(angles)), np.outer(rings, np.sin(angles))], axis=-1).reshape(-1, 2)
    return np.vstack([at_xy, at_xy + circle])


def _straightened(path_xy: Array, known: Known) -> Array:
    """Return fewer points (M, 2) of a path (N, 2) by shortcuts.

    They come no nearer to obstacles than what they replace, and lead no further beside ways that were driven.
    """
    gap_m = np.minimum(known.gap_m(path_xy), known.radius_m + known.margin_m)
    unknown_m = np.concatenate([[0.0], np.cumsum(_unknown(path_xy, known))])
    kept = [0]
    while kept[-1] < len(path_xy) - 1:
        here, last = kept[-1], len(path_xy) - 1
        leaps = [min(here + 2**power, last) for power in range(8, -1, -1)]
        kept.append(
            next(
                far
                for far in leaps
                if far == here + 1
                or _shortcut(path_xy[[here, far]], gap_m[here : far + 1].min(), unknown_m[far] - unknown_m[here], known)
            )
        )
    return path_xy[kept]


def _shortcut(ends_xy: Array, gap_m: float, unknown_m: float, known: Known) -> bool:
    """Whether the line between two points (2, 2) keeps so far from obstacles, and so much of it on driven ways."""
    way = ends_xy[1] - ends_xy[0]
    between = ends_xy[0] + np.linspace(0.0, 1.0, max(2, int(np.hypot(*way) / FINEST_M)))[:, None] * way
    if _unknown(between, known).sum() > unknown_m + 2.0 * FINEST_M:
        return False
    return bool((known.gap_m(between) >= gap_m - 1e-9).all())


def _unknown(path_xy: Array, known: Known) -> Array:
    """Return the lengths (N - 1,) of a path's steps (N, 2) that lead where nobody has driven, 0 for the others."""
    middles, steps = 0.5 * (path_xy[1:] + path_xy[:-1]), np.diff(path_xy, axis=0)
    return np.where(np.isfinite(_distance(known.driven_xy, middles, DRIVEN_M)), 0.0, np.hypot(*steps.T))


def _posed(path_xy: Array, start_xyyaw: Array, goal_xyyaw: Array, step_m: float = 0.1) -> Array:
    """Return poses (N, 3) every ``step_m`` along a path, looking along it; the ends look as they were asked to."""
    along_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path_xy, axis=0).T))])
    at_m = np.linspace(0.0, along_m[-1], max(2, int(np.ceil(along_m[-1] / step_m)) + 1))
    xy = np.stack([np.interp(at_m, along_m, path_xy[:, axis]) for axis in (0, 1)], axis=1)
    steps = np.diff(xy, axis=0)
    yaw = np.concatenate([[start_xyyaw[2]], np.arctan2(steps[1:, 1], steps[1:, 0]), [goal_xyyaw[2]]])
    return np.column_stack([xy, yaw])
