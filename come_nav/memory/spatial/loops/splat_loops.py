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
DEPTH_STEPS, DEPTH_STEPS_PER_M = 128, 4.0  # in which blocks are sorted from front to back
TILE, TILES_KEPT = 8, 32  # pixels of a tile's edge; blocks that are drawn before tiles are looked at again
CELLS, LEAST_CELL_M = (64, 64, 16), 0.5  # points of one such cell of the cloud lie in a row: boxes of blocks are small
_F, _I, _U = np.float32, np.int32, np.uint32
_ZERO, _ONE, _TINY, _INFINITY = _F(0.0), _F(1.0), _F(1e-6), _F(math.inf)
_NAN = _F(math.nan)
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
        places: (M, 3, BLOCK) positions, block by block; NaN behind the last point.
        normals: (N, 3).
        values: (N, L) weight, weighted size, a place for depth, weighted features, zeros up to a multiple of lanes.
        boxes: (6, M) middle and half the edges of the box around each block.
    """

    places: Floats
    normals: Floats
    values: Floats
    boxes: Floats


class Cameras(NamedTuple):
    """Projections (B, 3, 4) and positions (B, 3) as of ``Viewpoint``, focal lengths (B,) along rows, px."""

    projections: Floats
    positions: Floats
    focal_px: Floats


class Layers(NamedTuple):
    """What is written: of each view features, size of points in pixels and inverse depth as sheets (B, C + 2, H, W).

    Where the front of something is seen (B, H, W), and the largest size (B,).
    """

    sheets: Floats
    front: NDArray[np.bool_]
    widest_px: Floats


class Hits(NamedTuple):
    """Pixel, index and depth (N,) of points in view; the nearest depth of each pixel, and what it hides (P + 1,)."""

    where: NDArray[np.uint32]
    which: NDArray[np.int32]
    far: Floats
    nearest: Floats
    hidden: Floats


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
    places, values, boxes = packed.places, packed.values, packed.boxes
    for place in range(len(order)):
        index = order[place]
        weight = cloud.weights[index]
        for axis in range(3):
            places[place // BLOCK, axis, place % BLOCK] = cloud.points[index, axis]
            packed.normals[place, axis] = cloud.normals[index, axis]
        values[place, 0], values[place, 1] = weight, cloud.sizes_m[index] * weight
        for channel in range(cloud.features.shape[1]):
            values[place, 3 + channel] = cloud.features[index, channel] * weight
    for block in range(len(places)):
        count = min(BLOCK, len(order) - block * BLOCK)
        for axis in range(3):
            low = high = places[block, axis, 0]
            for k in range(1, count):
                low, high = min(low, places[block, axis, k]), max(high, places[block, axis, k])
            boxes[axis, block] = _F(0.5) * (low + high)
            boxes[3 + axis, block] = _F(0.5) * (high - low) + _TINY
            for k in range(count, BLOCK):
                places[block, axis, k] = _NAN  # never in view


@Compiled
def render(packed: Any, cameras: Any, rules: Any, layers: Any) -> None:
    """Render :class:`Packed` points from :class:`Cameras` into :class:`Layers`."""
    batch, _, rows, columns = layers.sheets.shape
    pixels, count = rows * columns, len(packed.values)
    nearest, hidden = np.empty(pixels + 1, _F), np.empty(pixels + 1, _F)
    hits = Hits(np.empty(count, _U), np.empty(count, _I), np.empty(count, _F), nearest, hidden)
    sums = np.empty((pixels, packed.values.shape[1]), _F)
    for view in range(batch):
        found = _project(packed, cameras.projections[view], rules, (rows, columns), hits)
        _blend(packed, cameras.positions[view], rules, hits, found, sums)
        factor_px = cameras.focal_px[view] * rules.spread
        layers.widest_px[view] = _means(sums, nearest, factor_px, layers.sheets[view], layers.front[view])


@inlined
def _project(packed: Any, matrix: Any, rules: Any, size: Any, hits: Any) -> Any:
    """Write the points in view that no nearer surface hides, and the nearest depth of each pixel; return how many.

    Blocks come from front to back, so that most of what is hidden is told at once.
    """
    where, which, far, nearest, hidden = hits
    outside = size[0] * size[1]  # the pixel of what is not in view; nothing is seen there
    nearest[:], hidden[:] = _INFINITY, _INFINITY
    hidden[outside] = -_INFINITY
    pixels, ahead = np.empty(BLOCK, _U), np.empty(BLOCK, _F)
    found = 0
    tiles = np.full((-(-size[0] // TILE), -(-size[1] // TILE)), _INFINITY, _F)  # beyond which all of a tile is hidden
    order, extents = _front_to_back(packed.boxes, matrix, size, rules.nearest_m)
    fresh = 0
    for block in order:
        if fresh == TILES_KEPT:
            _look_behind(hidden, size, tiles)
            fresh = 0
        if _is_hidden(extents, block, tiles):
            continue
        _project_block(packed.places[block], matrix, rules, size, pixels, ahead)
        seen = _I(0)
        for k in range(BLOCK):  # 64 are compared at once
            seen += _I(1) if ahead[k] <= hidden[pixels[k]] else _I(0)
        if seen == 0:
            continue
        fresh += 1
        for k in range(BLOCK):
            pixel, depth = pixels[k], ahead[k]
            if not depth <= hidden[pixel]:
                continue
            where[found], which[found], far[found] = pixel, block * BLOCK + k, depth
            found += 1
            if depth < nearest[pixel]:
                nearest[pixel] = depth
                hidden[pixel] = depth * (_ONE + rules.slab_ratio) + rules.slab_m
    return found


@inlined
def _look_behind(hidden: Any, size: Any, tiles: Any) -> None:
    """Write the depth beyond which all pixels of each tile are hidden."""
    tiles[:] = -_INFINITY
    for row in range(size[0]):
        for tile in range(tiles.shape[1]):
            first = row * size[1] + tile * TILE
            farthest = tiles[row // TILE, tile]
            for pixel in range(first, first + min(TILE, size[1] - tile * TILE)):
                farthest = _larger(farthest, hidden[pixel])
            tiles[row // TILE, tile] = farthest


@inlined
def _is_hidden(extents: Any, block: Any, tiles: Any) -> Any:
    """Say that a block lies behind what was met before in all tiles that it may touch."""
    depth = extents[0, block]
    left, right = int(extents[1, block]) // TILE, int(extents[2, block]) // TILE
    for row in range(int(extents[3, block]) // TILE, int(extents[4, block]) // TILE + 1):
        for column in range(left, right + 1):
            if depth <= tiles[row, column]:
                return False
    return True


@inlined
def _project_block(points: Any, matrix: Any, rules: Any, size: Any, pixels: Any, ahead: Any) -> None:
    """Write pixel and depth of the points (3, BLOCK); no branches, so that many are projected at once."""
    m00, m01, m02, m03 = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    m10, m11, m12, m13 = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    m20, m21, m22, m23 = matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]
    height, width, stride, outside = _F(size[0]), _F(size[1]), _I(size[1]), _I(size[0] * size[1])
    nearest_m, farthest_m = rules.nearest_m, rules.farthest_m
    xs, ys, zs = points[0], points[1], points[2]
    for k in range(BLOCK):
        x, y, z = xs[k], ys[k], zs[k]
        depth = m20 * x + m21 * y + m22 * z + m23
        inverse = _ONE / depth
        u = (m00 * x + m01 * y + m02 * z + m03) * inverse * width
        v = (m10 * x + m11 * y + m12 * z + m13) * inverse * height
        inside = (u >= _ZERO) & (u < width) & (v >= _ZERO) & (v < height) & (depth > nearest_m) & (depth < farthest_m)
        column, row = _I(u if inside else _ZERO), _I(v if inside else _ZERO)
        pixels[k] = _U(row * stride + column if inside else outside)
        ahead[k] = depth


@inlined
def _front_to_back(boxes: Any, matrix: Any, size: Any, nearest_m: Any) -> Any:
    """Return the blocks that may be in view, the nearest first in steps of depth, and the extents (5, M) of all."""
    extents = np.empty((5, boxes.shape[1]), _F)
    _extents(boxes, matrix, _F(size[0]), _F(size[1]), nearest_m, extents)
    last = DEPTH_STEPS - 1
    steps, starts = np.empty(boxes.shape[1], np.int16), np.zeros(last + 2, _I)
    for block in range(boxes.shape[1]):
        depth = extents[0, block]
        steps[block] = -1 if depth < _ZERO else min(_I(depth * _F(DEPTH_STEPS_PER_M)), last)
        starts[steps[block] + 1] += 1
    starts[0] = 0
    for step in range(last + 1):
        starts[step + 1] += starts[step]
    order = np.empty(starts[last + 1], _I)
    for block in range(boxes.shape[1]):
        step = steps[block]
        if step >= 0:
            order[starts[step]] = block
            starts[step] += 1
    return order, extents


@inlined
def _extents(boxes: Any, matrix: Any, rows: Any, columns: Any, nearest_m: Any, extents: Any) -> None:
    """Write the nearest depth of each box, -1 out of view, and first and last column and row that it may touch, px."""
    cx, cy, cz, hx, hy, hz = boxes[0], boxes[1], boxes[2], boxes[3], boxes[4], boxes[5]
    nearest, left, right, top, bottom = extents[0], extents[1], extents[2], extents[3], extents[4]
    m00, m01, m02, m03 = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    m10, m11, m12, m13 = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    m20, m21, m22, m23 = matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]
    a00, a01, a02, a10, a11, a12 = abs(m00), abs(m01), abs(m02), abs(m10), abs(m11), abs(m12)
    a20, a21, a22 = abs(m20), abs(m21), abs(m22)
    for block in range(len(cx)):  # no branches
        x, y, z = cx[block], cy[block], cz[block]
        far = abs(x) + hx[block] + abs(y) + hy[block] + abs(z) + hz[block] + _ONE  # what rounding grows with
        off = _ROUNDING * far
        depth, half = m20 * x + m21 * y + m22 * z + m23, a20 * hx[block] + a21 * hy[block] + a22 * hz[block] + off
        low, high = depth - half, depth + half
        low = low if low > nearest_m else nearest_m
        across, wide = m00 * x + m01 * y + m02 * z + m03, a00 * hx[block] + a01 * hy[block] + a02 * hz[block] + off
        down, tall = m10 * x + m11 * y + m12 * z + m13, a10 * hx[block] + a11 * hy[block] + a12 * hz[block] + off
        near, distant = _ONE / low, _ONE / max(high, nearest_m)
        u0, u1, v0, v1 = across - wide, across + wide, down - tall, down + tall
        u0, v0 = u0 * (near if u0 < _ZERO else distant) * columns, v0 * (near if v0 < _ZERO else distant) * rows
        u1, v1 = u1 * (distant if u1 < _ZERO else near) * columns, v1 * (distant if v1 < _ZERO else near) * rows
        seen = (high > nearest_m) & (u1 >= _ZERO) & (u0 < columns) & (v1 >= _ZERO) & (v0 < rows)
        nearest[block] = low if seen else -_ONE
        left[block], right[block] = max(u0, _ZERO), min(u1, columns - _ONE)
        top[block], bottom[block] = max(v0, _ZERO), min(v1, rows - _ONE)


@inlined
def _blend(packed: Any, position: Any, rules: Any, hits: Any, found: Any, sums: Any) -> None:
    """Sum the values (P, L) of the nearest surface in each pixel where it is seen from the front."""
    where, which, far, _, hidden = hits
    normals, values = packed.normals, packed.values
    sums[:] = _ZERO
    x, y, z = position[0], position[1], position[2]
    for k in range(found):
        pixel, depth = where[k], far[k]
        if depth > hidden[pixel]:
            continue
        index = which[k]
        own = packed.places[index // BLOCK]
        tx, ty, tz = x - own[0, index % BLOCK], y - own[1, index % BLOCK], z - own[2, index % BLOCK]
        along = normals[index, 0] * tx + normals[index, 1] * ty + normals[index, 2] * tz
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
def _means(sums: Any, nearest: Any, factor_px: Any, sheets: Any, front: Any) -> Any:
    """Write means of features, size of points in pixels and inverse depth as layers (C + 2, H, W).

    Return the largest size.
    """
    count, rows, columns = sheets.shape
    widest = _ZERO
    for row in range(rows):
        for column in range(columns):
            pixel = row * columns + column
            total = sums[pixel, 0]
            seen = total > _ZERO
            divisor = total if seen else _ONE
            for channel in range(count - 2):
                sheets[channel, row, column] = sums[pixel, 3 + channel] / divisor
            inverse = _ONE / (sums[pixel, 2] / divisor if seen else nearest[pixel])
            size_px = sums[pixel, 1] / divisor * factor_px * inverse
            widest = _larger(widest, size_px)
            sheets[count - 2, row, column] = size_px
            sheets[count - 1, row, column] = inverse
            front[row, column] = seen
    return widest


@inlined
def _larger(one: Any, other: Any) -> Any:
    return other if other > one else one  # one instruction, as no NaN is to be kept
