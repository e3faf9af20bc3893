"""Rows that come one at a time and are read all at once: a list turned into an array each time costs ever more."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

FIRST = 64  # rows


class GrowingRows:
    """An array (N, *shape) that grows; appending costs the same whatever N is, on average."""

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> None:
        self._table: NDArray[Any] = np.zeros((0, *shape), dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        """A view of all rows (N, *shape); rows that come later are not in it."""
        return self._table[: self._count]

    @property
    def nbytes(self) -> int:
        """Memory in bytes, room for rows to come included."""
        return self._table.nbytes

    def append(self, row: ArrayLike) -> int:
        """Keep a row and return its index."""
        if self._count == len(self._table):
            grown = np.zeros((max(FIRST, 2 * self._count), *self._table.shape[1:]), self._table.dtype)
            grown[: self._count] = self.rows
            self._table = grown
        self._table[self._count] = row
        self._count += 1
        return self._count - 1

    def drop(self, index: int) -> None:
        """Forget one row; those after it move up by one."""
        self._table[index : self._count - 1] = self._table[index + 1 : self._count]
        self._count -= 1

    def clear(self) -> None:
        """Forget all rows; the room stays."""
        self._count = 0
