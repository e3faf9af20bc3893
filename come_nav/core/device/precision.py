"""Where networks run in float32 and where in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Return a context in which cuDNN convolves float32 as it is: by default it rounds to TF32, which has 10 bits.

    A CPU has no such default, so that depth and images of both agree. The flag is the process's.
    """
    cudnn = torch.backends.cudnn
    newer: Any = getattr(cudnn, "conv", None)  # from torch 2.9 on; the older flag must not be mixed with it
    flags, name, exact = (cudnn, "allow_tf32", False) if newer is None else (newer, "fp32_precision", "ieee")
    before = getattr(flags, name)
    setattr(flags, name, exact)
    try:
        yield
    finally:
        setattr(flags, name, before)


def multiplies_bfloat16(device: str) -> bool:
    """Say whether ``device`` multiplies bfloat16 in hardware: CUDA, AMX, or AVX-512 with its bfloat16 instructions."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # older torch knows only the first
    return device == "cuda" or (device == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in names))
