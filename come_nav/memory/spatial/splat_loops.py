"""What :mod:`come_nav.memory.spatial.splatting` does, view by view in loops that are compiled: much faster on CPUs.

Machine code is kept for a source file: what these loops are told comes as arguments, none of it from other modules.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from come_nav.core.compiled import Compiled, inlined

BLOCK = 64  # points that are culled together
LANES = 8  # numbers that are added at once
CELLS, LEAST_CELL_M = (64, 64, 16), 0.5  # points of one such cell of the cloud lie in a row: boxes of blocks are small
_F, _I = np.float32, np.int32
_ZERO, _ONE, _TINY, _INFINITY = _F(0.0), _F(1.0), _F(1e-6), _F(math.inf)
_ROUNDING = _F(1e-5)  # of the terms of a plane's equation

Floats = NDArray[np.float32]


class Rules(NamedTuple):
    """Which points are in view and of one surface, and what shines through it, see ``splatting``."""

    nearest_m: np.float32
    farthest_m: np.float32
    slab_m: np.float32
    slab_ratio: np.float32
    behind: np.float32
    spread: np.float32
    leak_m: np.float32
    leak_ratio: np.float32


class Cloud(NamedTuple):
    """Points as tensors have them: positions and normals (N, 3), features (N, C), sizes in m and weights (N,)."""

    points: Floats
    features: Floats
    normals: Floats
    sizes_m: Floats
    weights: Floats


class Packed(NamedTuple):
    """Points as loops take them, blocks of them near each other.

    Attributes:
        surfaces: (6, N) positions and normals.
        values: (N, L) weight, weighted size, a place for depth, weighted features, zeros up to a multiple of lanes.
        boxes: (M, 6) middle and half the edges of the box around each block.
    """

    surfaces: Floats
    values: Floats
    boxes: Floats


class Cameras(NamedTuple):
    """Projections (B, 3, 4) and positions (B, 3) as of ``Viewpoint``, focal lengths (B,) along rows, px."""

    projections: Floats
    positions: Floats
    focal_px: Floats


class Images(NamedTuple):
    """What is written: image (B, C, H, W) zero where unknown, depth (B, H, W; 0 = unknown), visible (B, H, W)."""

    image: Floats
    depth_m: Floats
    visible: NDArray[np.bool_]


class Hits(NamedTuple):
    """Pixel, index and depth (N,) of the points in view, the nearest depth (P,) of each pixel."""

    where: NDArray[np.int32]
    which: NDArray[np.int32]
    far: Floats
    nearest: Floats


@Compiled
def find_cells(points: Any, keys: Any) -> None:
    """Write which cell of a coarse grid over the cloud each point (N, 3) lies in, as numbers (N,) of 16 bits."""
    low, edge = np.full(3, _INFINITY, _F), np.full(3, -_INFINITY, _F)
    for index in range(len(points)):
        for axis in range(3):
            low[axis], edge[axis] = min(low[axis], points[index, axis]), max(edge[axis], points[index, axis])
    for axis in range(3):
        edge[axis] = max((edge[axis] - low[axis]) / _F(CELLS[axis] - 1), _F(LEAST_CELL_M))
    for index in range(len(points)):
        key = 0
        for axis in range(3):
            key = key * CELLS[axis] + int((points[index, axis] - low[axis]) / edge[axis])
        keys[index] = key


@Compiled
def pack(order: Any, cloud: Any, packed: Any) -> None:
    """Write the points of a :class:`Cloud` in an ``order`` (N,) into :class:`Packed`, whose values are zero."""
    surfaces, values, boxes = packed.surfaces, packed.values, packed.boxes
    for place in range(len(order)):
        index = order[place]
        weight = cloud.weights[index]
        for axis in range(3):
            surfaces[axis, place] = cloud.points[index, axis]
            surfaces[3 + axis, place] = cloud.normals[index, axis]
        values[place, 0], values[place, 1] = weight, cloud.sizes_m[index] * weight
        for channel in range(cloud.features.shape[1]):
            values[place, 3 + channel] = cloud.features[index, channel] * weight
    for block in range(len(boxes)):
        start, stop = block * BLOCK, min(block * BLOCK + BLOCK, len(order))
        for axis in range(3):
            low = high = surfaces[axis, start]
            for place in range(start + 1, stop):
                low, high = min(low, surfaces[axis, place]), max(high, surfaces[axis, place])
            boxes[block, axis] = _F(0.5) * (low + high)
            boxes[block, 3 + axis] = _F(0.5) * (high - low) + _TINY


@Compiled
def render(packed: Any, cameras: Any, rules: Any, windows_px: Any, images: Any) -> None:
    """Render :class:`Packed` points from :class:`Cameras` into :class:`Images`.

    Gaps are covered in windows of (2^n + 1) px, the widest first.
    """
    batch, channels, rows, columns = images.image.shape
    pixels, count = rows * columns, len(packed.values)
    hits = Hits(np.empty(count, _I), np.empty(count, _I), np.empty(count, _F), np.empty(pixels, _F))
    sums = np.empty((pixels, packed.values.shape[1]), _F)
    sheets = np.empty((channels + 2, rows, columns), _F)  # features, size of points in pixels, inverse depth
    front = np.empty((rows, columns), np.bool_)
    for view in range(batch):
        found = _project(packed, cameras.projections[view], rules, (rows, columns), hits)
        _blend(packed, cameras.positions[view], rules, hits, found, sums)
        _means(sums, hits.nearest, cameras.focal_px[view] * rules.spread, sheets, front)
        for window in windows_px:  # the nearest surfaces first: what shines through them is no surface
            _cover(sheets, front, rules, window)
        _write(sheets, front, images.image[view], images.depth_m[view], images.visible[view])


@inlined
def _culled(box: Any, matrix: Any, nearest_m: Any) -> Any:
    """Say that no point of a box lies in the view."""
    for plane in range(5):
        most = size = _ZERO
        for axis in range(4):
            ahead = matrix[2, axis]
            side = matrix[plane // 2, axis] if plane < 4 else _ZERO
            factor = ahead if plane == 4 else (side if plane % 2 == 0 else ahead - side)
            middle = box[axis] if axis < 3 else _ONE
            half = box[3 + axis] if axis < 3 else _ZERO
            most += factor * middle + abs(factor) * half
            size += abs(factor) * (abs(middle) + half)
        if most < (nearest_m if plane == 4 else _ZERO) - _ROUNDING * size:
            return True
    return False


@inlined
def _project(packed: Any, matrix: Any, rules: Any, size: Any, hits: Any) -> Any:
    """Write the points in view and the nearest depth of each pixel; return how many there are."""
    where, which, far, nearest = hits
    points, nearest_m, farthest_m = packed.surfaces, rules.nearest_m, rules.farthest_m
    m00, m01, m02, m03 = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    m10, m11, m12, m13 = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    m20, m21, m22, m23 = matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]
    height, width = _F(size[0]), _F(size[1])
    last_row, last_column, stride = _I(size[0] - 1), _I(size[1] - 1), _I(size[1])
    nearest[:] = _INFINITY
    pixels, ahead = np.empty(BLOCK, _I), np.empty(BLOCK, _F)
    found = 0
    for block in range(len(packed.boxes)):
        if _culled(packed.boxes[block], matrix, nearest_m):
            continue
        start = block * BLOCK
        count = min(BLOCK, points.shape[1] - start)
        for k in range(count):  # no branches, so that many points are projected at once
            x, y, z = points[0, start + k], points[1, start + k], points[2, start + k]
            depth = m20 * x + m21 * y + m22 * z + m23
            safe = depth if depth > nearest_m else nearest_m
            u = (m00 * x + m01 * y + m02 * z + m03) / safe
            v = (m10 * x + m11 * y + m12 * z + m13) / safe
            inside = (u >= _ZERO) & (u < _ONE) & (v >= _ZERO) & (v < _ONE) & (depth > nearest_m) & (depth < farthest_m)
            row = _I(v * height) if inside else _I(0)
            column = _I(u * width) if inside else _I(0)
            row = row if row < last_row else last_row
            column = column if column < last_column else last_column
            pixels[k] = row * stride + column if inside else _I(-1)
            ahead[k] = depth
        for k in range(count):
            pixel = pixels[k]
            if pixel >= 0:
                where[found], which[found], far[found] = pixel, start + k, ahead[k]
                if ahead[k] < nearest[pixel]:  # noqa: PLR1730  min() would write each time
                    nearest[pixel] = ahead[k]
                found += 1
    return found


@inlined
def _blend(packed: Any, position: Any, rules: Any, hits: Any, found: Any, sums: Any) -> None:
    """Sum the values (P, L) of the nearest surface in each pixel where it is seen from the front."""
    where, which, far, nearest = hits
    surfaces, values = packed.surfaces, packed.values
    sums[:] = _ZERO
    x, y, z = position[0], position[1], position[2]
    for k in range(found):
        pixel, depth = where[k], far[k]
        if depth > nearest[pixel] * (_ONE + rules.slab_ratio) + rules.slab_m:
            continue
        index = which[k]
        tx, ty, tz = x - surfaces[0, index], y - surfaces[1, index], z - surfaces[2, index]
        along = surfaces[3, index] * tx + surfaces[4, index] * ty + surfaces[5, index] * tz
        if along <= _ZERO and along <= rules.behind * max(np.sqrt(tx * tx + ty * ty + tz * tz), _TINY):
            continue
        for first in range(0, values.shape[1], LANES):
            _add_lanes(sums[pixel, first : first + LANES], values[index, first : first + LANES])
        sums[pixel, 2] += depth * values[index, 0]


@inlined
def _add_lanes(total: Any, own: Any) -> None:
    """Add eight numbers at once: all are read before any is written."""
    v0, v1, v2, v3 = total[0] + own[0], total[1] + own[1], total[2] + own[2], total[3] + own[3]
    v4, v5, v6, v7 = total[4] + own[4], total[5] + own[5], total[6] + own[6], total[7] + own[7]
    total[0], total[1], total[2], total[3] = v0, v1, v2, v3
    total[4], total[5], total[6], total[7] = v4, v5, v6, v7


@inlined
def _means(sums: Any, nearest: Any, factor_px: Any, sheets: Any, front: Any) -> None:
    """Write means of features, size of points in pixels and inverse depth as layers (C + 2, H, W)."""
    count, rows, columns = sheets.shape
    for row in range(rows):
        for column in range(columns):
            pixel = row * columns + column
            total = sums[pixel, 0]
            seen = total > _ZERO
            divisor = total if seen else _ONE
            for channel in range(count - 2):
                sheets[channel, row, column] = sums[pixel, 3 + channel] / divisor
            inverse = _ONE / (sums[pixel, 2] / divisor if seen else nearest[pixel])
            sheets[count - 2, row, column] = sums[pixel, 1] / divisor * factor_px * inverse
            sheets[count - 1, row, column] = inverse
            front[row, column] = seen


@inlined
def _cover(sheets: Any, front: Any, rules: Any, window: Any) -> None:
    """Close gaps up to ``window`` px among the near points that are seen from the front."""
    count, rows, columns = sheets.shape
    half = window // 2
    if sheets[count - 2].max() <= _F(half):
        return
    near = (sheets[count - 2] > _F(half)) & front
    closed = np.full((rows + 2 * half, columns + 2 * half), -_INFINITY, _F)
    inner = closed[half : half + rows, half : half + columns]
    for row in range(rows):
        for column in range(columns):
            inner[row, column] = sheets[count - 1, row, column] if near[row, column] else _ZERO
    _dilate(closed, window)
    _negate(closed, half)
    _dilate(closed, window)
    leaks = np.zeros((rows, columns), np.bool_)
    any_leak = False
    for row in range(rows):
        for column in range(columns):
            surface, inverse = -inner[row, column], sheets[count - 1, row, column]
            slack = max(_ONE - rules.leak_m * surface - rules.leak_ratio, _F(0.1))
            leak = inverse < surface * slack or (not front[row, column] and inverse < surface)
            leaks[row, column] = leak
            near[row, column] = near[row, column] and not leak
            any_leak |= leak
    if any_leak:
        _replace(sheets, front, leaks, near, inner, half)


@inlined
def _negate(padded: Any, half: Any) -> None:
    """Turn dilation into erosion: the middle of ``padded`` changes sign, -inf lies around it."""
    rows, columns = padded.shape
    for row in range(rows):
        for column in range(columns):
            inside = half <= row < rows - half and half <= column < columns - half
            padded[row, column] = -padded[row, column] if inside else -_INFINITY


@inlined
def _replace(sheets: Any, front: Any, leaks: Any, surface: Any, eroded: Any, half: Any) -> None:
    """Give leaks the mean features of the ``surface`` (H, W) around them, and its inverse depth, minus ``eroded``."""
    count, rows, columns = sheets.shape
    table = np.zeros((rows + 1, columns + 1, count - 1), np.float64)  # sums of all above and left
    for row in range(rows):
        for channel in range(count - 1):
            total = 0.0
            for column in range(columns):
                if surface[row, column]:
                    total += np.float64(sheets[channel, row, column]) if channel < count - 2 else 1.0
                table[row + 1, column + 1, channel] = table[row, column + 1, channel] + total
    for row in range(rows):
        top, bottom = max(row - half, 0), min(row + half + 1, rows)
        for column in range(columns):
            if not leaks[row, column]:
                continue
            left, right = max(column - half, 0), min(column + half + 1, columns)
            corners = table[bottom, right] - table[bottom, left] - table[top, right] + table[top, left]
            if corners[count - 2] > 0.5:
                for channel in range(count - 2):
                    sheets[channel, row, column] = _F(corners[channel] / corners[count - 2])
                sheets[count - 1, row, column] = -eroded[row, column]
                front[row, column] = True


@inlined
def _dilate(padded: Any, window: Any) -> None:
    """Write the largest value in a square window (2^n + 1) px into the middle of ``padded``, -inf around it."""
    rows, columns = padded.shape
    half = window // 2
    step = 1
    while step <= window - 1:  # windows of 2, 4, ..., window - 1, then one more
        shift = step if step < window - 1 else 1
        for row in range(rows - shift):
            for column in range(columns):
                padded[row, column] = _larger(padded[row, column], padded[row + shift, column])
        for row in range(rows):
            for column in range(columns - shift):
                padded[row, column] = _larger(padded[row, column], padded[row, column + shift])
        step *= 2
    for row in range(rows - half - 1, half - 1, -1):  # a window begins where its value stands; move it to the middle
        for column in range(columns - half - 1, half - 1, -1):
            padded[row, column] = padded[row - half, column - half]


@inlined
def _larger(one: Any, other: Any) -> Any:
    return other if other > one else one  # one instruction, as no NaN is to be kept


@inlined
def _write(sheets: Any, front: Any, image: Any, depth_m: Any, visible: Any) -> None:
    """Write image (C, H, W), depth (H, W) and visible (H, W)."""
    channels, rows, columns = image.shape
    for row in range(rows):
        for column in range(columns):
            inverse = sheets[channels + 1, row, column]
            seen = front[row, column] and inverse > _ZERO
            visible[row, column] = seen
            depth_m[row, column] = _ONE / inverse if seen else _ZERO
            for channel in range(channels):
                image[channel, row, column] = sheets[channel, row, column] if seen else _ZERO
