"""SE(3) against scipy's Rotation and matrix identities, on numpy and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from come_nav.core.geometry import se2, se3

SEEDS = st.integers(0, 2**32 - 1)


def random_transforms(seed: int, count: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    rotation = Rotation.random(count, random_state=seed % 2**32).as_matrix()
    return se3.make_transform(rotation, random.normal(size=(count, 3)) * 4.0)


@given(SEEDS)
def test_quaternions_to_matrices_as_scipy(seed):
    quat = np.random.default_rng(seed).normal(size=(8, 4)) * 3.0
    np.testing.assert_allclose(se3.matrix_from_quaternion(quat), Rotation.from_quat(quat).as_matrix(), atol=1e-12)


@given(SEEDS)
def test_matrices_to_quaternions_as_scipy(seed):
    rotation = Rotation.random(8, random_state=seed)
    quat = se3.quaternion_from_matrix(rotation.as_matrix())
    np.testing.assert_allclose(np.linalg.norm(quat, axis=-1), 1.0)
    assert (quat[:, 3] >= 0).all()
    np.testing.assert_allclose(quat, rotation.as_quat(canonical=True), atol=1e-9)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, -1, 1]])
@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-4, 1.0, math.pi - 1e-8, math.pi])
def test_hard_rotations_survive_the_round_trip(axis, angle):
    vector = np.array(axis, float) / np.linalg.norm(axis) * angle
    rotation = Rotation.from_rotvec(vector).as_matrix()
    back = se3.matrix_from_quaternion(se3.quaternion_from_matrix(rotation))
    np.testing.assert_allclose(back, rotation, atol=1e-14)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-7, 0.3, 3.0, math.pi - 1e-7, math.pi])
def test_rotation_angle_keeps_its_digits_at_both_ends(angle):
    rotation = Rotation.from_rotvec(angle * np.array([0.36, 0.48, 0.8])).as_matrix()
    assert float(se3.rotation_angle(rotation)) == pytest.approx(angle, rel=1e-7, abs=1e-15)


@given(SEEDS)
def test_inverse_and_relative_are_the_matrix_ones(seed):
    first, second = random_transforms(seed), random_transforms(seed + 1)
    np.testing.assert_allclose(se3.inverse(first), np.linalg.inv(first), atol=1e-12)
    np.testing.assert_allclose(first @ se3.relative(first, second), second, atol=1e-12)


@given(SEEDS)
def test_points_are_mapped_as_homogeneous_vectors(seed):
    transform = random_transforms(seed)
    points = np.random.default_rng(seed).normal(size=(5, 7, 3))
    homogeneous = np.concatenate([points, np.ones((5, 7, 1))], -1)
    expected = np.einsum("nij,npj->npi", transform, homogeneous)[..., :3]
    np.testing.assert_allclose(se3.transform_points(transform, points), expected, atol=1e-12)


@given(SEEDS)
def test_planar_poses_lift_and_project_back(seed):
    random = np.random.default_rng(seed)
    poses = np.column_stack([random.normal(size=(6, 2)) * 10, random.uniform(-math.pi, math.pi, 6)])
    np.testing.assert_allclose(se3.xyyaw_from_transform(se3.transform_from_xyyaw(poses)), poses, atol=1e-12)


@given(SEEDS)
def test_planar_lift_is_a_homomorphism(seed):
    random = np.random.default_rng(seed)
    first, second = random.normal(size=(2, 6, 3))
    lifted = se3.transform_from_xyyaw(first) @ se3.transform_from_xyyaw(second)
    np.testing.assert_allclose(lifted, se3.transform_from_xyyaw(se2.compose(first, second)), atol=1e-12)


def test_projection_ignores_roll_and_pitch_of_a_tilted_camera():
    tilted = Rotation.from_euler("ZYX", [0.7, 0.3, -0.2]).as_matrix()
    transform = se3.make_transform(tilted, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(se3.xyyaw_from_transform(transform), [1.0, 2.0, 0.7], atol=1e-12)


def test_optical_axes_are_right_down_forward():
    forward, left, up = np.eye(3)
    right, down, ahead = se3.R_BODY_OPTICAL.T  # columns: the optical axes seen from the body
    np.testing.assert_array_equal(right, -left)
    np.testing.assert_array_equal(down, -up)
    np.testing.assert_array_equal(ahead, forward)
    assert np.linalg.det(se3.R_BODY_OPTICAL) == pytest.approx(1.0)


def test_torch_gives_numpys_figures():
    rotation = Rotation.random(9, random_state=3).as_matrix()
    tensor = torch.tensor(rotation)
    np.testing.assert_allclose(
        se3.quaternion_from_matrix(tensor).numpy(), se3.quaternion_from_matrix(rotation), atol=1e-12
    )
    np.testing.assert_allclose(se3.rotation_angle(tensor).numpy(), se3.rotation_angle(rotation), atol=1e-12)
    transform = se3.make_transform(tensor, torch.ones(9, 3, dtype=torch.float64))
    np.testing.assert_allclose((se3.inverse(transform) @ transform).numpy(), np.tile(np.eye(4), (9, 1, 1)), atol=1e-12)


def test_a_covariance_turns_with_its_axes():
    """What is unsure ahead of a base that faces left is unsure to the left in its parent."""
    ahead = np.diag([4.0, 1.0, 0.25])
    ahead[0, 2] = ahead[2, 0] = 0.5
    turned = se3.turned_covariance(ahead, np.array([7.0, -3.0, np.pi / 2]))
    expected = np.diag([1.0, 4.0, 0.25])
    expected[1, 2] = expected[2, 1] = 0.5
    np.testing.assert_allclose(turned, expected, atol=1e-15)
