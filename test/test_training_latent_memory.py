"""The learned branch for a memory of latents: one read-out in training and in use, zero at first, trained by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training_inputs import CONFIG, DATA, REPOSITORY, SIZE

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.settings import from_mapping, read_yaml
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.memory.spatial.latent.views import RememberedLatents
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.training.config import OptimiserSettings, TrainSettings
from come_nav.training.data.endless import DriveMaker
from come_nav.training.data.goals import GoalSettings
from come_nav.training.data.memory_views import PastDrive, fill_memory, memory_of_latents, remembered_latents
from come_nav.training.data.sensing import DriveSenses, renderer_of
from come_nav.training.data.sim_bank import encode_drive, make_drive, training_camera
from come_nav.training.pretrained import fine_tuning_values, merged
from come_nav.training.run_parts import new_expert, only
from come_nav.training.tasks.denoiser import DenoiserTask
from come_nav.training.tasks.inputs import stated_inputs
from come_nav.training.tasks.views import ViewMaker
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import ReprojectionSettings
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.views import seen_from

LATENT = replace(DATA, memory_features="latent", keep_images=True, keep_depth=True, measured_fraction=1.0)
BRANCH = "latent_memory_embedder"


def encode(images: torch.Tensor) -> torch.Tensor:
    """Four latents of every 8 x 8 pixels: the means of colours, and of their sum."""
    means = torch.nn.functional.avg_pool2d(images, 8)
    return torch.cat([means, means.sum(1, keepdim=True)], 1)


def expert_of(seed: int = 0) -> BaseExpert:
    """An expert all of whose weights say something but those of the branch, which are zero."""
    network, generator = CDiT.from_settings(CONFIG.denoiser_model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith(BRANCH):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return BaseExpert(network, Normalizer.metric(1.0), NoiseSchedule.linear(), "v")


@pytest.fixture(scope="module")
def bank():
    drive = make_drive(5, 0, LATENT, 4.0)
    senses = DriveSenses(lambda images, camera: torch.full_like(images[:, 0], 2.0), facts=True)
    return drive, encode_drive(drive, training_camera(SIZE), LATENT, encode, "cpu", "cpu", senses)


def task_of(expert: BaseExpert) -> DenoiserTask:
    views = ViewMaker(encode, ReprojectionSettings(), ImageSettings(horizontal_fov_deg=0.0))
    return DenoiserTask(expert, NoiseSchedule.linear(), OptimiserSettings(), 0.0, 0, views)


def batch_of(frames, count: int = 8):
    sampling = GoalSettings(context_frames=4, goals_per_context=2, older_frames=9)
    return frames.sample(sampling, count, torch.Generator().manual_seed(0))


def test_windows_hold_what_the_memory_of_latents_shows_at_their_goals(bank) -> None:
    _, frames = bank
    assert frames.memory is None
    assert frames.latent_memory.shape == (len(frames), 8, 4, 4)
    known = frames.latent_memory[:, 4]
    assert set(known.unique().tolist()) == {0.0, 1.0}
    batch = batch_of(frames)
    assert batch.goal_memory is None
    assert batch.goal_latent_memory.shape == (8, 2, 8, 4, 4)
    # what was seen before is mostly there, and like what is there now
    shown, truth = batch.goal_latent_memory[:, :, :4], batch.goal_latents
    cells = (batch.goal_latent_memory[:, :, 4:5] > 0.5).expand_as(shown)
    assert cells.float().mean() > 0.2
    assert (shown - truth)[cells].square().mean() < (truth - truth.mean())[cells].square().mean()


def test_training_and_plans_read_the_memory_through_one_path(bank) -> None:
    """The channels of a batch are those that the world model hands to its network at the same pose."""
    drive, _ = bank
    camera, expert = drive.camera or MountedCamera(training_camera(SIZE)), expert_of()
    renderer = renderer_of(drive.world, camera, "cpu")
    before = drive.before_world_xyyaw
    past = PastDrive(before, drive.odometry_xyyaw[: len(before)], True, drive.seed)
    memory = fill_memory(renderer, past, "cpu", DriveSenses(), memory_of_latents(encode, 4, "cpu"))
    poses = drive.odometry_xyyaw[len(before) : len(before) + 3]
    shown = remembered_latents(memory, camera, poses, 4)
    source = RememberedLatents(memory, camera.intrinsics, camera.T_base_camera, lambda own: own, 4)
    autoencoder = ImageAutoencoder(CONFIG.autoencoder_model)
    depth = DepthEstimator(CONFIG.depth_model)
    model = DiffusionWorldModel(
        autoencoder, {"base": expert}, NoiseSchedule.linear(), images=ImageSettings(horizontal_fov_deg=0.0), depth=depth
    ).with_memory(source)
    extrinsics = torch.from_numpy(camera.T_base_camera).float()[None]
    images, start = torch.zeros(4, 3, SIZE, SIZE), poses[0].double()
    own = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    context = model.context_from_images(
        images, start.repeat(4, 1), camera=own, T_base_camera=extrinsics, absolute_pose_xyyaw=start
    )
    actions = se2.relative(start[None], poses.double()).float()
    untrained = seen_from(model, context, actions, model_views(model)).views
    assert untrained.latent_memory is None
    assert untrained.memory is not None
    with torch.no_grad():
        expert.model.latent_memory_embedder.proj.weight.normal_(generator=torch.Generator().manual_seed(0))
    read = seen_from(model, context, actions, model_views(model)).views
    assert read.memory is None
    torch.testing.assert_close(read.latent_memory, shown.float(), atol=2e-3, rtol=2e-3)
    generator = torch.Generator().manual_seed(0)
    assert torch.isfinite(
        model.composed({"base": 1.0, "spatial": 1.0}).predict(context, actions, torch.ones(3), generator)
    ).all()


def model_views(model):
    from come_nav.world_model.prediction import product_of

    return product_of(model.composed({"base": 1.0, "spatial": 1.0})).views


def test_zero_weights_change_nothing_and_training_moves_them_alone(bank) -> None:
    """Toy problem: the memory shows the very latents that are asked for. Only the branch learns, and it is of use."""
    _, frames = bank
    expert = only(expert_of(), (BRANCH,))
    task, batch = task_of(expert), batch_of(frames, 16)
    shown = batch.goal_latent_memory.clone()
    shown[:, :, :4], shown[:, :, 4] = batch.goal_latents, 1.0
    batch = replace(batch, goal_latent_memory=shown)

    def loss(memory: bool) -> torch.Tensor:
        told = stated_inputs(batch, views=(True, False, memory))
        return task.diffusion_loss(batch, torch.Generator().manual_seed(3), 0.0, told=told)

    with torch.no_grad():
        assert torch.equal(loss(True), loss(False)), "zero weights: equal output"
    before = {name: own.clone() for name, own in expert.model.named_parameters()}
    trainable = [own for own in task.parameters() if own.requires_grad]
    assert [own.shape for own in trainable] == [expert.model.latent_memory_embedder.proj.weight.shape]
    optimiser = torch.optim.Adam(trainable, lr=0.03)
    for _ in range(40):
        optimiser.zero_grad()
        loss(True).backward()
        optimiser.step()
    moved = {name for name, own in expert.model.named_parameters() if not torch.equal(own, before[name])}
    assert moved == {f"{BRANCH}.proj.weight"}
    with torch.no_grad():
        assert loss(True) < 0.97 * loss(False)


def test_the_configuration_tunes_the_branch_of_a_model_that_has_it_or_grows_it() -> None:
    small = from_mapping(TrainSettings, read_yaml(REPOSITORY / "config" / "train_small.yaml"))
    network = replace(small.denoiser_model, latent_memory_channels=0, depth=1, hidden_size=32, num_heads=4)
    depth = DepthEstimator(small.depth_model)
    initial = DiffusionWorldModel(
        ImageAutoencoder(small.autoencoder_model),
        {"base": BaseExpert(CDiT.from_settings(network), Normalizer.metric(1.0), NoiseSchedule.linear(), "v")},
        NoiseSchedule.linear(),
        depth=depth,
    )
    values = read_yaml(REPOSITORY / "config" / "train_latent.yaml")
    config = from_mapping(TrainSettings, merged(fine_tuning_values(initial), values))
    assert config.data.memory_features == "latent"
    expert = new_expert(config, initial, NoiseSchedule.linear())
    assert expert.model.settings.latent_memory_channels == 36
    trained = [name for name, own in expert.model.named_parameters() if own.requires_grad]
    assert trained == [f"{BRANCH}.proj.weight"]
    assert not expert.reads_latents


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="latent_memory_channels 8"):
        replace(CONFIG, data=LATENT, denoiser_model=replace(CONFIG.denoiser_model, latent_memory_channels=6))
    with pytest.raises(ConfigError, match="memory_features"):
        replace(DATA, memory_features="depth")
    with pytest.raises(ConfigError, match="no weight of the denoiser begins with 'memory'"):
        only(expert_of(), ("memory",))


def test_latents_are_not_made_by_workers_and_views_are() -> None:
    senses = DriveSenses(None, facts=True)
    data = replace(DATA, memory_s=6.0, episode_s=5.0, branches=0)
    made = DriveMaker(data, 4.0, 0, SIZE, senses)[0]
    assert made.memory is not None
    assert DriveMaker(replace(data, memory_features="latent"), 4.0, 0, SIZE, senses)[0].memory is None
    np.testing.assert_array_equal(made.odometry_xyyaw.shape[1], 3)
