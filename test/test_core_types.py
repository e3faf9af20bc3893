"""The shared nouns: their arithmetic and the mistakes they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from come_nav.core.errors import DataError, ShapeError
from come_nav.core.geometry import se3
from come_nav.core.types import (
    CameraIntrinsics,
    Context,
    Frame,
    Goal,
    Odometry,
    Plan,
    PlanStatus,
    Trajectory,
)


def test_field_of_view_and_projection_of_its_edge():
    camera = CameraIntrinsics.from_field_of_view(64, 48, math.pi / 2)
    assert (camera.fx, camera.fy) == pytest.approx((32.0, 32.0))
    point_on_the_right_edge = np.array([1.0, 0.0, 1.0])
    u, v, w = camera.matrix() @ point_on_the_right_edge
    assert (u / w, v / w) == pytest.approx((64.0, 24.0))


def test_scaling_and_cropping_keep_the_ray_of_a_pixel():
    camera = CameraIntrinsics(320, 240, 290.0, 285.0, 161.0, 118.0)
    ray = np.array([0.2, -0.1, 1.0])
    u, v, _ = camera.matrix() @ ray
    scaled = camera.scaled(80, 120).matrix() @ ray
    assert scaled[:2] == pytest.approx([u / 4, v / 2])
    cropped = camera.cropped(40, 10, 200, 200).matrix() @ ray
    assert cropped[:2] == pytest.approx([u - 40, v - 10])


def test_frame_refuses_floats_grey_images_and_unregistered_depth():
    rgb = np.zeros((4, 6, 3), np.uint8)
    assert Frame(0.0, rgb, np.zeros((4, 6), np.float32)).rgb.shape == (4, 6, 3)
    with pytest.raises(ShapeError, match="uint8"):
        Frame(0.0, rgb.astype(np.float32))
    with pytest.raises(ShapeError, match="H W 3"):
        Frame(0.0, rgb[..., 0])
    with pytest.raises(ShapeError, match="registered"):
        Frame(0.0, rgb, np.zeros((6, 4), np.float32))


def test_odometry_shows_its_planar_pose():
    odometry = Odometry(1.0, se3.transform_from_xyyaw(np.array([1.0, 2.0, 0.5])))
    np.testing.assert_allclose(odometry.pose_xyyaw, [1.0, 2.0, 0.5])


def test_trajectory_measures_its_path():
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0.0]])
    trajectory = Trajectory.from_xyyaw(np.arange(5.0), square)
    assert len(trajectory) == 5
    assert trajectory.path_length_m == pytest.approx(4.0)
    np.testing.assert_allclose(trajectory.poses_xyyaw, square)


@pytest.mark.parametrize(
    ("stamps", "message"),
    [([0.0, 0.0, 1.0], "pose 1 has 0.000000 s after 0.000000 s"), ([0.0, 2.0, 1.0], "pose 2"), ([0, np.nan, 1], "NaN")],
)
def test_trajectory_refuses_bad_stamps_and_says_where(stamps, message):
    with pytest.raises(DataError, match=message):
        Trajectory.from_xyyaw(np.array(stamps), np.zeros((3, 3)))


def test_trajectory_refuses_unequal_lengths():
    with pytest.raises(ShapeError, match="2 stamps but 3 poses"):
        Trajectory.from_xyyaw(np.arange(2.0), np.zeros((3, 3)))


def test_goal_needs_something_finite():
    with pytest.raises(DataError, match="image or a pose"):
        Goal()
    with pytest.raises(DataError, match="finite"):
        Goal(pose_odom_xyyaw=np.array([0.0, np.nan, 0.0]))
    assert Goal(pose_odom_xyyaw=np.zeros(3)).image_rgb is None


def make_context(batch: int = 1) -> Context:
    return Context(
        torch.randn(batch, 4, 4, 8, 8), torch.zeros(batch, 4, 3), torch.zeros(batch, 4), torch.ones(batch, 3)
    )


def test_context_expands_without_copying():
    context = make_context()
    wide = context.expand(16)
    assert wide.latents.shape == (16, 4, 4, 8, 8)
    assert wide.absolute_pose_xyyaw.shape == (16, 3)
    assert wide.latents.data_ptr() == context.latents.data_ptr()


def test_context_refuses_poses_of_another_window():
    with pytest.raises(ShapeError, match="poses_xyyaw"):
        Context(torch.zeros(1, 4, 4, 8, 8), torch.zeros(1, 5, 3), torch.zeros(1, 4))


def test_plan_in_odom_starts_where_the_robot_was():
    plan = Plan(
        PlanStatus.OK, 0.0, 0.25, np.array([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0]]), np.array([5.0, 5.0, math.pi / 2])
    )
    np.testing.assert_allclose(plan.poses_odom_xyyaw()[:, :2], [[5.0, 6.0], [4.0, 7.0]], atol=1e-12)


def test_empty_plan_has_an_empty_path():
    plan = Plan(PlanStatus.NO_CONTEXT, 0.0, 0.25, np.zeros((0, 3)), np.zeros(3), message="no frames yet")
    assert plan.poses_odom_xyyaw().shape == (0, 3)
    assert math.isnan(plan.cost)


@given(
    st.floats(-3, 3), st.floats(-3, 3), st.floats(0, 0.5), st.floats(-3.1, 3.1), st.floats(-0.6, 0.6), st.floats(-1, 1)
)
def test_a_camera_over_the_footprint_is_where_it_was(x, y, z, yaw, roll, pitch):
    T_odom_base = np.eye(4)
    T_odom_base[:3, :3] = Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()
    T_odom_base[:3, 3] = x, y, z
    extrinsics = np.eye(4)
    extrinsics[:3, 3] = 0.2, 0.1, 0.4
    frame = Frame(0.0, np.zeros((2, 2, 3), np.uint8), T_base_camera=extrinsics).over_footprint(T_odom_base)
    planar = se3.transform_from_xyyaw(Odometry(0.0, T_odom_base).pose_xyyaw)
    np.testing.assert_allclose(planar @ frame.T_base_camera, T_odom_base @ extrinsics, atol=1e-9)
    assert Frame(0.0, np.zeros((2, 2, 3), np.uint8)).over_footprint(T_odom_base).T_base_camera is None
