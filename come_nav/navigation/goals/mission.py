"""What the robot is to reach, how far it has come, and when it has arrived or must give up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Goal, Plan, PlanStatus

ON_THE_WAY = "on the way"
SEARCHING = "looking in memory for where the image was taken"
EXPLORING = "exploring"
DOUBTED = "the view is that of the image, but memory does not recognise the image here"


class MissionState(str, Enum):
    """Where a mission stands. FAILED carries a code in the mission's ``code``."""

    IDLE = "IDLE"
    ACTIVE = "ACTIVE"
    REACHED = "REACHED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class ArrivalSettings:
    """When a goal counts as reached or missed.

    Attributes:
        tolerance_m: a goal whose pose is known is reached within this distance; another image when the best path is
            shorter than this.
        tolerance_rad: and within this turn.
        difference: and such an image when the view differs from it by less than this (1 - the cosine of the latents;
            unrelated views of a trained model differ by 0.6 to 1).
        confirmations: times in a row that an image's best path must be that short.
        max_failures: plans in a row that are not OK before the mission fails.
        time_limit_s: from goal to failure, on the clock of the stamps.
    """

    tolerance_m: float = 0.25
    tolerance_rad: float = 0.35
    difference: float = 0.6
    confirmations: int = 2
    max_failures: int = 20
    time_limit_s: float = 120.0


class Mission:
    """One goal from its arrival to its end.

    Attributes:
        roaming: whether the robot explores instead, until it is told otherwise; there is no goal then.
    """

    def __init__(self, rules: ArrivalSettings) -> None:
        self.rules = rules
        self.goal: Goal | None = None
        self.roaming = False
        self.state, self.code, self.message = MissionState.IDLE, "", "no goal"
        self._started_s: float | None = None
        self._near = self._failures = self.reopened = 0

    @property
    def active(self) -> bool:
        """Whether there is something left to do."""
        return self.state is MissionState.ACTIVE

    def begin(self, goal: Goal | None) -> None:
        """Take a new goal, or (None) explore; the goal before is dropped."""
        self.goal, self.roaming = goal, goal is None
        self.state, self.code, self.message = MissionState.ACTIVE, "", EXPLORING if goal is None else ON_THE_WAY
        self._started_s = None
        self._near = self._failures = self.reopened = 0

    def doing(self, what: str) -> None:
        """Say what the robot does instead of driving there; plans that failed before do not count any more."""
        if self.active:
            self.message, self._failures = what, 0

    @property
    def failing(self) -> bool:
        """Whether it failed, or the newest plan did."""
        calm = (ON_THE_WAY, SEARCHING, EXPLORING)
        return self.state is MissionState.FAILED or (self.active and self.message not in calm)

    def found(self, goal: Goal) -> None:
        """Know more of the goal than when the mission began, e.g. where an image was taken."""
        if self.active:
            self.goal, self.message = goal, ON_THE_WAY

    def reopen(self, goal: Goal | None, most: int) -> None:
        """Take back that it was reached: memory knows meanwhile that the image was taken elsewhere (``goal``).

        None where memory does not know the image here either: the goal stays as it is, and ``most`` times is a failure.
        """
        if self.state is MissionState.REACHED:
            self._near = 0
            self.reopened += 1
            if goal is None and self.reopened >= most:
                self._end(MissionState.FAILED, "NOT_CONFIRMED", DOUBTED)
                return
            self.goal = self.goal if goal is None else goal
            self.state, self.message = MissionState.ACTIVE, ON_THE_WAY

    def confirm(self, left_xyyaw: NDArray[np.float64]) -> None:
        """Say that it is reached indeed: the goal is (3,) away, as its image tells."""
        if self.state is MissionState.REACHED:
            away_m, turn_rad = float(np.hypot(*left_xyyaw[:2])), float(abs(left_xyyaw[2]))
            self.message = f"goal reached; its image was taken {away_m:.2f} m and {turn_rad:.2f} rad from here"

    def fail(self, code: str, why: str) -> None:
        """Give the goal up."""
        if self.active:
            self._end(MissionState.FAILED, code, why)

    def at_goal(self, pose_odom_xyyaw: NDArray[np.float64], goal_odom_xyyaw: NDArray[np.float64]) -> bool:
        """Whether a robot at one pose (3,) is at a goal at the other."""
        return self._within(se2.relative(pose_odom_xyyaw, goal_odom_xyyaw))

    def cancel(self, why: str = "cancelled") -> None:
        """Drop the goal."""
        if self.active:
            self._end(MissionState.CANCELLED, "CANCELLED", why)

    def evaluate(
        self,
        plan: Plan,
        pose_odom_xyyaw: NDArray[np.float64],
        difference: float | None = None,
        final: bool = True,
    ) -> MissionState:
        """Take the newest plan, where the robot is and how its view differs from the goal's; return the state.

        A plan that is not ``final`` leads to a subgoal: that it is short tells nothing about an image.
        """
        if not self.active or (self.goal is None and not self.roaming):
            return self.state
        if plan.status is not PlanStatus.OK:
            self._failures += 1
            self.message = f"{plan.status.value}: {plan.message}"
            if self._failures >= self.rules.max_failures:
                self._end(MissionState.FAILED, plan.status.value, plan.message)
            return self.state
        if (
            self._started_s is None or plan.stamp_s < self._started_s
        ):  # a plan without a frame has no stamp to count from
            self._started_s = plan.stamp_s
        self._failures = 0
        if self.goal is None:
            self.message = EXPLORING
            return self.state
        self.message = ON_THE_WAY
        self._near = self._near + 1 if self._arrives(plan, pose_odom_xyyaw, difference, final) else 0
        needed = self.rules.confirmations if self.goal.pose_odom_xyyaw is None else 1
        if self._near >= needed:
            self._end(MissionState.REACHED, "", "goal reached")
        elif plan.stamp_s - self._started_s > self.rules.time_limit_s:
            self._end(MissionState.FAILED, "TIME_LIMIT", f"not reached within {self.rules.time_limit_s:g} s")
        return self.state

    def _arrives(self, plan: Plan, pose_odom_xyyaw: NDArray[np.float64], difference: float | None, final: bool) -> bool:
        goal = self.goal
        if goal is not None and goal.pose_odom_xyyaw is not None:
            return self.at_goal(pose_odom_xyyaw, goal.pose_odom_xyyaw)
        if not final or (difference is not None and difference > self.rules.difference):
            return False
        return self._within(plan.poses_xyyaw[-1])

    def _within(self, left: NDArray[np.float64]) -> bool:
        return bool(np.hypot(*left[:2]) <= self.rules.tolerance_m and abs(left[2]) <= self.rules.tolerance_rad)

    def _end(self, state: MissionState, code: str, message: str) -> None:
        self.state, self.code, self.message = state, code, message
