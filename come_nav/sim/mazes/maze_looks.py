"""What a maze looks like: coloured floors and walls, one colour each for a room or corridor, and coloured balls."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.sim.building.photographed import Looks
from come_nav.sim.building.surfaces import ROW_SIZE, Box, Colour, Lights, Surface, SurfaceBuilder, level_row, pattern
from come_nav.sim.building.textures import make_images
from come_nav.sim.mazes.grid import MAZE_CELLS, CellRectangle, MazeGrid

CELL_M = 1.2
CEILING_M = 2.4
HUES = 12
FLOORS, WALLS = ("plain", "checker", "diamonds", "tiles"), ("plain", "plain", "bricks", "stripes", "dots", "panels")
SKY: Colour = (1.1, 1.3, 1.6)
BALLS: tuple[Colour, ...] = ((0.95, 0.1, 0.1), (0.1, 0.75, 0.15), (0.1, 0.2, 0.95), (0.95, 0.85, 0.1))
BALL_COUNT, BALL_RADIUS_M, BALL_HEIGHT_M = 3, 0.18, 0.45
BALL_OFFSET_M = 0.4  # from a cell's centre to each side: whoever walks from centre to centre passes by
# half height of a layer's middle, its half height and half width, as shares of the radius: two squares each, turned
# against each other by 45 degrees, make the outline of a ball at the size at which a small camera sees it
BALL_LAYERS = ((-0.72, 0.28, 0.58), (0.0, 0.44, 0.84), (0.72, 0.28, 0.58))


@dataclass(frozen=True)
class MazeLooks:
    """Everything that makes a maze a world.

    Attributes:
        looks: boxes and surfaces.
        rooms: (R, 4) rectangles of rooms and corridors, metres.
        kinds: "room" or "corridor" of each.
        openings: (D, 3) between a room and what is beside it: x, y of the centre, width.
        side_m: length of the square building's side.
        ceiling_m: its height.
    """

    looks: Looks
    rooms: torch.Tensor
    kinds: tuple[str, ...]
    openings: torch.Tensor
    side_m: float = (MAZE_CELLS + 2) * CELL_M
    ceiling_m: float = CEILING_M


@dataclass(frozen=True)
class _Theme:
    floor: Surface
    wall: Surface
    lights: Lights


def cell_centre_m(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the world's x, y of cells (..., 2), which may be halves of cells."""
    return (np.asarray(cells, np.float64) + 1.5) * CELL_M


def make_maze_looks(rng: np.random.Generator, grid: MazeGrid) -> MazeLooks:
    """Colour a maze, raise its walls and hang its balls."""
    themes = _make_themes(rng, grid.regions)
    builder = SurfaceBuilder()
    _add_walls(builder, grid, themes)
    _add_balls(rng, builder, grid, themes)
    floors = [level_row(theme.floor, theme.lights, 0.0, True) for theme in themes]
    ceilings = [level_row(pattern("plain", SKY), theme.lights, CEILING_M, False) for theme in themes]
    looks = Looks(
        boxes=_tensor(builder.boxes, 7),
        faces=_tensor(builder.rows, ROW_SIZE).reshape(-1, 6, ROW_SIZE),
        floors=_tensor(floors, ROW_SIZE),
        ceilings=_tensor(ceilings, ROW_SIZE),
        images=torch.from_numpy(make_images(rng)),
    )
    kinds = ("room",) * len(grid.rooms) + ("corridor",) * len(grid.corridors)
    rooms = _tensor([_metres(region) for region in grid.regions], 4)
    return MazeLooks(looks, rooms, kinds, _tensor(_openings(grid), 3))


def _metres(region: CellRectangle) -> list[float]:
    return [(value + 1) * CELL_M for value in region]


def _make_themes(rng: np.random.Generator, regions: tuple[CellRectangle, ...]) -> list[_Theme]:
    """Return a look for each region; neighbours in the list never share the wall's hue."""
    wall_hues = np.concatenate([rng.permutation(HUES) for _ in range(math.ceil(len(regions) / HUES))])
    themes = []
    for region, hue in zip(regions, wall_hues, strict=False):
        floor = _colour(rng, float(rng.integers(HUES)) / HUES, (0.35, 0.8), (0.45, 0.9))
        wall = _colour(rng, float(hue) / HUES, (0.55, 0.95), (0.6, 1.0))
        floor_name = FLOORS[int(rng.integers(len(FLOORS)))]
        wall_name = WALLS[int(rng.integers(len(WALLS)))]
        lights = _lights(region, float(rng.uniform(0.8, 1.2)))
        themes.append(_Theme(pattern(floor_name, floor, CELL_M), pattern(wall_name, wall, CELL_M), lights))
    return themes


