"""One plan with everything that memory knows of the goal, for whoever does not drive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import Goal, Plan
from come_nav.navigation.navigator import GoalRequest, Navigator


@dataclass(frozen=True)
class PlannedOnce:
    """One plan to a goal, and what memory knew of it.

    Attributes:
        plan: to the target; its status says whether it may be driven.
        goal: as it is known now: with the pose that its image was taken from, where memory recognised it.
        target: what the plan leads to: the goal, or a subgoal on the way.
        recognised: whether memory found where the goal's image was taken.
        way_xy: (N, 2) remembered way in odom that is followed, or None.
    """

    plan: Plan
    goal: Goal
    target: Goal
    recognised: bool = False
    way_xy: NDArray[np.float64] | None = None


def plan_once(navigator: Navigator, request: GoalRequest) -> PlannedOnce:
    """Plan to a goal from the newest frame, as the first step of a mission does; the mission ends with it."""
    asked = navigator.begin(request)
    if asked is None:
        navigator.cancel("planned once")
        raise DataError("a single plan needs a goal; to explore, drive")
    newest = navigator.stack.memory.newest
    step = navigator.step(0.0 if newest is None else newest.stamp_s)
    known = navigator.mission.goal or asked
    navigator.cancel("planned once")
    plan = step.plan or navigator.stack.plan(asked)  # without a frame there is no step, but a plan that says so
    recognised = asked.pose_odom_xyyaw is None and known.pose_odom_xyyaw is not None
    return PlannedOnce(plan, known, step.target or asked, recognised, step.way_xy)
