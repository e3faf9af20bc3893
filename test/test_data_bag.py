"""Bags of every kind are read back as they were written, seek by time, and fail with one clear line."""

from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest
from data_samples import HEIGHT, SECOND, START_NS, WIDTH, BagMaker, SampleRecording

from come_nav.core.errors import ComeNavError, ConfigError, DataError, StorageError
from come_nav.core.geometry import se3
from come_nav.core.types import Trajectory
from come_nav.data import open_recording
from come_nav.data.bags.bag import open_bag
from come_nav.data.bags.writer import quality_of_service, write_bag

FORMS = [
    ("mcap", "none"),
    ("mcap", "chunk"),
    ("mcap", "file"),
    ("mcap", "message"),
    ("sqlite3", "none"),
    ("sqlite3", "file"),
    ("sqlite3", "message"),
]


@pytest.mark.parametrize(("storage", "compression"), FORMS)
@pytest.mark.parametrize("named", ["folder", "metadata", "file"])
def test_written_recording_is_read_back(tmp_path, storage, compression, named):
    sample = SampleRecording(metadata={"world": 20003, "driver": "tour", "start": np.array([1.0, 2.0])})
    folder = write_bag(tmp_path / "drive", sample, storage, compression)
    storage_file = next(item for item in folder.iterdir() if item.name != "metadata.yaml")
    path = {"folder": folder, "metadata": folder / "metadata.yaml", "file": storage_file}[named]
    with open_recording(path) as recording:
        assert len(recording) == len(sample)
        assert recording.rate_hz == 4.0
        assert recording.gaps == ()
        assert recording.intrinsics == sample.intrinsics
        assert recording.metadata == {"world": 20003, "driver": "tour", "start": [1.0, 2.0]}
        np.testing.assert_array_equal(recording.stamps_s, sample.stamps_s)
        np.testing.assert_allclose(recording.T_odom_base, sample.T_odom_base, atol=1e-12)
        np.testing.assert_allclose(recording.T_base_camera, sample.T_base_camera, atol=1e-12)
        for index in (5, 0, 11, 5):
            frame, truth = recording.frame(index), sample.frame(index)
            np.testing.assert_array_equal(frame.rgb, truth.rgb)
            np.testing.assert_allclose(frame.depth_m, truth.depth_m, atol=1e-6)
            assert frame.frame_id == truth.frame_id


def test_jpeg_and_float_depth(tmp_path):
    sample = SampleRecording(3)
    folder = write_bag(tmp_path / "drive", sample, image="jpeg", depth="32FC1")
    with open_bag(folder) as bag:
        assert "/camera/color/image_raw/compressed" in bag.topics
        encodings = [message.decode().encoding for message in bag.messages(["/camera/depth/image_raw"])]
    assert encodings == ["32FC1"] * 3
    with open_recording(folder) as recording:
        frame = recording.frame(2)
    assert np.abs(frame.rgb.astype(int) - sample.frame(2).rgb).mean() < 4
    np.testing.assert_array_equal(frame.depth_m, sample.frame(2).depth_m)


def test_bag_carries_what_players_need(tmp_path):
    from rosbags.interfaces import QosDurability
    from rosbags.rosbag2 import Reader

    sample = SampleRecording(4)
    truth = Trajectory.from_xyyaw(sample.stamps_s[:-1] + 0.1, sample.poses_xyyaw[:-1], "world")
    folder = write_bag(tmp_path / "drive", sample, ground_truth=truth)
    with Reader(folder) as reader:
        links = {link.topic: link for link in reader.connections}
        times = [log_ns for _, log_ns, _ in reader.messages()]
    assert set(links) == {
        "/camera/color/image_raw",
        "/camera/color/camera_info",
        "/camera/depth/image_raw",
        "/odom",
        "/tf",
        "/tf_static",
        "/ground_truth/odom",
    }
    assert times == sorted(times)
    assert links["/tf_static"].ext.offered_qos_profiles[0].durability == QosDurability.TRANSIENT_LOCAL
    assert links["/odom"].ext.offered_qos_profiles == [quality_of_service(latched=False)]
    for link in links.values():
        assert link.msgdef.data  # definitions are embedded
        assert link.digest.startswith("RIHS01_")
    # the hash that ROS 2 Jazzy itself gives sensor_msgs/msg/CameraInfo
    assert links["/camera/color/camera_info"].digest.endswith(
        "b3dfd68ff46c9d56c80fd3bd4ed22c7a4ddce8c8348f2f59c299e73118e7e275"
    )
    with open_recording(folder, pose_topic="/ground_truth/odom") as recording:
        assert recording.report.topics["pose"] == "/ground_truth/odom"
    with open_recording(folder) as recording:
        assert recording.report.topics["pose"] == "/odom"


