"""The weighted normal equations of a planar pose graph and their solution.

Jacobians are analytic (Grisetti et al. 2010). Where each block of the sparse matrix goes is worked out once for a set
of edges; nodes are eliminated in an order that keeps the factors sparse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2

DIRECT_SIZE = 3000  # unknowns below which factors are made in every step
CG_ITERATIONS, CG_PRECISION = 12, 1e-3


@dataclass(frozen=True)
class Edges:
    """Relative poses.

    Attributes:
        nodes: (E, 2) from and to.
        poses_xyyaw: (E, 3) of the second in the first one's base.
        information: (E, 3, 3) inverse covariances.
        robust: (E,) whether the edge may be wrong.
    """

    nodes: NDArray[np.int64]
    poses_xyyaw: NDArray[np.float64]
    information: NDArray[np.float64]
    robust: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Edges:
        return Edges(self.nodes[chosen], self.poses_xyyaw[chosen], self.information[chosen], self.robust[chosen])


def edge_residuals(
    poses: NDArray[np.float64], edges: Edges, jacobians: bool
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """Return residuals (E, 3), relative pose minus the edge's, and their Jacobians (E, 3, 3) over both poses."""
    a, b = poses[edges.nodes[:, 0]], poses[edges.nodes[:, 1]]
    cosine, sine = np.cos(a[:, 2]), np.sin(a[:, 2])
    dx, dy = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
    x, y = cosine * dx + sine * dy, cosine * dy - sine * dx
    residuals = np.stack([x, y, b[:, 2] - a[:, 2]], axis=1) - edges.poses_xyyaw
    residuals[:, 2] = se2.wrap_angle(residuals[:, 2])
    if not jacobians:
        return residuals, None
    to_second = np.zeros((len(edges), 3, 3))
    to_second[:, 0, 0], to_second[:, 0, 1] = cosine, sine
    to_second[:, 1, 0], to_second[:, 1, 1] = -sine, cosine
    to_second[:, 2, 2] = 1.0
    to_first = -to_second
    to_first[:, 0, 2], to_first[:, 1, 2] = y, -x
    return residuals, (to_first, to_second)


