"""Floor plans: rectangular rooms that tile the building, the walls between them and the doors that join them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1 in metres

WALL_HALF_M = 0.06
MIN_SIDE_M = 2.5
MIN_SHARED_M = 1.45  # a shorter common wall gets no door


@dataclass(frozen=True)
class WallSegment:
    """A straight wall on a room border.

    Attributes:
        axis: 0 = the wall stands at x = ``line_m`` and runs along y; 1 = at y = ``line_m`` along x.
        low_m, high_m: extent along the wall.
        room_negative, room_positive: rooms on the lower and on the upper side; -1 = outdoors.
        door: (low, high) of the opening along the wall, or None.
    """

    axis: int
    line_m: float
    low_m: float
    high_m: float
    room_negative: int
    room_positive: int
    door: tuple[float, float] | None = None

    @property
    def door_centre_xy(self) -> tuple[float, float]:
        """Centre of the opening; only for walls with a door."""
        assert self.door is not None
        middle = 0.5 * (self.door[0] + self.door[1])
        return (self.line_m, middle) if self.axis == 0 else (middle, self.line_m)


@dataclass(frozen=True)
class FloorPlan:
    """Rooms, walls and doors of one storey.

    Attributes:
        size_xy: extent in metres; the corner is at the origin.
        rooms: (x0, y0, x1, y1) of every room; corridors are rooms.
        corridors: indices of the rooms that are corridors.
        walls: all walls, those with doors included.
    """

    size_xy: tuple[float, float]
    rooms: list[Rectangle]
    corridors: set[int]
    walls: list[WallSegment]

    @property
    def doors(self) -> list[WallSegment]:
        """The walls that have an opening."""
        return [wall for wall in self.walls if wall.door is not None]


def make_floor_plan(rng: np.random.Generator, size_m: float, rooms_min: int, rooms_max: int) -> FloorPlan:
    """Draw ``rooms_min`` to ``rooms_max`` rooms in about ``size_m`` x ``size_m``, all joined by doors."""
    while True:
        size_xy = (float(size_m * rng.uniform(0.9, 1.1)), float(size_m * rng.uniform(0.9, 1.1)))
        target = int(rng.integers(rooms_min, rooms_max + 1))
        if rng.random() < 0.5:
            rooms, corridors = _corridor_layout(rng, size_xy, target)
        else:
            rooms, corridors = _split_layout(rng, size_xy, target), set()
        if not rooms_min <= len(rooms) <= rooms_max:
            continue
        inner = _shared_walls(rooms)
        doors = _choose_doors(rng, inner, len(rooms), corridors)
        if doors is not None:
            walls = [_with_door(rng, wall) if index in doors else wall for index, wall in enumerate(inner)]
            return FloorPlan(size_xy, rooms, corridors, walls + _outer_walls(rooms, size_xy))


def _corridor_layout(
    rng: np.random.Generator, size_xy: tuple[float, float], target: int
) -> tuple[list[Rectangle], set[int]]:
    """One corridor across the building with rooms on both sides; transposed half of the time."""
    transposed = rng.random() < 0.5
    length, depth = (size_xy[1], size_xy[0]) if transposed else size_xy
    width = rng.uniform(1.5, 2.0)
    low = rng.uniform(0.36, 0.64) * depth - 0.5 * width
    count_low = int(np.clip(round((target - 1) * rng.uniform(0.35, 0.65)), 1, 4))
    count_high = int(np.clip(target - 1 - count_low, 1, 4))
    rooms: list[Rectangle] = [(0.0, low, length, low + width)]
    for count, y0, y1 in ((count_low, 0.0, low), (count_high, low + width, depth)):
        cuts = _cuts(rng, length, count)
        rooms += [(cuts[index], y0, cuts[index + 1], y1) for index in range(count)]
    if transposed:
        rooms = [(y0, x0, y1, x1) for x0, y0, x1, y1 in rooms]
    return [tuple(float(value) for value in room) for room in rooms], {0}  # type: ignore[misc]


def _cuts(rng: np.random.Generator, length: float, count: int) -> NDArray[np.float64]:
    spare = length - count * MIN_SIDE_M
    shares = rng.dirichlet(np.full(count, 3.0))
    return np.concatenate([[0.0], np.cumsum(MIN_SIDE_M + max(spare, 0.0) * shares)]) * (
        1.0 if spare >= 0 else length / (count * MIN_SIDE_M)
    )


def _split_layout(rng: np.random.Generator, size_xy: tuple[float, float], target: int) -> list[Rectangle]:
    """Split the largest room across its longer side until there are ``target`` rooms."""
    rooms: list[Rectangle] = [(0.0, 0.0, size_xy[0], size_xy[1])]
    while len(rooms) < target:
        areas = [(x1 - x0) * (y1 - y0) * rng.uniform(0.7, 1.3) for x0, y0, x1, y1 in rooms]
        x0, y0, x1, y1 = rooms.pop(int(np.argmax(areas)))
        fraction = float(rng.uniform(0.38, 0.62))
        if x1 - x0 > y1 - y0:
            cut = x0 + fraction * (x1 - x0)
            rooms += [(x0, y0, cut, y1), (cut, y0, x1, y1)]
        else:
            cut = y0 + fraction * (y1 - y0)
            rooms += [(x0, y0, x1, cut), (x0, cut, x1, y1)]
        if min(min(room[2] - room[0], room[3] - room[1]) for room in rooms) < 0.8 * MIN_SIDE_M:
            return []  # too narrow to stand in: the caller draws again
    return rooms


def _shared_walls(rooms: list[Rectangle]) -> list[WallSegment]:
    """Walls between every two rooms that touch."""
    walls = []
    for a, room_a in enumerate(rooms):
        for b, room_b in enumerate(rooms):
            for axis in (0, 1):
                other = 1 - axis
                if abs(room_a[axis + 2] - room_b[axis]) > 1e-6:
                    continue
                low, high = max(room_a[other], room_b[other]), min(room_a[other + 2], room_b[other + 2])
                if high - low > 1e-6:
                    walls.append(WallSegment(axis, room_a[axis + 2], low, high, a, b))
    return walls


def _outer_walls(rooms: list[Rectangle], size_xy: tuple[float, float]) -> list[WallSegment]:
    walls = []
    for index, room in enumerate(rooms):
        for axis in (0, 1):
            low, high = room[1 - axis], room[3 - axis]
            if room[axis] < 1e-6:
                walls.append(WallSegment(axis, 0.0, low, high, -1, index))
            if room[axis + 2] > size_xy[axis] - 1e-6:
                walls.append(WallSegment(axis, room[axis + 2], low, high, index, -1))
    return walls


def _choose_doors(
    rng: np.random.Generator, walls: list[WallSegment], room_count: int, corridors: set[int]
) -> set[int] | None:
    """Pick walls for doors: a random spanning tree that prefers corridors, and some loops. None if not joined."""
    usable = [index for index, wall in enumerate(walls) if wall.high_m - wall.low_m >= MIN_SHARED_M]
    keys = {
        index: rng.random() - (1.0 if {walls[index].room_negative, walls[index].room_positive} & corridors else 0.0)
        for index in usable
    }
    group = list(range(room_count))
    chosen = set()
    for index in sorted(usable, key=lambda candidate: keys[candidate]):
        a, b = group[walls[index].room_negative], group[walls[index].room_positive]
        if a != b:
            chosen.add(index)
            group = [a if member == b else member for member in group]
        elif rng.random() < 0.3:
            chosen.add(index)
    return chosen if len(set(group)) == 1 else None


def _with_door(rng: np.random.Generator, wall: WallSegment) -> WallSegment:
    length = wall.high_m - wall.low_m
    wide = length > 3.0 and rng.random() < 0.2
    width = float(rng.uniform(1.4, 1.9) if wide else rng.uniform(0.9, 1.1))
    width = min(width, length - 0.4)  # a wall shorter than its door opens between its posts
    start = float(rng.uniform(wall.low_m + 0.2, max(wall.low_m + 0.2, wall.high_m - 0.2 - width)))
    return WallSegment(
        wall.axis, wall.line_m, wall.low_m, wall.high_m, wall.room_negative, wall.room_positive, (start, start + width)
    )