def test_camera_info_uses_pixel_centres_of_ros(tmp_path):
    folder = write_bag(tmp_path / "drive", SampleRecording(2))
    with open_bag(folder) as bag:
        info = next(iter(bag.messages(["/camera/color/camera_info"]))).decode()
    np.testing.assert_allclose(info.k, [12.0, 0, 11.5, 0, 12.5, 7.5, 0, 0, 1])


@pytest.mark.parametrize("compression", [None, "BZ2", "LZ4"])
def test_ros1_bag(tmp_path, compression):
    maker = BagMaker().drive(30)
    T_base_camera = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.25, 0.0, 0.5]))
    maker.transform(START_NS, ("base_link", "camera"), T_base_camera, topic="/tf_static")
    path = maker.write_ros1(tmp_path / "run.bag", compression)
    with open_recording(path) as recording:
        assert recording.bag.storage == "rosbag1"
        assert len(recording) == 30
        assert [int(recording.frame(index).rgb[0, 0, 0]) for index in (29, 3, 17, 18)] == [29, 3, 17, 18]
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], 0.1 * np.arange(30), atol=1e-12)
        np.testing.assert_array_equal(recording.T_base_camera, T_base_camera)


@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "rosbag1"])
def test_seeking_gives_the_half_open_range(tmp_path, kind):
    maker = BagMaker().drive(40)
    path = maker.write_ros1(tmp_path / "run.bag") if kind == "rosbag1" else maker.write(tmp_path / "run", kind)
    with open_bag(path) as bag:
        start, stop = START_NS + 2 * SECOND, START_NS + 4 * SECOND
        found = [message.log_ns for message in bag.messages(["/odom"], start, stop)]
        assert found == [START_NS + index * SECOND // 4 for index in range(8, 16)]
        interleaved = zip(bag.messages(["/odom"]), bag.messages(["/camera/color/image_raw"], start), strict=False)
        assert all(right.log_ns - left.log_ns == 2 * SECOND for left, right in interleaved)
        assert bag.topics["/odom"].count == 40
        assert bag.topics["/odom"].rate_hz == pytest.approx(4.0)
        assert bag.duration_s == pytest.approx(39 / 4)


def test_split_bag_without_metadata(tmp_path):
    """A killed recorder writes no metadata.yaml; its finished files are still read, in order."""
    folder = tmp_path / "split"
    folder.mkdir()
    for part in range(2):
        maker = BagMaker()
        for index in range(part * 10, part * 10 + 10):
            maker.image(START_NS + index * SECOND // 4, index)
            maker.odometry(START_NS + index * SECOND // 4, 0.1 * index)
        maker.write(tmp_path / f"part_{part}")
        shutil.copy(tmp_path / f"part_{part}" / f"part_{part}.mcap", folder / f"part_{part}.mcap")
    with open_recording(folder) as recording:
        assert len(recording) == 20
        assert recording.frame(13).rgb[0, 0, 0] == 13
        assert any("metadata.yaml" in warning for warning in recording.report.warnings)


def test_recording_survives_pickling(tmp_path):
    """Data-loader workers get a copy; it opens its own files."""
    folder = write_bag(tmp_path / "drive", SampleRecording(6))
    with open_recording(folder) as recording:
        copy = pickle.loads(pickle.dumps(recording))
        np.testing.assert_array_equal(copy.frame(4).rgb, recording.frame(4).rgb)
        copy.close()


@pytest.mark.parametrize("kind", ["mcap", "chunk", "sqlite3", "rosbag1", "zstd"])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.01, 0.2, 0.5, 0.9, 0.99, 0.9999])
def test_cut_off_bag_is_one_line(tmp_path, kind, fraction):
    maker = BagMaker().drive(60)
    if kind == "rosbag1":
        target = maker.write_ros1(tmp_path / "run.bag")
        storage = target
    else:
        compression = {"chunk": "STORAGE", "zstd": "FILE"}.get(kind, "NONE")
        target = maker.write(tmp_path / "run", "sqlite3" if kind == "sqlite3" else "mcap", compression)
        storage = next(item for item in target.iterdir() if item.name != "metadata.yaml")
    os.truncate(storage, int(fraction * storage.stat().st_size))
    for path in {target, storage}:
        with pytest.raises(DataError) as caught, open_recording(path) as recording:
            for index in range(len(recording)):
                recording.frame(index)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value) or recording.name in str(caught.value)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.8])
def test_flipped_bytes_never_give_a_traceback(tmp_path, place):
    target = BagMaker().drive(40).write(tmp_path / "run", "mcap", "STORAGE")
    storage = target / "run.mcap"
    data = bytearray(storage.read_bytes())
    middle = int(place * len(data))
    data[middle : middle + 64] = bytes(value ^ 0xFF for value in data[middle : middle + 64])
    storage.write_bytes(data)
    try:
        with open_recording(target) as recording:
            for index in range(len(recording)):
                recording.frame(index)
    except ComeNavError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("compression", ["NONE", "STORAGE"])
