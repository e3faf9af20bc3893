"""What a loop is called with, said so that another process can compile for it: arrays, numbers, tuples of them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

# ("array", dtype, axes), ("number", dtype), ("tuple", module, class, parts); lists of the same where it was JSON
Description = Sequence[Any]
ADDRESS = "address"

_NUMBERS: dict[type, str] = {bool: "bool", int: "int64", float: "float64"}


def describe(value: Any) -> Description | None:
    """Return what a loop compiles for, or None for what a library cannot be called with; it can be a key."""
    if isinstance(value, np.ndarray):
        flags = value.flags
        plain = flags.c_contiguous and flags.aligned and flags.writeable and value.ndim and value.dtype.kind in "biuf"
        return ("array", value.dtype.name, value.ndim) if plain else None
    if isinstance(value, tuple):
        parts = tuple(describe(part) for part in value)
        named = type(value) is not tuple
        own = (type(value).__module__, type(value).__qualname__) if named else ("", "")
        return None if None in parts else ("tuple", *own, parts)
    name = value.dtype.name if isinstance(value, np.generic) else _NUMBERS.get(type(value))
    return ("number", name) if name is not None and np.dtype(name).kind in "biuf" else None


def flat_kinds(descriptions: Sequence[Description]) -> list[str]:
    """Return what the flat arguments are: of an array its :data:`ADDRESS` and its shape, of a number its dtype."""
    found: list[str] = []
    for kind, *rest in descriptions:
        if kind == "array":
            found += [ADDRESS, *["int64"] * rest[1]]
        elif kind == "tuple":
            found += flat_kinds(rest[2])
        else:
            found.append(rest[0])
    return found


def ctypes_of(descriptions: Sequence[Description]) -> list[Any]:
    """Return the C types of the flat arguments."""
    kinds = flat_kinds(descriptions)
    return [ctypes.c_void_p if own == ADDRESS else np.ctypeslib.as_ctypes_type(np.dtype(own)) for own in kinds]


def flatten(values: Sequence[Any]) -> list[Any]:
    """Return the flat arguments, see :func:`ctypes_of`."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, np.ndarray):
            found += [value.ctypes.data, *value.shape]
        elif isinstance(value, tuple):
            found += flatten(value)
        else:
            found.append(value.item() if isinstance(value, np.generic) else value)
    return found
