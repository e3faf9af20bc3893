"""Proposals of policies: paths and headings, on the robot's terms, ranked, searched beside, driven without a goal."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from data_samples import SampleRecording
from model_samples import small_model
from policy_samples import fill
from test_navigation_stack import START, ImageModel, image_of, observe

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame, Goal, Imagination, Odometry, Plan, PlanStatus, Proposals
from come_nav.evaluation.protocols.protocol import ProtocolSettings, choose_windows
from come_nav.evaluation.suites.fingerprints import planner_settings
from come_nav.evaluation.suites.policy_rows import (
    Searcher,
    context_images,
    load_policies,
    policy_rows,
    proposing_row,
    world_model_searcher,
)
from come_nav.navigation.exploring import Explorer, clearest
from come_nav.navigation.goals.mission import ArrivalSettings, MissionState
from come_nav.navigation.goals.settings import ObstacleSettings
from come_nav.navigation.navigator import GoalRequest, Navigator
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings, NavigatorSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.cem import CemPlanner
from come_nav.planning.novelty import Familiarity
from come_nav.planning.objectives import Clearance
from come_nav.planning.proposals import drivable_paths
from come_nav.planning.settings import KinematicsSettings, PlannerSettings, PoseSearchSettings, RobotLimits
from come_nav.policies.images import normalised, padded_context, resized, stacked
from come_nav.policies.model import LearnedPolicy, make_network
from come_nav.policies.paths import poses_of_waypoints
from come_nav.policies.settings import published
from come_nav.world_model.model import DiffusionWorldModel

TINY = published("nomad", context_size=1, encoding_size=16, heads=2, layers=1, ff_factor=1, down_dims=(8, 16))
FREE = RobotLimits(v_min_mps=-5.0, v_max_mps=5.0, w_max_radps=5.0)
CAR, SIDEWAYS = KinematicsSettings(), KinematicsSettings("holonomic", vy_max_mps=5.0)


@pytest.fixture(scope="module")
def nomad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "nomad"
    LearnedPolicy(fill(make_network(TINY))).save(folder)
    return folder


def arc(radius_m, step_rad, count):
    turn = step_rad * np.arange(1, count + 1)
    return np.stack([radius_m * np.sin(turn), radius_m * (1.0 - np.cos(turn)), turn], axis=1)


# -- paths --------------------------------------------------------------


@pytest.mark.parametrize("step_rad", [0.15, -0.2])
def test_headings_of_an_arc_are_those_of_its_tangents(step_rad):
    wanted = arc(2.0 * np.sign(step_rad), step_rad, 8)
    found = poses_of_waypoints(wanted[None, :, :2] / 0.25, 0.25)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_predicted_headings_are_taken_and_a_robot_that_stands_keeps_its_own():
    four = np.array([[[1.0, 0.0, 0.0, 1.0], [2.0, 0.0, -1.0, 0.0]]])
    np.testing.assert_allclose(poses_of_waypoints(four, 0.5)[0], [[0.5, 0.0, np.pi / 2], [1.0, 0.0, np.pi]])
    still = poses_of_waypoints(np.array([[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]]), 1.0)[0, :, 2]
    assert np.ptp(still) == 0.0
    assert not poses_of_waypoints(np.zeros((1, 4, 2)), 1.0).any()


def test_images_are_resized_as_pillow_does_and_normalised_as_imagenet():
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    settings = published("vint")
    assert resized(image, settings).shape == (64, 85, 3)
    whole = np.full((64, 85, 3), 255, np.uint8)
    wanted = (1.0 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(stacked([whole], settings)[0, :, 3, 4], wanted)
    assert torch.equal(
        normalised(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).sum((0, 2, 3)) < 0, torch.tensor([True] * 3)
    )
    newest = [np.full((4, 4, 3), value, np.uint8) for value in (1, 2)]
    assert [int(own[0, 0, 0]) for own in padded_context(newest, settings)] == [1, 1, 1, 1, 1, 2]


# -- on the robot's terms --------------------------------------------------------------


def test_a_path_that_can_be_driven_comes_back_as_it_is_and_goes_on_as_it_ended():
    wanted = arc(2.0, 0.1, 5)
    planner = PlannerSettings(limits=FREE, horizon_steps=8, dt_s=0.25)
    found = drivable_paths(Proposals(wanted[None], 0.25), planner, CAR)
    np.testing.assert_allclose(found[0], arc(2.0, 0.1, 8), atol=1e-6)


def test_a_path_on_other_steps_is_the_same_way():
    wanted = arc(2.0, 0.1, 8)
    planner = PlannerSettings(limits=FREE, horizon_steps=16, dt_s=0.125)
    found = drivable_paths(Proposals(wanted[None], 0.25), planner, CAR)
    np.testing.assert_allclose(found[0], arc(2.0, 0.05, 16), atol=1e-6)


def test_limits_and_kinematics_hold():
    fast = np.array([[[k * 1.0, 0.0, 0.0] for k in range(1, 9)]])
    slow = drivable_paths(Proposals(fast, 0.25), PlannerSettings(limits=RobotLimits(v_max_mps=0.4)), CAR)
    np.testing.assert_allclose(slow[0, :, 0], 0.1 * np.arange(1, 9), atol=1e-6)
    aside = np.array([[[0.0, k * 0.1, 0.0] for k in range(1, 9)]])
    planner = PlannerSettings(limits=FREE)
    np.testing.assert_allclose(drivable_paths(Proposals(aside, 0.25), planner, SIDEWAYS), aside, atol=1e-6)
    assert not drivable_paths(Proposals(aside, 0.25), planner, CAR).any()


# -- in the search --------------------------------------------------------------


class Ends:
    """Costs the distance of a path's end to a place; counts what it is asked."""

    name, needs_view = "ends", False

    def __init__(self, place):
        self.place, self.asked = torch.tensor(place), 0

    def __call__(self, imagination):
        self.asked += len(imagination.poses_xyyaw)
        return (imagination.poses_xyyaw[:, -1, :2] - self.place).norm(dim=1)


