"""A reset of odometry is told from driving, from a clock that jumps and from a robot that was carried."""

from __future__ import annotations

import numpy as np
import pytest

from come_nav.core.geometry import se2, se3
from come_nav.core.types import Odometry
from come_nav.ros.inputs.odometry_reset import ResetDetector


def odometry(stamp_s: float, pose: np.ndarray, v: float = 0.0) -> Odometry:
    return Odometry(stamp_s, se3.transform_from_xyyaw(pose), v, 0.0)


def test_driving_turning_and_clock_jumps_are_no_resets():
    detector, pose = ResetDetector(), np.zeros(3)
    for tick in range(200):
        pose = se2.compose(pose, np.array([0.1, 0.0, 0.2]))  # 2 m/s and 4 rad/s at 20 Hz
        assert detector.update(odometry(0.05 * tick, pose, 2.0)) is None
    assert detector.update(odometry(1.0, np.zeros(3))) is None  # a bag that begins anew


@pytest.mark.parametrize("gap_s", [0.05, 0.9])
def test_where_the_new_odometry_lies_follows_from_the_last_pose_and_twist(gap_s):
    detector, pose = ResetDetector(), np.array([3.0, -2.0, 1.0])
    detector.update(odometry(10.0, pose, 0.4))
    now = se2.compose(pose, np.array([0.4 * gap_s, 0.0, 0.0]))
    origin = np.array([2.9, -1.0, -0.5])
    found = detector.update(odometry(10.0 + gap_s, se2.relative(origin, now), 0.4))
    if gap_s > 0.5:  # 1 m may have been driven meanwhile
        assert found is None
        found = detector.update(odometry(11.0 + gap_s, se2.relative(origin, now) + np.array([9.0, 0.0, 0.0])))
        assert found is not None
        return
    np.testing.assert_allclose(found.T_before_after_xyyaw, origin, atol=1e-9)
    assert "it began anew" in str(found)
    assert detector.update(odometry(10.1 + gap_s, se2.relative(origin, now), 0.4)) is None  # told once


def test_after_a_long_silence_nobody_knows_where_the_robot_went():
    detector = ResetDetector()
    detector.update(odometry(10.0, np.array([30.0, 0.0, 0.0])))
    found = detector.update(odometry(12.0, np.zeros(3)))
    assert found is not None and found.T_before_after_xyyaw is None
