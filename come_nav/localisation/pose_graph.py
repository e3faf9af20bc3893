"""Planar pose graph: where every key frame is, so that odometry and registrations agree best.

Nodes are poses (x, y, yaw); edges are relative poses with covariances. Odometry is trusted; registered edges carry a
robust kernel, since a few of them are wrong: Geman and McClure's, whose cost is bounded, so that wrong edges count
nothing in the end. It is wide at first, so that true closures pull although drift has led far away from them, and
narrows (graduated non-convexity, Yang et al. 2020). Edges that odometry contradicts
(``graph/odometry_consistency.py``) get a vote only in the last, narrow round, where they count if the rest has come to
agree with them: a room that looks like another one stays another one, however many closures say otherwise.

Levenberg-Marquardt over sparse normal equations (``graph/equations.py``); large systems are
solved by conjugate gradients with the factors of an earlier step.

Cost on one core (``benchmarks/registration.py --part graph``): 10,000 nodes and 42,000 edges take 3 s from raw
odometry and 0.9 s again with one more closure; 1,000 nodes 0.1 to 0.2 s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import DataError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.growing import GrowingRows
from come_nav.localisation.graph.equations import Edges, System, edge_residuals
from come_nav.localisation.graph.odometry_consistency import odometry_distances

STATE = ("poses_xyyaw", "nodes", "relative_xyyaw", "information", "robust", "rejected")


@dataclass(frozen=True)
class PoseGraphSettings:
    """How the graph is solved.

    Attributes:
        kernel: squared Mahalanobis distance of a registered edge at which the kernel bends, > 0.
        widest: factor of ``kernel`` that the first round has at most, >= 1.
        narrowing: by which it shrinks from round to round, > 1.
        wide_steps: of each round but the last, >= 1.
        steps: of the last, >= 1.
        tolerance: a round ends when no pose moves more than this (m, rad), > 0.
        gain: a round ends when a step lowers the cost by less than this share, > 0.
        inlier_distance: squared Mahalanobis distance up to which an edge counts as kept, > 0.
        odometry_gate: squared Mahalanobis distance to odometry, with the covariance that it has gathered between the
            two nodes, beyond which an edge has no vote until the last round, > 0. Drift is steadier than noise, so it
            is wider than noise alone would need.
    """

    kernel: float = 6.0
    widest: float = 1e5
    narrowing: float = 6.0
    wide_steps: int = 2
    steps: int = 6
    tolerance: float = 1e-4
    gain: float = 1e-3
    inlier_distance: float = 25.0
    odometry_gate: float = 60.0

    def __post_init__(self) -> None:
        for name in ("kernel", "tolerance", "gain", "inlier_distance", "odometry_gate"):
            check_range(f"pose_graph.{name}", getattr(self, name), 0.0, open_low=True)
        for name in ("steps", "wide_steps", "widest"):
            check_range(f"pose_graph.{name}", getattr(self, name), 1)
        check_range("pose_graph.narrowing", self.narrowing, 1.0, open_low=True)


@dataclass(frozen=True)
class GraphSolution:
    """What the graph says.

    Attributes:
        poses_xyyaw: (N, 3).
        distances: (E,) squared Mahalanobis distances of all edges.
        rejected: (E,) registered edges that the rest contradicts.
        steps: taken.
    """

    poses_xyyaw: NDArray[np.float64]
    distances: NDArray[np.float64]
    rejected: NDArray[np.bool_]
    steps: int


class PoseGraph:
    """Nodes and edges, growing."""

    def __init__(self, config: PoseGraphSettings | None = None) -> None:
        self.config = config or PoseGraphSettings()
        self._poses = GrowingRows((3,))
        self._nodes = GrowingRows((2,), np.int64)
        self._relative = GrowingRows((3,))
        self._information = GrowingRows((3, 3))
        self._robust = GrowingRows((), np.bool_)
        self._rejected: NDArray[np.bool_] = np.zeros(0, np.bool_)

    def __len__(self) -> int:
        return len(self._poses)

    @property
    def poses_xyyaw(self) -> NDArray[np.float64]:
        """Poses (N, 3) as far as they are solved."""
        return self._poses.rows.copy()

    def pose_xyyaw(self, index: int) -> NDArray[np.float64]:
        """Return the pose (3,) of one node as far as it is solved."""
        return np.asarray(self._poses.rows[index].copy())

    @property
    def edges(self) -> Edges:
        """All edges, in the order in which they were added."""
        return Edges(self._nodes.rows, self._relative.rows, self._information.rows, self._robust.rows)

    def add_node(self, pose_xyyaw: NDArray[np.float64]) -> int:
        """Add a node at a first guess (3,) and return its index."""
        check_shape("pose_xyyaw", pose_xyyaw, "3")
        if not np.isfinite(pose_xyyaw).all():
            raise DataError(f"a pose of the graph must be finite, got {pose_xyyaw}")
        return self._poses.append(pose_xyyaw)

    def add_edge(
        self,
        first: int,
        second: int,
        pose_xyyaw: NDArray[np.float64],
        covariance: NDArray[np.float64],
        robust: bool = True,
    ) -> int:
        """Add the pose (3,) of the second node in the first one's base, with its covariance (3, 3).

        Args:
            first: node.
            second: another node.
            pose_xyyaw: of the second in the first one's base.
            covariance: of it, x m, y m, yaw rad; in the first one's base.
            robust: False for odometry, which is never wrong by more than its covariance says.

        Raises:
            DataError: for unknown or equal nodes, and for a covariance that is not positive definite.
        """
        check_shape("covariance", covariance, "3 3")
        if not (0 <= first < len(self) and 0 <= second < len(self) and first != second):
            raise DataError(f"an edge needs two different nodes in [0, {len(self) - 1}], got {first} and {second}")
        finite = np.isfinite(covariance).all() and np.isfinite(pose_xyyaw).all()
        if not finite or np.linalg.eigvalsh(0.5 * (covariance + covariance.T)).min() <= 0:
            raise DataError(f"edge {first} to {second}: the covariance must be finite and positive definite")
        self._nodes.append((first, second))
        self._relative.append(pose_xyyaw)
        self._information.append(np.linalg.inv(covariance))
        self._robust.append(robust)
        return len(self._nodes) - 1

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything as plain arrays, for :meth:`restored`."""
        edges, rejected = self.edges, np.zeros(len(self._nodes), np.bool_)
        rejected[: len(self._rejected)] = self._rejected
        own: dict[str, NDArray[Any]] = {
            "poses_xyyaw": self.poses_xyyaw,
            "nodes": edges.nodes,
            "relative_xyyaw": edges.poses_xyyaw,
        }
        own |= {"information": edges.information, "robust": edges.robust, "rejected": rejected}
        return {name: np.array(values) for name, values in own.items()}

    @classmethod
    def restored(cls, state: Mapping[str, NDArray[Any]], config: PoseGraphSettings | None = None) -> PoseGraph:
        """Return the graph of :meth:`state`; raise ShapeError for arrays that are missing or do not agree."""
        missing = [name for name in STATE if name not in state]
        if missing:
            raise ShapeError(f"a pose graph needs the array {missing[0]}")
        count = check_shape("poses_xyyaw", state["poses_xyyaw"], "N 3")["N"]
        edges = check_shape("nodes", state["nodes"], "E 2")["E"]
        for name, shape in {"relative_xyyaw": " 3", "information": " 3 3", "robust": "", "rejected": ""}.items():
            check_shape(name, state[name], f"{edges}{shape}")
        if edges and not 0 <= state["nodes"].min() <= state["nodes"].max() < count:
            raise ShapeError(f"edges of the pose graph must be between nodes 0 to {count - 1}")
        graph = cls(config)
        columns = ((graph._poses, "poses_xyyaw"), (graph._nodes, "nodes"), (graph._relative, "relative_xyyaw"))
        for rows, name in (*columns, (graph._information, "information"), (graph._robust, "robust")):
            for row in state[name]:
                rows.append(row)
        graph._rejected = np.array(state["rejected"], np.bool_)
        return graph

    def optimise(self, free: int | None = None) -> GraphSolution:
        """Solve for all poses but the first, or for the newest ``free`` ones, and keep them."""
        first_free = 1 if free is None else max(1, len(self) - free)
        settled = np.zeros(len(self._nodes), np.bool_)
        settled[: len(self._rejected)] = self._rejected
        solution = solve(self.poses_xyyaw, self.edges, self.config, first_free, settled)
        self._poses.rows[:] = solution.poses_xyyaw
        if first_free == 1:
            self._rejected = solution.rejected
        return solution


