"""Depth of context frames: the camera's where it measured one, an estimate that agrees with it elsewhere."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Frame, ViewSource
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.evaluation.suites.fingerprints import model_settings
from come_nav.navigation.navigation_model import looks_at_depth
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.training.data.bank import LatentBank
from come_nav.training.tasks.views import DepthStream, focal_ratios, with_estimated_depth
from come_nav.world_model.depth_of_frames import RATIO_PIXELS, completed_depth, measured_depth, scale_of
from come_nav.world_model.episode_loss import DEPTH, EpisodeLoss
from come_nav.world_model.images import ImageSettings, camera_of_frame
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import context_view
from come_nav.world_model.views import rendered_views

NEWEST = 40


@pytest.fixture(scope="module")
def drive() -> EpisodeRecording:
    world = generate_world(10002)
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    return EpisodeRecording(simulate_episode(world, "tour", 20.0, seed=2), Raycaster([world], camera), use_truth=True)


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    return DiffusionWorldModel.load(find_resource("models", "tiny"))


def with_inference(model, **changes):
    other = copy.copy(model)
    other.inference = replace(model.inference, **changes)
    return other


def frames_of(drive, depth=True):
    frames = [drive.frame(index) for index in range(NEWEST - 3, NEWEST + 1)]
    return frames if depth else [replace(frame, depth_m=None) for frame in frames]


def context_of(model, drive, frames):
    return model.context_from_frames(frames, drive.poses_xyyaw[NEWEST - 3 : NEWEST + 1])


def test_each_pixel_of_the_model_takes_the_nearest_measured_one():
    depth_m = np.arange(40 * 80, dtype=np.float32).reshape(40, 80) + 1.0
    depth_m[20, 42] = np.nan
    frame = Frame(0.0, np.zeros((40, 80, 3), np.uint8), depth_m)
    seen = measured_depth([frame], 20, 1.0)[0]  # the window of 40 x 40 from column 20 on, every second pixel
    expected = depth_m[1::2, 21:60:2].copy()
    assert torch.equal(seen, torch.from_numpy(np.nan_to_num(expected)))
    blank = measured_depth([Frame(0.0, frame.rgb)], 20, 1.0)
    assert not blank.any()


def test_an_unknown_pixel_is_zero_whatever_the_sensor_writes():
    depth_m = np.full((8, 8), 2.0, np.float32)
    depth_m[0, :4] = [np.nan, 0.0, np.inf, -1.0]
    seen = measured_depth([Frame(0.0, np.zeros((8, 8, 3), np.uint8), depth_m)], 8, 1.0)[0]
    assert seen[0].tolist() == [0.0] * 4 + [2.0] * 4


def test_an_estimate_is_scaled_to_what_was_measured():
    truth = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)) + 1.0
    measured = truth.clone()
    measured[:, :, 8:] = 0.0
    assert torch.allclose(completed_depth(measured, 0.5 * truth), truth, atol=1e-6)


def test_too_few_measured_pixels_scale_nothing():
    truth, measured = torch.full((1, 16, 16), 2.0), torch.zeros(1, 16, 16)
    measured.view(-1)[: RATIO_PIXELS - 1] = 4.0
    depth = completed_depth(measured, truth)
    assert depth.view(-1)[: RATIO_PIXELS - 1].unique().tolist() == [4.0]
    assert depth.view(-1)[RATIO_PIXELS - 1 :].unique().tolist() == [2.0]


def test_estimates_grow_with_the_focal_length(model, drive):
    images = model.images_from_rgb([drive.frame(NEWEST).rgb])
    plain = model.estimate_depth_m(images)
    own = model.estimate_depth_m(images, model.images.camera())
    longer = model.estimate_depth_m(images, model.images.camera() * torch.tensor([2.0, 2.0, 1.0, 1.0]))
    assert torch.equal(own, plain)
    assert torch.allclose(longer, 2.0 * plain)


def test_a_model_of_various_cameras_knows_its_focal_length_itself(model, drive):
    various = with_inference(model)
    various.images = replace(model.images, horizontal_fov_deg=0.0)
    images = model.images_from_rgb([drive.frame(NEWEST).rgb])
    longer = model.images.camera() * torch.tensor([2.0, 2.0, 1.0, 1.0])
    assert torch.equal(various.estimate_depth_m(images, longer), model.estimate_depth_m(images))


def test_without_measured_depth_nothing_looks_at_it(model, drive):
    estimating = with_inference(model, measured_depth=False)
    with_depth, without = (context_of(estimating, drive, frames_of(drive, depth)) for depth in (True, False))
    assert torch.equal(with_depth.points.xyz, without.points.xyz)
    measuring = context_of(model, drive, frames_of(drive))
    assert not torch.equal(measuring.points.xyz, without.points.xyz)


def test_older_frames_are_moved_by_their_measured_depth(model, drive):
    older = [(drive.frame(index), drive.poses_xyyaw[index]) for index in range(NEWEST - 15, NEWEST - 3)]
    blind = [(replace(frame, depth_m=None), pose) for frame, pose in older]
    poses = drive.poses_xyyaw[NEWEST - 3 : NEWEST + 1]
    seen, unseen = (
        model.context_from_frames(frames_of(drive), poses, older=own).older_points.xyz for own in (older, blind)
    )
    assert not torch.equal(seen, unseen)


def test_measured_depth_moves_a_context_to_where_it_is_seen_from(model):
    """The view from where the robot drives next is nearer to the truth than by the estimate, where that is blind."""
    world = generate_world(10002)
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.radians(50.0))  # narrower than the estimator has seen
    drive = EpisodeRecording(simulate_episode(world, "tour", 20.0, seed=2), Raycaster([world], camera), use_truth=True)
    gains = []
    for ahead in (2, 4, 6):
        start, later = drive.poses_xyyaw[NEWEST], drive.poses_xyyaw[NEWEST + ahead]
        action = torch.from_numpy(se2.relative(start, later)).float()[None]
        truth = model.images_from_rgb([drive.frame(NEWEST + ahead).rgb])
        measured, estimated = (
            float(
                psnr(
                    rendered_views(own, context_of(own, drive, frames_of(drive)), action, {ViewSource.CONTEXT})[
                        ViewSource.CONTEXT
                    ].filled,
                    truth,
                )
            )
            for own in (model, with_inference(model, measured_depth=False))
        )
        gains.append(measured - estimated)
    assert np.mean(gains) > 1.0


def test_the_adapter_learns_with_measured_depth(model, drive):
    frame = drive.frame(NEWEST)
    loss, image = EpisodeLoss(model), model.images_from_rgb([frame.rgb])[0]
    loss.camera = camera_of_frame(frame.intrinsics, 1.0)
    depth_m = measured_depth([frame], model.image_size, 1.0)[0]
    kept = loss.frame(image, None, None, depth_m)[DEPTH].float()
    assert torch.allclose(kept, depth_m, rtol=1e-3)
    assert not torch.allclose(loss.frame(image)[DEPTH].float(), depth_m, rtol=1e-2)


@pytest.mark.parametrize("fov_deg", [60.0, 90.0])
@pytest.mark.parametrize("size", [(64, 64), (320, 240)])
def test_a_measured_wall_is_rendered_where_perspective_puts_it(model, fov_deg, size):
    """A red square of 1 m on a blue wall 2 m ahead, seen from 1 m nearer."""
    camera = CameraIntrinsics.from_field_of_view(*size, np.radians(fov_deg))
    v, u = np.mgrid[: camera.height, : camera.width] + 0.5
    red = (abs(u - camera.cx) / camera.fx * 2.0 < 0.5) & (abs(v - camera.cy) / camera.fy * 2.0 < 0.5)
    rgb = np.where(red[..., None], [255, 0, 0], [0, 0, 255]).astype(np.uint8)
    extrinsics = level_camera(0.5)[0].double().numpy()
    frames = [Frame(0.25 * step, rgb, np.full(red.shape, 2.0, np.float32), camera, extrinsics) for step in range(4)]
    context = model.context_from_frames(frames, np.zeros((4, 3)))
    view = context_view(context, torch.tensor([[1.0, 0.0, 0.0]]), model.image_size, model.reprojection)
    shown = view.filled[0, 0] > view.filled[0, 2]
    side_px = min(camera.fx * model.image_size / min(size), model.image_size)
    assert float(shown.sum()) ** 0.5 == pytest.approx(side_px, abs=2.0)  # a pixel of the image is two of the view
    assert float(view.inverse_depth[view.inverse_depth > 0].median()) == pytest.approx(1.0, rel=1e-3)


def test_frames_that_measured_nothing_take_the_scale_of_the_others(model, drive):
    truth = torch.full((1, 16, 16), 3.0)
    assert scale_of(None, truth) is None
    assert scale_of(1.5 * truth, truth) == pytest.approx(1.5)
    assert torch.equal(completed_depth(None, truth, 2.0), 2.0 * truth)
    assert torch.equal(completed_depth(None, truth), truth)
    frames = [replace(frame, depth_m=2.0 * frame.depth_m) for frame in frames_of(drive)]
    images = model.images_from_rgb([frame.rgb for frame in frames])
    scale = scale_of(measured_depth(frames, 64, 1.0), model.estimate_depth_m(images))
    older = [(replace(drive.frame(NEWEST - 5), depth_m=None), drive.poses_xyyaw[NEWEST - 5])]
    poses = drive.poses_xyyaw[NEWEST - 3 : NEWEST + 1]
    past_m = model.estimate_depth_m(model.images_from_rgb([older[0][0].rgb])) * scale
    told = [(replace(older[0][0], depth_m=past_m[0].numpy()), older[0][1])]
    by_scale, by_hand = (model.context_from_frames(frames, poses, older=own).older_points.xyz for own in (older, told))
    torch.testing.assert_close(by_scale, by_hand)


def test_results_say_which_depth_contexts_had_and_who_looks_at_it(model):
    estimating = with_inference(model, measured_depth=False)
    found = [model_settings("tiny", own)["context_depth"] for own in (model, estimating)]
    assert found == ["measured", "estimated"]
    assert [looks_at_depth(own) for own in (model, estimating)] == [True, False]


def test_training_sees_recorded_depth_as_the_camera_of_the_estimator_would(model):
    count = 3
    bank = LatentBank(
        latents=torch.zeros(count, 1, 1, 1),
        poses_xyyaw=torch.zeros(count, 3),
        first=torch.zeros(count, dtype=torch.int64),
        last=torch.full((count,), count - 1),
        branch_latents=torch.zeros(count, 0, 1, 1, 1),
        branch_actions_xyyaw=torch.zeros(count, 0, 3),
        branch_rel_frames=torch.zeros(count, 0, dtype=torch.int64),
        images=torch.full((count, 3, 64, 64), 90, dtype=torch.uint8),
        depth_m=torch.full((count, 64, 64), 6.0),
        cameras=torch.tensor([[1.0, 1.0, 0.5, 0.5], [torch.nan] * 4]),
        camera_index=torch.tensor([0, 1, 0]),
    )
    ratios = focal_ratios(bank, model.images)
    assert ratios.tolist() == [2.0, 1.0, 2.0]
    assert focal_ratios(bank, ImageSettings(horizontal_fov_deg=0.0)).tolist() == [1.0] * 3
    _, depth_m = next(iter(DepthStream(bank, 16, 0, range(1), ratios)))
    assert set(depth_m.unique().tolist()) == {3.0, 6.0}
    estimated_m = with_estimated_depth(bank, model.depth, "cpu", progress=False, images=model.images).depth_m.float()
    torch.testing.assert_close(estimated_m[0], 2.0 * estimated_m[1], rtol=2e-3, atol=0)
