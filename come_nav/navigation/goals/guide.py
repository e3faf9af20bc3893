"""The next thing to head for: the goal itself when it is near or unknown, else a point on the way through memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Goal
from come_nav.navigation.goals.places import Places
from come_nav.navigation.goals.settings import GuideSettings

Clear = Callable[[NDArray[np.float64], NDArray[np.float64]], bool]
ASTRAY_M = 1.0
STEP_M = 0.1
BESIDE_M = 0.3  # a place nearer than this is approached whatever lies between
_BLIND = Goal(pose_odom_xyyaw=np.zeros(3))
SHORTEST_M = 0.5  # the squared distance to a point nearer than this pulls less than obstacles push (at most 1 per m)


class Guide:
    """Turns one goal into a chain of subgoals. Localised by odometry, like the key frames themselves.

    Attributes:
        way_xy: the remembered way (N, 2) that is followed, in odom, or None.
    """

    def __init__(self, places: Places, rules: GuideSettings) -> None:
        self._places, self.rules = places, rules
        self._goal: Goal | None = None
        self._place: NDArray[np.float64] | None = None
        self._near = self._other = False
        self._rest_xy: NDArray[np.float64] | None = None  # of the way; kept, so that the robot does not waver
        self.way_xy: NDArray[np.float64] | None = None

    @property
    def anchored(self) -> bool:
        """Whether memory knows where the goal is, at least roughly."""
        return self._place is not None

    def begin(self, goal: Goal | None, rough_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Take a goal, None without one. From ``rough_xyyaw`` (3,) an image without a pose should be in view."""
        self._goal, self.way_xy, self._rest_xy, self._near, self._other = goal, None, None, False, False
        self._place = rough_xyyaw if goal is None or goal.pose_odom_xyyaw is None else goal.pose_odom_xyyaw

    def follow(self, way_xy: NDArray[np.float64]) -> None:
        """Follow a way (N, 2) to the goal that was found otherwise, instead of a remembered one."""
        self._rest_xy, self._other = way_xy, True

    def renew(self, goal: Goal) -> None:
        """Take the same goal with another pose; the remembered way there stays, but for its end."""
        self._goal, self._place = goal, goal.pose_odom_xyyaw
        if self._rest_xy is not None and self._place is not None:
            self._rest_xy = np.vstack([self._rest_xy[:-1], self._place[None, :2]])

    def move(self, motion_xyyaw: NDArray[np.float64]) -> None:
        """Move all that is headed for by a motion (3,) of odom, because odom was corrected."""
        if self._goal is not None and self._goal.pose_odom_xyyaw is not None:
            self._goal = replace(self._goal, pose_odom_xyyaw=se2.compose(motion_xyyaw, self._goal.pose_odom_xyyaw))
        if self._place is not None:
            self._place = se2.compose(motion_xyyaw, self._place)
        self._rest_xy = None if self._rest_xy is None else se2.transform_points(motion_xyyaw, self._rest_xy)

    def target(self, pose_odom_xyyaw: NDArray[np.float64], clear: Clear = lambda start, end: True) -> tuple[Goal, bool]:
        """Return what to plan for from this pose (3,), and whether it is the goal itself.

        ``clear`` tells whether the robot fits along a straight line between two points (2,) in odom.

        Raises:
            RuntimeError: before :meth:`begin`.
        """
        goal, place = self._goal, self._place
        if goal is None:
            raise RuntimeError("begin was not called")
        self.way_xy = None
        if place is None:
            return goal, True
        here = pose_odom_xyyaw[:2]
        away_m = float(np.hypot(*(place[:2] - here)))
        # Near a rough place the image alone leads, and may lead away from it again.
        self._near = away_m <= self.rules.direct_m * (2.0 if self._near else 1.0)
        rough = goal.pose_odom_xyyaw is None
        if self._near and rough:
            return goal, True
        there = replace(goal if rough or self.rules.approach_by_view else _BLIND, pose_odom_xyyaw=place)
        if self._near and (away_m <= BESIDE_M or clear(here, place[:2])):
            return there, True
        if not self.rules.use_ways and not self._other:
            self._rest_xy = None
        if self._rest_xy is not None:
            self._rest_xy = ahead_on(self._rest_xy, here)
        if self._rest_xy is None or np.hypot(*(self._rest_xy[0] - here)) > ASTRAY_M:
            way = self._places.way(pose_odom_xyyaw, place) if self.rules.use_ways else None
            self._rest_xy = None if way is None else ahead_on(np.vstack([way, place[None, :2]]), here)
            self._other = False
        if self._rest_xy is None:
            return there, True
        self.way_xy = np.vstack([here[None], self._rest_xy])
        return Goal(pose_odom_xyyaw=pursued(self.way_xy, self.rules.lookahead_m, clear)), False


def ahead_on(way_xy: NDArray[np.float64], position_xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the part (M, 2) of a polyline (N, 2), both of at least two points, ahead of its point nearest to (2,)."""
    steps = np.diff(way_xy, axis=0)
    squared = np.maximum((steps**2).sum(axis=1), 1e-12)
    along = np.clip(((position_xy - way_xy[:-1]) * steps).sum(axis=1) / squared, 0.0, 1.0)
    feet = way_xy[:-1] + along[:, None] * steps
    nearest = int(np.argmin(np.hypot(*(feet - position_xy).T)))
    return np.vstack([feet[nearest][None], way_xy[nearest + 1 :]])


def pursued(way_xy: NDArray[np.float64], lookahead_m: float, clear: Clear) -> NDArray[np.float64]:
    """Return the pose (3,) on a way (N, 2) that a robot at its start should head for, looking along the way.

    That is the first point that lies ``lookahead_m`` away (pure pursuit, Coulter 1992), or one before it, so that the
    robot gets there in a straight line; those nearer than ``SHORTEST_M`` do not count.
    """
    points = resampled(way_xy, STEP_M)
    away_m = np.hypot(*(points - way_xy[0]).T)
    beyond = np.flatnonzero(away_m >= lookahead_m)
    last = int(beyond[0]) if len(beyond) else len(points) - 1
    reached = (index for index in range(last, 0, -1) if away_m[index] >= SHORTEST_M)
    chosen = next(
        (index for index in reached if clear(way_xy[0], points[index])), min(last, round(SHORTEST_M / STEP_M))
    )
    direction = points[min(chosen + 1, len(points) - 1)] - points[max(chosen - 1, 0)]
    return np.array([*points[chosen], float(np.arctan2(direction[1], direction[0]))])


def resampled(way_xy: NDArray[np.float64], step_m: float) -> NDArray[np.float64]:
    """Return points (M, 2) every ``step_m`` along a polyline (N, 2), both ends included."""
    along_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(way_xy, axis=0).T))])
    at_m = np.linspace(0.0, along_m[-1], max(2, int(np.ceil(along_m[-1] / step_m)) + 1))
    return np.stack([np.interp(at_m, along_m, way_xy[:, axis]) for axis in (0, 1)], axis=1)
