"""Where odom lies in map: what a correction moves, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.memory.map_frame import MapFrame

POSES = np.array([[1.0, 2.0, 0.3], [-4.0, 0.5, -2.0]])
FIRST, SECOND = np.array([0.1, -0.2, 0.05]), np.array([1.0, 0.5, -0.4])


def test_without_corrections_no_pose_is_touched() -> None:
    frame = MapFrame()
    assert frame.update(np.zeros((3, 3))) is None
    assert frame.anchor == 2
    assert frame.to_map(POSES) is POSES
    assert frame.to_odom(POSES) is POSES
    transform = se3.transform_from_xyyaw(POSES[0])
    assert frame.transform_to_map(transform) is transform


def test_poses_go_to_map_and_back_by_the_newest_correction() -> None:
    frame = MapFrame()
    frame.update(np.stack([FIRST, SECOND]))
    np.testing.assert_allclose(frame.to_map(POSES), se2.compose(SECOND, POSES))
    np.testing.assert_allclose(frame.to_odom(frame.to_map(POSES)), POSES, atol=1e-12)
    there = frame.transform_to_map(se3.transform_from_xyyaw(POSES[0]))
    np.testing.assert_allclose(se3.xyyaw_from_transform(there), se2.compose(SECOND, POSES[0]))


def test_a_key_frame_moves_by_the_change_of_its_own_correction() -> None:
    frame = MapFrame()
    frame.update(np.stack([np.zeros(3), FIRST]))
    seen_map = se2.compose(FIRST, POSES[1])  # at the second key frame
    motions = frame.update(np.stack([np.zeros(3), SECOND, SECOND]))
    assert motions is not None
    assert motions.shape == (3, 3)
    np.testing.assert_array_equal(motions[0], 0.0)
    np.testing.assert_array_equal(motions[2], 0.0)  # new: nothing was seen there
    np.testing.assert_allclose(se2.compose(motions[1], seen_map), se2.compose(SECOND, POSES[1]), atol=1e-12)


@pytest.mark.parametrize("same_robot", [True, False])
def test_what_is_loaded_stays_where_odom_was_in_its_map(same_robot: bool) -> None:
    """A robot that starts again knows no correction; one that goes on has it already."""
    frame = MapFrame()
    if same_robot:
        frame.update(np.stack([FIRST, FIRST]))
    frame.settle(5, FIRST)
    np.testing.assert_allclose(frame.to_map(POSES), se2.compose(FIRST, POSES))
    told = np.stack([FIRST, FIRST, SECOND]) if same_robot else np.stack([np.zeros(3), SECOND])
    motions = frame.update(told)
    assert motions is None or not motions[:5].any()
    expected = SECOND if same_robot else se2.compose(FIRST, SECOND)
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, expected, atol=1e-12)


def test_other_key_frames_move_nothing_of_before() -> None:
    frame = MapFrame()
    frame.update(np.stack([FIRST, SECOND]))
    assert frame.update(np.zeros((1, 3))) is None  # the localiser was reset
    assert frame.anchor == 2
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, SECOND)
    motions = frame.update(FIRST[None])
    assert motions is not None
    np.testing.assert_array_equal(motions[:2], 0.0)
    assert motions[2].any()


def test_corrections_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        MapFrame().update(np.array([[np.nan, 0.0, 0.0]]))


def test_an_outside_localisers_map_is_the_map_of_what_is_kept() -> None:
    """It says the same after a restart or a reset: what is kept stays in its map, and is not moved twice."""
    frame = MapFrame()
    frame.update(FIRST[None], FIRST)
    frame.restart()
    assert frame.update(np.zeros((1, 3))) is None  # anchors begin anew before the localiser is heard again
    motions = frame.update(SECOND[None], SECOND)
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, SECOND)
    assert motions is not None
    np.testing.assert_array_equal(motions[0], 0.0)
    seen_map = se2.compose(FIRST, POSES[0])  # after the restart, before it was heard
    np.testing.assert_allclose(se2.compose(motions[1], seen_map), se2.compose(SECOND, POSES[0]), atol=1e-12)
    loaded = MapFrame()
    loaded.settle(3, FIRST)
    loaded.update(np.zeros((0, 3)), SECOND)
    np.testing.assert_allclose(loaded.to_map(POSES), se2.compose(SECOND, POSES))
    loaded.update(SECOND[None], SECOND)
    np.testing.assert_allclose(loaded.T_map_odom_xyyaw, SECOND)


def test_odometry_that_begins_anew_moves_nothing_and_later_corrections_move_what_they_did() -> None:
    frame, steady = MapFrame(), MapFrame()
    for each in (frame, steady):
        each.settle(2, FIRST)
        each.update(np.stack([FIRST, FIRST]))
    frame.rebase(POSES[0])
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, se2.compose(steady.T_map_odom_xyyaw, POSES[0]), atol=1e-12)
    told = np.stack([FIRST, SECOND, SECOND])
    np.testing.assert_array_equal(frame.update(told), steady.update(told))
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, se2.compose(steady.T_map_odom_xyyaw, POSES[0]), atol=1e-12)
    assert (frame.anchor, frame.settled) == (steady.anchor, steady.settled)
    frame.settle(7, SECOND)
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, SECOND)
    frame.update(told)
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, SECOND, atol=1e-12)
