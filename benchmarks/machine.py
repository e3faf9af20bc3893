"""What a benchmark ran on, and what its process takes, written beside its figures."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch


def machine_facts() -> dict[str, Any]:
    """Return processor, load and versions."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def status_bytes(field: str) -> int:
    """Return VmHWM (peak resident), VmRSS (resident) or RssAnon of this process.

    Unlike ru_maxrss, no parent is counted in. Raises RuntimeError for a field that the system does not tell.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
