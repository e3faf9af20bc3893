"""Core types to ROS messages and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Odometry, Plan, PlanStatus
from come_nav.data.bags.calibration import camera_intrinsics
from come_nav.data.bags.images import decode_colour, decode_depth

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from come_nav.planning.retiming import retimed
from come_nav.ros import messages
from come_nav.ros.planner.markers import candidate_markers, cost_colours

IMAGE = "sensor_msgs/msg/Image"
POSES = hnp.arrays(np.float64, (5, 3), elements=st.floats(-3, 3))


def plan_of(poses: np.ndarray, stamp_s: float = 10.0, start: np.ndarray | None = None) -> Plan:
    return Plan(PlanStatus.OK, stamp_s, 0.25, poses, np.zeros(3) if start is None else start, 0.1)


@given(st.floats(0, 4e9))
def test_stamps_survive(seconds):
    back = messages.seconds_from_stamp(messages.stamp_from_seconds(seconds))
    assert back == pytest.approx(seconds, abs=1e-6)


def test_a_stamp_is_never_negative():
    assert messages.stamp_from_seconds(-3.0).sec == 0


def test_colour_survives_and_header_is_kept():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    message = messages.image_message(rgb, 12.5, "cam")
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 500_000_000)
    assert message.header.frame_id == "cam"
    np.testing.assert_array_equal(decode_colour(message, IMAGE), rgb)


@pytest.mark.parametrize(("encoding", "tolerance"), [("32FC1", 0.0), ("16UC1", 5.1e-4)])
def test_depth_survives_with_unknown_as_nan(encoding, tolerance):
    depth = np.array([[0.5, np.nan], [3.2104, 12.0]], np.float32)
    back = decode_depth(messages.depth_message(depth, 1.0, "cam", encoding), IMAGE)
    np.testing.assert_allclose(back, depth, atol=tolerance)


def test_depth_of_an_unknown_encoding_is_refused():
    with pytest.raises(DataError, match="32FC1 or 16UC1, got 'rgb8'"):
        messages.depth_message(np.ones((2, 2), np.float32), 0.0, "cam", "rgb8")


def test_camera_info_counts_pixels_from_their_centres():
    camera = CameraIntrinsics(320, 240, 250.0, 251.0, 160.0, 120.0)
    message = messages.camera_info_message(camera, 0.0, "cam")
    assert message.k[2] == 159.5
    assert message.k[5] == 119.5
    assert camera_intrinsics(message, (320, 240), "info", []) == camera
    assert camera_intrinsics(message, (160, 120), "info", []) == camera.scaled(160, 120)


@given(POSES)
def test_poses_survive(poses):
    for T in se3.transform_from_xyyaw(poses):
        np.testing.assert_allclose(messages.transform_from_pose(messages.pose_message(T)), T, atol=1e-12)


def test_poses_that_are_none_are_refused():
    message = messages.pose_message(np.eye(4))
    message.position.x = float("nan")
    with pytest.raises(DataError, match="NaN"):
        messages.transform_from_pose(message)
    message = messages.pose_message(np.eye(4))
    message.orientation.w = 0.0
    with pytest.raises(DataError, match="quaternion"):
        messages.transform_from_pose(message)


def test_odometry_survives():
    odometry = Odometry(3.25, se3.transform_from_xyyaw(np.array([1.0, -2.0, 0.7])), 0.4, -0.2, 0.1)
    message = messages.odometry_message(odometry, ("odom", "base_link"))
    back = messages.odometry_from_message(message)
    assert (message.header.frame_id, message.child_frame_id) == ("odom", "base_link")
    np.testing.assert_allclose(back.T_odom_base, odometry.T_odom_base, atol=1e-12)
    assert (back.stamp_s, back.v_mps, back.w_radps, back.vy_mps) == (3.25, 0.4, -0.2, 0.1)


@given(POSES, hnp.arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_a_plan_survives_as_a_path(poses, start):
    back = messages.plan_from_path(messages.path_message(plan_of(poses, start=start), "odom"), 0.3)
    assert back.status is PlanStatus.OK
    assert back.stamp_s == pytest.approx(10.0)
    assert back.dt_s == pytest.approx(0.25)
    expected = plan_of(poses, start=start).poses_odom_xyyaw()
    np.testing.assert_allclose(back.poses_odom_xyyaw()[:, :2], expected[:, :2], atol=1e-9)
    turned = se2.wrap_angle(back.poses_odom_xyyaw()[:, 2] - expected[:, 2])
    np.testing.assert_allclose(turned, 0.0, atol=1e-9)


@pytest.mark.parametrize("status", [status for status in PlanStatus if status is not PlanStatus.OK])
def test_a_plan_that_is_not_ok_is_an_empty_path_and_no_plan(status):
    plan = Plan(status, 1.0, 0.25, np.ones((3, 3)), np.zeros(3))
    message = messages.path_message(plan, "odom")
    assert len(message.poses) == 0
    assert messages.plan_from_path(message, 0.3).status is not PlanStatus.OK


def test_a_path_without_times_is_driven_at_the_nominal_speed():
    poses = np.array([[0.0, 0, 0], [0.5, 0, 0], [2.0, 0, 0]])
    message = messages.path_message(plan_of(poses[1:]), "odom")
    message.poses = messages.pose_list(poses, [4.0, 4.0, 4.0], "odom")
    plan = messages.plan_from_path(message, 0.4)
    speeds = np.diff(np.concatenate([[0.0], plan.poses_xyyaw[:, 0]])) / plan.dt_s
    np.testing.assert_allclose(speeds, 0.4, rtol=0.06)
    assert plan.poses_xyyaw[-1, 0] == pytest.approx(2.0)


def test_a_late_plan_starts_where_the_robot_is():
    line = np.stack([np.linspace(0.1, 0.8, 8), np.zeros(8), np.zeros(8)], axis=1)
    standing = retimed(plan_of(line, 10.0), 13.0, np.zeros(3))
    assert standing.stamp_s == pytest.approx(13.0)
    under_way = retimed(plan_of(line, 10.0), 13.0, np.array([0.4, 0.0, 0.0]))
    assert under_way.stamp_s == pytest.approx(12.0, abs=0.05)
    ahead = retimed(plan_of(line, 10.0), 10.1, np.array([0.7, 0.0, 0.0]))
    assert ahead.stamp_s == 10.0


@given(hnp.arrays(np.float32, (6, 3), elements=st.floats(-50, 50, width=32)))
def test_clouds_survive(points):
    np.testing.assert_array_equal(messages.points_from_cloud(messages.cloud_message(points, None, 0.0, "odom")), points)


def test_clouds_carry_packed_colours_and_drop_what_is_not_finite():
    points = np.array([[1, 2, 3], [np.nan, 0, 0]], np.float32)
    message = messages.cloud_message(points, np.array([[255, 0, 1], [0, 0, 0]], np.uint8), 0.0, "odom")
    assert [field.name for field in message.fields] == ["x", "y", "z", "rgb"]
    packed = np.frombuffer(message.data, np.uint32).reshape(2, 4)[0, 3]
    assert packed == 0xFF0001
    np.testing.assert_array_equal(messages.points_from_cloud(message), points[:1])


def test_a_cloud_without_coordinates_is_refused():
    message = messages.cloud_message(np.zeros((1, 3), np.float32), None, 0.0, "odom")
    message.fields = message.fields[:2]
    with pytest.raises(DataError, match="needs float32 fields x, y, z; it has x, y"):
        messages.points_from_cloud(message)


def test_cheap_candidates_are_bright_and_rejected_ones_red():
    colours = cost_colours(np.array([3.0, 1.0, np.inf, 2.0]))
    brightness = colours.sum(axis=1)
    assert brightness[1] > brightness[3] > brightness[0]
    np.testing.assert_allclose(colours[2], [0.8, 0.1, 0.1])


def test_markers_show_candidates_in_odom():
    import torch

    from come_nav.core.types import Goal, IterationTrace, PlanTrace

    poses = torch.zeros(30, 2, 3)
    poses[:, :, 0] = torch.tensor([0.1, 0.2])
    trace = IterationTrace(
        torch.zeros(30, 1), poses, torch.arange(30.0), {}, torch.zeros(1), torch.zeros(1), torch.zeros(1).long()
    )
    start = np.array([1.0, 2.0, np.pi / 2])
    plan = Plan(PlanStatus.OK, 5.0, 0.25, poses[0].numpy().astype(float), start, 0.0, trace=PlanTrace([trace]))
    clear, lines, chosen, goal = candidate_markers(plan, Goal(pose_odom_xyyaw=start), "odom", most=10).markers
    assert clear.action == clear.DELETEALL
    assert len(lines.points) == len(lines.colors) == 10 * 2 * 2
    assert (lines.points[1].x, lines.points[1].y) == pytest.approx((1.0, 2.1))
    assert (chosen.points[-1].x, chosen.points[-1].y) == pytest.approx((1.0, 2.2))
    assert {marker.header.frame_id for marker in (lines, chosen, goal)} == {"odom"}
