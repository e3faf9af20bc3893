"""Goal images of another camera than the robot's: told by goal_camera_info, or by a parameter."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from come_nav.core.types import CameraIntrinsics
from come_nav.ros import messages
from come_nav.ros.planner.action_goals import ActionGoal
from come_nav.ros.planner.planner_requests import PlannerRequests

PHONE = CameraIntrinsics.from_field_of_view(48, 64, 1.0)
RGB = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)


def asked(fov_deg: float, *posts, action: bool = False):
    """Return what the navigator is asked for after these posts."""
    begun: list = []
    node = SimpleNamespace(values={"goal_fov_deg": fov_deg}, log=SimpleNamespace(info=lambda text: None))
    node.diagnose = lambda error, where: begun.append(error)
    navigator = SimpleNamespace(begin=begun.append)
    actions = SimpleNamespace(begin=lambda goal, progress: None, refuse=lambda goal, why, progress: None)
    output = SimpleNamespace(action_goals=actions, tell=lambda: None, progress=lambda: None)
    goals = SimpleNamespace(failed=lambda steady_s, why: None)
    requests = PlannerRequests(node, navigator, None, output, goals)
    for kind, message in posts:
        requests.post(kind, message)
    assert not (posts[0][0] == "camera_info" and len(posts) == 1 and requests.urgent)
    requests.obey()
    return begun


def image(frame_id: str = "phone"):
    return messages.image_message(RGB, 1.0, frame_id)


@pytest.mark.parametrize("action", [False, True])
@pytest.mark.parametrize("frame_id", ["phone", ""])
def test_camera_info_before_the_image_tells_its_camera(frame_id: str, action: bool):
    info = messages.camera_info_message(PHONE, 0.0, frame_id)
    goal = ActionGoal(image(), lambda progress: None, lambda ending: None) if action else image()
    (request,) = asked(0.0, ("camera_info", info), ("action_goal" if action else "image", goal))
    assert request.camera.fx == pytest.approx(PHONE.fx)
    assert (request.camera.width, request.camera.height) == (48, 64)
    np.testing.assert_array_equal(request.image_rgb, RGB)


def test_distorted_goal_images_are_straightened():
    info = messages.camera_info_message(PHONE, 0.0, "phone")
    info.distortion_model, info.d = "plumb_bob", [-0.3, 0.1, 0.0, 0.0, 0.0]
    (request,) = asked(0.0, ("camera_info", info), ("image", image()))
    assert np.abs(request.image_rgb.astype(int) - RGB).max() > 20


def test_camera_info_of_another_frame_is_not_the_images():
    info = messages.camera_info_message(PHONE, 0.0, "other")
    (request,) = asked(0.0, ("camera_info", info), ("image", image()))
    assert request.camera is None


def test_the_parameter_tells_how_wide_goal_images_are():
    (request,) = asked(90.0, ("image", image()))
    assert (request.camera.fx, request.camera.width, request.camera.height) == (pytest.approx(24.0), 48, 64)
    (request,) = asked(0.0, ("image", image()))
    assert request.camera is None


def test_camera_info_alone_is_no_goal_and_does_not_end_a_search():
    assert asked(0.0, ("camera_info", messages.camera_info_message(PHONE, 0.0, "phone"))) == []
