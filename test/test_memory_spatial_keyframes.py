"""Key frames with the ways between them, and memories of a recorded drive."""

from __future__ import annotations

import math

import numpy as np
import pytest
from data_samples import SampleRecording

from come_nav.core.errors import ConfigError, DataError, ShapeError
from come_nav.core.types import Frame
from come_nav.memory.keyframes import Keyframes, KeyframesSettings
from come_nav.memory.spatial.building import remember
from come_nav.memory.spatial.cloud import SpatialMemory

NO_JOINS = KeyframesSettings(join_m=0.0)


def image(value: int) -> np.ndarray:
    return np.full((8, 10, 3), value, np.uint8)


def drive(frames: Keyframes, poses, start_s: float = 0.0) -> Keyframes:
    for index, pose in enumerate(poses):
        frames.observe(Frame(start_s + index, image(index % 250)), np.asarray(pose, float))
    return frames


def straight(count: int, step_m: float = 0.5) -> list[tuple[float, float, float]]:
    return [(step_m * index, 0.0, 0.0) for index in range(count)]


def test_frames_are_kept_after_a_distance_or_a_turn():
    frames = drive(Keyframes(), [(0.125 * index, 0.0, 0.0) for index in range(21)])
    np.testing.assert_allclose(np.diff(frames.poses_xyyaw[:, 0]), 0.5)
    turning = drive(Keyframes(), [(0.0, 0.0, 0.125 * index) for index in range(21)])
    np.testing.assert_allclose(np.diff(turning.poses_xyyaw[:, 2]), 0.5)


def test_too_many_frames_thin_out_evenly_and_keep_both_ends():
    frames = drive(Keyframes(KeyframesSettings(max_count=20)), straight(200))
    assert len(frames) == 20
    places = frames.poses_xyyaw[:, 0]
    assert places[[0, -1]].tolist() == [0.0, 99.5]
    assert np.diff(places).max() <= 4 * np.diff(places).mean()


def test_where_the_robot_was_at_a_time_and_who_is_nearest():
    frames = drive(Keyframes(KeyframesSettings(image_format="png")), straight(10))
    then = frames.at_time(6.4)
    assert (then.index, then.stamp_s) == (6, 6.0)
    np.testing.assert_array_equal(then.rgb, image(6))
    assert frames.nearest_pose(np.array([3.4, 1.0, 0.0])).index == 7
    turned = drive(Keyframes(), [(0.0, 0.0, 0.0), (0.0, 0.0, 2.0)])
    assert turned.nearest_pose(np.array([0.0, 0.0, 1.8])).index == 1
    assert Keyframes().at_time(0.0) is None
    assert Keyframes().nearest_pose(np.zeros(3)) is None


def test_jpeg_images_are_near_the_original():
    gradient = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 3, np.arange(64)[None] * 3, 90), axis=2)
    frames = Keyframes()
    frames.observe(Frame(0.0, gradient.astype(np.uint8)), np.zeros(3))
    assert np.abs(frames[0].rgb.astype(int) - gradient).mean() < 3.0
    assert frames.nbytes < gradient.size / 4


def test_a_chain_follows_the_drive_and_takes_the_shortcut_of_a_closed_loop():
    square = [(x, 0, 0) for x in np.arange(0, 5, 0.5)] + [(5, y, 1.5) for y in np.arange(0, 5, 0.5)]
    square += [(x, 5, 3.1) for x in np.arange(5, 0, -0.5)] + [(0, y, -1.5) for y in np.arange(5, 0.4, -0.5)]
    apart, joined = drive(Keyframes(NO_JOINS), square), drive(Keyframes(KeyframesSettings(join_rad=2.0)), square)
    last = len(apart) - 1
    assert apart.chain(0, last) == list(range(last + 1))
    assert joined.chain(0, last) == [0, last]
    assert joined.chain(3, 3) == [3]
    way = joined.poses_xyyaw[joined.chain(15, 35)]
    assert np.linalg.norm(np.diff(way[:, :2], axis=0), axis=1).max() <= 0.8


def test_headings_too_different_are_no_shortcut():
    there_and_back = straight(6) + [(x, 0.1, math.pi) for x in np.arange(2.5, -0.1, -0.5)]
    frames = drive(Keyframes(KeyframesSettings(join_rad=1.2)), there_and_back)
    assert len(frames.chain(0, len(frames) - 1)) == len(frames)
    assert len(drive(Keyframes(), there_and_back).chain(0, len(frames) - 1)) < len(frames)  # a robot can turn


