"""A memory's map frame: poses come and go in odom, and are kept in map, whose key frames a pose graph corrects.

Every key frame has its own correction: the pose of odom in map when it was taken. What was seen then is anchored to it,
and moves when its correction changes. Where no correction was ever told, map and odom are one and no pose is touched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3

UNANCHORED = -1  # seen before the first key frame: stays where it is


class MapFrame:
    """Corrections of the key frames that one memory is anchored to.

    Corrections are told in the odom of the first key frame ("first odom"), which odometry that began anew is not.

    Attributes:
        settled: anchors below this belong to key frames of an earlier session, which nobody corrects any more.
        T_map_odom_xyyaw: planar pose (3,) of odom in map at present.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all key frames; map and odom are one."""
        self.settled = 0
        self._base: NDArray[np.float64] = np.zeros(3)
        self._told: NDArray[np.float64] = np.zeros((0, 3))
        self._T_first_odom: NDArray[np.float64] = np.zeros(3)
        self.T_map_odom_xyyaw: NDArray[np.float64] = np.zeros(3)

    @property
    def anchor(self) -> int:
        """The newest key frame, which what is seen now is anchored to."""
        return self.settled + len(self._told) - 1

    @property
    def is_odom(self) -> bool:
        """Whether map and odom are one at present."""
        return not self.T_map_odom_xyyaw.any()

    def to_map(self, pose_odom_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return poses (..., 3) of odom in map; the very same array where the two are one."""
        return se2.compose_exactly(self.T_map_odom_xyyaw, pose_odom_xyyaw)

    def to_odom(self, pose_map_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return poses (..., 3) of map in odom as it is now; the very same array where the two are one."""
        return pose_map_xyyaw if self.is_odom else se2.compose(se2.inverse(self.T_map_odom_xyyaw), pose_map_xyyaw)

    def transform_to_map(self, T_odom_base: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a transform (4, 4) of odom in map."""
        return T_odom_base if self.is_odom else se3.transform_from_xyyaw(self.T_map_odom_xyyaw) @ T_odom_base

    def update(
        self, corrections_xyyaw: NDArray[np.float64], outside_xyyaw: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64] | None:
        """Take the corrections (K, 3) of all key frames; return by what each anchor moves in map.

        Fewer than before are of other key frames: see :meth:`restart`. Where another localiser corrects,
        ``outside_xyyaw`` (3,) is where first odom lies in its map, which this map is then taken to be: what is settled
        stays.

        Returns:
            Motions (anchor + 1, 3) in map, the identity for those that stay; None where nothing moves.

        Raises:
            DataError: for corrections that are not finite.
        """
        check_shape("corrections_xyyaw", corrections_xyyaw, "K 3")
        if not np.isfinite(corrections_xyyaw).all():
            raise DataError("corrections of key frames must be finite")
        if len(corrections_xyyaw) < len(self._told):
            self.restart()
        known = len(self._told)
        told, before = np.array(corrections_xyyaw, np.float64), self._told
        base = self._base
        self._base = base if outside_xyyaw is None else np.zeros(3)
        moved = (told[:known] != before).any(axis=1) | (self._base != base).any()
        self._told = told
        if outside_xyyaw is not None:
            self.T_map_odom_xyyaw = self._of_odom(np.array(outside_xyyaw, np.float64))
        elif len(told):
            self.T_map_odom_xyyaw = self._of_odom(se2.compose_exactly(base, told[-1]))
        if not moved.any():
            return None
        motions = np.zeros((self.anchor + 1, 3))
        rows = np.flatnonzero(moved)
        old, new = se2.compose(base, before[rows]), se2.compose(self._base, told[rows])
        motions[self.settled + rows] = se2.compose(new, se2.inverse(old))
        return motions

    def settle(self, anchors: int, T_map_odom_xyyaw: NDArray[np.float64] | None = None) -> None:
        """Take it that what is kept is anchored to ``anchors`` key frames that nobody corrects any more.

        ``T_map_odom_xyyaw`` (3,) is where odom lies in the map of what is kept; where it is now when None.
        """
        now = self.T_map_odom_xyyaw if T_map_odom_xyyaw is None else np.array(T_map_odom_xyyaw, np.float64)
        told = self._of_odom(self._told[-1] if len(self._told) else np.zeros(3))
        self._base = se2.compose_exactly(now, se2.inverse(told))
        self.settled, self.T_map_odom_xyyaw = anchors, now

    def restart(self) -> None:
        """Take it that the next corrections are of other key frames: what is kept stays where it is."""
        self.settled, self._base = self.anchor + 1, self.T_map_odom_xyyaw
        self._told, self._T_first_odom = np.zeros((0, 3)), np.zeros(3)

    def rebase(self, T_before_after_xyyaw: NDArray[np.float64]) -> None:
        """Take it that odometry began anew: (3,) is where the new odom lies in the one before. What is kept stays."""
        self._T_first_odom = se2.compose(self._T_first_odom, T_before_after_xyyaw)
        self.T_map_odom_xyyaw = se2.compose(self.T_map_odom_xyyaw, T_before_after_xyyaw)

    def _of_odom(self, T_map_first_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where odom lies in map (3,), given where first odom lies in it."""
        return se2.compose_exactly(T_map_first_xyyaw, self._T_first_odom)
