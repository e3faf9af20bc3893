"""Moves the cells of corrected key frames, and merges those that come to lie in one cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.memory.spatial.voxels import VoxelMap, cell_keys

Rows = dict[str, NDArray[Any]]


def move_voxels(
    voxels: VoxelMap, motions_xyyaw: NDArray[np.float64], origin_xy: NDArray[np.float64], normals: slice
) -> int:
    """Move cells by the motion of the key frame that they are anchored to; return how many moved.

    Cells that come to lie in one are merged by their weights: the newest look and its anchor stay, looks are those of
    the one seen most often. What would leave the reach of the cells is forgotten.

    Args:
        voxels: changed in place.
        motions_xyyaw: (K, 3) in map by anchor; anchors from K on, and below 0, stay.
        origin_xy: (2,) where the voxels count from.
        normals: which of the features are the normal of the surface.
    """
    turns = np.flatnonzero(motions_xyyaw.any(axis=1))
    anchor = voxels.anchor
    inside = (anchor >= 0) & (anchor < len(motions_xyyaw))
    moving = np.zeros(len(voxels), bool)
    moving[inside] = np.isin(anchor[inside], turns)
    rows = np.flatnonzero(moving)
    if not len(rows):
        return 0
    state = voxels.state()
    motion = motions_xyyaw[anchor[rows]]
    cosine, sine = np.cos(motion[:, 2]), np.sin(motion[:, 2])
    xyz = state["xyz"][rows].astype(np.float64)
    xy = _turned(xyz[:, :2] + origin_xy, cosine, sine) + motion[:, :2] - origin_xy
    state["xyz"][rows, :2] = xy
    own = state["features"][:, normals]
    own[rows, :2] = _turned(own[rows, :2].astype(np.float64), cosine, sine)
    state["key"][rows] = cell_keys(state["xyz"][rows], voxels.voxel_m)
    voxels.load_state(_merged(state, voxels.max_weight))
    return len(rows)


def _turned(xy: NDArray[np.float64], cosine: NDArray[np.float64], sine: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([cosine * xy[:, 0] - sine * xy[:, 1], sine * xy[:, 0] + cosine * xy[:, 1]], axis=1)


def _merged(state: Rows, max_weight: float) -> Rows:
    """Return rows with one for each key, without those at key -1."""
    order = np.argsort(state["key"], kind="stable")
    order = order[np.searchsorted(state["key"][order], 0) :]
    keys = state["key"][order]
    if not len(keys):
        return {name: column[:0] for name, column in state.items()}
    begins = np.concatenate([[True], keys[1:] != keys[:-1]])
    first = np.flatnonzero(begins)
    result = {name: column[order[first]] for name, column in state.items()}
    crowded = np.flatnonzero(np.diff(np.append(first, len(keys))) > 1)  # few: all else is copied as it is
    if not len(crowded):
        return result
    cell = np.cumsum(begins) - 1
    shared = np.isin(cell, crowded)
    rows, starts = order[shared], np.searchsorted(cell[shared], crowded)
    weight = state["weight"][rows].astype(np.float64)
    total = np.add.reduceat(weight, starts)
    for name in ("xyz", "features"):
        sums = np.add.reduceat(weight[:, None] * state[name][rows], starts, axis=0)
        result[name][crowded] = sums / total[:, None]
    result["weight"][crowded] = np.minimum(total, max_weight)
    for name in ("hits", "stamp_s", "anchor"):  # anchors count up with time
        result[name][crowded] = np.maximum.reduceat(state[name][rows], starts)
    return result
