"""What odometry had drifted by at each anchor: the corrections that memories follow.

An anchor is kept wherever a key frame would be, whether there is one or not, so that memories of any camera can follow
corrections, those from elsewhere included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.geometry import se2, se3
from come_nav.core.growing import GrowingRows
from come_nav.localisation.saved.localiser_state import array_of

NO_KEYFRAME = -1
METRES_PER_RAD = 0.5  # what a turn counts on the way that drift grows with


@dataclass(frozen=True)
class SettledKeyframes:
    """Key frames of before a restart, whose memories stay where they are.

    Attributes:
        poses_odom_xyyaw: (K, 3) as odometry had them.
        corrections_xyyaw: (K, 3) where odom lies in map as each has it; map and odom are one at present.
        T_map_odom_xyyaw: (3,) where that odom lies in the map of what was remembered.
    """

    poses_odom_xyyaw: NDArray[np.float64]
    corrections_xyyaw: NDArray[np.float64]
    T_map_odom_xyyaw: NDArray[np.float64]

    def __post_init__(self) -> None:
        count = check_shape("poses_odom_xyyaw", self.poses_odom_xyyaw, "K 3")["K"]
        check_shape("corrections_xyyaw", self.corrections_xyyaw, f"{count} 3")
        check_shape("T_map_odom_xyyaw", self.T_map_odom_xyyaw, "3")

    @classmethod
    def of_state(cls, state: Mapping[str, NDArray[Any]]) -> SettledKeyframes:
        """Return those of :meth:`RobotLocalisation.state`; raise ShapeError for missing arrays, or wrong ones."""
        return cls(
            se3.xyyaw_from_transform(array_of(state, "T_odom_base")),
            array_of(state, "corrections_xyyaw"),
            array_of(state, "T_map_odom_xyyaw"),
        )

    def told(self) -> SettledKeyframes:
        """Return them in the map of what was remembered, which another localiser tells of."""
        corrections = se2.compose(self.T_map_odom_xyyaw[None], self.corrections_xyyaw)
        return SettledKeyframes(self.poses_odom_xyyaw, corrections, np.zeros(3))


NO_KEYFRAMES = SettledKeyframes(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(3))


class Anchors:
    """Anchors of one robot, with where odom lies in map as each has it; the identity until something else is known.

    All poses are in the odom of the first anchor ("first odom"), which odometry that began anew since is not.

    Key frames of before a restart come first in the localiser's order; all of its key frames are in the odom of before.

    Attributes:
        T_first_odom_xyyaw: (3,) where the present odom lies in first odom.
        T_before_first_xyyaw: (3,) where first odom lies in the odom of before; the identity without a start before.
    """

    def __init__(self, settled: SettledKeyframes = NO_KEYFRAMES) -> None:
        """Begin without anchors, with the key frames of before a restart."""
        self._before = settled
        self._odom = GrowingRows((3,))
        self._keyframes = GrowingRows((), np.int64)
        self._corrections: NDArray[np.float64] = np.zeros((0, 3))
        self._start: NDArray[np.float64] = np.zeros(3)  # where odom lies in map before the first anchor
        self.T_first_odom_xyyaw: NDArray[np.float64] = np.zeros(3)
        self.T_before_first_xyyaw: NDArray[np.float64] = np.zeros(3)
        self._settled: int | None = None  # the newest anchor when another localiser told last

    def __len__(self) -> int:
        return len(self._odom)

    @property
    def corrections_xyyaw(self) -> NDArray[np.float64]:
        """Pose of first odom in map (A, 3) at each anchor."""
        return self._corrections

    @property
    def T_map_odom_xyyaw(self) -> NDArray[np.float64]:
        """Pose of the present odom in map (3,) at the newest anchor."""
        return self.of_odom(self._corrections[-1] if len(self) else self._start)

    def of_odom(self, T_frame_first_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where the present odom lies in a frame (3,), given where first odom lies in it."""
        return se2.compose_exactly(T_frame_first_xyyaw, self.T_first_odom_xyyaw).copy()

    @property
    def keyframe_poses_odom_xyyaw(self) -> NDArray[np.float64]:
        """Poses (K, 3) of all key frames, as odometry had them, in the odom of before."""
        own = self.before(self._odom.rows[self._with_keyframe()])
        return np.concatenate([self._before.poses_odom_xyyaw, own])

    def before(self, pose_first_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return poses (..., 3) of first odom in the odom of before, which the localiser's key frames are in."""
        return se2.compose_exactly(self.T_before_first_xyyaw, pose_first_xyyaw)

    def found_again(self, T_before_first_xyyaw: NDArray[np.float64]) -> None:
        """Take where first odom lies in the odom of before (3,), before there is a key frame of this start.

        What was seen since moves with it, unless another localiser has told where odom lies.
        """
        if self._settled is None:
            self.T_before_first_xyyaw = np.array(T_before_first_xyyaw, np.float64)
            self._start = self.T_before_first_xyyaw
            self._corrections = np.tile(self._start, (len(self), 1))

    def due(self, pose_odom_xyyaw: NDArray[np.float64], spacing_m: float, spacing_rad: float) -> bool:
        """Whether the robot has moved enough since the last anchor."""
        if not len(self._odom):
            return True
        return se2.is_apart(self._odom.rows[-1], pose_odom_xyyaw, spacing_m, spacing_rad)

    def add(self, pose_odom_xyyaw: NDArray[np.float64]) -> int:
        """Keep an anchor where odometry says that the robot is; return its index."""
        newest = self._corrections[-1] if len(self) else self._start
        self._odom.append(pose_odom_xyyaw)
        self._keyframes.append(NO_KEYFRAME)
        self._corrections = np.concatenate([self._corrections, newest[None]])
        return len(self) - 1

    def link(self, anchor: int, keyframe: int) -> None:
        """Say which key frame an anchor has."""
        self._keyframes.rows[anchor] = keyframe

    def corrections_of_keyframes(self, count: int) -> NDArray[np.float64]:
        """Return where the odom of before lies in map (K, 3), as the first ``count`` key frames' anchors have it."""
        corrections, settled = np.zeros((count, 3)), len(self._before.corrections_xyyaw)
        corrections[:settled] = self._before.corrections_xyyaw
        known = np.flatnonzero((self._keyframes.rows >= settled) & (self._keyframes.rows < count))
        T_first_before = se2.inverse(self.T_before_first_xyyaw)
        corrections[self._keyframes.rows[known]] = se2.compose_exactly(self._corrections[known], T_first_before)
        return corrections

    def follow(self, keyframes_xyyaw: NDArray[np.float64], move: tuple[float, float]) -> None:
        """Take the corrections (K, 3) of all key frames, of the odom of before.

        Anchors that would move by less than ``move`` (m, rad) stay. Those without a key frame have the correction of
        the one before them.
        """
        wanted = self._corrections.copy()
        known = np.flatnonzero(self._with_keyframe())
        if not len(known):
            return
        wanted[known] = se2.compose_exactly(keyframes_xyyaw[self._keyframes.rows[known]], self.T_before_first_xyyaw)
        before = np.maximum.accumulate(np.where(self._with_keyframe(), np.arange(len(self)), -1))
        wanted = np.where(before[:, None] >= 0, wanted[before], wanted)
        odom = self._odom.rows
        # where the anchors are, not at the origin: a turn about a far one moves them by metres
        away = se2.relative(se2.compose(self._corrections, odom), se2.compose(wanted, odom))
        far = (np.hypot(away[:, 0], away[:, 1]) > move[0]) | (np.abs(away[:, 2]) > move[1])
        self._corrections = np.where(far[:, None], wanted, self._corrections)

    def jump(self, T_map_odom_xyyaw: NDArray[np.float64]) -> None:
        """Take where odom lies in map at present from another localiser.

        Told for the first time, all anchors move alike: it only says where its map lies. Afterwards the change is
        spread over the way since it was told last, as drift grows with the way: the anchor of then stays, the newest
        moves by all of it.
        """
        if self._settled is None and len(self._before.poses_odom_xyyaw):
            if not self._with_keyframe().any():  # else the localiser has related them already
                self.T_before_first_xyyaw = se2.relative(self._before.T_map_odom_xyyaw, T_map_odom_xyyaw)
            self._before = self._before.told()
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
