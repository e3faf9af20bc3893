"""Memory that is free again goes back to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache


def give_back_heap() -> None:
    """Give freed memory of the heap back to the system, where the C library can; 2 ms after a plan on a CPU.

    What a plan computed with lies between things that are kept, so that the C library keeps its place as well: about
    20 MB of a process that plans and then waits for the robot to drive.
    """
    _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    try:
        found: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # of another C library than glibc
        return lambda kept_bytes: None
    return found
