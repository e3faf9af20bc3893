"""Odometry of the last seconds as it comes in."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import Odometry
from come_nav.data.timing.interpolation import interpolate_poses

KEEP_S = 10.0
CLOCK_JUMP_S = 1.0


class OdometryTrack:
    """Odometry of the last seconds, interpolated at any stamp in between."""

    def __init__(self, keep_s: float = KEEP_S, max_gap_s: float = 0.5) -> None:
        self._keep_s, self._max_gap_s = keep_s, max_gap_s
        self._items: deque[Odometry] = deque()

    @property
    def newest(self) -> Odometry | None:
        """The newest odometry."""
        return self._items[-1] if self._items else None

    def add(self, odometry: Odometry) -> bool:
        """Take odometry in order of stamps; return True when the clock jumped back, which forgets all before."""
        jumped = False
        if self._items and odometry.stamp_s <= self._items[-1].stamp_s:
            if self._items[-1].stamp_s - odometry.stamp_s < CLOCK_JUMP_S:
                return False
            self._items.clear()
            jumped = True
        self._items.append(odometry)
        while self._items[0].stamp_s < odometry.stamp_s - self._keep_s:
            self._items.popleft()
        return jumped

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()

    def at(self, stamp_s: float) -> Odometry | None:
        """Return odometry at ``stamp_s``, or None outside the track and inside a gap longer than allowed."""
        items = list(self._items)
        if not items or not items[0].stamp_s <= stamp_s <= items[-1].stamp_s:
            return None
        right = int(np.searchsorted([item.stamp_s for item in items], stamp_s))
        after = items[right]
        if after.stamp_s == stamp_s:
            return after
        before = items[right - 1]
        if after.stamp_s - before.stamp_s > self._max_gap_s:
            return None
        stamps_s = np.array([before.stamp_s, after.stamp_s])
        T = interpolate_poses(stamps_s, np.stack([before.T_odom_base, after.T_odom_base]), np.array([stamp_s]))[0]
        nearest = after if after.stamp_s - stamp_s < stamp_s - before.stamp_s else before
        return Odometry(stamp_s, T, nearest.v_mps, nearest.w_radps, nearest.vy_mps)

    def poses_at(self, stamps_s: NDArray[Any]) -> NDArray[np.float64] | None:
        """Return planar poses (N, 3) at stamps (N,), or None if any of them is not known."""
        found = [self.at(float(stamp_s)) for stamp_s in stamps_s]
        known = [odometry.pose_xyyaw for odometry in found if odometry is not None]
        return np.stack(known) if known and len(known) == len(found) else None
