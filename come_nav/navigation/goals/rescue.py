"""Gets a robot that is blocked or stuck further, or ends its mission with the reason."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import Plan
from come_nav.navigation.goals.guide import Guide
from come_nav.navigation.goals.mission import SEARCHING, Mission
from come_nav.navigation.goals.obstacles import ObstacleMap
from come_nav.navigation.goals.recovery import Activity, Manoeuvre, Recovery, RecoverySettings, turning
from come_nav.navigation.goals.retreat import Retreat
from come_nav.navigation.goals.routes import Routes
from come_nav.planning.grid_route import Known, RouteStatus, occupied

Pose = NDArray[np.float64]
IN_VIEW_M = 2.0  # what stands at a goal this near is seen
BACK_M = 0.25  # must be free behind a robot that backs off
LOOKS = 5  # steps in a row that must see it there: people walk on
BACKING_OFF = "backing off: it gets no further"
TURNING = "turning to look around: it gets no further"
OTHER_WAY = "taking another way: it gets no further"


class Rescue:
    """Watches one mission; :meth:`manoeuvre` goes before plans, :meth:`check` after them."""

    def __init__(self, mission: Mission, guide: Guide, obstacles: ObstacleMap, routes: Routes) -> None:
        self._mission, self._guide, self._obstacles, self._routes = mission, guide, obstacles, routes
        self._recovery, self._retreat, self._turn = Recovery(), Retreat(), Manoeuvre()
        self._turns = False
        self._occupied = 0

    @property
    def rules(self) -> RecoverySettings:
        """When a robot gets no further."""
        return self._recovery.rules

    @rules.setter
    def rules(self, rules: RecoverySettings) -> None:
        self._recovery.rules = rules

    @property
    def activity(self) -> Activity:
        """What the robot is doing for its mission."""
        if not self._mission.active:
            return Activity.IDLE
        return Activity.SEARCHING if self._mission.message == SEARCHING else self._recovery.activity

    def begin(self) -> None:
        """A new mission begins."""
        self._recovery.begin()
        self._retreat.cancel()
        self._turn.cancel()
        self._turns, self._occupied = False, 0

    def blocked(self, stamp_s: float, blocked_odom_xyyaw: Pose) -> None:
        """Back off next from what a robot at this pose (3,) faces."""
        self._retreat.request(stamp_s, blocked_odom_xyyaw)

    def manoeuvre(self, now_s: float, here_odom_xyyaw: Pose) -> tuple[bool, Plan | None]:
        """Return whether the robot is busy getting free, and the plan that it begins with, if it does now."""
        plan = self._retreat.plan(now_s, here_odom_xyyaw, self._obstacles.clear)
        if plan is not None or self._retreat.lasts(now_s, here_odom_xyyaw):
            return True, plan
        if self._turns:
            self._turns = False
            return True, self._turn.begin(turning(now_s, here_odom_xyyaw))
        return self._turn.lasts(now_s), None

    def check(self, now_s: float, here_odom_xyyaw: Pose) -> None:
        """Take where the robot is (3,) after a plan; end the mission, or decide what to try, where it is stuck."""
        goal = self._mission.goal
        if not self._mission.active:
            return
        if goal is None:
            if self._recovery.stuck(now_s, here_odom_xyyaw, None):
                self._roam_on(now_s, here_odom_xyyaw)
            return
        there = goal.pose_odom_xyyaw
        left_m = None if there is None else float(np.hypot(*(there[:2] - here_odom_xyyaw[:2])))
        if there is not None and left_m is not None and left_m <= IN_VIEW_M and self._goal_is_occupied(there):
            self._mission.fail("GOAL_OCCUPIED", "an obstacle stands at the goal, and no place near it is free")
        elif self._recovery.stuck(now_s, here_odom_xyyaw, left_m):
            self._go_on(now_s, here_odom_xyyaw, there)

    def look_around(self) -> None:
        """Turn next, where the robot may recover at all: no way on is clear."""
        if self.rules.use:
            self._turns = True
            self._mission.doing(TURNING)

    def _roam_on(self, now_s: float, here: Pose) -> None:
        """Back off and turn by turns: a robot without a goal has nothing to give up."""
        stage = self._recovery.next(here)
        back = here[:2] - BACK_M * np.array([np.cos(here[2]), np.sin(here[2])])
        if stage is Activity.BACKING_OFF and self._obstacles.clear(here[:2], back):
            self._retreat.request(now_s, here)
            self._mission.doing(BACKING_OFF)
            return
        self.look_around()
        if stage not in (Activity.BACKING_OFF, Activity.TURNING):
            self._recovery.begin()

    def _goal_is_occupied(self, there_odom_xyyaw: Pose) -> bool:
        """Whether something has stood at the goal for some steps, so that its tolerance cannot be met either."""
        own = self._obstacles.settings
        seen = Known(self._obstacles.seen_odom_xy, own.radius_m, own.margin_m)
        stands = own.use and self.rules.use and occupied(seen, there_odom_xyyaw[:2], self._mission.rules.tolerance_m)
        self._occupied = self._occupied + 1 if stands else 0
        return self._occupied >= LOOKS

    def _go_on(self, now_s: float, here: Pose, there: Pose | None) -> None:
        stage = self._recovery.next(here)
        route = None if there is None else self._routes.route(here, there, self._mission.rules.tolerance_m)
        no_way = route is not None and route.status is not RouteStatus.OK
        if stage is Activity.BACKING_OFF:
            back = here[:2] - BACK_M * np.array([np.cos(here[2]), np.sin(here[2])])
            if no_way or not self._obstacles.clear(here[:2], back):  # what was seen once may be gone: look first
                stage = self._recovery.next(here)
            else:
                self._retreat.request(now_s, here)
                self._mission.doing(BACKING_OFF)
        if stage is Activity.TURNING:
            self._turns = True
            self._mission.doing(TURNING)
        if stage is Activity.OTHER_WAY and route is not None and not no_way:
            self._guide.follow(route.path_xyyaw[:, :2])
            self._mission.doing(OTHER_WAY)
        elif stage in (None, Activity.OTHER_WAY):
            self._give_up(None if route is None or not no_way else route.status, "" if route is None else route.message)

    def _give_up(self, status: RouteStatus | None, message: str) -> None:
        if status is not None:
            code = "NO_ROUTE" if status is RouteStatus.TOO_FAR else status.value
            self._mission.fail(code, f"{message}; the robot has looked around")
        else:
            self._mission.fail("NO_PROGRESS", "the robot gets no nearer; it has backed off, looked around and tried")
