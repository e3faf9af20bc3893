"""Poses between poses: linear in position, spherical-linear in rotation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3

Array = NDArray[np.float64]


def slerp(quat_a_xyzw: Array, quat_b_xyzw: Array, fraction: Array) -> Array:
    """Return unit quaternions (N, 4) on the shorter great arc from a to b (N, 4) at ``fraction`` (N,) of it.

    Shoemake, "Animating rotation with quaternion curves", 1985; linear where the arc is too short for the sine.
    """
    a = quat_a_xyzw / np.linalg.norm(quat_a_xyzw, axis=-1, keepdims=True)
    b = quat_b_xyzw / np.linalg.norm(quat_b_xyzw, axis=-1, keepdims=True)
    cosine = (a * b).sum(-1)
    b = np.where(cosine[:, None] < 0, -b, b)  # q and -q are the same rotation
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    small = angle < 1e-6
    sine = np.where(small, 1.0, np.sin(angle))
    weight_a = np.where(small, 1.0 - fraction, np.sin((1.0 - fraction) * angle) / sine)
    weight_b = np.where(small, fraction, np.sin(fraction * angle) / sine)
    mixed = weight_a[:, None] * a + weight_b[:, None] * b
    return np.asarray(mixed / np.linalg.norm(mixed, axis=-1, keepdims=True))


def interpolate_poses(stamps_s: Array, T_world_body: Array, at_s: Array) -> Array:
    """Return T (M, 4, 4) at times ``at_s`` (M,) of poses (N, 4, 4) at ``stamps_s`` (N,), N >= 1, increasing.

    Outside [first, last] the end pose is held; callers decide how far they trust that.
    """
    if len(stamps_s) == 1:
        return np.repeat(T_world_body, len(at_s), axis=0)
    right = np.clip(np.searchsorted(stamps_s, at_s, side="right"), 1, len(stamps_s) - 1)
    left = right - 1
    fraction = np.clip((at_s - stamps_s[left]) / (stamps_s[right] - stamps_s[left]), 0.0, 1.0)
    start, end = T_world_body[left], T_world_body[right]
    positions = start[:, :3, 3] + fraction[:, None] * (end[:, :3, 3] - start[:, :3, 3])
    quat_start = se3.quaternion_from_matrix(start[:, :3, :3])
    quat_end = se3.quaternion_from_matrix(end[:, :3, :3])
    return se3.make_transform(se3.matrix_from_quaternion(slerp(quat_start, quat_end, fraction)), positions)
