"""Images, depth and cameras that travel with the latents."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.training.config import DataSettings
from come_nav.training.data.bank import GoalSettings, LatentBank
from come_nav.training.data.recording_bank import model_camera, model_depth, recording_bank
from come_nav.training.data.sim_bank import sim_bank, training_camera
from come_nav.world_model.images import images_from_bytes, images_from_rgb

SIZE = 16


def shrink(images: torch.Tensor) -> torch.Tensor:
    """Stand-in for an autoencoder: latents (B, 3, 4, 4) that are block means of the image."""
    return torch.nn.functional.avg_pool2d(images, SIZE // 4)


@pytest.fixture(scope="module")
def rendered() -> LatentBank:
    """A bank of one short built-in drive with images and depth."""
    config = DataSettings(worlds=1, episode_s=6.0, branches=2, keep_images=True, keep_depth=True)
    return sim_bank([3], config, SIZE, 4.0, shrink, "cpu")


def test_images_of_context_and_goals_belong_to_their_latents(rendered: LatentBank) -> None:
    batch = rendered.sample(GoalSettings(branch_fraction=0.5), 24, torch.Generator().manual_seed(0))
    assert batch.context_images is not None
    assert batch.goal_images is not None
    assert batch.context_images.dtype == torch.uint8
    for images, latents in (
        (batch.context_images, batch.context_latents),
        (batch.goal_images, batch.goal_latents),
    ):
        expected = shrink(images_from_bytes(images).flatten(0, 1))
        torch.testing.assert_close(latents.flatten(0, 1), expected, atol=5e-3, rtol=0)


def test_depth_and_camera_are_the_built_in_cameras(rendered: LatentBank) -> None:
    batch = rendered.sample(GoalSettings(), 4, torch.Generator().manual_seed(0))
    assert batch.context_depth_m is not None
    assert batch.camera is not None
    torch.testing.assert_close(batch.camera, torch.full((4, 4), 0.5))
    world = generate_world(3)
    poses = torch.as_tensor(simulate_episode(world, "wander", 6.0, 4.0, seed=3).poses_world_xyyaw)
    depth = Raycaster([world], training_camera(SIZE)).render(poses.float())[1]
    assert rendered.depth_m is not None
    torch.testing.assert_close(rendered.depth_m.float(), depth, atol=0, rtol=2e-3)


def test_a_bank_without_images_gives_none() -> None:
    bank = sim_bank([3], DataSettings(worlds=1, episode_s=5.0, branches=1), SIZE, 4.0, shrink, "cpu")
    batch = bank.sample(GoalSettings(), 2, torch.Generator().manual_seed(0)).to("cpu")
    assert batch.context_images is None
    assert batch.goal_images is None
    assert batch.context_depth_m is None


def test_recordings_keep_images_depth_and_the_crops_camera() -> None:
    """A wide camera is cropped to its middle square; its focal length in pixels stays, the fractions change."""
    world = generate_world(5)
    camera = CameraIntrinsics.from_field_of_view(48, 32, math.pi / 2)
    recording = EpisodeRecording(simulate_episode(world, "wander", 5.0, 4.0, seed=1), Raycaster([world], camera))
    bank = recording_bank(
        recording,
        (0.0, 1.0),
        lambda frames: images_from_rgb(frames, SIZE),
        shrink,
        4.0,
        keep_images=True,
        keep_depth=True,
    )
    assert bank.cameras is not None
    torch.testing.assert_close(bank.cameras, torch.tensor([[24 / 32, 24 / 32, 0.5, 0.5]]))
    assert bank.depth_m is not None
    whole = recording.frame(7).depth_m
    assert whole is not None
    rows = 1 + 2 * np.arange(SIZE)
    expected = torch.from_numpy(whole[:, 8:40][np.ix_(rows, rows)])
    torch.testing.assert_close(bank.depth_m[7].float(), expected, atol=0, rtol=2e-3)
    batch = bank.sample(GoalSettings(), 8, torch.Generator().manual_seed(0))
    assert batch.goal_images is not None
    expected_latents = shrink(images_from_bytes(batch.goal_images).flatten(0, 1))
    torch.testing.assert_close(batch.goal_latents.flatten(0, 1), expected_latents, atol=5e-3, rtol=0)


def test_unknown_depth_and_camera_are_nan() -> None:
    rgb = np.zeros((8, 12, 3), np.uint8)
    depth = np.full((8, 12), 2.0, np.float32)
    depth[:, 6:] = 0.0
    depth[0] = np.nan
    small = model_depth(Frame(0.0, rgb, depth), 4, 1.0)
    assert torch.equal(small.isnan(), torch.tensor([[False, False, True, True]]).expand(4, -1))
    assert model_depth(Frame(0.0, rgb), 4, 1.0).isnan().all()
    assert model_camera(None, 1.0).isnan().all()


def test_joined_banks_share_what_all_have(rendered: LatentBank) -> None:
    joined = LatentBank.concatenate([rendered, rendered])
    assert joined.cameras is not None
    assert joined.camera_index is not None
    assert torch.equal(joined.camera_index.unique(), torch.tensor([0, 1]))
    assert joined.images is not None
    assert len(joined.images) == 2 * len(rendered)
    plain = sim_bank([3], DataSettings(worlds=1, episode_s=5.0, branches=2), SIZE, 4.0, shrink, "cpu")
    assert LatentBank.concatenate([rendered, plain]).images is None
