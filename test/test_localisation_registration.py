"""Features, matching and registration against poses that are known by construction."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from come_nav.core.errors import DataError, ShapeError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import Features, FeatureSettings, extract_features
from come_nav.localisation.matching import MatchingSettings, match_features, match_vectors
from come_nav.localisation.refinement import Correspondences, exponential, linearise, refine
from come_nav.localisation.registration import (
    PosePrior,
    Registration,
    RegistrationSettings,
    RegistrationStatus,
    register,
)
from come_nav.localisation.verification import verify
from come_nav.localisation.view import View, lift, make_view

CAMERA = CameraIntrinsics(320, 240, 260.0, 265.0, 158.0, 121.0)
XI = np.array([0.2, -0.1, 0.15, 0.05, -0.08, 0.04])


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cell in (4, 8, 16, 32):
        coarse = rng.uniform(0, 255, (height // cell + 1, width // cell + 1, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 4
    return image.clip(0, 255).astype(np.uint8)


def wall_image(T_wall_camera: np.ndarray, camera: CameraIntrinsics = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """Return image and depth of a textured wall at z = 0 of its frame, 100 pixels a metre, 12 m x 9 m."""
    wall = texture(900, 1200)
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)
    turned = rays @ T_wall_camera[:3, :3].T
    depth = -T_wall_camera[2, 3] / turned[..., 2]
    points = T_wall_camera[:3, 3] + turned * depth[..., None]
    across, down = (points[..., 0] * 100 - 0.5).astype(np.float32), (points[..., 1] * 100 - 0.5).astype(np.float32)
    return cv2.remap(wall, across, down, cv2.INTER_LINEAR), depth.astype(np.float32)


def synthetic(seed: int, noise_px: float = 0.7, count: int = 120, wrong: int = 0) -> tuple[View, View, np.ndarray]:
    """Return two views whose descriptors match by construction, and T_a_b."""
    rng, T_a_b = np.random.default_rng(seed), exponential(XI)
    z = rng.uniform(1.5, 4.0, count)
    points = np.stack([rng.uniform(-0.4, 0.4, count) * z, rng.uniform(-0.3, 0.3, count) * z, z], 1)
    in_b = se3.transform_points(se3.inverse(T_a_b), points)

    def pixels(where: np.ndarray) -> np.ndarray:
        return where[:, :2] / where[:, 2:] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]

    seen = pixels(in_b) + rng.normal(size=(count, 2)) * noise_px
    seen[:wrong] = rng.uniform([0, 0], [320, 240], (wrong, 2))
    descriptors = rng.integers(0, 255, (count, 128)).astype(np.uint8)
    sigmas = 0.008 + 0.004 * z**2
    measured = (points * (1 + rng.normal(size=count) * sigmas / z)[:, None]).astype(np.float32)
    ones = np.ones(count, np.float32)
    a = View(Features(pixels(points).astype(np.float32), descriptors, ones, 320, 240), CAMERA, measured)
    return a, View(Features(seen.astype(np.float32), descriptors, ones, 320, 240), CAMERA), T_a_b


@pytest.mark.parametrize("kind", ["sift", "orb"])
def test_features_follow_a_shift_in_come_navs_pixels(kind: str) -> None:
    image = texture(240, 360)
    settings = FeatureSettings(kind=kind)  # type: ignore[arg-type]
    a, b = extract_features(image[:, :320], settings), extract_features(image[:, 40:360], settings)
    pairs = match_features(a, b)
    moved = a.keypoints_px[pairs[:, 0]] - b.keypoints_px[pairs[:, 1]]
    assert len(pairs) > 80
    if kind == "orb":  # corners lie on whole pixels of each level; 40 pixels are whole ones of the finest level alone
        assert np.abs(moved - [40.0, 0.0]).max(axis=1).mean() < 1.0
        finest = a.sizes_px[pairs[:, 0]] == a.sizes_px.min()
        assert finest.sum() > 40
        moved = moved[finest]
    np.testing.assert_allclose(np.median(moved, axis=0), [40.0, 0.0], atol=0.05)


def test_orbs_coarse_corners_are_where_they_are_in_a_mirror() -> None:
    image = texture(240, 320)
    there, back = (extract_features(one, FeatureSettings(kind="orb")) for one in (image, image[:, ::-1].copy()))
    for size in np.unique(there.sizes_px)[2:]:
        a, b = there.keypoints_px[there.sizes_px == size], back.keypoints_px[back.sizes_px == size]
        away = np.stack([320.0 - b[:, 0], b[:, 1]], axis=1)[None] - a[:, None]
        nearest = away[np.arange(len(a)), np.hypot(*np.moveaxis(away, -1, 0)).argmin(axis=1)]
        close = nearest[np.hypot(*nearest.T) < 3.0]
        assert abs(np.median(close[:, 0])) < 0.05


def test_a_keypoint_in_the_middle_of_a_blob_counts_from_the_edge_of_the_image() -> None:
    v, u = np.mgrid[:128, :128] + 0.5
    blob = 255 * np.exp(-((u - 44.0) ** 2 + (v - 62.0) ** 2) / (2 * 6.0**2))
    features = extract_features(blob.astype(np.uint8))
    assert np.abs(features.keypoints_px - [44.0, 62.0]).max(axis=1).min() < 0.1


def test_a_larger_image_gives_keypoints_in_its_own_pixels() -> None:
    image = texture(240, 320)
    large = cv2.resize(image, (1280, 960), interpolation=cv2.INTER_CUBIC)
    small, big = extract_features(image), extract_features(large)
    pairs = match_features(small, big)
    scale = big.keypoints_px[pairs[:, 1]] / small.keypoints_px[pairs[:, 0]]
    assert len(pairs) > 50
    np.testing.assert_allclose(np.median(scale, axis=0), [4.0, 4.0], rtol=0.01)


@pytest.mark.parametrize("image", [np.zeros((240, 320, 3), np.uint8), np.full((5, 7), 128, np.uint8)])
def test_an_image_without_texture_has_no_features(image: np.ndarray) -> None:
    features = extract_features(image)
    assert len(features) == 0
    assert len(match_features(features, features)) == 0


def test_an_image_of_floats_is_refused() -> None:
    with pytest.raises(ShapeError, match="uint8"):
        extract_features(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]


def test_ratio_and_mutual_checks_by_hand() -> None:
    a = np.array([[1, 0], [0.8, 0.6]], np.float32)
    b = np.array([[1, 0], [0, 1]], np.float32)
    # the second row's nearest is b0 at 2 - 1.6 = 0.4 against 0.8: a ratio of 0.5, but b0 is nearer to a0
    assert match_vectors(a, b).tolist() == [[0, 0]]
    assert match_vectors(a, b, MatchingSettings(mutual=False)).tolist() == [[0, 0], [1, 0]]
    assert match_vectors(a[1:], b, MatchingSettings(ratio=0.7)).tolist() == []  # sqrt(0.5) = 0.707
    assert match_vectors(a[1:], b, MatchingSettings(ratio=0.72)).tolist() == [[0, 0]]


def test_a_repeated_pattern_matches_only_where_it_can_be() -> None:
    a = np.array([[1, 0]], np.float32)
    b = np.array([[0.96, 0.28], [0.96, -0.28]], np.float32)  # alike
    assert len(match_vectors(a, b)) == 0
    assert match_vectors(a, b, allowed=np.array([[False, True]])).tolist() == [[0, 1]]
    assert len(match_vectors(a, b, allowed=np.array([[False, False]]))) == 0


def test_lift_inverts_the_projection_and_leaves_edges_out() -> None:
    depth = np.full((240, 320), 2.0, np.float32)
    depth[:, 160:], depth[100:110] = 3.0, np.nan
    points = lift(np.array([[50.5, 60.5], [200.5, 60.5], [160.0, 60.5], [50.5, 105.0]], np.float32), depth, CAMERA)
    np.testing.assert_allclose(points[0], [(50.5 - 158) / 260 * 2, (60.5 - 121) / 265 * 2, 2], rtol=1e-5)
    assert points[1, 2] == 3.0
    assert np.isnan(points[2:, 2]).all()


def test_jacobians_agree_with_differences() -> None:
    rng = np.random.default_rng(1)
    points, T_a_b = rng.uniform([-1, -1, 2], [1, 1, 4], (6, 3)), exponential(XI)
    known = np.where(np.arange(6) % 2, 3.0, np.nan)
    matches = Correspondences(points, np.full(6, 0.02), np.full((6, 2), 100.0), known, np.full(6, 0.02), 1.0)
    at, step = linearise(T_a_b, matches, CAMERA), 1e-6
    for axis in range(6):
        ahead = linearise(T_a_b @ exponential(step * np.eye(6)[axis]), matches, CAMERA)
        np.testing.assert_allclose(
            (ahead.residuals - at.residuals) / step, at.jacobians[:, :, axis], rtol=1e-3, atol=1e-3
        )
    longer = CameraIntrinsics(320, 240, 260.0 * np.exp(step), 265.0 * np.exp(step), 158.0, 121.0)
    change = (linearise(T_a_b, matches, longer).residuals - at.residuals) / step
    np.testing.assert_allclose(change, at.jacobians[:, :, 6], rtol=1e-3, atol=1e-3)


def test_what_is_there_twice_matches_neither() -> None:
    """Two equal vectors are no distinct match, however sums are rounded."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 60, (200, 128)).astype(np.float32)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    for order in (np.arange(128), rng.permutation(128)):
        once, twice = np.ascontiguousarray(a[:, order]), np.ascontiguousarray(np.concatenate([a, a])[:, order])
        assert len(match_vectors(once, twice)) == 0
        assert sorted(match_vectors(once, once).tolist()) == [[index, index] for index in range(200)]


