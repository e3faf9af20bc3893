"""Notices that a robot does not move although it is told to: it touches something, or its wheels are stuck."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range

LEAST_M = 0.05  # commanded less than this, a robot with some friction may well stand still
SHARE = 0.2  # of the commanded distance: whoever drives less stands; what lags or drives a tight turn does more


class StallDetector:
    """Compares the distance that was commanded over the last seconds with the one that odometry has seen.

    Turning on the spot is not looked at: a round robot that touches something may turn all the same.

    Attributes:
        bearing_rad: where the last stall was told to drive to, in the robot's frame: 0 ahead, pi back.
    """

    def __init__(self, window_s: float = 1.0) -> None:
        """Look at the last ``window_s`` seconds, > 0."""
        self._window_s = check_range("StallDetector.window_s", window_s, 0.0, open_low=True)
        self.bearing_rad = 0.0
        self._past: deque[tuple[float, ...]] = deque()  # stamp, commanded vx, vy from then on, x, y

    def clear(self) -> None:
        """Forget the past, e.g. when a new plan begins."""
        self._past.clear()

    def update(self, stamp_s: float, v_mps: float, pose_odom_xyyaw: NDArray[np.float64], vy_mps: float = 0.0) -> int:
        """Take the speed commanded from now on and the pose (3,) now; return 0, or the direction (1 or -1) of a stall.

        It is -1 where the robot was told to drive backwards; ``bearing_rad`` says it exactly. A clock that jumps back
        or by more than the window begins anew.
        """
        past, window_s = self._past, self._window_s
        if past and not 0.0 <= stamp_s - past[-1][0] <= window_s:
            past.clear()
        past.append((stamp_s, v_mps, vy_mps, float(pose_odom_xyyaw[0]), float(pose_odom_xyyaw[1])))
        while len(past) > 1 and past[1][0] <= stamp_s - window_s:
            past.popleft()
        if stamp_s - past[0][0] < window_s:
            return 0
        entries = np.array(past)
        x_m, y_m = (entries[:-1, 1:3] * np.diff(entries[:, 0])[:, None]).sum(axis=0)
        commanded_m = float(np.hypot(x_m, y_m))
        driven_m = float(np.hypot(*(entries[-1, 3:] - entries[0, 3:])))
        if commanded_m < LEAST_M or driven_m >= SHARE * commanded_m:
            return 0
        self.bearing_rad = float(np.arctan2(y_m, x_m))
        return -1 if x_m < 0 else 1
