"""Loops over points and pixels as machine code, where numba is installed; who calls them has slower code besides."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

from come_nav.core.machine_code.libraries import library_call
from come_nav.core.machine_code.signature import Description, describe

if TYPE_CHECKING:
    from torch import Tensor

# divisions by zero raise nothing, which would keep loops from being vectorised; NaN and infinity keep their meaning
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


@cache
def available() -> bool:
    """Say whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def suits(*tensors: Tensor) -> bool:
    """Say whether a compiled loop may take these tensors: float32 of the CPU that no gradient flows through."""
    import torch  # not by the process that compiles

    if not available() or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return False
    return all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)


class Part:
    """A function that only compiled loops call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        """Do in Python what it does as machine code."""
        return self.function(*arguments)


def inlined(function: Callable[..., Any]) -> Part:
    """Return a part of compiled loops: a decorator for functions that only those of the same module call."""
    return Part(function)


def compile_parts(function: Callable[..., Any]) -> None:
    """Make what ``numba`` takes of all parts in the module of a loop."""
    import numba

    namespace: dict[str, Any] = function.__globals__
    for name, value in list(namespace.items()):
        if isinstance(value, Part):
            namespace[name] = numba.njit(**OPTIONS)(value.function)


class Compiled:
    """A decorator for a loop that writes nothing but the arrays it is given; threads run beside it.

    Machine code comes from a library that another process made, so that no compiler is loaded here; see
    :mod:`come_nav.core.machine_code.libraries`. Where there is none numba compiles here. Both are kept beside the
    source, or in the user's cache where that cannot be written; where neither can, each process compiles anew.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self._lock = function, threading.Lock()
        self._loops: dict[Description | None, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> None:
        """Run the loop."""
        kind = describe(arguments)
        if kind not in self._loops:
            with self._lock:  # threads that come meanwhile wait for the one compilation
                if kind not in self._loops:
                    self._loops[kind] = self._first(kind, *arguments)
                    return
        self._loops[kind](*arguments)

    def _first(self, kind: Description | None, *arguments: Any) -> Callable[..., Any]:
        """Run the loop once and return it."""
        call = library_call(self.function, kind) if kind is not None else None
        if call is None:
            return self._compiled_here(*arguments)
        call(*arguments)
        return call

    def _compiled_here(self, *arguments: Any) -> Callable[..., Any]:
        import numba

        compile_parts(self.function)
        try:
            loop: Callable[..., Any] = numba.njit(cache=True, **OPTIONS)(self.function)
            loop(*arguments)
        except (OSError, RuntimeError):  # no folder to write to, or a full disk
            loop = numba.njit(**OPTIONS)(self.function)
            loop(*arguments)
        return loop


def shared_out(work: Callable[[int, int], None], count: int, least: int = 4) -> None:
    """Call ``work(start, stop)`` for parts of ``range(count)``, on as many threads as torch may use.

    ``least`` items are given to a thread: starting one costs about 0.1 ms.
    """
    import torch

    threads = max(1, min(torch.get_num_threads(), count // least))
    if threads == 1:
        work(0, count)
        return
    edges: Sequence[int] = [count * index // threads for index in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # none is kept: a process that forks has no threads to lose
        list(pool.map(work, edges[:-1], edges[1:]))
