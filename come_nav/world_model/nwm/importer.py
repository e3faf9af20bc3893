"""Turns an official NWM checkpoint into a model folder of come_nav: safetensors, config and card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from come_nav.core.checks import check_range
from come_nav.core.errors import CheckpointError, StorageError
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import to_mapping
from come_nav.core.weights_file import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME
from come_nav.experts.cdit import CDiTSettings
from come_nav.experts.normalizer import Normalizer
from come_nav.world_model.autoencoders.autoencoder import NWM_SCALING_FACTOR, AutoencoderSettings
from come_nav.world_model.autoencoders.pretrained import NWM_AUTOENCODER, pretrained_autoencoder
from come_nav.world_model.files.checkpoint import (
    FORMAT,
    ExpertSettings,
    StorageType,
    WorldModelSettings,
)
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.nwm.official_checkpoint import OfficialCheckpoint, network_settings, open_checkpoint
from come_nav.world_model.nwm.weights_stream import write_weights
from come_nav.world_model.sampling.settings import SamplerSettings

NWM_LICENCE = "CC-BY-NC-4.0"
NWM_SOURCE = "https://huggingface.co/facebook/nwm"
NWM_PAPER = "Navigation World Models (Bar et al., CVPR 2025, arXiv 2412.03572)"
OFFICIAL_SAMPLER = SamplerSettings("ddpm", 250, spacing="even")


@dataclass(frozen=True)
class ImportSettings:
    """What an import cannot read from the checkpoint.

    Attributes:
        size: S, B, L or XL where it must be that one; None takes what the file is.
        heads: attention heads of a network of another size.
        weights: "ema" or "model"; None prefers "ema".
        autoencoder: folder or hub name of the AutoencoderKL.
        spacing_m: waypoint spacing of the data set that actions are scaled to; an evaluation sets its own.
        storage: type of the numbers in the written file; float32 keeps the official ones as they are.
        source: where the file comes from, for the card.
    """

    size: str | None = None
    heads: int | None = None
    weights: str | None = None
    autoencoder: str = NWM_AUTOENCODER
    spacing_m: float = 0.25
    storage: StorageType = "float32"
    source: str = NWM_SOURCE

    def __post_init__(self) -> None:
        check_range("spacing_m", self.spacing_m, 0.0, open_low=True)


def import_checkpoint(
    path: Path,
    folder: Path,
    options: ImportSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> WorldModelSettings:
    """Write the model folder ``folder`` from the official checkpoint ``path``; return its config.

    The checkpoint is mapped, not read, and the tensors are written one by one: of a 16 GB file, only the largest tensor
    and the autoencoder are ever in memory.

    Raises:
        CheckpointError: the file, its size or the autoencoder is not what it must be; nothing is written.
        StorageError: ``folder`` holds a model already, or cannot be written.
    """
    options = options or ImportSettings()
    if (folder / CONFIG_NAME).exists() and not overwrite:
        raise StorageError(f"{folder}: holds a model already; choose another name or replace it with --overwrite")
    checkpoint = open_checkpoint(path, options.weights)
    network = network_settings(checkpoint, options.size, options.heads)
    settings, vae = _autoencoder(options, network)
    tensors: dict[str, Tensor] = {f"autoencoder.{name}": tensor for name, tensor in vae.items()}
    tensors |= {f"base.{name}": tensor for name, tensor in checkpoint.tensors.items()}
    dtype: torch.dtype = getattr(torch, options.storage)
    try:
        digest = write_weights(folder / WEIGHTS_NAME, tensors, dtype, {"format": FORMAT}, progress)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    config = WorldModelSettings(
        storage=options.storage,
        weights_sha256=digest,
        autoencoder=settings,
        expert=ExpertSettings(network, Normalizer.nwm(options.spacing_m)),
        sampler=OFFICIAL_SAMPLER,
        images=ImageSettings(aspect=4 / 3, horizontal_fov_deg=0.0, camera_height_m=0.0, crop="nwm"),
    )
    import yaml

    atomic_write_text(folder / CONFIG_NAME, yaml.safe_dump(to_mapping(config), sort_keys=False))
    atomic_write_text(folder / CARD_NAME, _card(folder.name, checkpoint, config, options))
    return config


def _autoencoder(options: ImportSettings, network: CDiTSettings) -> tuple[AutoencoderSettings, dict[str, Tensor]]:
    settings, tensors = pretrained_autoencoder(options.autoencoder, NWM_SCALING_FACTOR, latent_size=network.input_size)
    if settings.latent_channels != network.in_channels:
        raise CheckpointError(
            f"{options.autoencoder}: has {settings.latent_channels} latent channels, but the checkpoint was trained "
            f"on {network.in_channels}; give {NWM_AUTOENCODER}"
        )
    return settings, tensors


def _card(name: str, checkpoint: OfficialCheckpoint, config: WorldModelSettings, options: ImportSettings) -> str:
    network = config.expert.network
    count = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    facts = "".join(f"- {key}: {value}\n" for key, value in checkpoint.facts.items())
    return (
        f"# {name}\n\n"
        f"{NWM_PAPER}, imported by come_nav.\n\n"
        f"- licence of the weights: CC BY-NC 4.0 ({NWM_LICENCE}): no commercial use, name the authors\n"
        f"- source: {options.source}, file {checkpoint.path.name}, weights '{checkpoint.weights}'\n"
        f"{facts}"
        f"- denoiser: CDiT/{network.patch_size}, {count:,} parameters, depth {network.depth}, width "
        f"{network.hidden_size}, {network.num_heads} heads, {network.context_size} context frames\n"
        f"- autoencoder: {options.autoencoder} (under its own licence), scaling factor {NWM_SCALING_FACTOR}\n"
        f"- images: 4:3 centre crop, squashed to {config.autoencoder.image_size} px\n"
        f"- actions: waypoint spacings of {config.expert.normalizer.spacing_m:g} m, NWM's range\n"
        f"- sampler: {config.sampler.name}, {config.sampler.steps} steps, as the official evaluation\n"
    )
