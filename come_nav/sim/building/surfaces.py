"""Collects boxes with one surface per face and writes them as the numbers that the ray-caster reads.

A surface row (15 floats) is texture index, u = (ux, uy) . (x, y) + ou, v = vz z + ov (for level faces v is u turned by
90 degrees plus ov), colour (r, g, b), and for two lights (lx, ly, h): position in the plane and brightness times the
light's height above the face's plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from come_nav.sim.building.textures import PATTERN_INDEX

ROW_SIZE = 15
AMBIENT, DIFFUSE, FALLOFF_PER_M2 = 0.42, 0.62, 0.045  # light of all surfaces
FACES_PER_BOX = 6  # local +x, -x, +y, -y, top, bottom
_LOCAL_NORMALS = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Surface:
    """What a face looks like.

    Attributes:
        texture: index into the patterns, or -1 - p for the world's poster p.
        colour: multiplies the texture, linear 0..1 (above 1 for lamps).
        scale_m: length of one texture repeat; 0 stretches the texture once over the face.
    """

    texture: int
    colour: Colour
    scale_m: float = 1.0


def pattern(name: str, colour: Colour, scale_m: float = 1.0) -> Surface:
    """Return a surface with the shared pattern ``name``."""
    return Surface(PATTERN_INDEX[name], colour, scale_m)


@dataclass(frozen=True)
class Lights:
    """The two lamps of a room: positions (2, 3) in metres, brightness (2,) (0 = absent), colour (3,)."""

    positions_xyz: NDArray[np.float64]
    brightness: NDArray[np.float64]
    colour: NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """A box that stands upright: centre, half sizes, yaw and vertical extent in metres."""

    x: float
    y: float
    half_x: float
    half_y: float
    z_low: float
    z_high: float
    yaw: float = 0.0


@dataclass
class SurfaceBuilder:
    """Boxes (N, 7) and surface rows (N, 6, 15) in the making."""

    boxes: list[tuple[float, ...]] = field(default_factory=list)
    rows: list[list[list[float]]] = field(default_factory=list)

    def add(self, box: Box, surfaces: list[Surface], lights: list[Lights]) -> None:
        """Add a box with the surfaces and lights of its six faces."""
        self.boxes.append((box.x, box.y, box.half_x, box.half_y, box.yaw, box.z_low, box.z_high))
        faces = [_side_row(box, index, surfaces[index], lights[index]) for index in range(4)]
        faces.append(level_row(surfaces[4], lights[4], box.z_high, True, box))
        faces.append(level_row(surfaces[5], lights[5], box.z_low, False, box))
        self.rows.append(faces)

    def add_uniform(self, box: Box, surface: Surface, lights: Lights) -> None:
        """Add a box that looks the same from all sides."""
        self.add(box, [surface] * 6, [lights] * 6)


def _side_row(box: Box, face: int, surface: Surface, lights: Lights) -> list[float]:
    normal_x, normal_y = _LOCAL_NORMALS[face]
    cosine, sine = math.cos(box.yaw), math.sin(box.yaw)
    normal = (cosine * normal_x - sine * normal_y, sine * normal_x + cosine * normal_y)
    right = (-normal[1], normal[0])  # to the right for somebody who looks at the face
    distance, half_width = (box.half_x, box.half_y) if face < 2 else (box.half_y, box.half_x)
    if surface.scale_m > 0:
        per_metre_u = per_metre_v = 1.0 / surface.scale_m
        offset_u, offset_v = 0.0, 0.0
    else:
        per_metre_u = 0.5 / half_width
        per_metre_v = 1.0 / (box.z_high - box.z_low)
        offset_u = 0.5 - per_metre_u * (right[0] * box.x + right[1] * box.y)
        offset_v = per_metre_v * box.z_high
    plane = normal[0] * box.x + normal[1] * box.y + distance
    row = [surface.texture, per_metre_u * right[0], per_metre_u * right[1], offset_u, -per_metre_v, offset_v]
    heights = [normal[0] * position[0] + normal[1] * position[1] - plane for position in lights.positions_xyz]
    return row + _colour_and_lights(surface, lights, heights)


def level_row(surface: Surface, lights: Lights, height_m: float, up: bool, box: Box | None = None) -> list[float]:
    """Return the row of a level face at ``height_m`` that looks up or down; ``box`` anchors the texture."""
    yaw, x, y = (box.yaw, box.x, box.y) if box is not None else (0.0, 0.0, 0.0)
    scale = surface.scale_m
    if scale <= 0:
        scale = 2.0 * max(box.half_x, box.half_y) if box is not None else 1.0
    ux, uy = math.cos(yaw) / scale, math.sin(yaw) / scale
    row = [surface.texture, ux, uy, 0.5 - ux * x - uy * y, 0.0, 0.5 + uy * x - ux * y]
    sign = 1.0 if up else -1.0
    heights = [sign * (position[2] - height_m) for position in lights.positions_xyz]
    return row + _colour_and_lights(surface, lights, heights)


def _colour_and_lights(surface: Surface, lights: Lights, heights: list[float]) -> list[float]:
    numbers = [tint * light for tint, light in zip(surface.colour, lights.colour, strict=True)]
    for lamp in range(2):
        x, y, _ = lights.positions_xyz[lamp]
        numbers += [x, y, max(heights[lamp], 0.0) * lights.brightness[lamp]]
    return [float(number) for number in numbers]
