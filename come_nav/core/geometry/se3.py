"""SE(3): homogeneous matrices ``T_a_b`` (..., 4, 4) that map points of frame b into frame a; quaternions are xyzw.

All functions take and return numpy arrays or torch tensors; leading axes are free.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry.backend import ArrayT, namespace, stack_last, zeros_like_rows

# Columns are the optical axes (x right, y down, z forward) in the body axes (x forward, y left, z up) of REP-103.
R_BODY_OPTICAL: NDArray[np.float64] = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def matrix_from_quaternion(quat_xyzw: ArrayT) -> ArrayT:
    """Return rotation matrices (..., 3, 3) of quaternions (..., 4); they need not be normalised but not be zero."""
    norm_squared = (quat_xyzw * quat_xyzw).sum(-1)
    x, y, z, w = (quat_xyzw[..., index] for index in range(4))
    scale = 2.0 / norm_squared
    row_0 = stack_last([1.0 - scale * (y * y + z * z), scale * (x * y - z * w), scale * (x * z + y * w)])
    row_1 = stack_last([scale * (x * y + z * w), 1.0 - scale * (x * x + z * z), scale * (y * z - x * w)])
    row_2 = stack_last([scale * (x * z - y * w), scale * (y * z + x * w), 1.0 - scale * (x * x + y * y)])
    columns = stack_last([row_0, row_1, row_2])
    return columns.swapaxes(-1, -2)  # type: ignore[no-any-return]


def quaternion_from_matrix(rotation: ArrayT) -> ArrayT:
    """Return unit quaternions xyzw (..., 4), w >= 0, of rotation matrices (..., 3, 3).

    Takes the best conditioned of Shepperd's four forms for each matrix, so that no angle loses digits.
    """
    xp = namespace(rotation)
    m = [[rotation[..., row, column] for column in range(3)] for row in range(3)]
    diagonal_sum = m[0][0] + m[1][1] + m[2][2]
    forms = [
        [1 + 2 * m[0][0] - diagonal_sum, m[0][1] + m[1][0], m[0][2] + m[2][0], m[2][1] - m[1][2]],
        [m[0][1] + m[1][0], 1 + 2 * m[1][1] - diagonal_sum, m[1][2] + m[2][1], m[0][2] - m[2][0]],
        [m[0][2] + m[2][0], m[1][2] + m[2][1], 1 + 2 * m[2][2] - diagonal_sum, m[1][0] - m[0][1]],
        [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1], 1 + diagonal_sum],
    ]
    candidates = stack_last([stack_last(form) for form in forms])  # (..., component, form)
    weights = stack_last([forms[index][index] for index in range(4)])  # (..., form)
    best = xp.argmax(weights, -1)
    index = best[..., None, None] + zeros_like_rows(candidates, *candidates.shape[:-1], 1)
    if xp is np:
        quat = np.take_along_axis(candidates, index.astype(np.int64), axis=-1)[..., 0]
    else:
        quat = xp.gather(candidates, -1, index.long())[..., 0]
    quat = quat / xp.sqrt((quat * quat).sum(-1))[..., None]
    return xp.where((quat[..., 3] < 0)[..., None], -quat, quat)  # type: ignore[no-any-return]


def make_transform(rotation: ArrayT, translation: ArrayT) -> ArrayT:
    """Return T (..., 4, 4) of a rotation (..., 3, 3) and a translation (..., 3)."""
    transform = zeros_like_rows(rotation, *rotation.shape[:-2], 4, 4)
    transform[..., :3, :3] = rotation
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1.0
    return transform  # type: ignore[no-any-return]


def inverse(T_a_b: ArrayT) -> ArrayT:
    """Return T_b_a (..., 4, 4) of a rigid transform."""
    rotation_inverse = T_a_b[..., :3, :3].swapaxes(-1, -2)
    translation: ArrayT = -(rotation_inverse @ T_a_b[..., :3, 3:])[..., 0]
    return make_transform(rotation_inverse, translation)


def relative(T_a_b: ArrayT, T_a_c: ArrayT) -> ArrayT:
    """Return T_b_c (..., 4, 4)."""
    return inverse(T_a_b) @ T_a_c  # type: ignore[no-any-return]


def transform_points(T_a_b: ArrayT, points_b: ArrayT) -> ArrayT:
    """Map points (..., N, 3) of frame b into frame a."""
    return points_b @ T_a_b[..., :3, :3].swapaxes(-1, -2) + T_a_b[..., None, :3, 3]  # type: ignore[no-any-return]


def transform_from_xyyaw(pose_xyyaw: ArrayT) -> ArrayT:
    """Lift planar poses (..., 3) to T (..., 4, 4) with z = roll = pitch = 0."""
    xp = namespace(pose_xyyaw)
    cosine, sine = xp.cos(pose_xyyaw[..., 2]), xp.sin(pose_xyyaw[..., 2])
    transform = zeros_like_rows(pose_xyyaw, *pose_xyyaw.shape[:-1], 4, 4)
    transform[..., 0, 0], transform[..., 0, 1] = cosine, -sine
    transform[..., 1, 0], transform[..., 1, 1] = sine, cosine
    transform[..., 0, 3], transform[..., 1, 3] = pose_xyyaw[..., 0], pose_xyyaw[..., 1]
    transform[..., 2, 2] = transform[..., 3, 3] = 1.0
    return transform  # type: ignore[no-any-return]


def xyyaw_from_transform(T_a_b: ArrayT) -> ArrayT:
    """Project T (..., 4, 4) to planar poses (..., 3): x, y, and the heading of the x axis in the plane."""
    xp = namespace(T_a_b)
    yaw = xp.arctan2(T_a_b[..., 1, 0], T_a_b[..., 0, 0])
    return stack_last([T_a_b[..., 0, 3], T_a_b[..., 1, 3], yaw])  # type: ignore[no-any-return]


def turned_covariance(covariance: ArrayT, pose_xyyaw: ArrayT) -> ArrayT:
    """Return the covariance (..., 3, 3) of x, y and yaw in a frame at ``pose_xyyaw`` (..., 3), in its parent's axes."""
    turned = transform_from_xyyaw(pose_xyyaw)[..., :3, :3]
    return turned @ covariance @ turned.swapaxes(-1, -2)  # type: ignore[no-any-return]


def rotation_angle(rotation: ArrayT) -> ArrayT:
    """Return the angles (...) in [0, pi] of rotation matrices (..., 3, 3), exact near 0 and near pi.

    atan2 of the axis length and the trace; arccos of the trace alone loses half the digits at small angles.
    """
    xp = namespace(rotation)
    axis = stack_last(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ]
    )
    sine_twice = xp.sqrt((axis * axis).sum(-1))
    trace = rotation[..., 0, 0] + rotation[..., 1, 1] + rotation[..., 2, 2]
    return xp.arctan2(sine_twice, trace - 1.0)  # type: ignore[no-any-return]


def largest_tilt_deg(poses: NDArray[np.float64]) -> float:
    """Return the largest angle between the vertical in a body at poses (N, 4, 4) and its mean over them, degrees."""
    up = poses[:, 2, :3]
    mean = up.mean(0) / np.linalg.norm(up.mean(0))
    return float(np.degrees(np.arccos(np.clip(up @ mean, -1.0, 1.0))).max())
