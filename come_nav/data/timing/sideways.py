"""How much of a recording's motion is sideways: what no differential drive and no car can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Kinematics

STEP_S, LONGEST_STEP_S = 0.2, 1.2  # between compared poses: long enough for jitter not to count; longer ones are holes
LEAST_STEP_M = 0.01
LEAST_MOVED_M = 0.5  # of a way that tells anything
MOST_AXLE_M = 2.0  # how far base_link may be from the axle that a robot turns around
PLAIN_SHARE = 0.25


@dataclass(frozen=True)
class SidewaysMotion:
    """What odometry tells of a robot's kinematics.

    Attributes:
        share: of the way that was driven sideways in base_link, in [0, 1], without what an axle elsewhere explains.
        moved_m: length of that way.
        twists: (M, 3) vx m/s, vy m/s, w rad/s of the steps that were compared.
    """

    share: float
    moved_m: float
    twists: NDArray[np.float64]

    @property
    def kinematics(self) -> Kinematics:
        """Holonomic where sideways motion is plain, else differential, which a car cannot be told from."""
        plain = self.share >= PLAIN_SHARE and self.moved_m >= LEAST_MOVED_M
        return "holonomic" if plain else "differential"

    def __str__(self) -> str:
        return f"{self.kinematics} ({100 * self.share:.0f} % of {self.moved_m:.1f} m is sideways)"


def sideways_motion(
    stamps_s: NDArray[np.float64], poses_xyyaw: NDArray[np.float64], cuts: Sequence[int] = ()
) -> SidewaysMotion:
    """Return how much of the way along poses (N, 3) is sideways.

    A robot whose base_link lies off its axle moves sideways where it turns, by the distance times the yaw rate: what
    such a distance (at most 2 m) explains does not count.

    Args:
        stamps_s: (N,) increasing.
        poses_xyyaw: (N, 3) of base_link.
        cuts: steps i from pose i to i + 1 that are no motion, e.g. jumps of a localiser.
    """
    twists, steps_s = _steps(np.asarray(stamps_s, float), np.asarray(poses_xyyaw, float), cuts)
    if len(twists) == 0:
        return SidewaysMotion(0.0, 0.0, twists)
    vx, vy, w = twists.T
    turning = float((w * w * steps_s).sum())
    axle_m = float(np.clip((vy * w * steps_s).sum() / turning, -MOST_AXLE_M, MOST_AXLE_M)) if turning > 0.0 else 0.0
    sideways_m = np.abs(vy - axle_m * w) * steps_s
    moved_m = np.hypot(vx * steps_s, sideways_m)
    counts = np.hypot(vx, vy) * steps_s >= LEAST_STEP_M
    total_m = float(moved_m[counts].sum())
    return SidewaysMotion(float(sideways_m[counts].sum()) / total_m if total_m > 0.0 else 0.0, total_m, twists)


def joined(motions: Sequence[SidewaysMotion]) -> SidewaysMotion:
    """Return what several recordings of one robot tell, each by the length of its way."""
    moved_m = sum(motion.moved_m for motion in motions)
    sideways_m = sum(motion.share * motion.moved_m for motion in motions)
    twists = np.concatenate([np.zeros((0, 3)), *(motion.twists for motion in motions)])
    return SidewaysMotion(sideways_m / moved_m if moved_m > 0.0 else 0.0, moved_m, twists)


def _steps(
    stamps_s: NDArray[np.float64], poses_xyyaw: NDArray[np.float64], cuts: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return twists (M, 3) between poses about STEP_S apart, and the times (M,) that they took."""
    part: NDArray[np.int64] = np.zeros(len(stamps_s), np.int64)
    part[[cut + 1 for cut in cuts]] = 1
    part = np.cumsum(part)
    before = np.arange(len(stamps_s))
    after = np.searchsorted(stamps_s, stamps_s + STEP_S - 1e-6)
    chosen, index = [], 0
    while index < len(before) and after[index] < len(stamps_s):  # one step begins where the one before ends
        chosen.append(index)
        index = int(after[index])
    one = np.array(chosen, np.int64)
    two = after[one]
    steps_s = stamps_s[two] - stamps_s[one]
    whole = (part[one] == part[two]) & (steps_s <= LONGEST_STEP_S)
    one, two, steps_s = one[whole], two[whole], steps_s[whole]
    twists = se2.planar_twist_between(poses_xyyaw[one], poses_xyyaw[two], steps_s)
    return np.stack(twists, axis=-1).reshape(-1, 3), steps_s
