"""SE(2) against homogeneous matrices, closed forms and its own group laws; numpy and torch give the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from come_nav.core.geometry import se2

POSES = hnp.arrays(
    np.float64, (4, 3), elements=st.floats(-20.0, 20.0, allow_nan=False, allow_subnormal=False, width=64)
)
ANGLES = st.floats(-1000.0, 1000.0, allow_nan=False)


def matrix(pose: np.ndarray) -> np.ndarray:
    """Planar pose (3,) as a homogeneous 3x3 matrix, written independently of the code under test."""
    x, y, yaw = pose
    return np.array([[math.cos(yaw), -math.sin(yaw), x], [math.sin(yaw), math.cos(yaw), y], [0.0, 0.0, 1.0]])


@given(ANGLES)
def test_wrapped_angle_is_the_same_direction_in_the_half_open_interval(angle):
    wrapped = float(se2.wrap_angle(np.array(angle)))
    assert -math.pi < wrapped <= math.pi
    assert math.cos(wrapped) == pytest.approx(math.cos(angle), abs=1e-9)
    assert math.sin(wrapped) == pytest.approx(math.sin(angle), abs=1e-9)


def test_half_turn_wraps_to_plus_pi():
    np.testing.assert_allclose(se2.wrap_angle(np.array([math.pi, -math.pi, 3 * math.pi])), math.pi)


@given(POSES, POSES)
def test_compose_is_the_matrix_product(first, second):
    composed = se2.compose(first, second)
    for row in range(4):
        np.testing.assert_allclose(matrix(composed[row]), matrix(first[row]) @ matrix(second[row]), atol=1e-9)


@given(POSES)
def test_inverse_undoes_on_both_sides(pose):
    for product in (se2.compose(pose, se2.inverse(pose)), se2.compose(se2.inverse(pose), pose)):
        np.testing.assert_allclose(product[:, :2], 0.0, atol=1e-9)
        np.testing.assert_allclose(np.cos(product[:, 2]), 1.0, atol=1e-12)


@given(POSES, POSES)
def test_relative_is_what_compose_needs_to_arrive(start, target):
    arrived = se2.compose(start, se2.relative(start, target))
    np.testing.assert_allclose(arrived[:, :2], target[:, :2], atol=1e-8)
    np.testing.assert_allclose(np.cos(arrived[:, 2] - target[:, 2]), 1.0, atol=1e-12)


@given(POSES, POSES, POSES)
def test_compose_is_associative(first, second, third):
    left = se2.compose(se2.compose(first, second), third)
    right = se2.compose(first, se2.compose(second, third))
    np.testing.assert_allclose(left[:, :2], right[:, :2], atol=1e-8)
    np.testing.assert_allclose(np.cos(left[:, 2] - right[:, 2]), 1.0, atol=1e-12)


def test_relative_says_forward_and_left_for_a_robot_that_faces_north():
    facing_north = np.array([2.0, 3.0, math.pi / 2])
    np.testing.assert_allclose(se2.relative(facing_north, np.array([1.0, 5.0, math.pi])), [2.0, 1.0, math.pi / 2])


def test_quarter_circle_ends_where_geometry_says():
    radius, duration = 2.0, 4.0
    w = (math.pi / 2) / duration
    end = se2.integrate_twist(np.array(radius * w), np.array(w), duration)
    np.testing.assert_allclose(end, [radius, radius, math.pi / 2])


@given(st.floats(-2.0, 2.0), st.floats(-2.0, 2.0))
def test_arc_agrees_with_many_small_steps(v, w):
    steps, duration = 2000, 1.5
    pose = np.zeros(3)
    for _ in range(steps):  # midpoint rule: error of order (dt^2)
        middle = pose[2] + 0.5 * w * duration / steps
        pose = pose + np.array([v * math.cos(middle), v * math.sin(middle), w]) * duration / steps
    end = se2.integrate_twist(np.array(v), np.array(w), duration)
    np.testing.assert_allclose(end[:2], pose[:2], atol=1e-5)


@pytest.mark.parametrize("w", [0.0, 1e-9, 0.99e-4, 1.01e-4, -1e-4])
def test_nearly_straight_arcs_lose_no_digits(w):
    end = se2.integrate_twist(np.array(1.0), np.array(w), 1.0)
    np.testing.assert_allclose(end[:2], [1.0 - w * w / 6, w / 2], atol=1e-12)


@given(POSES, st.floats(-2.0, 2.0), st.floats(-1.5, 1.5))
def test_twist_between_recovers_the_twist_that_was_driven(start, v, w):
    duration = 0.75
    end = se2.compose(start, se2.integrate_twist(np.full(4, v), np.full(4, w), duration))
    found_v, found_w = se2.twist_between(start, end, duration)
    np.testing.assert_allclose(found_v, v, atol=1e-7)
    np.testing.assert_allclose(found_w, w, atol=1e-7)


@given(POSES, hnp.arrays(np.float64, (4, 5, 2), elements=st.floats(-9, 9)))
def test_points_move_like_their_homogeneous_vectors(pose, points):
    moved = se2.transform_points(pose, points)
    for row in range(4):
        homogeneous = np.column_stack([points[row], np.ones(5)])
        np.testing.assert_allclose(moved[row], (homogeneous @ matrix(pose[row]).T)[:, :2], atol=1e-8)


def test_interpolation_turns_the_short_way_round():
    start, end = np.array([0.0, 0.0, math.radians(170)]), np.array([1.0, 2.0, math.radians(-170)])
    np.testing.assert_allclose(se2.interpolate(start, end, 0.25), [0.25, 0.5, math.radians(175)])
    np.testing.assert_allclose(se2.interpolate(start, end, 0.75), [0.75, 1.5, math.radians(-175)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_gives_numpys_figures_and_keeps_dtype_and_gradient(dtype):
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 6, 3)), random.normal(size=(2, 6, 3))
    tensor = torch.tensor(first, dtype=dtype, requires_grad=True)
    composed = se2.compose(se2.inverse(tensor), torch.tensor(second, dtype=dtype))
    assert composed.dtype == dtype
    np.testing.assert_allclose(composed.detach().numpy(), se2.relative(first, second), atol=1e-5)
    composed.sum().backward()
    assert torch.isfinite(tensor.grad).all()


def test_gradient_of_a_straight_arc_is_finite_and_right():
    v, w = torch.tensor(1.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    end = se2.integrate_twist(v, w, 2.0)
    end[1].backward()
    assert w.grad.item() == pytest.approx(2.0)  # dy/dw = v t^2 / 2


def test_leading_axes_broadcast():
    start = np.array([1.0, 0.0, math.pi / 2])
    candidates = np.zeros((7, 8, 3))
    assert se2.compose(start[None, None], candidates).shape == (7, 8, 3)


@pytest.mark.parametrize("yaw", [2e-4, 1e-3, 1e-2])
def test_single_precision_keeps_the_bend_of_flat_arcs(yaw):
    """A chord that is nearly straight ends half of the turn beside its tangent."""
    one = torch.ones((), dtype=torch.float32)
    end = se2.integrate_twist(one, one * yaw, 1.0)
    assert float(end[1]) == pytest.approx(yaw / 2.0, rel=1e-5)


def test_composing_with_the_identity_touches_nothing() -> None:
    poses, identity = np.array([[1.0, 2.0, 0.3], [-4.0, 0.5, -2.0]]), np.zeros(3)
    assert se2.compose_exactly(identity, poses) is poses
    assert se2.compose_exactly(poses, identity) is poses
    np.testing.assert_array_equal(se2.compose_exactly(poses[0], poses), se2.compose(poses[0], poses))


def test_motions_lead_from_each_pose_to_the_next() -> None:
    poses = np.array([[1.0, 2.0, 0.3], [1.5, 2.0, 1.0], [0.0, 0.0, -3.0]])
    found = se2.motions(poses)
    np.testing.assert_array_equal(found[0], 0.0)
    np.testing.assert_allclose(se2.compose(poses[:-1], found[1:]), poses[1:], atol=1e-12)
    torch.testing.assert_close(se2.motions(torch.from_numpy(poses)[None])[0], torch.from_numpy(found))


def test_poses_are_apart_by_way_or_by_turn() -> None:
    here = np.array([1.0, 2.0, 3.0])
    for moved, apart in (([0.25, 0.0, 0.0], True), ([0.24, 0.0, 0.1], False), ([0.0, 0.0, -0.21], True)):
        assert se2.is_apart(here, se2.compose(here, np.array(moved)), 0.25 - 1e-9, 0.2) is apart
