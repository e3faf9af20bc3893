"""The device that a name means here."""

from __future__ import annotations

import torch

from come_nav.core.errors import ConfigError


def choose_device(name: str) -> str:
    """Return the torch device that ``auto`` or a name means here; raise ConfigError where it is absent."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is '{name}', but this machine has no CUDA device; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
