"""Motion that cannot be: a localiser that jumps, two publishers on one topic, a camera that froze."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3

MAX_SPEED_MPS, MIN_JUMP_M = 10.0, 0.5
MAX_TURN_RADPS, MIN_JUMP_RAD = 10.0, 0.5
ABOVE_USUAL = 4.0  # a car drives faster than MAX_SPEED_MPS, but then at all times
USUAL_STEPS = 11
INTERLEAVED_SHARE, INTERLEAVED_M, RETURN_SHARE = 0.2, 0.1, 1.0 / 3.0
NEVER_MOVES = "{}: the robot never moves, so there is no motion to learn, plan or measure"
STILL_M, STILL_RAD = 0.01, 0.009
FROZEN_FRAMES, FROZEN_M, FROZEN_RAD = 3, 0.2, 0.2


def pose_jumps(stamps_s: NDArray[np.float64], T_world_body: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the steps i (J,) from pose i to i + 1 that nothing on wheels can make.

    A step counts when it is long, fast (10 m/s or 10 rad/s) and several times faster than the steps around it.

    Args:
        stamps_s: (N,) increasing.
        T_world_body: (N, 4, 4).
    """
    if len(stamps_s) < 2:
        return np.zeros(0, np.int64)
    steps_s = np.maximum(np.diff(stamps_s), 1e-6)
    moved_m = np.linalg.norm(np.diff(T_world_body[:, :3, 3], axis=0), axis=1)
    turned_rad = se3.rotation_angle(se3.relative(T_world_body[:-1], T_world_body[1:])[:, :3, :3])
    jumps = (moved_m > MIN_JUMP_M) & _far_above_usual(moved_m / steps_s, MAX_SPEED_MPS)
    jumps |= (turned_rad > MIN_JUMP_RAD) & _far_above_usual(turned_rad / steps_s, MAX_TURN_RADPS)
    return np.flatnonzero(jumps).astype(np.int64)


def driven_m(T_world_body: NDArray[np.float64], jumps: Sequence[int] = ()) -> float:
    """Return the length of the way along poses (N, 4, 4), without the steps behind poses ``jumps``."""
    steps_m = np.linalg.norm(np.diff(T_world_body[:, :3, 3], axis=0), axis=1)
    steps_m[list(jumps)] = 0.0
    return float(steps_m.sum())


def require_one_publisher(topic: str, positions_xyz: NDArray[np.float64]) -> None:
    """Raise DataError when positions (N, 3) go to and fro between two places, as of two publishers on a topic."""
    if len(positions_xyz) < 8:
        return
    one = np.linalg.norm(positions_xyz[1:-1] - positions_xyz[:-2], axis=1)
    two = np.linalg.norm(positions_xyz[2:] - positions_xyz[:-2], axis=1)
    back = (one > INTERLEAVED_M) & (two < RETURN_SHARE * one)
    if back.mean() > INTERLEAVED_SHARE:
        apart_m = float(np.median(one[back]))
        raise DataError(
            f"{topic}: the pose goes to and fro over {apart_m:.2f} m in {back.sum()} of {len(back)} steps, "
            "as when two nodes publish on one topic; name another with --pose-topic, or record again with one of them"
        )


def never_moves(poses_xyyaw: NDArray[np.float64]) -> bool:
    """Tell whether poses (N, 3) all lie at one place, within a centimetre and half a degree."""
    spread = np.ptp(poses_xyyaw[:, :2], axis=0) if len(poses_xyyaw) else np.zeros(2)
    turned = np.abs((poses_xyyaw[:, 2] - poses_xyyaw[:1, 2] + np.pi) % (2 * np.pi) - np.pi)
    return len(poses_xyyaw) > 1 and bool((spread < STILL_M).all() and (turned < STILL_RAD).all())


def frozen_frames(content: Sequence[Hashable], poses_xyyaw: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which frames (N,) repeat the one before while the robot moved on.

    Equal images of a robot that stands are no fault: a stretch counts from 3 equal images over 0.2 m or 0.2 rad.

    Args:
        content: (N,) something that is equal where images are, e.g. a checksum.
        poses_xyyaw: (N, 3).
    """
    frozen = np.zeros(len(content), bool)
    first = 0
    for index in range(1, len(content) + 1):
        if index < len(content) and content[index] == content[first]:
            continue
        moved = np.diff(poses_xyyaw[first:index], axis=0)
        far = np.linalg.norm(moved[:, :2], axis=1).sum() > FROZEN_M
        turned = np.abs((moved[:, 2] + np.pi) % (2 * np.pi) - np.pi).sum() > FROZEN_RAD
        if index - first >= FROZEN_FRAMES and (far or turned):
            frozen[first + 1 : index] = True
        first = index
    return frozen


def _far_above_usual(speeds: NDArray[np.float64], limit: float) -> NDArray[np.bool_]:
    from scipy.ndimage import median_filter

    usual = median_filter(speeds, size=min(USUAL_STEPS, len(speeds)), mode="nearest")
    return np.asarray(speeds > np.maximum(limit, ABOVE_USUAL * usual))
