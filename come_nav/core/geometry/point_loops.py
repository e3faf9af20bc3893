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
    for view in range(batch):
        for row in range(rows):
            for column in range(columns):
                if visible[view, row, column]:
                    continue
                top, bottom = max(row - 1, 0), min(row + 2, rows)
                left, right = max(column - 1, 0), min(column + 2, columns)
                around = visible[view, top:bottom, left:right]
                neighbours = _F(around.sum())
                if neighbours >= least_neighbours:
                    known[view, row, column] = True
                    for channel in range(channels):
                        total = _sum_where(image[view, channel, top:bottom, left:right], around)
                        image[view, channel, row, column] = total / neighbours


@inlined
def _sum_where(values: Any, chosen: Any) -> Any:
    total = _ZERO
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            if chosen[row, column]:
                total += values[row, column]
    return total