class Nothing:
    def imagine(self, poses_xyyaw, generator):
        return Imagination(poses_xyyaw)


def test_alone_proposals_are_ranked_and_nothing_else_is_tried():
    paths = np.stack([arc(radius, 0.1, 8) for radius in (0.5, 1.0, 1.5)])
    goal = Ends(paths[1, -1, :2].tolist())
    config = PlannerSettings(proposals="nomad", proposals_alone=True, limits=FREE)
    plan = CemPlanner(config, [goal]).plan(Nothing(), torch.Generator().manual_seed(0), suggested_xyyaw=paths)
    assert plan.status is PlanStatus.OK
    np.testing.assert_allclose(plan.poses_xyyaw, paths[1], atol=1e-6)
    assert goal.asked == 3
    beside = CemPlanner(replace(config, proposals_alone=False), [Ends(goal.place.tolist())])
    assert beside.plan(Nothing(), torch.Generator().manual_seed(0), suggested_xyyaw=paths).cost <= plan.cost + 1e-6


def test_a_stack_tries_what_its_policy_proposes(nomad):
    search = PlannerSettings(samples=6, initial_samples=12, iterations=2, elites=3)
    proposing = replace(search, proposals=str(nomad), proposed_paths=5)
    goal = Goal(image_rgb=image_of([2.5, -0.8]))
    tried = {}
    for name, planner in {
        "none": search,
        "beside": proposing,
        "alone": replace(proposing, proposals_alone=True),
    }.items():
        stack = NavStack(ImageModel(), NavigationSettings(planner=planner, device="cpu"))
        observe(stack, 6)
        plan = stack.plan(goal, registers=False)
        assert plan.status is PlanStatus.OK
        tried[name] = plan.trace.iterations[0].poses_xyyaw
        stack.close()
    assert len(tried["none"]) == 12
    assert len(tried["beside"]) == 17
    assert len(tried["alone"]) == 5
    steps = tried["alone"][:, :, :2].diff(dim=1).norm(dim=-1)
    assert float(steps.max()) <= search.limits.v_max_mps * search.dt_s + 1e-5


def test_a_policy_that_is_not_there_is_told_before_the_first_goal(tmp_path):
    with pytest.raises(ConfigError, match="nomda"):
        NavStack(ImageModel(), NavigationSettings(planner=PlannerSettings(proposals="nomda"), device="cpu"))
    with pytest.raises(ConfigError, match=r"planner\.proposals"):
        PlannerSettings(proposals_alone=True)


# -- without a goal --------------------------------------------------------------


