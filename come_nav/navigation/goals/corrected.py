"""Goals stay where they are in map: in odom they move when odom is corrected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Goal
from come_nav.navigation.goals.guide import Guide
from come_nav.navigation.goals.mission import Mission

SAME_M, SAME_RAD = 0.005, 0.005  # less is a localiser's restlessness


def follow_correction(
    mission: Mission,
    guide: Guide,
    before_xyyaw: NDArray[np.float64],
    now_xyyaw: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Move the mission's goal and the guide's by what odom has moved in map; return ``now_xyyaw``.

    Args:
        mission: whose goal is moved.
        guide: whose goal, place and way are moved.
        before_xyyaw: (3,) where odom lay in map when the goals were right.
        now_xyyaw: (3,) where it lies now.
    """
    if np.array_equal(before_xyyaw, now_xyyaw):
        return now_xyyaw
    motion = se2.compose(se2.inverse(now_xyyaw), before_xyyaw)
    if mission.goal is not None:
        mission.goal = moved_goal(mission.goal, motion)
    guide.move(motion)
    return now_xyyaw


def renew_goal(mission: Mission, guide: Guide, pose_odom_xyyaw: NDArray[np.float64] | None) -> None:
    """Put the goal of mission and guide where another frame's transform says that it lies in odom (3,) now."""
    goal = mission.goal
    if pose_odom_xyyaw is None or goal is None or goal.pose_odom_xyyaw is None:
        return
    away = se2.relative(goal.pose_odom_xyyaw, pose_odom_xyyaw)
    if np.hypot(*away[:2]) > SAME_M or abs(away[2]) > SAME_RAD:
        mission.goal = replace(goal, pose_odom_xyyaw=pose_odom_xyyaw)
        guide.renew(mission.goal)


def moved_goal(goal: Goal, motion_xyyaw: NDArray[np.float64]) -> Goal:
    """Return a goal moved by a motion (3,) of odom; the very same where it has no pose."""
    if goal.pose_odom_xyyaw is None:
        return goal
    return replace(goal, pose_odom_xyyaw=se2.compose(motion_xyyaw, goal.pose_odom_xyyaw))
