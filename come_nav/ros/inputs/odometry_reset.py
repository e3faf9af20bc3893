"""Notices that odometry began anew: a pose that no robot could have driven to since the message before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Odometry

FASTEST_MPS, FASTEST_RADPS = 5.0, 8.0
LEAST_M, LEAST_RAD = 0.3, 0.5  # jumps of filters and of loop closures
METRES_PER_RAD = 1.0  # what a turn counts where two poses are compared
MOST_RESETS = 50  # that nobody noticed
LONGEST_GAP_S = 1.0  # of silence, over which where the robot went can be told


@dataclass(frozen=True)
class OdometryReset:
    """A jump.

    Attributes:
        T_before_after_xyyaw: (3,) where the new odom lies in the one before; None where odometry was silent too long
            to tell, so that the robot may have been carried.
        jump_m: how far the pose jumped.
        jump_rad: and how far it turned.
    """

    T_before_after_xyyaw: NDArray[np.float64] | None
    jump_m: float
    jump_rad: float

    @property
    def consequence(self) -> str:
        """What becomes of memory."""
        if self.T_before_after_xyyaw is None:
            return "where the robot went meanwhile is not known: memory begins anew"
        return "memory and goal are moved to the new odom"

    def __str__(self) -> str:
        return f"odometry jumped by {self.jump_m:.2f} m and {self.jump_rad:.2f} rad: it began anew"


def forgets(request: str | OdometryReset) -> bool:
    """Whether all that is remembered goes: by a request "reset", or as the robot may have been carried."""
    return request == "reset" if isinstance(request, str) else request.T_before_after_xyyaw is None


def motion_of_odom(request: str | OdometryReset) -> NDArray[np.float64] | None:
    """Return where the new odom lies in the one before (3,); None where a request tells of none."""
    return None if isinstance(request, str) else request.T_before_after_xyyaw


class ResetDetector:
    """Looks at odometry in the order of its stamps."""

    def __init__(self) -> None:
        self._before: Odometry | None = None

    def update(self, odometry: Odometry) -> OdometryReset | None:
        """Return what is known of a jump since the message before, None without one. A clock that jumps is none."""
        before, self._before = self._before, odometry
        if before is None or odometry.stamp_s <= before.stamp_s:
            return None
        gap_s = odometry.stamp_s - before.stamp_s
        driven = se2.integrate_twist(
            np.asarray(before.v_mps or 0.0), np.asarray(before.w_radps or 0.0), min(gap_s, LONGEST_GAP_S)
        )
        expected = se2.compose(before.pose_xyyaw, driven)
        jump = se2.relative(expected, odometry.pose_xyyaw)
        jump_m, jump_rad = float(np.hypot(jump[0], jump[1])), float(abs(jump[2]))
        if jump_m <= LEAST_M + FASTEST_MPS * gap_s and jump_rad <= LEAST_RAD + FASTEST_RADPS * gap_s:
            return None
        T = se2.compose(expected, se2.inverse(odometry.pose_xyyaw)) if gap_s <= LONGEST_GAP_S else None
        return OdometryReset(T, jump_m, jump_rad)


class ResetAwareness:
    """Whether who tells where odom lies in another frame has noticed that odometry began anew.

    A localiser hears of it with its next correction at best, and until then tells where the odom before lies.
    """

    def __init__(self) -> None:
        self._told: NDArray[np.float64] | None = None
        self._known: list[NDArray[np.float64]] = []  # what may still be told, and last what will be; empty: no reset

    def rebase(self, T_before_after_xyyaw: NDArray[np.float64]) -> None:
        """Take it that odometry began anew: (3,) is where the new odom lies in the one before."""
        if self._told is not None:
            known = self._known or [self._told]
            self._known = [*known, se2.compose(known[-1], T_before_after_xyyaw)][-MOST_RESETS:]

    def believes(self, T_frame_odom_xyyaw: NDArray[np.float64]) -> bool:
        """Return whether what is told now (3,) is about the present odom."""
        if self._known:
            apart_m = [_apart_m(known, T_frame_odom_xyyaw) for known in self._known]
            if int(np.argmin(apart_m)) < len(apart_m) - 1:
                return False
            self._known = []
        self._told = np.array(T_frame_odom_xyyaw, np.float64)
        return True


def _apart_m(a_xyyaw: NDArray[np.float64], b_xyyaw: NDArray[np.float64]) -> float:
    away = se2.relative(a_xyyaw, b_xyyaw)
    return float(np.hypot(away[0], away[1]) + METRES_PER_RAD * abs(away[2]))
