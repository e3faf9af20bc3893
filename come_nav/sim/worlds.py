"""Procedural indoor worlds: the same seed gives the same rooms, furniture and posters on every machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_range
from come_nav.core.errors import ConfigError
from come_nav.core.settings import to_mapping
from come_nav.sim.assets.pack import HELD_OUT, TRAIN, read_pack
from come_nav.sim.assets.shelf import shelf_of
from come_nav.sim.building.floor_plan import Rectangle, make_floor_plan
from come_nav.sim.building.furniture import BOXES
from come_nav.sim.building.modelled import PlacedModel, modelled_furnishing
from come_nav.sim.building.photographed import Looks, cover
from come_nav.sim.building.surfaces import ROW_SIZE
from come_nav.sim.building.textures import make_images
from come_nav.sim.building.world_builder import Changes, build_layout
from come_nav.sim.mazes.grid import make_maze_grid
from come_nav.sim.mazes.maze_looks import make_maze_looks
from come_nav.sim.spaces import GRID_M
from come_nav.sim.splits import TRAIN_SEEDS

SOLID_BELOW_M = 1.0  # boxes that start lower than this stop the robot
WorldKind = Literal["building", "maze"]
MAZE_STREAM = 9  # so that a maze shares no random numbers with the building of its seed


@dataclass(frozen=True)
class WorldSettings:
    """How worlds are drawn.

    Attributes:
        size_m: mean side of the building.
        rooms_min, rooms_max: number of rooms, corridors counted.
        furniture: 1 = normal, 0 = two pieces per room, 2 = crowded.
        lookalike: probability that a room repeats the look and furniture of an earlier one.
        photographed: cover surfaces with materials of the asset pack (come-nav assets collect): those of the training
            half in training worlds, held-out ones in all others.
        furnished: furnish with the modelled furniture of the asset pack, of the same halves.
        assets: folder of the pack; the user's own where empty.
        visit: number of the visit; at 0 everything is as it was furnished.
        moved: share of chairs and stools that stand elsewhere at each other visit.
        light_change: standard deviation of the logarithm of each room's light at each other visit.
        door_leaves: doors have leaves, which stand at another angle at each visit.
        people: how many walk about; cameras see them, robots do not run into them.
        kind: "building", or "maze" of 9 x 9 cells (see :mod:`come_nav.sim.mazes`), which has nothing of the above but
            people.
    """

    size_m: float = 11.5
    rooms_min: int = 4
    rooms_max: int = 9
    furniture: float = 1.0
    lookalike: float = 0.15
    photographed: bool = False
    furnished: bool = False
    assets: str = ""
    visit: int = 0
    moved: float = 0.0
    light_change: float = 0.0
    door_leaves: bool = False
    people: int = 0
    kind: WorldKind = "building"

    def __post_init__(self) -> None:
        check_choice("world.kind", self.kind, get_args(WorldKind))
        if self.kind == "maze" and (self.photographed or self.furnished):
            raise ConfigError("world.kind 'maze' has colours of its own; leave photographed and furnished false")
        check_range("world.size_m", self.size_m, 8.0, 30.0)
        check_range("world.rooms_min", self.rooms_min, 2, 9)
        check_range("world.furniture", self.furniture, 0.0, 3.0)
        check_range("world.lookalike", self.lookalike, 0.0, 1.0)
        check_range("world.visit", self.visit, 0)
        check_range("world.people", self.people, 0, 50)
        check_range("world.moved", self.moved, 0.0, 1.0)
        check_range("world.light_change", self.light_change, 0.0, 2.0)
        if not self.rooms_min <= self.rooms_max <= 9:
            raise ConfigError(f"world.rooms_max must be in [{self.rooms_min}, 9], got {self.rooms_max}")

    @property
    def facts(self) -> dict[str, Any]:
        """What differs from the defaults."""
        plain = to_mapping(WorldSettings())
        return {name: value for name, value in to_mapping(self).items() if value != plain[name]}


@dataclass(frozen=True)
class World:
    """One building of upright boxes between a floor at z = 0 and a flat ceiling. Metres; the corner is at the origin.

    Attributes:
        seed: of :func:`generate_world`.
        bounds: (x0, y0, x1, y1) of the building.
        ceiling_m: height of the ceiling.
        boxes: (N, 7) float32: centre x, y, half sizes x, y, yaw, z of bottom and top.
        faces: (N, 6, 15) float32 surface rows (see :mod:`come_nav.sim.building.surfaces`).
        floors, ceilings: (R, 15) float32 surface rows per room.
        rooms: (R, 4) float32 rectangles x0, y0, x1, y1.
        room_kinds: what each room is, e.g. "kitchen".
        doors: (D, 3) float32: x, y of the opening's centre and the opening's width.
        images: (M, 3, S, S) float32 in [0, 1], of the posters on its walls, and of materials after them.
        settings: that it was drawn with.
        models: modelled furniture.
    """

    seed: int
    bounds: Rectangle
    ceiling_m: float
    boxes: torch.Tensor
    faces: torch.Tensor
    floors: torch.Tensor
    ceilings: torch.Tensor
    rooms: torch.Tensor
    room_kinds: tuple[str, ...]
    doors: torch.Tensor
    images: torch.Tensor = field(repr=False)
    settings: WorldSettings = field(default_factory=WorldSettings)
    models: tuple[PlacedModel, ...] = field(default=(), repr=False)

    @property
    def facts(self) -> dict[str, Any]:
        """What a recording made here says about the place."""
        differs = self.settings.facts
        return {"world": self.seed, **({"world_settings": differs} if differs else {})}

    @cached_property
    def solid(self) -> NDArray[np.float64]:
        """Footprints (M, 5) of what stops the robot: centre x, y, half sizes x, y, yaw."""
        boxes = self.boxes.double().numpy()
        return np.concatenate([boxes[boxes[:, 5] < SOLID_BELOW_M, :5], *(model.footprints for model in self.models)])

    def distance(self, points_xy: torch.Tensor) -> torch.Tensor:
        """Distance (...) in metres from points (..., 2) to the nearest footprint (0 inside) or the building's edge."""
        footprints = torch.as_tensor(self.solid, dtype=points_xy.dtype, device=points_xy.device)
        delta = points_xy[..., None, :] - footprints[:, :2]
        cosine, sine = footprints[:, 4].cos(), footprints[:, 4].sin()
        out_x = ((cosine * delta[..., 0] + sine * delta[..., 1]).abs() - footprints[:, 2]).clamp(min=0.0)
        out_y = ((cosine * delta[..., 1] - sine * delta[..., 0]).abs() - footprints[:, 3]).clamp(min=0.0)
        nearest = torch.hypot(out_x, out_y).amin(-1)
        x, y = points_xy[..., 0], points_xy[..., 1]
        edge = torch.stack([x - self.bounds[0], y - self.bounds[1], self.bounds[2] - x, self.bounds[3] - y]).amin(0)
        return torch.minimum(nearest, edge.clamp(min=0.0))

    def free(self, points_xy: torch.Tensor, radius_m: float) -> torch.Tensor:
        """Whether a disc of ``radius_m`` at points (..., 2) touches nothing, as bool (...)."""
        return self.distance(points_xy) > radius_m

    @cached_property
    def distance_grid(self) -> NDArray[np.float32]:
        """Distance (X, Y) of cell centres, 5 cm apart, to the nearest solid; index [int(x / 0.05), int(y / 0.05)]."""
        return self._distances(GRID_M)

    def occupancy(self, resolution_m: float = GRID_M) -> NDArray[np.bool_]:
        """Grid (X, Y) of cells whose centre lies inside something solid."""
        return self._distances(resolution_m) <= 0

    def _distances(self, resolution_m: float) -> NDArray[np.float32]:
        """Distance (X, Y) of cell centres; box by box, so that no array is larger than the grid."""
        x0, y0, x1, y1 = self.bounds
        x = x0 + (np.arange(int(np.ceil((x1 - x0) / resolution_m))) + 0.5) * resolution_m
        y = y0 + (np.arange(int(np.ceil((y1 - y0) / resolution_m))) + 0.5) * resolution_m
        edge_x, edge_y = np.minimum(x - x0, x1 - x), np.minimum(y - y0, y1 - y)
        best: NDArray[np.float32] = np.minimum(edge_x[:, None], edge_y[None]).astype(np.float32)
        for centre_x, centre_y, half_x, half_y, yaw in self.solid:
            dx, dy = (x - centre_x).astype(np.float32)[:, None], (y - centre_y).astype(np.float32)[None, :]
            cosine, sine = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
            out_x = np.maximum(np.abs(cosine * dx + sine * dy) - np.float32(half_x), 0)
            out_y = np.maximum(np.abs(cosine * dy - sine * dx) - np.float32(half_y), 0)
            np.minimum(best, np.hypot(out_x, out_y), out=best)
        np.maximum(best, 0, out=best)
        return best

    def room_of(self, points_xy: torch.Tensor) -> torch.Tensor:
        """Index (...) of the room that holds each point (..., 2); -1 outside."""
        low, high = self.rooms[:, :2].to(points_xy), self.rooms[:, 2:].to(points_xy)
        inside = ((points_xy[..., None, :] >= low) & (points_xy[..., None, :] < high)).all(-1)
        return torch.where(inside.any(-1), inside.float().argmax(-1), -1)

    def polygons(self) -> list[tuple[NDArray[np.float64], tuple[float, float, float]]]:
        """Footprint corners (4, 2) and colour of what starts below 1 m, boxes first, lowest first: a map."""
        boxes = self.boxes.double().numpy()
        shapes = []
        for index in np.argsort(boxes[:, 6], kind="stable"):
            if boxes[index, 5] < SOLID_BELOW_M:
                red, green, blue = (float(value) for value in self.faces[index, 4, 6:9].clamp(0, 1))
                shapes.append((_corners(boxes[index, :5]), (red, green, blue)))
        for model in sorted(self.models, key=lambda model: model.z):
            shapes += [(_corners(footprint), model.mesh.colour) for footprint in model.footprints]
        return shapes


