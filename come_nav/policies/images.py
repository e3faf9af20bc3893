"""Camera images as the policies were taught: resized without cropping, ImageNet's mean and spread taken out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_shape
from come_nav.policies.settings import PolicySettings

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


def resized(image_rgb: NDArray[np.uint8], settings: PolicySettings) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) at the policy's size, by Pillow's bicubic filter, as the official deployment does."""
    from PIL import Image

    check_shape("image_rgb", image_rgb, "H W 3")
    size = (settings.image_width, settings.image_height)
    if image_rgb.shape[1::-1] == size:
        return image_rgb
    return np.asarray(Image.fromarray(image_rgb).resize(size, Image.Resampling.BICUBIC))


def normalised(images: Tensor) -> Tensor:
    """Return images (..., 3, H, W) uint8 as the networks take them, float."""
    mean, spread = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, SPREAD))
    return (images.float() / 255.0 - mean) / spread


def pixels(images_rgb: Sequence[NDArray[np.uint8]], settings: PolicySettings) -> Tensor:
    """Return images (N, 3, H, W) uint8 at the policy's size."""
    return torch.from_numpy(np.stack([resized(image, settings) for image in images_rgb])).permute(0, 3, 1, 2)


def stacked(images_rgb: Sequence[NDArray[np.uint8]], settings: PolicySettings) -> Tensor:
    """Return images (1, 3 * N, H, W) stacked on channels, oldest first."""
    return normalised(pixels(images_rgb, settings)).flatten(0, 1)[None]


def padded_context(images_rgb: Sequence[NDArray[np.uint8]], settings: PolicySettings) -> list[NDArray[np.uint8]]:
    """Return the newest images, as many as the policy looks at; the oldest is repeated where there are fewer."""
    newest = list(images_rgb)[-settings.frames :]
    return [newest[0]] * (settings.frames - len(newest)) + newest
