"""One image registered to several at once, and points of images without depth, against poses known by construction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_localisation_registration import CAMERA, wall_image

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import Features
from come_nav.localisation.multi_view.joint_registration import level_pose_xyyaw, register_jointly
from come_nav.localisation.multi_view.triangulation import triangulate, with_triangulated_points
from come_nav.localisation.refinement import exponential
from come_nav.localisation.registration import RegistrationSettings, RegistrationStatus, register
from come_nav.localisation.view import View, make_view
from come_nav.sim.sensors.mounting import camera_in_base


def camera_at(x: float, y: float, z: float = -2.0, turn: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    return se3.make_transform(np.eye(3), np.array([x, y, z])) @ exponential(np.array([0.0, 0.0, 0.0, *turn]))


def view_at(T_wall_camera: np.ndarray, depth: bool = True) -> View:
    rgb, depth_m = wall_image(T_wall_camera)
    return make_view(rgb, CAMERA, depth_m if depth else None)


REF = camera_at(6.0, 4.5)
OTHERS = [REF, camera_at(4.6, 4.4, turn=(0.0, 0.1, 0.0)), camera_at(7.3, 4.6, turn=(0.0, -0.1, 0.02))]
IMAGE = camera_at(6.1, 4.4, -1.7, (0.02, 0.05, -0.03))


def test_an_image_is_registered_to_several_by_more_of_its_features_than_to_one() -> None:
    views, image = [view_at(pose) for pose in OTHERS], view_at(IMAGE, depth=False)
    poses = [se3.relative(REF, pose) for pose in OTHERS]
    found, evidence = register_jointly(views, poses, image)
    assert found.ok
    assert evidence is not None
    truth = se3.relative(REF, IMAGE)
    np.testing.assert_allclose(found.T_a_b, truth, atol=0.02)
    alone = register(views[0], image)
    assert len(set(found.inliers[:, 1])) > 1.1 * len(alone.inliers)
    # a feature that three images share errs once, so that they are hardly surer than one
    assert found.covariance[:3, :3].trace() < 1.2 * alone.covariance[:3, :3].trace()
    # matches with every image take part, and each counts in the frame of its own camera
    first = np.cumsum([0, *(len(view.features) for view in views)])
    assert all(
        ((found.inliers[:, 0] >= low) & (found.inliers[:, 0] < high)).any() for low, high in itertools.pairwise(first)
    )


def test_one_image_alone_gives_what_registration_gives() -> None:
    view, image = view_at(OTHERS[1]), view_at(IMAGE, depth=False)
    joint, _ = register_jointly([view], [se3.relative(REF, OTHERS[1])], image)
    alone = register(view, image)
    np.testing.assert_allclose(joint.T_a_b, se3.relative(REF, OTHERS[1]) @ alone.T_a_b, atol=2e-3)


def still_robot(true: int, false: int, seed: int, frames: int = 4) -> tuple[list[View], View, np.ndarray]:
    """Return frames of a robot that stands, an image of the same points from elsewhere, and its pose in them.

    Of 60 points the first ``true`` are matched rightly, the next ``false`` wrongly, the others not at all.
    """
    rng, count = np.random.default_rng(seed), 60
    camera = CameraIntrinsics.from_field_of_view(320, 240, 1.3)
    middle, focal = [camera.cx, camera.cy], [camera.fx, camera.fy]

    def lifted(pixels: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.concatenate([(pixels - middle) / focal * z[:, None], z[:, None]], 1)

    def features(pixels: np.ndarray, vectors: np.ndarray) -> Features:
        return Features(pixels.astype(np.float32), vectors, np.full(count, 5, np.float32), 320, 240)

    pixels, z = rng.uniform([10, 10], [310, 230], (count, 2)), rng.uniform(1.0, 5.0, count)
    T_a_b = se3.make_transform(np.eye(3), np.array([0.1, 0.0, 0.3]))
    in_b = se3.transform_points(se3.inverse(T_a_b), lifted(pixels, z))
    seen = in_b[:, :2] / in_b[:, 2:] * focal + middle + rng.normal(0.0, 0.7, (count, 2))
    seen[true:] = rng.uniform([10, 10], [310, 230], (count - true, 2))
    vectors, others = (rng.integers(0, 60, (count, 128)).astype(np.uint8) for _ in range(2))
    others[: true + false] = vectors[: true + false]
    known = []
    for _ in range(frames):
        own = pixels + rng.normal(0.0, 0.05, (count, 2))
        known.append(View(features(own, vectors), camera, lifted(own, z).astype(np.float32)))
    return known, View(features(seen, others), camera), T_a_b


def test_frames_of_one_place_do_not_make_an_image_surer_of_itself() -> None:
    """The noise of its features is the same, whichever frame they are matched with."""
    squares = []
    for seed in range(20):
        known, image, T_a_b = still_robot(40, 0, seed)
        joint, _ = register_jointly(known, [np.eye(4)] * 4, image)
        alone, _ = register_jointly(known[:1], [np.eye(4)], image)
        assert joint.covariance.trace() == pytest.approx(alone.covariance.trace(), rel=0.25)
        off = (se3.inverse(T_a_b) @ joint.T_a_b)[:3, 3]
        squares.append(off @ np.linalg.solve(joint.covariance[:3, :3], off) / 3.0)
    assert 0.4 < np.mean(squares) < 1.6


def test_what_counts_as_registered_is_asked_of_the_true_covariance() -> None:
    known, image, _ = still_robot(40, 0, 0)
    sigma_m = float(np.sqrt(np.diag(register_jointly(known, [np.eye(4)] * 4, image)[0].covariance)[:3].max()))
    for share, ok in ((1.1, True), (0.9, False)):
        strict = RegistrationSettings(max_sigma_m=share * sigma_m)
        assert register_jointly(known, [np.eye(4)] * 4, image, strict)[0].ok is ok


@pytest.mark.parametrize("false", [4, 6, 9])
def test_a_few_wrong_matches_are_no_consensus_because_each_frame_has_them(false: int) -> None:
    for seed in range(10):
        known, image, _ = still_robot(0, false, seed)
        assert not register_jointly(known, [np.eye(4)] * 4, image)[0].ok


def test_images_without_points_count_for_nothing_and_cameras_must_be_known() -> None:
    image = view_at(IMAGE, depth=False)
    found, evidence = register_jointly([view_at(REF, depth=False)], [np.eye(4)], image)
    assert found.status is RegistrationStatus.TOO_FEW_FEATURES
    assert evidence is None
    with pytest.raises(DataError, match="intrinsics"):
        register_jointly([view_at(REF)], [np.eye(4)], View(image.features))


def test_points_are_triangulated_with_the_error_that_is_told() -> None:
    view, measured = view_at(REF, depth=False), view_at(REF)
    near, far = camera_at(5.8, 4.5), camera_at(6.0, 4.2)
    seen = [(view_at(pose, depth=False), se3.relative(REF, pose)) for pose in (near, far)]
    found = with_triangulated_points(view, seen)
    assert found.known.sum() > 100
    assert found.points_camera_m is not None
    assert found.sigmas_m is not None
    assert measured.points_camera_m is not None
    both = found.known & measured.known
    off = np.abs(found.points_camera_m[both, 2] - measured.points_camera_m[both, 2])
    assert np.median(off) < 0.02
    assert np.mean(off < 2.0 * found.sigmas_m[both]) > 0.9
    # a pose follows from them as from measured depth
    registered = register(found, view_at(IMAGE, depth=False))
    assert registered.ok
    np.testing.assert_allclose(registered.T_a_b, se3.relative(REF, IMAGE), atol=0.04)


def test_a_camera_that_only_turned_tells_no_points() -> None:
    turned = camera_at(6.0, 4.5, turn=(0.0, 0.1, 0.0))
    found = with_triangulated_points(
        view_at(REF, depth=False), [(view_at(turned, depth=False), se3.relative(REF, turned))]
    )
    assert not found.known.any()


def test_triangulation_is_exact_without_noise() -> None:
    T_now_then = exponential(np.array([0.3, -0.05, 0.1, 0.02, 0.1, -0.03]))
    rng = np.random.default_rng(0)
    then = np.column_stack([rng.uniform(-1, 1, (20, 2)), rng.uniform(2, 5, 20)])
    now = se3.transform_points(T_now_then, then)

    def pixels(points: np.ndarray) -> np.ndarray:
        return points[:, :2] / points[:, 2:] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]

    inverse, _, error_px = triangulate(pixels(then), pixels(now), CAMERA, T_now_then)
    np.testing.assert_allclose(1.0 / inverse, now[:, 2], rtol=1e-9)
    assert error_px.max() < 1e-9


def test_a_photograph_that_is_tilted_was_taken_where_it_was_taken() -> None:
    extrinsics = camera_in_base(1.2)
    standing = se3.transform_from_xyyaw(np.array([1.0, -2.0, 0.7]))
    tilted = standing @ extrinsics @ exponential(np.array([0.0, 0.0, 0.0, 0.15, 0.0, 0.1]))
    np.testing.assert_allclose(level_pose_xyyaw(tilted, extrinsics)[:2], [1.0, -2.0], atol=0.02)
    np.testing.assert_allclose(level_pose_xyyaw(standing @ extrinsics, extrinsics), [1.0, -2.0, 0.7], atol=1e-12)
    assert abs(level_pose_xyyaw(tilted, extrinsics)[2] - 0.7) < 0.02
