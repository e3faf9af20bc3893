"""Holonomic robots and cars: closed forms, limits that hold for any parameters, toy problems of search and follower."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.types import Imagination, Plan, PlanStatus
from come_nav.navigation.planning.objectives import motion_terms
from come_nav.planning.cem import CemPlanner
from come_nav.planning.follower import FollowerSettings, PathFollower
from come_nav.planning.objectives import GoalPose, MotionPrior, Smoothness
from come_nav.planning.parameterisations import Spline, make_parameterisation
from come_nav.planning.retiming import retimed
from come_nav.planning.settings import KinematicsSettings, MotionPriorSettings, PlannerSettings, RobotLimits
from come_nav.planning.stall import StallDetector
from come_nav.planning.twists import path_from_twists, shift_path, twists_of_path

HOLONOMIC = KinematicsSettings("holonomic", vy_max_mps=0.5)
CAR = KinematicsSettings("car", min_turn_radius_m=2.0)
LIMITS = RobotLimits(-0.4, v_max_mps=0.9, w_max_radps=1.0)
DT_S, TICK_S = 0.25, 0.05


class Paths:
    def imagine(self, poses_xyyaw, generator):
        return Imagination(poses_xyyaw)


def shape(name, robot, limits=LIMITS):
    return make_parameterisation(PlannerSettings(parameterisation=name, limits=limits), robot)


def test_arc_with_sideways_speed_is_a_circle_around_its_own_centre():
    vx, vy, w = 0.5, 0.3, 0.6
    path = shape("arc", HOLONOMIC).poses(torch.tensor([[vx, vy, w]]), None)[0].double().numpy()
    centre = np.array([-vy / w, vx / w])  # where the velocity of a turning body vanishes
    angle = w * DT_S * np.arange(1, 9)
    turned = np.stack([np.cos(angle) * -centre[0] + np.sin(angle) * centre[1],
                       -np.sin(angle) * centre[0] - np.cos(angle) * centre[1]], axis=-1)  # fmt: skip
    np.testing.assert_allclose(path, np.column_stack([centre + turned, angle]), atol=1e-5)


def test_straight_of_a_holonomic_robot_keeps_its_heading_and_turns_at_the_end():
    path = shape("straight", HOLONOMIC).poses(torch.tensor([[0.05, 0.1, 0.4]]), None)[0]
    steps = np.arange(1, 9)[:, None]
    np.testing.assert_allclose(path[:, :2], steps * np.array([0.05, 0.1]), atol=1e-6)
    np.testing.assert_allclose(path[:, 2], [0.0] * 7 + [0.4], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(("arc", "spline")),
    seed=st.integers(0, 10**6),
    scale=st.floats(0.1, 100.0),
    vy_max=st.floats(0.05, 2.0),
    rate=st.none() | st.floats(0.2, 3.0),
)
def test_holonomic_limits_hold_for_any_parameters(name, seed, scale, vy_max, rate):
    limits = replace(LIMITS, a_max_mps2=rate, alpha_max_radps2=rate)
    form = shape(name, KinematicsSettings("holonomic", vy_max_mps=vy_max), limits)
    parameters = scale * torch.randn(40, len(form.lower), generator=torch.Generator().manual_seed(seed))
    start = torch.tensor([0.2, 0.02, -0.1])
    twists = twists_of_path(form.poses(parameters, start).double(), DT_S)
    assert (twists[..., 0] <= 0.9 + 1e-4).all() and (twists[..., 0] >= -0.4 - 1e-4).all()
    assert (twists[..., 1].abs() <= vy_max + 1e-4).all()
    assert (twists[..., 2].abs() <= 1.0 + 1e-4).all()
    if rate is not None:
        change = torch.cat([start.double().expand(40, 1, 3), twists], dim=1).diff(dim=1).abs()
        assert (change <= rate * DT_S + 1e-4).all()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(("arc", "spline")),
    seed=st.integers(0, 10**6),
    scale=st.floats(0.1, 100.0),
    radius_m=st.floats(0.3, 20.0),
    v_min=st.floats(-0.5, 0.0),
    rate=st.none() | st.floats(0.2, 3.0),
)
def test_a_car_never_turns_tighter_than_it_can_nor_slides(name, seed, scale, radius_m, v_min, rate):
    limits = RobotLimits(v_min, v_max_mps=0.9, w_max_radps=1.0, a_max_mps2=rate, alpha_max_radps2=rate)
    form = shape(name, KinematicsSettings("car", min_turn_radius_m=radius_m), limits)
    parameters = scale * torch.randn(40, len(form.lower), generator=torch.Generator().manual_seed(seed))
    twists = twists_of_path(form.poses(parameters, torch.tensor([0.3, 0.0, 0.0])).double(), DT_S)
    assert (twists[..., 0] >= v_min - 1e-4).all() and (twists[..., 0] <= 0.9 + 1e-4).all()
    assert (twists[..., 1].abs() <= 1e-4).all()
    assert (twists[..., 2].abs() <= twists[..., 0].abs() / radius_m + 1e-4).all()


def test_a_car_has_no_straight_lines_that_turn_on_the_spot():
    with pytest.raises(ConfigError, match=r"planner\.parameterisation straight.*arc or spline"):
        shape("straight", CAR)


@pytest.mark.parametrize("name", ["straight", "arc", "spline"])
def test_fit_inverts_holonomic_poses(name):
    form = shape(name, HOLONOMIC)
    spread = torch.rand(20, len(form.lower), generator=torch.Generator().manual_seed(1))
    inside = form.lower + (form.upper - form.lower) * (0.25 + 0.5 * spread)
    for parameters, path in zip(inside, form.poses(inside, None), strict=True):
        np.testing.assert_allclose(form.fit(path), parameters, atol=2e-3)


@pytest.mark.parametrize("name", ["straight", "arc", "spline"])
def test_holonomic_prior_ends_where_the_present_twist_does(name):
    form = shape(name, HOLONOMIC)
    twist = torch.tensor([0.3, -0.2, 0.1])
    mean, std = form.prior(twist)
    expected = path_from_twists(twist.repeat(8, 1), DT_S)[-1]
    np.testing.assert_allclose(form.poses(mean[None], None)[0, -1], expected, atol=0.01)
    assert (std > 0).all()


def test_differential_paths_ignore_the_present_speed_to_the_side():
    form = shape("spline", KinematicsSettings())
    assert isinstance(form, Spline)
    parameters = torch.randn(10, len(form.lower), generator=torch.Generator().manual_seed(2))
    sliding, straight = (form.poses(parameters, torch.tensor([0.3, vy, 0.1])) for vy in (0.4, 0.0))
    assert torch.equal(sliding, straight)


def test_shift_path_keeps_sideways_motion():
    twists = torch.tensor([[0.3, 0.05 * step, 0.1 * step] for step in range(8)])
    rest = shift_path(path_from_twists(twists, DT_S), 3, DT_S)
    np.testing.assert_allclose(twists_of_path(rest, DT_S), torch.cat([twists[3:], twists[-1:].repeat(3, 1)]), atol=1e-5)


@pytest.mark.parametrize(("robot", "reaches"), [(HOLONOMIC, True), (KinematicsSettings(), False)])
def test_only_a_holonomic_search_reaches_a_pose_beside_the_robot(robot, reaches):
    config = PlannerSettings(samples=200, initial_samples=800, elites=20, limits=LIMITS)
    goal = torch.tensor([0.0, 0.45, 0.0])  # from standing, evenly faster, 0.5 m are possible
    planner = CemPlanner(config, [GoalPose(goal, yaw_weight=1.0)], robot=robot)
    end = planner.plan(Paths(), torch.Generator().manual_seed(0), initial_twist=np.zeros(3)).poses_xyyaw[-1]
    error = float(np.hypot(*(end[:2] - [0.0, 0.45])) + abs(end[2]))
    assert (error < 0.05) if reaches else (error > 0.2)


def test_a_warm_start_goes_on_sideways():
    config = PlannerSettings(samples=100, initial_samples=400, iterations=3, limits=LIMITS)
    planner = CemPlanner(config, [GoalPose(torch.tensor([0.0, 0.8, 0.0]))], robot=HOLONOMIC)
    generator = torch.Generator().manual_seed(0)
    before = planner.plan(Paths(), generator, initial_twist=np.array([0.0, 0.4, 0.0]))
    after = planner.plan(
        Paths(), generator, stamp_s=2 * DT_S, initial_twist=np.array([0.0, 0.4, 0.0]), warm_start=before
    )
    assert after.trace is not None
    vy = after.trace.iterations[0].mean[1]  # parameters: speed, speed to the side, yaw rates
    assert 0.2 <= float(vy) <= 0.5


def test_a_twist_of_two_numbers_is_refused():
    planner = CemPlanner(PlannerSettings(), [GoalPose(torch.zeros(3))])
    with pytest.raises(ShapeError, match="initial_twist"):
        planner.plan(Paths(), torch.Generator(), initial_twist=np.array([0.5, 0.0]))


def test_motion_prior_is_the_closed_form_of_a_random_walk():
    now = torch.tensor([0.4, 0.1, 0.2])
    other = now + torch.tensor([0.1, -0.2, 0.3])
    term = MotionPrior(now, DT_S, (0.2, 0.4, 0.5), sideways=True)
    going_on, changed = (path_from_twists(twist.repeat(8, 1), DT_S)[None] for twist in (now, other))
    assert float(term(Imagination(going_on))) == pytest.approx(0.0, abs=1e-6)
    per_axis = 0.5 * ((0.1 / 0.2) ** 2 + (0.2 / 0.4) ** 2 + (0.3 / 0.5) ** 2)
    expected = np.mean([per_axis / (DT_S * (step + 0.5)) for step in range(8)])
    assert float(term(Imagination(changed))) == pytest.approx(expected, rel=1e-3)
    blind = MotionPrior(now, DT_S, (0.2, 0.4, 0.5))
    assert float(blind(Imagination(path_from_twists((now * torch.tensor([1.0, -1.0, 1.0])).repeat(8, 1), DT_S)[None]))
                 ) == pytest.approx(0.0, abs=1e-6)  # fmt: skip


def test_each_kind_of_robot_has_its_own_motion_prior():
    prior = MotionPriorSettings(weight=0.5, differential_weight=0.02)
    assert prior.weight_of(HOLONOMIC) == prior.weight_of(KinematicsSettings("car")) == 0.5
    assert prior.weight_of(KinematicsSettings()) == 0.02
    assert MotionPriorSettings().weight_of(KinematicsSettings()) == 0.0
    assert MotionPriorSettings(use="always").weight_of(KinematicsSettings()) == MotionPriorSettings().weight
    assert MotionPriorSettings(use="never").weight_of(HOLONOMIC) == 0.0


def test_a_differential_robot_that_stands_has_no_motion_prior():
    prior, moving = MotionPriorSettings(differential_weight=0.02), np.array([0.0, 0.0, 0.3])
    terms, weights = motion_terms(moving, DT_S, prior, KinematicsSettings())
    assert [term.name for term in terms] == ["motion_prior"]
    assert weights == {"motion_prior": 0.02}
    assert motion_terms(moving * 0.1, DT_S, prior, KinematicsSettings()) == ([], {})
    assert motion_terms(moving * 0.0, DT_S, prior, HOLONOMIC)[1] == {"motion_prior": prior.weight}
    assert motion_terms(None, DT_S, prior, HOLONOMIC) == ([], {})


def test_bad_motion_priors_are_told():
    with pytest.raises(ConfigError, match=r"motion_prior\.vy_sigma_mps"):
        MotionPriorSettings(vy_sigma_mps=0.0)
    with pytest.raises(ConfigError, match=r"robot\.kinematics"):
        KinematicsSettings("tracked")


def test_smoothness_counts_sideways_changes_of_holonomic_robots_alone():
    path = path_from_twists(torch.tensor([[0.3, 0.0, 0.0]] * 4 + [[0.3, 0.4, 0.0]] * 4), DT_S)[None]
    assert float(Smoothness(DT_S, sideways=True)(Imagination(path))) == pytest.approx(0.4**2 / 8, rel=1e-3)
    assert float(Smoothness(DT_S)(Imagination(path))) == pytest.approx(0.0, abs=1e-6)


# -- following -------------------------------------------------------------------------------------------------------


def plan_of(twists, start=(1.0, -2.0, 0.7)):
    poses = path_from_twists(torch.tensor(twists, dtype=torch.float64), DT_S).numpy()
    return Plan(PlanStatus.OK, 100.0, DT_S, poses, np.array(start))


def drive(follower, pose, seconds):
    poses, commands = [np.array(pose, float)], []
    for tick in range(int(seconds / TICK_S)):
        commands.append(follower.command(100.0 + tick * TICK_S, poses[-1]))
        vx, vy, w = map(np.array, commands[-1])
        poses.append(se2.compose(poses[-1], se2.integrate_twist(vx, w, TICK_S, vy)))
    return np.stack(poses), np.array(commands)


@pytest.mark.parametrize("twist", [(0.0, 0.4, 0.0), (-0.1, -0.4, 0.0), (0.2, 0.3, 0.5), (0.0, 0.3, -0.6)])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.05, -0.1, 0.1)])
def test_a_holonomic_robot_reaches_the_pose_beside_it(twist, offset):
    follower, plan = PathFollower(robot=HOLONOMIC), plan_of([twist] * 8)
    follower.set_plan(plan)
    poses, _ = drive(follower, se2.compose(plan.start_odom_xyyaw, np.array(offset)), 4.5)
    end = plan.poses_odom_xyyaw()[-1]
    assert np.linalg.norm(poses[-1, :2] - end[:2]) < 0.06
    assert abs(float(se2.wrap_angle(poses[-1, 2] - end[2]))) < 0.12
    assert follower.done


def test_a_holonomic_robot_keeps_its_limits():
    limits = RobotLimits(0.0, 0.4, 0.5, a_max_mps2=0.8, alpha_max_radps2=1.0)
    follower = PathFollower(FollowerSettings(limits=limits), KinematicsSettings("holonomic", vy_max_mps=0.3))
    plan = plan_of([[0.8, 1.0, 1.5]] * 8)
    follower.set_plan(plan)
    follower.command(99.95, plan.start_odom_xyyaw)
    _, commands = drive(follower, plan.start_odom_xyyaw, 2.0)
    assert (np.abs(commands).max(axis=0) <= np.array([0.4, 0.3, 0.5]) + 1e-9).all()
    assert (np.abs(np.diff(commands, axis=0)).max(axis=0) <= np.array([0.8, 0.8, 1.0]) * TICK_S + 1e-9).all()


@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.0, 0.3, 0.0), (-0.2, -0.3, 0.3)])
def test_a_car_follows_within_its_curvature(offset):
    follower, plan = PathFollower(robot=CAR), plan_of([[0.8, 0.0, 0.1]] * 16)  # room to steer to both sides
    follower.set_plan(plan)
    poses, commands = drive(follower, se2.compose(plan.start_odom_xyyaw, np.array(offset)), 5.0)
    assert (np.abs(commands[:, 2]) <= np.abs(commands[:, 0]) / CAR.min_turn_radius_m + 1e-9).all()
    assert (commands[:, 1] == 0.0).all()
    assert np.linalg.norm(poses[-1, :2] - plan.poses_odom_xyyaw()[-1, :2]) < 0.15
    assert follower.done


def test_differential_commands_have_no_sideways_speed():
    follower, plan = PathFollower(), plan_of([[0.2, 0.4, 0.0]] * 8)
    follower.set_plan(plan)
    _, commands = drive(follower, plan.start_odom_xyyaw, 3.0)
    assert (commands[:, 1] == 0.0).all()


def test_a_late_sideways_plan_starts_where_the_robot_is_on_it():
    plan = plan_of([[0.0, 0.4, 0.0]] * 8, start=(0.0, 0.0, 0.0))
    assert retimed(plan, 105.0, np.array([0.0, 0.4, 0.0])).stamp_s == pytest.approx(104.0, abs=0.05)


@pytest.mark.parametrize(
    ("v", "vy", "bearing"), [(0.0, 0.3, math.pi / 2), (0.0, -0.3, -math.pi / 2), (-0.3, 0.0, math.pi)]
)
def test_a_stall_tells_where_the_robot_could_not_go(v, vy, bearing):
    detector = StallDetector(1.0)
    said = [detector.update(step * TICK_S, v, np.zeros(3), vy) for step in range(30)]
    assert said[-1] != 0
    assert detector.bearing_rad == pytest.approx(bearing)
