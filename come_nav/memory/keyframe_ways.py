"""The ways between key frames: where the robot drove, and where it came close to a place again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.core.ways import way_through


def shortest_way(
    poses_xyyaw: NDArray[np.float64],
    legs: NDArray[np.int64],
    join: tuple[float, float],
    start: int,
    goal: int,
    metres_per_rad: float,
) -> list[int] | None:
    """Return frames from ``start`` to ``goal``, both included, along the shortest known way; None if there is none.

    Frames are joined where the robot drove from one to the next, and where it came close to a place again. The length
    of a join is its distance, turns counted with ``metres_per_rad`` (Dijkstra's algorithm).

    Args:
        poses_xyyaw: (N, 3) of the frames in odom.
        legs: (N,) which frames belong to one uninterrupted drive.
        join: distance (m) and turn (rad) within which two frames show one place.
        start: first frame.
        goal: last frame.
        metres_per_rad: what a turn counts.
    """
    from scipy.sparse import csr_matrix

    first, second, length = joins(poses_xyyaw, legs, join, metres_per_rad)
    graph = csr_matrix((length, (first, second)), shape=(len(legs), len(legs)))
    return way_through(graph, start, goal)


def joins(
    poses_xyyaw: NDArray[np.float64], legs: NDArray[np.int64], join: tuple[float, float], metres_per_rad: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Return which frames (J,), (J,) are joined, and how long each join (J,) is."""
    from scipy.spatial import cKDTree

    poses, (join_m, join_rad) = poses_xyyaw, join
    driven = np.flatnonzero(legs[1:] == legs[:-1])
    close = cKDTree(poses[:, :2]).query_pairs(join_m, output_type="ndarray")
    turn = np.abs(se2.wrap_angle(poses[close[:, 0], 2] - poses[close[:, 1], 2]))
    close = close[turn <= join_rad]
    pairs = np.unique(np.concatenate([np.stack([driven, driven + 1], axis=1), np.sort(close, axis=1)]), axis=0)
    delta = se2.relative(poses[pairs[:, 0]], poses[pairs[:, 1]])
    length = np.hypot(delta[:, 0], delta[:, 1]) + metres_per_rad * np.abs(delta[:, 2])
    return pairs[:, 0], pairs[:, 1], np.maximum(length, 1e-6)  # a zero would be no join in a sparse matrix


def least_missed(poses_xyyaw: NDArray[np.float64], legs: NDArray[np.int64], spacing: tuple[float, float]) -> int:
    """Return the frame between whose neighbours the robot moved least; the first and the last of a leg stay.

    ``spacing`` is the distance (m) and the turn (rad) that count alike.
    """
    across = se2.relative(poses_xyyaw[:-2], poses_xyyaw[2:])
    gap = np.hypot(across[:, 0], across[:, 1]) / spacing[0] + np.abs(across[:, 2]) / spacing[1]
    gap = np.where(legs[:-2] == legs[2:], gap, np.inf)
    return int(np.argmin(gap)) + 1 if np.isfinite(gap).any() else 0