def test_recovery_reads_what_is_whole(tmp_path, compression):
    maker = BagMaker().drive(4)
    rng = np.random.default_rng(0)
    for index in range(400):  # noise fills several chunks, so that some are whole
        rgb = rng.integers(0, 255, (HEIGHT * 4, WIDTH * 4, 3), np.uint8)
        stamp_ns = START_NS + index * SECOND // 4
        maker.add(stamp_ns, "/other/image", "sensor_msgs/msg/Image", maker.make.image(stamp_ns, "other", rgb))
    for index in range(4, 400):
        maker.image(START_NS + index * SECOND // 4, index % 256)
        maker.odometry(START_NS + index * SECOND // 4, 0.1 * index)
    folder = maker.write(tmp_path / "run", "mcap", compression)
    size = (folder / "run.mcap").stat().st_size
    os.truncate(folder / "run.mcap", int(0.7 * size))
    with pytest.raises(DataError, match="--recover"):
        open_recording(folder, image_topic="/camera/color/image_raw")
    with open_recording(folder, recover=True, image_topic="/camera/color/image_raw") as recording:
        assert 150 < len(recording) < 290
        last = len(recording) - 1
        assert recording.frame(last).rgb[0, 0, 0] == last % 256


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mcap", None, "no such file"),
        ("empty.mcap", b"", "empty"),
        ("empty.bag", b"", "empty"),
        ("words.bag", b"these are only words\n" * 100, "damaged"),
        ("words.db3", b"these are only words\n" * 100, "damaged"),
        ("notes.txt", b"hello", "not a bag"),
    ],
)
def test_what_is_no_bag(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_bag(tmp_path / name)


def test_missing_bag_suggests_the_near_name(tmp_path):
    BagMaker().drive(2).write(tmp_path / "kitchen")
    with pytest.raises(DataError, match="did you mean 'kitchen'"):
        open_bag(tmp_path / "kichen")


def test_metadata_problems(tmp_path):
    folder = BagMaker().drive(2).write(tmp_path / "run")
    text = (folder / "metadata.yaml").read_text()
    for broken in ("{", "just words", text[: len(text) // 3], text.replace("run.mcap", "gone.mcap")):
        (folder / "metadata.yaml").write_text(broken)
        with pytest.raises(DataError) as caught:
            open_bag(folder)
        assert "\n" not in str(caught.value)


def test_bag_without_messages(tmp_path):
    folder = BagMaker().write(tmp_path / "run")
    with pytest.raises(DataError, match="empty"):
        open_bag(folder)


def test_folder_without_a_bag(tmp_path):
    with pytest.raises(DataError, match="neither a bag"):
        open_recording(tmp_path)


def test_writer_refuses_and_replaces(tmp_path):
    sample = SampleRecording(3)
    folder = write_bag(tmp_path / "drive", sample)
    with pytest.raises(StorageError, match="--overwrite"):
        write_bag(folder, sample)
    write_bag(folder, SampleRecording(5), overwrite=True)
    with open_recording(folder) as recording:
        assert len(recording) == 5
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.jpg").write_bytes(b"x")
    with pytest.raises(StorageError, match="not replaced"):
        write_bag(other, sample, overwrite=True)
    assert (other / "me.jpg").exists()


def test_writer_leaves_nothing_after_a_failure(tmp_path):
    class Broken(SampleRecording):
        def frame(self, index):
            if index == 3:
                raise DataError("frame 3 is damaged")
            return super().frame(index)

    folder = write_bag(tmp_path / "drive", SampleRecording(2))
    with pytest.raises(DataError, match="frame 3"):
        write_bag(folder, Broken(), overwrite=True)
    with open_recording(folder) as recording:
        assert len(recording) == 2
    assert [item.name for item in tmp_path.iterdir()] == ["drive"]


def test_writer_removes_leftovers_of_a_killed_one(tmp_path):
    leftover = tmp_path / ".drive.99999999.tmp"
    (leftover / "drive").mkdir(parents=True)
    write_bag(tmp_path / "drive", SampleRecording(2))
    assert not leftover.exists()


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    import errno

    from rosbags.rosbag2 import Writer

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Writer, "write", full)
    with pytest.raises(StorageError, match="no space left"):
        write_bag(tmp_path / "drive", SampleRecording(2))
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        write_bag(tmp_path / "file" / "drive", SampleRecording(2))


def test_writer_settings_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'mcap'"):
        write_bag(tmp_path / "a", SampleRecording(2), "mcapp")
    with pytest.raises(ConfigError, match="needs storage mcap"):
        write_bag(tmp_path / "a", SampleRecording(2), "sqlite3", "chunk")
    with pytest.raises(DataError, match="no frames"):
        write_bag(tmp_path / "a", SampleRecording(0))
    assert list(tmp_path.iterdir()) == []