def test_refinement_of_exact_matches_finds_pose_and_focal_length() -> None:
    a, _b, T_a_b = synthetic(0, noise_px=0.0)
    assert a.points_camera_m is not None
    points = a.points_camera_m.astype(float)
    at = se3.transform_points(se3.inverse(T_a_b), points)
    pixels = at[:, :2] / at[:, 2:] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]
    unknown = np.full(len(points), np.nan)
    matches = Correspondences(points, np.full(len(points), 0.01), pixels, unknown, unknown * 0 + 1, 1.0)
    pose, _, factor = refine(np.eye(4), matches, CAMERA, rounds=30)
    np.testing.assert_allclose(pose, T_a_b, atol=1e-6)
    shorter = CameraIntrinsics(320, 240, 200.0, 200.0 * 265 / 260, 158.0, 121.0)
    pose, _, factor = refine(T_a_b, matches, shorter, rounds=50, with_focal=True)
    assert factor * 200.0 == pytest.approx(260.0, rel=1e-4)


def test_covariance_is_that_of_repeated_registrations() -> None:
    away, stated = [], []
    for seed in range(60):
        a, b, T_a_b = synthetic(seed)
        found = register(a, b)
        assert found.ok
        delta = se3.inverse(T_a_b) @ found.T_a_b
        turn = 0.5 * np.array([delta[2, 1] - delta[1, 2], delta[0, 2] - delta[2, 0], delta[1, 0] - delta[0, 1]])
        away.append(np.concatenate([delta[:3, 3], turn]))
        stated.append(found.covariance)
    distances = [float(e @ np.linalg.solve(c, e)) for e, c in zip(away, stated, strict=True)]
    assert 4.0 < np.mean(distances) < 10.0  # six degrees of freedom


