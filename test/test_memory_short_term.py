"""The short-term buffer under the faults of real sensors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se3
from come_nav.core.types import Frame, Odometry
from come_nav.memory.short_term import FrameStatus, ShortTermBuffer, ShortTermSettings

RGB = np.zeros((4, 4, 3), np.uint8)


def see(buffer, stamp_s, x=0.0, odometry_stamp_s=None):
    pose = se3.transform_from_xyyaw(np.array([x, 0.0, 0.0]))
    odometry = Odometry(stamp_s if odometry_stamp_s is None else odometry_stamp_s, pose)
    return buffer.observe(Frame(stamp_s, RGB), odometry)


def stamps(buffer):
    return [item.stamp_s for item in buffer.context_frames(len(buffer))]


def test_keeps_every_frame_at_the_protocol_rate():
    buffer = ShortTermBuffer()
    assert all(see(buffer, 10.0 + 0.25 * index) is FrameStatus.KEPT for index in range(8))
    assert [item.stamp_s for item in buffer.context_frames(4)] == [11.0, 11.25, 11.5, 11.75]
    assert buffer.context_frames(9) == []


@pytest.mark.parametrize("rate_hz", [7.5, 10.0, 15.0, 30.0])
def test_thins_faster_cameras_without_drift(rate_hz):
    buffer = ShortTermBuffer()
    for index in range(int(8 * rate_hz)):
        see(buffer, index / rate_hz)
    kept = np.array(stamps(buffer))
    assert len(kept) >= 31
    grid = 0.25 * np.arange(len(kept))
    assert np.abs(kept - grid).max() <= max(0.0625, 1 / rate_hz) + 1e-9
    assert buffer.dropped["between"] == int(8 * rate_hz) - len(kept)


def test_counts_duplicates_and_frames_out_of_order():
    buffer = ShortTermBuffer()
    see(buffer, 1.0)
    assert see(buffer, 1.0) is FrameStatus.DUPLICATE
    assert see(buffer, 0.9) is FrameStatus.OUT_OF_ORDER
    assert see(buffer, math.nan) is FrameStatus.NON_FINITE
    assert see(buffer, 1.25, odometry_stamp_s=1.5) is FrameStatus.NO_POSE
    assert see(buffer, 1.25, x=math.nan) is FrameStatus.NON_FINITE
    assert see(buffer, 1.25) is FrameStatus.KEPT
    assert dict(buffer.dropped) == {"duplicate": 1, "out_of_order": 1, "non_finite": 2, "no_pose": 1}


def test_a_clock_set_back_starts_anew():
    buffer = ShortTermBuffer()
    for index in range(6):
        see(buffer, 100.0 + 0.25 * index)
    assert see(buffer, 3.0) is FrameStatus.KEPT
    assert stamps(buffer) == [3.0]
    assert buffer.resets["clock_jump"] == 1
    assert see(buffer, 3.25) is FrameStatus.KEPT


def test_a_long_gap_makes_old_frames_useless():
    buffer = ShortTermBuffer()
    for index in range(6):
        see(buffer, 0.25 * index)
    see(buffer, 5.0)
    assert stamps(buffer) == [5.0]
    assert buffer.context_frames(4) == []
    assert buffer.resets["gap"] == 1


def test_a_short_gap_keeps_the_context():
    buffer = ShortTermBuffer()
    for stamp_s in (0.0, 0.25, 0.5, 1.0, 1.25):
        assert see(buffer, stamp_s) is FrameStatus.KEPT
    assert len(buffer) == 5


def test_a_pose_that_jumps_starts_anew():
    buffer = ShortTermBuffer()
    see(buffer, 0.0, x=0.0)
    see(buffer, 0.25, x=0.1)
    see(buffer, 0.5, x=50.0)
    assert stamps(buffer) == [0.5]
    assert buffer.resets["pose_jump"] == 1


def test_encodes_each_kept_frame_once():
    calls = []

    def encode(frame):
        calls.append(frame.stamp_s)
        return torch.full((2,), frame.stamp_s)

    buffer = ShortTermBuffer(encode=encode)
    for index in range(10):
        see(buffer, 0.125 * index)
    assert calls == stamps(buffer)
    assert [float(item.features[0]) for item in buffer.context_frames(3)] == calls[-3:]


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.floats(-0.5, 0.5),
            st.sampled_from([0.0, 0.25, 0.24, 0.26, 2.0, -50.0, math.nan, math.inf]),
        ),
        max_size=80,
    )
)
def test_whatever_comes_the_context_is_ordered_spaced_and_bounded(steps):
    config = ShortTermSettings(capacity=6)
    buffer = ShortTermBuffer(config)
    stamp_s, seen, kept = 100.0, 0, 0
    for step in steps:
        candidate = stamp_s + step
        verdict = see(buffer, candidate)
        seen += 1
        kept += verdict is FrameStatus.KEPT
        if math.isfinite(candidate):
            stamp_s = candidate
        times = np.array(stamps(buffer))
        spacing = np.diff(times)
        assert len(times) <= 6
        assert (spacing > 0.0).all()
        assert (spacing <= config.max_gap_s).all()
        if len(times) > 1:  # on average no denser than the protocol
            assert times[-1] - times[0] >= (len(times) - 1) * 0.25 - 0.25 * 0.75 - 1e-9
    assert sum(buffer.dropped.values()) + kept == seen


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"memory\.tolerance must be in \[0, 0\.5\], got 2"):
        ShortTermSettings(tolerance=2)