def test_exploring_drives_the_first_clear_path(nomad):
    paths = np.stack([arc(100.0, 0.002, 8), arc(1.0, 0.2, 8), arc(-1.0, -0.2, 8)])
    blank = Plan(PlanStatus.OK, 0.0, 0.25, np.zeros((0, 3)), np.zeros(3))
    np.testing.assert_array_equal(clearest(paths, None, blank).poses_xyyaw, paths[0])
    ahead = Clearance(torch.tensor([[1.2, 0.0]]), 0.2, 0.1)
    np.testing.assert_array_equal(clearest(paths, ahead, blank).poses_xyyaw, paths[1])
    around = torch.tensor([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 60)], dtype=torch.float32)
    shut = clearest(paths, Clearance(0.5 * around, 0.2, 0.1), blank)
    assert shut.status is PlanStatus.ALL_IN_COLLISION
    assert len(shut.poses_xyyaw) == 0


def test_without_a_policy_it_explores_where_memory_knows_least():
    visited = torch.tensor([[-1.0, 1.0, 0.0], [2.0, 0.0, 3.0]])
    paths = torch.tensor([[[0.2, 0.1, 0.0], [0.5, 0.3, 0.4]], [[-0.2, 0.0, 0.0], [-0.5, 0.5, 0.1]]])
    found = Familiarity(visited, 0.8)(Imagination(paths))
    for path, cost in zip(paths[:, 1].double(), found, strict=True):
        apart = (path[:2] - visited[:, :2]).norm(dim=1)
        sides = 0.3 + 0.7 * (1.0 + torch.cos(path[2] - visited[:, 2])) / 2.0
        wanted = math.log(1.0 + float((sides * torch.exp(-(apart**2) / (2.0 * 0.8**2))).sum()))
        assert float(cost) == pytest.approx(wanted, rel=1e-5)
    assert not Familiarity(torch.zeros(0, 3))(Imagination(paths)).any()
    stack = NavStack(ImageModel(), NavigationSettings(device="cpu"))
    observe(stack, 3)
    start = stack.memory.newest.pose_odom_xyyaw
    ends = {}
    for side in (1.0, -1.0):  # what lies to the one side is known
        beside = np.array([[x, side * y, yaw] for x in (0.0, 1.0, 2.0) for y in (0.5, 1.5) for yaw in (0.0, 3.0)])
        plan = Explorer(stack, lambda beside=beside: se2.compose(start[None], beside)).plan()
        assert plan.status is PlanStatus.OK
        ends[side] = plan.poses_xyyaw[-1]
        assert np.hypot(*ends[side][:2]) > 0.4
    assert ends[1.0][1] < ends[-1.0][1] - 0.2, ends
    around = torch.tensor([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 60)], dtype=torch.float32)
    walled = Explorer(stack, lambda: np.zeros((0, 3))).plan(clearance=Clearance(0.15 * around, 0.2, 0.1))
    assert not walled.poses_xyyaw.any() or walled.status is PlanStatus.ALL_IN_COLLISION
    stack.close()


def test_a_navigator_roams_until_told_otherwise():
    stack = NavStack(ImageModel(), NavigationSettings(device="cpu"), background_localisation=False)
    arrival = ArrivalSettings(time_limit_s=0.5)
    navigator = Navigator(stack, NavigatorSettings(arrival=arrival, obstacles=ObstacleSettings(use=False)))
    navigator.begin(GoalRequest(pose_odom_xyyaw=np.array([3.0, 0.0, 0.0])))
    navigator.begin(GoalRequest(explore=True))
    assert navigator.mission.goal is None
    for index in range(12):
        stamp_s, pose = 0.25 * index, np.array([0.1 * index, 0.0, 0.0])
        frame = Frame(stamp_s, image_of(pose[:2]))
        navigator.observe(frame, Odometry(stamp_s, se3.transform_from_xyyaw(pose)))
        step = navigator.step(stamp_s, pose)
        assert step.state is MissionState.ACTIVE  # longer than any mission may last
        assert step.drive.status is PlanStatus.OK
    assert navigator.progress().message == "exploring"
    assert not navigator.mission.failing
    navigator.cancel()
    assert navigator.step(3.0).plan is None
    navigator.begin(GoalRequest(explore=True))
    navigator.begin(GoalRequest(pose_odom_xyyaw=np.array([3.0, 0.0, 0.0])))
    assert not navigator.mission.roaming
    stack.close()


