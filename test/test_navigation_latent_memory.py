"""The stack with a spatial memory of latents, and with a likelihood in place of a network that looks at memories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_world_model_import_nwm import official, vae  # noqa: F401  a fixture

from come_nav.config import load_config
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Goal, Odometry, PlanStatus
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.evaluation.suites.closed_loop.settings import ROWS, ClosedLoop, ClosedLoopSettings
from come_nav.evaluation.suites.closed_loop.suite import _robot
from come_nav.memory.spatial.latent.views import RememberedLatents
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.stack import NavStack
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.nwm.importer import ImportSettings, import_checkpoint
from come_nav.world_model.sampling.settings import SamplerSettings
from come_nav.world_model.views import remembered_view

SMALL = {"planner.initial_samples": 24, "planner.samples": 8, "planner.iterations": 2, "planner.elites": 4}
LATENT = {"spatial.features": "latent", "experts.use": ["spatial"]}
FRAMES = 60


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    loaded = DiffusionWorldModel.load(find_resource("models", "tiny"))
    loaded.inference = replace(loaded.inference, precision="float32")
    return loaded


@pytest.fixture(scope="module")
def drive() -> EpisodeRecording:
    world = generate_world(10000)
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    episode = simulate_episode(world, "tour", FRAMES / 4.0, seed=1)
    return EpisodeRecording(episode, Raycaster([world], camera), use_truth=True)


def stack_of(model, drive, frames=FRAMES, **settings) -> NavStack:
    stack = NavStack(model, load_config(None, {**SMALL, **settings}))
    for index in range(frames):
        frame = drive.frame(index)
        stack.observe(frame, Odometry(frame.stamp_s, drive.T_odom_base[index]))
    return stack


@pytest.fixture(scope="module")
def stack(model, drive) -> NavStack:
    return stack_of(model, drive, **LATENT)


def behind(drive) -> tuple[list[int], torch.Tensor]:
    """Return remembered frames that no context frame shows, and where they were taken from the newest one."""
    actions = [se2.relative(drive.poses_xyyaw[FRAMES - 1], drive.poses_xyyaw[index]) for index in range(FRAMES)]
    found = [index for index in range(FRAMES - 20) if abs(actions[index][2]) > 1.8]
    return found, torch.from_numpy(np.stack([actions[index] for index in found])).float()


def gain_db(model, drive, stack, remembering) -> float:
    """Return by how much views behind the robot are nearer to the truth than without a memory."""
    index, actions = behind(drive)
    truth, found = model.images_from_rgb([drive.frame(own).rgb for own in index]), []
    for imagining in (remembering, model):
        times, generator = torch.ones(len(index)), torch.Generator().manual_seed(0)
        latents = imagining.predict(stack.context(), actions, times, generator)
        found.append(float(psnr(model.decode(latents).clamp(-1, 1), truth).mean()))
    return found[0] - found[1]


def test_the_spatial_expert_looks_at_latents(model, drive, stack) -> None:
    remembering, warnings = stack.episode.model()
    assert warnings == []
    assert isinstance(remembering.spatial, RememberedLatents)
    assert gain_db(model, drive, stack, remembering) > 1.0
    plan = stack.plan(Goal(image_rgb=drive.frame(behind(drive)[0][0]).rgb))
    assert plan.status is PlanStatus.OK
    assert plan.message == ""


def test_no_pixel_is_rendered_or_encoded_for_a_read_out(model, drive, stack, monkeypatch) -> None:
    remembering, _ = stack.episode.model()
    _, actions = behind(drive)

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("encoded")

    context = stack.context()
    monkeypatch.setattr(type(model.autoencoder), "encode", refuse)
    monkeypatch.setattr(type(model.autoencoder), "decode", refuse)
    shown = remembered_view(remembering, context, actions)
    assert shown.shape == (len(actions), 34, 8, 8)
    assert shown[:, 32].mean() > 0.3


def test_a_frame_is_encoded_once(model, drive, monkeypatch) -> None:
    calls, encode = [], model.autoencoder.encode
    monkeypatch.setattr(model.autoencoder, "encode", lambda *told: calls.append(1) or encode(*told))
    kept = stack_of(model, drive, 8, **LATENT)
    assert kept.episode.spatial.frames == len(calls) == 8


def test_the_likelihood_corrects_what_the_base_imagines(model, drive) -> None:
    guided = stack_of(model, drive, **LATENT, **{"experts.likelihood.use": True})
    remembering, warnings = guided.episode.model()
    assert warnings == []
    assert remembering.likelihood is not None
    assert list(remembering.experts) == ["base"]
    assert gain_db(model, drive, guided, remembering) > 1.0
    nothing, _ = guided.episode.model(replace(guided.settings.experts, spatial=0.0))
    assert gain_db(model, drive, guided, nothing) == pytest.approx(0.0, abs=1e-3)


def test_a_store_of_latents_is_looked_at_and_one_of_colours_told(model, drive, stack, tmp_path) -> None:
    store = MemoryStore(tmp_path / "memory")
    store.save(cloud=stack.episode.spatial.state())
    told = {"experts.spatial_store": str(store.path)}
    follower = stack_of(model, drive, 8, **LATENT, **told)
    assert len(follower.episode.spatial) == len(stack.episode.spatial)
    assert follower.episode.diagnostics == {}
    colours = stack_of(model, drive, 8, **{"experts.use": ["spatial"]}, **told)
    assert "set spatial.features to latent" in colours.episode.diagnostics["spatial"]


def test_relocalisation_sees_decoded_latents(model, drive, stack) -> None:
    index = behind(drive)[0][0]
    pose = drive.poses_xyyaw[index]
    found = stack.episode.difference_to(model.images_from_rgb([drive.frame(index).rgb])[0])
    here, away = found(torch.from_numpy(np.stack([pose, pose + np.array([0.0, 0.0, 1.5])])))
    assert float(here) < float(away)


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory, vae: Path) -> DiffusionWorldModel:  # noqa: F811
    """A network of NWM's class: it looks at no views."""
    folder = tmp_path_factory.mktemp("nwm")
    torch.save(official(), folder / "cdit.pth.tar")
    import_checkpoint(folder / "cdit.pth.tar", folder / "nwm", ImportSettings(heads=3, autoencoder=str(vae)))
    loaded = DiffusionWorldModel.load(folder / "nwm")
    loaded.inference, loaded.sampler = InferenceSettings(precision="float32"), SamplerSettings("ddim", 4)
    return loaded


