"""Pieces of furniture as groups of boxes. Local frame: x along the width, the back at -y, the front looks to +y."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from come_nav.sim.building.surfaces import Box, Colour, Lights, Surface, pattern


@dataclass(frozen=True)
class Theme:
    """Look of a room: surfaces of the shell and the colours of its furniture."""

    floor: Surface
    wall: Surface
    ceiling: Surface
    trim: Colour
    wood: Colour
    accent: Colour
    second: Colour


@dataclass(frozen=True)
class Part:
    """One box of a piece with its surfaces (sides, front, top)."""

    box: Box
    side: Surface
    front: Surface | None = None
    top: Surface | None = None

    def surfaces(self) -> list[Surface]:
        """Surfaces of the six faces."""
        return [self.side, self.side, self.front or self.side, self.side, self.top or self.side, self.side]


class PlaceableModel(Protocol):
    """A model that gets its place with the piece that it is of."""

    def placed(self, pose_xyyaw: tuple[float, float, float], lights: Lights) -> Any:
        """Return it in the world, its piece at a pose, in the light of its room."""
        ...


@dataclass(frozen=True)
class Piece:
    """A piece of furniture: parts in its local frame, its footprint, and whether it stands with its back to a wall.

    A modelled piece has ``models`` (:class:`come_nav.sim.building.modelled.PlacedModel`) in the place of parts.
    """

    parts: list[Part]
    width_m: float
    depth_m: float
    against_wall: bool
    models: tuple[PlaceableModel, ...] = ()


def _shade(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def _centred(width: float, depth: float, low: float, high: float, x: float = 0.0, y: float = 0.0) -> Box:
    return Box(x, y, 0.5 * width, 0.5 * depth, low, high)


def _legs(width: float, depth: float, height: float, surface: Surface, thick: float = 0.06) -> list[Part]:
    x, y = 0.5 * (width - thick) - 0.02, 0.5 * (depth - thick) - 0.02
    return [Part(_centred(thick, thick, 0.0, height, sx * x, sy * y), surface) for sx in (-1, 1) for sy in (-1, 1)]


def _table(rng: np.random.Generator, theme: Theme) -> Piece:
    width, depth, height = rng.uniform(0.9, 1.7), rng.uniform(0.65, 0.95), rng.uniform(0.68, 0.78)
    wood = pattern("wood", theme.wood, 0.8)
    parts = [Part(_centred(width, depth, height - 0.05, height), wood), *_legs(width, depth, height - 0.05, wood)]
    if rng.random() < 0.6:  # something that stands on it
        size = rng.uniform(0.15, 0.35, 3)
        x, y = rng.uniform(-0.3, 0.3) * width, rng.uniform(-0.25, 0.25) * depth
        parts.append(Part(_centred(size[0], size[1], height, height + size[2], x, y), pattern("plain", theme.accent)))
    return Piece(parts, width, depth, bool(rng.random() < 0.35))


def _round_table(rng: np.random.Generator, theme: Theme) -> Piece:
    size, height = rng.uniform(0.6, 0.9), rng.uniform(0.45, 0.75)
    wood = pattern("wood", theme.wood, 0.6)
    plate = _centred(size, size, height - 0.05, height)
    turned = Box(0.0, 0.0, 0.5 * size, 0.5 * size, height - 0.04, height - 0.01, np.pi / 4)
    foot = _centred(0.12, 0.12, 0.0, height - 0.05)
    return Piece([Part(plate, wood), Part(turned, wood), Part(foot, wood)], size * 1.2, size * 1.2, False)


def _chair(rng: np.random.Generator, theme: Theme) -> Piece:
    seat, back = pattern("plain", theme.accent), pattern("wood", theme.wood, 0.5)
    parts = [Part(_centred(0.44, 0.44, 0.42, 0.47), seat), Part(_centred(0.44, 0.05, 0.47, 0.92, 0.0, -0.19), back)]
    return Piece(parts + _legs(0.44, 0.44, 0.42, back, 0.05), 0.46, 0.46, False)


def _bookcase(rng: np.random.Generator, theme: Theme) -> Piece:
    width, height = rng.uniform(0.8, 1.6), rng.uniform(1.2, 2.1)
    wood = pattern("wood", theme.wood, 0.8)
    books = pattern("books", (1.0, 1.0, 1.0), 0.0)
    return Piece([Part(_centred(width, 0.32, 0.0, height), wood, front=books)], width, 0.32, True)


def _cupboard(rng: np.random.Generator, theme: Theme) -> Piece:
    width, depth, height = rng.uniform(0.8, 1.5), rng.uniform(0.4, 0.6), rng.uniform(1.3, 2.1)
    front = pattern("doors", theme.second, 0.0)
    return Piece([Part(_centred(width, depth, 0.0, height), pattern("plain", theme.second), front)], width, depth, True)


def _chest(rng: np.random.Generator, theme: Theme) -> Piece:
    width, depth, height = rng.uniform(0.7, 1.3), rng.uniform(0.4, 0.5), rng.uniform(0.7, 1.0)
    front = pattern("drawers", theme.wood, 0.0)
    parts = [Part(_centred(width, depth, 0.0, height), pattern("wood", theme.wood, 0.8), front)]
    if rng.random() < 0.6:
        screen = pattern("plain", (0.08, 0.09, 0.12))
        parts.append(Part(_centred(0.6 * width, 0.08, height + 0.06, height + 0.5), screen))
        parts.append(Part(_centred(0.15, 0.1, height, height + 0.06), screen))
    return Piece(parts, width, depth, True)


def _sofa(rng: np.random.Generator, theme: Theme) -> Piece:
    width, depth = rng.uniform(1.4, 2.2), rng.uniform(0.8, 0.95)
    cloth = pattern("weave", theme.accent, 0.5)
    cushion = pattern("plain", _shade(theme.accent, 1.15))
    parts = [
        Part(_centred(width, depth, 0.05, 0.32), cloth),
        Part(_centred(width - 0.4, depth - 0.25, 0.32, 0.44, 0.0, 0.1), cushion),
        Part(_centred(width, 0.22, 0.32, 0.85, 0.0, -0.5 * depth + 0.11), cloth),
        Part(_centred(0.2, depth, 0.32, 0.6, -0.5 * width + 0.1), cloth),
        Part(_centred(0.2, depth, 0.32, 0.6, 0.5 * width - 0.1), cloth),
    ]
    pillow = pattern("dots", theme.second, 0.4)
    parts.append(Part(_centred(0.4, 0.12, 0.44, 0.78, rng.uniform(-0.3, 0.3) * width, -0.12), pillow))
    return Piece(parts, width, depth, bool(rng.random() < 0.8))


def _bed(rng: np.random.Generator, theme: Theme) -> Piece:
    width, depth = rng.uniform(1.0, 1.6), 2.0
    wood = pattern("wood", theme.wood, 0.8)
    cover = pattern(["stripes", "checker", "plain", "diamonds"][int(rng.integers(4))], theme.accent, 0.9)
    parts = [
        Part(_centred(width, depth, 0.1, 0.3), wood),
        Part(_centred(width - 0.06, depth - 0.1, 0.3, 0.5), pattern("plain", (0.92, 0.92, 0.9)), top=cover),
        Part(_centred(width, 0.08, 0.1, 0.95, 0.0, -0.5 * depth + 0.04), wood),
        Part(_centred(0.7 * width, 0.35, 0.5, 0.6, 0.0, -0.5 * depth + 0.3), pattern("plain", (0.95, 0.95, 0.95))),
    ]
    return Piece(parts, width, depth, True)


def _plant(rng: np.random.Generator, theme: Theme) -> Piece:
    size, height = rng.uniform(0.3, 0.42), rng.uniform(0.9, 1.6)
    pot = pattern("plain", theme.second)
    green = pattern("leaves", (0.25, rng.uniform(0.55, 0.8), 0.22), 0.6)
    trunk = pattern("wood", (0.4, 0.28, 0.18), 0.3)
    spread = rng.uniform(0.45, 0.65)
    parts = [
        Part(_centred(size, size, 0.0, 0.35), pot),
        Part(_centred(0.07, 0.07, 0.35, height - 0.4), trunk),
        Part(Box(0.0, 0.0, 0.5 * spread, 0.5 * spread, height - 0.5, height - 0.05, 0.4), green),
        Part(Box(0.0, 0.0, 0.3 * spread, 0.3 * spread, height - 0.05, height + 0.15, 1.0), green),
    ]
    return Piece(parts, spread * 1.15, spread * 1.15, False)


def _crates(rng: np.random.Generator, theme: Theme) -> Piece:
    brown = (0.72, 0.54, 0.36)
    box = pattern("cardboard", brown if rng.random() < 0.6 else theme.accent, 0.0)
    width, depth, height = rng.uniform(0.35, 0.7, 3)
    parts = [Part(_centred(width, depth, 0.0, height), box)]
    if rng.random() < 0.5:
        top = Box(0.0, 0.0, 0.35 * width, 0.35 * depth, height, height + rng.uniform(0.2, 0.4), rng.uniform(-0.5, 0.5))
        parts.append(Part(top, pattern("cardboard", _shade(brown, rng.uniform(0.7, 1.1)), 0.0)))
    return Piece(parts, width, depth, bool(rng.random() < 0.5))


def _fridge(rng: np.random.Generator, theme: Theme) -> Piece:
    body = pattern("plain", (0.88, 0.89, 0.92) if rng.random() < 0.6 else theme.accent)
    height = rng.uniform(1.6, 1.9)
    handle = Part(_centred(0.03, 0.05, 0.9, 1.4, 0.24, 0.34), pattern("plain", (0.3, 0.3, 0.32)))
    line = Part(_centred(0.64, 0.02, 0.7, 0.73, 0.0, 0.325), pattern("plain", (0.3, 0.3, 0.32)))
    return Piece([Part(_centred(0.65, 0.65, 0.0, height), body), handle, line], 0.65, 0.72, True)


def _counter(rng: np.random.Generator, theme: Theme) -> Piece:
    width = rng.uniform(1.4, 2.4)
    front = pattern("doors", theme.second, 0.7)
    parts = [
        Part(_centred(width, 0.58, 0.0, 0.86), pattern("plain", theme.second), front),
        Part(_centred(width + 0.04, 0.62, 0.86, 0.9), pattern("concrete", (0.45, 0.45, 0.47), 0.5)),
    ]
    if width > 1.8:  # wall units above
        parts.append(Part(_centred(width * 0.8, 0.34, 1.45, 2.0, 0.0, -0.13), pattern("plain", theme.second), front))
    return Piece(parts, width + 0.04, 0.62, True)


def _pillar(rng: np.random.Generator, theme: Theme) -> Piece:
    size = rng.uniform(0.3, 0.45)
    surface = pattern(["bricks", "concrete", "plain"][int(rng.integers(3))], theme.trim, 0.8)
    return Piece([Part(_centred(size, size, 0.0, 9.0), surface)], size, size, False)  # cut to the room's height


def _lamp(rng: np.random.Generator, theme: Theme) -> Piece:
    pole = pattern("plain", (0.2, 0.2, 0.22))
    shade = pattern("plain", (1.7, 1.6, 1.3))
    parts = [
        Part(_centred(0.3, 0.3, 0.0, 0.04), pole),
        Part(_centred(0.04, 0.04, 0.04, 1.4), pole),
        Part(_centred(0.34, 0.34, 1.4, 1.7), shade),
    ]
    return Piece(parts, 0.36, 0.36, False)


def _stool(rng: np.random.Generator, theme: Theme) -> Piece:
    size, height = rng.uniform(0.35, 0.6), rng.uniform(0.35, 0.5)
    return Piece([Part(_centred(size, size, 0.0, height), pattern("weave", theme.second, 0.4))], size, size, False)


_MAKERS: dict[str, Callable[[np.random.Generator, Theme], Piece]] = {
    "table": _table,
    "round table": _round_table,
    "chair": _chair,
    "bookcase": _bookcase,
    "cupboard": _cupboard,
    "chest": _chest,
    "sofa": _sofa,
    "bed": _bed,
    "plant": _plant,
    "crates": _crates,
    "fridge": _fridge,
    "counter": _counter,
    "pillar": _pillar,
    "lamp": _lamp,
    "stool": _stool,
}

# What kinds of rooms hold; earlier pieces find a place more easily.
ROOM_KINDS: dict[str, tuple[str, ...]] = {
    "living room": ("sofa", "round table", "bookcase", "chest", "plant", "lamp", "sofa", "stool"),
    "bedroom": ("bed", "cupboard", "chest", "stool", "lamp", "plant"),
    "kitchen": ("counter", "fridge", "table", "chair", "chair", "stool", "counter"),
    "study": ("table", "chair", "bookcase", "bookcase", "cupboard", "plant", "crates"),
    "store": ("crates", "crates", "cupboard", "crates", "bookcase", "crates", "pillar", "crates"),
    "dining room": ("table", "chair", "chair", "chair", "chest", "plant", "pillar", "lamp"),
    "hall": ("pillar", "sofa", "plant", "plant", "stool", "pillar", "crates"),
}
CORRIDOR_PIECES: tuple[str, ...] = ("plant", "chest", "crates", "stool", "bookcase")


@dataclass(frozen=True)
class Furnishing:
    """What rooms are furnished with.

    Attributes:
        make: makes a piece of a kind in the colours of a room.
        rooms: kinds of rooms to the kinds of their pieces.
        corridor: pieces of corridors.
    """

    make: Callable[[str, np.random.Generator, Theme], Piece]
    rooms: Mapping[str, tuple[str, ...]]
    corridor: tuple[str, ...]

    def pieces(self, room_kind: str) -> tuple[str, ...]:
        """Return the kinds of pieces of a kind of room."""
        return self.corridor if room_kind == "corridor" else self.rooms[room_kind]


def make_piece(kind: str, rng: np.random.Generator, theme: Theme) -> Piece:
    """Return a piece of furniture of ``kind`` (a key named in ROOM_KINDS) in the room's colours."""
    return _MAKERS[kind](rng, theme)


BOXES = Furnishing(make_piece, ROOM_KINDS, CORRIDOR_PIECES)
