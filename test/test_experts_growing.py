"""Options that a trained network grows by: it answers as before, and the new weights say something once they do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_experts_optional_inputs import BATCH, SETTINGS, answer, drawn, full_context

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2, se3
from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, ViewSource
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.experts.memory_views import spatial_expert
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.optional_inputs import camera_values
from come_nav.experts.passes import Condition, Query, batched
from come_nav.experts.rays import patch_rays
from come_nav.sim.sensors.mounting import camera_in_base
from come_nav.training.growing import grown
from come_nav.world_model.model import DiffusionWorldModel

OPTIONS = {"ray_embedding": True, "older_attention": True}


def trained(**options) -> CDiT:
    network = CDiT.from_settings(replace(SETTINGS, **options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def context():
    """A context whose camera is one: fields of view within reason."""
    own = full_context()
    camera = torch.tensor([[0.7, 0.6, 0.02, -0.01, 0.5, -0.1, 0.05]]).repeat(BATCH, 1)
    return replace(own, views=replace(own.views, camera=camera))


@pytest.mark.parametrize("options", [{name: True} for name in OPTIONS] + [OPTIONS])
def test_a_grown_network_answers_as_before_bit_for_bit(options) -> None:
    network = trained()
    larger = grown(network, **options)
    before, after = BaseExpert(network, Normalizer()), BaseExpert(larger, Normalizer())
    assert torch.equal(answer(before, context()), answer(after, context()))
    dropped = torch.tensor([True, False])
    assert torch.equal(answer(before, context(), drop_context=dropped), answer(after, context(), drop_context=dropped))
    new = {*larger.state_dict()} - {*network.state_dict()}
    assert new
    with torch.no_grad():
        for name, parameter in larger.named_parameters():
            if name in new:
                parameter.add_(0.3 * drawn(*parameter.shape))
    assert not torch.equal(answer(before, context()), answer(after, context()))


def test_the_shipped_model_grows_by_channels_for_latents_and_answers_as_before() -> None:
    model = DiffusionWorldModel.load(find_resource("models", "tiny"))
    network = model.memory_base.model
    larger = grown(network, latent_memory_channels=34)
    one, two = (BaseExpert(own, Normalizer(), model.schedule, "v") for own in (network, larger))
    assert not two.reads_latents
    with torch.no_grad():
        larger.latent_memory_embedder.proj.weight[0, 0] = 0.1
    assert two.reads_latents
    assert not one.reads_latents
    with pytest.raises(ConfigError, match="input_size must be"):
        grown(network, input_size=4)
    with pytest.raises(ConfigError, match="has nothing for its null_context"):
        grown(network, context_dropout=False)


def test_options_that_do_not_go_together_are_told() -> None:
    with pytest.raises(ConfigError, match=r"ray_embedding needs view_groups"):
        replace(SETTINGS, view_groups=0, ray_embedding=True)
    with pytest.raises(ConfigError, match=r"older_attention needs older_frames"):
        replace(SETTINGS, older_frames=0, older_attention=True)


@pytest.mark.parametrize(("height_m", "pitch_rad", "roll_rad"), [(0.5, 0.0, 0.0), (1.2, -0.3, 0.0), (0.4, 0.2, 0.35)])
def test_rays_are_those_of_the_pinhole_camera(height_m: float, pitch_rad: float, roll_rad: float) -> None:
    """Unprojected by hand: pixel to optical frame, extrinsics, pose; the moment is that of the camera's centre."""
    camera = CameraIntrinsics(4, 4, 2.5, 3.0, 2.1, 1.8)
    about_axis = np.eye(4)
    about_axis[:2, :2] = [[math.cos(roll_rad), -math.sin(roll_rad)], [math.sin(roll_rad), math.cos(roll_rad)]]
    T_base_camera = camera_in_base(height_m, pitch_rad) @ about_axis
    T_base_camera[:2, 3] = 0.0
    values = camera_values(camera_fractions(camera), torch.from_numpy(T_base_camera)[None])
    poses = torch.tensor([[[0.0, 0.0, 0.0], [1.0, -2.0, 0.8]]], dtype=torch.float64)
    rays = patch_rays(values.double(), poses, 4, scale_m=2.0).unflatten(1, (2, 4, 4))[0]
    for number, pose in enumerate(poses[0].numpy()):
        T = se3.transform_from_xyyaw(pose) @ T_base_camera
        for v, u in ((0, 0), (3, 1), (2, 3)):
            optical = np.array([(u + 0.5 - camera.cx) / camera.fx, (v + 0.5 - camera.cy) / camera.fy, 1.0])
            direction = T[:3, :3] @ optical
            direction /= np.linalg.norm(direction)
            wanted = np.concatenate([direction, np.cross(T[:3, 3] / 2.0, direction)])
            np.testing.assert_allclose(rays[number, v, u].numpy(), wanted, atol=1e-6)


def test_rays_of_one_line_are_one_whoever_looks_along_it() -> None:
    """A camera a metre further along its axis has the same ray there: that is what attention can tell by."""
    values = torch.tensor([[0.7, 0.7, 0.0, 0.0, 0.5, 0.0, 0.0]], dtype=torch.float64)
    poses = torch.tensor([[[0.0, 0.0, 0.3], [0.0, 0.0, 0.3]]], dtype=torch.float64)
    poses[0, 1] = se2.compose(poses[0, 0], torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    rays = patch_rays(values, poses, 3).unflatten(1, (2, 9))[0]
    torch.testing.assert_close(rays[0, 4], rays[1, 4])
    assert not torch.allclose(rays[0, 0], rays[1, 0])
    assert not patch_rays(values * torch.nan, poses, 3).any()


def test_only_passes_that_look_at_the_memory_see_its_latents() -> None:
    expert = BaseExpert(trained(), Normalizer())
    query = Query(drawn(BATCH, 3, 4, 4), torch.tensor([3, 7]), context(), drawn(BATCH, 3), torch.ones(BATCH))
    conditions = [Condition(), Condition(view=ViewSource.MEMORY), Condition(context=False)]
    wide, _ = batched(conditions, query, True, apart=True)
    latent = wide.context.views.latent_memory
    assert torch.equal(latent[BATCH : 2 * BATCH], query.context.views.latent_memory)
    assert not latent[:BATCH].any()
    assert not latent[2 * BATCH :].any()
    alone, _ = batched([Condition()], query, True, apart=True)
    assert alone.context.views.latent_memory is None
    with torch.no_grad():
        eps, eps_bar = spatial_expert(expert, expert).scores(*query_parts(query))
    assert not torch.allclose(eps, eps_bar)


def query_parts(query: Query):
    return query.x_t, query.t, query.context, query.action, query.rel_time
