"""Shortest ways through graphs, by SciPy's Dijkstra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def way_through(graph: csr_matrix, start: int, goal: int) -> list[int] | None:
    """Return the nodes from ``start`` to ``goal``, both included; None where nothing joins them.

    ``graph`` (N, N) holds lengths > 0 of joins, which lead both ways wherever they stand.
    """
    from scipy.sparse.csgraph import dijkstra

    distance, before = dijkstra(graph, directed=False, indices=[start], return_predecessors=True)
    if not np.isfinite(distance[0, goal]):
        return None
    way = [goal]
    while way[-1] != start:
        way.append(int(before[0, way[-1]]))
    return way[::-1]
