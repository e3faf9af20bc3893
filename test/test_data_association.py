"""Association in time: one-to-one, within tolerance, closest first, offset found; and evo's rule beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import AssociationError
from come_nav.data.timing.association import associate, associate_nearest, estimate_offset, nearest_index

steps = st.lists(st.floats(1e-3, 0.3), min_size=1, max_size=40)


def stamps(increments: list[float], start: float = 0.0) -> np.ndarray:
    return start + np.cumsum(increments)


@settings(max_examples=100, deadline=None)
@given(steps, steps, st.floats(0.001, 0.2), st.floats(-0.2, 0.2))
def test_pairs_are_one_to_one_and_within_tolerance(first, second, limit, offset):
    a, b = stamps(first), stamps(second)
    try:
        match = associate(a, b, limit, offset)
    except AssociationError:
        assert np.abs(a[:, None] - (b + offset)[None]).min() > limit
        return
    assert len(set(match.index_a)) == len(match) == len(set(match.index_b))
    assert (np.diff(match.index_a) > 0).all()
    difference = np.abs(a[match.index_a] - (b[match.index_b] + offset))
    assert (difference <= limit + 1e-12).all()
    assert match.report.matched == len(match)
    assert match.report.largest_difference_s == pytest.approx(difference.max())
    free_a = np.setdiff1d(np.arange(len(a)), match.index_a)  # nothing that could still be matched is left over
    free_b = np.setdiff1d(np.arange(len(b)), match.index_b)
    if len(free_a) and len(free_b):
        assert np.abs(a[free_a][:, None] - (b[free_b] + offset)[None]).min() > limit - 1e-9


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 30))
def test_same_as_taking_the_closest_pairs_one_by_one(seed, count_a, count_b):
    rng = np.random.default_rng(seed)
    a, b = np.sort(rng.uniform(0, 5, count_a)), np.sort(rng.uniform(0, 5, count_b))
    difference = np.abs(a[:, None] - b[None])
    pairs = []
    for flat in np.argsort(difference, axis=None):
        row, column = np.unravel_index(flat, difference.shape)
        taken = any(row == other[0] or column == other[1] for other in pairs)
        if difference[row, column] <= 1.0 and not taken:
            pairs.append((row, column))
    try:
        match = associate(a, b, 1.0)
    except AssociationError:
        assert not pairs
        return
    assert list(zip(match.index_a, match.index_b, strict=True)) == sorted(pairs)


def test_closest_pair_wins():
    match = associate(np.array([0.0, 0.06]), np.array([0.05]), 0.1)
    assert list(match.index_a) == [1]
    match = associate(np.array([1.0, 2.0, 3.0]), np.array([0.99, 2.02, 2.03, 3.5]), 0.05)
    assert list(zip(match.index_a, match.index_b, strict=True)) == [(0, 0), (1, 1)]


def test_report_tells_gaps_and_offset():
    a = np.array([0.0, 0.1, 0.2, 0.9, 1.0])
    match = associate(a, a - 0.004, 0.02)
    assert match.report.matched == 5
    assert match.report.count_b == 5
    assert match.report.largest_gap_s == pytest.approx(0.7)
    assert match.report.best_offset_s == pytest.approx(0.004)
    assert "matched 5 of 5" in str(match.report)
    assert match.report.to_mapping()["max_difference_s"] == 0.02


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.05, 0.5), min_size=8, max_size=60),
    st.floats(-1e4, 1e4),
    st.integers(0, 2**31),
)
def test_offset_is_found(increments, offset, seed):
    a = stamps(increments, 1000.0)
    b = a - offset + np.random.default_rng(seed).uniform(-0.004, 0.004, len(a))
    found, matched = estimate_offset(a, b, 0.02)
    assert matched == len(a)
    assert np.abs(a - (b + found)).max() <= 0.02 + 1e-9


def test_offset_between_dense_and_sparse_streams():
    rng = np.random.default_rng(3)
    dense = np.cumsum(rng.uniform(0.002, 0.02, 20_000))
    sparse = np.sort(rng.choice(dense, 300, replace=False)) + 77.7
    found, matched = estimate_offset(dense, sparse, 0.001)
    assert found == pytest.approx(-77.7, abs=1e-3)
    assert matched == 300


def test_no_overlap_names_the_offset_and_the_flag():
    a = np.cumsum(np.full(30, 0.1))
    with pytest.raises(AssociationError) as caught:
        associate(a, a + 40.0, 0.02, names=("images", "poses"), flag="--time-offset")
    assert "matched 0 of 30" in str(caught.value)
    assert "set --time-offset -40.000" in str(caught.value)
    with pytest.raises(AssociationError, match="poses has no stamps"):
        associate(a, np.zeros(0), 0.02, names=("images", "poses"))
    with pytest.raises(AssociationError, match="images has no stamps"):
        associate(np.zeros(0), a, 0.02, names=("images", "poses"))


def brute_force(short: np.ndarray, long: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """The rule in words: for each stamp of the shorter list the nearest of the longer, if close enough."""
    pairs = []
    for index, stamp in enumerate(short):
        differences = np.abs(long - stamp)
        nearest = int(np.argmin(differences))
        if differences[nearest] <= limit:
            pairs.append((index, nearest))
    return pairs


@settings(max_examples=100, deadline=None)
@given(steps, steps, st.floats(0.01, 0.3))
def test_nearest_is_the_rule_of_evo(first, second, limit):
    a, b = stamps(first), stamps(second)
    swap = len(b) <= len(a)
    expected = brute_force(b, a, limit) if swap else brute_force(a, b, limit)
    if not expected:
        with pytest.raises(AssociationError):
            associate_nearest(a, b, limit)
        return
    match = associate_nearest(a, b, limit)
    short, long = (match.index_b, match.index_a) if swap else (match.index_a, match.index_b)
    assert list(zip(short, long, strict=True)) == expected


def test_nearest_may_reuse_a_stamp_where_one_to_one_may_not():
    a, b = np.array([0.0, 5.0, 10.0]), np.array([0.0, 0.01])
    assert list(associate_nearest(a, b, 0.02).index_a) == [0, 0]
    assert list(associate(a, b, 0.02).index_a) == [0]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30, unique=True), st.floats(-100, 1100))
def test_nearest_index_agrees_with_argmin(values, at):
    ordered = np.sort(np.array(values, float))
    assert nearest_index(ordered, np.array([at]))[0] == np.argmin(np.abs(ordered - at))


@pytest.mark.shared_data
def test_counts_agree_with_evo(shared_data):
    import json

    from come_nav.data.trajectories import read_trajectory

    reference = json.loads((shared_data / "trajectories" / "evo_reference.json").read_text())
    timed = [pair for pair in reference["pairs"].values() if pair["format"] != "kitti"]
    assert len(timed) >= 4
    for pair in timed:
        a = read_trajectory(shared_data / "trajectories" / pair["ref"])
        b = read_trajectory(shared_data / "trajectories" / pair["est"])
        assert len(associate_nearest(a.stamps_s, b.stamps_s, 0.01)) == pair["n_associated"]
