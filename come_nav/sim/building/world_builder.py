"""Fills a floor plan: walls with doors, themes, lamps, posters and furniture that leaves every door reachable."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.sim.building.doors import door_leaf
from come_nav.sim.building.floor_plan import WALL_HALF_M, FloorPlan, Rectangle, WallSegment
from come_nav.sim.building.furniture import BOXES, ROOM_KINDS, Furnishing, Piece, Theme
from come_nav.sim.building.surfaces import Box, Colour, Lights, Surface, SurfaceBuilder, level_row, pattern
from come_nav.sim.building.textures import IMAGES_PER_WORLD

DOOR_HEIGHT_M = 2.05
CELL_M = 0.1
CLEARANCE_M = 0.29  # of the robot's centre from furniture, kept free when pieces are placed
LEAF_ANGLES_DEG = (75.0, 110.0)
MOVABLE, MOVE_M, MOVE_TRIES = ("chair", "stool"), 0.8, 12
CEILING_LAMP: Colour = (2.2, 2.2, 2.1)

_FLOORS = ("planks", "tiles", "carpet", "checker", "weave", "concrete", "diamonds")
_WALLS = ("plain", "plain", "stripes", "bricks", "panels", "dots", "diamonds", "concrete")


@dataclass
class Room:
    """A room in the making: its rectangle, look, lamps and the seed of its furniture."""

    rectangle: Rectangle
    kind: str
    theme: Theme
    lights: Lights
    furniture_seed: int


@dataclass
class Layout:
    """Everything that :func:`come_nav.sim.worlds.generate_world` turns into tensors."""

    plan: FloorPlan
    ceiling_m: float
    rooms: list[Room]
    builder: SurfaceBuilder = field(default_factory=SurfaceBuilder)
    models: list[Any] = field(default_factory=list)  # as the pieces' maker places them

    def floor_rows(self) -> list[list[float]]:
        """Surface rows of the rooms' floors."""
        return [level_row(room.theme.floor, room.lights, 0.0, True) for room in self.rooms]

    def ceiling_rows(self) -> list[list[float]]:
        """Surface rows of the rooms' ceilings."""
        return [level_row(room.theme.ceiling, room.lights, self.ceiling_m, False) for room in self.rooms]


@dataclass(frozen=True)
class Changes:
    """What is different at another visit to the same building.

    Attributes:
        rng: draws what moves; another one at each visit.
        moved: share of chairs and stools that stand elsewhere, within 0.8 m.
        light: standard deviation of the logarithm of each room's light.
        door_leaves: whether doors have leaves, which stand at another angle at each visit.
        doors_rng: draws on which side doors hang, the same at every visit.
    """

    rng: np.random.Generator
    moved: float
    light: float
    door_leaves: bool
    doors_rng: np.random.Generator


def build_layout(
    rng: np.random.Generator,
    plan: FloorPlan,
    lookalike: float,
    density: float,
    changes: Changes | None = None,
    furnishing: Furnishing = BOXES,
) -> Layout:
    """Furnish ``plan``; with probability ``lookalike`` a room repeats an earlier room's look and furniture."""
    ceiling = float(rng.uniform(2.4, 2.9))
    layout = Layout(plan, ceiling, _make_rooms(rng, plan, ceiling, lookalike))
    if changes is not None and changes.light > 0:
        layout.rooms = [replace(room, lights=_changed(room.lights, changes)) for room in layout.rooms]
    for wall in plan.walls:
        _add_wall(layout, wall)
    _add_ceiling_lamps(layout)
    _add_images(rng, layout)
    _Furnisher(layout, furnishing).run(density, changes)
    return layout


def _changed(lights: Lights, changes: Changes) -> Lights:
    """Return a room's lamps brighter or darker."""
    return replace(lights, brightness=lights.brightness * float(np.exp(changes.light * changes.rng.standard_normal())))


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    return colorsys.hsv_to_rgb(float(rng.random()), float(rng.uniform(*saturation)), float(rng.uniform(*value)))


