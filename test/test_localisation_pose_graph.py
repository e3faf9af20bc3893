"""The pose graph against dense least squares, closed forms and wrong closures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.localisation.graph import equations
from come_nav.localisation.graph.equations import Edges, edge_residuals
from come_nav.localisation.graph.odometry_consistency import odometry_distances
from come_nav.localisation.pose_graph import PoseGraph, PoseGraphSettings, solve

ODOMETRY = np.diag([0.02, 0.02, 0.01]) ** 2
REGISTERED = np.diag([0.01, 0.01, 0.005]) ** 2


def square(laps: int = 2, side: int = 10) -> np.ndarray:
    """Return poses (N, 3) once and again around a square of ``side`` steps of 0.5 m."""
    pose, poses = np.zeros(3), [np.zeros(3)]
    for _ in range(4 * laps):
        for step in range(side):
            turn = np.pi / 2 if step == side - 1 else 0.0
            pose = se2.compose(pose, np.array([0.5, 0.0, turn]))
            poses.append(pose)
    return np.array(poses)


def driven(truth: np.ndarray, seed: int, bias_rad: float = 0.004) -> PoseGraph:
    """Return the graph of odometry that turns a little too much and is noisy."""
    rng, graph = np.random.default_rng(seed), PoseGraph()
    pose = truth[0]
    graph.add_node(pose)
    for index in range(1, len(truth)):
        moved = se2.relative(truth[index - 1], truth[index]) + rng.normal(size=3) * [0.01, 0.01, 0.004]
        moved[2] += bias_rad
        pose = se2.compose(pose, moved)
        graph.add_edge(index - 1, graph.add_node(pose), moved, ODOMETRY, robust=False)
    return graph


def error_m(poses: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(((poses - truth)[:, :2] ** 2).sum(1).mean()))


def close(graph: PoseGraph, truth: np.ndarray, pairs: list[tuple[int, int]], seed: int = 5) -> None:
    rng = np.random.default_rng(seed)
    for first, second in pairs:
        relative = se2.relative(truth[first], truth[second]) + rng.normal(size=3) * [0.01, 0.01, 0.005]
        graph.add_edge(first, second, relative, REGISTERED)


def test_jacobians_agree_with_differences() -> None:
    rng = np.random.default_rng(0)
    poses = rng.normal(size=(4, 3))
    nodes = np.array([[0, 1], [2, 1], [3, 0]])
    edges = Edges(nodes, rng.normal(size=(3, 3)), np.tile(np.eye(3), (3, 1, 1)), np.ones(3, bool))
    residuals, both = edge_residuals(poses, edges, jacobians=True)
    assert both is not None
    for side in range(2):
        for axis in range(3):
            for edge in range(3):
                moved = poses.copy()
                moved[nodes[edge, side], axis] += 1e-6
                change = (edge_residuals(moved, edges, jacobians=False)[0] - residuals)[edge] / 1e-6
                np.testing.assert_allclose(change, both[side][edge, :, axis], atol=1e-5)


def test_without_robust_edges_it_is_dense_least_squares() -> None:
    truth = square(1, 4)
    graph = driven(truth, 0)
    relative = se2.relative(truth[0], truth[-1])
    graph.add_edge(0, len(truth) - 1, relative, REGISTERED, robust=False)
    start, edges = graph.poses_xyyaw, graph.edges
    roots = np.linalg.cholesky(edges.information).swapaxes(1, 2)

    def whitened(free: np.ndarray) -> np.ndarray:
        poses = np.concatenate([start[:1], free.reshape(-1, 3)])
        return np.einsum("eij,ej->ei", roots, edge_residuals(poses, edges, jacobians=False)[0]).ravel()

    wanted = least_squares(whitened, start[1:].ravel(), xtol=1e-12, ftol=1e-12).x.reshape(-1, 3)
    tight = PoseGraphSettings(steps=30, tolerance=1e-9, gain=1e-12)
    graph.config = tight
    away = graph.optimise().poses_xyyaw[1:] - wanted
    away[:, 2] = se2.wrap_angle(away[:, 2])
    np.testing.assert_allclose(away, 0.0, atol=1e-5)


def test_a_chain_with_a_closure_spreads_the_error_in_proportion_to_variance() -> None:
    graph = PoseGraph()
    graph.add_node(np.zeros(3))
    for sigma in (0.1, 0.2):  # straight steps of 1 m whose ends must be at 2.5 m: 0.5 m to share out as 1 to 4
        index = graph.add_node(graph.poses_xyyaw[-1] + [1.0, 0.0, 0.0])
        graph.add_edge(index - 1, index, np.array([1.0, 0, 0]), np.diag([sigma, 0.1, 0.1]) ** 2, robust=False)
    graph.add_edge(0, 2, np.array([2.5, 0, 0]), np.diag([1e-4, 1e-4, 1e-4]) ** 2, robust=False)
    np.testing.assert_allclose(graph.optimise().poses_xyyaw[:, 0], [0.0, 1.1, 2.5], atol=1e-4)


def test_closures_take_drift_out() -> None:
    truth = square()
    graph = driven(truth, 1)
    before = error_m(graph.poses_xyyaw, truth)
    close(graph, truth, [(index, index + 40) for index in range(0, 40, 4)])
    solution = graph.optimise()
    assert error_m(solution.poses_xyyaw, truth) < 0.35 * before
    assert not solution.rejected.any()
    np.testing.assert_array_equal(solution.poses_xyyaw[0], truth[0])


def test_without_drift_closures_do_not_hurt() -> None:
    truth = square()
    graph = driven(truth, 2, bias_rad=0.0)
    before = error_m(graph.poses_xyyaw, truth)
    close(graph, truth, [(index, index + 40) for index in range(0, 40, 4)])
    assert error_m(graph.optimise().poses_xyyaw, truth) <= before


@pytest.mark.parametrize("true_closures", [20, 10, 5])
def test_two_equal_rooms_do_not_become_one(true_closures: int) -> None:
    """Twelve closures in a row say that the robot is back in a room 5 m away, and agree with each other."""
    truth = square()
    graph = driven(truth, 3, bias_rad=0.001)
    close(graph, truth, [(index, index + 40) for index in range(0, 40, 40 // true_closures)])
    right = len(graph.edges)
    shift = np.array([5.0, 0.0, 0.0])
    for index in range(12):
        elsewhere = se2.compose(shift, truth[index])
        graph.add_edge(index, 20 + index, se2.relative(elsewhere, truth[20 + index]), REGISTERED)
    solution = graph.optimise()
    assert solution.rejected[right:].all()
    assert not solution.rejected[:right].any()
    assert error_m(solution.poses_xyyaw, truth) < 0.15


def test_an_edge_that_odometry_contradicts_counts_where_the_rest_agrees_with_it() -> None:
    truth = square()
    graph = driven(truth, 6, bias_rad=0.0)
    close(graph, truth, [(index, index + 40) for index in range(0, 40, 4)])
    tight = PoseGraphSettings(odometry_gate=1e-3)  # odometry contradicts every edge
    loose = PoseGraphSettings(odometry_gate=1e9)
    start, edges = graph.poses_xyyaw, graph.edges
    np.testing.assert_allclose(
        solve(start, edges, tight).poses_xyyaw, solve(start, edges, loose).poses_xyyaw, atol=0.02
    )


def test_odometry_distances_have_the_spread_of_drawn_odometry() -> None:
    truth, rng, distances = square(1, 4), np.random.default_rng(8), []
    last = len(truth) - 1
    for _ in range(400):
        moved = se2.relative(truth[:-1], truth[1:]) + rng.normal(size=(last, 3)) * np.sqrt(np.diag(ODOMETRY))
        edge = se2.relative(truth[2], truth[last]) + rng.normal(size=3) * np.sqrt(np.diag(REGISTERED))
        chain = np.stack([np.arange(last), np.arange(1, last + 1)], 1)
        nodes = np.concatenate([chain, [[2, last]]])
        information = np.concatenate([np.tile(np.linalg.inv(ODOMETRY), (last, 1, 1)), np.linalg.inv(REGISTERED)[None]])
        robust = np.arange(len(nodes)) == last
        poses = np.concatenate([moved, edge[None]])
        distances.append(odometry_distances(len(truth), nodes, poses, information, robust)[-1])
    assert np.mean(distances) == pytest.approx(3.0, abs=0.4)  # chi-squared with three degrees: 3 +- 0.12
    assert np.quantile(distances, 0.95) == pytest.approx(7.8, abs=1.5)


def test_old_factors_give_the_same_poses_as_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = square()
    graph = driven(truth, 7)
    close(graph, truth, [(index, index + 40) for index in range(0, 40, 2)])
    graph.add_edge(3, 60, np.array([3.0, 1.0, 0.5]), REGISTERED)
    start, edges = graph.poses_xyyaw, graph.edges
    settings = PoseGraphSettings(steps=30, gain=1e-12, tolerance=1e-9)
    direct = solve(start, edges, settings).poses_xyyaw
    monkeypatch.setattr(equations, "DIRECT_SIZE", 0)
    np.testing.assert_allclose(solve(start, edges, settings).poses_xyyaw, direct, atol=1e-5)


def test_single_wrong_closures_are_rejected() -> None:
    truth, rng = square(), np.random.default_rng(4)
    graph = driven(truth, 4)
    close(graph, truth, [(index, index + 40) for index in range(0, 40, 2)])
    right = len(graph.edges)
    for _ in range(8):
        first, second = int(rng.integers(0, 30)), int(rng.integers(45, 80))
        graph.add_edge(first, second, rng.uniform(-4, 4, 3), REGISTERED)
    solution = graph.optimise()
    assert solution.rejected[right:].all()
    assert error_m(solution.poses_xyyaw, truth) < 0.15


def test_only_the_newest_move_when_asked() -> None:
    truth = square()
    graph = driven(truth, 5)
    close(graph, truth, [(3, 43), (78, 80)])
    before = graph.poses_xyyaw
    after = graph.optimise(free=6).poses_xyyaw
    np.testing.assert_array_equal(after[:-6], before[:-6])
    assert np.abs(after[-6:] - before[-6:]).max() > 0


def test_a_node_that_nothing_holds_stays() -> None:
    graph = PoseGraph()
    for x in (0.0, 1.0, 7.0):
        graph.add_node(np.array([x, 0, 0]))
    graph.add_edge(0, 1, np.array([2.0, 0, 0]), ODOMETRY, robust=False)
    np.testing.assert_allclose(graph.optimise().poses_xyyaw[:, 0], [0, 2, 7], atol=1e-3)


def test_impossible_edges_are_refused() -> None:
    graph = PoseGraph()
    graph.add_node(np.zeros(3))
    with pytest.raises(DataError, match="two different nodes"):
        graph.add_edge(0, 0, np.zeros(3), ODOMETRY)
    graph.add_node(np.zeros(3))
    for bad in (np.zeros((3, 3)), np.full((3, 3), np.inf), -ODOMETRY):
        with pytest.raises(DataError, match="positive definite"):
            graph.add_edge(0, 1, np.zeros(3), bad)
    with pytest.raises(DataError, match="finite"):
        graph.add_node(np.array([np.nan, 0, 0]))
    with pytest.raises(ConfigError, match=r"pose_graph\.kernel"):
        PoseGraphSettings(kernel=0.0)


def test_an_empty_graph_and_a_single_node_solve() -> None:
    graph = PoseGraph()
    assert graph.optimise().poses_xyyaw.shape == (0, 3)
    graph.add_node(np.ones(3))
    np.testing.assert_array_equal(graph.optimise().poses_xyyaw, [[1, 1, 1]])
