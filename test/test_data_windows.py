"""Training windows: nothing crosses a gap, offsets are uniform, actions are in the base frame of the current pose."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import ConfigError, DataError
from come_nav.data.windows import (
    WindowSettings,
    context_indices,
    goal_actions,
    goal_offset_bounds,
    require_windows,
    sample_goal_offsets,
    window_starts,
)

SETTINGS = WindowSettings()


@st.composite
def segments(draw):
    cuts = np.cumsum([0, *draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))])
    return [(int(first), int(last)) for first, last in pairwise(cuts)]


@settings(max_examples=80, deadline=None)
@given(segments(), st.integers(1, 6), st.integers(1, 12), st.integers(1, 3), st.integers(0, 2**31))
def test_windows_never_cross_a_gap(parts, context, future, stride, seed):
    chosen = WindowSettings(context, 64, stride)
    starts = window_starts(parts, chosen, future)
    home = np.zeros(parts[-1][1], int)
    for number, (first, last) in enumerate(parts):
        home[first:last] = number
    expected = sum(len(range(first + context - 1, last - future, stride)) for first, last in parts)
    assert len(starts) == expected
    if not len(starts):
        return
    frames = context_indices(starts, context)
    assert (home[frames] == home[starts][:, None]).all()
    assert (home[starts + future] == home[starts]).all()
    offsets = sample_goal_offsets(starts, parts, 64, 3, np.random.default_rng(seed))
    assert offsets.shape == (len(starts), 3)
    assert (np.abs(offsets) <= 64).all()
    assert (home[starts[:, None] + offsets] == home[starts][:, None]).all()


def test_context_is_oldest_first():
    np.testing.assert_array_equal(context_indices(np.array([3, 9]), 4), [[0, 1, 2, 3], [6, 7, 8, 9]])


def test_bounds_are_clipped_as_published():
    low, high = goal_offset_bounds(np.array([3, 100, 198]), [(0, 200)], 64)
    np.testing.assert_array_equal(low, [-3, -64, -64])
    np.testing.assert_array_equal(high, [64, 64, 1])
    with pytest.raises(DataError, match="outside"):
        goal_offset_bounds(np.array([200]), [(0, 200)], 64)


def test_offsets_are_uniform_and_both_ends_occur():
    offsets = sample_goal_offsets(np.full(4000, 5), [(0, 12)], 64, 4, np.random.default_rng(0))
    values, counts = np.unique(offsets, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(-5, 7))
    assert np.abs(counts / counts.mean() - 1).max() < 0.12
    again = sample_goal_offsets(np.full(4000, 5), [(0, 12)], 64, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(offsets, again)


def test_actions_are_seen_from_the_current_frame():
    poses = np.array([[1.0, 1.0, np.pi / 2], [1.0, 3.0, np.pi], [0.0, 1.0, np.pi / 2]])
    actions = goal_actions(poses, np.array([0]), np.array([[1, 2, 0]]))
    np.testing.assert_allclose(actions[0], [[2, 0, np.pi / 2], [0, 1, 0], [0, 0, 0]], atol=1e-12)


def test_too_short_recordings_say_how_many_frames_are_needed():
    with pytest.raises(DataError, match=r"needs 12 frames in a row .* longest stretch has 11"):
        require_windows([(0, 11), (11, 20)], SETTINGS, 8, "kitchen")
    assert list(require_windows([(0, 12)], SETTINGS, 8, "kitchen")) == [3]
    assert len(window_starts([], SETTINGS)) == 0


@pytest.mark.parametrize("field", ["context_frames", "max_goal_offset", "stride"])
def test_settings_are_checked(field):
    with pytest.raises(ConfigError, match=field):
        WindowSettings(**{field: 0})
