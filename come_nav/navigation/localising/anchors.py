"""What odometry had drifted by at each anchor: the corrections that memories follow.

An anchor is kept wherever a key frame would be, whether there is one or not, so that memories of any camera can follow
corrections, those from elsewhere included.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.growing import GrowingRows

NO_KEYFRAME = -1
METRES_PER_RAD = 0.5  # what a turn counts on the way that drift grows with


class Anchors:
    """Anchors of one robot, with where odom lies in map as each has it; the identity until something else is known."""

    def __init__(self) -> None:
        self._odom = GrowingRows((3,))
        self._keyframes = GrowingRows((), np.int64)
        self._corrections: NDArray[np.float64] = np.zeros((0, 3))
        self._start: NDArray[np.float64] = np.zeros(3)  # where odom lies in map before the first anchor
        self._settled: int | None = None  # the newest anchor when another localiser told last

    def __len__(self) -> int:
        return len(self._odom)

    @property
    def corrections_xyyaw(self) -> NDArray[np.float64]:
        """Pose of odom in map (A, 3) at each anchor."""
        return self._corrections

    @property
    def T_map_odom_xyyaw(self) -> NDArray[np.float64]:
        """Pose of odom in map (3,) at the newest anchor."""
        return self._corrections[-1] if len(self) else self._start

    @property
    def keyframe_poses_odom_xyyaw(self) -> NDArray[np.float64]:
        """Poses (K, 3) of those with a key frame, as odometry had them."""
        return np.asarray(self._odom.rows[self._with_keyframe()])

    def due(self, pose_odom_xyyaw: NDArray[np.float64], spacing_m: float, spacing_rad: float) -> bool:
        """Whether the robot has moved enough since the last anchor."""
        if not len(self._odom):
            return True
        moved = se2.relative(self._odom.rows[-1], pose_odom_xyyaw)
        return bool(np.hypot(*moved[:2]) >= spacing_m or abs(moved[2]) >= spacing_rad)

    def add(self, pose_odom_xyyaw: NDArray[np.float64]) -> int:
        """Keep an anchor where odometry says that the robot is; return its index."""
        newest = self.T_map_odom_xyyaw
        self._odom.append(pose_odom_xyyaw)
        self._keyframes.append(NO_KEYFRAME)
        self._corrections = np.concatenate([self._corrections, newest[None]])
        return len(self) - 1

    def link(self, anchor: int, keyframe: int) -> None:
        """Say which key frame an anchor has."""
        self._keyframes.rows[anchor] = keyframe

    def correction_of(self, keyframe: int) -> NDArray[np.float64]:
        """Return where odom lies in map (3,) as a key frame's anchor has it."""
        found = np.flatnonzero(self._keyframes.rows == keyframe)
        return self._corrections[found[0]] if len(found) else np.zeros(3)

    def follow(self, keyframes_xyyaw: NDArray[np.float64], move: tuple[float, float]) -> None:
        """Take the corrections (K, 3) of the key frames; those closer than ``move`` (m, rad) to what is stay.

        Anchors without a key frame have the correction of the one before them.
        """
        wanted = self._corrections.copy()
        known = np.flatnonzero(self._with_keyframe())
        if not len(known):
            return
        wanted[known] = keyframes_xyyaw[self._keyframes.rows[known]]
        before = np.maximum.accumulate(np.where(self._with_keyframe(), np.arange(len(self)), -1))
        wanted = np.where(before[:, None] >= 0, wanted[before], wanted)
        away = wanted - self._corrections
        far = np.hypot(away[:, 0], away[:, 1]) > move[0]
        far |= np.abs(se2.wrap_angle(away[:, 2])) > move[1]
        self._corrections = np.where(far[:, None], wanted, self._corrections)

    def jump(self, T_map_odom_xyyaw: NDArray[np.float64]) -> None:
        """Take where odom lies in map at present from another localiser.

        Told for the first time, all anchors move alike: it only says where its map lies. Afterwards the change is
        spread over the way since it was told last, as drift grows with the way: the anchor of then stays, the newest
        moves by all of it.
        """
        if not len(self):
            self._start, self._settled = np.array(T_map_odom_xyyaw, np.float64), 0
            return
        first, last = self._settled or 0, len(self) - 1
        odom = self._odom.rows
        steps = se2.relative(odom[first:-1], odom[first + 1 :])
        steps_m = np.hypot(steps[:, 0], steps[:, 1]) + METRES_PER_RAD * np.abs(steps[:, 2])
        way_m = np.concatenate([[0.0], np.cumsum(steps_m)])
        alike = self._settled is None or way_m[-1] == 0.0
        share = np.ones(len(way_m)) if alike else way_m / way_m[-1]
        change = se2.compose(np.asarray(T_map_odom_xyyaw, np.float64), se2.inverse(self._corrections[last]))
        # about the robot itself: a turn about a far origin would swing the middle of the way
        here = se2.compose(self._corrections[last], odom[last])
        local = se2.relative(here, se2.compose(change, here))
        part = share[:, None] * local
        moved = se2.compose(se2.compose(here[None], part), se2.inverse(here)[None])
        self._corrections = self._corrections.copy()
        self._corrections[first:] = se2.compose(moved, self._corrections[first:])
        self._corrections[last] = T_map_odom_xyyaw
        self._settled = last

    def _with_keyframe(self) -> NDArray[np.bool_]:
        return np.asarray(self._keyframes.rows != NO_KEYFRAME)
