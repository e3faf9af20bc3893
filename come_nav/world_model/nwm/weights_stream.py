"""Writes a safetensors file tensor by tensor, so that the memory needed is that of the largest tensor."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from come_nav.core.errors import CheckpointError
from come_nav.core.files import atomic_path

TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
HEADER_ALIGNMENT = 8


def write_weights(
    path: Path,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype,
    metadata: Mapping[str, str],
    progress: Callable[[int], Any] | None = None,
) -> str:
    """Write ``tensors`` to ``path`` in the safetensors format, atomically, and return the file's sha256.

    Args:
        path: the file; the old one stays until the new one is whole.
        tensors: name -> tensor; those of a memory-mapped checkpoint are read one after the other.
        dtype: floating-point tensors are converted to it, each as its turn comes.
        metadata: strings for the header.
        progress: called with the bytes of each tensor that was written.

    Raises:
        CheckpointError: a tensor holds NaN or infinite values.
        StorageError: the file cannot be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, tensor in tensors.items():
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        size = tensor.numel() * kind.itemsize
        header[name] = {
            "dtype": TYPE_NAMES[kind],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        for block in (struct.pack("<Q", len(text)), text):
            handle.write(block)
            digest.update(block)
        for name, tensor in tensors.items():
            data = _bytes(name, tensor, dtype)
            handle.write(data)
            digest.update(data)
            if progress is not None:
                progress(len(data))
    return digest.hexdigest()


def _bytes(name: str, tensor: Tensor, dtype: torch.dtype) -> memoryview:
    """Return the numbers of one tensor as they go into the file (little endian, as every supported machine has)."""
    values = tensor.detach()
    if values.is_floating_point():
        values = values.to(dtype)
        if not torch.isfinite(values).all():
            raise CheckpointError(f"tensor '{name}' holds NaN or infinite values as {dtype}; the file is of no use")
    flat = values.contiguous().reshape(-1).view(torch.uint8)
    return memoryview(flat.numpy().data)
