"""Key frames of a textured hall, drifting odometry, and images found again."""

from __future__ import annotations

import math

import numpy as np
import pytest

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.localisation.keyframe_map import LocaliserSettings
from come_nav.localisation.localiser import VisualLocaliser
from come_nav.localisation.place_recognition import PlaceIndex, PlaceSettings
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.sim.worlds import generate_world

CAMERA = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)


@pytest.fixture(scope="module")
def raycaster() -> Raycaster:
    return Raycaster([generate_world(10001)], CAMERA)


def raycaster_start(raycaster: Raycaster) -> np.ndarray:
    from come_nav.sim.builtin import BuiltInSimulator

    return BuiltInSimulator.in_world(raycaster.worlds[0], seed=3).pose_world_xyyaw


@pytest.fixture(scope="module")
def turned(raycaster: Raycaster) -> tuple[np.ndarray, list[Frame]]:
    """Return poses and frames of a robot that turns on the spot more than once."""
    start = raycaster_start(raycaster)
    poses = np.array([se2.compose(start, np.array([0.0, 0.0, 0.3 * step])) for step in range(26)])
    return se2.relative(poses[:1], poses), [frame_at(raycaster, pose) for pose in poses]


def frame_at(raycaster: Raycaster, pose: np.ndarray) -> Frame:
    import torch

    images, depth = raycaster.render(torch.from_numpy(pose[None]))
    return Frame(0.0, to_uint8(images)[0], depth[0].numpy(), CAMERA, camera_in_base(0.5))


def test_heading_drift_is_taken_out(turned: tuple[np.ndarray, list[Frame]]) -> None:
    poses, frames = turned
    localiser = VisualLocaliser()
    for step, (pose, frame) in enumerate(zip(poses, frames, strict=True)):
        believed = se2.compose(pose, np.array([0.0, 0.0, 0.012 * step]))  # 4 % of the turn
        assert localiser.observe(frame, se3.transform_from_xyyaw(believed)) == step
    off = np.abs(se2.wrap_angle(localiser.poses_map_xyyaw[:, 2] - poses[:, 2]))
    assert off[-1] < 0.05  # odometry is off by 0.30
    assert localiser.closures
    corrected = localiser.T_map_odom @ localiser.keyframes[-1].T_odom_base
    np.testing.assert_allclose(se3.xyyaw_from_transform(corrected), localiser.poses_map_xyyaw[-1], atol=1e-9)


def test_images_are_found_and_unseen_ones_are_not(turned: tuple[np.ndarray, list[Frame]], raycaster: Raycaster) -> None:
    poses, frames = turned
    localiser = VisualLocaliser(LocaliserSettings(closures=0))
    assert localiser.relocalise(frames[0].rgb).pose_map_xyyaw is None
    for pose, frame in zip(poses[:21:2], frames[:21:2], strict=True):
        localiser.observe(frame, se3.transform_from_xyyaw(pose))
    # posters repeat in these worlds: 39 matches that agree are right in five of six images without depth
    for depth_m in (None, frames[5].depth_m):
        found = localiser.relocalise(frames[5].rgb, depth_m=depth_m)
        assert found.confidence > 0.8
        assert found.pose_map_xyyaw is not None
        away = se2.relative(poses[5], found.pose_map_xyyaw)
        assert np.abs(away).max() < 0.05
    assert found.certain
    assert found.T_map_camera is not None
    np.testing.assert_allclose(
        se3.xyyaw_from_transform(found.T_map_camera @ se3.inverse(camera_in_base(0.5))), found.pose_map_xyyaw, atol=1e-9
    )
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    for never in (noise, np.zeros((240, 320, 3), np.uint8)):
        answer = localiser.relocalise(never)
        assert not answer.certain
        assert answer.confidence < 0.9


def test_a_photograph_by_another_camera_is_found(turned: tuple[np.ndarray, list[Frame]], raycaster: Raycaster) -> None:
    import torch

    poses, frames = turned
    localiser = VisualLocaliser(LocaliserSettings(closures=0))
    for pose, frame in zip(poses[:21:2], frames[:21:2], strict=True):
        localiser.observe(frame, se3.transform_from_xyyaw(pose))
    start = raycaster_start(raycaster)
    phone = CameraIntrinsics.from_field_of_view(400, 300, 1.1)  # the robot's has 1.57
    seen = se2.compose(start, poses[5])
    images, _ = Raycaster(raycaster.worlds, phone).render(torch.from_numpy(seen[None]))
    photograph = to_uint8(images)[0]
    found = localiser.relocalise(photograph, T_base_camera=camera_in_base(0.5), unknown_camera=True)
    assert found.pose_map_xyyaw is not None
    away = se2.relative(poses[5], found.pose_map_xyyaw)
    assert np.hypot(*away[:2]) < 0.25
    assert abs(away[2]) < 0.2
    with pytest.raises(DataError, match="unknown camera"):
        localiser.relocalise(photograph, phone, unknown_camera=True)


def test_a_frame_is_kept_only_after_a_move(turned: tuple[np.ndarray, list[Frame]]) -> None:
    _, frames = turned
    localiser = VisualLocaliser()
    assert localiser.observe(frames[0], np.eye(4)) == 0
    assert localiser.observe(frames[0], se3.transform_from_xyyaw(np.array([0.1, 0.0, 0.0]))) is None
    assert localiser.observe(frames[0], se3.transform_from_xyyaw(np.array([0.3, 0.0, 0.0]))) == 1


def test_a_frame_without_a_camera_is_refused() -> None:
    with pytest.raises(DataError, match="intrinsics"):
        VisualLocaliser().add_keyframe(Frame(0.0, np.zeros((4, 4, 3), np.uint8)), np.eye(4))


def test_places_know_their_own_images_and_grow(turned: tuple[np.ndarray, list[Frame]]) -> None:
    from come_nav.localisation.features import extract_features

    _, frames = turned
    features = [extract_features(frame.rgb) for frame in frames[:20]]
    index = PlaceIndex(PlaceSettings(first_training=8))
    for count, one in enumerate(features, 1):
        index.add(one)
        if index.due():
            index.train(features[:count])
    assert len(index) == 20
    for row, one in enumerate(features):
        rows, similar = index.candidates(one, 3)
        assert rows[0] == row
        assert similar[0] == pytest.approx(1.0, abs=1e-4)
    near, _ = index.candidates(extract_features(frames[20].rgb), 3)
    assert 19 in near
    rows, _ = index.candidates(features[4], 3, np.arange(20) > 4)
    assert (rows > 4).all()
