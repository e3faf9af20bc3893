"""Training runs at toy size that the tests of training share: a plain one, and one with every optional input."""

from __future__ import annotations

from dataclasses import replace

import torch

from come_nav.experts.cdit import CDiTSettings
from come_nav.sim.sensors.mounting import CameraRanges
from come_nav.training.config import DataSettings, OptimiserSettings, TrainSettings
from come_nav.training.machine import Machine
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings
from come_nav.world_model.depth import DepthSettings
from come_nav.world_model.model import DiffusionWorldModel

STAGE = OptimiserSettings(
    steps=8, batch_size=4, warmup_steps=2, validate_every=4, save_every=3, log_every=1, learning_rate=1e-3
)
CONFIG = TrainSettings(
    name="toy",
    precision="32-true",
    data=DataSettings(worlds=1, validation_worlds=1, episode_s=8.0, branches=1),
    autoencoder_model=AutoencoderSettings(block_out_channels=(8, 8, 8, 8), norm_num_groups=4),
    denoiser_model=CDiTSettings(
        input_size=8, hidden_size=24, depth=1, num_heads=2, learn_sigma=False, context_pose=True, context_dropout=True
    ),
    autoencoder=STAGE,
    denoiser=STAGE,
)
SHORT_STAGE = replace(STAGE, steps=4, warmup_steps=1, save_every=2)
DRIVES = DataSettings(
    worlds=2,
    validation_worlds=1,
    episode_s=8.0,
    memory_s=16.0,
    memory_drift_percent=2.0,
    branches=1,
    endless=True,
    pool_drives=2,
    passes=2,
    workers=0,
    cameras=CameraRanges(),
    camera_px=32,
    sensors="realistic",
)
ALL_INPUTS = TrainSettings(
    name="toy",
    precision="32-true",
    image_size=32,
    data=DRIVES,
    autoencoder_model=AutoencoderSettings(kind="lapped", image_size=32, latent_channels=4, block_size=8),
    depth_model=DepthSettings(widths=(8, 8), canonical_focal=0.5),
    denoiser_model=CDiTSettings(
        input_size=4,
        in_channels=4,
        hidden_size=24,
        depth=1,
        num_heads=2,
        learn_sigma=False,
        context_pose=True,
        context_dropout=True,
        extra_channels=8,
        extra_skip=True,
        view_groups=3,
        latent_memory_channels=8,
        older_frames=9,
        older_patch_size=2,
        pose_octaves=2,
        camera_embedding=True,
        pose_embedding=True,
    ),
    autoencoder=SHORT_STAGE,
    depth=SHORT_STAGE,
    denoiser=SHORT_STAGE,
)
MACHINE = Machine(accelerator="cpu", precision="32-true", progress=False)


def state(model: DiffusionWorldModel) -> dict[str, torch.Tensor]:
    """All weights of a model by name."""
    return {**model.base.state_dict(), **{f"ae.{k}": v for k, v in model.autoencoder.state_dict().items()}}
