"""How a suite tells how far it has come, without knowing who listens: a bar, a log, or nobody."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Bar(Protocol):
    """One count that goes up."""

    def add(self, word: str = "", count: int = 1) -> None:
        """Count ``count`` more; ``word`` says what was done."""
        ...


class Progress(Protocol):
    """Opens a count of ``total`` things; as a context manager it ends with the block."""

    def __call__(self, total: int, label: str, unit: str, *, leave: bool = False) -> AbstractContextManager[Bar]:
        """Return the count; ``leave`` asks that it stays to be seen when done."""
        ...


class _Silence:
    def __enter__(self) -> _Silence:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def add(self, word: str = "", count: int = 1) -> None:
        """Say nothing."""


def silent(total: int, label: str, unit: str, *, leave: bool = False) -> AbstractContextManager[Bar]:
    """Count without telling anybody (Progress protocol)."""
    return _Silence()
