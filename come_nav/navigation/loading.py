"""The model and the device that the settings name."""

from __future__ import annotations

import torch

from come_nav.core.errors import ConfigError
from come_nav.core.resources import find_resource
from come_nav.navigation.settings import NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.world_model.model import DiffusionWorldModel


def load_stack(settings: NavigationSettings) -> NavStack:
    """Return a stack with the model and on the device that ``settings`` name.

    Raises:
        ConfigError, CheckpointError: where one of them is not there.
    """
    return NavStack(load_configured_model(settings), settings)


def load_configured_model(settings: NavigationSettings) -> DiffusionWorldModel:
    """Return the model that ``settings`` name, with its sampler where one is set, and its batch sizes and precision."""
    model = DiffusionWorldModel.load(find_resource("models", settings.model), choose_device(settings.device))
    model.sampler = settings.sampler or model.sampler
    model.inference = settings.inference
    return model


def choose_device(name: str) -> str:
    """Return the torch device that ``auto`` or a name means here; raise ConfigError where it is absent."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is '{name}', but this machine has no CUDA device; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
