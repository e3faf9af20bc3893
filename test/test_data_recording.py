"""A bag as a recording: which frames are chosen, what is reported, and what is refused in one line."""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from data_samples import HEIGHT, SECOND, START_NS, WIDTH, BagMaker, SampleRecording
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import AssociationError, ConfigError, DataError
from come_nav.core.protocols import Recording
from come_nav.data import open_recording
from come_nav.data.bags.ros_types import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, typestore
from come_nav.data.bags.writer import write_bag
from come_nav.data.decoded_frames import FRAME_CACHE
from come_nav.data.resized import ResizedRecording
from come_nav.data.timing.stamps import clean_order, find_gaps, ns_from_seconds, resample, seconds_from_ns


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**31), st.floats(4.5, 40.0), st.floats(0.0, 0.3))
def test_resampling_takes_the_nearest_frame_to_each_tick(seed, source_hz, jitter):
    rng = np.random.default_rng(seed)
    stamps = np.sort(np.arange(80) / source_hz + rng.uniform(-jitter, jitter, 80) / source_hz)
    chosen = resample(stamps, 4.0)
    assert not chosen.slower
    assert (np.diff(chosen.index) > 0).all()
    ticks = stamps[0] + np.arange(int((stamps[-1] - stamps[0]) * 4 + 0.5) + 1) * 0.25
    for index in chosen.index:
        tick = ticks[np.argmin(np.abs(ticks - stamps[index]))]
        assert abs(stamps[index] - tick) <= 0.125 + 1e-9
    assert chosen.missed_ticks == len(ticks) - len(chosen.index)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(5.0, 40.0))
def test_resampling_twice_changes_nothing(seed, source_hz):
    """A recording that was converted once at a rate is read back whole at that rate."""
    stamps = np.cumsum(np.random.default_rng(seed).uniform(0.9, 1.1, 100)) / source_hz
    once = stamps[resample(stamps, 4.0).index]
    assert len(resample(once, 4.0).index) == len(once)


def test_resampling_special_cases():
    exact = np.arange(31) / 30.0
    np.testing.assert_array_equal(resample(exact, 10.0).index, np.arange(0, 31, 3))
    slow = resample(np.arange(10) / 1.5, 4.0)
    assert slow.slower
    assert slow.rate_hz == pytest.approx(1.5)
    assert len(slow.index) == 10
    assert len(resample(exact, None).index) == 31
    assert resample(exact, None).rate_hz == pytest.approx(30.0)
    assert list(resample(np.array([5.0]), 4.0).index) == [0]
    holed = np.concatenate([np.arange(10), np.arange(20, 30)]) / 8.0
    chosen = resample(holed, 4.0)
    assert chosen.missed_ticks == 4
    gaps = find_gaps(holed[chosen.index], 0.6)
    assert [(gap.index, gap.duration_s) for gap in gaps] == [(5, pytest.approx(1.375))]


def test_stamps_keep_their_nanoseconds():
    stamps_ns = np.array([1_700_000_000_250_000_000, 1_700_000_000_250_000_001, 7], np.int64)
    seconds = seconds_from_ns(stamps_ns)
    assert seconds[0] == 1_700_000_000.25
    assert seconds[2] == 7e-9
    assert ns_from_seconds(1_700_000_000.25) == stamps_ns[0]


@given(st.floats(0, 4e9))
def test_seconds_survive_nanoseconds(stamp_s):
    back = seconds_from_ns(np.array([ns_from_seconds(stamp_s)], np.int64))[0]
    assert back == stamp_s or abs(back - stamp_s) <= 0.5e-9


@given(st.lists(st.integers(0, SECOND), min_size=1, max_size=40))
def test_clean_order_is_strictly_increasing_and_complete(values):
    stamps_ns = np.array(values, np.int64)
    warnings: list[str] = []
    order = clean_order(stamps_ns, "/x", warnings)
    assert (np.diff(stamps_ns[order]) > 0).all()
    assert set(stamps_ns[order]) == set(values)
    assert bool(warnings) == (values != sorted(set(values)))


