"""A robot that plans anew all the time, as on the way through memory, gets through passages that it just fits into."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from come_nav.config import load_config
from come_nav.core.geometry import se2
from come_nav.core.types import Goal, Plan
from come_nav.navigation.goals.guide import ahead_on, pursued
from come_nav.navigation.goals.obstacles import line_is_clear
from come_nav.navigation.planning.warm_start import leads_on
from come_nav.planning.cem import CemPlanner
from come_nav.planning.follower import FollowerSettings, PathFollower
from come_nav.planning.objectives import Clearance, GoalPose
from come_nav.planning.settings import RobotLimits

RADIUS_M, MARGIN_M = 0.25, 0.2
GAP_M = 0.54  # 2 cm to each side
PERIOD_S, STEP_S = 0.25, 0.05
# Both ways come nearer to a wall than the robot fits.
INTO_CORRIDOR = [[-0.5, 0.3], [0.4, 0.1], [0.6, 0.05], [1.4, 0.0], [3.0, 0.0]]
ASLANT = [[0.0, 0.3], [0.6, 0.15], [1.0, 0.05], [3.0, 0.0]]


def walls(thickness_m: float) -> np.ndarray:
    """Return points (N, 2) of a wall around x = 1 with a passage at y = 0."""
    x, y = np.meshgrid(np.arange(0.0, thickness_m + 0.01, 0.03) - thickness_m / 2 + 1.0, np.arange(0.0, 2.5, 0.03))
    upper = np.column_stack([x.ravel(), y.ravel() + GAP_M / 2])
    return np.vstack([upper, upper * [1.0, -1.0]])


def drive(points: np.ndarray, way: np.ndarray, patience_s: float, warm: bool, seed: int = 0) -> np.ndarray:
    """Follow plans along a way (N, 2) past points (M, 2), each for ``PERIOD_S``; return the poses (K, 3) driven.

    Where ``warm``, a search begins with the plan before as the stack's do.
    """
    config = load_config(None, ["planner.limits.v_min_mps=-0.15"])  # as robots drive that may back off
    generator = torch.Generator().manual_seed(seed)
    search = config.pose_search.instead_of(config.planner)
    follower = PathFollower(FollowerSettings(limits=RobotLimits(-0.15, 0.6, 1.5, 1.0, 3.0)))
    driven, twist = [np.array([*way[0], 0.0])], np.zeros(3)
    last: tuple[Goal, Plan] | None = None
    for step in range(round(patience_s / STEP_S)):
        pose, time_s = driven[-1], step * STEP_S
        if np.hypot(*(way[-1] - pose[:2])) < 0.25:
            break
        if step % round(PERIOD_S / STEP_S) == 0:
            way = ahead_on(way, pose[:2])
            target = pursued(np.vstack([pose[None, :2], way]), 1.0, lambda a, b: line_is_clear(points, a, b, RADIUS_M))
            near = torch.from_numpy(se2.transform_points(se2.inverse(pose), points)).float()
            wanted = torch.from_numpy(se2.relative(pose, target)).float()
            goal = GoalPose(
                wanted, config.objective.pose_weight, config.objective.yaw_weight, config.objective.path_cost_fraction
            )
            costs = [goal, Clearance(near, RADIUS_M, MARGIN_M)]
            subgoal = Goal(pose_odom_xyyaw=target)
            before = last[1] if warm and last is not None and leads_on(last[0], subgoal) else None
            plan = CemPlanner(search, costs, {"clearance": config.objective.clearance_weight}).plan(
                Nothing(), generator, stamp_s=time_s, start_odom_xyyaw=pose, initial_twist=twist, warm_start=before
            )
            last = (subgoal, plan)
            follower.set_plan(plan)
        twist = np.array(follower.command(time_s, pose))
        driven.append(se2.compose(pose, se2.integrate_twist(twist[0], twist[2], STEP_S)))
    return np.array(driven)


class Nothing:
    """Imagines nothing, as no view counts on the way."""

    def imagine(self, poses_xyyaw, generator):
        raise AssertionError("nobody asked for a view")


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
@pytest.mark.parametrize(("thickness_m", "way"), [(0.8, INTO_CORRIDOR), (0.1, ASLANT)], ids=["corridor", "door aslant"])
def test_a_passage_little_wider_than_the_robot_is_driven_through(thickness_m, way, warm):
    points, way = walls(thickness_m), np.array(way)
    driven = drive(points, way, patience_s=15.0, warm=warm)
    assert np.hypot(*(driven[-1, :2] - way[-1])) < 0.25
    gaps_m = np.linalg.norm(driven[:, None, :2] - points[None], axis=-1).min(axis=1)
    assert gaps_m.min() > 0.2  # tracking may be off by less than what the radius has to spare