def _colour(
    rng: np.random.Generator, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> Colour:
    return colorsys.hsv_to_rgb(hue, float(rng.uniform(*saturation)), float(rng.uniform(*value)))


def _lights(region: CellRectangle, strength: float) -> Lights:
    """Return two lamps at a quarter and at three quarters of a region's longer side."""
    x0, y0, x1, y1 = _metres(region)
    centre = np.array([0.5 * (x0 + x1), 0.5 * (y0 + y1), CEILING_M - 0.15])
    longer = np.array([x1 - x0, 0.0, 0.0]) if x1 - x0 >= y1 - y0 else np.array([0.0, y1 - y0, 0.0])
    positions = np.stack([centre - 0.25 * longer, centre + 0.25 * longer])
    return Lights(positions, np.full(2, 0.7 * strength), np.ones(3))


def _add_walls(builder: SurfaceBuilder, grid: MazeGrid, themes: list[_Theme]) -> None:
    """Add a block for each closed cell, the outer ring's included, that an open cell touches."""
    region = np.pad(grid.region_of_cells(), 2, constant_values=-1)
    for x in range(-1, MAZE_CELLS + 1):
        for y in range(-1, MAZE_CELLS + 1):
            around = region[x + 1 : x + 4, y + 1 : y + 4]  # of the cell (x, y) and its eight neighbours
            if around[1, 1] >= 0 or not (around >= 0).any():
                continue
            facing = [int(around[2, 1]), int(around[0, 1]), int(around[1, 2]), int(around[1, 0])]
            known = next((index for index in [*facing, *around.ravel()] if index >= 0), 0)
            sides = [themes[index if index >= 0 else int(known)] for index in facing]
            faces = [*sides, sides[0], sides[0]]
            centre_x, centre_y = cell_centre_m(np.array([x, y], np.float64))
            box = Box(float(centre_x), float(centre_y), CELL_M / 2, CELL_M / 2, 0.0, CEILING_M)
            builder.add(box, [theme.wall for theme in faces], [theme.lights for theme in faces])


def _add_balls(rng: np.random.Generator, builder: SurfaceBuilder, grid: MazeGrid, themes: list[_Theme]) -> None:
    """Hang balls of different colours, each in a room of its own as far as there are rooms."""
    order = rng.permutation(len(grid.rooms))
    colours = rng.permutation(len(BALLS))
    for number in range(BALL_COUNT):
        room = int(order[number % len(order)])
        x0, y0, _, _ = grid.rooms[room]
        cell = (np.array([x0, y0]) + rng.integers(0, 3, 2)).astype(np.float64)
        x, y = cell_centre_m(cell) + BALL_OFFSET_M * rng.choice([-1.0, 1.0], 2)
        surface = pattern("plain", BALLS[int(colours[number])])
        for middle, half_height, half_width in BALL_LAYERS:
            low = BALL_HEIGHT_M + (middle - half_height) * BALL_RADIUS_M
            high = BALL_HEIGHT_M + (middle + half_height) * BALL_RADIUS_M
            half = half_width * BALL_RADIUS_M
            for yaw in (0.0, math.pi / 4):
                builder.add_uniform(Box(float(x), float(y), half, half, low, high, yaw), surface, themes[room].lights)


def _openings(grid: MazeGrid) -> list[tuple[float, float, float]]:
    """Return centre and width of every border between a room and an open cell of another region."""
    region = np.pad(grid.region_of_cells(), 1, constant_values=-1)
    found = []
    for index, (x0, y0, x1, y1) in enumerate(grid.rooms):
        for x in range(x0, x1):
            for y in range(y0, y1):
                for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                    beside = int(region[x + 1 + dx, y + 1 + dy])
                    if beside >= 0 and beside != index and (beside >= len(grid.rooms) or beside > index):
                        centre = cell_centre_m(np.array([x + 0.5 * dx, y + 0.5 * dy]))
                        found.append((float(centre[0]), float(centre[1]), CELL_M))
    return found


def _tensor(values: object, width: int) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(-1, width))