def _make_theme(rng: np.random.Generator) -> Theme:
    floor_name = _FLOORS[int(rng.integers(len(_FLOORS)))]
    wood_tone = float(rng.uniform(0.45, 1.0))
    wood = (0.85 * wood_tone, 0.62 * wood_tone, 0.40 * wood_tone)
    floor_colour = wood if floor_name == "planks" else _colour(rng, (0.05, 0.55), (0.45, 0.95))
    wall_name = _WALLS[int(rng.integers(len(_WALLS)))]
    wall_colour = _colour(rng, (0.05, 0.45), (0.7, 1.0))
    return Theme(
        floor=pattern(floor_name, floor_colour, float(rng.uniform(0.7, 1.6))),
        wall=pattern(wall_name, wall_colour, float(rng.uniform(0.5, 1.4))),
        ceiling=pattern("panels" if rng.random() < 0.3 else "plain", (1.5, 1.5, 1.46), 1.2),
        trim=_colour(rng, (0.0, 0.3), (0.6, 1.0)),
        wood=(0.8 * float(rng.uniform(0.4, 1.1)), 0.58 * wood_tone, 0.38 * wood_tone),
        accent=_colour(rng, (0.5, 0.95), (0.4, 0.95)),
        second=_colour(rng, (0.15, 0.8), (0.4, 0.95)),
    )


def _make_lights(rng: np.random.Generator, rectangle: Rectangle, ceiling: float) -> Lights:
    x0, y0, x1, y1 = rectangle
    centre = np.array([0.5 * (x0 + x1), 0.5 * (y0 + y1), ceiling - 0.15])
    along = np.array([x1 - x0, 0.0, 0.0]) if x1 - x0 > y1 - y0 else np.array([0.0, y1 - y0, 0.0])
    strength = float(rng.uniform(0.75, 1.35))
    warm = float(rng.uniform(-0.12, 0.12))
    colour = np.array([1.0 + warm, 1.0, 1.0 - warm])
    if rng.random() < 0.5 or max(x1 - x0, y1 - y0) > 5.0:
        return Lights(np.stack([centre - 0.25 * along, centre + 0.25 * along]), np.full(2, 0.75 * strength), colour)
    offset = np.array([0.12 * (x1 - x0), 0.12 * (y1 - y0), 0.0]) * rng.uniform(-1, 1, 3)
    return Lights(np.stack([centre + offset, centre]), np.array([strength, 0.0]), colour)


def _make_rooms(rng: np.random.Generator, plan: FloorPlan, ceiling: float, lookalike: float) -> list[Room]:
    kinds = list(ROOM_KINDS)
    rooms: list[Room] = []
    for index, rectangle in enumerate(plan.rooms):
        theme, kind = _make_theme(rng), kinds[int(rng.integers(len(kinds)))]
        seed = int(rng.integers(2**31))
        lights = _make_lights(rng, rectangle, ceiling)
        twin = rooms[int(rng.integers(len(rooms)))] if rooms and rng.random() < lookalike else None
        if index in plan.corridors:
            kind = "corridor"
        elif twin is not None and twin.kind != "corridor":
            theme, kind, seed = twin.theme, twin.kind, twin.furniture_seed
            lights = Lights(lights.positions_xyz, lights.brightness, twin.lights.colour)
        rooms.append(Room(rectangle, kind, theme, lights, seed))
    return rooms


def _add_wall(layout: Layout, wall: WallSegment) -> None:
    """Add the boxes of a wall: one, or two and a lintel where there is a door."""
    if wall.door is None:
        spans = [(wall.low_m - WALL_HALF_M, wall.high_m + WALL_HALF_M, 0.0)]
    else:
        spans = [
            (wall.low_m - WALL_HALF_M, wall.door[0], 0.0),
            (wall.door[1], wall.high_m + WALL_HALF_M, 0.0),
            (wall.door[0], wall.door[1], DOOR_HEIGHT_M),
        ]
    inside = wall.room_negative if wall.room_negative >= 0 else wall.room_positive
    negative = layout.rooms[inside]
    positive = layout.rooms[wall.room_positive if wall.room_positive >= 0 else inside]
    trim = pattern("plain", negative.theme.trim)
    for low, high, bottom in spans:
        middle, half = 0.5 * (low + high), 0.5 * (high - low)
        across = [positive.theme.wall, negative.theme.wall]
        lights = [positive.lights, negative.lights]
        if wall.axis == 0:
            box = Box(wall.line_m, middle, WALL_HALF_M, half, bottom, layout.ceiling_m)
            sides, side_lights = [*across, trim, trim], [*lights, negative.lights, negative.lights]
        else:
            box = Box(middle, wall.line_m, half, WALL_HALF_M, bottom, layout.ceiling_m)
            sides, side_lights = [trim, trim, *across], [negative.lights, negative.lights, *lights]
        layout.builder.add(box, [*sides, trim, trim], [*side_lights, negative.lights, negative.lights])


