"""Candidates of a search as views show them: coloured by what they cost, and no more than an eye can follow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# viridis at 0, 1/4, 1/2, 3/4 and 1: cheap is bright yellow, expensive dark violet
STOPS = np.array(
    [[0.267, 0.005, 0.329], [0.229, 0.322, 0.546], [0.128, 0.567, 0.551], [0.369, 0.789, 0.383], [0.993, 0.906, 0.144]]
)
REJECTED = (0.8, 0.1, 0.1)


def cost_colours(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return RGB (N, 3) in [0, 1] by the rank of the cost: outliers do not wash out the rest; red = rejected."""
    finite = np.isfinite(costs)
    colours = np.tile(np.array(REJECTED), (len(costs), 1))
    rank = np.zeros(len(costs))
    order = np.argsort(costs[finite], kind="stable")
    places = np.empty(len(order))
    places[order] = np.arange(len(order))
    rank[finite] = 1.0 - places / max(1, len(order) - 1)
    for channel in range(3):
        colours[finite, channel] = np.interp(rank[finite], np.linspace(0, 1, len(STOPS)), STOPS[:, channel])
    return colours


def spread(costs: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return indices of at most ``most`` candidates, evenly spread over the order of cost, dearest first."""
    order = np.argsort(np.where(np.isfinite(costs), costs, np.inf), kind="stable")[::-1]
    if len(order) <= most:
        return order
    return order[np.unique(np.linspace(0, len(order) - 1, most).round().astype(np.int64))]
