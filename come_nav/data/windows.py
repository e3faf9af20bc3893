"""Training windows: which frames are context and which is the goal. Pure functions over indices and poses.

A window is a current frame t, the context t-3..t, and a goal t + offset, with offsets in [-64, 64] clipped to the
uninterrupted stretch of the recording that holds t (Navigation World Models, section 3: past goals and 0 included).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import DataError
from come_nav.core.geometry import se2

Indices = NDArray[np.int64]
Segments = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class WindowSettings:
    """Sizes in frames: how many context frames, how far goals may lie, how far apart windows start."""

    context_frames: int = 4
    max_goal_offset: int = 64
    stride: int = 1

    def __post_init__(self) -> None:
        check_range("context_frames", self.context_frames, 1)
        check_range("max_goal_offset", self.max_goal_offset, 1)
        check_range("stride", self.stride, 1)


def window_starts(segments: Segments, settings: WindowSettings, future_frames: int = 1) -> Indices:
    """Return the current frames t (N,) with a full context before and ``future_frames`` after, inside a segment."""
    starts = [
        np.arange(first + settings.context_frames - 1, last - future_frames, settings.stride)
        for first, last in segments
    ]
    return np.concatenate(starts).astype(np.int64) if starts else np.zeros(0, np.int64)


def require_windows(segments: Segments, settings: WindowSettings, future_frames: int, name: str) -> Indices:
    """Return :func:`window_starts`; raise DataError when the recording is too short for a single window."""
    starts = window_starts(segments, settings, future_frames)
    if not len(starts):
        needed = settings.context_frames + future_frames
        longest = max((last - first for first, last in segments), default=0)
        raise DataError(
            f"{name}: a window needs {needed} frames in a row ({settings.context_frames} context, {future_frames} "
            f"ahead) but the longest stretch has {longest}; record longer or lower the horizon"
        )
    return starts


def context_indices(current: Indices, context_frames: int) -> Indices:
    """Return frames (N, context_frames) that end at ``current`` (N,), oldest first."""
    return np.asarray(current)[:, None] + np.arange(1 - context_frames, 1)


def goal_offset_bounds(current: Indices, segments: Segments, max_goal_offset: int) -> tuple[Indices, Indices]:
    """Return the lowest and highest goal offset (N,), both included, that stay in the segment of ``current`` (N,).

    Raises:
        DataError: a frame lies in no segment.
    """
    current = np.asarray(current, np.int64)
    firsts, lasts = np.array(list(segments), np.int64).reshape(-1, 2).T
    row = np.searchsorted(firsts, current, side="right") - 1
    if (row < 0).any() or (current >= lasts[row]).any():
        raise DataError("a window's frame lies outside the recording's segments")
    low = np.maximum(-max_goal_offset, firsts[row] - current)
    high = np.minimum(max_goal_offset, lasts[row] - 1 - current)
    return low, high


def sample_goal_offsets(
    current: Indices, segments: Segments, max_goal_offset: int, count: int, generator: np.random.Generator
) -> Indices:
    """Return ``count`` goal offsets per window (N, count), uniform over the whole numbers within the bounds."""
    low, high = goal_offset_bounds(current, segments, max_goal_offset)
    return generator.integers(low[:, None], high[:, None] + 1, size=(len(low), count))


def goal_actions(poses_xyyaw: NDArray[np.float64], current: Indices, offsets: Indices) -> NDArray[np.float64]:
    """Return the goals' poses (N, G, 3), x m, y m, yaw rad, in the base frame of ``current`` (N,); offsets (N, G)."""
    current = np.asarray(current)
    return se2.relative(poses_xyyaw[current][:, None], poses_xyyaw[current[:, None] + offsets])