def test_recording_fulfils_the_protocol(tmp_path):
    with open_recording(write_bag(tmp_path / "drive", SampleRecording(5))) as recording:
        assert isinstance(recording, Recording)
        assert recording.name == "drive"
        assert recording.segments == [(0, 5)]
        assert recording.report.association.matched == 5
        with pytest.raises(IndexError):
            recording.frame(5)
        for index in range(5):
            assert recording.frame(index) is recording.frame(index)
        assert len(recording._frames) <= FRAME_CACHE


def test_fast_bag_is_resampled_and_poses_are_interpolated(tmp_path):
    """Images at 10 Hz, odometry at 7 Hz: the pose at each image lies on the line between."""
    maker = BagMaker()
    for index in range(41):
        maker.image(START_NS + index * SECOND // 10, index)
    for index in range(29):
        maker.odometry(START_NS + index * SECOND // 7, index / 7.0, yaw=0.1 * index / 7.0)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert recording.rate_hz == 4.0
        assert recording.report.source_rate_hz == pytest.approx(10.0)
        since = recording.stamps_s - recording.stamps_s[0]
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], since, atol=2e-6)
        np.testing.assert_allclose(recording.poses_xyyaw[:, 2], 0.1 * since, atol=1e-6)
        assert [int(recording.frame(i).rgb[0, 0, 0]) for i in range(4)] == [round(10 * t) for t in since[:4]]


def test_slow_bag_keeps_every_frame_and_says_so(tmp_path):
    with open_recording(BagMaker().drive(12, rate_hz=1.5).write(tmp_path / "run")) as recording:
        assert len(recording) == 12
        assert recording.rate_hz == pytest.approx(1.5)
        assert recording.report.slower_than_asked
        assert any("below 4 Hz" in warning for warning in recording.report.warnings)
        assert recording.gaps == ()


