"""Goal images of another camera than the robot's: of known field of view, of an unknown one, and told by the goal."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model_samples import EyesOnly

from come_nav.config import load_config
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame, Goal, Odometry, camera_of_image
from come_nav.navigation.goals.guide import Guide, GuideSettings
from come_nav.navigation.goals.places import Places
from come_nav.navigation.navigator import GoalRequest, Navigator
from come_nav.navigation.settings import NavigatorSettings
from come_nav.navigation.stack import NavStack
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.sim.worlds import generate_world

ROBOT = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)
UPRIGHT = CameraIntrinsics.from_field_of_view(480, 640, math.radians(58.0))
WIDE = CameraIntrinsics.from_field_of_view(400, 300, math.radians(63.0))  # the shape of the robot's, another lens
GOAL = np.array([0.15, 0.05, 1.4])  # from where the robot turned
SEEN = 6  # the robot's frame that looks that way


@pytest.fixture(scope="module")
def world():
    world = generate_world(10001)
    return world, BuiltInSimulator.in_world(world, seed=3).pose_world_xyyaw


@pytest.fixture(scope="module")
def stack(world) -> NavStack:
    """A robot that turned on the spot, and last looked the other way."""
    raycaster, start = Raycaster([world[0]], ROBOT), world[1]
    poses = np.array([[0.0, 0.0, 0.22 * step] for step in range(16)])
    images, depth = raycaster.render(torch.from_numpy(se2.compose(start[None], poses)))
    stack = NavStack(EyesOnly(), load_config(None, {"experts.use": []}), background_training=False)
    for step, image in enumerate(to_uint8(images)):
        frame = Frame(0.25 * step, image, depth[step].numpy(), ROBOT, camera_in_base(0.5))
        stack.observe(frame, Odometry(frame.stamp_s, se3.transform_from_xyyaw(poses[step])))
    return stack


def photograph(world, camera: CameraIntrinsics) -> np.ndarray:
    images, _ = Raycaster([world[0]], camera).render(torch.from_numpy(se2.compose(world[1], GOAL)[None]))
    return to_uint8(images)[0]


def off_m_rad(sighting) -> tuple[float, float]:
    away = se2.relative(GOAL, sighting.pose_odom_xyyaw)
    return float(np.hypot(*away[:2])), float(abs(away[2]))


@pytest.mark.parametrize("camera", [UPRIGHT, WIDE], ids=["upright", "wide"])
def test_a_photograph_of_a_known_camera_is_found_among_key_frames(world, stack, camera) -> None:
    found = stack.goals.sighting(photograph(world, camera), camera)
    assert found is not None
    assert found.found_by == "key frame"
    assert off_m_rad(found)[0] < 0.05
    assert off_m_rad(found)[1] < 0.03


def test_a_photograph_of_another_shape_has_its_focal_length_from_the_matches(world, stack) -> None:
    found = stack.goals.sighting(photograph(world, UPRIGHT))
    assert found is not None
    assert off_m_rad(found)[0] < 0.2
    assert off_m_rad(found)[1] < 0.1


def test_an_unknown_camera_of_the_robots_shape_must_be_said_to_be_one(world, stack) -> None:
    image = photograph(world, WIDE)
    own, unknown = stack.goals.sighting(image), stack.goals.sighting(image, "unknown")
    assert unknown is not None
    assert off_m_rad(unknown)[0] < 0.25
    assert own is None or not own.certain or off_m_rad(own)[0] > 2 * off_m_rad(unknown)[0], "the wrong focal length"


@pytest.mark.parametrize("camera", [UPRIGHT, "unknown", None], ids=["known", "unknown", "not told"])
def test_a_photograph_is_registered_to_the_newest_frames_too(world, stack, camera) -> None:
    """The newest frames here are those that look towards the goal."""
    image, recent = photograph(world, UPRIGHT), stack.memory.newest_frames(16)[SEEN - 3 : SEEN + 1]
    found = stack.goals._recent.find(image, recent, stack.settings.localisation, camera)
    assert found is not None
    assert found.found_by == "newest frames"
    assert off_m_rad(found)[0] < (0.05 if camera is UPRIGHT else 0.2)


def test_a_goal_carries_its_camera_through_the_navigator(world, stack) -> None:
    """What memory finds, what the guide heads for and what confirms the arrival know who took the image."""
    navigator, image = Navigator(stack, NavigatorSettings()), photograph(world, UPRIGHT)
    goal = navigator.begin(GoalRequest(image_rgb=image, camera=UPRIGHT))
    assert goal.camera is UPRIGHT
    navigator.step(stack.memory.newest.stamp_s + 99.0)  # too late for a plan
    known = navigator.mission.goal
    assert known.camera is UPRIGHT
    if known.pose_odom_xyyaw is not None:
        assert off_m_rad(SimpleNamespace(pose_odom_xyyaw=known.pose_odom_xyyaw))[0] < 0.05
    guide = Guide(Places(None, None), GuideSettings(use_ways=False, approach_by_view=True))
    guide.begin(Goal(image, GOAL, UPRIGHT))
    target, final = guide.target(np.array([0.0, 0.0, 1.4]))
    assert final
    assert target.camera is UPRIGHT
    assert target.image_rgb is image


def test_a_camera_of_another_size_than_the_image_is_refused() -> None:
    with pytest.raises(DataError, match="480x640, the goal's image has 400x300"):
        Goal(np.zeros((300, 400, 3), np.uint8), camera=UPRIGHT)


def test_the_robots_own_camera_counts_for_images_of_its_shape_alone() -> None:
    small, other = np.zeros((120, 160, 3), np.uint8), np.zeros((160, 120, 3), np.uint8)
    assert camera_of_image(None, ROBOT, small) == ROBOT.scaled(160, 120)
    assert camera_of_image(None, ROBOT, other) is None
    assert camera_of_image("unknown", ROBOT, small) is None
    assert camera_of_image(UPRIGHT, ROBOT, small) is UPRIGHT
