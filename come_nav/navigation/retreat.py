"""Away from what blocked the robot, before anything else is planned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import Plan, PlanStatus
from come_nav.navigation.guide import Clear

DISTANCE_M = 0.25
SPEED_MPS = 0.12
STEP_S = 0.25
PATIENCE_S = 1.0  # for the end of the way; the controller settles meanwhile


class Retreat:
    """A straight way back from where the robot was blocked. It has just driven there, so that it is probably free."""

    def __init__(self) -> None:
        self._blocked: tuple[float, NDArray[np.float64]] | None = None
        self._end_odom_xy: NDArray[np.float64] = np.zeros(2)
        self._from_s = self._until_s = 0.0

    def request(self, stamp_s: float, blocked_odom_xyyaw: NDArray[np.float64]) -> None:
        """Take when, and the pose (3,) of a robot that faces what blocks it (whichever way its own front points)."""
        self._blocked = stamp_s, blocked_odom_xyyaw

    def cancel(self) -> None:
        """Plan as always again."""
        self._blocked, self._from_s, self._until_s = None, 0.0, 0.0

    def plan(self, now_s: float, pose_odom_xyyaw: NDArray[np.float64], clear: Clear) -> Plan | None:
        """Return the way back from a pose (3,), once for each request; None without one or where it is not free."""
        request, self._blocked = self._blocked, None
        if request is None:
            return None
        blocked = request[1]
        back = np.array([np.cos(blocked[2]), np.sin(blocked[2])])
        self._end_odom_xy = pose_odom_xyyaw[:2] - DISTANCE_M * back
        if not clear(pose_odom_xyyaw[:2], self._end_odom_xy):
            return None
        forwards = float(np.cos(blocked[2] - pose_odom_xyyaw[2])) > 0.0
        steps = int(np.ceil(DISTANCE_M / (SPEED_MPS * STEP_S)))
        along_m = np.linspace(0.0, DISTANCE_M, steps + 1)[1:] * (-1.0 if forwards else 1.0)
        poses = np.column_stack([along_m, np.zeros((steps, 2))])
        stamp_s = max(now_s, request[0])  # the clocks of two nodes may be a tick apart, and older plans do not count
        self._from_s, self._until_s = now_s, stamp_s + steps * STEP_S + PATIENCE_S
        return Plan(PlanStatus.OK, stamp_s, STEP_S, poses, pose_odom_xyyaw, 0.0, "backing off from what is in the way")

    def lasts(self, now_s: float, pose_odom_xyyaw: NDArray[np.float64]) -> bool:
        """Whether the way back is still being driven; a clock that jumped back ends it."""
        away_m = float(np.hypot(*(pose_odom_xyyaw[:2] - self._end_odom_xy)))
        return self._from_s <= now_s < self._until_s and away_m > 0.2 * DISTANCE_M
