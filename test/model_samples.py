"""Untrained models, as small as the architecture goes."""

from __future__ import annotations

from pathlib import Path

import torch

from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT, CDiTSettings
from come_nav.experts.normalizer import Normalizer
from come_nav.experts.sequence.network import SequenceDenoiser
from come_nav.experts.sequence.settings import SequenceSettings
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sampling.settings import SamplerSettings
from come_nav.world_model.sequence.model import SequenceModel, SequenceModelSettings


def sequence_model(
    network: SequenceSettings, autoencoder: AutoencoderSettings, sampler_steps: int = 1
) -> SequenceModel:
    """Return a model of sequences of random weights, whose answers differ with all that it is told."""
    torch.manual_seed(0)
    denoiser = SequenceDenoiser(network)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3)
    settings = SequenceModelSettings(network=network, autoencoder=autoencoder, sampler_steps=sampler_steps)
    return SequenceModel(settings, denoiser, ImageAutoencoder(autoencoder))


def small_model(folder: Path) -> Path:
    """Save an untrained model with two context frames, as small as the architecture goes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = AutoencoderSettings(image_size=16, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1)
        autoencoder = ImageAutoencoder(shape)
        settings = CDiTSettings(
            input_size=shape.latent_size,
            context_size=2,
            in_channels=shape.latent_channels,
            hidden_size=16,
            depth=1,
            num_heads=2,
            learn_sigma=False,
        )
        network = CDiT.from_settings(settings)
        for parameter in network.parameters():  # the last layers begin at zero, which would hide every input
            torch.nn.init.normal_(parameter, std=0.2)
    schedule = NoiseSchedule.linear()
    expert = BaseExpert(network, Normalizer(kind="scale", scale_m=1.0), schedule)
    DiffusionWorldModel(autoencoder, {"base": expert}, schedule, SamplerSettings(steps=2)).save(folder)
    return folder


class EyesOnly:
    """Stands for a world model: memories need none."""

    image_size, context_frames, rate_hz = 8, 4, 4.0

    def images_from_rgb(self, frames):
        return torch.stack([torch.from_numpy(frame[:8, :8].copy()).permute(2, 0, 1) / 127.5 - 1.0 for frame in frames])

    def encode(self, images):
        return images