def solve(
    poses_xyyaw: NDArray[np.float64],
    edges: Edges,
    config: PoseGraphSettings | None = None,
    first_free: int = 1,
    settled: NDArray[np.bool_] | None = None,
) -> GraphSolution:
    """Return the poses (N, 3) that explain all edges best; those before ``first_free`` stay where they are.

    ``settled`` (E,) are edges that a solution of the same graph rejected: they alone do not make the kernel wide again.
    """
    settings = config or PoseGraphSettings()
    poses, used = np.array(poses_xyyaw, np.float64), 0
    chosen = np.asarray((edges.nodes >= first_free).any(axis=1))
    mine, known = edges[chosen], np.zeros(len(edges), np.bool_) if settled is None else settled
    if first_free < len(poses) and len(mine):
        system = System(mine, len(poses), first_free)
        votes = _votes(mine, len(poses), first_free, settings)
        for width in _widths(poses, mine[votes & ~known[chosen]], settings):
            last = width == 1.0
            system.votes = np.ones(len(mine), np.bool_) if last else votes
            steps = settings.steps if last else settings.wide_steps
            poses, taken = _settle(system, poses, settings.kernel * width, steps, settings)
            used += taken
    residuals, _ = edge_residuals(poses, edges, jacobians=False)
    distances = np.einsum("ei,eij,ej->e", residuals, edges.information, residuals)
    return GraphSolution(poses, distances, edges.robust & (distances > settings.inlier_distance), used)


