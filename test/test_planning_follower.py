"""The follower in closed loop on a kinematic robot."""

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.types import Plan, PlanStatus
from come_nav.planning.follower import FollowerSettings, PathFollower
from come_nav.planning.settings import RobotLimits
from come_nav.planning.twists import path_from_twists

TICK_S = 0.05


def plan_of(twists, start=(1.0, -2.0, 0.7), status=PlanStatus.OK, stamp_s=100.0):
    planar = [(twist[0], 0.0, twist[1]) if len(twist) == 2 else twist for twist in twists]
    poses = path_from_twists(torch.tensor(planar, dtype=torch.float64), 0.25).numpy()
    return Plan(status, stamp_s, 0.25, poses, np.array(start))


def drive(follower, pose, seconds, start_s=100.0):
    """Return poses and commands of a robot that does what it is told."""
    poses, commands = [np.array(pose)], []
    for tick in range(int(seconds / TICK_S)):
        command = follower.command(start_s + tick * TICK_S, poses[-1])
        commands.append(command)
        vx, vy, w = map(np.array, command)
        poses.append(se2.compose(poses[-1], se2.integrate_twist(vx, w, TICK_S, vy)))
    return np.stack(poses), np.array(commands)


@pytest.mark.parametrize(
    "twists",
    [
        [[0.5, 0.0]] * 8,
        [[0.6, 0.8]] * 8,
        [[0.6, -0.8]] * 4 + [[0.4, 0.9]] * 4,
        [[0.0, 1.0]] * 4 + [[0.5, 0.0]] * 4,
        [[-0.15, 0.3]] * 8,
    ],
)
def test_reaches_the_end_of_the_path(twists):
    follower, plan = PathFollower(), plan_of(twists)
    follower.set_plan(plan)
    poses, _ = drive(follower, plan.start_odom_xyyaw, 5.0)
    end = plan.poses_odom_xyyaw()[-1]
    assert np.linalg.norm(poses[-1, :2] - end[:2]) < 0.12
    assert abs(float(se2.wrap_angle(poses[-1, 2] - end[2]))) < 0.12
    assert follower.done


@pytest.mark.parametrize("offset", [(0.0, 0.1, 0.0), (0.0, -0.1, 0.2), (-0.1, 0.0, 0.0)])
def test_comes_back_to_the_path(offset):
    follower, plan = PathFollower(), plan_of([[0.6, 0.3]] * 16)
    follower.set_plan(plan)
    start = se2.compose(plan.start_odom_xyyaw, np.array(offset))
    poses, _ = drive(follower, start, 4.0)
    path = plan.poses_odom_xyyaw()
    final = np.linalg.norm(poses[80, :2] - path[-1, :2])
    assert final < 0.05


def test_respects_limits():
    limits = RobotLimits(0.0, 0.4, 0.5, a_max_mps2=0.8, alpha_max_radps2=1.0)
    follower = PathFollower(FollowerSettings(limits=limits))
    plan = plan_of([[1.0, 1.5]] * 8)
    follower.set_plan(plan)
    follower.command(99.95, plan.start_odom_xyyaw)
    _, commands = drive(follower, plan.start_odom_xyyaw, 2.0)
    assert commands[:, 0].max() <= 0.4 + 1e-9
    assert np.abs(commands[:, 2]).max() <= 0.5 + 1e-9
    assert np.abs(np.diff(commands[:, 0])).max() <= 0.8 * TICK_S + 1e-9
    assert np.abs(np.diff(commands[:, 2])).max() <= 1.0 * TICK_S + 1e-9


@pytest.mark.parametrize("status", [status for status in PlanStatus if status is not PlanStatus.OK])
def test_stands_still_on_a_plan_that_is_not_ok(status):
    follower = PathFollower()
    follower.set_plan(plan_of([[0.5, 0.0]] * 8))
    moving = follower.command(100.5, np.array([1.0, -2.0, 0.7]))
    follower.set_plan(plan_of([[0.5, 0.0]] * 8, status=status))
    assert moving[0] > 0
    assert follower.command(100.6, np.array([1.0, -2.0, 0.7])) == (0.0, 0.0, 0.0)
    assert follower.done


def test_stands_still_without_a_plan_on_an_old_plan_and_without_a_pose():
    follower = PathFollower()
    assert follower.command(0.0, np.zeros(3)) == (0.0, 0.0, 0.0)
    follower.set_plan(plan_of([[0.5, 0.0]] * 8))
    assert follower.command(101.0, np.array([np.nan, 0.0, 0.0])) == (0.0, 0.0, 0.0)
    assert follower.command(200.0, np.zeros(3)) == (0.0, 0.0, 0.0)
    assert follower.done


def test_a_late_plan_is_joined_where_it_should_be_by_now():
    follower, plan = PathFollower(), plan_of([[0.5, 0.0]] * 8, start=(0.0, 0.0, 0.0))
    follower.set_plan(plan)
    poses, _ = drive(follower, [0.4, 0.0, 0.0], 2.0, start_s=100.8)
    at_end = poses[int(1.2 / TICK_S)]
    np.testing.assert_allclose(at_end, [1.0, 0.0, 0.0], atol=0.03)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"follower\.gain_x"):
        FollowerSettings(gain_x=0.0)