def _add_ceiling_lamps(layout: Layout) -> None:
    for room in layout.rooms:
        tint: Colour = (CEILING_LAMP[0], CEILING_LAMP[1], CEILING_LAMP[2])
        for position, brightness in zip(room.lights.positions_xyz, room.lights.brightness, strict=True):
            if brightness > 0:
                x, y, _ = position
                box = Box(float(x), float(y), 0.22, 0.22, layout.ceiling_m - 0.06, layout.ceiling_m)
                layout.builder.add_uniform(box, pattern("plain", tint), room.lights)


def _add_images(rng: np.random.Generator, layout: Layout) -> None:
    """Hang up to two posters (windows on outer walls) on every wall side of every room, clear of the doors."""
    for wall in layout.plan.walls:
        spans = [(wall.low_m, wall.high_m)]
        if wall.door is not None:
            spans = [(wall.low_m, wall.door[0]), (wall.door[1], wall.high_m)]
        outer = wall.room_negative < 0 or wall.room_positive < 0
        for side, room_index in ((-1.0, wall.room_negative), (1.0, wall.room_positive)):
            for low, high in spans:
                room_for = high - low - 0.5
                if room_index < 0 or room_for < 0.5 or rng.random() < 0.3:
                    continue
                first = 0 if outer and rng.random() < 0.55 else int(rng.integers(1, IMAGES_PER_WORLD))
                width = float(rng.uniform(0.5, min(room_for, 1.6)))
                height = float(rng.uniform(0.5, 1.1))
                middle = float(rng.uniform(low + 0.2 + 0.5 * width, high - 0.2 - 0.5 * width))
                base = float(rng.uniform(0.8, 1.2))
                line = wall.line_m + side * (WALL_HALF_M + 0.01)
                shape = (line, middle, 0.011, 0.5 * width) if wall.axis == 0 else (middle, line, 0.5 * width, 0.011)
                _hang(layout, Box(*shape, base, min(base + height, layout.ceiling_m - 0.2)), first, room_index)


def _hang(layout: Layout, box: Box, image: int, room_index: int) -> None:
    room = layout.rooms[room_index]
    bright = 1.5 if image == 0 else 1.1  # windows let daylight in
    layout.builder.add_uniform(box, Surface(-1 - image, (bright, bright, bright), 0.0), room.lights)


@dataclass(frozen=True)
class _Placed:
    """A piece of furniture, its pose (x, y, yaw) and the room that it stands in."""

    kind: str
    piece: Piece
    pose: tuple[float, float, float]
    room: Room

    @property
    def footprint(self) -> Box:
        x, y, yaw = self.pose
        return Box(x, y, 0.5 * self.piece.width_m, 0.5 * self.piece.depth_m, 0.0, 1.0, yaw)


