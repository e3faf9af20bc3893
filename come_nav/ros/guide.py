"""The next thing to head for: the goal itself when it is near or unknown, else a point on the way through memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import Goal
from come_nav.memory.keyframes import Keyframe
from come_nav.ros.places import Places


@dataclass(frozen=True)
class GuideRules:
    """When memory leads.

    Attributes:
        direct_m: a goal nearer than this is approached directly, m.
        lookahead_m: how far along the way the next subgoal lies, m.
        trust: a key frame stands for a picture if its difference to the picture is below this share of the difference
            between the present view and the picture, in (0, 1].
    """

    direct_m: float = 1.0
    lookahead_m: float = 1.0
    trust: float = 0.7


class Guide:
    """Turns one goal into a chain of subgoals. Localised by odometry alone, like the key frames themselves."""

    def __init__(self, places: Places, rules: GuideRules) -> None:
        self._places, self.rules = places, rules
        self._goal: Goal | None = None
        self._anchor: Keyframe | None = None
        self.way_xy: NDArray[np.float64] | None = None

    @property
    def anchored(self) -> bool:
        """Whether memory knows where the goal is."""
        return self._anchor is not None

    def begin(self, goal: Goal, similar: tuple[Keyframe, float] | None, present_difference: float | None) -> None:
        """Take a goal. For a picture, ``similar`` is the most similar key frame and its difference to the picture."""
        self._goal, self.way_xy, self._anchor = goal, None, None
        if goal.pose_odom_xyyaw is not None:
            self._anchor = self._places.keyframes.nearest_pose(goal.pose_odom_xyyaw)
        elif similar is not None:
            frame, difference = similar
            if present_difference is None or difference < self.rules.trust * present_difference:
                self._anchor = frame

    def target(self, pose_odom_xyyaw: NDArray[np.float64]) -> tuple[Goal, bool]:
        """Return what to plan for from this pose (3,), and whether it is the goal itself.

        Raises:
            RuntimeError: before :meth:`begin`.
        """
        goal, anchor = self._goal, self._anchor
        if goal is None:
            raise RuntimeError("begin was not called")
        self.way_xy = None
        if anchor is None:
            return goal, True
        end = goal.pose_odom_xyyaw if goal.pose_odom_xyyaw is not None else anchor.pose_odom_xyyaw
        placed = goal if goal.pose_odom_xyyaw is not None else replace(goal, pose_odom_xyyaw=end)
        if np.hypot(*(end[:2] - pose_odom_xyyaw[:2])) <= self.rules.direct_m:
            return placed, True
        way = self._places.way(pose_odom_xyyaw, anchor)
        if way is None:
            return placed, True
        self.way_xy = np.vstack([pose_odom_xyyaw[None, :2], way, end[None, :2]])
        return Goal(pose_odom_xyyaw=point_along(self.way_xy, self.rules.lookahead_m)), False


def point_along(way_xy: NDArray[np.float64], distance_m: float) -> NDArray[np.float64]:
    """Return the pose (3,) on a polyline (N, 2) at ``distance_m`` from its start, heading along it."""
    steps_m = np.hypot(*np.diff(way_xy, axis=0).T)
    keep = np.concatenate([[True], steps_m > 1e-6])
    way = way_xy[keep]
    if len(way) < 2:
        return np.array([*way[0], 0.0])
    along_m = np.concatenate([[0.0], np.cumsum(steps_m[keep[1:]])])
    at_m = min(distance_m, along_m[-1])
    segment = min(int(np.searchsorted(along_m, at_m, side="right")) - 1, len(way) - 2)
    direction = way[segment + 1] - way[segment]
    fraction = (at_m - along_m[segment]) / (along_m[segment + 1] - along_m[segment])
    x, y = way[segment] + fraction * direction
    return np.array([x, y, float(np.arctan2(direction[1], direction[0]))])
