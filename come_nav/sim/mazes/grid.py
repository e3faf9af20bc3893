"""The plan of a maze: rooms and corridors of 9 x 9 square cells, all joined (Memory Maze, arXiv 2210.13383)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAZE_CELLS = 9  # along each side, without the outer wall
NODES = (MAZE_CELLS + 1) // 2  # cells of even row and column; between two of them is a wall or a way
ROOM_NODES = 2  # a room is 2 x 2 nodes, which makes 3 x 3 cells
ROOMS, ROOM_TRIES = (3, 5), 40
LOOP_SHARE = 0.15  # of the walls between nodes that are joined already

CellRectangle = tuple[int, int, int, int]  # x0, y0, x1, y1 in cells, x1 and y1 outside


@dataclass(frozen=True)
class MazeGrid:
    """Which cells are open, and what they belong to.

    Attributes:
        open: (9, 9) bool, index [x, y].
        rooms: rectangles of the rooms, 3 x 3 cells each.
        corridors: rectangles of all other open cells, one cell wide.
    """

    open: NDArray[np.bool_]
    rooms: tuple[CellRectangle, ...]
    corridors: tuple[CellRectangle, ...]

    @property
    def regions(self) -> tuple[CellRectangle, ...]:
        """Rooms, then corridors: every open cell is in exactly one of them."""
        return self.rooms + self.corridors

    def region_of_cells(self) -> NDArray[np.int64]:
        """Return the index of the region of each cell (9, 9), -1 in walls."""
        found = np.full(self.open.shape, -1)
        for index, (x0, y0, x1, y1) in enumerate(self.regions):
            found[x0:x1, y0:y1] = index
        return found


def make_maze_grid(rng: np.random.Generator) -> MazeGrid:
    """Draw three to five rooms, and corridors as a random spanning tree between them and all other nodes."""
    group = np.arange(NODES * NODES).reshape(NODES, NODES)
    in_room = np.full((NODES, NODES), -1)
    rooms: list[tuple[int, int]] = []
    wanted = int(rng.integers(ROOMS[0], ROOMS[1] + 1))
    for _ in range(ROOM_TRIES):
        x, y = (int(value) for value in rng.integers(0, NODES - ROOM_NODES + 1, 2))
        block = np.s_[x : x + ROOM_NODES, y : y + ROOM_NODES]
        if len(rooms) < wanted and (in_room[block] < 0).all():
            in_room[block], group[block] = len(rooms), group[x, y]
            rooms.append((2 * x, 2 * y))
    cells = np.zeros((MAZE_CELLS, MAZE_CELLS), dtype=bool)
    cells[::2, ::2] = True
    for x, y in _joining_cells(rng, group, in_room):
        cells[x, y] = True
    side = 2 * ROOM_NODES - 1
    rectangles = tuple((x, y, x + side, y + side) for x, y in rooms)
    in_rooms = np.zeros_like(cells)
    for x0, y0, x1, y1 in rectangles:
        in_rooms[x0:x1, y0:y1] = True
    return MazeGrid(cells | in_rooms, rectangles, _corridors(cells & ~in_rooms))


def _joining_cells(
    rng: np.random.Generator, group: NDArray[np.int64], in_room: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Return the cells between nodes that are opened: all that a spanning tree needs, and some more for loops."""
    edges = [((x, y), (x + 1, y)) for x in range(NODES - 1) for y in range(NODES)]
    edges += [((x, y), (x, y + 1)) for x in range(NODES) for y in range(NODES - 1)]
    opened = []
    for index in rng.permutation(len(edges)):
        a, b = edges[int(index)]
        if in_room[a] >= 0 and in_room[a] == in_room[b]:
            continue  # inside a room, which is open anyway
        loop = bool(rng.random() < LOOP_SHARE)
        if group[a] != group[b]:
            group[group == group[b]] = group[a]
        elif not loop:
            continue
        opened.append((a[0] + b[0], a[1] + b[1]))
    return opened


def _corridors(cells: NDArray[np.bool_]) -> tuple[CellRectangle, ...]:
    """Return rectangles one cell wide that cover ``cells``: the longest straight stretch first, again and again."""
    left = cells.copy()
    found: list[CellRectangle] = []
    while left.any():
        stretches = [(*_longest(left[:, y]), y, True) for y in range(MAZE_CELLS)]
        stretches += [(*_longest(left[x]), x, False) for x in range(MAZE_CELLS)]
        length, start, line, along_x = max(stretches, key=lambda stretch: stretch[0])
        stop = start + length
        found.append((start, line, stop, line + 1) if along_x else (line, start, line + 1, stop))
        x0, y0, x1, y1 = found[-1]
        left[x0:x1, y0:y1] = False
    return tuple(found)


def _longest(line: NDArray[np.bool_]) -> tuple[int, int]:
    """Return length and start of the first longest run of a line of cells."""
    best, start = (0, 0), 0
    for index, is_open in enumerate(line):
        if not is_open:
            start = index + 1
        elif index + 1 - start > best[0]:
            best = (index + 1 - start, start)
    return best