class _Furnisher:
    """Places furniture so that the robot's free space stays in one piece."""

    def __init__(self, layout: Layout, furnishing: Furnishing) -> None:
        self.layout, self.furnishing = layout, furnishing
        width, height = layout.plan.size_xy
        self.shape = (math.ceil(width / CELL_M), math.ceil(height / CELL_M))
        x = (np.arange(self.shape[0]) + 0.5) * CELL_M
        y = (np.arange(self.shape[1]) + 0.5) * CELL_M
        self.cells_x, self.cells_y = x[:, None], y[None, :]
        self.free: NDArray[np.bool_] = np.ones(self.shape, dtype=bool)
        for x_c, y_c, half_x, half_y, yaw, z_low, _ in layout.builder.boxes:
            if z_low < 0.5:
                self.free &= ~self._inflated(Box(x_c, y_c, half_x, half_y, 0.0, 1.0, yaw), CLEARANCE_M)
        self.door_zone = np.zeros(self.shape, dtype=bool)
        for door in layout.plan.doors:
            x_d, y_d = door.door_centre_xy
            self.door_zone |= (self.cells_x - x_d) ** 2 + (self.cells_y - y_d) ** 2 < 0.75**2
        self.occupied = np.zeros(self.shape, dtype=bool)  # footprints of the pieces so far
        self.empty = self.free
        self.placed: list[_Placed] = []

    def run(self, density: float, changes: Changes | None = None) -> None:
        self._furnish(density)
        if changes is not None:
            self._move(changes)
            if changes.door_leaves:
                self._hang_doors(changes)
        for placed in self.placed:
            for part in placed.piece.parts:
                self._add_part(part.box, part.surfaces(), placed.pose, placed.room)
            self.layout.models += [model.placed(placed.pose, placed.room.lights) for model in placed.piece.models]

    def _furnish(self, density: float) -> None:
        for room in self.layout.rooms:
            rng = np.random.default_rng(room.furniture_seed)  # look-alike rooms draw the same pieces
            kinds = self.furnishing.pieces(room.kind)
            x0, y0, x1, y1 = room.rectangle
            count = min(len(kinds), max(2, round((x1 - x0) * (y1 - y0) * 0.42 * density)))
            for kind in kinds[:count]:
                piece = self.furnishing.make(kind, rng, room.theme)
                for _ in range(8):
                    placed = _Placed(kind, piece, self._draw_pose(rng, piece, room), room)
                    if self._claim(placed):
                        self.placed.append(placed)
                        break

    def _move(self, changes: Changes) -> None:
        """Let a share of chairs and stools stand near where they stood."""
        for index, placed in enumerate(self.placed):
            if placed.kind not in MOVABLE or changes.rng.random() >= changes.moved:
                continue
            self.free, self.occupied = self.empty, np.zeros(self.shape, dtype=bool)
            for other in (*self.placed[:index], *self.placed[index + 1 :]):
                self.free = self.free & ~self._inflated(other.footprint, CLEARANCE_M)
                self.occupied |= self._inflated(other.footprint, 0.03)
            for _ in range(MOVE_TRIES):
                x, y = placed.pose[:2] + changes.rng.uniform(-MOVE_M, MOVE_M, 2)
                moved = replace(placed, pose=(float(x), float(y), float(changes.rng.uniform(-math.pi, math.pi))))
                if self._claim(moved):
                    self.placed[index] = moved
                    break

    def _hang_doors(self, changes: Changes) -> None:
        """Give every door a leaf that leaves the way free; none where all ways to hang it would block something."""
        self.free, self.occupied = self.empty, np.zeros(self.shape, dtype=bool)
        for placed in self.placed:
            self.free = self.free & ~self._inflated(placed.footprint, CLEARANCE_M)
            self.occupied |= self._inflated(placed.footprint, 0.0)
        for wall in self.layout.plan.doors:
            first = int(changes.doors_rng.integers(4))
            angle = math.radians(float(changes.rng.uniform(*LEAF_ANGLES_DEG)))
            for hung in range(4):
                leaf = door_leaf(wall, (first + hung) % 4, angle)
                free = self._kept_free(leaf)
                if free is None or (self.occupied & self._inflated(leaf, 0.0)).any():
                    continue
                self.free = free
                room = self.layout.rooms[max(wall.room_negative, wall.room_positive)]
                self.layout.builder.add_uniform(leaf, pattern("wood", room.theme.wood, 0.9), room.lights)
                break

    def _draw_pose(self, rng: np.random.Generator, piece: Piece, room: Room) -> tuple[float, float, float]:
        x0, y0, x1, y1 = room.rectangle
        margin = WALL_HALF_M + 0.02
        if not piece.against_wall and room.kind != "corridor":
            reach = 0.5 * math.hypot(piece.width_m, piece.depth_m) + margin
            yaw = float(rng.integers(4)) * 0.5 * math.pi if rng.random() < 0.5 else float(rng.uniform(0, 2 * math.pi))
            near_wall = rng.random() < 0.4  # free pieces like corners and walls as well
            pull = 0.15 if near_wall else 0.5
            x, y = (
                low + reach + max(high - low - 2 * reach, 0.0) * float(rng.beta(pull + 0.5, pull + 0.5))
                for low, high in ((x0, x1), (y0, y1))
            )
            return x, y, yaw
        side = int(rng.integers(4))
        inset = 0.5 * piece.depth_m + margin
        low, high = (y0, y1) if side < 2 else (x0, x1)
        spare = max(high - low - piece.width_m - 2 * margin, 0.0)
        along = low + margin + 0.5 * piece.width_m + spare * float(rng.random())
        return (
            (x0 + inset, along, -0.5 * math.pi),
            (x1 - inset, along, 0.5 * math.pi),
            (along, y0 + inset, 0.0),
            (along, y1 - inset, math.pi),
        )[side]

    def _claim(self, placed: _Placed) -> bool:
        """Take the floor under a piece, where it is free and the robot's way stays in one piece."""
        x, y, yaw = placed.pose
        footprint = placed.footprint
        cover = self._inflated(footprint, 0.03)
        x0, y0, x1, y1 = placed.room.rectangle
        c, s = abs(math.cos(yaw)), abs(math.sin(yaw))
        reach_x, reach_y = c * footprint.half_x + s * footprint.half_y, s * footprint.half_x + c * footprint.half_y
        inside = x - reach_x > x0 + WALL_HALF_M and x + reach_x < x1 - WALL_HALF_M
        inside &= y - reach_y > y0 + WALL_HALF_M and y + reach_y < y1 - WALL_HALF_M
        if not inside or (cover & (self.door_zone | self.occupied)).any():
            return False
        free = self._kept_free(footprint)
        if free is None:
            return False
        self.free = free
        self.occupied |= cover
        return True

    def _kept_free(self, footprint: Box) -> NDArray[np.bool_] | None:
        """Return what is free with ``footprint`` in the way, or None where that cuts the robot's space in two."""
        from scipy import ndimage

        free: NDArray[np.bool_] = self.free & ~self._inflated(footprint, CLEARANCE_M)
        labelled: Any = ndimage.label(free)  # older stubs tell of a number here, not of two values
        labels, count = labelled
        if count != 1:  # allow only closed corners too small to stand in
            sizes = np.bincount(labels.ravel())[1:]
            if sizes.max() < free.sum() - 30 or (free & self.door_zone & (labels != 1 + sizes.argmax())).any():
                return None
            free = labels == 1 + sizes.argmax()
        return free

    def _add_part(self, local: Box, surfaces: list[Surface], pose: tuple[float, float, float], room: Room) -> None:
        c, s = math.cos(pose[2]), math.sin(pose[2])
        x = pose[0] + c * local.x - s * local.y
        y = pose[1] + s * local.x + c * local.y
        top = min(local.z_high, self.layout.ceiling_m)
        box = Box(x, y, local.half_x, local.half_y, local.z_low, top, pose[2] + local.yaw)
        self.layout.builder.add(box, surfaces, [room.lights] * 6)

    def _inflated(self, box: Box, margin_m: float) -> NDArray[np.bool_]:
        """Cells whose centre is nearer than ``margin_m`` to the box."""
        c, s = math.cos(box.yaw), math.sin(box.yaw)
        dx, dy = self.cells_x - box.x, self.cells_y - box.y
        outside_x = np.maximum(np.abs(c * dx + s * dy) - box.half_x, 0.0)
        outside_y = np.maximum(np.abs(c * dy - s * dx) - box.half_y, 0.0)
        inside: NDArray[np.bool_] = outside_x * outside_x + outside_y * outside_y < margin_m * margin_m
        return inside
