"""What is asked of a navigator, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import Goal, ImageCamera, Plan, PlanStatus
from come_nav.memory.keyframes import Keyframe, Keyframes
from come_nav.navigation.goals.mission import MissionState
from come_nav.navigation.goals.recovery import Activity


@dataclass(frozen=True)
class GoalRequest:
    """Where to go: exactly one of an image (which may have a pose as well), a pose, a time, a place or anywhere.

    Attributes:
        image_rgb: (H, W, 3) uint8: where this is seen.
        camera: that took the image; see :class:`come_nav.core.types.Goal`.
        pose_odom_xyyaw: (3,) there.
        time_s: where the robot was then, on the clock of the stamps.
        place_odom_xyyaw: (3,): the key frame nearest to it.
        pose_now: tells ``pose_odom_xyyaw`` anew at each step, for a pose of another frame than odom; None = where that
            is not known now.
        explore: anywhere, until another goal comes or the mission is cancelled.
    """

    image_rgb: NDArray[np.uint8] | None = None
    pose_odom_xyyaw: NDArray[np.float64] | None = None
    time_s: float | None = None
    place_odom_xyyaw: NDArray[np.float64] | None = None
    pose_now: Callable[[], NDArray[np.float64] | None] | None = None
    camera: ImageCamera = None
    explore: bool = False

    def goal(self, keyframes: Keyframes) -> Goal | None:
        """Return the goal, None to explore; a time or a place becomes the key frame there, with its image and pose.

        Raises:
            DataError: where nothing is asked for, or no place is remembered yet.
        """
        if self.explore:
            return None
        if self.time_s is not None:
            return _remembered(keyframes.at_time(self.time_s))
        if self.place_odom_xyyaw is not None:
            return _remembered(keyframes.nearest_pose(self.place_odom_xyyaw))
        return Goal(self.image_rgb, self.pose_odom_xyyaw, self.camera)


def _remembered(frame: Keyframe | None) -> Goal:
    if frame is None:
        raise DataError("no place is remembered yet; let the robot drive around first")
    return Goal(image_rgb=frame.rgb, pose_odom_xyyaw=frame.pose_odom_xyyaw)


@dataclass(frozen=True)
class Progress:
    """Where the robot is on the way to its goal.

    Attributes:
        stamp_s: of the pose.
        pose_odom_xyyaw: (3,) of base_link in odom.
        message: on the way, or why not.
        difference: between view and goal image, 1 - the cosine of their latents; NaN = unknown.
        distance_left_m: along the way through remembered places; NaN = unknown.
        state: of the mission.
        code: why it failed.
        activity: what the robot is doing for it.
    """

    stamp_s: float
    pose_odom_xyyaw: NDArray[np.float64]
    message: str
    difference: float = float("nan")
    distance_left_m: float = float("nan")
    state: MissionState = MissionState.IDLE
    code: str = ""
    activity: Activity = Activity.IDLE


@dataclass(frozen=True)
class Step:
    """What to do now.

    Attributes:
        state: of the mission after this step.
        plan: made in this step, or None: nothing to do, or go on with the plan before.
        target: what the plan leads to: the goal, or a subgoal on the way.
        retreating: whether the robot backs off, or turns to look around; ask again soon.
        way_xy: (N, 2) remembered way in odom that is followed, or None.
        duration_s: time that the search for the plan took.
    """

    state: MissionState
    plan: Plan | None = None
    target: Goal | None = None
    retreating: bool = False
    way_xy: NDArray[np.float64] | None = None
    duration_s: float = 0.0

    @property
    def drive(self) -> Plan | None:
        """What to hand to whoever follows paths: a plan that is not OK stands for standing still; None = go on."""
        if self.plan is None or self.state is MissionState.ACTIVE:
            return self.plan
        return replace(self.plan, status=PlanStatus.GOAL_MISSING)
