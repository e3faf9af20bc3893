"""What a benchmark ran on, written beside its figures."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch


def machine_facts() -> dict[str, Any]:
    """Return processor, load and torch's threads."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }
