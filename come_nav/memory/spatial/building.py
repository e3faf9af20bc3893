"""Memories of a recorded drive: what a robot would remember after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.protocols import Recording
from come_nav.core.types import Frame


class Observer(Protocol):
    """A memory that takes frames with poses: :class:`SpatialMemory`, :class:`Keyframes`."""

    def observe(self, frame: Frame, T_odom_base: NDArray[Any], /) -> object:
        """Take a frame and the pose of base_link, (4, 4) or planar (3,)."""
        ...


def remember(
    recording: Recording,
    memories: Sequence[Observer],
    start: int = 0,
    stop: int | None = None,
    poses: NDArray[Any] | None = None,
    progress: Callable[[int], object] | None = None,
) -> int:
    """Show frames ``start`` to ``stop`` - 1 to all memories, in order; return how many could be decoded.

    Args:
        recording: the drive.
        memories: what is filled.
        start: first frame.
        stop: the frame after the last one; the end of the recording when None.
        poses: (N, 3) or (N, 4, 4) poses for all frames of the recording in place of its own, e.g. with drift.
        progress: called with 1 after each frame.

    Raises:
        DataError: for frames outside the recording, poses of another number, or when not one frame can be decoded.
    """
    count = len(recording)
    stop = count if stop is None else stop
    if not 0 <= start < stop <= count:
        raise DataError(f"{recording.name}: frames {start} to {stop} must lie within its {count} frames, start first")
    used = recording.T_odom_base if poses is None else np.asarray(poses, np.float64)
    if len(used) != count:
        raise DataError(f"{recording.name} has {count} frames, but there are {len(used)} poses")
    decoded, diagnosis = 0, ""
    for index in range(start, stop):
        try:
            frame = recording.frame(index)
        except DataError as error:  # one damaged image does not cost the whole memory
            diagnosis = str(error)
        else:
            decoded += 1
            for memory in memories:
                memory.observe(frame, used[index])
        if progress is not None:
            progress(1)
    if not decoded:
        raise DataError(f"{recording.name}: no frame from {start} to {stop} can be decoded; the last says: {diagnosis}")
    return decoded