class System:
    """The sparse normal equations of one set of edges; where their entries go is worked out once."""

    def __init__(self, edges: Edges, count: int, first_free: int) -> None:
        self._edges, self._count, self._first_free = edges, count, first_free
        self.votes: NDArray[np.bool_] = np.ones(len(edges), np.bool_)
        self._factors: Any = None
        self._size = 3 * (count - first_free)
        blocks = [(0, 0), (0, 1), (1, 0), (1, 1)]
        self._free = [(edges.nodes >= first_free)[:, list(pair)].all(axis=1) for pair in blocks]
        both_free = edges.nodes[self._free[1]] - first_free
        self._order = _elimination_order(both_free, count - first_free)
        places = np.empty(count, np.int64)
        places[first_free:][self._order] = np.arange(count - first_free)
        pairs = [places[edges.nodes[free][:, list(pair)]] for pair, free in zip(blocks, self._free, strict=True)]
        own = np.repeat(np.arange(count - first_free), 2).reshape(-1, 2)
        self._entry, self._rows, self._starts = _places_in_columns(np.concatenate([*pairs, own]), count - first_free)
        self._diagonal_entry = self._entry[len(self._entry) - len(own) :][:, [0, 1, 2], [0, 1, 2]]

    def cost(self, poses: NDArray[np.float64], kernel: float) -> tuple[float, NDArray[np.float64]]:
        """Return the robust cost and every edge's weight (E,) with Geman and McClure's kernel."""
        residuals, _ = edge_residuals(poses, self._edges, jacobians=False)
        distances = np.einsum("ei,eij,ej->e", residuals, self._edges.information, residuals)
        bent = 1.0 + distances / kernel
        robust = self._edges.robust
        costs, weights = np.where(robust, distances / bent, distances), np.where(robust, bent**-2, 1.0)
        return float(costs[self.votes].sum()), np.where(self.votes, weights, 0.0)

    def step(self, poses: NDArray[np.float64], weights: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
        """Return the change of all poses (N, 3) that solves the weighted, damped equations."""
        residuals, both = edge_residuals(poses, self._edges, jacobians=True)
        assert both is not None
        information = self._edges.information * weights[:, None, None]
        weighted = [np.swapaxes(jacobian, 1, 2) @ information for jacobian in both]
        values = [(weighted[i] @ both[j])[free] for (i, j), free in zip(np.ndindex(2, 2), self._free, strict=True)]
        gradient = np.zeros((self._count, 3))
        for side in range(2):
            np.add.at(gradient, self._edges.nodes[:, side], np.einsum("eij,ej->ei", weighted[side], residuals))
        # nodes that no edge holds stay; the small constant keeps the matrix definite
        entries = np.concatenate([*values, np.tile(1e-9 * np.eye(3), (self._size // 3, 1, 1))])
        data = np.bincount(self._entry.ravel(), entries.ravel(), minlength=len(self._rows))
        data[self._diagonal_entry] = data[self._diagonal_entry] * (1.0 + damping)
        from scipy.sparse import csc_matrix  # 25 MB, which robots whose graph has no loops do without

        hessian = csc_matrix((data, self._rows, self._starts), shape=(self._size, self._size))
        solved = self._solve(hessian, gradient[self._first_free :][self._order].ravel()).reshape(-1, 3)
        delta = np.zeros((self._count, 3))
        delta[self._first_free :][self._order] = -solved
        return delta

    def _solve(self, hessian: Any, gradient: NDArray[np.float64]) -> NDArray[np.float64]:
        """Solve by conjugate gradients with the factors of an earlier step; by new ones where those are too old.

        From step to step only weights change, so that old factors are nearly right, and cost a twentieth.
        """
        if self._factors is not None and self._size >= DIRECT_SIZE:
            solved = _conjugate_gradients(hessian, gradient, self._factors.solve)
            if solved is not None:
                return solved
        from scipy.sparse.linalg import splu

        self._factors = splu(
            hessian,
            permc_spec="NATURAL",
            diag_pivot_thresh=0.0,
            relax=1,
            panel_size=1,
            options={"SymmetricMode": True},
        )
        return np.asarray(self._factors.solve(gradient))


def _places_in_columns(
    pairs: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Return where each block's entries (K, 3, 3) go in a compressed sparse column matrix, its rows and column starts.

    ``pairs`` (K, 2) has each block's row and column among ``count`` blocks of three; equal pairs share a place.
    """
    keys, which = np.unique(pairs[:, 1] * count + pairs[:, 0], return_inverse=True)
    columns, rows = keys // count, keys % count
    sizes = np.bincount(columns, minlength=count)
    before = np.concatenate([[0], np.cumsum(sizes)])
    rank, size = np.arange(len(keys)) - before[columns], sizes[columns]
    three = np.arange(3)
    first = 9 * before[columns] + 3 * rank
    places = first[:, None, None] + three[:, None] + 3 * size[:, None, None] * three
    entries = np.empty(9 * len(keys), np.int32)
    entries[places] = (3 * rows)[:, None, None] + np.broadcast_to(three[:, None], (3, 3))
    starts = np.append((9 * before[:-1])[:, None] + 3 * sizes[:, None] * three, 9 * before[-1])
    return places[which], entries, starts.astype(np.int32)


def _conjugate_gradients(
    matrix: Any, right: NDArray[np.float64], precondition: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """Return the solution to a thousandth; None where that takes too many iterations."""
    solved, residual = np.zeros_like(right), right.copy()
    towards = precondition(residual)
    direction, wanted = towards, float(residual @ towards)
    first = wanted
    for _ in range(CG_ITERATIONS):
        if wanted <= CG_PRECISION**2 * first:
            return solved
        moved = matrix @ direction
        curvature = float(direction @ moved)
        if not curvature > 0.0:
            return None
        solved += wanted / curvature * direction
        residual -= wanted / curvature * moved
        towards = precondition(residual)
        before, wanted = wanted, float(residual @ towards)
        direction = towards + wanted / before * direction
    return solved if wanted <= CG_PRECISION**2 * first else None


def _elimination_order(pairs: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the order (N,) of eliminating nodes that leaves the factors sparse: minimum degree over the nodes alone.

    A third of the rows makes it an order of magnitude faster than ordering the whole matrix in every step.
    """
    from scipy import sparse
    from scipy.sparse.linalg import splu

    ones = np.ones(len(pairs))
    linked = sparse.coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    laplacian = -(linked + linked.T)
    degrees = -np.asarray(laplacian.sum(axis=1)).ravel() + 1.0
    matrix = (laplacian + sparse.diags(degrees)).tocsc()
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.argsort(factors.perm_c).astype(np.int64)
