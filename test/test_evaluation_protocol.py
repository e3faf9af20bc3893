"""Windows of a recording: what they hold, how they are spread, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_samples import START_S, SampleRecording

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.evaluation.protocols.protocol import (
    ProtocolSettings,
    choose_windows,
    make_window,
    possible_starts,
    waypoint_spacing_m,
)
from come_nav.evaluation.protocols.rows import constant_velocity, stand_still


def recording_at(stamps_s, twist=(0.4, 0.3)) -> SampleRecording:
    """A drive along one arc, seen at the given times."""
    recording = SampleRecording(len(stamps_s))
    times = np.asarray(stamps_s, float)
    recording.stamps_s = START_S + times
    recording.poses_xyyaw = se2.integrate_twist(np.full_like(times, twist[0]), np.full_like(times, twist[1]), times)
    return recording


def test_a_window_holds_four_context_frames_and_the_frame_two_seconds_later():
    recording = recording_at(np.arange(30) * 0.25)
    starts = possible_starts(recording, ProtocolSettings())
    assert starts == [(start, start + 8) for start in range(3, 22)]
    window = make_window("drive", recording, 10, 18, ProtocolSettings())
    assert window.context == (7, 8, 9, 10)
    assert window.dt_s == pytest.approx(0.25)
    assert window.rel_frames == pytest.approx(8.0)
    expected = se2.relative(recording.poses_xyyaw[10][None], recording.poses_xyyaw[11:19])
    np.testing.assert_allclose(window.driven_xyyaw, expected, atol=1e-9)
    np.testing.assert_allclose(window.context_xyyaw[-1], 0.0, atol=1e-12)
    np.testing.assert_allclose(window.context_stamps_s, [-0.75, -0.5, -0.25, 0.0], atol=1e-6)
    np.testing.assert_allclose(window.initial_twist, [0.4, 0.0, 0.3], atol=1e-6)
    assert window.goal_frame().rgb[0, 0, 0] == 18
    assert [frame.rgb[0, 0, 0] for frame in window.context_frames()] == [7, 8, 9, 10]


def test_horizon_and_context_are_parameters():
    recording = recording_at(np.arange(30) * 0.25)
    config = ProtocolSettings(context_frames=2, horizon_steps=16)
    assert possible_starts(recording, config)[0] == (1, 17)
    assert choose_windows([("drive", recording)], config, 1)[0].driven_xyyaw.shape == (16, 3)


def test_a_slow_recording_keeps_the_two_seconds_and_the_waypoint_times():
    recording = recording_at(np.arange(40) * 0.7)
    window = choose_windows([("drive", recording)], ProtocolSettings(), 3)[0]
    assert window.goal - window.start == 3
    assert window.dt_s == pytest.approx(2.1 / 8)
    assert window.rel_frames == pytest.approx(8.4)
    times = window.dt_s * np.arange(1, 9)
    exact = se2.integrate_twist(np.full(8, 0.4), np.full(8, 0.3), times)
    np.testing.assert_allclose(window.driven_xyyaw, exact, atol=0.01)  # between frames the path is interpolated
    np.testing.assert_allclose(window.driven_xyyaw[-1], exact[-1], atol=1e-6)


def test_no_window_crosses_a_gap():
    times = np.concatenate([np.arange(20), np.arange(24, 44)]) * 0.25
    starts = possible_starts(recording_at(times), ProtocolSettings())
    assert [start for start, _ in starts] == [*range(3, 12), *range(23, 32)]


def test_yaw_is_interpolated_the_short_way_round():
    recording = recording_at(np.arange(20) * 0.25, twist=(0.1, 3.0))
    window = make_window("spin", recording, 3, 11, ProtocolSettings())
    np.testing.assert_allclose(window.driven_xyyaw[:, 2], se2.wrap_angle(0.75 * np.arange(1, 9)), atol=1e-6)


@pytest.mark.parametrize("choice", ["even", "random"])
def test_choice_is_spread_paired_and_repeatable(choice):
    recordings = [("long", recording_at(np.arange(200) * 0.25)), ("short", recording_at(np.arange(15) * 0.25))]
    config = ProtocolSettings(choice=choice, seed=7)
    windows = choose_windows(recordings, config, 20)
    names = [window.recording_id for window in windows]
    assert (names.count("short"), names.count("long")) == (4, 16)  # the short one has only four windows
    again = choose_windows(recordings, config, 20)
    assert [window.start for window in windows] == [window.start for window in again]
    starts = [window.start for window in windows if window.recording_id == "long"]
    assert starts == sorted(set(starts))
    if choice == "even":
        assert np.ptp(np.diff(starts)) <= 1
    else:
        other = choose_windows(recordings, ProtocolSettings(choice=choice, seed=8), 20)
        assert [window.start for window in other] != [window.start for window in windows]
    assert len(choose_windows(recordings, config, None)) == len(choose_windows(recordings, config, 10_000)) == 193


def test_generators_depend_on_seed_window_and_purpose_alone():
    recording = recording_at(np.arange(30) * 0.25)
    config = ProtocolSettings(seed=1)
    first, second = (make_window("drive", recording, start, start + 8, config) for start in (5, 6))

    def draw(window, purpose="plan"):
        return torch.rand(3, generator=window.generator(purpose)).tolist()

    assert draw(first) == draw(make_window("drive", recording, 5, 13, config))
    others = [
        draw(second),
        draw(first, "image"),
        draw(make_window("other", recording, 5, 13, config)),
        draw(make_window("drive", recording, 5, 13, ProtocolSettings(seed=2))),
    ]
    assert draw(first) not in others


def test_too_few_frames_is_one_line_that_says_how_many_are_needed():
    with pytest.raises(DataError, match=r"walk: no window fits: 11 frames over 2\.5 s.*4 context frames and 2 s"):
        choose_windows([("walk", recording_at(np.arange(11) * 0.25))], ProtocolSettings(), 5)
    with pytest.raises(DataError, match="no window fits: 1 frames"):
        choose_windows([("walk", recording_at([0.0]))], ProtocolSettings(), 5)


@pytest.mark.parametrize(
    "values", [{"context_frames": 1}, {"horizon_steps": 0}, {"rate_hz": 0.0}, {"choice": "all"}, {"seed": -1}]
)
def test_impossible_protocols_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        ProtocolSettings(**values)


def test_trivial_rows_in_closed_form():
    recording = recording_at(np.arange(30) * 0.25)
    window = make_window("drive", recording, 10, 18, ProtocolSettings())
    generator = window.generator()
    assert not stand_still(window, generator).poses_xyyaw.any()
    # The drive is one arc, so going on with its last twist is the truth.
    np.testing.assert_allclose(constant_velocity(window, generator).poses_xyyaw, window.driven_xyyaw, atol=1e-6)
    assert waypoint_spacing_m([window]) == pytest.approx(0.1, rel=1e-3)
