"""From a frame with depth to latents in space (Mirage, latent spatial memory, Eq. 4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.spatial.lifting import FeatureGrid, centred_window
from come_nav.memory.spatial.settings import DepthToGrid, LiftAt

FloatArray = NDArray[np.float32]


class LatentFeatures:
    """Remembers one latent vector for each latent cell, lifted with the depth of that cell."""

    def __init__(
        self,
        encode: Callable[[Frame], Any],
        channels: int,
        aspect: float = 1.0,
        depth: DepthToGrid = "bilinear",
        lift: LiftAt = "cells",
    ) -> None:
        """Take a function from a frame to latents (C, h, w) of its largest centred window of ``aspect``.

        ``depth`` is how a cell reads its depth, see :func:`depth_of_cells`; with ``lift`` "pixels" each pixel has its
        own, and the latents of the cells around it.
        """
        self._encode = encode
        self._aspect = aspect
        self._depth: DepthToGrid = depth
        self._lift: LiftAt = lift
        self.channels = channels

    def __call__(self, frame: Frame, depth_m: FloatArray, camera: CameraIntrinsics) -> FeatureGrid:
        """Return the latents and the depth of their cells."""
        latents = np.asarray(self._encode(frame), np.float32)
        rows, columns = (check_shape("latents", latents, f"{self.channels} h w")[letter] for letter in "hw")
        left, top, width, height = centred_window(camera.width, camera.height, self._aspect)
        window = depth_m[top : top + height, left : left + width]
        if self._lift == "pixels":
            spread = upsampled(latents, height, width).transpose(1, 2, 0)
            return FeatureGrid(spread, window, camera.cropped(left, top, width, height), surface=(depth_m, camera))
        grid = camera.cropped(left, top, width, height).scaled(columns, rows)
        cells_m = depth_of_cells(window, rows, columns, self._depth)
        return FeatureGrid(latents.transpose(1, 2, 0), cells_m, grid, coarse=True, surface=(depth_m, camera))


def depth_of_cells(depth_m: FloatArray, rows: int, columns: int, how: DepthToGrid = "bilinear") -> FloatArray:
    """Return the depth (rows, columns) of the cells of a coarser grid, NaN where it is unknown.

    Args:
        depth_m: (H, W), NaN or 0 = unknown.
        rows: of the grid.
        columns: of the grid.
        how: "bilinear" at the centre of a cell, unknown beside unknown pixels, and not averaged: a mean over an edge
            lies on neither surface; "nearest" the pixel at the centre; "median" and "area" (the mean) of all known
            pixels of a cell.
    """
    if how == "bilinear":
        return sample_depth(depth_m, rows, columns)
    height, width = depth_m.shape
    known = np.where(np.isfinite(depth_m) & (depth_m > 0.0), depth_m, np.nan)
    if how == "nearest":
        v = ((np.arange(rows) + 0.5) * height / rows).astype(int)
        u = ((np.arange(columns) + 0.5) * width / columns).astype(int)
        centres: FloatArray = known[v[:, None], u].astype(np.float32)
        return centres
    # Cells of whole pixels: those that a border cuts count in both cells.
    tops, bottoms = _borders(height, rows)
    lefts, rights = _borders(width, columns)
    of = np.nanmedian if how == "median" else np.nanmean
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a cell without known pixels
        cells = [
            [of(known[top:bottom, left:right]) for left, right in zip(lefts, rights, strict=True)]
            for top, bottom in zip(tops, bottoms, strict=True)
        ]
    return np.array(cells, np.float32)


def upsampled(latents: FloatArray, rows: int, columns: int) -> FloatArray:
    """Return latents (C, rows, columns) between those (C, h, w) of the middles of cells, bilinearly."""
    for axis, length in ((1, rows), (2, columns)):
        cells = latents.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0.0, cells - 1.0)
        before = np.floor(place).astype(int)
        share = (place - before).astype(np.float32).reshape(-1, 1) if axis == 1 else (place - before).astype(np.float32)
        after = np.minimum(before + 1, cells - 1)
        latents = np.take(latents, before, axis) * (1.0 - share) + np.take(latents, after, axis) * share
    return latents


def _borders(length: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    edges = np.arange(cells + 1) * length / cells
    return np.floor(edges[:-1]).astype(np.int64), np.ceil(edges[1:]).astype(np.int64)


def sample_depth(depth_m: FloatArray, rows: int, columns: int) -> FloatArray:
    """Return depth (rows, columns) read bilinearly at the centres of a coarser grid; unknown near unknown pixels."""
    height, width = depth_m.shape
    known = np.where(np.isfinite(depth_m) & (depth_m > 0.0), depth_m, np.nan)
    v = np.clip((np.arange(rows) + 0.5) * height / rows - 0.5, 0, height - 1)
    u = np.clip((np.arange(columns) + 0.5) * width / columns - 0.5, 0, width - 1)
    v0, u0 = np.floor(v).astype(int), np.floor(u).astype(int)
    v1, u1 = np.minimum(v0 + 1, height - 1), np.minimum(u0 + 1, width - 1)
    dv, du = (v - v0)[:, None], (u - u0)[None]
    top = known[v0[:, None], u0] * (1 - du) + known[v0[:, None], u1] * du
    bottom = known[v1[:, None], u0] * (1 - du) + known[v1[:, None], u1] * du
    sampled: FloatArray = (top * (1 - dv) + bottom * dv).astype(np.float32)
    return sampled
