"""Weights and images by formula, so that networks of other implementations can be filled with the very same numbers."""

from __future__ import annotations

import hashlib
import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn


def wave(shape: tuple[int, ...], name: str) -> Tensor:
    """Return a tensor of values in [-1, 1] that its name and shape decide."""
    index = np.arange(math.prod(shape), dtype=np.float64)
    values = np.sin(index * 0.73 + np.sin(index * 0.0137) * 5.0 + zlib.crc32(name.encode()) % 10007)
    return torch.from_numpy(values.reshape(shape)).float()


def noise(shape: tuple[int, ...], name: str) -> Tensor:
    """Return a tensor of scattered values in [-1, 1] that its name and shape decide."""
    index = np.arange(math.prod(shape), dtype=np.float64)
    values = np.sin(index * 12.9898 + zlib.crc32(name.encode()) % 10007) * 43758.5453
    return torch.from_numpy((2.0 * (values - np.floor(values)) - 1.0).reshape(shape)).float()


def fill(network: nn.Module) -> nn.Module:
    """Set every tensor of a network by its name and return it, in evaluation mode."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point() or name.endswith("pos_enc"):
                continue
            value = noise(tuple(tensor.shape), name)
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                value = 1.0 + 0.3 * value
            elif tensor.ndim == 1:
                value = 0.1 * value
            else:
                value = value * math.sqrt(6.0 / tensor[0].numel())
            tensor.copy_(value)
    return network.eval()


def images(batch: int, count: int, height: int, width: int, name: str) -> Tensor:
    """Return stacked images (B, 3 * count, H, W)."""
    shapes = wave((batch, 3 * count, height, width), name)
    return 2.0 * shapes * wave((batch, 3 * count, 1, 1), f"{name}: contrast") + 0.3 * noise(tuple(shapes.shape), name)


def layout_sha256(state: dict[str, Tensor]) -> str:
    """Return a checksum of the names and shapes of a state dict, in its own order."""
    lines = [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
