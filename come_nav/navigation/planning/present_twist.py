"""How the robot moves now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Odometry
from come_nav.memory.short_term import ShortTermBuffer


def present_twist(odometry: Odometry | None, memory: ShortTermBuffer) -> NDArray[np.float64] | None:
    """Return (vx m/s, vy m/s, w rad/s) as odometry measured it, else from the last two remembered poses.

    None = unknown. Odometry that tells nothing of the speed to the side is that of a robot that has none.
    """
    if odometry is not None and odometry.v_mps is not None and odometry.w_radps is not None:
        measured = np.array([odometry.v_mps, odometry.vy_mps or 0.0, odometry.w_radps])
        return measured if np.isfinite(measured).all() else None
    frames = memory.context_frames(2)
    if not frames:
        return None
    before, now = frames
    return np.array(se2.planar_twist_between(before.pose_odom_xyyaw, now.pose_odom_xyyaw, now.stamp_s - before.stamp_s))
