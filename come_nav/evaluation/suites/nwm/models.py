"""The data set and the model of NWM's protocols, and how the model imagines there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from come_nav.core.resources import find_resource
from come_nav.data.nwm.dataset import DatasetFacts, NwmDataset, dataset_facts
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.suites.fingerprints import model_settings
from come_nav.evaluation.suites.nwm.settings import NwmSuiteSettings
from come_nav.experts.normalizer import Normalizer
from come_nav.navigation.device import choose_device
from come_nav.navigation.settings import NavigationSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.nwm.rollout import NwmImaginer, micro_batch_for


def open_dataset(settings: NwmSuiteSettings) -> NwmDataset:
    """Return the data set that ``settings`` name."""
    return NwmDataset(settings.root, dataset_facts(settings.dataset), settings.splits)


def open_model(settings: NwmSuiteSettings, navigation: NavigationSettings, facts: DatasetFacts) -> DiffusionWorldModel:
    """Return the model, set to the spacing of the data set."""
    model = DiffusionWorldModel.load(find_resource("models", navigation.model), choose_device(navigation.device))
    model.sampler = navigation.sampler or model.sampler
    model.inference = replace(navigation.inference, micro_batch=settings.micro_batch or micro_batch_for(model))
    if model.base.normalizer.kind == "range":
        model.base.normalizer = Normalizer.nwm(facts.spacing_m)
    return model


def nwm_model_settings(
    model: DiffusionWorldModel, navigation: NavigationSettings, settings: NwmSuiteSettings
) -> dict[str, Any]:
    """Return all of a model that a figure depends on."""
    return {
        **model_settings(navigation.model, model),
        "rollout_path": settings.rollout_path,
        "rollout_stride": settings.rollout_stride,
        "device": model.device.type,
    }


def imaginer_of(model: DiffusionWorldModel, window: Window, settings: NwmSuiteSettings, decode: bool) -> NwmImaginer:
    """Return an imaginer over the context frames of ``window``; latents are sampled, as NWM does."""
    images = model.images_from_rgb([frame.rgb for frame in window.context_frames()])
    return NwmImaginer(
        model, images, window.context_xyyaw, settings.rollout_path, decode, stride=settings.rollout_stride
    )
