"""A training run at toy size that the tests of training share."""

from __future__ import annotations

import torch

from come_nav.experts.cdit import CDiTSettings
from come_nav.training.config import DataSettings, OptimiserSettings, TrainSettings
from come_nav.training.machine import Machine
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings
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
MACHINE = Machine(accelerator="cpu", precision="32-true", progress=False)


def state(model: DiffusionWorldModel) -> dict[str, torch.Tensor]:
    """All weights of a model by name."""
    return {**model.base.state_dict(), **{f"ae.{k}": v for k, v in model.autoencoder.state_dict().items()}}