def test_gap_splits_the_recording(tmp_path):
    maker = BagMaker()
    for index in [*range(12), *range(24, 36)]:
        maker.image(START_NS + index * SECOND // 4, index)
    for index in range(36):
        maker.odometry(START_NS + index * SECOND // 4, 0.1 * index)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert [(gap.index, gap.duration_s) for gap in recording.gaps] == [(11, pytest.approx(3.25))]
        assert recording.segments == [(0, 12), (12, 24)]
        assert recording.report.missed_ticks == 12
        np.testing.assert_allclose(recording.poses_xyyaw[12, 0], 2.4, atol=1e-9)


def test_images_without_a_pose_are_left_out(tmp_path):
    maker = BagMaker()
    for index in range(20):
        maker.image(START_NS + index * SECOND // 4, index)
    for index in [*range(4, 8), *range(14, 18)]:  # starts late, pauses for longer than interpolation is trusted
        maker.odometry(START_NS + index * SECOND // 4, 0.1 * index)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        values = [int(recording.frame(index).rgb[0, 0, 0]) for index in range(len(recording))]
        assert values == [*range(4, 8), *range(14, 18)]
        assert any("12 of 20 images have no pose" in warning for warning in recording.report.warnings)
        assert recording.segments == [(0, 4), (4, 8)]


def test_part_of_a_bag(tmp_path):
    folder = BagMaker().drive(40).write(tmp_path / "run")
    with open_recording(folder, start_s=2.0, stop_s=4.0) as recording:
        assert [int(recording.frame(index).rgb[0, 0, 0]) for index in (0, 7)] == [8, 15]
        assert len(recording) == 8
    with pytest.raises(DataError, match="no message in the chosen part"):
        open_recording(folder, start_s=100.0)


def test_no_overlap_in_time_tells_the_offset_that_mends_it(tmp_path):
    folder = BagMaker().drive(20, offset_ns=1000 * SECOND).write(tmp_path / "run")
    with pytest.raises(AssociationError) as caught:
        open_recording(folder)
    assert "matched 0 of 20" in str(caught.value)
    assert "--time-offset -1000.000" in str(caught.value)
    with open_recording(folder, time_offset_s=-1000.0) as recording:
        assert len(recording) == 20
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], 0.1 * np.arange(20), atol=1e-9)


def test_unsorted_and_doubled_stamps_are_counted(tmp_path):
    maker = BagMaker()
    order = [0, 1, 3, 2, 4, 5, 5, 6, 7]
    for log, index in enumerate(order):
        maker.image(START_NS + index * SECOND // 4, index, log_ns=START_NS + log * SECOND // 4)
        maker.odometry(START_NS + index * SECOND // 4, 0.1 * index, log_ns=START_NS + log * SECOND // 4)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert [int(recording.frame(index).rgb[0, 0, 0]) for index in range(8)] == list(range(8))
        text = " ".join(recording.report.warnings)
        assert "1 of 9 stamps were out of order" in text
        assert "1 of 9 stamps were duplicates" in text


def test_recording_is_cut_where_the_clock_steps_back(tmp_path):
    maker = BagMaker()
    for log in range(20):
        stamp_ns = START_NS + (log - (60 if log >= 10 else 0)) * SECOND // 4
        maker.image(stamp_ns, log, log_ns=START_NS + log * SECOND // 4)
        maker.odometry(stamp_ns, 0.1 * log, log_ns=START_NS + log * SECOND // 4)
    folder = maker.write(tmp_path / "run")
    with open_recording(folder) as recording:
        assert [int(recording.frame(index).rgb[0, 0, 0]) for index in range(len(recording))] == list(range(10))
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], 0.1 * np.arange(10), atol=1e-9)
        notes = [note for note in recording.report.warnings if "clock steps back by 14.750 s at message 10" in note]
        assert len(notes) == 2  # images and poses
    with open_recording(folder, stop_s=2.5) as recording:
        assert len(recording) == 10
        assert not recording.report.warnings


def test_empty_header_stamps_fall_back_to_recording_time(tmp_path):
    maker = BagMaker()
    for index in range(8):
        log_ns = START_NS + index * SECOND // 4
        maker.image(0, index, log_ns=log_ns)
        maker.odometry(0, 0.1 * index, log_ns=log_ns)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert len(recording) == 8
        assert recording.stamps_s[0] == START_NS / SECOND


def test_depth_is_matched_to_colour(tmp_path):
    maker = BagMaker().drive(12)
    for index in range(0, 12, 2):
        maker.depth(START_NS + index * SECOND // 4 + 10_000_000)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        known = [recording.frame(index).depth_m is not None for index in range(12)]
        assert known == [True, False] * 6
        assert recording.report.depth_association.matched == 6
        assert any("6 of 12 frames have no depth" in warning for warning in recording.report.warnings)
    with open_recording(tmp_path / "run", depth_topic="none") as recording:
        assert recording.frame(0).depth_m is None
        assert "depth" not in recording.report.topics


def test_sizes_that_do_not_agree(tmp_path):
    maker = BagMaker().drive(4)
    maker.depth(START_NS, (HEIGHT // 2, WIDTH // 2))
    message = r"run: frame 0 at .*depth is 12x8 but the image is 24x16"
    with open_recording(maker.write(tmp_path / "run")) as recording, pytest.raises(DataError, match=message):
        recording.frame(0)
    maker = BagMaker().drive(4)
    sample = SampleRecording(1)
    raw = maker.make.camera_info(START_NS, "camera", sample.intrinsics.scaled(WIDTH * 2, HEIGHT * 2))
    maker.add(START_NS, "/camera/color/camera_info", "sensor_msgs/msg/CameraInfo", raw)
    wrong = maker.make.image(START_NS + SECOND, "camera", np.zeros((5, 7, 3), np.uint8))
    maker.add(START_NS + SECOND, "/camera/color/image_raw", "sensor_msgs/msg/Image", wrong)
    maker.odometry(START_NS + SECOND, 1.0)
    with open_recording(maker.write(tmp_path / "two")) as recording:
        assert recording.intrinsics == sample.intrinsics  # scaled to the images
        assert len(recording) == 4  # without the one of another size
        assert any("it has 7x5 px, and the first ones 24x16" in note for note in recording.report.warnings)
    maker = BagMaker().drive(4)
    raw = maker.make.camera_info(START_NS, "camera", sample.intrinsics.scaled(WIDTH * 2, HEIGHT))
    maker.add(START_NS, "/camera/color/camera_info", "sensor_msgs/msg/CameraInfo", raw)
    with pytest.raises(DataError, match="is for 48x16 images"):
        open_recording(maker.write(tmp_path / "three"))


def test_distortion_is_told(tmp_path):
    maker = BagMaker().drive(4)
    raw = maker.make.camera_info(START_NS, "camera", SampleRecording(1).intrinsics)
    store = typestore(False)
    info = store.deserialize_cdr(raw, CAMERA_INFO)
    info.d = np.array([-0.3, 0.1, 0.0, 0.0, 0.0])
    maker.add(START_NS, "/camera/color/camera_info", CAMERA_INFO, bytes(store.serialize_cdr(info, CAMERA_INFO)))
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert any("lens distortion [-0.3" in warning for warning in recording.report.warnings)


def test_poses_with_nan(tmp_path):
    maker = BagMaker().drive(10)
    maker.odometry(START_NS + SECOND // 8, np.nan)
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert np.isfinite(recording.T_odom_base).all()
        assert any("1 of 11 poses are NaN" in warning for warning in recording.report.warnings)
    maker = BagMaker()
    for index in range(4):
        maker.image(START_NS + index * SECOND // 4)
        maker.odometry(START_NS + index * SECOND // 4, np.nan)
    with pytest.raises(DataError, match="none of the 4 poses is finite"):
        open_recording(maker.write(tmp_path / "all_nan"))


def test_topics_are_chosen_by_type_and_name(tmp_path):
    maker = BagMaker()
    for index in range(8):
        stamp_ns = START_NS + index * SECOND // 4
        maker.image(stamp_ns, 1, "/camera/infra1/image_rect")
        maker.image(stamp_ns, 2, "/camera/color/image_raw")
        maker.jpeg(stamp_ns, 3, "/camera/color/image_raw/compressed")
        maker.depth(stamp_ns, topic="/camera/depth/image_rect_raw")
        maker.depth(stamp_ns, topic="/camera/aligned_depth_to_color/image_raw")
        maker.odometry(stamp_ns, 5.0, topic="/mocap/ground_truth/odom")
        maker.odometry(stamp_ns, 0.1 * index, topic="/wheel/odometry")
        for topic in ("/camera/color/camera_info", "/camera/infra1/camera_info"):
            raw = maker.make.camera_info(stamp_ns, "camera", SampleRecording(1).intrinsics)
            maker.add(stamp_ns, topic, "sensor_msgs/msg/CameraInfo", raw)
    folder = maker.write(tmp_path / "run")
    with open_recording(folder) as recording:
        assert recording.report.topics == {
            "image": "/camera/color/image_raw",
            "pose": "/wheel/odometry",
            "depth": "/camera/aligned_depth_to_color/image_raw",
            "info": "/camera/color/camera_info",
        }
    with open_recording(folder, image_topic="/camera/infra1/image_rect") as recording:
        assert recording.frame(0).rgb[0, 0, 0] == 1
        assert recording.report.topics["info"] == "/camera/infra1/camera_info"
    with pytest.raises(DataError, match=r"no topic '/wheel/odom' in the bag; did you mean '/wheel/odometry'"):
        open_recording(folder, pose_topic="/wheel/odom")
    with pytest.raises(DataError, match="--pose-topic /camera/color/image_raw is a sensor_msgs/msg/Image"):
        open_recording(folder, pose_topic="/camera/color/image_raw")


def test_bags_without_images_or_poses(tmp_path):
    maker = BagMaker()
    maker.odometry(START_NS, 0.0)
    with pytest.raises(DataError, match=r"no colour image topic; the bag holds /odom \(Odometry\)"):
        open_recording(maker.write(tmp_path / "blind"))
    maker = BagMaker()
    maker.image(START_NS)
    with pytest.raises(DataError, match="no odometry, pose or /tf topic"):
        open_recording(maker.write(tmp_path / "lost"))


def test_unknown_and_bad_settings(tmp_path):
    folder = BagMaker().drive(4).write(tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean 'time_offset_s'"):
        open_recording(folder, time_offset=1.0)
    with pytest.raises(ConfigError, match="rate_hz"):
        open_recording(folder, rate_hz=-1.0)


def test_resized_recording(tmp_path):
    with open_recording(write_bag(tmp_path / "drive", SampleRecording(3))) as recording:
        small = ResizedRecording(recording, 12, 8)
        assert isinstance(small, Recording)
        for member in (name for name in dir(Recording) if not name.startswith("_")):
            inspect.getattr_static(small, member)  # what isinstance asks for from Python 3.12 on
        assert (small.name, small.segments) == (recording.name, recording.segments)
        frame = small.frame(1)
        assert frame.rgb.shape == (8, 12, 3)
        assert frame.depth_m.shape == (8, 12)
        np.testing.assert_allclose(frame.rgb[0, :, 1], np.arange(12) * 2 + 0.5, atol=0.51)
        assert frame.intrinsics == recording.intrinsics.scaled(12, 8) == small.intrinsics
        assert small.rate_hz == 4.0
        whole = recording.frame(1)
        told = replace(whole, moving=np.arange(whole.rgb.shape[1]) * np.ones((len(whole.rgb), 1)) < 8)
        moving = ResizedRecording(SimpleNamespace(frame=lambda _: told, intrinsics=None), 12, 8).frame(1).moving
        np.testing.assert_array_equal(moving, np.arange(12) * np.ones((8, 1)) < 4)


@pytest.mark.shared_data
def test_real_recordings(shared_data):
    with open_recording(shared_data / "bags" / "kitchen") as kitchen:
        assert (len(kitchen), kitchen.rate_hz, kitchen.gaps) == (134, 4.0, ())
        assert kitchen.report.association.matched == 250
        frame = kitchen.frame(40)
        assert frame.rgb.shape == (240, 320, 3)
        assert 0.5 < np.isfinite(frame.depth_m).mean() <= 1.0
        assert 0.3 < np.nanmedian(frame.depth_m) < 5.0
        np.testing.assert_allclose(kitchen.T_base_camera[2, 1], -1.0)
    with open_recording(shared_data / "bags" / "cabinet") as cabinet:
        assert len(cabinet) == 58
        assert cabinet.rate_hz == pytest.approx(1.49, abs=0.01)
        assert cabinet.report.slower_than_asked


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_images_of_another_size_are_left_out_with_a_note(tmp_path, kind):
    maker = BagMaker()
    for index in range(24):
        stamp_ns = START_NS + index * SECOND // 4
        large = np.full((32, 48, 3), index, np.uint8) if index in (7, 8, 20) else np.full((16, 24, 3), index, np.uint8)
        if kind == "raw":
            maker.add(stamp_ns, "/camera/image_raw", IMAGE, maker.make.image(stamp_ns, "camera", large))
        else:
            raw = maker.make.jpeg(stamp_ns, "camera", large)
            maker.add(stamp_ns, "/camera/image_raw/compressed", COMPRESSED_IMAGE, raw)
        maker.odometry(stamp_ns, 0.1 * index)
    with open_recording(maker.write(tmp_path / "bag")) as recording:
        assert len(recording) == 21
        told = "left out 3 of 24 images; the first, at 1700000001.750 s: it has 48x32 px, and the first ones 24x16"
        assert any(told in note for note in recording.report.warnings)
        assert {recording.frame(index).rgb.shape for index in range(21)} == {(16, 24, 3)}
