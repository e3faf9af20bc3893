"""Smooth paths to poses that are known, the cost of a registered goal, and paths that a search is handed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from come_nav.core.types import Imagination
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import GoalPose, RegisteredGoal
from come_nav.planning.registered_path import natural_cubic, path_to_pose
from come_nav.planning.settings import KinematicsSettings, PlannerSettings, RobotLimits
from come_nav.planning.twists import twists_of_path

LIMITS = RobotLimits(v_min_mps=-0.3, v_max_mps=0.8, w_max_radps=1.5, a_max_mps2=2.0, alpha_max_radps2=6.0)
CONFIG = PlannerSettings(limits=LIMITS)
GOAL, TWIST = np.array([0.8, 0.2, 0.4]), np.array([0.3, 0.1, 0.2])


def test_the_cubic_begins_with_the_twist_ends_at_the_goal_and_no_motion_is_smoother() -> None:
    times_s = np.linspace(1e-3, 2.0, 2000)
    cubic = natural_cubic(GOAL, TWIST, times_s)
    np.testing.assert_allclose(cubic[-1], GOAL, atol=1e-12)
    np.testing.assert_allclose(cubic[0] / times_s[0], TWIST, atol=1e-3)

    def acceleration(poses: np.ndarray) -> float:
        return float((np.diff(poses, 2, axis=0) ** 2).sum())

    for power in (2.0, 4.0):  # another motion with the same beginning and end
        other = cubic + 0.05 * ((times_s / 2.0) ** power * (1.0 - times_s / 2.0))[:, None]
        assert acceleration(other) > acceleration(cubic)


def test_yaw_takes_the_short_way() -> None:
    cubic = natural_cubic(np.array([0.0, 0.0, -3.0]), np.array([0.0, 0.0, 1.4]), np.array([1.0, 2.0]))
    assert abs(cubic[-1, 2] - (2.0 * np.pi - 3.0)) < 1e-12


@pytest.mark.parametrize("kinematics", ["differential", "holonomic", "car"])
@pytest.mark.parametrize(
    "goal", [GOAL, np.array([0.7, -0.3, -0.6]), np.array([0.0, 0.0, 1.0]), np.array([-2.0, 1.0, 3.0])]
)
def test_paths_keep_to_what_the_robot_can_do(kinematics: str, goal: np.ndarray) -> None:
    robot = KinematicsSettings(kinematics, min_turn_radius_m=0.8)
    path = path_to_pose(goal, TWIST, CONFIG, robot)
    assert path.shape == (8, 3)
    twists = twists_of_path(torch.from_numpy(path), CONFIG.dt_s).numpy()
    assert (twists[:, 0] >= LIMITS.v_min_mps - 1e-6).all()
    assert (twists[:, 0] <= LIMITS.v_max_mps + 1e-6).all()
    assert (np.abs(twists[:, 2]) <= LIMITS.w_max_radps + 1e-6).all()
    assert (np.abs(twists[:, 1]) <= (robot.vy_max_mps if robot.sideways else 0.0) + 1e-6).all()
    if kinematics == "car":
        assert (np.abs(twists[:, 2]) <= np.abs(twists[:, 0]) / 0.8 + 1e-6).all()


def test_what_can_be_reached_is_reached() -> None:
    sideways = KinematicsSettings("holonomic")
    times_s = CONFIG.dt_s * np.arange(1, 9)
    np.testing.assert_allclose(
        path_to_pose(GOAL, TWIST, CONFIG, sideways), natural_cubic(GOAL, TWIST, times_s), atol=1e-6
    )
    ahead = path_to_pose(GOAL, np.array([0.3, 0.0, 0.2]), CONFIG)
    np.testing.assert_allclose(ahead[-1], GOAL, atol=0.02)
    on_the_spot = path_to_pose(np.array([0.0, 0.0, 1.0]), None, CONFIG)
    np.testing.assert_allclose(on_the_spot[-1], [0.0, 0.0, 1.0], atol=0.02)


def cost_at(x_m: float, sigma_m: float, probability: float = 1.0) -> float:
    term = RegisteredGoal(torch.tensor([1.0, 0.0, 0.0]), sigma_m**2 * torch.eye(3), probability)
    return float(term(Imagination(torch.tensor([[[x_m, 0.0, 0.0]]])))[0])


def test_what_is_certain_pulls_and_what_is_not_hardly_does() -> None:
    assert cost_at(1.0, 0.05) == 0.0
    assert cost_at(1.05, 0.05) == pytest.approx(np.log(2.0), abs=1e-5)  # one standard deviation away
    certain, uncertain = (cost_at(0.5, sigma_m) - cost_at(1.0, sigma_m) for sigma_m in (0.05, 5.0))
    assert certain > 4.0
    assert uncertain < 0.02
    assert cost_at(0.5, 0.05, 0.1) == pytest.approx(0.1 * cost_at(0.5, 0.05))
    # far away it grows slowly, but grows: there is no plain on which a search does not know where to go
    assert 0.0 < cost_at(-9.0, 0.05) - cost_at(0.0, 0.05) < 5.0


def test_of_paths_that_end_alike_the_smooth_one_is_cheaper() -> None:
    smooth = torch.tensor([[0.5, 0.0, 0.0], [1.0, 0.0, 0.0]])
    detour = torch.tensor([[0.5, 0.4, 0.0], [1.0, 0.0, 0.0]])
    term = RegisteredGoal(smooth[-1], 0.01 * torch.eye(3), 1.0, smooth, 0.3)
    costs = term(Imagination(torch.stack([smooth, detour])))
    assert costs[0] == 0.0
    assert costs[1] > 0.1


class Paths:
    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        return Imagination(poses_xyyaw)


def test_a_path_that_is_handed_in_is_driven_as_it_is_where_it_is_best_and_changes_nothing_else() -> None:
    config = PlannerSettings(samples=20, initial_samples=20, iterations=2, elites=5, limits=LIMITS)
    path = path_to_pose(GOAL, np.array([0.3, 0.0, 0.2]), config)
    term = GoalPose(torch.from_numpy(path[-1]))

    def plan(suggested: np.ndarray | None) -> np.ndarray:
        planner = CemPlanner(config, [term])
        generator = torch.Generator().manual_seed(0)
        return planner.plan(
            Paths(), generator, initial_twist=np.array([0.3, 0.0, 0.2]), suggested_xyyaw=suggested
        ).poses_xyyaw

    np.testing.assert_allclose(plan(path[None]), path, atol=1e-6)
    far = path[None] + np.array([5.0, 0.0, 0.0])
    assert np.hypot(*(plan(far)[-1] - path[-1])[:2]) < 0.3
