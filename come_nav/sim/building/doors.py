"""Leaves of doors, as boxes."""

from __future__ import annotations

import math

from come_nav.sim.building.floor_plan import WALL_HALF_M, WallSegment
from come_nav.sim.building.surfaces import Box

LEAF_HALF_M = 0.02


def door_leaf(wall: WallSegment, hung: int, angle_rad: float) -> Box:
    """Return the leaf of a door; ``hung`` tells at which end (bit 0) and into which room (bit 1)."""
    assert wall.door is not None
    end, side = hung & 1, 1.0 if hung & 2 else -1.0
    length = wall.door[1] - wall.door[0] - 0.04
    hinge = wall.door[end] + (-0.04 if end else 0.04)
    along, across = math.cos(angle_rad) * (-1.0 if end else 1.0), math.sin(angle_rad) * side
    middle, off = hinge + 0.5 * length * along, 0.5 * length * across + side * WALL_HALF_M
    if wall.axis == 0:  # the wall runs along y
        return Box(wall.line_m + off, middle, 0.5 * length, LEAF_HALF_M, 0.0, 2.0, math.atan2(along, across))
    return Box(middle, wall.line_m + off, 0.5 * length, LEAF_HALF_M, 0.0, 2.0, math.atan2(across, along))
