"""Which registered edges odometry can be made to agree with at all.

Two rooms that look alike give many closures that agree with each other; their number says nothing. What tells them
from true ones is the way between: odometry's error over it is bounded by its covariance, which grows with the way. An
edge that odometry contradicts by more than that starts without a vote in the pose graph, and gets one only if the
graph, solved without it, comes to where the edge says (switchable constraints, Suenderhauf and Protzel 2012, with the
switches set by odometry).

Covariances are added up along the chain as motions seen from the origin (Barfoot and Furgale 2014), so that the one
between any two nodes is a difference of two sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2

UNCONNECTED = 1e9  # variance of a step that no odometry edge measures, m^2 and rad^2


def odometry_distances(
    count: int,
    nodes: NDArray[np.int64],
    poses_xyyaw: NDArray[np.float64],
    information: NDArray[np.float64],
    robust: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Return squared Mahalanobis distances (E,) of all edges to what the odometry edges say of the same two nodes.

    Args:
        count: N nodes.
        nodes: (E, 2) from and to.
        poses_xyyaw: (E, 3) of the second in the first one's base.
        information: (E, 3, 3) inverse covariances, in the first one's base.
        robust: (E,) False for odometry; its edges between successive nodes make the chain and have distance 0.
    """
    chain = ~robust & (nodes[:, 1] - nodes[:, 0] == 1)
    steps, noise = np.zeros((count, 3)), np.tile(np.eye(3) * UNCONNECTED, (count, 1, 1))
    noise[0] = 0.0
    ends = nodes[chain, 1]
    steps[ends], noise[ends] = poses_xyyaw[chain], np.linalg.inv(information[chain])
    odometry = _integrated(steps)
    # a step's noise is stated in its first node's axes at the position of its second one
    at_end = odometry.copy()
    at_end[1:, 2] = odometry[:-1, 2]
    by_noise = _adjoint(at_end)
    sums = np.cumsum(by_noise @ noise @ np.swapaxes(by_noise, 1, 2), axis=0)
    first, second = nodes[:, 0], nodes[:, 1]
    said = se2.relative(odometry[first], odometry[second])
    away = poses_xyyaw - said
    away[:, 2] = se2.wrap_angle(away[:, 2])
    # seen from the second node's position in the first one's axes, as the edge is
    at_second = odometry[second].copy()
    at_second[:, 2] = odometry[first, 2]
    back = _adjoint(se2.inverse(at_second))
    between = np.abs(second - first)[:, None, None] > 0
    spread = np.where(between, sums[np.maximum(first, second)] - sums[np.minimum(first, second)], 0.0)
    covariance = back @ spread @ np.swapaxes(back, 1, 2) + np.linalg.inv(information)
    distances = np.einsum("ei,ei->e", away, np.linalg.solve(covariance, away[..., None])[..., 0])
    return np.where(chain, 0.0, distances)


def _integrated(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the poses (N, 3) of a chain of steps (N, 3), each in the base of the one before it."""
    yaw = np.cumsum(steps[:, 2])
    before = np.concatenate([[0.0], yaw[:-1]])
    x = np.cumsum(np.cos(before) * steps[:, 0] - np.sin(before) * steps[:, 1])
    y = np.cumsum(np.sin(before) * steps[:, 0] + np.cos(before) * steps[:, 1])
    return np.stack([x, y, se2.wrap_angle(yaw)], axis=1)


def _adjoint(poses_xyyaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices (N, 3, 3) that take small motions (x, y, yaw) in a pose's frame to the outer one."""
    cosine, sine = np.cos(poses_xyyaw[:, 2]), np.sin(poses_xyyaw[:, 2])
    result = np.zeros((len(poses_xyyaw), 3, 3))
    result[:, 0, 0], result[:, 0, 1], result[:, 0, 2] = cosine, -sine, poses_xyyaw[:, 1]
    result[:, 1, 0], result[:, 1, 1], result[:, 1, 2] = sine, cosine, -poses_xyyaw[:, 0]
    result[:, 2, 2] = 1.0
    return result
