"""What an NWM model is told about the way to a target: pure functions over poses, in waypoint spacings.

Letters: N frames ahead. Waypoints are poses of later frames in the base of the start frame, x and y in spacings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.geometry.waypoint_units import normalised_from_spacings, spacings_from_normalised

Poses = NDArray[np.float64]


def waypoints(poses_xyyaw: Poses, start: int, frames_ahead: int, spacing_m: float) -> Poses:
    """Return the waypoints (N, 3) of the ``frames_ahead`` frames after ``start``: spacings, radians in (-pi, pi]."""
    local = se2.relative(poses_xyyaw[start][None], poses_xyyaw[start + 1 : start + 1 + frames_ahead])
    return in_spacings(local, spacing_m)


def in_spacings(poses_xyyaw: Poses, spacing_m: float) -> Poses:
    """Return poses (..., 3) with x and y in spacings."""
    return np.asarray(poses_xyyaw / np.array([spacing_m, spacing_m, 1.0]))


def in_metres(poses: Poses, spacing_m: float) -> Poses:
    """Return poses (..., 3), x and y in spacings, in metres."""
    return np.asarray(poses * np.array([spacing_m, spacing_m, 1.0]))


def step_actions(waypoints_spacings: Poses, stride: int = 1) -> Poses:
    """Return the action (N // stride, 3) of each rollout step in the base of the frame before it, in spacings.

    This is what the network was trained on: a target's pose seen from the newest context frame.
    """
    targets = waypoints_spacings[stride - 1 :: stride]
    before = np.concatenate([np.zeros((1, 3)), targets[:-1]])
    return se2.relative(before, targets)


def official_step_actions(waypoints_spacings: Poses, stride: int = 1) -> Poses:
    """Return the actions (N // stride, 3) that the released rollout evaluation gives the network, in spacings.

    It normalises the waypoints and then takes differences, so the offset of the range enters the first step alone: each
    later call is told 1.25 spacings too many. The differences stay in the axes of the start frame. Published
    rollout figures were made this way.
    """
    normalised = normalised_from_spacings(waypoints_spacings)
    deltas = np.diff(normalised, axis=0, prepend=np.zeros((1, 3)))
    steps = len(deltas) // stride
    summed = deltas[: steps * stride].reshape(steps, stride, 3).sum(axis=1)
    return spacings_from_normalised(summed)


def path_of_actions(actions: Poses) -> Poses:
    """Return poses (..., T, 3) of actions (..., T, 3) that each start in the base that the one before reached."""
    pose = np.zeros_like(actions[..., 0, :])
    poses = []
    for step in range(actions.shape[-2]):
        pose = se2.compose(pose, actions[..., step, :])
        poses.append(pose)
    return np.stack(poses, axis=-2)
