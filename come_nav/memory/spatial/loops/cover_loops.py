"""Gaps of near surfaces closed, in layers of :mod:`.splat_loops`, by loops that are compiled.

What :mod:`come_nav.memory.spatial.splatting` says; machine code is kept for a source file, so that none of it comes
from another module.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from come_nav.core.compiled import Compiled, inlined

_F = np.float32
_ZERO, _ONE, _INFINITY = _F(0.0), _F(1.0), _F(math.inf)

Floats = NDArray[np.float32]


class Images(NamedTuple):
    """What is written: image (B, C, H, W) zero where unknown, depth (B, H, W; 0 = unknown), visible (B, H, W)."""

    image: Floats
    depth_m: Floats
    visible: NDArray[np.bool_]


@Compiled
def cover(layers: Any, rules: Any, windows_px: Any, images: Any) -> None:
    """Close gaps of :class:`.splat_loops.Layers` and write :class:`Images`.

    Gaps are covered in windows of (2^n + 1) px, the widest first: what shines through near surfaces is no surface.
    """
    for view in range(len(layers.sheets)):
        sheets, front, widest_px = layers.sheets[view], layers.front[view], layers.widest_px[view]
        for window in windows_px:
            _cover(sheets, front, rules, window, widest_px)
        _write(sheets, front, images.image[view], images.depth_m[view], images.visible[view])


@inlined
def _cover(sheets: Any, front: Any, rules: Any, window: Any, widest: Any) -> None:
    """Close gaps up to ``window`` px among the near points that are seen from the front; all up to ``widest`` px."""
    count, rows, columns = sheets.shape
    half = window // 2
    if widest <= _F(half):
        return
    near, surface = np.empty((rows, columns), np.bool_), np.empty((rows, columns), _F)
    for row in range(rows):
        for column in range(columns):
            own = (sheets[count - 2, row, column] > _F(half)) & front[row, column]
            near[row, column] = own
            surface[row, column] = sheets[count - 1, row, column] if own else _ZERO
    _dilate(surface, window)
    for row in range(rows):
        for column in range(columns):
            surface[row, column] = -surface[row, column]
    _dilate(surface, window)  # of the negative: erosion
    leaks = np.empty((rows, columns), np.bool_)
    any_leak = 0
    for row in range(rows):
        for column in range(columns):
            closed, inverse = -surface[row, column], sheets[count - 1, row, column]
            slack = max(_ONE - rules.leak_m * closed - rules.leak_ratio, _F(0.1))
            leak = (inverse < closed * slack) | (~front[row, column] & (inverse < closed))
            leaks[row, column] = leak
            near[row, column] = near[row, column] & ~leak
            any_leak += 1 if leak else 0
    if any_leak > 0:
        _replace(sheets, front, leaks, near, surface, half)


@inlined
def _replace(sheets: Any, front: Any, leaks: Any, near: Any, eroded: Any, half: Any) -> None:
    """Give leaks the mean features of the ``near`` surface (H, W) around them, and its inverse depth, -``eroded``."""
    count, rows, columns = sheets.shape
    above = np.empty((count - 1, rows + 1, columns), _F)  # sums of all above; how many come last
    above[:, 0] = _ZERO
    for channel in range(count - 1):
        for row in range(rows):
            for column in range(columns):
                value = sheets[channel, row, column] if channel < count - 2 else _ONE
                above[channel, row + 1, column] = above[channel, row, column] + (value if near[row, column] else _ZERO)
    for row in range(rows):
        top, bottom = max(row - half, 0), min(row + half + 1, rows)
        for column in range(columns):
            if not leaks[row, column]:
                continue
            left, right = max(column - half, 0), min(column + half + 1, columns)
            number = _sum_between(above[count - 2], top, bottom, left, right)
            if number > _F(0.5):
                for channel in range(count - 2):
                    sheets[channel, row, column] = _sum_between(above[channel], top, bottom, left, right) / number
                sheets[count - 1, row, column] = -eroded[row, column]
                front[row, column] = True


@inlined
def _sum_between(above: Any, top: Any, bottom: Any, left: Any, right: Any) -> Any:
    total = _ZERO
    for column in range(left, right):
        total += above[bottom, column] - above[top, column]
    return total


@inlined
def _dilate(image: Any, window: Any) -> None:
    """Write the largest value in a square window (2^n + 1) px into ``image``; what lies outside does not count."""
    rows, columns = image.shape
    half = window // 2
    high = np.full((rows + 2 * half, columns), -_INFINITY, _F)
    for row in range(rows):
        _copy(image[row], high[half + row], columns)
    step = 1
    while step < window:  # windows of 2, 4, ..., window - 1, then one more; each begins where its value stands
        shift = step if step < window - 1 else 1
        for row in range(rows + 2 * half - shift):
            _raise_to(high[row], high[row + shift], high[row], columns)
        step *= 2
    one, other = np.empty(columns + 2 * half, _F), np.empty(columns + 2 * half, _F)
    for row in range(rows):
        one[:], other[:] = -_INFINITY, -_INFINITY
        _copy(high[row], one[half:], columns)
        step = 1
        while step < window:
            shift = step if step < window - 1 else 1
            _raise_to(one, one[shift:], other, columns + 2 * half - shift)
            one, other = other, one
            step *= 2
        _copy(one, image[row], columns)


@inlined
def _copy(values: Any, copies: Any, count: Any) -> None:
    for index in range(count):  # as arrays, shapes would be compared, with a message for people when they differ
        copies[index] = values[index]


@inlined
def _raise_to(values: Any, others: Any, larger: Any, count: Any) -> None:
    """Write the larger of each two numbers."""
    for index in range(count):
        larger[index] = _larger(values[index], others[index])


@inlined
def _larger(one: Any, other: Any) -> Any:
    return other if other > one else one  # one instruction, as no NaN is to be kept


@inlined
def _write(sheets: Any, front: Any, image: Any, depth_m: Any, visible: Any) -> None:
    """Write image (C, H, W), depth (H, W) and visible (H, W)."""
    channels, rows, columns = image.shape
    for row in range(rows):
        inverse, seen = sheets[channels + 1, row], visible[row]
        for column in range(columns):
            seen[column] = front[row, column] & (inverse[column] > _ZERO)
            depth_m[row, column] = _ONE / inverse[column] if seen[column] else _ZERO
        for channel in range(channels):
            for column in range(columns):
                image[channel, row, column] = sheets[channel, row, column] if seen[column] else _ZERO
