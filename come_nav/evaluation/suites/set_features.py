"""The features in which sets of images are compared: those of a depth network that ships, the same for every model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from come_nav.core.resources import find_resource
from come_nav.evaluation.protocols.quality import FeaturesFunction
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.model import DiffusionWorldModel

FEATURES_OF = "tiny"  # the model whose depth network tells sets of images apart
IMAGES_PER_CALL = 64


def reference_features(device: torch.device | str = "cpu") -> FeaturesFunction:
    """Return the features of the shipped model's depth network, whatever model is judged, so that tables compare."""
    model = DiffusionWorldModel.load(find_resource("models", FEATURES_OF), device)
    assert model.depth is not None  # it ships with one
    return features_of(model.depth, model.image_size, device)


def features_of(depth: DepthEstimator, image_size: int, device: torch.device | str = "cpu") -> FeaturesFunction:
    """Return features (N, D) of images (N, 3, H, W) of any size by a depth network for ``image_size``."""

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        if images.shape[-2:] != (image_size, image_size):
            images = functional.interpolate(images, (image_size, image_size), mode="bilinear", antialias=True)
        parts = images.clamp(-1.0, 1.0).split(IMAGES_PER_CALL)
        return torch.cat([depth.features(part.to(device)) for part in parts])

    return features
