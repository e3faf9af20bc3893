"""Drives a planned path: a tracking controller for differential-drive robots (Kanayama et al., ICRA 1990).

In the robot's frame let (e_x, e_y, e_yaw) be where the path wants the robot to be now, and (v_r, w_r) how it moves
there: ``v = v_r cos(e_yaw) + k_x e_x``, ``w = w_r + v_r k_y e_y + |v_r| k_yaw sin(e_yaw)``. Past the end of the path
the robot closes what is left of the distance ahead and of the yaw, then stands.

A holonomic robot drives what the path does, turned into its own frame, and closes each error by itself:
``(v_x, v_y) = R(e_yaw) (v_rx, v_ry) + k_x (e_x, e_y)``, ``w = w_r + k_yaw e_yaw``. A car is steered like a differential
drive, within its curvature; at the end it closes the distance ahead alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.geometry import se2
from come_nav.core.types import Plan, PlanStatus
from come_nav.planning.settings import KinematicsSettings, RobotLimits

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class FollowerSettings:
    """How a path is driven.

    Attributes:
        gain_x: speed per metre ahead (and, of a holonomic robot, to the side), 1/s, > 0.
        gain_y: turn per metre to the side and metre driven, 1/m^2, > 0.
        gain_yaw: turn per radian and metre driven, 1/m, > 0; also the turn per radian at the end, 1/s, and of a
            holonomic robot everywhere.
        goal_tolerance_m: the end is reached within this distance along the heading, m, > 0 (holonomic: in any
            direction).
        yaw_tolerance_rad: and within this turn, rad, > 0.
        settle_s: give up closing the last error this long after the end of the path, s, >= 0.
        max_plan_age_s: stand still on a plan older than this, s, > 0.
        limits: of the robot.
    """

    gain_x: float = 1.0
    gain_y: float = 6.0
    gain_yaw: float = 3.0
    goal_tolerance_m: float = 0.05
    yaw_tolerance_rad: float = 0.1
    settle_s: float = 2.0
    max_plan_age_s: float = 10.0
    limits: RobotLimits = field(
        default_factory=lambda: RobotLimits(-0.2, v_max_mps=1.0, w_max_radps=1.2, a_max_mps2=2.0, alpha_max_radps2=6.0)
    )

    def __post_init__(self) -> None:
        for name in ("gain_x", "gain_y", "gain_yaw", "goal_tolerance_m", "yaw_tolerance_rad", "max_plan_age_s"):
            check_range(f"follower.{name}", getattr(self, name), 0.0, open_low=True)
        check_range("follower.settle_s", self.settle_s, 0.0)


class Command(NamedTuple):
    """Twist in base_link: forward speed m/s, speed to the left m/s (0 unless holonomic), yaw rate rad/s."""

    v_mps: float
    vy_mps: float
    w_radps: float


class PathFollower:
    """Turns the newest plan and the present pose into a twist. Stands still without a plan that is OK."""

    def __init__(self, config: FollowerSettings | None = None, robot: KinematicsSettings | None = None) -> None:
        """Take the gains and limits, and how the robot moves: a differential drive where it is not given."""
        self.config, self.robot = config or FollowerSettings(), robot or KinematicsSettings()
        self._plan: Plan | None = None
        self._path_odom_xyyaw: Vector = np.zeros((1, 3))
        self._twists: Vector = np.zeros((0, 3))
        self._last_stamp_s: float | None = None
        self._last_command: Vector = np.zeros(3)
        self.done = True

    def set_plan(self, plan: Plan) -> None:
        """Follow ``plan`` from now on; a plan that is not OK stops the robot."""
        usable = plan.status is PlanStatus.OK and len(plan.poses_xyyaw) > 0
        self._plan = plan if usable else None
        self.done = not usable
        if usable:
            path = self._path_odom_xyyaw = np.vstack([plan.start_odom_xyyaw[None], plan.poses_odom_xyyaw()])
            self._twists = np.stack(se2.planar_twist_between(path[:-1], path[1:], plan.dt_s), axis=-1)
            if not self.robot.sideways:
                self._twists[:, 1] = 0.0

    def command(self, stamp_s: float, pose_odom_xyyaw: Vector) -> Command:
        """Return the twist for the pose (3,) that odometry believes at ``stamp_s``.

        Standing still is commanded at once; every other command respects the acceleration limits since the last call.
        """
        step_s = None if self._last_stamp_s is None else stamp_s - self._last_stamp_s
        self._last_stamp_s = stamp_s
        wanted = self._wanted(stamp_s, pose_odom_xyyaw)
        if wanted is None:
            self._last_command = np.zeros(3)
        else:
            self._last_command = self._limited(wanted, step_s)
        return Command(*map(float, self._last_command))

    def stood(self, stamp_s: float) -> None:
        """Take it that the robot was told to stand: what comes next is limited from there, not from what was before."""
        self._last_stamp_s, self._last_command = stamp_s, np.zeros(3)

    def _wanted(self, stamp_s: float, pose_odom_xyyaw: Vector) -> Vector | None:
        """Return the twist (3,) before acceleration limits, or None to stand still."""
        plan, config = self._plan, self.config
        if plan is None or not np.isfinite(pose_odom_xyyaw).all():
            return None
        elapsed_s = max(0.0, stamp_s - plan.stamp_s)
        after_end_s = elapsed_s - len(self._twists) * plan.dt_s
        if elapsed_s > config.max_plan_age_s or after_end_s > config.settle_s:
            self.done = True
            return None
        if after_end_s >= 0:
            return self._settle(pose_odom_xyyaw)
        step = min(int(elapsed_s / plan.dt_s), len(self._twists) - 1)
        vx_r, vy_r, w_r = (np.asarray(value) for value in self._twists[step])
        ahead = se2.integrate_twist(vx_r, w_r, elapsed_s - step * plan.dt_s, vy_r)
        error = se2.relative(pose_odom_xyyaw, se2.compose(self._path_odom_xyyaw[step], ahead))
        return self._tracking(self._twists[step], error)

    def _tracking(self, twist_r: Vector, error: Vector) -> Vector:
        """Return the twist (3,) that follows ``twist_r`` (3,) of the path and closes the ``error`` (3,) to it."""
        config, (vx_r, vy_r, w_r), (e_x, e_y, e_yaw) = self.config, twist_r, error
        cosine, sine = math.cos(e_yaw), math.sin(e_yaw)
        if self.robot.sideways:
            vx = vx_r * cosine - vy_r * sine + config.gain_x * e_x
            vy = vx_r * sine + vy_r * cosine + config.gain_x * e_y
            return np.array([vx, vy, w_r + config.gain_yaw * e_yaw])
        v = vx_r * cosine + config.gain_x * e_x
        # The yaw term uses |v_r|, so that it also turns the right way when driving backwards.
        w = w_r + vx_r * config.gain_y * e_y + abs(vx_r) * config.gain_yaw * sine
        if abs(vx_r) < 1e-3:  # turning on the spot: the path gives no speed to steer with
            w = w_r + config.gain_yaw * e_yaw
        return np.array([v, 0.0, w])

    def _settle(self, pose_odom_xyyaw: Vector) -> Vector | None:
        config, kinematics = self.config, self.robot.kinematics
        e_x, e_y, e_yaw = se2.relative(pose_odom_xyyaw, self._path_odom_xyyaw[-1])
        near = math.hypot(e_x, e_y if self.robot.sideways else 0.0) < config.goal_tolerance_m
        turned = kinematics == "car" or abs(e_yaw) < config.yaw_tolerance_rad  # a car cannot turn on the spot
        self.done = self.done or (near and turned)
        if self.done:
            return None
        return np.array([config.gain_x * e_x, config.gain_x * e_y, config.gain_yaw * e_yaw])

    def _limited(self, wanted: Vector, step_s: float | None) -> Vector:
        limits = self.config.limits
        vy = self.robot.vy_max_mps if self.robot.sideways else 0.0
        low = np.array([min(limits.v_min_mps, 0.0), -vy, -limits.w_max_radps])
        high = np.array([limits.v_max_mps, vy, limits.w_max_radps])
        limited: Vector = np.clip(wanted, low, high)
        if step_s is not None:
            rates = (limits.a_max_mps2, limits.a_max_mps2, limits.alpha_max_radps2)
            step_s = max(0.0, step_s)  # a clock that jumped back tells of no time
            most = np.array([math.inf if rate is None else rate * step_s for rate in rates])
            limited = np.clip(limited, self._last_command - most, self._last_command + most)
        if self.robot.kinematics == "car":
            most_w = abs(limited[0]) / self.robot.min_turn_radius_m
            limited[2] = np.clip(limited[2], -most_w, most_w)
        return limited
