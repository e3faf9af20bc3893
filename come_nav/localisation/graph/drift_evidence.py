"""Whether odometry drifts at all, as far as registrations can tell.

A pose graph fits the noise of its registrations: where odometry is better than they are, its solution is worse than
odometry. What tells the two apart are the registered edges themselves. Where they agree with odometry within their own
covariance there is nothing to correct, and odometry is kept as it is; drift makes closures disagree by far.

Measured on 50 m tours of two built-in worlds (``benchmarks/drift_correction.py --part trajectory`` writes it as
"misfit"): without drift the mean squared distance is 0.03 to 0.36 from the fifth key frame to the last, with 0.5 % it
passes 1 where odometry's error is 1 to 5 cm, a centimetre or more above that of the graph, with 1 % within ten key
frames.

Registrations may be worse than their covariances say: a camera's calibration or depth that is off by some per cent does
it. Over the way between two neighbours odometry hardly drifts: where their edges differ from it by more than any drift
would explain, that is the noise of registration, and all edges are held against it. On a real kitchen, whose poses do
not drift, the mean squared distance is 31 between neighbours and 72 over all; in a world with 2 % of drift it is 10 and
231. With plausible drift in the covariances neighbours have 6 to 11 in the kitchen and 2 to 3 in that world.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.localisation.graph.equations import Edges, edge_residuals

NEIGHBOURS = 0.2  # mean squared distance between neighbours where covariances are right; a world's without drift: 0.11
PLAUSIBLE = 0.03  # drift over the way from one key frame to the next: this share of metres and radians, and rad/m
FEWEST = 5  # edges between neighbours, before which nothing is said
UNEXPLAINED = 5.0  # mean squared distance between neighbours, with plausible drift in it, that is not drift


def odometry_misfit(
    edges: Edges, poses_odom_xyyaw: NDArray[np.float64], poses_xyyaw: NDArray[np.float64], inlier_distance: float
) -> float:
    """Return the mean squared Mahalanobis distance of odometry to the registered edges that the graph keeps.

    Args:
        edges: of the graph.
        poses_odom_xyyaw: (N, 3) of its nodes as odometry has them.
        poses_xyyaw: (N, 3) as they are solved.
        inlier_distance: squared Mahalanobis distance up to which the solution keeps an edge.

    Returns:
        3 where edges and odometry differ by what the edges' covariances say; 0 with too few edges. Where the
        edges between neighbours differ from odometry by more than they should, it is in units of that.
    """
    registered = edges[edges.robust]
    if not len(registered):
        return 0.0
    kept = registered[_distances(registered, poses_xyyaw) <= inlier_distance]
    if not len(kept):
        return 0.0
    neighbours = np.abs(kept.nodes[:, 1] - kept.nodes[:, 0]) == 1
    if neighbours.sum() < FEWEST:
        return 0.0
    away = _distances(kept, poses_odom_xyyaw)
    return float(away.mean()) / _noise(kept[neighbours], float(away[neighbours].mean()), poses_odom_xyyaw)


def _noise(near: Edges, away: float, poses_odom_xyyaw: NDArray[np.float64]) -> float:
    """Return how much larger squared distances are than covariances say, as edges between neighbours show; at least 1.

    ``away`` is the mean squared distance of these edges.
    """
    way_m, turn_rad = np.hypot(near.poses_xyyaw[:, 0], near.poses_xyyaw[:, 1]), np.abs(near.poses_xyyaw[:, 2])
    spread = PLAUSIBLE * np.stack([way_m, way_m, way_m + turn_rad], axis=1)
    covariances = np.linalg.inv(near.information) + spread[:, :, None] * spread[:, None, :] * np.eye(3)
    information = np.asarray(np.linalg.inv(covariances), np.float64)
    drifting = Edges(near.nodes, near.poses_xyyaw, information, near.robust)
    explained = float(_distances(drifting, poses_odom_xyyaw).mean()) <= UNEXPLAINED
    return 1.0 if explained else max(1.0, away / NEIGHBOURS)


def _distances(edges: Edges, poses_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
    residuals, _ = edge_residuals(poses_xyyaw, edges, jacobians=False)
    return np.asarray(np.einsum("ei,eij,ej->e", residuals, edges.information, residuals))