def generate_world(seed: int, config: WorldSettings = WorldSettings()) -> World:
    """Draw the world of ``seed``; takes some 50 ms.

    Raises:
        ConfigError: for a negative seed, or photographs or models where no pack of them has been collected.
    """
    if seed < 0:
        raise ConfigError(f"world seed must be >= 0, got {seed}")
    if config.kind == "maze":
        return _generate_maze(seed, config)
    half = TRAIN if seed in TRAIN_SEEDS else HELD_OUT
    furnishing = BOXES
    if config.furnished:
        pack = read_pack(config.assets or None)
        furnishing = modelled_furnishing(shelf_of(pack, half), pack.folder)
    rng = np.random.default_rng(seed)
    plan = make_floor_plan(rng, config.size_m, config.rooms_min, config.rooms_max)
    layout = build_layout(rng, plan, config.lookalike, config.furniture, _changes(seed, config), furnishing)
    doors = [(*door.door_centre_xy, door.door[1] - door.door[0]) for door in plan.doors if door.door is not None]
    looks = Looks(
        boxes=_tensor(layout.builder.boxes, 7),
        faces=_tensor(layout.builder.rows, ROW_SIZE).reshape(-1, 6, ROW_SIZE),
        floors=_tensor(layout.floor_rows(), ROW_SIZE),
        ceilings=_tensor(layout.ceiling_rows(), ROW_SIZE),
        images=torch.from_numpy(make_images(rng)),
    )
    if config.photographed:
        looks = cover(looks, layout.ceiling_m, read_pack(config.assets or None), half, seed)
    return World(
        seed=seed,
        bounds=(0.0, 0.0, plan.size_xy[0], plan.size_xy[1]),
        ceiling_m=layout.ceiling_m,
        boxes=looks.boxes,
        faces=looks.faces,
        floors=looks.floors,
        ceilings=looks.ceilings,
        rooms=_tensor(plan.rooms, 4),
        room_kinds=tuple(room.kind for room in layout.rooms),
        doors=_tensor(doors, 3),
        images=looks.images,
        settings=config,
        models=tuple(layout.models),
    )


