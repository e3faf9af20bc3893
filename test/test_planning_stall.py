"""A robot that is told to drive and does not move is noticed; one that lags, turns or creeps is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.planning.stall import StallDetector

DT_S = 0.05


def driven(detector: StallDetector, commands, moves, seconds: float, start_s: float = 0.0) -> list[int]:
    """Return what the detector says while a robot is told ``commands(t)`` and moves by ``moves(t)``, both (v, w)."""
    pose, said = np.zeros(3), []
    for step in range(round(seconds / DT_S)):
        time_s = step * DT_S
        said.append(detector.update(start_s + time_s, commands(time_s)[0], pose))
        v, w = moves(time_s)
        pose = se2.compose(pose, se2.integrate_twist(np.asarray(v), np.asarray(w), DT_S))
    return said


@pytest.mark.parametrize(("v_mps", "direction"), [(0.3, 1), (-0.15, -1)])
def test_pushing_is_noticed_after_the_window_and_with_its_direction(v_mps, direction):
    said = driven(StallDetector(1.0), lambda t: (v_mps, 0.0), lambda t: (0.0, 0.0), 2.0)
    assert said[:20] == [0] * 20
    assert set(said[20:]) == {direction}


def test_a_touch_in_the_middle_of_a_drive_is_noticed():
    detector = StallDetector(1.0)
    said = driven(detector, lambda t: (0.4, 0.2), lambda t: (0.4, 0.2) if t < 3.0 else (0.0, 0.0), 5.0)
    first = next(index for index, word in enumerate(said) if word)
    assert 3.5 <= first * DT_S <= 4.2
    detector.clear()
    assert detector.update(5.0, 0.4, np.zeros(3)) == 0


@given(
    v=st.floats(-0.5, 1.0).filter(lambda value: abs(value) > 0.06),
    w=st.floats(-1.5, 1.5),
    lag_s=st.floats(0.0, 0.4),
    share=st.floats(0.6, 1.2),
)
def test_a_robot_that_follows_late_and_not_quite_is_never_called_stalled(v, w, lag_s, share):
    said = driven(StallDetector(1.0), lambda t: (v, w), lambda t: (share * v, w) if t >= lag_s else (0.0, 0.0), 3.0)
    assert set(said) == {0}


def test_turning_creeping_and_standing_are_no_stall():
    for command in ((0.0, 1.0), (0.01, 0.0), (0.0, 0.0)):
        assert set(driven(StallDetector(1.0), lambda t, c=command: c, lambda t: (0.0, 0.0), 3.0)) == {0}


def test_clock_jumps_begin_anew():
    detector = StallDetector(1.0)
    driven(detector, lambda t: (0.3, 0.0), lambda t: (0.0, 0.0), 0.9, start_s=100.0)
    assert detector.update(50.0, 0.3, np.zeros(3)) == 0
    assert detector.update(200.0, 0.3, np.zeros(3)) == 0
    assert detector.update(200.9, 0.3, np.zeros(3)) == 0
    assert detector.update(201.1, 0.3, np.zeros(3)) == 1
    with pytest.raises(ConfigError, match="window_s"):
        StallDetector(0.0)
