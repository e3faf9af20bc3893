"""What a robot does that gets no further: it backs off, turns to look around, takes another way, and then gives up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.geometry import se2
from come_nav.core.types import Plan, PlanStatus

Pose = NDArray[np.float64]
TURN_RAD, TURN_RADPS, STEP_S = np.pi, 0.8, 0.25
SETTLE_S = 0.5  # the controller is a little behind
FREE_M = 1.0  # so much nearer than where something was tried, it has helped
LEAST_PLANS = 5  # a robot that waits for its searches has not been told to move, nor one that is blind


class Activity(str, Enum):
    """What a robot on a mission is doing, for behaviour trees and people."""

    IDLE = "IDLE"
    SEARCHING = "SEARCHING"  # looks in memory for where an image was taken
    DRIVING = "DRIVING"
    BACKING_OFF = "BACKING_OFF"
    TURNING = "TURNING"
    OTHER_WAY = "OTHER_WAY"  # drives round what it could not pass


STAGES = (Activity.BACKING_OFF, Activity.TURNING, Activity.OTHER_WAY)


@dataclass(frozen=True)
class RecoverySettings:
    """When a robot gets no further.

    Attributes:
        use: whether to recover, and to give up, at all.
        patience_s: no movement and no nearer to the goal for so long, s, > 0.
        moved_m: what counts as movement, m, > 0.
        moved_rad: or as a turn, rad, > 0.
        nearer_s: or no nearer to the goal for so long, however much it moves, s, > 0.
        nearer_m: what counts as nearer, m, > 0.
    """

    use: bool = True
    patience_s: float = 10.0
    moved_m: float = 0.3
    moved_rad: float = 0.7
    nearer_s: float = 60.0
    nearer_m: float = 0.2

    def __post_init__(self) -> None:
        for name in ("patience_s", "moved_m", "moved_rad", "nearer_s", "nearer_m"):
            check_range(f"recovery.{name}", getattr(self, name), 0.0, open_low=True)


class Recovery:
    """Notices that a mission gets no further, and what is left to try. Times are on the clock of the stamps.

    From one plan to the next at most a quarter of each patience counts, and nothing where the clock jumps back: a robot
    is stuck after ``LEAST_PLANS`` plans at the earliest. Sensors that were silent, or a clock that jumped ahead, do not
    make it so.

    Attributes:
        rules: may be replaced at any time.
        activity: the stage that was tried last, DRIVING before the first and after progress.
    """

    def __init__(self, rules: RecoverySettings | None = None) -> None:
        self.rules = rules or RecoverySettings()
        self.begin()

    def begin(self) -> None:
        """A new mission has all stages before it."""
        self.activity = Activity.DRIVING
        self._stages: Iterator[Activity] = iter(STAGES)
        self._seen_s: float | None = None  # when it was last looked at
        self._from: Pose | None = None  # where it last moved enough
        self._nearest_m, self._stood_s, self._wavered_s = float("inf"), 0.0, 0.0  # times that count since then
        self._tried_at_m = float("-inf")

    def stuck(self, now_s: float, pose_odom_xyyaw: Pose, left_m: float | None) -> bool:
        """Take where the robot is (3,) and how far it has to go, None where unknown; return whether it is stuck."""
        rules = self.rules
        self._count(now_s)
        if self._from is None:
            self._from, self._nearest_m = pose_odom_xyyaw, np.inf if left_m is None else left_m
            return False
        moved = se2.relative(self._from, pose_odom_xyyaw)
        nearer = left_m is not None and left_m < self._nearest_m - rules.nearer_m
        if nearer and left_m is not None:
            self._nearest_m, self._wavered_s = left_m, 0.0
        if nearer or np.hypot(moved[0], moved[1]) > rules.moved_m or abs(moved[2]) > rules.moved_rad:
            self._from, self._stood_s = pose_odom_xyyaw, 0.0
        if left_m is not None and left_m < self._tried_at_m - FREE_M:
            self._stages, self._tried_at_m = iter(STAGES), float("-inf")  # it got free: all may be tried again
        if nearer and self.activity is not Activity.OTHER_WAY:
            self.activity = Activity.DRIVING
        if not rules.use:
            return False
        return self._stood_s > rules.patience_s or (left_m is not None and self._wavered_s > rules.nearer_s)

    def next(self, pose_odom_xyyaw: Pose) -> Activity | None:
        """Return the next thing to try from a pose (3,), None where everything was tried."""
        stage = next(self._stages, None)
        if stage is not None:
            self.activity = stage
        self._from, self._stood_s, self._wavered_s = pose_odom_xyyaw, 0.0, 0.0
        self._tried_at_m = self._nearest_m
        return stage

    def _count(self, now_s: float) -> None:
        """Let the time since it was last looked at count."""
        since_s = 0.0 if self._seen_s is None else max(now_s - self._seen_s, 0.0)
        self._stood_s += min(since_s, self.rules.patience_s / (LEAST_PLANS - 1))
        self._wavered_s += min(since_s, self.rules.nearer_s / (LEAST_PLANS - 1))
        self._seen_s = now_s


class Manoeuvre:
    """A plan that is driven to its end before anything else is planned."""

    def __init__(self) -> None:
        self._from_s = self._until_s = 0.0

    def begin(self, plan: Plan) -> Plan:
        """Take the plan; return it."""
        self._from_s = plan.stamp_s
        self._until_s = plan.stamp_s + len(plan.poses_xyyaw) * plan.dt_s + SETTLE_S
        return plan

    def cancel(self) -> None:
        """Plan as always again."""
        self._until_s = 0.0

    def lasts(self, now_s: float) -> bool:
        """Whether it is still being driven; a clock that jumped back ends it."""
        return self._from_s - 1.0 <= now_s < self._until_s


def turning(now_s: float, pose_odom_xyyaw: Pose) -> Plan:
    """Return a plan that turns half round on the spot: what stands behind may lead out, and the map grows."""
    steps = int(np.ceil(TURN_RAD / (TURN_RADPS * STEP_S)))
    poses = np.column_stack([np.zeros((steps, 2)), se2.wrap_angle(np.linspace(0.0, TURN_RAD, steps + 1)[1:])])
    return Plan(PlanStatus.OK, now_s, STEP_S, poses, pose_odom_xyyaw, 0.0, "turning to look around")
