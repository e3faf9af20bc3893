"""What a run takes over from elsewhere: a finished autoencoder, or a whole model to fine-tune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from come_nav.core.errors import ConfigError
from come_nav.core.settings import to_mapping
from come_nav.training.config import TrainSettings
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.model import DiffusionWorldModel

# Fine-tuning starts from weights that are good already: a tenth of the rate, and an average over fewer steps.
FINE_TUNING_STAGE = {
    "steps": 1500,
    "batch_size": 32,
    "learning_rate": 2e-4,
    "warmup_steps": 100,
    "ema_decay": 0.995,
    "validate_every": 250,
    "save_every": 250,
}


def given_autoencoder(config: TrainSettings) -> ImageAutoencoder:
    """Return the autoencoder that ``config.autoencoder_from`` names.

    Raises:
        ConfigError: its latents or its image size are not those of ``config.autoencoder_model``.
        CheckpointError: there is none of that name.
    """
    source = config.autoencoder_from
    assert source is not None
    if (Path(source) / "config.yaml").is_file():
        autoencoder = DiffusionWorldModel.load(source).autoencoder
    else:
        autoencoder = _diffusers_autoencoder(source, config)
    _check_shape(source, autoencoder.settings, config.autoencoder_model)
    return autoencoder.eval()


def fine_tuning_values(model: DiffusionWorldModel) -> dict[str, Any]:
    """Return the configuration of fine-tuning ``model`` as YAML values: its own shapes, and no built-in worlds.

    Raises:
        ConfigError: training knows no such model (one that learned its variance, as NWM's checkpoints did).
    """
    network = model.base.model.settings
    if network.learn_sigma:
        raise ConfigError(
            "this model learned the variance of its noise (learn_sigma) and training learns the mean only: "
            "it cannot be fine-tuned; start from another --init, or from nothing with config/train_xl.yaml"
        )
    return {
        "name": "tuned",
        "image_size": model.image_size,
        "context_frames": model.context_frames,
        "rate_hz": model.rate_hz,
        "prediction": model.base.prediction,
        "sampler": to_mapping(model.sampler),
        "data": {"worlds": 0},
        "autoencoder_model": to_mapping(model.autoencoder.settings),
        "denoiser_model": to_mapping(network),
        "depth_model": None if model.depth is None else to_mapping(model.depth.settings),
        "reprojection": to_mapping(model.reprojection),
        "depth": dict(FINE_TUNING_STAGE),
        "denoiser": dict(FINE_TUNING_STAGE),
    }


def merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``defaults`` overridden by ``values``, group by group."""
    result = dict(defaults)
    for key, value in values.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def _diffusers_autoencoder(source: str, config: TrainSettings) -> ImageAutoencoder:
    from come_nav.world_model.autoencoders.pretrained import pretrained_autoencoder

    settings, tensors = pretrained_autoencoder(
        source, config.autoencoder_model.scaling_factor, image_size=config.image_size
    )
    autoencoder = ImageAutoencoder(settings)
    autoencoder.kl.load_state_dict(tensors)
    return autoencoder


def _check_shape(source: str, found: AutoencoderSettings, wanted: AutoencoderSettings) -> None:
    if replace(found, scaling_factor=1.0) != replace(wanted, scaling_factor=1.0):
        found_values, wanted_values = to_mapping(found), to_mapping(wanted)
        key = next(k for k in found_values if k != "scaling_factor" and found_values[k] != wanted_values[k])
        raise ConfigError(
            f"autoencoder_model.{key} must be that of autoencoder_from {source}, {found_values[key]}, "
            f"got {wanted_values[key]}"
        )
