"""SE(2): planar poses ``(x m, y m, yaw rad)`` on the last axis, any leading axes, yaw in (-pi, pi].

``pose_a_b`` is the pose of frame b seen from frame a. All functions take and return numpy arrays or torch tensors.
"""

from __future__ import annotations

import math

from come_nav.core.geometry.backend import ArrayT, namespace, stack_last


def wrap_angle(angle_rad: ArrayT) -> ArrayT:
    """Wrap angles to (-pi, pi]; shape is kept."""
    xp = namespace(angle_rad)
    wrapped = math.pi - xp.remainder(math.pi - angle_rad, 2.0 * math.pi)
    return wrapped  # type: ignore[no-any-return]


def compose(pose_a_b: ArrayT, pose_b_c: ArrayT) -> ArrayT:
    """Return pose_a_c (..., 3) = pose_a_b (..., 3) followed by pose_b_c (..., 3); leading axes broadcast."""
    xp = namespace(pose_a_b)
    cosine, sine = xp.cos(pose_a_b[..., 2]), xp.sin(pose_a_b[..., 2])
    x = pose_a_b[..., 0] + cosine * pose_b_c[..., 0] - sine * pose_b_c[..., 1]
    y = pose_a_b[..., 1] + sine * pose_b_c[..., 0] + cosine * pose_b_c[..., 1]
    yaw = wrap_angle(pose_a_b[..., 2] + pose_b_c[..., 2])
    return stack_last([x, y, yaw])  # type: ignore[no-any-return]


def compose_exactly(pose_a_b: ArrayT, pose_b_c: ArrayT) -> ArrayT:
    """Return :func:`compose`, but the very same array where the other of the two is the identity (3,), bit for bit.

    Where nothing was ever corrected, poses are not touched by rounding.
    """
    if pose_a_b.ndim == 1 and not pose_a_b.any():
        return pose_b_c
    return pose_a_b if pose_b_c.ndim == 1 and not pose_b_c.any() else compose(pose_a_b, pose_b_c)


def inverse(pose_a_b: ArrayT) -> ArrayT:
    """Return pose_b_a (..., 3)."""
    xp = namespace(pose_a_b)
    cosine, sine = xp.cos(pose_a_b[..., 2]), xp.sin(pose_a_b[..., 2])
    x = -cosine * pose_a_b[..., 0] - sine * pose_a_b[..., 1]
    y = sine * pose_a_b[..., 0] - cosine * pose_a_b[..., 1]
    return stack_last([x, y, wrap_angle(-pose_a_b[..., 2])])  # type: ignore[no-any-return]


def relative(pose_a_b: ArrayT, pose_a_c: ArrayT) -> ArrayT:
    """Return pose_b_c (..., 3): where c stands in the base frame of b. This is come_nav's action convention."""
    return compose(inverse(pose_a_b), pose_a_c)


def motions(poses: ArrayT) -> ArrayT:
    """Return the motion (..., T, 3) to each of poses (..., T, 3) in the base of the one before; zero to the first."""
    moved: ArrayT = namespace(poses).zeros_like(poses)
    moved[..., 1:, :] = relative(poses[..., :-1, :], poses[..., 1:, :])
    return moved


def is_apart(pose: ArrayT, other: ArrayT, distance_m: float, turn_rad: float) -> bool:
    """Whether two poses (3,) are at least so far, or so much of a turn, from each other."""
    away = relative(pose, other)
    return bool(math.hypot(float(away[0]), float(away[1])) >= distance_m or abs(float(away[2])) >= turn_rad)


