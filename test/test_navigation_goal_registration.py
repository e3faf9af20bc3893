"""Goal images on a real camera: registered to the newest frames and to key frames, or said not to be recognised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from come_nav.config import load_config
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.types import CameraIntrinsics, Frame, Goal, Imagination, Odometry, PlanStatus
from come_nav.data.opening import open_recording
from come_nav.evaluation.suites.camera_model import CameraModel
from come_nav.memory.short_term import Remembered
from come_nav.navigation.goals.mission import MissionState
from come_nav.navigation.localising.goal_registration import GoalRegistration
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.navigation.navigator import GoalRequest, Navigator
from come_nav.navigation.settings import NavigatorSettings, RecognitionSettings
from come_nav.navigation.stack import NavStack

MEMORY, LATER, BESIDE = 40, 90, 96  # frames at 4 Hz: the memory's end; a start much later, and a goal 1.5 s after it
Image = NDArray[np.uint8]
LEVEL = level_camera(0.5)[0].numpy().astype(np.float64)


class BlindModel(CameraModel):
    """Sees the same small image whatever it is shown: registration alone can tell anything."""

    context_frames, image_size = 4, 4

    def images_from_rgb(self, frames):
        return torch.zeros(len(frames), 3, 4, 4)


class Blind:
    def imagine(self, poses_xyyaw, generator):
        return Imagination(poses_xyyaw, torch.zeros(len(poses_xyyaw), 3, 4, 4))


def stack_of(**keys) -> NavStack:
    return NavStack(BlindModel(4.0), load_config(None, {"memory.tolerance": 0.5, **keys}), background_training=False)


def show(stack, recording, frames, change=lambda frame: frame) -> None:
    for index in frames:
        stack.observe(change(recording.frame(index)), Odometry(recording.stamps_s[index], recording.T_odom_base[index]))


def test_another_room_at_the_same_times_is_not_taken_for_the_one_before() -> None:
    """A simulator or a bag that begins anew has the stamps of before."""
    camera = CameraIntrinsics.from_field_of_view(320, 240, 1.3)
    depth = np.fromfunction(lambda v, u: 2.0 + u / 300, (240, 320)).astype(np.float32)

    def wall(seed: int) -> Image:
        coarse = np.random.default_rng(seed).integers(0, 255, (30, 40, 3)).astype(np.uint8)
        return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)

    def seen(rgb: Image) -> list[Remembered]:
        frames = [Frame(0.25 * step, rgb.copy(), depth, camera, LEVEL) for step in range(4)]
        return [Remembered(frame.stamp_s, np.zeros(3), frame, None) for frame in frames]

    registration, settings = GoalRegistration(), LocalisationSettings()
    for here, elsewhere in ((wall(1), wall(2)), (wall(2), wall(1))):
        frames = seen(here)
        for _ in range(2):  # features of frames that stay are found once
            assert registration.find(here.copy(), frames, settings).certain
        other = registration.find(elsewhere, frames, settings)
        assert other is None or not other.certain


@pytest.fixture(scope="module")
def kitchen(shared_data: Path):
    return open_recording(shared_data / "bags" / "kitchen", rate_hz=4.0)


@pytest.fixture(scope="module")
def cabinet(shared_data: Path):
    return open_recording(shared_data / "bags" / "cabinet", rate_hz=None)


@pytest.fixture(scope="module")
def explored(kitchen) -> NavStack:
    """A robot that remembers the first part of the kitchen."""
    stack = stack_of()
    show(stack, kitchen, range(MEMORY))
    return stack


def away(kitchen, index: int, pose_odom_xyyaw) -> NDArray[np.float64]:
    return se2.relative(kitchen.poses_xyyaw[index], pose_odom_xyyaw)


def test_a_goal_in_view_is_registered_to_the_newest_frames_without_any_memory(kitchen) -> None:
    stack = stack_of(**{"localisation.visual.spacing_m": 1000.0, "localisation.visual.spacing_rad": 1000.0})
    show(stack, kitchen, range(LATER - 3, LATER + 1))
    found = stack.goals.sighting(kitchen.frame(BESIDE).rgb)
    assert found is not None
    assert found.certain
    assert found.found_by == "newest frames"
    assert np.abs(away(kitchen, BESIDE, found.pose_odom_xyyaw)).max() < 0.12
    assert (np.linalg.eigvalsh(found.covariance) > 0.0).all()
    # a photograph of another size by the same camera is the same photograph
    half = cv2.resize(kitchen.frame(BESIDE).rgb, (160, 120), interpolation=cv2.INTER_AREA)
    smaller = stack.goals.sighting(half)
    assert smaller is not None
    assert np.abs(away(kitchen, BESIDE, smaller.pose_odom_xyyaw)).max() < 0.3


def test_the_features_of_a_frame_are_found_once(kitchen, monkeypatch) -> None:
    from come_nav.navigation.localising import goal_registration

    seen = []
    make = goal_registration.make_view
    monkeypatch.setattr(goal_registration, "make_view", lambda rgb, *rest: seen.append(id(rgb)) or make(rgb, *rest))
    stack, image = stack_of(), kitchen.frame(BESIDE).rgb
    show(stack, kitchen, range(LATER - 3, LATER + 1))
    for _ in range(2):
        stack.goals.sighting(image)
    assert len(seen) == 5  # four frames and the image
    show(stack, kitchen, [LATER + 1])
    stack.goals.sighting(image)
    assert len(seen) == 6


def test_a_camera_without_depth_registers_to_points_that_it_saw_from_several_places(kitchen) -> None:
    stack = stack_of(**{"localisation.recent_frames": 8})
    show(stack, kitchen, range(LATER - 7, LATER + 1), lambda frame: replace(frame, depth_m=None))
    found = stack.goals.sighting(kitchen.frame(LATER + 4).rgb)
    assert found is not None
    assert np.abs(away(kitchen, LATER + 4, found.pose_odom_xyyaw)).max() < 0.25


def test_a_plan_leads_to_a_registered_goal_and_says_so(kitchen) -> None:
    keys = {"robot.kinematics": "holonomic", "planner.limits.v_min_mps": -0.6, "planner.limits.a_max_mps2": 5.0}
    stack = stack_of(**keys)
    show(stack, kitchen, range(LATER - 3, LATER + 1))
    goal = Goal(image_rgb=kitchen.frame(LATER + 8).rgb)
    plan = stack.plan(goal, imaginer=Blind())
    assert plan.status is PlanStatus.OK
    assert plan.registered_to == "newest frames"
    assert "goal registered to the newest frames: +-0.0" in plan.message
    assert np.hypot(*away(kitchen, LATER + 8, plan.poses_odom_xyyaw()[-1])[:2]) < 0.1
    unregistered = stack.plan(goal, imaginer=Blind(), registers=False)
    assert unregistered.registered_to is None
    assert "registered" not in unregistered.message
    stack.settings = replace(stack.settings, localisation=replace(stack.settings.localisation, use=False))
    assert stack.plan(goal, imaginer=Blind()).registered_to is None


def test_a_prior_of_motion_does_not_hold_back_from_a_registered_goal(kitchen) -> None:
    prior = {"motion_prior.use": "always", "motion_prior.weight": 1000.0, "motion_prior.v_sigma_mps": 0.02}
    keys = {"robot.kinematics": "holonomic", "planner.limits.v_min_mps": -0.6, "planner.limits.a_max_mps2": 5.0}
    stack = stack_of(**keys, **prior)
    show(stack, kitchen, range(LATER - 3, LATER + 1))
    goal = Goal(image_rgb=kitchen.frame(LATER + 8).rgb)
    ends = {}
    for registers in (True, False):
        plan = stack.plan(goal, imaginer=Blind(), registers=registers)
        ends[registers] = np.hypot(*away(kitchen, LATER + 8, plan.poses_odom_xyyaw()[-1])[:2])
    assert ends[True] < 0.1
    assert ends[False] > 0.2  # there it goes on as it moves


def test_what_an_image_of_few_pixels_shows_is_not_registered(kitchen) -> None:
    def small(frame: Frame) -> Frame:
        size = (64, 48)
        rgb = cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA)
        depth = cv2.resize(frame.depth_m, size, interpolation=cv2.INTER_NEAREST)
        return replace(frame, rgb=rgb, depth_m=depth, intrinsics=frame.intrinsics.scaled(*size))

    stack = stack_of()
    show(stack, kitchen, range(LATER - 3, LATER + 1), small)
    image = small(kitchen.frame(BESIDE)).rgb
    assert not stack.goals.has_features(image)
    assert stack.goals.sighting(image) is None
    assert stack.plan(Goal(image_rgb=image), imaginer=Blind()).registered_to is None


def test_memory_tells_where_an_image_was_taken(explored, kitchen) -> None:
    explored.forget_recent()
    found = explored.goals.sighting(kitchen.frame(21).rgb)
    assert found is not None
    assert found.certain
    assert found.found_by == "key frame"
    assert np.abs(away(kitchen, 21, found.pose_odom_xyyaw)).max() < 0.2


def textureless(rgb: Image) -> Image:
    return np.full_like(rgb, 127)


def dark(rgb: Image) -> Image:
    return (rgb * 0.02).astype(np.uint8)


def blurred(rgb: Image) -> Image:
    return cv2.GaussianBlur(rgb, (0, 0), 12.0)


def upside_down(rgb: Image) -> Image:
    return np.ascontiguousarray(rgb[::-1, ::-1])


def grey(rgb: Image) -> Image:
    return np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def fisheye(rgb: Image) -> Image:
    height, width = rgb.shape[:2]
    u, v = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2)
    radius = np.hypot(u, v) / (0.5 * height)
    far = np.tan(np.minimum(0.9 * radius, 1.5)) / np.maximum(0.9 * radius, 1e-6)
    return cv2.remap(
        rgb, (u * far + width / 2).astype(np.float32), (v * far + height / 2).astype(np.float32), cv2.INTER_LINEAR
    )


@pytest.mark.parametrize("spoil", [textureless, dark, blurred, upside_down, grey, fisheye])
def test_a_spoiled_image_is_found_where_it_was_taken_or_not_at_all(explored, kitchen, spoil) -> None:
    """Whoever is told of a certain place is told the right one."""
    explored.forget_recent()
    certain = 0
    for index in (9, 21, 30):
        found = explored.goals.sighting(spoil(kitchen.frame(index).rgb))
        if found is not None and found.certain:
            certain += 1
            assert np.abs(away(kitchen, index, found.pose_odom_xyyaw)).max() < 0.25
    assert (certain > 0) == (spoil is grey) or spoil is upside_down


def test_depth_of_which_half_is_missing_is_enough(kitchen) -> None:
    def half(frame: Frame) -> Frame:
        depth = frame.depth_m.copy()
        depth[:, ::2] = np.nan
        depth[:120] = 0.0
        return replace(frame, depth_m=depth)

    stack = stack_of()
    show(stack, kitchen, range(LATER - 3, LATER + 1), half)
    found = stack.goals.sighting(kitchen.frame(LATER + 3).rgb)
    assert found is not None
    assert np.abs(away(kitchen, LATER + 3, found.pose_odom_xyyaw)).max() < 0.15


@pytest.mark.parametrize("unknown", ["explore", "refuse"])
def test_a_place_never_seen_is_not_recognised(explored, kitchen, cabinet, unknown) -> None:
    said: list[str] = []
    settings = NavigatorSettings(recognition=RecognitionSettings(unknown=unknown))
    show(explored, kitchen, range(MEMORY - 4, MEMORY))
    navigator = Navigator(explored, settings, said.append)
    for index in (5, 30):
        navigator.begin(GoalRequest(image_rgb=cabinet.frame(index).rgb))
        navigator._look_for_goal(lambda: False)
        assert said[-1].startswith("the image is not recognised")
        assert navigator.mission.goal is not None
        assert navigator.mission.goal.pose_odom_xyyaw is None
        if unknown == "refuse":
            assert (navigator.mission.state, navigator.mission.code) == (MissionState.FAILED, "NOT_RECOGNISED")
            assert navigator.step(float(kitchen.stamps_s[MEMORY - 1])).plan is None
        else:
            assert navigator.mission.active


def test_the_navigator_says_what_found_an_image_and_how_sure_it_is(explored, kitchen) -> None:
    explored.forget_recent()
    said: list[str] = []
    navigator = Navigator(explored, NavigatorSettings(), said.append)
    navigator.begin(GoalRequest(image_rgb=kitchen.frame(21).rgb))
    navigator._look_for_goal(lambda: False)
    assert said[-1].startswith("the image was taken at (")
    assert said[-1].endswith("% sure, by features")
    goal = navigator.mission.goal
    assert goal is not None
    assert np.abs(away(kitchen, 21, goal.pose_odom_xyyaw)).max() < 0.2


def test_an_arrival_is_confirmed_or_taken_back_by_registration(kitchen) -> None:
    stack = stack_of()
    show(stack, kitchen, range(LATER - 3, LATER + 1))
    image = kitchen.frame(LATER + 8).rgb
    true = kitchen.poses_xyyaw[LATER + 8]
    navigator = Navigator(stack, NavigatorSettings())
    beside = se2.compose(true, np.array([0.6, 0.0, 0.0]))
    for believed, reached in ((beside, False), (true, True)):
        goal = Goal(image, believed)
        navigator.begin(GoalRequest(image_rgb=image, pose_odom_xyyaw=believed))
        goal = navigator.mission.goal
        assert goal is not None
        navigator.mission.state = MissionState.REACHED
        navigator._confirm(goal, image, believed, lambda: False)
        assert (navigator.mission.state is MissionState.REACHED) == reached
        if reached:
            assert navigator.mission.message.startswith("goal reached; its image was taken 0.")
        else:
            assert navigator.mission.goal.pose_odom_xyyaw is not None
            assert np.hypot(*se2.relative(true, navigator.mission.goal.pose_odom_xyyaw)[:2]) < 0.15
