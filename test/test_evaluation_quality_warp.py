"""The geometric reference: exact where it must be, right on planes and behind edges, on simulated and real depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.evaluation.protocols.depth_warp import can_warp, draw, lift, warp_context

CAMERA = CameraIntrinsics.from_field_of_view(48, 32, np.pi / 2)
EXTRINSICS = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.0, 0.0, 0.5]))


def pose(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    return se3.transform_from_xyyaw(np.array([x, y, yaw]))


def wall(y_m: np.ndarray, z_m: np.ndarray) -> np.ndarray:
    """Return smooth colours (..., 3) of a wall across the x axis."""
    return np.stack([127 + 100 * np.sin(2 * y_m), 127 + 100 * np.cos(2 * z_m), 60 + 20 * y_m], axis=-1)


def wall_frame(x_wall_m: float, x: float = 0.0, y: float = 0.0) -> Frame:
    """Return what a camera at (x, y) that looks along x sees of the wall."""
    columns, rows = np.arange(CAMERA.width) + 0.5, np.arange(CAMERA.height) + 0.5
    depth = np.full((CAMERA.height, CAMERA.width), x_wall_m - x, np.float32)
    y_m = y - (columns[None] - CAMERA.cx) / CAMERA.fx * depth
    z_m = 0.5 - (rows[:, None] - CAMERA.cy) / CAMERA.fy * depth
    rgb = np.rint(wall(y_m, z_m)).clip(0, 255).astype(np.uint8)
    return Frame(0.0, rgb, depth, CAMERA, EXTRINSICS)


def decibels(first: np.ndarray, second: np.ndarray) -> float:
    images = [torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None] for image in (first, second)]
    return float(psnr(*images, value_range=(0, 255))[0])


def test_a_frame_seen_from_its_own_place_is_itself():
    frame = wall_frame(2.0)
    for place in (pose(), pose(1.0, -2.0, 0.7)):
        (view,) = warp_context([frame], place[None], place[None])
        np.testing.assert_array_equal(view, frame.rgb)


@pytest.mark.parametrize(("x", "y"), [(0.6, 0.0), (-0.5, 0.0), (0.0, 0.4), (0.8, -0.3)])
def test_a_wall_seen_from_elsewhere(x, y):
    (view,) = warp_context([wall_frame(2.5)], pose()[None], pose(x, y)[None])
    real = wall_frame(2.5, x, y).rgb
    margin = slice(6, -6)  # what the first view did not see is filled from its neighbours
    assert decibels(view[margin, margin], real[margin, margin]) > 33.0
    assert decibels(wall_frame(2.5).rgb[margin, margin], real[margin, margin]) < 28.0


def test_depth_of_drawn_points_is_along_the_new_optical_axis():
    cloud = lift(wall_frame(3.0), pose())
    _, depth = draw(cloud, pose(1.0) @ EXTRINSICS, CAMERA)
    np.testing.assert_allclose(depth[8:-8, 8:-8].numpy(), 2.0, atol=1e-5)


def test_the_near_surface_hides_the_far_one_and_the_other_frame_fills_the_hole():
    """A red post 1 m ahead hides part of a wall; a second frame from the side saw what is behind it."""

    def with_post(frame: Frame) -> Frame:
        rgb, depth = frame.rgb.copy(), frame.depth_m.copy()
        rgb[:, 21:27], depth[:, 21:27] = (255, 0, 0), 1.0
        return Frame(0.0, rgb, depth, CAMERA, EXTRINSICS)

    def is_red(image: np.ndarray) -> np.ndarray:
        return (image[..., 0] > 230) & (image[..., 1] < 30)

    hidden, aside = with_post(wall_frame(3.0)), wall_frame(3.0, 0.0, 0.5)
    target = pose(0.0, -0.25)
    real = wall_frame(3.0, 0.0, -0.25).rgb
    (alone,) = warp_context([hidden], pose()[None], target[None])
    (both,) = warp_context([aside, hidden], np.stack([pose(0.0, 0.5), pose()]), target[None])
    # The robot went 0.25 m right, so the post (1 m ahead) moves 6 px left and uncovers 4 px of the wall (3 m),
    # which the nearest seen pixels fill: half of them are red. The other frame knows better.
    np.testing.assert_array_equal(np.flatnonzero(is_red(alone[16])), np.arange(15, 23))
    np.testing.assert_array_equal(np.flatnonzero(is_red(both[16])), np.arange(15, 21))
    uncovered = (slice(None), slice(21, 25))
    assert decibels(both[uncovered], real[uncovered]) > decibels(alone[uncovered], real[uncovered]) + 6.0


def test_unknown_depth_is_left_out_and_nothing_seen_is_the_last_frame():
    frame = wall_frame(2.0)
    holes = frame.depth_m.copy()
    holes[4:8], holes[20:24] = np.nan, 0.0
    cloud = lift(Frame(0.0, frame.rgb, holes, CAMERA, EXTRINSICS), pose())
    assert len(cloud.points_world) == 9 * 24 * 48
    assert torch.isfinite(cloud.points_world).all()
    (behind,) = warp_context([frame], pose()[None], pose(0.0, 0.0, np.pi)[None])
    np.testing.assert_array_equal(behind, frame.rgb)
    blind = Frame(0.0, frame.rgb, None, CAMERA, EXTRINSICS)
    assert can_warp(frame)
    assert not can_warp(blind)
    (unknown,) = warp_context([blind], pose()[None], pose(1.0)[None])
    np.testing.assert_array_equal(unknown, frame.rgb)
    with pytest.raises(DataError, match="intrinsics"):
        warp_context([Frame(0.0, frame.rgb, frame.depth_m)], pose()[None], pose()[None])


def test_in_a_built_in_world_geometry_beats_copying():
    from come_nav.sim.episodes import EpisodeRecording, simulate_episode
    from come_nav.sim.raycaster import Raycaster
    from come_nav.sim.worlds import generate_world

    world = generate_world(10003)
    raycaster = Raycaster([world], CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2))
    drive = EpisodeRecording(simulate_episode(world, "tour", 10.0, 4.0, seed=0), raycaster, use_truth=True)
    gains = []
    for start in range(3, 36, 8):
        frames = [drive.frame(index) for index in range(start - 3, start + 1)]
        (view,) = warp_context(frames, drive.T_odom_base[start - 3 : start + 1], drive.T_odom_base[start + 2][None])
        real = drive.frame(start + 2).rgb
        gains.append(decibels(view, real) - decibels(frames[-1].rgb, real))
    assert np.mean(gains) > 3.0


@pytest.mark.shared_data
def test_in_a_real_kitchen_geometry_beats_copying(shared_data):
    from come_nav.data import open_recording

    drive = open_recording(shared_data / "bags" / "kitchen", 4.0)
    gains = []
    for start in range(10, 120, 30):
        frames = [drive.frame(index) for index in range(start - 3, start + 1)]
        (view,) = warp_context(frames, drive.T_odom_base[start - 3 : start + 1], drive.T_odom_base[start + 4][None])
        real = drive.frame(start + 4).rgb
        gains.append(decibels(view, real) - decibels(frames[-1].rgb, real))
    assert np.mean(gains) > 1.0
