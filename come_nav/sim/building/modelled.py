"""Furnishes rooms with modelled furniture in the place of boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.sim.assets.pack import Model
from come_nav.sim.assets.shelf import SMALL
from come_nav.sim.building.furniture import CORRIDOR_PIECES, ROOM_KINDS, Furnishing, Piece, Theme, make_piece
from come_nav.sim.building.surfaces import Lights
from come_nav.sim.meshes.furniture_mesh import STANDS_BELOW_M, FurnitureMesh, furniture_mesh

BACK_TO_WALL: Mapping[str, float] = {  # how often a kind stands with its back to a wall; always where it is not named
    "table": 0.35,
    "round table": 0.1,
    "chair": 0.1,
    "stool": 0.2,
    "plant": 0.5,
    "lamp": 0.5,
    "crates": 0.6,
    "sofa": 0.8,
}
MORE_PIECES: Mapping[str, tuple[str, ...]] = {  # than boxes are put into the same rooms
    "living room": ("stool", "cupboard", "plant", "chair", "sofa", "chest"),
    "bedroom": ("bookcase", "chair", "crates", "chest", "plant", "table"),
    "kitchen": ("counter", "counter", "cupboard", "chair", "counter", "crates"),
    "study": ("chest", "stool", "lamp", "chair", "table", "plant"),
    "store": ("chest", "stool", "bookcase", "fridge", "cupboard"),
    "dining room": ("chair", "bookcase", "round table", "chair", "stool", "cupboard"),
    "hall": ("chest", "bookcase", "round table", "lamp", "sofa", "chair"),
}
CARRIES = ("table", "round table", "chest", "counter")
MOST_THINGS, THING_SHARE, THING_TRIES = 3, 0.6, 5
LEVEL_M = 0.02  # a thing stands where what is below its corners is level within this
LOW_M, HIGH_M = 0.3, 1.3


@dataclass(frozen=True)
class PlacedModel:
    """A model of furniture where it stands.

    Attributes:
        model: of the pack in ``folder``.
        folder: of the pack.
        x, y, z, yaw: of the model's frame: of its piece where the piece is not placed yet, then of the world.
        lights: of its room.
    """

    model: Model
    folder: Path
    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    lights: Lights | None = None

    @property
    def mesh(self) -> FurnitureMesh:
        """Its triangles, read once."""
        return furniture_mesh(self.folder / self.model.file, self.model.size_m, self.model.rotation)

    @property
    def footprints(self) -> NDArray[np.float64]:
        """What stops a robot, in the world: centre x, y, half sizes x, y, yaw (M, 5)."""
        if self.z >= STANDS_BELOW_M:
            return np.empty((0, 5))
        low, high = self.mesh.footprint[:, :2], self.mesh.footprint[:, 2:]
        centre, half = 0.5 * (low + high), 0.5 * (high - low)
        cosine, sine = math.cos(self.yaw), math.sin(self.yaw)
        x = self.x + cosine * centre[:, 0] - sine * centre[:, 1]
        y = self.y + sine * centre[:, 0] + cosine * centre[:, 1]
        return np.column_stack([x, y, half, np.full(len(x), self.yaw)])

    def placed(self, pose_xyyaw: tuple[float, float, float], lights: Lights) -> PlacedModel:
        """Return it in the world, its piece at a pose."""
        x, y, yaw = pose_xyyaw
        cosine, sine = math.cos(yaw), math.sin(yaw)
        return replace(
            self,
            x=x + cosine * self.x - sine * self.y,
            y=y + sine * self.x + cosine * self.y,
            yaw=yaw + self.yaw,
            lights=lights,
        )


def modelled_furnishing(shelf: Mapping[str, Sequence[Model]], folder: Path) -> Furnishing:
    """Return how rooms are furnished from a shelf of models of the pack in ``folder``."""
    rooms = {kind: (*pieces, *MORE_PIECES.get(kind, ())) for kind, pieces in ROOM_KINDS.items()}
    return Furnishing(_ModelledFurniture(shelf, folder), rooms, CORRIDOR_PIECES)


@dataclass(frozen=True)
class _ModelledFurniture:
    """Makes pieces from the models of a shelf; of a kind that it holds none of, the boxes that are built in."""

    shelf: Mapping[str, Sequence[Model]]
    folder: Path

    def __call__(self, kind: str, rng: np.random.Generator, theme: Theme) -> Piece:
        """Return a piece of ``kind``."""
        models = self.shelf.get(kind)
        if not models:
            return make_piece(kind, rng, theme)
        model = models[int(rng.integers(len(models)))]
        main = PlacedModel(model, self.folder)
        things = self._things(main, rng) if kind in CARRIES else []
        against_wall = bool(rng.random() < BACK_TO_WALL.get(kind, 1.0))
        return Piece([], model.size_m[0], model.size_m[1], against_wall, (main, *things))

    def _things(self, main: PlacedModel, rng: np.random.Generator) -> list[PlacedModel]:
        """Put up to three things on a piece, where it is level below them and they do not stand in each other."""
        small, standing = self.shelf.get(SMALL) or (), list[PlacedModel]()
        for _ in range(MOST_THINGS):
            if not small or rng.random() > THING_SHARE:
                continue
            thing = small[int(rng.integers(len(small)))]
            half = 0.5 * np.array(thing.size_m[:2])
            room = 0.5 * np.array(main.model.size_m[:2]) - half - LEVEL_M
            for _ in range(THING_TRIES):
                place = rng.uniform(-1.0, 1.0, 2) * room
                if (room < 0.0).any() or any(_overlap(place, half, other) for other in standing):
                    continue
                corners = place + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [0, 0]])
                heights = main.mesh.height_at(corners)
                if heights.min() > LOW_M and heights.max() < min(HIGH_M, heights.min() + LEVEL_M):
                    x, y = place.tolist()
                    standing.append(PlacedModel(thing, self.folder, x, y, float(heights.max())))
                    break
        return standing


def _overlap(place: NDArray[np.float64], half: NDArray[np.float64], other: PlacedModel) -> bool:
    reach = half + 0.5 * np.array(other.model.size_m[:2])
    return bool((np.abs(place - [other.x, other.y]) < reach).all())
