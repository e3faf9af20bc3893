"""What a training run begins with: its pinned configuration, new or given networks."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from come_nav.core.errors import CheckpointError, ConfigError
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import from_mapping, to_mapping
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.training.config import TrainSettings
from come_nav.training.data.bank_cache import weights_digest
from come_nav.training.growing import begin_with, grown
from come_nav.training.motion.settings import MotionTrainSettings
from come_nav.training.policies.settings import PolicyTrainSettings
from come_nav.training.sequence.settings import SequenceTrainSettings
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule

MACHINE_KEYS = ("workers", "cache_folder", "cache_limit_gb")  # of the data's configuration


def new_expert(config: TrainSettings, init: DiffusionWorldModel | None, schedule: NoiseSchedule) -> BaseExpert:
    """Return the expert to train: the initial model's, or a new one whose weights depend only on the seed."""
    if init is not None:
        expert = init.memory_base if config.data.memory_s else init.base
        if not isinstance(expert, BaseExpert):
            raise CheckpointError("the initial model has no base expert to fine-tune")
        expert = copy.deepcopy(expert).train()
        channels = config.denoiser_model.latent_memory_channels
        if channels != expert.model.settings.latent_memory_channels:
            expert.model = grown(expert.model, latent_memory_channels=channels)
        return only(expert, config.trained)
    with seeded_layers(config.seed):
        network = CDiT.from_settings(config.denoiser_model)
    scale_m, spacing_m = config.scale_m, config.waypoint_spacing_m
    normalizer = Normalizer.metric(scale_m) if spacing_m is None else Normalizer.nwm(spacing_m)
    expert = BaseExpert(network, normalizer, schedule, config.prediction)
    if config.denoiser_from is None:
        expert.start_from_view()
    else:
        begin_with(expert, config)
    return only(expert, config.trained)


def new_estimator(config: TrainSettings, init: DiffusionWorldModel | None) -> DepthEstimator:
    """Return the initial model's depth estimator, that of ``config.depth_from``, or an untrained one.

    Raises:
        CheckpointError: there is no model of that name.
        ConfigError: it has no depth estimator, or one of another shape.
    """
    if init is not None and init.depth is not None:
        return init.depth
    with seeded_layers(config.seed):
        estimator = DepthEstimator(config.depth_model)
    if config.depth_from is not None:
        known = DiffusionWorldModel.load(config.depth_from).depth
        if known is None or known.settings != estimator.settings:
            what = "has no depth estimator" if known is None else "estimates depth by a network of another shape"
            raise ConfigError(f"depth_from {config.depth_from}: that model {what}; name another, or change depth_model")
        estimator.load_state_dict(known.state_dict())
    return estimator


def only(expert: BaseExpert, trained: tuple[str, ...]) -> BaseExpert:
    """Return the expert with only those weights trained whose names begin as one of ``trained``; all where it is empty.

    Raises:
        ConfigError: for a name that no weight has.
    """
    names = [name for name, _ in expert.model.named_parameters()]
    for start in trained:
        if not any(name.startswith(start) for name in names):
            known = sorted({name.split(".")[0] for name in names})
            raise ConfigError(f"trained: no weight of the denoiser begins with '{start}'; there are {', '.join(known)}")
    for name, parameter in expert.model.named_parameters():
        parameter.requires_grad_(not trained or name.startswith(trained))
    return expert


def load_autoencoder(autoencoder: ImageAutoencoder, path: Path) -> ImageAutoencoder:
    """Return ``autoencoder`` with the weights and the scaling factor of a stage's file."""
    with safe_open(path, framework="pt") as handle:
        scaling = float(handle.metadata()["scaling_factor"])
    autoencoder.load_state_dict(load_file(path))
    autoencoder.set_scaling_factor(scaling)
    return autoencoder


Pinned = TrainSettings | PolicyTrainSettings | SequenceTrainSettings | MotionTrainSettings


def pin_config(config: Pinned, folder: Path) -> None:
    """Write the config into the run folder; a folder that holds another config is refused, not mixed.

    What depends on the machine alone may change: the number of processes that make drives, and the cache. Settings
    that came to be since have their defaults in it.
    """
    path = folder / "config.yaml"
    text = yaml.safe_dump(to_mapping(config), sort_keys=False)
    if path.exists() and _portable(_completed(path, type(config))) != _portable(yaml.safe_load(text)):
        raise ConfigError(
            f"{folder}: holds a run with another configuration (see its config.yaml); "
            "choose another --out, or remove the folder to start again"
        )
    atomic_write_text(path, text)


def pin_init(parts: Sequence[torch.nn.Module | None], folder: Path) -> None:
    """Write what names the networks that a run begins with; a folder that began with others is refused.

    A run that goes on takes its autoencoder from there again, so another one would go on with other latents.
    """
    path = folder / "init.txt"
    own = "none" if not parts else hashlib.sha256(" ".join(map(_digest, parts)).encode()).hexdigest()
    if path.exists() and path.read_text(encoding="utf-8").strip() != own:
        raise ConfigError(
            f"{folder}: holds a run that began with another model; give the --init that it began with (or none), "
            "choose another --out, or remove the folder to start again"
        )
    atomic_write_text(path, own + "\n")


def _digest(network: torch.nn.Module | None) -> str:
    return "none" if network is None else weights_digest(network, None)


def check_fine_tuning(config: TrainSettings, init: DiffusionWorldModel) -> None:
    """Raise ConfigError for a key that fine-tuning ``init`` would not follow: its network and target stay."""
    network = to_mapping(config.denoiser_model)
    theirs = {**to_mapping(init.base.model.settings), "latent_memory_channels": network["latent_memory_channels"]}
    changed = [f"denoiser_model.{key}" for key, value in theirs.items() if network[key] != value]
    asked = {
        "prediction": (config.prediction, init.base.prediction),
        "image_size": (config.image_size, init.image_size),
        "autoencoder_model": (_unscaled(config.autoencoder_model), _unscaled(init.autoencoder.settings)),
        "denoiser_from": (config.denoiser_from, None),
        "autoencoder_from": (config.autoencoder_from, None),
        "depth_from": (config.depth_from, None),
    }
    changed += [key for key, (own, their) in asked.items() if own != their]
    units, default = init.base.normalizer, TrainSettings()
    if config.scale_m not in (default.scale_m, units.scale_m):
        changed.append("scale_m")
    if config.waypoint_spacing_m not in (None, units.spacing_m if units.kind == "range" else None):
        changed.append("waypoint_spacing_m")
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: not those of --init, which keeps its network, images and units; leave them out, or "
            "train from nothing, or from a smaller network by denoiser_from without --init"
        )


def _unscaled(settings: AutoencoderSettings) -> AutoencoderSettings:
    return replace(settings, scaling_factor=1.0)  # which is fitted


def _completed(path: Path, kind: type[Any]) -> Any:
    """Return a configuration file's values with the defaults of those it lacks; as it is where it cannot be read so."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return yaml.safe_load(yaml.safe_dump(to_mapping(from_mapping(kind, values)), sort_keys=False))
    except (ConfigError, TypeError):
        return values


def _portable(values: Any) -> Any:
    """Return a configuration without what the machine decides; anything that is none as it is."""
    if not isinstance(values, dict) or not isinstance(values.get("data"), dict):
        return values
    data = {name: value for name, value in values["data"].items() if name not in MACHINE_KEYS}
    return {**values, "data": data}


@contextmanager
def seeded_layers(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Make new layers, and dropout on ``device``, depend only on ``seed``.

    Layers draw from torch's default generators, the CPU's and that of ``device``, which are restored after.
    """
    on_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)
        yield
