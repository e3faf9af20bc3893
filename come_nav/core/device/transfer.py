"""Tensors from the CPU to a GPU without a wait."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``tensor`` on ``device``; a GPU gets it from pinned memory, in turn with its work, and nobody waits."""
    device, dtype = torch.device(device), dtype or tensor.dtype
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device, dtype)
    return tensor.to(dtype).pin_memory().to(device, non_blocking=True)
