"""Latent banks on disk, larger than memory: safetensors files that are written part by part and read as maps.

A map is read-only and shared with the page cache: sampling touches only the rows it needs, the kernel drops pages
under pressure, and no copy of the bank is ever in a process's own memory.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_path
from come_nav.training.data.bank import LatentBank

# Names of the safetensors format (a JSON header after its length in 8 bytes, then the tensors one after another).
DTYPES = {"F16": np.float16, "F32": np.float32, "I64": np.int64, "U8": np.uint8}
NAMES = {torch.float16: "F16", torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}
PER_BANK = ("cameras",)  # not one row per frame: the parts of a file share it

Segments = Callable[[], tuple[torch.Tensor, torch.Tensor]]
Array = NDArray[Any]
Entry = dict[str, Any]  # dtype, shape and data_offsets of one tensor, as in the header


def write_bank(path: Path, count: int, parts: Iterable[LatentBank], segments: Segments | None = None) -> None:
    """Write a bank of ``count`` frames from consecutive ``parts`` that share their cameras; atomic, bounded memory.

    Args:
        path: safetensors file.
        count: frames of all parts together.
        parts: banks with equal fields; ``first`` and ``last`` count from each part's own first frame.
        segments: called after the last part; returns ``first`` and ``last`` (count,) of the whole instead.

    Raises:
        StorageError: the disk has no room for it; nothing is written.
        DataError: the parts do not hold ``count`` frames.
    """
    with atomic_path(path) as temporary:
        arrays: dict[str, Array] = {}
        start = 0
        for part in parts:
            if not arrays:
                arrays = _create(temporary, _layout(part, count))
            if start + len(part) > count:
                break
            for name, array in arrays.items():
                values = getattr(part, name).cpu()
                rows = slice(None) if name in PER_BANK else slice(start, start + len(part))
                array[rows] = (values + start if name in ("first", "last") else values).numpy()
            start += len(part)
        if start != count:
            raise DataError(f"{path}: expected {count} frames in all, the parts hold {start}")
        if segments is not None:
            arrays["first"][:], arrays["last"][:] = (tensor.numpy() for tensor in segments())
        for array in arrays.values():
            if isinstance(array, np.memmap):
                array.flush()


def open_bank(path: Path) -> LatentBank:
    """Map the bank at ``path`` read-only; a damaged file is a DataError that says to delete it."""
    try:
        entries, start = _read_header(path)
        tensors = {name: _map(path, start, entry, "r") for name, entry in entries.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # nothing writes to a bank
            return LatentBank(**{name: torch.from_numpy(array) for name, array in tensors.items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a readable latent bank ({error}); delete it to have it made again") from error


def bank_bytes(part: LatentBank, count: int) -> int:
    """Return the size of a bank of ``count`` frames that are like those of ``part``."""
    return int(max(entry["data_offsets"][1] for entry in _layout(part, count).values()))


def _layout(part: LatentBank, count: int) -> dict[str, Entry]:
    """Return the header's entries, types of 8 bytes first so that every tensor is aligned."""
    tensors = {name: getattr(part, name) for name in part.__dataclass_fields__ if getattr(part, name) is not None}
    layout: dict[str, Entry] = {}
    offset = 0
    for name, value in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        shape = list(value.shape) if name in PER_BANK else [count, *value.shape[1:]]
        end = offset + prod(shape) * value.element_size()
        layout[name] = {"dtype": NAMES[value.dtype], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    return layout


def _create(path: Path, layout: dict[str, Entry]) -> dict[str, Array]:
    text = json.dumps(layout).encode()
    text += b" " * (-len(text) % 8)
    size = 8 + len(text) + max(entry["data_offsets"][1] for entry in layout.values())
    with path.open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        os.posix_fallocate(handle.fileno(), 0, size)  # a full disk is an error here, not a crash at some later page
    return {name: _map(path, 8 + len(text), entry, "r+") for name, entry in layout.items()}


def _read_header(path: Path) -> tuple[dict[str, Entry], int]:
    with path.open("rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(handle.read(size))
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if 8 + size + max(entry["data_offsets"][1] for entry in entries.values()) != path.stat().st_size:
        raise ValueError("it is cut short")
    return entries, 8 + size


def _map(path: Path, start: int, entry: Entry, mode: str) -> Array:
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
    first, end = entry["data_offsets"]
    if prod(shape) * dtype.itemsize != end - first:
        raise ValueError("a tensor's size does not fit its shape")
    if end == first:  # nothing to map, e.g. no branches
        return np.empty(shape, dtype)
    mapped: Array = np.memmap(path, dtype, mode, offset=start + first, shape=shape)  # type: ignore[call-overload]
    return mapped
