"""Plans that arrive late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.types import Plan, PlanStatus


def retimed(plan: Plan, now_s: float, pose_odom_xyyaw: NDArray[np.float64], metres_per_rad: float = 0.3) -> Plan:
    """Return the plan with the stamp that makes it start where the robot is on it.

    A search takes time, and the robot stands or follows the plan before meanwhile. Followed by the clock alone, a late
    plan would have lost its first part, and one that is later than its own length would not be driven at all.
    """
    if plan.status is not PlanStatus.OK or len(plan.poses_xyyaw) == 0:
        return plan
    knots = np.vstack([plan.start_odom_xyyaw[None], plan.poses_odom_xyyaw()])
    times_s = np.linspace(0.0, plan.dt_s * (len(knots) - 1), 8 * (len(knots) - 1) + 1)
    step = np.minimum((times_s / plan.dt_s).astype(np.int64), len(knots) - 2)
    poses = se2.interpolate(knots[step], knots[step + 1], times_s / plan.dt_s - step)
    away = se2.relative(pose_odom_xyyaw[None], poses)
    nearest = int(np.argmin(np.hypot(away[:, 0], away[:, 1]) + metres_per_rad * np.abs(away[:, 2])))
    # not later than by the clock: who is ahead of the plan must not be sent back
    return replace(plan, stamp_s=max(plan.stamp_s, now_s - float(times_s[nearest])))