def _generate_maze(seed: int, config: WorldSettings) -> World:
    rng = np.random.default_rng([seed, MAZE_STREAM])
    maze = make_maze_looks(rng, make_maze_grid(rng))
    looks = maze.looks
    return World(
        seed=seed,
        bounds=(0.0, 0.0, maze.side_m, maze.side_m),
        ceiling_m=maze.ceiling_m,
        boxes=looks.boxes,
        faces=looks.faces,
        floors=looks.floors,
        ceilings=looks.ceilings,
        rooms=maze.rooms,
        room_kinds=maze.kinds,
        doors=maze.openings,
        images=looks.images,
        settings=config,
    )


def _corners(footprint: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners (4, 2) of a footprint (5,): centre x, y, half sizes x, y, yaw."""
    x, y, half_x, half_y, yaw = footprint
    rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    corners: NDArray[np.float64] = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [half_x, half_y] @ rotation.T
    return np.asarray(corners + np.array([x, y]), np.float64)


def _changes(seed: int, config: WorldSettings) -> Changes | None:
    """Return what is different at this visit; None where nothing is."""
    differs = config.visit > 0 and (config.moved > 0 or config.light_change > 0)
    if not differs and not config.door_leaves:
        return None
    return Changes(
        rng=np.random.default_rng([seed, 2, config.visit]),
        moved=config.moved if config.visit > 0 else 0.0,
        light=config.light_change if config.visit > 0 else 0.0,
        door_leaves=config.door_leaves,
        doors_rng=np.random.default_rng([seed, 3]),
    )


def _tensor(values: object, width: int) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(-1, width))
