"""Images to latents and back, and their depth: a model's networks of single images, in batches that fit its memory."""

from __future__ import annotations

import torch
from torch import Tensor

from come_nav.core.device.precision import full_float32
from come_nav.core.errors import ConfigError
from come_nav.world_model.depth_of_frames import focal_ratio
from come_nav.world_model.parts import ModelParts

SAME_FOCAL = 1e-4  # relative difference of two focal lengths that is rounding


# Contexts and latents may go on to be trained on (episodic memory): no_grad, for inference tensors refuse that.
@torch.no_grad()
def encode_images(parts: ModelParts, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return scaled latents (B, C, h, w) of images (B, 3, H, W): the mode, or a sample with a generator."""
    chunks = torch.split(images.to(parts.device), parts.image_batch)
    with parts.autocast():
        return torch.cat([parts.autoencoder.encode(chunk, generator).float() for chunk in chunks])


@torch.no_grad()
def encode_moments(parts: ModelParts, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log variance (B, C, h, w) of the unscaled posterior of images (B, 3, H, W)."""
    chunks = torch.split(images.to(parts.device), parts.image_batch)
    with parts.autocast():
        moments = [parts.autoencoder.moments(chunk) for chunk in chunks]
    return torch.cat([mean.float() for mean, _ in moments]), torch.cat([logvar.float() for _, logvar in moments])


@torch.no_grad()
def decode_latents(parts: ModelParts, latents: Tensor) -> Tensor:
    """Return images (B, 3, H, W) in [-1, 1] of scaled latents (B, C, h, w): what the autoencoder makes of them."""
    chunks = torch.split(latents.to(parts.device), parts.image_batch)
    with parts.autocast():
        return torch.cat([parts.autoencoder.decode(chunk).float() for chunk in chunks])


@torch.no_grad()
def estimate_depth_m(parts: ModelParts, images: Tensor, camera: Tensor | None = None) -> Tensor:
    """Return the estimated z-depth (B, H, W) in metres of images (B, 3, H, W) of ``camera`` (B or 1, 4).

    The focal length of ``camera`` (1, 4), as fractions, scales what the estimator learned with the model's own one.

    Raises:
        ConfigError: for a model without a depth estimator.
    """
    if parts.depth is None:
        raise ConfigError("this model has no depth estimator")
    told = camera if parts.depth.settings.canonical_focal else None  # of those that know what a focal length does
    with full_float32():  # bfloat16 has steps of 3 cm at 4 to 8 m
        depth_m = parts.depth.depth_m(images.to(parts.device), told)
    if parts.depth.settings.canonical_focal:
        return depth_m
    if camera is None or not parts.images.horizontal_fov_deg:  # various cameras: the estimator knows no focal length
        return depth_m
    ratio = focal_ratio(camera, parts.images.camera())
    return depth_m if abs(ratio - 1.0) < SAME_FOCAL else depth_m * ratio
