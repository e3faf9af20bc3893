"""A robot in a world whose images are poses drives to goals, without ROS and without a network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from come_nav.config import load_config
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Context, Frame, Imagination, Odometry, PlanStatus
from come_nav.localisation.relocalisation import RelocalisationResult
from come_nav.memory.keyframes import KeyframesSettings
from come_nav.navigation.goals.mission import ArrivalSettings, MissionState
from come_nav.navigation.goals.obstacles import ObstacleSettings
from come_nav.navigation.navigator import GoalRequest, Navigator
from come_nav.navigation.settings import NavigatorSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.grid_route import RouteStatus

REACH_M = 8.0  # images tell positions up to this
WALL = np.column_stack([np.arange(-3.0, 2.01, 0.05), np.full(101, 1.0), np.full(101, 0.5)])  # along y = 1, up to x = 2


def image_of(pose_xyyaw):
    """Return an image whose colours tell a pose."""
    x, y, yaw = pose_xyyaw
    levels = [(x + REACH_M) / (2 * REACH_M), (y + REACH_M) / (2 * REACH_M), (se2.wrap_angle(yaw) / np.pi + 1.0) / 2.0]
    return np.broadcast_to(np.round(255.0 * np.array(levels)).astype(np.uint8), (4, 4, 3)).copy()


class PoseModel:
    """Imagines exactly: an image, and its latents, are the pose that it is seen from."""

    image_size, context_frames, rate_hz = 4, 4, 4.0

    def __init__(self):
        self.imagined = 0
        self.meanwhile = lambda: None

    def images_from_rgb(self, frames):
        return torch.stack([torch.from_numpy(frame.copy()).permute(2, 0, 1).float() / 127.5 - 1.0 for frame in frames])

    def encode(self, images):
        return images

    def context_from_frames(self, frames, poses_xyyaw, frame_offsets, *, latents=None):
        relative = torch.from_numpy(se2.relative(poses_xyyaw[-1:], poses_xyyaw)).to(latents)
        return Context(latents[None], relative[None], torch.tensor(frame_offsets).to(latents)[None])

    def imaginer(self, context, rel_frames, mode="jump", *, decode=False):
        model, scale = self, torch.tensor([REACH_M, REACH_M, np.pi])

        class Bound:
            def imagine(self, poses_xyyaw, generator):
                model.imagined += 1
                model.meanwhile()
                start = context.latents[0, -1, :, 0, 0] * scale
                ends = se2.compose(start[None].to(poses_xyyaw), poses_xyyaw[:, -1]) / scale
                return Imagination(poses_xyyaw, ends[..., None, None].expand(-1, -1, 4, 4))

        return Bound()


class Robot:
    """Follows plans exactly, half a second of each, and shows the navigator what it sees."""

    def __init__(self, settings=None, pose=(0.0, 0.0, 0.0), **config):
        self.model = PoseModel()
        keys = {"objective.view_distance": "latent", "planner.limits.v_min_mps": -0.15, **config}
        self.stack = NavStack(self.model, load_config(None, keys))
        self.said: list[str] = []
        self.navigator = Navigator(self.stack, settings or NavigatorSettings(), self.said.append)
        self.pose, self.time_s = np.array(pose, float), 0.0
        self.driven = []
        for _ in range(4):
            self.look()

    def look(self):
        """Pass a quarter of a second and observe."""
        self.time_s += 0.25
        odometry = Odometry(self.time_s, se3.transform_from_xyyaw(self.pose))
        self.navigator.observe(Frame(self.time_s, image_of(self.pose)), odometry)
        self.driven.append(self.pose)

    def explore(self, *poses):
        """Drive to poses one after another, without plans."""
        for end in np.array(poses, float):
            start = self.pose
            for share in np.linspace(0.1, 1.0, 10):
                self.pose = se2.interpolate(start, end, share)
                self.look()

    def step(self):
        """Make one step, and drive what it says."""
        step = self.navigator.step(self.time_s, self.pose)
        plan = step.drive
        if plan is not None and plan.status is PlanStatus.OK:
            for pose in plan.poses_odom_xyyaw()[:2]:
                self.pose = pose
                self.look()
        else:
            self.look()
            self.look()
        return step

    def drive(self, most=80):
        """Step until the mission is over; return the steps."""
        steps = []
        while self.navigator.mission.active and len(steps) < most:
            steps.append(self.step())
        return steps

    def knows(self, pose, difference=0.1):
        """Let memory recognise every image at this pose, or at none."""
        asked = []

        def relocalise(image_rgb, starts, stopped):
            asked.append(starts)
            return None if pose is None else RelocalisationResult(np.array(pose, float), difference)

        self.stack.relocalise = relocalise
        return asked


def test_a_pose_is_driven_to():
    robot = Robot()
    robot.navigator.begin(GoalRequest(pose_odom_xyyaw=np.array([2.0, 0.5, 0.0])))
    steps = robot.drive()
    assert steps[-1].state is MissionState.REACHED
    assert np.hypot(*(robot.pose[:2] - [2.0, 0.5])) < 0.35  # the tolerance, and what the last plan went on
    assert steps[-1].drive.status is PlanStatus.GOAL_MISSING  # whoever follows paths stands still
    assert robot.step().plan is None
    assert robot.model.imagined == 0


@pytest.mark.parametrize("frozen", [True, False])
def test_a_robot_does_not_drive_without_a_fresh_cloud_of_obstacles(frozen):
    robot = Robot(NavigatorSettings(obstacles=ObstacleSettings(max_age_s=1.0)))
    if frozen:
        robot.navigator.obstacles.see(WALL, robot.time_s - 1.5)
    robot.navigator.begin(GoalRequest(pose_odom_xyyaw=np.array([2.0, 0.5, 0.0])))
    before = robot.pose
    step = robot.step()
    assert step.drive.status is PlanStatus.STALE_SENSOR
    assert (
        "newest obstacles are of 1.5 s ago" if frozen else "no cloud of obstacles has come yet"
    ) in step.drive.message
    assert robot.navigator.progress().message.startswith("STALE_SENSOR: ")
    path = robot.navigator.path_to(np.array([1.0, 0.0, 0.0]), robot.time_s)
    assert path.status is RouteStatus.NOT_READY and "obstacles" in path.message
    robot.navigator.blocked(robot.time_s, robot.pose)
    assert robot.step().drive.status is PlanStatus.STALE_SENSOR  # nor backwards
    np.testing.assert_array_equal(robot.pose, before)
    robot.navigator.obstacles.see(WALL, robot.time_s)
    assert robot.step().drive.status is PlanStatus.OK


@pytest.mark.parametrize("clouds_go_on", [True, False])
def test_a_plan_is_not_driven_where_obstacles_fell_silent_during_its_search(clouds_go_on):
    robot = Robot(NavigatorSettings(obstacles=ObstacleSettings(max_age_s=1.0)))
    robot.navigator.obstacles.see(WALL, robot.time_s)
    robot.navigator.begin(GoalRequest(image_rgb=image_of((1.0, 0.0, 0.0))))

    def a_slow_search():
        robot.model.meanwhile = lambda: None
        for _ in range(5):  # the camera goes on
            robot.look()
        if clouds_go_on:
            robot.navigator.obstacles.see(WALL, robot.time_s)

    robot.model.meanwhile = a_slow_search
    step = robot.step()
    assert step.drive.status is (PlanStatus.OK if clouds_go_on else PlanStatus.STALE_SENSOR)


def test_a_path_for_others_is_whole_and_leads_round_obstacles_and_touches_no_mission():
    robot = Robot()
    robot.navigator.obstacles.see(WALL)
    goal = np.array([0.0, 2.0, 1.0])
    path = robot.navigator.path_to(goal, robot.time_s)
    assert path.status is RouteStatus.OK
    np.testing.assert_allclose(path.path_xyyaw[[0, -1]], [robot.pose, goal], atol=1e-9)
    assert np.linalg.norm(path.path_xyyaw[:, None, :2] - WALL[None, :, :2], axis=-1).min() >= 0.25
    assert robot.navigator.path_to(np.array([0.0, 1.1, 0.0]), robot.time_s).status is RouteStatus.GOAL_OCCUPIED
    from_elsewhere = robot.navigator.path_to(goal, robot.time_s, np.array([0.0, 3.0, 0.0])).path_xyyaw
    np.testing.assert_allclose(from_elsewhere[0], [0.0, 3.0, 0.0])
    assert robot.navigator.path_to(goal, robot.time_s, np.array([0.0, 1.1, 0.0])).status is RouteStatus.START_OCCUPIED
    assert robot.navigator.path_to(goal, robot.time_s + 5.0).status is RouteStatus.NOT_READY  # a frozen camera
    assert robot.navigator.mission.state is MissionState.IDLE


def test_an_image_that_memory_does_not_know_is_reached_by_its_view():
    robot = Robot(NavigatorSettings(arrival=ArrivalSettings(difference=0.05)))
    goal = np.array([0.9, 0.2, 0.2])
    robot.navigator.begin(GoalRequest(image_rgb=image_of(goal)))
    assert robot.drive()[-1].state is MissionState.REACHED
    np.testing.assert_allclose(robot.pose[:2], goal[:2], atol=0.3)
    assert robot.model.imagined > 0


@pytest.mark.parametrize("kind", ["time", "place", "recognised image"])
def test_memory_leads_round_a_wall_to_where_the_robot_was(kind):
    settings = NavigatorSettings(arrival=ArrivalSettings(tolerance_rad=3.2), keyframes=KeyframesSettings(spacing_m=0.2))
    robot = Robot(settings)
    robot.explore((2.6, 0.0, 0.0), (2.6, 2.0, np.pi / 2), (0.0, 2.0, np.pi))
    there, then_s = robot.pose, robot.time_s
    robot.explore((2.6, 2.0, 0.0), (2.6, 0.0, -np.pi / 2), (0.0, 0.0, np.pi))
    robot.navigator.obstacles.see(WALL)
    request = {
        "time": GoalRequest(time_s=then_s),
        "place": GoalRequest(place_odom_xyyaw=there),
        "recognised image": GoalRequest(image_rgb=image_of(there)),
    }[kind]
    robot.knows(there)
    robot.driven.clear()
    robot.navigator.begin(request)
    steps = robot.drive()
    assert steps[-1].state is MissionState.REACHED
    assert np.hypot(*(robot.pose[:2] - there[:2])) < 0.5
    gaps_m = np.linalg.norm(np.array(robot.driven)[:, None, :2] - WALL[None, :, :2], axis=-1)
    assert gaps_m.min() > 0.2
    assert steps[0].way_xy is not None and steps[0].target.image_rgb is None
    assert ("the image was taken at (0.00, 2.00)" in "".join(robot.said)) == (kind == "recognised image")


def test_what_is_left_shrinks_on_the_way():
    robot = Robot()
    robot.explore((4.0, 0.0, 0.0))
    robot.explore((0.0, 0.0, 0.0))
    robot.navigator.begin(GoalRequest(place_odom_xyyaw=np.array([4.0, 0.0, 0.0])))
    robot.step()
    before = robot.navigator.progress()
    assert (before.state, before.message) == (MissionState.ACTIVE, "on the way")
    assert before.distance_left_m == pytest.approx(4.0, abs=0.5)  # the last key frame lies before the end
    assert before.difference > 0.0
    for _ in range(5):
        robot.step()
    assert robot.navigator.progress().distance_left_m < before.distance_left_m - 0.5


def test_a_guided_mission_searches_from_the_plan_before():
    robot = Robot()
    robot.explore((4.0, 0.0, 0.0))
    robot.explore((0.0, 0.0, 0.0))
    robot.navigator.begin(GoalRequest(place_odom_xyyaw=np.array([4.0, 0.0, 0.0])))
    cold, warm = (robot.step() for _ in range(2))
    assert cold.target is not warm.target and warm.way_xy is not None
    spread = [step.plan.trace.iterations[0].std for step in (cold, warm)]
    assert bool((spread[1] < 0.6 * spread[0]).all())


def test_each_switch_turns_one_thing_off():
    there = np.array([4.0, 0.0, 0.0])
    robot = Robot()
    robot.explore(there, (0.0, 0.0, 0.0))
    asked = robot.knows(there)

    def first(**switches):
        robot.navigator.settings = NavigatorSettings(**switches)
        asked.clear()
        robot.model.imagined = 0
        robot.navigator.begin(GoalRequest(image_rgb=image_of(there)))
        step = robot.navigator.step(robot.time_s, robot.pose)
        return step, robot.model.imagined

    step, imagined = first()
    assert asked and step.way_xy is not None and not imagined
    step, imagined = first(use_recognition=False)
    assert not asked and step.way_xy is None and step.target.pose_odom_xyyaw is None and imagined
    step, imagined = first(use_route=False)
    assert asked and step.way_xy is None and not imagined
    np.testing.assert_array_equal(step.target.pose_odom_xyyaw, there)
    step, imagined = first(use_places=False)
    assert not asked and step.way_xy is None and imagined
    step, imagined = first(use_imagination=False)
    assert asked and step.plan.status is PlanStatus.OK and not imagined
    step, imagined = first(use_imagination=False, use_recognition=False)
    assert step.plan.status is PlanStatus.GOAL_MISSING and not imagined
    assert robot.navigator.mission.message == "GOAL_MISSING: no goal was given"


def test_a_later_goal_ends_the_search_for_the_one_before():
    robot = Robot()
    robot.explore((2.0, 0.0, 0.0))
    later = GoalRequest(pose_odom_xyyaw=np.array([3.0, 0.0, 0.0]))
    seen = []

    def relocalise(image_rgb, starts, stopped):
        seen.append(stopped())
        robot.navigator.begin(later)
        seen.append(stopped())
        return RelocalisationResult(np.zeros(3), 0.1)

    robot.stack.relocalise = relocalise
    robot.navigator.begin(GoalRequest(image_rgb=image_of((0.0, 0.0, 0.0))))
    assert robot.navigator.progress().message == "looking in memory for where the image was taken"
    step = robot.navigator.step(robot.time_s, robot.pose)
    assert seen == [False, True]
    assert step.plan is None and step.state is MissionState.ACTIVE
    step = robot.navigator.step(robot.time_s, robot.pose)
    np.testing.assert_array_equal(robot.navigator.mission.goal.pose_odom_xyyaw, later.pose_odom_xyyaw)
    assert step.plan.status is PlanStatus.OK


@pytest.mark.parametrize("what", ["cancel", "forget"])
def test_a_plan_is_dropped_that_was_overtaken_while_it_was_searched(what):
    robot = Robot()
    robot.navigator.begin(GoalRequest(image_rgb=image_of((1.0, 0.0, 0.0))))
    robot.model.meanwhile = getattr(robot.navigator, what)
    step = robot.navigator.step(robot.time_s, robot.pose)
    assert step.plan is None
    assert step.state is (MissionState.CANCELLED if what == "cancel" else MissionState.ACTIVE)


def test_a_robot_that_is_blocked_backs_off_and_does_not_go_there_again():
    robot = Robot()
    robot.navigator.begin(GoalRequest(pose_odom_xyyaw=np.array([2.5, 1.5, 0.8])))
    robot.step()
    stuck = robot.pose
    robot.navigator.blocked(robot.time_s, stuck)
    step = robot.navigator.step(robot.time_s, stuck)
    assert step.retreating and step.drive.poses_xyyaw[-1, 0] < -0.2
    again = robot.navigator.step(robot.time_s + 0.1, stuck)
    assert again.retreating and again.plan is None  # the way back is still being driven
    for pose in step.plan.poses_odom_xyyaw():
        robot.pose = pose
        robot.look()
    robot.driven.clear()
    onwards = [robot.step() for _ in range(6)]
    assert not any(step.retreating for step in onwards)
    assert {step.plan.status for step in onwards} == {PlanStatus.OK}
    touched = robot.navigator.obstacles.points_odom_xy
    assert len(touched) and np.linalg.norm(np.array(robot.driven)[:, None, :2] - touched[None], axis=-1).min() > 0.2


def test_an_image_that_seems_reached_is_asked_of_memory_once_more():
    settings = NavigatorSettings(arrival=ArrivalSettings(confirmations=1, difference=2.0, tolerance_m=5.0))
    robot = Robot(settings)
    robot.explore((1.0, 0.0, 0.0))
    robot.knows(None)
    robot.navigator.begin(GoalRequest(image_rgb=image_of((1.0, 0.0, 0.0))))
    elsewhere = np.array([7.0, 0.0, 0.0])
    robot.model.meanwhile = lambda: robot.knows(elsewhere)  # it has seen more meanwhile
    step = robot.step()
    assert step.state is MissionState.ACTIVE
    np.testing.assert_array_equal(robot.navigator.mission.goal.pose_odom_xyyaw, elsewhere)


def test_an_arrival_that_memory_would_sooner_look_for_elsewhere_is_taken_back():
    loose = ArrivalSettings(confirmations=1, difference=2.0, tolerance_m=5.0)
    robot = Robot(NavigatorSettings(arrival=loose))
    robot.explore((1.0, 0.0, 0.0))
    asked = robot.knows((7.0, 0.0, 0.0), difference=0.5)  # a guess, not recognised
    robot.navigator.begin(GoalRequest(image_rgb=image_of((1.0, 0.0, 0.0))))
    first = robot.step()
    assert first.state is MissionState.ACTIVE and robot.navigator.mission.reopened == 1
    assert robot.navigator.mission.goal.pose_odom_xyyaw is None
    searches = len(asked)
    turning = robot.navigator.step(robot.time_s + 0.5, robot.pose)
    assert turning.retreating and turning.drive is not None  # it looks around first
    states = [robot.step().state for _ in range(60) if robot.navigator.mission.active]
    assert len(asked) > searches + 2  # asked anew after each turn, and at each arrival
    assert (states[-1], robot.navigator.mission.code) == (MissionState.FAILED, "NOT_CONFIRMED")


@pytest.mark.parametrize("guess", [None, (1.0, 0.0, 0.0)])
def test_an_arrival_stands_where_memory_knows_nothing_or_guesses_the_same_place(guess):
    loose = ArrivalSettings(confirmations=1, difference=2.0, tolerance_m=5.0)
    robot = Robot(NavigatorSettings(arrival=loose))
    robot.explore((1.0, 0.0, 0.0))
    robot.knows(guess, difference=0.5)
    robot.navigator.begin(GoalRequest(image_rgb=image_of((1.0, 0.0, 0.0))))
    assert robot.step().state is MissionState.REACHED


def test_goals_that_are_none_leave_the_mission_as_it_is():
    robot = Robot(NavigatorSettings(keyframes=KeyframesSettings(spacing_m=9.0)))
    robot.navigator.forget(everything=True)
    robot.navigator.begin(GoalRequest(pose_odom_xyyaw=np.array([3.0, 0.0, 0.0])))
    for request in (GoalRequest(time_s=1.0), GoalRequest(place_odom_xyyaw=np.zeros(3))):
        with pytest.raises(DataError, match="no place is remembered yet"):
            robot.navigator.begin(request)
    with pytest.raises(DataError, match="needs an image or a pose"):
        robot.navigator.begin(GoalRequest())
    assert robot.navigator.mission.active
    robot.navigator.cancel()
    assert robot.navigator.progress().state is MissionState.CANCELLED


def test_a_path_for_somebody_else_leaves_the_mission_as_it_is():
    robot = Robot()
    goal = GoalRequest(pose_odom_xyyaw=np.array([2.0, 0.0, 0.0]))
    robot.navigator.begin(goal)
    before = robot.navigator.step(robot.time_s, robot.pose)
    path = robot.navigator.path_to(np.array([1.0, 0.0, 0.0]), robot.time_s)
    np.testing.assert_allclose(path.path_xyyaw[-1], [1.0, 0.0, 0.0], atol=1e-9)
    after = robot.navigator.step(robot.time_s, robot.pose)
    assert (before.state, after.state) == (MissionState.ACTIVE,) * 2
    assert bool((after.plan.trace.iterations[0].std < before.plan.trace.iterations[0].std).all())  # still its own


def test_rules_that_change_count_at_once():
    robot = Robot()
    robot.navigator.begin(GoalRequest(pose_odom_xyyaw=np.array([2.0, 0.0, 0.0])))
    assert robot.step().state is MissionState.ACTIVE
    loose = replace(robot.navigator.settings, arrival=ArrivalSettings(tolerance_m=3.0, tolerance_rad=3.2))
    robot.navigator.settings = loose
    assert robot.step().state is MissionState.REACHED
