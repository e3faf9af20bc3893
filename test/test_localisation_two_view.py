"""Registration without depth, and of cameras that are unknown, against poses known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import Features
from come_nav.localisation.refinement import exponential
from come_nav.localisation.registration import RegistrationStatus
from come_nav.localisation.two_view import register_two_views
from come_nav.localisation.unknown_camera import exif_intrinsics, photograph_intrinsics, register_unknown_camera
from come_nav.localisation.view import View

CAMERA = CameraIntrinsics(320, 240, 260.0, 265.0, 158.0, 121.0)
PHONE = CameraIntrinsics(1280, 960, 1000.0, 1000.0, 640.0, 480.0)
XI = np.array([0.2, -0.1, 0.15, 0.05, -0.08, 0.04])
DISTANCE_M = float(np.linalg.norm(XI[:3]))


def views(
    seed: int,
    noise_px: float = 0.7,
    wrong: int = 0,
    depths_m: tuple[float, float] = (1.5, 4.0),
    camera_b: CameraIntrinsics = CAMERA,
) -> tuple[View, View, np.ndarray, np.ndarray]:
    """Return two views without depth whose descriptors match by construction, T_a_b and the points (N, 3) in a."""
    rng, T_a_b, count = np.random.default_rng(seed), exponential(XI), 150
    z = rng.uniform(*depths_m, count)
    points = np.stack([rng.uniform(-0.4, 0.4, count) * z, rng.uniform(-0.3, 0.3, count) * z, z], 1)
    in_b = se3.transform_points(se3.inverse(T_a_b), points)
    descriptors = rng.integers(0, 255, (count, 128)).astype(np.uint8)

    def seen(where: np.ndarray, camera: CameraIntrinsics, lost: int) -> View:
        pixels = where[:, :2] / where[:, 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
        pixels += rng.normal(size=(count, 2)) * noise_px * camera.width / 320
        pixels[:lost] = rng.uniform([0, 0], [camera.width, camera.height], (lost, 2))
        ones = np.ones(count, np.float32)
        return View(Features(pixels.astype(np.float32), descriptors, ones, camera.width, camera.height), camera)

    return seen(points, CAMERA, 0), seen(in_b, camera_b, wrong), T_a_b, points


def away_of(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    delta = se3.inverse(truth) @ found
    turn = 0.5 * np.array([delta[2, 1] - delta[1, 2], delta[0, 2] - delta[2, 0], delta[1, 0] - delta[0, 1]])
    return np.concatenate([delta[:3, 3], turn])


def test_exact_matches_give_the_exact_pose() -> None:
    a, b, T_a_b, _ = views(0, noise_px=0.0)
    found = register_two_views(a, b, DISTANCE_M, 0.01)
    assert found.ok
    np.testing.assert_allclose(found.T_a_b, T_a_b, atol=1e-5)
    assert len(found.inliers) == 150


def test_the_scale_is_odometrys() -> None:
    a, b, T_a_b, _ = views(1, noise_px=0.0)
    found = register_two_views(a, b, 2.0 * DISTANCE_M, 0.02)
    np.testing.assert_allclose(found.T_a_b[:3, 3], 2.0 * T_a_b[:3, 3], atol=1e-4)
    along = found.T_a_b[:3, :3].T @ found.T_a_b[:3, 3] / (2.0 * DISTANCE_M)
    # along the way only odometry speaks
    assert along @ found.covariance[:3, :3] @ along == pytest.approx(0.02**2, rel=0.1)


def test_outliers_do_not_count() -> None:
    a, b, T_a_b, _ = views(2, wrong=50)
    found = register_two_views(a, b, DISTANCE_M, 0.01)
    assert found.ok
    away = away_of(found.T_a_b, T_a_b)
    assert np.linalg.norm(away[:3]) < 0.03
    assert np.linalg.norm(away[3:]) < 0.01
    assert (found.inliers[:, 0] < 50).sum() <= 8  # a wrong match may lie on its epipolar line by chance


def test_covariance_is_that_of_repeated_registrations() -> None:
    distances, rng = [], np.random.default_rng(0)
    for seed in range(40):
        a, b, T_a_b, _ = views(seed)
        found = register_two_views(a, b, DISTANCE_M + 0.01 * rng.normal(), 0.01)
        assert found.ok
        away = away_of(found.T_a_b, T_a_b)
        distances.append(float(away @ np.linalg.solve(found.covariance, away)))
    assert 4.0 < np.mean(distances) < 10.0  # six degrees of freedom


def test_two_cameras_may_differ() -> None:
    a, b, T_a_b, _ = views(3, noise_px=0.2, camera_b=PHONE)
    found = register_two_views(a, b, DISTANCE_M, 0.01)
    assert found.ok
    assert np.linalg.norm(away_of(found.T_a_b, T_a_b)[:3]) < 0.03


@pytest.mark.parametrize(
    ("depths_m", "registers"), [((1.5, 4.0), True), ((3.0, 6.0), True), ((25.0, 35.0), False), ((300.0, 400.0), False)]
)
def test_what_is_too_far_for_a_direction_is_refused(depths_m: tuple[float, float], registers: bool) -> None:
    for seed in range(10):
        a, b, T_a_b, _ = views(seed, depths_m=depths_m)
        found = register_two_views(a, b, DISTANCE_M, 0.01)
        assert found.ok is registers, seed
        if registers:
            assert np.linalg.norm(away_of(found.T_a_b, T_a_b)[:3]) < 0.1


def views_of(
    z_m: np.ndarray, T_a_b: np.ndarray, noise_px: float, rng: np.random.Generator, wrong: int = 0
) -> list[View]:
    """Return two views of points at depths ``z_m`` (N,), the first ``wrong`` of which lie anywhere in the second."""
    count = len(z_m)
    points = np.stack([rng.uniform(-0.4, 0.4, count) * z_m, rng.uniform(-0.3, 0.3, count) * z_m, z_m], 1)
    descriptors = rng.integers(0, 255, (count, 128)).astype(np.uint8)
    seen: list[View] = []
    for where in (points, se3.transform_points(se3.inverse(T_a_b), points)):
        pixels = where[:, :2] / where[:, 2:] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]
        pixels += rng.normal(size=(count, 2)) * noise_px
        if seen:
            pixels[:wrong] = rng.uniform([0, 0], [320, 240], (wrong, 2))
        features = Features(pixels.astype(np.float32), descriptors, np.ones(count, np.float32), 320, 240)
        seen.append(View(features, CAMERA))
    return seen


@pytest.mark.parametrize("wrong", [0, 5, 20, 30])
def test_a_turn_on_the_spot_has_no_direction_however_many_matches_are_wrong(wrong: int) -> None:
    for seed in range(6):
        rng, turn = np.random.default_rng(seed), exponential(np.array([0.0, 0.0, 0.0, 0.0, 0.2, 0.0]))
        seen = views_of(rng.uniform(1.5, 5.0, 150), turn, 0.7, rng, wrong)
        assert not register_two_views(*seen, 0.1, 0.02).ok


@pytest.mark.parametrize("near", [0.12, 0.2])
def test_a_few_near_points_are_direction_enough(near: float) -> None:
    """A hall: most of what is seen is too far away to move."""
    for seed in range(8):
        rng, T_a_b = np.random.default_rng(seed), exponential(XI)
        z = np.where(np.arange(150) < near * 150, rng.uniform(1.5, 3.0, 150), rng.uniform(20.0, 40.0, 150))
        found = register_two_views(*views_of(z, T_a_b, 0.5, rng), DISTANCE_M, 0.01)
        assert found.ok, seed
        assert np.linalg.norm(away_of(found.T_a_b, T_a_b)[:3]) < 0.06


def test_failures_without_depth_say_why() -> None:
    a, b, _, _ = views(4, depths_m=(300.0, 400.0))  # nothing near: no direction
    assert register_two_views(a, b, 3.0, 0.1).status is not RegistrationStatus.OK
    a, b, _, _ = views(5, wrong=150)
    assert register_two_views(a, b, DISTANCE_M, 0.01).status is RegistrationStatus.NO_CONSENSUS
    with pytest.raises(DataError, match="distance_m must be above 0"):
        register_two_views(a, b, 0.0, 0.01)
    with pytest.raises(DataError, match="intrinsics"):
        register_two_views(a, View(b.features), DISTANCE_M, 0.01)


@pytest.mark.parametrize("focal", [450.0, 1000.0, 2200.0])
def test_the_focal_length_of_a_phone_comes_from_matches(focal: float) -> None:
    phone = CameraIntrinsics(1280, 960, focal, focal, 640.0, 480.0)
    a, b, T_a_b, points = views(6, noise_px=0.3, camera_b=phone)
    found, camera = register_unknown_camera(View(a.features, CAMERA, points.astype(np.float32)), View(b.features))
    assert found.ok
    assert camera is not None
    assert camera.fx == pytest.approx(focal, rel=0.03)
    assert np.linalg.norm(away_of(found.T_a_b, T_a_b)[:3]) < 0.05


def test_covariance_with_an_unknown_camera_is_that_of_repeated_registrations() -> None:
    distances = []
    for seed in range(30):
        a, b, T_a_b, points = views(seed, camera_b=PHONE)
        known = View(a.features, CAMERA, points.astype(np.float32))
        found, _ = register_unknown_camera(known, View(b.features))
        assert found.ok
        away = away_of(found.T_a_b, T_a_b)
        distances.append(float(away @ np.linalg.solve(found.covariance, away)))
    assert 2.0 < np.mean(distances) < 10.0


def test_a_flat_wall_ahead_leaves_distance_and_focal_length_open() -> None:
    rng, count = np.random.default_rng(7), 100
    points = np.concatenate([rng.uniform(-1, 1, (count, 2)), np.full((count, 1), 3.0)], 1)
    descriptors, ones = rng.integers(0, 255, (count, 128)).astype(np.uint8), np.ones(count, np.float32)
    pixels = points[:, :2] / 3.0 * 260.0 + [160.0, 120.0] + rng.normal(size=(count, 2)) * 0.5
    features = Features(pixels.astype(np.float32), descriptors, ones, 320, 240)
    found, camera = register_unknown_camera(View(features, CAMERA, points.astype(np.float32)), View(features))
    assert found.status is RegistrationStatus.UNSTABLE
    assert camera is None


def test_an_unknown_camera_needs_depth_in_the_other_image() -> None:
    a, b, _, _ = views(8)
    with pytest.raises(DataError, match="depth in the other image"):
        register_unknown_camera(a, View(b.features))


def test_exif_focal_length(tmp_path: Path) -> None:
    from PIL import Image

    image, exif = Image.new("RGB", (4000, 3000)), Image.Exif()
    image.save(tmp_path / "plain.jpg")
    assert exif_intrinsics(tmp_path / "plain.jpg") is None
    exif.get_ifd(0x8769)[0xA405] = 26
    image.save(tmp_path / "phone.jpg", exif=exif)
    camera = exif_intrinsics(tmp_path / "phone.jpg")
    assert camera is not None
    assert camera.fx == pytest.approx(26.0 / 43.2666 * 5000.0, rel=1e-4)  # 5000 px and 43.27 mm are the diagonals
    assert (camera.width, camera.height, camera.cx, camera.cy) == (4000, 3000, 2000.0, 1500.0)
    turned = photograph_intrinsics(tmp_path / "phone.jpg", np.zeros((2000, 1500, 3), np.uint8))  # decoded upright, half
    assert turned is not None
    assert (turned.width, turned.height, turned.cx) == (1500, 2000, 750.0)
    assert turned.fx == turned.fy == pytest.approx(0.5 * camera.fx)
    assert photograph_intrinsics(tmp_path / "plain.jpg", np.zeros((30, 40, 3), np.uint8)) is None
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"text\.jpg"):
        exif_intrinsics(tmp_path / "text.jpg")
