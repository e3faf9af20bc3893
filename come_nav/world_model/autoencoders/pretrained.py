"""Takes over a diffusers AutoencoderKL, from a folder or from the hub, e.g. stabilityai/sd-vae-ft-ema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from come_nav.core.errors import CheckpointError
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder

NWM_AUTOENCODER = "stabilityai/sd-vae-ft-ema"
CONFIG_FILE = "config.json"


def pretrained_autoencoder(
    source: str, scaling_factor: float, image_size: int | None = None, latent_size: int | None = None
) -> tuple[AutoencoderSettings, dict[str, Tensor]]:
    """Return the settings and the weights of an AutoencoderKL.

    Args:
        source: a folder with ``config.json`` and weights, or the name of a repository on the Hugging Face hub.
        scaling_factor: latents are multiplied by it after encoding.
        image_size: rows and columns of the images that it will see.
        latent_size: instead of ``image_size``: rows and columns of the latents.

    Raises:
        CheckpointError: in one line: not there, cannot be downloaded, or of a shape that come_nav does not build.
    """
    kl = _load(source)
    config = kl.config
    levels = len(config.block_out_channels)
    settings = AutoencoderSettings(
        image_size=image_size or int(latent_size or 28) * 2 ** (levels - 1),
        latent_channels=config.latent_channels,
        block_out_channels=tuple(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        mid_block_attention=config.mid_block_add_attention,
        scaling_factor=scaling_factor,
    )
    tensors: dict[str, Tensor] = kl.state_dict()
    with torch.device("meta"):
        expected = ImageAutoencoder(settings).network.state_dict()
    if {name: value.shape for name, value in tensors.items()} != {n: value.shape for n, value in expected.items()}:
        raise CheckpointError(f"{source}: an AutoencoderKL of another build than NWM's; give {NWM_AUTOENCODER}")
    return settings, tensors


def _load(source: str) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = Path(source).expanduser()
    looks_local = folder.exists() or source.startswith((".", "/", "~"))
    if looks_local and not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{source}: no autoencoder here ({CONFIG_FILE} is missing); download {NWM_AUTOENCODER} "
            "and name its folder instead"
        )
    try:
        return AutoencoderKL.from_pretrained(str(folder) if looks_local else source, local_files_only=looks_local)
    except Exception as error:  # OSError without network or files, ValueError and others for broken ones
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        way_out = (
            "copy it again" if looks_local else "without network, download it elsewhere and name its folder instead"
        )
        raise CheckpointError(f"{source}: the autoencoder cannot be loaded ({reason}); {way_out}") from error
