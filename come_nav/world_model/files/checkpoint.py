"""Model folders: ``model.safetensors`` (weights), ``config.yaml`` (everything to rebuild the model), ``card.md``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from come_nav.core.checks import check_range
from come_nav.core.errors import CheckpointError, ConfigError, suggest
from come_nav.core.experts import BASE
from come_nav.core.settings import from_mapping, read_yaml
from come_nav.core.weights_file import (
    CARD_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    check_format,
    check_sha256,
    load_tensors,
    read_weights,
    write_model_folder,
)
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT, CDiTSettings
from come_nav.experts.normalizer import Normalizer
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.composition import CompositionSettings
from come_nav.world_model.depth import DepthEstimator, DepthSettings
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.parts import ModelParts
from come_nav.world_model.reprojection import ReprojectionSettings
from come_nav.world_model.sampling.schedule import NoiseSchedule, ScheduleSettings
from come_nav.world_model.sampling.settings import SamplerSettings

FORMAT = "come_nav world model 1"
PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".tar", ".bin", ".pkl")
HASHED_AT_LOAD_BYTES = 256 * 2**20  # larger files are hashed only when asked for: reading them twice takes long
StorageType = Literal["float32", "float16", "bfloat16"]
ModelT = TypeVar("ModelT", bound=ModelParts)


@dataclass(frozen=True)
class ExpertSettings:
    """The base expert: its network, units and what it predicts."""

    network: CDiTSettings = field(default_factory=CDiTSettings)
    normalizer: Normalizer = field(default_factory=Normalizer)
    prediction: Literal["eps", "v"] = "eps"


@dataclass(frozen=True)
class WorldModelSettings:
    """Content of ``config.yaml``.

    Attributes:
        format: version of this layout.
        rate_hz: protocol frames per second.
        storage: type of the numbers in the weights file; they are float32 once loaded.
        weights_sha256: of the weights file; None = unknown, then it is not checked.
        autoencoder, expert, schedule, sampler, composition, images: the parts of the model.
        memory_expert: the network of the spatial and the long-term expert; None = the base's.
        depth: the estimator that reprojected views need; None for models without extra channels.
        reprojection: how context frames become points.
        navigation: what a robot's settings are with this model, where they differ from the defaults (read and checked
            by :mod:`come_nav.navigation.model_settings`); None = nothing was tuned.
        composition_weights: weights of the experts in each row of the memory suites; None = 1 each.
    """

    format: str = FORMAT
    rate_hz: float = 4.0
    storage: StorageType = "float16"
    weights_sha256: str | None = None
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    expert: ExpertSettings = field(default_factory=ExpertSettings)
    memory_expert: ExpertSettings | None = None
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    composition: CompositionSettings = field(default_factory=CompositionSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    depth: DepthSettings | None = None
    reprojection: ReprojectionSettings = field(default_factory=ReprojectionSettings)
    navigation: dict[str, Any] | None = None
    composition_weights: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_format(self.format, FORMAT)
        for name in ("navigation", "composition_weights"):
            if not isinstance(getattr(self, name), (dict, type(None))):
                raise ConfigError(f"{name} must be a mapping of keys, got {getattr(self, name)!r}")
        check_range("rate_hz", self.rate_hz, 0.0, open_low=True)
        grid, channels = self.autoencoder.latent_size, self.autoencoder.latent_channels
        network = self.expert.network
        if (network.input_size, network.in_channels) != (grid, channels):
            raise ConfigError(
                f"expert.network must take the autoencoder's {channels} channels of {grid}x{grid} latents, "
                f"got in_channels {network.in_channels}, input_size {network.input_size}"
            )


def save_model(model: ModelParts, folder: Path, card: str | None = None, storage: StorageType = "float16") -> None:
    """Write ``folder``: weights, then the config that holds their sha256, so that no mixture of two saves loads.

    Args:
        model: its autoencoder and base expert are written; experts of memories live in the memory store.
        folder: made if need be; files in it are replaced one by one, each atomically.
        card: text of ``card.md``; a present card is kept where not given.
        storage: type of the numbers in the file.

    Raises:
        StorageError: when the folder cannot be written.
        ConfigError: for a schedule that is not described by settings.
    """
    schedule = model.schedule.settings
    if schedule is None:
        raise ConfigError("only models with a linear noise schedule can be saved, this one has its own betas")
    tensors = {name: _storable(tensor, storage) for name, tensor in _modules(model).state_dict().items()}

    def settings_of(weights_sha256: str) -> WorldModelSettings:
        return WorldModelSettings(
            rate_hz=model.rate_hz,
            storage=storage,
            weights_sha256=weights_sha256,
            autoencoder=model.autoencoder.settings,
            expert=_expert_config(model.base),
            memory_expert=None if model.memory_expert is None else _expert_config(model.memory_expert),
            schedule=schedule,
            sampler=model.sampler,
            composition=model.composition.of_first(),
            images=model.images,
            depth=None if model.depth is None else model.depth.settings,
            reprojection=model.reprojection,
            navigation=model.tuned.get("navigation"),
            composition_weights=model.tuned.get("composition_weights"),
        )

    if card is None and not (folder / CARD_NAME).exists():
        card = _default_card(folder.name, model)
    write_model_folder(folder, tensors, FORMAT, settings_of, card)


def load_model(folder: Path, kind: type[ModelT]) -> ModelT:
    """Rebuild a model of class ``kind`` in float32, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: one line: the folder or file that is missing or broken, or the tensor that does not fit.
        ConfigError: for a value in ``config.yaml`` that breaks a rule.
    """
    config = read_config(folder)
    weights = folder / WEIGHTS_NAME
    tensors = read_weights(weights)
    if config.weights_sha256 is not None and weights.stat().st_size <= HASHED_AT_LOAD_BYTES:
        check_sha256(weights, config.weights_sha256)
    schedule = NoiseSchedule.linear(config.schedule)
    expert = _expert(config.expert, schedule)
    memory_expert = None if config.memory_expert is None else _expert(config.memory_expert, schedule)
    model = kind(
        ImageAutoencoder(config.autoencoder),
        {BASE: expert},
        schedule,
        config.sampler,
        composition=config.composition,
        rate_hz=config.rate_hz,
        images=config.images,
        memory_expert=memory_expert,
        depth=None if config.depth is None else DepthEstimator(config.depth),
        reprojection=config.reprojection,
    )
    tuned = {"navigation": config.navigation, "composition_weights": config.composition_weights}
    model.tuned = {section: values for section, values in tuned.items() if values is not None}
    load_tensors(_modules(model), tensors, weights)
    for module in (model.autoencoder, expert, memory_expert, model.depth):  # not frozen: fine-tuning starts from here
        if module is not None:
            module.eval()
    return model


def read_config(folder: Path) -> WorldModelSettings:
    """Return the config of a model folder; raise CheckpointError where ``folder`` is none."""
    if folder.suffix in PICKLE_SUFFIXES and (folder.is_file() or not folder.exists()):
        raise CheckpointError(
            f"{folder}: pickle files may run code when they are read, so they are not loaded; "
            f"give a folder with {WEIGHTS_NAME} and {CONFIG_NAME}"
        )
    if folder.is_file() and folder.name in (WEIGHTS_NAME, CONFIG_NAME):
        raise CheckpointError(f"{folder}: give the model's folder, {folder.parent}, not a file in it")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such model folder{_near_models(folder)}")
    if not (folder / CONFIG_NAME).is_file():
        raise CheckpointError(f"{folder}: not a model folder, it has no {CONFIG_NAME}{_near_models(folder / 'x')}")
    try:
        values = read_yaml(folder / CONFIG_NAME)
        if str(values.get("format")).startswith("come_nav policy"):
            raise CheckpointError(
                f"{folder}: holds a policy, not a world model; set it as planner.proposals beside a world model"
            )
        if str(values.get("format")).startswith("come_nav motion"):
            raise CheckpointError(
                f"{folder}: holds a prior of motion, not a world model; set it as motion_prior.network beside one"
            )
        reprojection = values.get("reprojection")
        if isinstance(reprojection, dict) and "memory_trust" in reprojection:  # as version 0.1 called it
            reprojection["render_blend"] = reprojection.pop("memory_trust")
        return from_mapping(WorldModelSettings, values)
    except ConfigError as error:
        prefix = "" if str(error).startswith(str(folder)) else f"{folder / CONFIG_NAME}: "
        raise ConfigError(f"{prefix}{error}") from error


def _expert(config: ExpertSettings, schedule: NoiseSchedule) -> BaseExpert:
    return BaseExpert(CDiT.from_settings(config.network), config.normalizer, schedule, config.prediction)


def _expert_config(expert: BaseExpert) -> ExpertSettings:
    return ExpertSettings(expert.model.settings, expert.normalizer, expert.prediction)


def _modules(model: ModelParts) -> nn.ModuleDict:
    """The trained parts by the names that prefix their tensors in the file."""
    modules: dict[str, nn.Module] = {"autoencoder": model.autoencoder.network, "base": model.base.model}
    if model.memory_expert is not None:
        modules["memory"] = model.memory_expert.model
    if model.depth is not None:
        modules["depth"] = model.depth
    return nn.ModuleDict(modules)


def _storable(tensor: Tensor, storage: StorageType) -> Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.to(getattr(torch, storage)) if tensor.is_floating_point() else tensor).contiguous()


def _near_models(folder: Path) -> str:
    """Return a hint with the models that lie beside ``folder``."""
    parent = folder.parent
    names = [entry.name for entry in parent.iterdir() if (entry / CONFIG_NAME).is_file()] if parent.is_dir() else []
    return suggest(folder.name, names) if names else "; 'come-nav models list' shows the known ones"


def _default_card(name: str, model: ModelParts) -> str:
    count = sum(parameter.numel() for parameter in _modules(model).parameters())
    return (
        f"# {name}\n\nA come_nav world model: {count:,} parameters, {model.image_size} px images, "
        f"{model.context_frames} context frames at {model.rate_hz:g} Hz.\n"
    )