def test_outliers_are_told_from_inliers() -> None:
    a, b, T_a_b = synthetic(3, wrong=60)
    found = register(a, b)
    assert found.ok
    assert np.linalg.norm((se3.inverse(T_a_b) @ found.T_a_b)[:3, 3]) < 0.03
    assert (found.inliers[:, 0] < 60).sum() <= 2
    assert len(found.inliers) >= 55
    assert found.inlier_ratio == pytest.approx(len(found.inliers) / 120)


def test_depth_in_b_alone_gives_the_inverse() -> None:
    a, b, _ = synthetic(4)
    there, back = register(a, b), register(b, a)
    np.testing.assert_allclose(back.T_a_b, se3.inverse(there.T_a_b), atol=1e-9)
    np.testing.assert_allclose(back.inverse().covariance, there.covariance, rtol=1e-6, atol=1e-12)
    assert (back.inliers == there.inliers[:, ::-1]).all()


def test_depth_in_both_makes_the_pose_surer() -> None:
    a, b, T_a_b = synthetic(5)
    assert a.points_camera_m is not None
    in_b = se3.transform_points(se3.inverse(T_a_b), a.points_camera_m.astype(float)).astype(np.float32)
    both = register(a, View(b.features, CAMERA, in_b))
    assert both.ok
    assert np.trace(both.covariance[:3, :3]) < np.trace(register(a, b).covariance[:3, :3])