def _votes(edges: Edges, count: int, first_free: int, settings: PoseGraphSettings) -> NDArray[np.bool_]:
    """Return which edges (E,) odometry does not contradict; all where only the newest nodes are free."""
    if first_free > 1:  # the rest stays, and the way to it is not among these edges
        return np.ones(len(edges), np.bool_)
    away = odometry_distances(count, edges.nodes, edges.poses_xyyaw, edges.information, edges.robust)
    return np.asarray(~edges.robust | (away <= settings.odometry_gate))


def _widths(poses: NDArray[np.float64], edges: Edges, settings: PoseGraphSettings) -> list[float]:
    """Return the factors of the kernel, wide to 1; only as wide as the worst registered edge needs it."""
    registered = edges[edges.robust]
    if not len(registered):
        return [1.0]
    residuals, _ = edge_residuals(poses, registered, jacobians=False)
    worst = float(np.einsum("ei,eij,ej->e", residuals, registered.information, residuals).max())
    widths, width = [1.0], settings.narrowing
    while width * settings.kernel < worst * settings.narrowing and width <= settings.widest:
        widths.append(width)
        width *= settings.narrowing
    return widths[::-1]


def _settle(
    system: System, poses: NDArray[np.float64], kernel: float, steps: int, settings: PoseGraphSettings
) -> tuple[NDArray[np.float64], int]:
    """Take damped steps with one kernel; return the poses and the number of steps."""
    damping, cost, weights = 1e-6, *system.cost(poses, kernel)
    for step in range(steps):
        delta = system.step(poses, weights, damping)
        trial = poses + delta
        trial[:, 2] = se2.wrap_angle(trial[:, 2])
        trial_cost, trial_weights = system.cost(trial, kernel)
        if trial_cost > cost * (1.0 + 1e-9):
            damping = min(1e6, max(damping, 1e-6) * 100.0)
            continue
        poses, weights, damping = trial, trial_weights, damping * 0.1
        gained, cost = cost - trial_cost, trial_cost
        if np.abs(delta).max() < settings.tolerance or gained < settings.gain * (1.0 + cost):
            return poses, step + 1
    return poses, steps