def test_a_robot_that_explores_and_stands_turns_instead_of_giving_up():
    few = PoseSearchSettings(samples=8, initial_samples=16, iterations=1, elites=4)
    stack = NavStack(ImageModel(), NavigationSettings(device="cpu", pose_search=few), background_localisation=False)
    navigator = Navigator(stack, NavigatorSettings())
    here = np.zeros(3)
    ring = 0.3 * np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 90)])
    navigator.begin(GoalRequest(explore=True))
    turned, states = 0, set()
    for index in range(160):  # 40 s before a wall all around
        stamp_s = 0.25 * index
        frame = Frame(stamp_s, image_of(here[:2]))
        navigator.observe(frame, Odometry(stamp_s, se3.transform_from_xyyaw(here)))
        navigator.obstacles.see(np.column_stack([ring, np.full(90, 0.5)]), stamp_s)
        step = navigator.step(stamp_s, here)
        states.add(step.state)
        turned += step.retreating and step.plan is not None
    assert states == {MissionState.ACTIVE}
    assert turned >= 3
    stack.close()


def test_a_stack_explores_with_a_policy_alone(nomad, tmp_path):
    LearnedPolicy(make_network(published("gnm", context_size=0, encoding_size=8))).save(tmp_path / "gnm")
    settings = NavigationSettings(planner=PlannerSettings(proposals=str(tmp_path / "gnm")), device="cpu")
    stack = NavStack(ImageModel(), settings)
    with pytest.raises(ConfigError, match="needs a goal"):
        Navigator(stack, NavigatorSettings()).begin(GoalRequest(explore=True))
    planner = PlannerSettings(proposals=str(nomad))
    stack = NavStack(ImageModel(), NavigationSettings(planner=planner, device="cpu"))
    explorer = Explorer(stack)
    assert explorer.plan().status is PlanStatus.NO_CONTEXT
    observe(stack, 3)
    plan = explorer.plan()
    assert plan.status is PlanStatus.OK
    assert plan.poses_xyyaw.shape == (8, 3)
    np.testing.assert_allclose(plan.start_odom_xyyaw, START)
    assert explorer.plan(now_s=100.0).status is PlanStatus.STALE_SENSOR
    stack.close()


# -- in the table --------------------------------------------------------------


class Straight:
    """Proposes to go on at 1 m/s for ever."""

    name, frames = "straight", 3

    def propose(self, context, goal, count, generator):
        self.seen = [int(image.mean()) for image in context]
        return Proposals(np.array([[[0.25 * k, 0.0, 0.0] for k in range(1, 9)]]), 0.25)


def test_the_row_of_a_policy_is_its_first_path_as_the_robot_can_drive_it():
    window = choose_windows([("drive", SampleRecording(40))], ProtocolSettings(4, 8), 2)[1]
    policy = Straight()
    navigation = NavigationSettings(planner=PlannerSettings(limits=RobotLimits(v_max_mps=0.5)), device="cpu")
    plan = proposing_row(policy, navigation).plan(window, window.generator())
    np.testing.assert_allclose(plan.poses_xyyaw[:, 0], 0.5 * window.dt_s * np.arange(1, 9), atol=1e-6)
    assert len(policy.seen) == 3
    first = context_images(choose_windows([("drive", SampleRecording(40))], ProtocolSettings(4, 8), None)[0], 30)
    assert len(first) == 4  # all that there are before the first window


def test_rows_and_settings_of_a_table(nomad):
    window = choose_windows([("drive", SampleRecording(40))], ProtocolSettings(4, 8), 1)[0]
    navigation = NavigationSettings(device="cpu")
    (row,) = policy_rows(load_policies([str(nomad)], navigation), navigation, None)
    assert row.name == "nomad"
    plans = [row.plan(window, window.generator()).poses_xyyaw for _ in range(2)]
    np.testing.assert_array_equal(*plans)
    plain = planner_settings(PlannerSettings())
    assert not {"proposals", "proposed_paths", "proposal_spacing_m", "proposals_alone"} & set(plain)
    assert plain["proposal"] == "mixture"
    assert set(planner_settings(PlannerSettings(proposals=str(nomad)))["proposals"]) == {"name", "sha256"}