def test_planar_projection_and_its_covariance_by_sampling() -> None:
    T_base_camera = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.2, 0.05, 0.5]))
    wanted = np.array([0.6, -0.2, 0.3])
    T_a_b = se3.inverse(T_base_camera) @ se3.transform_from_xyyaw(wanted) @ T_base_camera
    rng, covariance = np.random.default_rng(0), np.diag([0.02, 0.03, 0.01, 0.01, 0.02, 0.015]) ** 2
    none = np.zeros((0, 2), np.int64)
    pose, planar = Registration(RegistrationStatus.OK, T_a_b, covariance, none, 1.0, 0.5).planar(
        T_base_camera, T_base_camera
    )
    np.testing.assert_allclose(pose, wanted, atol=1e-12)
    drawn = rng.multivariate_normal(np.zeros(6), covariance, 20000)
    moved = [
        se3.xyyaw_from_transform(T_base_camera @ T_a_b @ exponential(xi) @ se3.inverse(T_base_camera)) for xi in drawn
    ]
    np.testing.assert_allclose(planar, np.cov(np.array(moved).T), atol=3e-5, rtol=0.05)


def test_rendered_walls_register_and_the_rest_agrees() -> None:
    T_wall_a = se3.make_transform(np.eye(3), np.array([6.0, 4.5, -2.5]))
    T_a_b = exponential(np.array([0.3, 0.1, 0.2, 0.05, -0.12, 0.1]))
    (rgb_a, depth_a), (rgb_b, depth_b) = wall_image(T_wall_a), wall_image(T_wall_a @ T_a_b)
    a, b = make_view(rgb_a, CAMERA, depth_a), make_view(rgb_b, CAMERA, depth_b)
    found = register(a, b)
    delta = se3.inverse(T_a_b) @ found.T_a_b
    assert found.ok
    assert np.linalg.norm(delta[:3, 3]) < 0.02
    assert se3.rotation_angle(delta[:3, :3]) < 0.01
    evidence = verify(a, b, found)
    assert evidence.geometry > 0.95
    wrong = Registration(
        RegistrationStatus.OK,
        found.T_a_b @ exponential(np.array([0, 0, -0.8, 0, 0, 0.0])),
        found.covariance,
        found.inliers,
        found.inlier_ratio,
        found.rms_px,
    )
    against = verify(a, b, wrong)
    assert against.geometry < 0.2
    assert against.support < 0.5 * evidence.support
    assert against.confidence < 0.1
    assert evidence.confidence > 0.9


def test_a_prior_keeps_matches_near_where_points_must_appear() -> None:
    a, b, T_a_b = synthetic(6)
    assert register(a, b, prior=PosePrior(T_a_b, 5.0)).ok
    far = PosePrior(T_a_b @ exponential(np.array([0, 0, 0, 0, 0.8, 0])), 5.0)
    assert register(a, b, prior=far).status is RegistrationStatus.TOO_FEW_MATCHES


def test_failures_say_why() -> None:
    a, b, _ = synthetic(7)
    few = View(extract_features(np.zeros((240, 320, 3), np.uint8)), CAMERA)
    assert register(a, few).status is RegistrationStatus.TOO_FEW_FEATURES
    nothing = View(a.features, CAMERA, np.full((len(a.features), 3), np.nan, np.float32))
    assert register(nothing, b).status is RegistrationStatus.TOO_FEW_MATCHES
    a, b, _ = synthetic(8, wrong=120)
    assert register(a, b).status is RegistrationStatus.NO_CONSENSUS
    a, b, _ = synthetic(9)
    unsure = register(a, b, RegistrationSettings(max_sigma_m=1e-4))
    assert unsure.status is RegistrationStatus.UNSTABLE
    assert np.isinf(unsure.covariance).all()
    with pytest.raises(DataError, match="UNSTABLE"):
        unsure.planar(np.eye(4), np.eye(4))
    with pytest.raises(DataError, match="depth in one"):
        register(b, b)


def test_points_on_a_line_have_no_pose() -> None:
    count = 40
    points = np.stack([np.linspace(-0.5, 0.5, count), np.zeros(count), np.full(count, 2.0)], 1).astype(np.float32)
    descriptors = np.random.default_rng(0).integers(0, 255, (count, 128)).astype(np.uint8)
    pixels = (points[:, :2] / 2 * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]).astype(np.float32)
    features = Features(pixels, descriptors, np.ones(count, np.float32), 320, 240)
    found = register(View(features, CAMERA, points), View(features, CAMERA))
    assert not found.ok


def test_se2_and_planar_agree_on_composition() -> None:
    first, second = np.array([1.0, 2.0, 0.5]), np.array([0.3, 0.1, -0.2])
    lifted = se3.transform_from_xyyaw(first) @ se3.transform_from_xyyaw(second)
    np.testing.assert_allclose(se3.xyyaw_from_transform(lifted), se2.compose(first, second))
