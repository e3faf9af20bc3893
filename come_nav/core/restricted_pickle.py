"""Reads pickles of plain containers and numpy arrays; anything that could run code is refused.

Unpickling calls whatever function a file names. Trajectory folders of NWM and GNM hold a pickle, and people download
them. The names of numpy's array constructors are the only ones honoured, and even numpy's own are not called: they
believe a file's flags and pointers (an array of objects over bytes, a dtype that claims to hold references). Stand-ins
take what the file says, and arrays are made from plain bytes after it was checked.
"""

from __future__ import annotations

import codecs
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError

PLAIN_TYPE = re.compile(r"[biufcSU]\d{0,6}|O8?")  # as numpy spells element types in pickles; no dates, no records
BYTE_ORDERS = ("<", ">", "=", "|")


def load_arrays(path: Path) -> Any:
    """Return the content of a pickle of dicts, lists, numbers, strings and numpy arrays.

    Raises:
        DataError: the file names any other function or class (it is not called), holds arrays of anything but numbers
            and text, or is damaged.
    """
    try:
        with path.open("rb") as handle:
            return _plain(_ArrayUnpickler(handle, encoding="latin1").load(), set())
    except DataError as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # damaged pickles raise about every kind there is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable pickle ({reason[:80]}); write the folder again") from error


class PlainDtype:
    """Stands in for ``numpy.dtype``: an element type by name; its state may set the byte order, nothing else."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or PLAIN_TYPE.fullmatch(name) is None:
            raise DataError(f"refused: the pickle holds an array of type {name!r:.40}, but only plain ones are read")
        self.value: np.dtype[Any] = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; raise DataError for records. Flags and sizes that a file claims are not believed."""
        order, parts = state[1], state[2:5]
        if order not in BYTE_ORDERS or any(part is not None for part in parts):
            raise DataError("refused: the pickle holds an array of records, but only plain ones are read")
        self.value = self.value if order == "|" else self.value.newbyteorder(order)


class _Array:
    """Stands in for an array until the file is read; its state is checked before numpy sees it."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self) -> None:
        self.value: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        shape, dtype, is_fortran, data = state[-4:]
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


class _ArrayName:
    """Stands in for the class ``numpy.ndarray``, which :func:`_reconstruct` is handed and nobody may call."""


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _ArrayName:
        raise DataError("refused: the pickle wants an array of a class of its own")
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    found = _Array()
    found.value = _array(data, dtype, shape, "F" if order == "F" else "C")
    return found


def plain_scalar(dtype: Any, data: Any = None) -> Any:
    """Stand in for numpy's ``scalar``: a number or text of a :class:`PlainDtype` from its bytes."""
    return _array(data, dtype, (1,), "C")[0]


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """Return an array of bytes, or of a list where its type is object; raise DataError where sizes do not agree."""
    if not isinstance(dtype, PlainDtype) or not isinstance(shape, tuple):
        raise DataError("the pickle holds an array without type or shape")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise DataError(f"the pickle holds an array of shape {shape!r:.40}")
    count = math.prod(shape)
    if dtype.value.hasobject:
        if not isinstance(data, list) or len(data) != count:
            raise DataError("refused: the pickle holds an array of objects that are not listed")
        items = np.empty(count, object)
        for index, item in enumerate(data):
            items[index] = item
        return items.reshape(shape, order=order)
    raw = data.encode("latin1") if isinstance(data, str) else data  # text is how protocol 2 spells bytes
    if not isinstance(raw, (bytes, bytearray)) or len(raw) != count * max(1, dtype.value.itemsize):
        raise DataError(f"the pickle holds an array of shape {shape} whose bytes are not as many as that")
    if not len(raw):
        return np.zeros(shape, dtype.value)
    return np.frombuffer(raw, dtype.value).reshape(shape, order=order).copy(order)


def _plain(value: Any, seen: set[int]) -> Any:
    """Return what was read with arrays in place of stand-ins; containers may hold each other."""
    if isinstance(value, _Array):
        if value.value.dtype.hasobject and id(value) not in seen:
            seen.add(id(value))
            for place in np.ndindex(value.value.shape):
                value.value[place] = _plain(value.value[place], seen)
        return value.value
    if isinstance(value, tuple):
        return tuple(_plain(item, seen) for item in value)
    if isinstance(value, (dict, list)) and id(value) not in seen:
        seen.add(id(value))
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = _plain(item, seen)
    if isinstance(value, (type, PlainDtype)) or callable(value):
        raise DataError("refused: the pickle holds a class or a function, but only numpy arrays are read")
    return value


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, by which protocol 2 spells bytes; other codecs are refused."""
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"the pickle wants the codec '{encoding}', which array data never does")
    return codecs.encode(text, "latin1")


def _no_bytes() -> bytes:
    """Stand in for ``bytes``, by which protocol 2 spells empty ones."""
    return b""


NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ArrayName,
    ("numpy", "dtype"): PlainDtype,
    ("_codecs", "encode"): _encode_latin1,
    ("__builtin__", "bytes"): _no_bytes,
}
for _package in ("numpy.core", "numpy._core"):  # numpy 1 and 2 spell their insides differently
    NAMES[f"{_package}.multiarray", "_reconstruct"] = _reconstruct
    NAMES[f"{_package}.multiarray", "scalar"] = plain_scalar
    NAMES[f"{_package}.numeric", "_frombuffer"] = _frombuffer


class _ArrayUnpickler(pickle._Unpickler):
    """In Python: the one in C sets memory aside for every number that a file may name."""

    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def load_build(self) -> None:
        """Give a stand-in its state; nothing else may be changed, least of all the stand-ins' classes."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, PlainDtype)):
            raise DataError("refused: the pickle wants to set what is no array")
        self.stack[-1].__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        allowed = NAMES.get((module, name))
        if allowed is None:
            raise DataError(f"refused: the pickle wants to call {module}.{name}, but only numpy arrays are read")
        return allowed