def test_with_a_world_model_proposals_are_ranked_and_searched_beside(nomad, tmp_path):
    model = DiffusionWorldModel.load(small_model(tmp_path / "small"))
    search = PlannerSettings(samples=4, initial_samples=6, iterations=1, elites=2)
    navigation = NavigationSettings(planner=search, device="cpu")
    policies = load_policies([str(nomad)], navigation)
    searcher = world_model_searcher(policies, navigation, model)
    rows = {row.name: row for row in policy_rows(policies, navigation, searcher)}
    assert list(rows) == ["nomad", "world model + nomad", "nomad x16, ranked", "nomad x32, ranked"]
    window = choose_windows([("drive", SampleRecording(40))], ProtocolSettings(model.context_frames, 8), 1)[0]
    tried = {}
    for name, row in rows.items():
        if name != "nomad":
            plan = row.plan(window, window.generator())
            assert plan.status is PlanStatus.OK
            first = plan.trace.iterations[0]
            tried[name] = len(first.costs)
            if "ranked" in name:
                assert plan.cost == pytest.approx(float(first.costs.min()))
    assert tried == {"world model + nomad": 22, "nomad x16, ranked": 16, "nomad x32, ranked": 32}
    with pytest.raises(ConfigError, match="another policy is named 'nomad' too"):
        load_policies([str(nomad), str(nomad)], navigation)


def test_rows_that_rank_imagine_every_proposal_by_the_experts_of_their_searcher(nomad):
    asked = []

    class Asked:
        stack = SimpleNamespace(settings=NavigationSettings())

        def plan(self, window, generator, experts, imaginer, registers, planner):
            asked.append((experts, planner.proposed_paths, planner.proposals_alone, planner.imagined_share))

    experts = ExpertsSettings(use=("spatial",), spatial=0.5)
    navigation = NavigationSettings(planner=PlannerSettings(imagined_share=0.25), device="cpu")
    rows = policy_rows(
        load_policies([str(nomad)], navigation), navigation, Searcher("all", lambda _: Asked(), None, experts)
    )
    for row in rows[1:]:
        row.plan(None, None)
    beside = navigation.planner.proposed_paths
    assert asked == [(experts, beside, False, 0.25), (experts, 16, True, 1.0), (experts, 32, True, 1.0)]


def test_the_command_line_roams_in_a_built_in_world(nomad, tmp_path, capsys):
    flags = ["--explore", "2", "--camera", "64x64", "--policy", str(nomad), "--out", str(tmp_path), "--json"]
    assert main(["navigate", *flags]) == 0
    (found,) = json.loads(capsys.readouterr().out)["explored"]
    assert found["simulated_s"] == 2.0
    assert found["rooms"] >= 1
    assert main(["navigate", "--explore", "6", "--camera", "64x64", "--out", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["explored"]
    assert found["driven_m"] > 0.5


def test_the_command_line_follows_a_map_of_the_way_that_it_is_shown(nomad, tmp_path, capsys):
    flags = ["--rows", "topological", "--goals", "1", "--camera", "64x64", "--time-limit", "2", "--no-maps", "--json"]
    assert main(["navigate", *flags, "--policy", str(nomad), "--out", str(tmp_path / "policy")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["key"] for row in found["rows"]] == ["topological"]
    assert found["goals"][0]["ended"] in ("REACHED", "TIME_LIMIT")
    assert main(["navigate", *flags, "--out", str(tmp_path / "none")]) == 1
    assert "planner.proposals" in capsys.readouterr().err


def test_spacing_scales_paths(nomad):
    image = np.full((96, 96, 3), 90, np.uint8)
    found = [
        LearnedPolicy.load(nomad, spacing_m=spacing).propose([image], image, 2, torch.Generator().manual_seed(1))
        for spacing in (0.1, 0.3)
    ]
    np.testing.assert_allclose(3.0 * found[0].poses_xyyaw[..., :2], found[1].poses_xyyaw[..., :2])
    np.testing.assert_allclose(found[0].poses_xyyaw[..., 2], found[1].poses_xyyaw[..., 2])
    assert se2.wrap_angle(found[0].poses_xyyaw[..., 2]).max() <= np.pi
    gnm = LearnedPolicy(make_network(published("gnm", context_size=0, encoding_size=8)))
    with pytest.raises(ConfigError, match="needs a goal"):
        gnm.propose([image], None, 1, torch.Generator())