def integrate_twist(v_mps: ArrayT, w_radps: ArrayT, duration_s: ArrayT | float, vy_mps: ArrayT | None = None) -> ArrayT:
    """Return the pose (..., 3) after driving a constant twist from the origin, exactly (an arc, not Euler steps).

    Uses x = v t sinc(w t), y = v t cosinc(w t), with series near w = 0 so that straight lines are smooth. A sideways
    speed ``vy_mps`` (to the left) adds the same arc turned by a quarter.
    """
    xp = namespace(v_mps)
    yaw = w_radps * duration_s
    small = xp.abs(yaw) < 1e-4
    safe = xp.where(small, xp.ones_like(yaw), yaw)
    along = xp.where(small, 1.0 - yaw * yaw / 6.0, xp.sin(safe) / safe)
    # 1 - cos is 2 sin^2 of the half, which single precision does not lose near 0
    across = xp.where(small, yaw / 2.0, 2.0 * xp.sin(safe / 2.0) ** 2 / safe)
    distance = v_mps * duration_s
    x, y = distance * along, distance * across
    if vy_mps is not None:
        sideways = vy_mps * duration_s
        x, y = x - sideways * across, y + sideways * along
    return stack_last([x, y, wrap_angle(yaw)])  # type: ignore[no-any-return]


def twist_between(pose_a_b: ArrayT, pose_a_c: ArrayT, duration_s: float) -> tuple[ArrayT, ArrayT]:
    """Return the constant twist (v m/s, w rad/s), each (...), whose arc goes from b towards c in ``duration_s``.

    The yaw rate is exact; the speed is the signed chord along b's arc, so motion against the heading is negative.
    """
    v_mps, _, w_radps = planar_twist_between(pose_a_b, pose_a_c, duration_s)
    return v_mps, w_radps


def planar_twist_between(
    pose_a_b: ArrayT, pose_a_c: ArrayT, duration_s: ArrayT | float
) -> tuple[ArrayT, ArrayT, ArrayT]:
    """Return the constant twist (vx m/s, vy m/s, w rad/s), each (...), that goes from b exactly to c in ``duration_s``.

    It is the inverse of :func:`integrate_twist`: of all twists that do so, the one that turns by less than half a turn.
    """
    xp = namespace(pose_a_b)
    delta = relative(pose_a_b, pose_a_c)
    yaw = delta[..., 2]
    half = yaw / 2.0
    safe = xp.where(xp.abs(half) < 1e-6, xp.ones_like(half), half)
    chord_per_arc = xp.where(xp.abs(half) < 1e-6, xp.ones_like(half), xp.sin(safe) / safe)
    forward = delta[..., 0] * xp.cos(half) + delta[..., 1] * xp.sin(half)
    left = delta[..., 1] * xp.cos(half) - delta[..., 0] * xp.sin(half)
    return forward / chord_per_arc / duration_s, left / chord_per_arc / duration_s, yaw / duration_s


def transform_points(pose_a_b: ArrayT, points_b_xy: ArrayT) -> ArrayT:
    """Map points (..., N, 2) of frame b into frame a with pose_a_b (..., 3)."""
    xp = namespace(pose_a_b)
    cosine, sine = xp.cos(pose_a_b[..., 2])[..., None], xp.sin(pose_a_b[..., 2])[..., None]
    x = pose_a_b[..., 0][..., None] + cosine * points_b_xy[..., 0] - sine * points_b_xy[..., 1]
    y = pose_a_b[..., 1][..., None] + sine * points_b_xy[..., 0] + cosine * points_b_xy[..., 1]
    return stack_last([x, y])  # type: ignore[no-any-return]


def interpolate(pose_a_b: ArrayT, pose_a_c: ArrayT, fraction: ArrayT | float) -> ArrayT:
    """Interpolate from b (fraction 0) to c (fraction 1): linear in position, shortest way in yaw."""
    dyaw = wrap_angle(pose_a_c[..., 2] - pose_a_b[..., 2])
    x = pose_a_b[..., 0] + fraction * (pose_a_c[..., 0] - pose_a_b[..., 0])
    y = pose_a_b[..., 1] + fraction * (pose_a_c[..., 1] - pose_a_b[..., 1])
    return stack_last([x, y, wrap_angle(pose_a_b[..., 2] + fraction * dyaw)])  # type: ignore[no-any-return]
