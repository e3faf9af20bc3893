"""A denoiser that begins with the weights of a smaller one: what it has more of begins at zero, and answers as before.

Networks of one width can be grown by blocks (whose gates are zero at first), by further inputs (views of more sources,
facts, poses' waves, the camera: zero at first) and by tokens of older frames. Growing keeps what a short training has
learned when a longer one with more inputs follows (Net2Net, arXiv 1511.05641, does it for width and depth).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from come_nav.core.errors import ConfigError
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.training.config import TrainSettings
from come_nav.world_model.model import DiffusionWorldModel

SAME = ("input_size", "context_size", "patch_size", "in_channels", "hidden_size", "num_heads", "learn_sigma")


def begin_with(expert: BaseExpert, config: TrainSettings) -> None:
    """Give an untrained expert the weights of the model that ``config.denoiser_from`` names.

    Raises:
        CheckpointError: there is no such model.
        ConfigError: the network does not extend that model's, or predicts something else.
    """
    source = config.denoiser_from
    assert source is not None
    known = DiffusionWorldModel.load(Path(source)).base
    if known.prediction != expert.prediction or known.normalizer != expert.normalizer:
        raise ConfigError(f"denoiser_from {source}: prediction and scale_m must be that model's")
    grow(expert.model, known.model, source)


def grown(network: CDiT, **options: Any) -> CDiT:
    """Return a network with further ``options`` of its settings that begins with the weights of ``network``.

    What is new is zero where it reaches the output: what the network could be told before, it answers as before.

    Raises:
        ConfigError: for options that change or take away what is there.
    """
    larger = CDiT.from_settings(replace(network.settings, **options))
    grow(larger, network)
    return larger.train(network.training)


@torch.no_grad()
def grow(network: CDiT, known: CDiT, source: str = "the known network") -> None:
    """Copy the weights of ``known`` into an untrained network that extends it.

    Raises:
        ConfigError: naming the setting that must be equal, or the weights that are larger than the network's.
    """
    for name in SAME:
        own, theirs = getattr(network.settings, name), getattr(known.settings, name)
        if own != theirs:
            raise ConfigError(f"denoiser_from {source}: denoiser_model.{name} must be that model's {theirs}, got {own}")
    parameters, unused = dict(network.named_parameters()), set[str]()
    for name, weights in _renamed(known, network).items():
        own = parameters.get(name)
        if own is None:
            unused.add(name)
            continue
        if own.ndim != weights.ndim or any(a < b for a, b in zip(own.shape, weights.shape, strict=True)):
            shapes = f"{tuple(weights.shape)} does not fit into {tuple(own.shape)}"
            raise ConfigError(f"denoiser_from {source}: its {name} of shape {shapes}")
        own.zero_()
        own[tuple(slice(0, size) for size in weights.shape)] = weights
    if unused:
        raise ConfigError(f"denoiser_from {source}: the network has nothing for its {sorted(unused)[0]}")


def _renamed(known: CDiT, network: CDiT) -> dict[str, Tensor]:
    """Return a known network's weights by the names, and in the order, that the larger one has them."""
    weights = {name: own.detach() for name, own in known.named_parameters()}
    groups = network.settings.view_groups
    if not groups or known.settings.view_groups:
        return weights
    if "extra_embedder.proj.weight" in weights:  # the first source is the one view of a network without sources
        weights["view_groups.embedders.0.proj.weight"] = weights.pop("extra_embedder.proj.weight")
    for name in ("skip_layer.linear.weight", "skip_layer.linear.bias"):
        if name in weights:  # every source is passed on as that view was
            patches = weights[name].unflatten(0, (network.settings.patch_size**2, 1, network.settings.in_channels))
            weights[name] = patches.expand(-1, groups, *patches.shape[2:]).flatten(0, 2)
    return weights