def test_no_way_leads_between_legs_that_never_met():
    frames = drive(Keyframes(), straight(4))
    frames.begin_leg()
    drive(frames, [(50.0 + x, y, yaw) for x, y, yaw in straight(4)], start_s=2.0)
    assert len(frames) == 8, "a new leg may have an older clock"
    assert frames.chain(0, 5) is None
    assert frames.chain(4, 7) == [4, 5, 6, 7]
    with pytest.raises(DataError, match=r"key frame 8 must be in \[0, 7\]"):
        frames.chain(0, 8)


def test_impossible_frames_are_counted():
    frames = drive(Keyframes(), straight(2))
    assert not frames.observe(Frame(9.0, image(0)), np.array([np.nan, 0, 0]))
    assert not frames.observe(Frame(math.nan, image(0)), np.array([9.0, 0, 0]))
    assert not frames.observe(Frame(0.5, image(0)), np.array([9.0, 0, 0]))
    assert dict(frames.rejected) == {"bad_pose": 1, "bad_stamp": 1, "out_of_order": 1}


def test_state_round_trip_and_its_errors():
    frames, again = drive(Keyframes(), straight(5)), Keyframes()
    again.load_state(frames.state())
    np.testing.assert_array_equal(again.poses_xyyaw, frames.poses_xyyaw)
    np.testing.assert_array_equal(again[3].rgb, frames[3].rgb)
    assert again.chain(0, 4) == frames.chain(0, 4)
    drive(again, [(90.0, 0.0, 0.0)], start_s=100.0)
    assert again.chain(0, 5) is None, "the robot may have been carried since"
    empty = Keyframes()
    empty.load_state(Keyframes().state())
    assert len(empty) == 0
    small = Keyframes(KeyframesSettings(max_count=4))
    small.load_state(frames.state())
    assert len(small) == 4
    state = frames.state()
    with pytest.raises(ShapeError, match="ends is missing"):
        again.load_state({name: array for name, array in state.items() if name != "ends"})
    with pytest.raises(ShapeError, match="must fill"):
        again.load_state({**state, "images": state["images"][:-1]})


def test_impossible_settings_name_the_field():
    with pytest.raises(ConfigError, match=r"keyframes\.max_count"):
        KeyframesSettings(max_count=1)
    with pytest.raises(ConfigError, match=r"keyframes\.image_format"):
        KeyframesSettings(image_format="gif")


# --- memories of a recording -----------------------------------------------------------------------------------------


def test_a_recording_fills_all_memories_with_its_poses_or_others():
    recording, seen = SampleRecording(12), []
    cloud, frames = SpatialMemory(), Keyframes(KeyframesSettings(spacing_m=0.3))
    assert remember(recording, [cloud, frames], 2, 10, progress=seen.append) == 8
    assert cloud.frames == len(seen) == 8
    assert frames.stamps_s[0] == recording.stamps_s[2]
    shifted = recording.poses_xyyaw + np.array([100.0, 0.0, 0.0])
    moved = SpatialMemory()
    remember(recording, [moved], 2, 10, poses=shifted)
    np.testing.assert_allclose(
        np.median(moved.points_xyz, axis=0) - np.median(cloud.points_xyz, axis=0), [100, 0, 0], atol=0.02
    )


def test_damaged_frames_are_skipped_and_wrong_ranges_refused():
    class Damaged(SampleRecording):
        def frame(self, index: int) -> Frame:
            if index % 2 or self.metadata.get("all"):
                raise DataError(f"frame {index} is damaged")
            return super().frame(index)

    cloud = SpatialMemory()
    assert remember(Damaged(6), [cloud]) == cloud.frames == 3
    with pytest.raises(DataError, match="no frame from 0 to 6 can be decoded"):
        remember(Damaged(6, metadata={"all": True}), [cloud])
    for start, stop in [(0, 7), (3, 3), (-1, 2)]:
        with pytest.raises(DataError, match="must lie within its 6 frames"):
            remember(SampleRecording(6), [cloud], start, stop)
    with pytest.raises(DataError, match="6 frames, but there are 5 poses"):
        remember(SampleRecording(6), [cloud], poses=np.zeros((5, 3)))
