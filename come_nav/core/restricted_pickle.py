"""Reads pickles of plain containers and numpy arrays; anything that could run code is refused.

Unpickling calls whatever function a file names. Trajectory folders of NWM and GNM hold a pickle, and people download
them, so the only names that are honoured are numpy's own array constructors.
"""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from come_nav.core.errors import DataError


def load_arrays(path: Path) -> Any:
    """Return the content of a pickle of dicts, lists, numbers, strings and numpy arrays.

    Raises:
        DataError: the file names any other function or class (it is not called), or is damaged.
    """
    try:
        with path.open("rb") as handle:
            return _ArrayUnpickler(handle, encoding="latin1").load()
    except DataError as error:
        raise DataError(f"{path}: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # damaged pickles raise about every kind there is
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable pickle ({reason[:80]}); write the folder again") from error


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, by which protocol 2 spells bytes; other codecs are refused."""
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"the pickle wants the codec '{encoding}', which array data never does")
    return codecs.encode(text, "latin1")


def _allowed_names() -> dict[tuple[str, str], Any]:
    sample = np.zeros(1)
    reconstruct: Any = sample.__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    from_buffer: Any = sample.__reduce_ex__(5)[0]
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode_latin1,
    }
    for package in ("numpy.core", "numpy._core"):  # numpy 1 and 2 spell their insides differently
        names[f"{package}.multiarray", "_reconstruct"] = reconstruct
        names[f"{package}.multiarray", "scalar"] = scalar
        names[f"{package}.numeric", "_frombuffer"] = from_buffer
    return names


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _allowed_names().get((module, name))
        if allowed is None:
            raise DataError(f"refused: the pickle wants to call {module}.{name}, but only numpy arrays are read")
        return allowed
