"""One spelling of the few array functions that numpy and torch name differently."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

ArrayT = TypeVar("ArrayT", NDArray[Any], "torch.Tensor")


def namespace(array: Any) -> Any:
    """Return ``numpy`` or ``torch``, whichever made ``array``. Torch is never imported for a numpy caller."""
    torch_module = sys.modules.get("torch")
    if torch_module is not None and isinstance(array, torch_module.Tensor):
        return torch_module
    return np


def stack_last(arrays: list[Any]) -> Any:
    """Stack equally shaped arrays along a new last axis."""
    if namespace(arrays[0]) is np:
        return np.stack(arrays, axis=-1)
    return sys.modules["torch"].stack(arrays, dim=-1)


def zeros_like_rows(array: Any, *shape: int) -> Any:
    """Return zeros of ``shape`` in ``array``'s library, dtype and device."""
    if namespace(array) is np:
        return np.zeros(shape, dtype=array.dtype)
    return array.new_zeros(shape)
