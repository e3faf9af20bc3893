"""Whether odometry is held to drift: by what registrations say of far key frames and of neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from come_nav.core.geometry import se2
from come_nav.localisation.graph.drift_evidence import NEIGHBOURS, odometry_misfit
from come_nav.localisation.graph.equations import Edges

COUNT, STEP_M, SIGMA = 80, 0.3, np.array([0.01, 0.01, 0.005])


def circle(turn_rad: float = 4.0 * np.pi / COUNT) -> np.ndarray:
    """Return poses (N, 3) of steps of 0.3 m, twice around a circle where the turn is the default."""
    poses = [np.zeros(3)]
    for _ in range(COUNT - 1):
        poses.append(se2.compose(poses[-1], np.array([STEP_M, 0.0, turn_rad])))
    return np.array(poses)


def registered(poses: np.ndarray, noise: float, closures: bool = True) -> Edges:
    """Return edges to the three neighbours and to the same place of the lap before, ``noise`` times as bad as told."""
    pairs = [(i, j) for j in range(COUNT) for i in (j - 3, j - 2, j - 1) if i >= 0]
    pairs += [(i, i + COUNT // 2) for i in range(COUNT // 2)] if closures else []
    nodes = np.array(pairs)
    exact = se2.relative(poses[nodes[:, 0]], poses[nodes[:, 1]])
    measured = exact + noise * SIGMA * np.random.default_rng(0).normal(size=exact.shape)
    return Edges(nodes, measured, np.repeat(np.diag(SIGMA**-2.0)[None], len(nodes), 0), np.ones(len(nodes), np.bool_))


def test_odometry_that_agrees_with_registrations_is_not_held_to_drift():
    truth = circle()
    misfit = odometry_misfit(registered(truth, 0.2), truth, truth, 25.0)
    assert misfit == pytest.approx(3.0 * 0.2**2, rel=0.2)


def test_registrations_worse_than_they_say_are_no_drift():
    truth = circle()
    misfit = odometry_misfit(registered(truth, 4.0), truth, truth, 1e6)
    assert misfit == pytest.approx(NEIGHBOURS, rel=0.3)  # far key frames are no worse than neighbours


@pytest.mark.parametrize("noise", [0.2, 1.0, 2.0])
def test_a_turn_that_is_off_by_two_percent_is_drift(noise: float):
    truth, believed = circle(), circle(1.02 * 4.0 * np.pi / COUNT)
    assert odometry_misfit(registered(truth, noise), believed, truth, 1e6) > 1.0


def test_without_registered_edges_nothing_is_said():
    truth = circle()
    edges = registered(truth, 1.0)
    none = Edges(edges.nodes, edges.poses_xyyaw, edges.information, np.zeros(len(edges), np.bool_))
    assert odometry_misfit(none, truth, truth, 25.0) == 0.0
    assert odometry_misfit(edges, truth, truth, 1e-12) == 0.0  # the graph keeps none of them