def test_a_model_that_looks_at_no_views_remembers_by_the_likelihood(blind, drive) -> None:
    told = {"memory.rate_hz": blind.rate_hz, **LATENT}
    without = stack_of(blind, drive, 8, **told)
    assert without.episode.diagnostics == {"spatial": "this model looks at no views"}
    guided = stack_of(blind, drive, 8, **told, **{"experts.likelihood.use": True})
    remembering, warnings = guided.episode.model()
    assert warnings == []
    actions, times = torch.tensor([[0.1, 0.0, 0.0]]), torch.ones(1)
    context = guided.context()
    size = blind.autoencoder.settings.latent_size
    shown = remembered_view(remembering, context, actions)
    assert shown.shape == (1, blind.autoencoder.settings.latent_channels + 2, size, size)
    known = shown[:, -2] > 0
    assert known.float().mean() > 0.3
    apart = []
    for imagining in (remembering, blind):
        latents = imagining.predict(context, actions, times, torch.Generator().manual_seed(0))
        apart.append(float((latents - shown[:, :-2]).square().movedim(1, -1)[known].mean()))
    assert apart[0] < 0.5 * apart[1]


def test_what_the_likelihood_cannot_join_is_told_at_the_start(model) -> None:
    sampler = {"sampler": {"name": "ddim", "steps": 4, "eta": 1.0, "resampling": {"particles": 2}}}
    with pytest.raises(ConfigError, match=r"experts\.likelihood\.use needs sampler\.resampling\.particles 1, got 2"):
        NavStack(model, load_config(None, {**SMALL, **LATENT, "experts.likelihood.use": True, **sampler}))


def test_the_simulated_robot_keeps_colours_beside_latents_for_what_is_in_its_way(model) -> None:
    settings = load_config(None, {**SMALL, **LATENT, "localisation.use": False})
    wanted = ClosedLoop(loop=ClosedLoopSettings(image_width=64, image_height=64), stack=settings)
    robot, _ = _robot(10000, ROWS["all"], wanted, model)
    for _ in range(12):
        robot._tick(0.2, 0.0)
    latents = robot.navigator.stack.episode.spatial
    assert latents.config.features == "latent"
    assert robot._cloud.features.channels == 3
    assert len(robot._cloud) > 5 * len(latents) > 0
