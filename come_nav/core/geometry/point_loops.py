"""What :mod:`come_nav.core.geometry.point_rendering` does with tensors, in loops that are compiled: faster on CPUs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from come_nav.core.compiled import Compiled, inlined

_F = np.float32
_ZERO = _F(0.0)
_EMPTY = np.int32(2**31 - 1)


class Limits(NamedTuple):
    """Nearest and farthest depth in view, and in how fine steps depth counts."""

    nearest_m: np.float32
    farthest_m: np.float32
    steps_per_m: np.float32


class Images(NamedTuple):
    """What is written: image (B, C, H, W), depth (B, H, W; NaN = unknown), visible (B, H, W)."""

    image: NDArray[np.float32]
    depth_m: NDArray[np.float32]
    visible: NDArray[np.bool_]


@Compiled
def render(points: Any, colours: Any, poses: Any, camera: Any, extrinsics: Any, limits: Any, images: Any) -> None:
    """Write what points (B or 1, N, 3) with colours (B or 1, N, C) show from poses (B, 3).

    Cameras (B or 1, 4) and extrinsics (B or 1, 4, 4) are as
    :func:`come_nav.core.geometry.point_rendering.render_points` takes them; of the points that are nearest, in steps
    of depth, the first wins here, too.
    """
    batch, _, rows, columns = images.image.shape
    height, width = _F(rows), _F(columns)
    nearest, winner = np.empty((rows, columns), np.int32), np.empty((rows, columns), np.int32)
    for view in range(batch):
        cloud, lens = points[view if len(points) > 1 else 0], camera[view if len(camera) > 1 else 0]
        T = extrinsics[view if len(extrinsics) > 1 else 0]
        cosine, sine = np.cos(poses[view, 2]), np.sin(poses[view, 2])
        px, py = poses[view, 0], poses[view, 1]
        nearest[:] = _EMPTY
        for index in range(len(cloud)):
            x, y = cloud[index, 0] - px, cloud[index, 1] - py
            ahead, left, up = (
                cosine * x + sine * y - T[0, 3],
                cosine * y - sine * x - T[1, 3],
                cloud[index, 2] - T[2, 3],
            )
            depth = ahead * T[0, 2] + left * T[1, 2] + up * T[2, 2]
            if not (depth > limits.nearest_m and depth < limits.farthest_m):
                continue
            right = ahead * T[0, 0] + left * T[1, 0] + up * T[2, 0]
            down = ahead * T[0, 1] + left * T[1, 1] + up * T[2, 1]
            u, v = (lens[0] * right / depth + lens[2]) * width, (lens[1] * down / depth + lens[3]) * height
            if u >= _ZERO and u < width and v >= _ZERO and v < height:
                row, column, steps = np.int32(v), np.int32(u), np.int32(depth * limits.steps_per_m)
                if steps < nearest[row, column]:
                    nearest[row, column], winner[row, column] = steps, index
        _write(nearest, winner, colours[view if len(colours) > 1 else 0], limits.steps_per_m, images, view)


@inlined
def _write(nearest: Any, winner: Any, colours: Any, steps_per_m: Any, images: Any, view: Any) -> None:
    """Write the image of the points that won."""
    _, channels, rows, columns = images.image.shape
    for row in range(rows):
        for column in range(columns):
            seen = nearest[row, column] < _EMPTY
            images.visible[view, row, column] = seen
            images.depth_m[view, row, column] = _F(nearest[row, column]) / steps_per_m if seen else _F(np.nan)
            for channel in range(channels):
                colour = colours[winner[row, column], channel] if seen else _ZERO
                images.image[view, channel, row, column] = colour


@Compiled
def close_gaps(image: Any, visible: Any, least_neighbours: Any, known: Any) -> None:
    """Write the means of seen neighbours into the unseen pixels of image (B, C, H, W) that have so many.

    ``known`` (B, H, W), a copy of ``visible``, then knows them.
    """
    batch, channels, rows, columns = image.shape
    count = np.empty((rows, columns), np.int16)
    for view in range(batch):
        _seen_around(visible[view], count)
        for row in range(rows):
            top, bottom = max(row - 1, 0), min(row + 2, rows)
            for column in range(columns):
                neighbours = count[row, column]
                if visible[view, row, column] or neighbours < least_neighbours:
                    continue
                known[view, row, column] = True
                left, right = max(column - 1, 0), min(column + 2, columns)
                for channel in range(channels):
                    total = _ZERO
                    for other in range(top, bottom):
                        for beside in range(left, right):
                            total += image[view, channel, other, beside] if visible[view, other, beside] else _ZERO
                    image[view, channel, row, column] = total / _F(neighbours)


@inlined
def _seen_around(visible: Any, count: Any) -> None:
    """Write how many are seen of each pixel's window of 3 x 3."""
    rows, columns = visible.shape
    above = np.zeros(columns + 2, np.int16)  # of each column's three, and a column of none at both ends
    for row in range(rows):
        before, after = visible[max(row - 1, 0)], visible[min(row + 1, rows - 1)]
        own, first, last = visible[row], np.int16(row > 0), np.int16(row < rows - 1)
        for column in range(columns):
            above[column + 1] = (
                np.int16(own[column]) + first * np.int16(before[column]) + last * np.int16(after[column])
            )
        for column in range(columns):
            count[row, column] = above[column] + above[column + 1] + above[column + 2]
