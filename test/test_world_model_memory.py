"""Experts that share the base's weights and look at more: a longer past, and a spatial memory."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.experts import EXPERTS
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import level_camera
from come_nav.core.protocols import ExpertModel
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.experts.lora import LongTermExpert, adapted
from come_nav.experts.lora_settings import LoraSettings
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.prediction import product_of
from come_nav.world_model.reprojection import RenderedView
from come_nav.world_model.views import blended_images, memory_view

NEWEST = 40


@pytest.fixture(scope="module")
def drive() -> EpisodeRecording:
    world = generate_world(10002)
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    return EpisodeRecording(simulate_episode(world, "tour", 20.0, seed=2), Raycaster([world], camera), use_truth=True)


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    loaded = DiffusionWorldModel.load(find_resource("models", "tiny"))
    loaded.inference = replace(loaded.inference, precision="float32")  # "auto" is bfloat16 on some CPUs
    return loaded


class Oracle:
    """Remembers everything: it renders the true world."""

    def __init__(self, drive: EpisodeRecording) -> None:
        self.drive = drive

    def views(self, poses, image_size, T_base_camera=None):
        start = torch.from_numpy(self.drive.episode.poses_world_xyyaw[:1]).float()
        images, depth = self.drive.raycaster.render(se2.compose(start.expand(len(poses), 3), poses))
        return images, torch.ones(len(poses), image_size, image_size, dtype=torch.bool), 1.0 / depth


def context_of(model, drive, older=0):
    frames = [drive.frame(index) for index in range(NEWEST - 3, NEWEST + 1)]
    past = [(drive.frame(index), drive.poses_xyyaw[index]) for index in range(NEWEST - 3 - older, NEWEST - 3)]
    poses = drive.poses_xyyaw[NEWEST - 3 : NEWEST + 1]
    return model.context_from_frames(frames, poses, older=past, absolute_pose_xyyaw=poses[-1])


ACTIONS = torch.tensor([[0.3, 0.0, 0.4], [0.0, 0.0, 2.5], [0.2, -0.1, -1.5]])


def predicted(model, context):
    return model.predict(context, ACTIONS, torch.full((3,), 8.0), torch.Generator().manual_seed(0))


def test_the_base_alone_is_the_model_itself(model, drive) -> None:
    alone = model.with_memory(Oracle(drive)).composed({"base": 1.0})
    torch.testing.assert_close(predicted(alone, context_of(model, drive)), predicted(model, context_of(model, drive)))


def test_a_spatial_memory_shows_what_no_context_frame_does(model, drive) -> None:
    remembering = model.with_memory(Oracle(drive))
    context = context_of(model, drive)
    start = torch.from_numpy(drive.poses_xyyaw[NEWEST]).float()
    truth, _, _ = Oracle(drive).views(se2.compose(start.expand(3, 3), ACTIONS), 64)
    with_memory = psnr(model.decode(predicted(remembering, context)).clamp(-1, 1), truth)
    without = psnr(model.decode(predicted(model, context)).clamp(-1, 1), truth)
    assert (with_memory[1:] > without[1:] + 5.0).all()  # behind the robot
    assert with_memory[0] > without[0]  # ahead, where the context knows most
    assert with_memory.mean() > 24.0


def test_a_contrast_goes_on_from_the_base_beyond_the_memory(model, drive) -> None:
    remembering, context = model.with_memory(Oracle(drive)), context_of(model, drive)
    base, full = predicted(model, context), predicted(remembering, context)
    between = predicted(remembering.composed({"base": 1.0, "spatial": 0.5}), context)
    torch.testing.assert_close(between, 0.5 * (base + full), atol=2e-4, rtol=1e-3)  # one step is linear in the noise
    mean = predicted(remembering.composed({"base": 1.0, "spatial": 1.0}, "average"), context)
    torch.testing.assert_close(mean, between, atol=2e-4, rtol=1e-3)


def test_all_memories_together_cost_two_passes_of_the_network(model, drive) -> None:
    long_term = LongTermExpert(model.memory_base, LoraSettings(4, 4))
    network = adapted(model.memory_base, long_term.settings, torch.Generator().manual_seed(0))
    tensors = {name: own.detach() for name, own in network.named_parameters() if own.requires_grad}
    long_term.swap({name: own + 0.05 for name, own in tensors.items()})
    together = model.with_memory(Oracle(drive), long_term)
    context = context_of(model, drive)
    assert len(product_of(together).exponents(999)) == 1  # both contrasts fully on: the adapter with the memory's view
    beyond = together.composed({"base": 1.0, "spatial": 1.0, "long_term": 1.5})
    assert len(product_of(beyond).exponents(999)) == 2
    one, more = predicted(together, context), predicted(beyond, context)
    without = predicted(together.composed({"base": 1.0, "spatial": 1.0}), context)
    torch.testing.assert_close(more, without + 1.5 * (one - without), atol=1e-3, rtol=1e-3)


def test_a_longer_past_knows_more_of_the_view_behind(model, drive) -> None:
    long, short = context_of(model, drive, older=30), context_of(model, drive)
    assert long.older_points.xyz.shape[1] == model.reprojection.long_points
    longer = model.with_memory().composed({"short_term": 1.0})
    assert not torch.equal(predicted(longer, long), predicted(longer, short))
    rolled = longer.rollout(long, ACTIONS[:1, None].expand(-1, 2, -1) * 0.1, torch.Generator().manual_seed(0))
    assert torch.isfinite(rolled).all()


def test_mistakes_are_told(model, drive) -> None:
    remembering = model.with_memory(Oracle(drive))
    with pytest.raises(ConfigError, match="no expert 'spatal'; did you mean 'spatial'"):
        remembering.composed({"spatal": 1.0})
    frames = [drive.frame(index) for index in range(4)]
    lost = model.context_from_frames(frames, drive.poses_xyyaw[:4])
    with pytest.raises(ShapeError, match="absolute_pose_xyyaw"):
        predicted(remembering, lost)


def test_images_are_drawn_to_what_the_memory_shows(model, drive) -> None:
    remembering, context = copy.copy(model.with_memory(Oracle(drive))), context_of(model, drive)
    view = memory_view(remembering, context, ACTIONS)
    latents = predicted(remembering, context)
    decoded = model.decode(latents)
    away = decoded - view.image

    def image(trust: float) -> torch.Tensor:
        remembering.reprojection = replace(model.reprojection, render_blend=trust)
        return blended_images(remembering, latents, context, ACTIONS)

    torch.testing.assert_close(image(0.0), decoded)
    left = image(1.0) - view.image
    assert left.abs().mean() < 0.5 * away.abs().mean()  # a world is mostly smooth
    flat = (view.reliability > 0.9).expand_as(left)
    assert flat.float().mean() > 0.1
    assert (left.abs()[flat] <= 0.1 * away.abs()[flat] + 1e-5).all()
    torch.testing.assert_close(image(0.5), 0.5 * (decoded + image(1.0)))
    alone = remembering.composed({"base": 1.0})
    torch.testing.assert_close(blended_images(alone, latents, context, ACTIONS), decoded)


def test_imagined_images_are_the_decoded_latents_and_nothing_else(model, drive) -> None:
    remembering, context = model.with_memory(Oracle(drive)), context_of(model, drive)
    shown = remembering.imaginer(context, 8.0, decode=True).imagine(ACTIONS[:, None], torch.Generator().manual_seed(0))
    assert torch.equal(shown.images, model.decode(shown.latents))
    blended = blended_images(remembering, shown.latents, context, ACTIONS)
    assert (blended - shown.images).abs().mean() > 0.01  # the render blend of the same latents is another image


def test_a_model_says_which_experts_it_can_have(model, drive) -> None:
    assert isinstance(model, ExpertModel)
    assert model.supported_experts == set(EXPERTS)
    assert set(model.with_memory(Oracle(drive), LongTermExpert(model.memory_base)).experts) == set(EXPERTS)


def test_targets_look_from_the_newest_frames_extrinsics(model) -> None:
    extrinsics = level_camera(0.5).repeat(4, 1, 1)
    extrinsics[:, 2, 3] = torch.tensor([0.2, 0.3, 0.4, 0.6])
    images = torch.zeros(4, 3, model.image_size, model.image_size)
    context = model.context_from_images(images, torch.zeros(4, 3), T_base_camera=extrinsics[None])
    torch.testing.assert_close(context.T_base_camera, extrinsics[3:])


def test_a_layer_is_less_reliable_at_outlines_and_not_at_all_amid_the_unknown() -> None:
    known = torch.ones(1, 16, 16, dtype=torch.bool)
    known[:, 8:] = False
    inverse_depth = torch.full((1, 16, 16), 0.5)
    inverse_depth[:, :, 8:] = 1.0  # an outline between two surfaces, 2 m and 1 m away
    reliability = RenderedView(torch.zeros(1, 3, 16, 16), known, inverse_depth * known).reliability[0, 0]
    torch.testing.assert_close(reliability[:6, :6], torch.ones(6, 6))
    torch.testing.assert_close(reliability[:6, 7:9], torch.full((6, 2), 0.5))  # a jump of 0.5 / m halves it
    assert (reliability[10:] == 0.0).all()
    fading = reliability[5:11, 2]
    assert (fading.diff() <= 0.0).all() and 0.0 < fading[3] < fading[2] < 1.0
    nothing = RenderedView(torch.zeros(1, 3, 16, 16), torch.zeros_like(known), torch.zeros(1, 16, 16)).reliability
    assert (nothing == 0.0).all()


def test_a_layer_lies_over_another() -> None:
    front = RenderedView(
        torch.ones(1, 3, 2, 2), torch.tensor([[[True, False], [False, False]]]), torch.full((1, 2, 2), 2.0)
    )
    back = RenderedView(
        -torch.ones(1, 3, 2, 2), torch.tensor([[[True, True], [False, False]]]), torch.full((1, 2, 2), 0.5)
    )
    both = front.over(back)
    assert both.image[0, 0].tolist() == [[1.0, -1.0], [-1.0, -1.0]]
    assert both.known[0].tolist() == [[True, True], [False, False]]
    assert both.inverse_depth[0].tolist() == [[2.0, 0.5], [0.5, 0.5]]
