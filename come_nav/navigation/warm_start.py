"""Whether the search for one goal may begin with the plan to another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Goal

MOVED_M, TURNED_RAD = 0.5, 0.8


def leads_on(before: Goal, goal: Goal) -> bool:
    """Whether what is left of a plan to one goal is a good first guess for the other.

    It is where both show the same image, or none, and their poses, where they have any, lie within half a metre and
    0.8 rad. So a subgoal that moves on along a remembered way, by what the robot drives between two plans, goes on
    from the plan before: the robot keeps to the side of an obstacle that it has chosen. Half of the first candidates
    cover the whole range whatever the guess, so that one which is off by so much costs little.
    """
    return _same_image(before.image_rgb, goal.image_rgb) and _near(before.pose_odom_xyyaw, goal.pose_odom_xyyaw)


def _same_image(one: NDArray[np.uint8] | None, other: NDArray[np.uint8] | None) -> bool:
    if one is None or other is None or one is other:
        return one is other
    return bool(np.array_equal(one, other))


def _near(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> bool:
    if one is None or other is None:
        return one is other
    apart = se2.relative(one, other)
    return bool(np.hypot(*apart[:2]) <= MOVED_M and abs(apart[2]) <= TURNED_RAD)
