"""The model that the settings name, on the device that they name."""

from __future__ import annotations

from come_nav.core.resources import find_resource
from come_nav.navigation.device import choose_device
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
