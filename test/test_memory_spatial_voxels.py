"""The voxel map: merging against a plain dictionary, the budget, forgetting, state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.memory.spatial.voxels import VoxelMap, cell_keys

HERE = np.zeros(3)


def add(cells: VoxelMap, points, stamp_s: float = 0.0, weights=None, features=None, position=HERE) -> tuple[int, int]:
    points = np.asarray(points, float).reshape(-1, 3)
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, float)
    features = np.zeros((len(points), cells.channels)) if features is None else np.asarray(features, float)
    return cells.add(points, features, weights, stamp_s, position)


def test_points_of_one_cell_become_their_weighted_mean():
    cells = VoxelMap(1.0, 10)
    points = [[0.1, 0.2, 0.3], [0.5, 0.6, 0.7], [3.5, 0.5, 0.5]]
    colours = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert add(cells, points, 2.0, [1.0, 3.0, 2.0], colours) == (2, 0)
    near = np.argmin(cells.xyz[:, 0])
    np.testing.assert_allclose(cells.xyz[near], [0.4, 0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(cells.features[near], [0.25, 0.75, 0.0], rtol=1e-6)
    assert cells.weight[near] == 4.0
    assert add(cells, [[0.9, 0.9, 0.9]], 3.0, [4.0], [[1.0, 1.0, 1.0]]) == (0, 1)
    np.testing.assert_allclose(cells.xyz[near], [0.65, 0.7, 0.75], rtol=1e-6)
    np.testing.assert_allclose(cells.features[near], [0.625, 0.875, 0.5], rtol=1e-6)
    assert cells.hits[near] == 2.0
    assert cells.stamp_s[near] == 3.0


def test_newer_looks_keep_counting_under_the_cap():
    cells = VoxelMap(1.0, 10, 1, max_weight=4.0)
    for _ in range(100):
        add(cells, [[0.5, 0.5, 0.5]], features=[[0.0]])
    for _ in range(20):
        add(cells, [[0.5, 0.5, 0.5]], features=[[1.0]])
    assert cells.features[0, 0] == pytest.approx(1.0 - 0.8**20, abs=1e-5)


coordinates = st.floats(-3, 3, width=32)
frames = st.lists(
    st.lists(st.tuples(coordinates, coordinates, coordinates, st.floats(0.125, 2.0)), max_size=12), max_size=6
)


@given(frames=frames, removed=st.integers(0, 2**30))
@settings(max_examples=60)
def test_the_map_agrees_with_a_dictionary(frames, removed):
    """Merging and removing, whatever the order of rows, as a dictionary of cells does it."""
    cells, known = VoxelMap(0.5, 1000, 1), {}
    for number, frame in enumerate(frames):
        points = np.array([point[:3] for point in frame]).reshape(-1, 3)
        weights = np.array([point[3] for point in frame])
        add(cells, points, float(number), weights, weights[:, None])
        sums: dict[tuple[int, ...], list[float]] = {}
        for point, weight in zip(points, weights, strict=True):
            entry = sums.setdefault(tuple(np.floor(point / 0.5).astype(int)), [0.0, 0.0])
            entry[0] += weight
            entry[1] += weight * weight
        for cell, (weight, total) in sums.items():
            old_weight, old_mean = known.get(cell, (0.0, 0.0))
            mean = (old_weight * old_mean + total) / (old_weight + weight)
            known[cell] = (min(old_weight + weight, cells.max_weight) if old_weight else min(weight, 8.0), mean)
        gone = np.array([removed >> (index % 30) & 1 for index in range(len(cells))], bool)
        for cell in map(tuple, np.floor(cells.xyz[gone] / 0.5).astype(int)):
            known.pop(cell, None)
        cells.remove(gone)
    found = {
        tuple(np.floor(xyz / 0.5).astype(int)): (float(weight), float(value))
        for xyz, weight, value in zip(cells.xyz, cells.weight, cells.features[:, 0], strict=True)
    }
    assert set(found) == set(known)
    for cell, (weight, mean) in known.items():
        assert found[cell] == pytest.approx((weight, mean), rel=1e-4)
    if len(cells):
        assert add(cells, cells.xyz.copy()) == (0, len(cells)), "every cell must still be found by its key"


def test_impossible_points_are_left_out():
    cells = VoxelMap(0.05, 10)
    assert add(cells, [[np.nan, 0, 0], [0, np.inf, 0], [1e9, 0, 0], [0.01, 0.01, 0.01]]) == (1, 0)
    assert add(cells, np.zeros((0, 3))) == (0, 0)
    assert (cell_keys(np.array([[np.nan, 0.0, 0.0], [-1e9, 0.0, 0.0]]), 0.05) == -1).all()


def test_the_budget_holds_and_memory_is_bounded():
    rng = np.random.default_rng(0)
    cells = VoxelMap(0.1, 500)
    sizes = []
    for step in range(60):
        add(cells, rng.uniform(-50, 50, (100, 3)), float(step))
        assert len(cells) <= 500
        sizes.append(cells.nbytes)
    assert cells.evicted > 5000
    assert max(sizes[10:]) <= 500 * 80
    assert add(cells, rng.uniform(-50, 50, (2000, 3)))[0] == 2000
    assert len(cells) <= 500, "one frame may hold more than the whole budget"


def test_old_far_and_seldom_seen_cells_make_room_first():
    def survivors(points, stamps, looks) -> set[int]:
        cells = VoxelMap(1.0, 100, forget_s=10.0, forget_m=10.0)
        for point, stamp, count in zip(points, stamps, looks, strict=True):
            for _ in range(count):
                add(cells, [point], stamp)
        cells.make_room(1, now_s=20.0, position_xyz=HERE)
        return {int(x) for x in np.floor(cells.xyz[:, 0])}

    assert survivors([[0.5, 0, 0], [1.5, 0, 0]], [0.0, 20.0], [3, 3]) == {1}, "the older one goes"
    assert survivors([[0.5, 0, 0], [40.5, 0, 0]], [5.0, 5.0], [3, 3]) == {0}, "the farther one goes"
    assert survivors([[0.5, 0, 0], [1.5, 0, 0]], [5.0, 5.0], [1, 9]) == {1}, "the less seen one goes"


def test_cells_without_looks_left_are_forgotten():
    cells = VoxelMap(1.0, 10)
    for _ in range(3):
        add(cells, [[0.5, 0.5, 0.5], [2.5, 0.5, 0.5]])
    row = np.flatnonzero(cells.xyz[:, 0] < 1)
    assert cells.weaken(row, np.array([2.5])) == 0
    assert cells.weaken(row, np.array([0.5])) == 1
    assert cells.xyz[:, 0].tolist() == [2.5]


def test_state_round_trip_and_its_errors():
    rng = np.random.default_rng(1)
    cells, again = VoxelMap(0.1, 300), VoxelMap(0.1, 300)
    for step in range(5):
        add(cells, rng.uniform(-2, 2, (60, 3)), float(step))
    again.load_state(cells.state())
    for name, array in cells.state().items():
        np.testing.assert_array_equal(again.state()[name], array)
    more = rng.uniform(-2, 2, (60, 3))
    assert add(cells, more) == add(again, more)
    state = cells.state()
    with pytest.raises(ShapeError, match="hits is missing"):
        again.load_state({name: array for name, array in state.items() if name != "hits"})
    with pytest.raises(ShapeError, match="cannot hold these"):
        again.load_state({**state, "key": np.zeros_like(state["key"])})
    with pytest.raises(ShapeError, match="cannot hold these"):
        VoxelMap(0.1, 5).load_state(state)
    with pytest.raises(ShapeError, match="features must have shape"):
        VoxelMap(0.1, 300, 7).load_state(state)


@pytest.mark.parametrize("wrong", [{"voxel_m": 0.0}, {"capacity": 0}, {"channels": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        VoxelMap(**{"voxel_m": 0.1, "capacity": 10, **wrong})
