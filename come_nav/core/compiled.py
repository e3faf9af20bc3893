"""Loops over points and pixels as machine code, where numba is installed; who calls them has slower code besides."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor

# divisions by zero raise nothing, which would keep loops from being vectorised; NaN and infinity keep their meaning
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@cache
def available() -> bool:
    """Say whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def suits(*tensors: Tensor) -> bool:
    """Say whether a compiled loop may take these tensors: float32 of the CPU that no gradient flows through."""
    if not available() or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return False
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a part of compiled loops: a decorator for functions that only those call."""
    import numba

    part: Callable[..., Any] = numba.njit(**OPTIONS)(function)
    return part


class Compiled:
    """A decorator for a loop that writes nothing but the arrays it is given; threads run beside it.

    The machine code is kept beside the source, or in the user's cache where that cannot be written; where neither can,
    each process compiles anew.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function, self._lock = function, threading.Lock()
        self._loop: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> None:
        """Run the loop."""
        if self._loop is not None:
            self._loop(*arguments)
            return
        with self._lock:  # threads that come meanwhile wait for the one compilation
            self._loop = self._first(*arguments)

    def _first(self, *arguments: Any) -> Callable[..., Any]:
        import numba

        try:
            loop: Callable[..., Any] = numba.njit(cache=True, **OPTIONS)(self._function)
            loop(*arguments)
        except (OSError, RuntimeError):  # no folder to write to, or a full disk
            loop = numba.njit(**OPTIONS)(self._function)
            loop(*arguments)
        return loop


def shared_out(work: Callable[[int, int], None], count: int, least: int = 4) -> None:
    """Call ``work(start, stop)`` for parts of ``range(count)``, on as many threads as torch may use.

    ``least`` items are given to a thread: starting one costs about 0.1 ms.
    """
    threads = max(1, min(torch.get_num_threads(), count // least))
    if threads == 1:
        work(0, count)
        return
    edges: Sequence[int] = [count * index // threads for index in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # none is kept: a process that forks has no threads to lose
        list(pool.map(work, edges[:-1], edges[1:]))
