"""Motion and time that cannot be, in bags and NWM folders: cut or refused with a note, never passed on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from data_samples import SECOND, START_NS, BagMaker, SampleRecording

from come_nav.cli.main import main
from come_nav.core.errors import AssociationError, DataError
from come_nav.core.geometry import se3
from come_nav.data import open_recording
from come_nav.data.bags.ros_types import ODOMETRY
from come_nav.data.nwm.folder import write_nwm_folder
from come_nav.data.timing.association import associate
from come_nav.data.timing.motion import frozen_frames, pose_jumps, require_one_publisher
from come_nav.data.timing.stamps import clean_order
from come_nav.evaluation.protocols.protocol import ProtocolSettings, choose_windows


def drive(x_of, seconds: float = 6.0, odom_hz: int = 20, value_of=lambda index: index) -> BagMaker:
    """Images at 4 Hz and odometry at ``odom_hz`` whose x is ``x_of(seconds)``."""
    maker = BagMaker()
    for index in range(int(4 * seconds)):
        maker.image(START_NS + index * SECOND // 4, value_of(index))
    for index in range(int(odom_hz * seconds) + 1):
        stamp_ns = START_NS - SECOND // 50 + index * SECOND // odom_hz
        maker.odometry(stamp_ns, x_of((stamp_ns - START_NS) / SECOND), log_ns=stamp_ns)
    return maker


def notes(recording) -> str:
    return " | ".join(recording.report.warnings)


def test_a_localiser_that_jumps_cuts_the_recording(tmp_path):
    folder = drive(lambda t: 0.4 * t + (5.0 if t > 3.0 else 0.0)).write(tmp_path / "bag")
    with open_recording(folder) as recording:
        assert "/odom: the pose jumps at 1 places, first 2.98 s after the first image, at most by 5.02 m" in notes(
            recording
        )
        (first, second) = recording.segments
        times = recording.stamps_s - recording.stamps_s[0]
        assert times[first[1] - 1] < 3.0 <= times[second[0]]
        x_m = recording.poses_xyyaw[:, 0]
        np.testing.assert_allclose(x_m[slice(*first)], 0.4 * times[slice(*first)], atol=1e-9)  # none between the sides
        np.testing.assert_allclose(x_m[slice(*second)], 0.4 * times[slice(*second)] + 5.0, atol=1e-9)
        windows = choose_windows([("bag", recording)], ProtocolSettings(), None)
        assert windows
        assert max(np.abs(window.driven_xyyaw[:, 0]).max() for window in windows) == pytest.approx(0.8, abs=1e-6)


def test_the_length_of_the_way_leaves_jumps_out(tmp_path, capsys):
    folder = drive(lambda t: 0.4 * t + (5.0 if t > 3.0 else 0.0)).write(tmp_path / "bag")
    with open_recording(folder) as recording:
        (jump,) = recording.report.pose_jumps
        step_m = np.linalg.norm(np.diff(recording.poses_xyyaw[jump : jump + 2, :2], axis=0))
        assert step_m > 4.9
        nwm = write_nwm_folder(tmp_path / "nwm", recording)
    assert main(["bag", "info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recording"]["path_length_m"] == pytest.approx(
        0.4 * (5.75 - 0.5), abs=1e-6
    )
    with open_recording(nwm) as recording:
        assert recording.report.pose_jumps == (jump,)


def test_a_car_and_a_turn_on_the_spot_do_not_jump():
    stamps_s = 0.1 * np.arange(100)
    speed_mps = np.where(stamps_s < 3, 0.0, np.minimum(25.0, 4.0 * (stamps_s - 3)))
    poses = np.stack([np.cumsum(0.1 * speed_mps), np.zeros(100), np.cumsum(0.1 * np.full(100, 3.0))], axis=1)
    assert not len(pose_jumps(stamps_s, se3.transform_from_xyyaw(poses)))
    poses[60:, 2] += np.pi  # a localiser that turned round
    assert list(pose_jumps(stamps_s, se3.transform_from_xyyaw(poses))) == [59]
    assert not len(pose_jumps(stamps_s[:1], se3.transform_from_xyyaw(poses[:1])))


@pytest.mark.parametrize("apart_m", [0.3, 5.0])
def test_two_publishers_on_one_topic_are_refused(tmp_path, apart_m):
    """Two robots, or wheel and visual odometry, in turn on /odom."""
    maker = drive(lambda t: 0.4 * t)
    for index in range(121):
        stamp_ns = START_NS - SECOND // 50 + index * SECOND // 20 + SECOND // 50
        maker.odometry(stamp_ns, 0.4 * (stamp_ns - START_NS) / SECOND + apart_m, log_ns=stamp_ns)
    with pytest.raises(DataError, match=r"/odom: the pose goes to and fro over .* two nodes publish.*--pose-topic"):
        open_recording(maker.write(tmp_path / "bag"))


@pytest.mark.parametrize("base_first", [True, False])
def test_two_publishers_that_differ_in_their_frames_are_told_apart(tmp_path, base_first):
    """A localiser of the lidar publishes twice as often on the topic of the wheels."""
    maker = BagMaker()
    for index in range(24):
        maker.image(START_NS + index * SECOND // 4, index)
    for index in range(240):
        stamp_ns = START_NS + index * SECOND // 40
        own = index % 3 == (0 if base_first else 2)
        T_odom = se3.transform_from_xyyaw(np.array([0.01 * index, 0.0 if own else 4.0, 0.0]))
        frames = ("odom", "base_link") if own else ("map", "lidar")
        maker.add(stamp_ns, "/odom", ODOMETRY, maker.make.odometry(stamp_ns, frames, T_odom, (0.0, 0.0)))
    with open_recording(maker.write(tmp_path / "bag")) as recording:
        told = "the 80 poses of base_link in odom are used, and not 160 of lidar in map"
        assert f"/odom: several nodes publish on it; {told}" in notes(recording)
        np.testing.assert_allclose(recording.poses_xyyaw[:, 1], 0.0, atol=1e-9)
        assert len(recording.segments) == 1


def test_noise_of_one_publisher_is_none_of_two():
    rng = np.random.default_rng(0)
    path = np.stack([0.02 * np.arange(400), np.zeros(400), np.zeros(400)], axis=1)
    for sigma_m in (0.0, 0.01, 0.1):
        require_one_publisher("/odom", path + rng.normal(0, sigma_m, path.shape))
    require_one_publisher("/odom", np.zeros((400, 3)))


def test_a_recording_is_cut_where_the_camera_froze_while_the_robot_moves(tmp_path):
    frozen = drive(lambda t: 0.4 * t, value_of=lambda index: min(index, 10) if index < 18 else index)
    with open_recording(frozen.write(tmp_path / "bag")) as recording:
        assert "7 of 24 images repeat the one before while the robot moves" in notes(recording)
        assert recording.segments == [(0, 11), *((index, index + 1) for index in range(11, 18)), (18, 24)]
        windows = choose_windows([("bag", recording)], ProtocolSettings(horizon_steps=2), None)
        assert not {index for window in windows for index in (*window.context, window.goal)} & set(range(11, 18))
    still = drive(lambda t: 0.0, value_of=lambda index: 3)
    with open_recording(still.write(tmp_path / "still")) as recording:  # a robot that stands in a simulator
        assert len(recording) == 24
        assert notes(recording) == "/odom: the robot never moves, so there is no motion to learn, plan or measure"


def test_a_robot_that_never_moves_has_no_ratios_and_a_note(tmp_path, capsys, caplog):
    folder = drive(lambda t: 0.0, seconds=8.0).write(tmp_path / "still")
    words = ["--rows", "trivial", "--windows", "3", "--out", str(tmp_path / "report")]
    assert main(["evaluate", str(folder), *words]) == 0
    assert "nan" not in capsys.readouterr().out
    assert "still: /odom: the robot never moves" in caplog.text
    assert "nan" not in (tmp_path / "report" / "report.html").read_text().lower().split("</style>")[1][:20000]


def test_two_equal_images_or_little_motion_are_no_freeze():
    poses = np.stack([0.3 * np.arange(6), np.zeros(6), np.zeros(6)], axis=1)
    assert not frozen_frames([0, 0, 1, 2, 2, 3], poses).any()
    assert list(frozen_frames([0, 1, 1, 1, 2, 3], poses)) == [False, False, True, True, False, False]
    assert not frozen_frames([0] * 6, poses * 0.01).any()
    turning = np.stack([np.zeros(6), np.zeros(6), np.array([3.0, 3.1, -3.1, -3.0, -2.9, -2.8])], axis=1)
    assert frozen_frames([0] * 6, turning)[1:].all()
    assert not frozen_frames([], np.zeros((0, 3))).any()


def test_a_first_stamp_of_zero_is_dropped_with_a_note(tmp_path):
    """Simulated time: before /clock comes, the first message of each topic has stamp 0; the recorder has wall time."""
    maker = BagMaker()
    for index in range(12):
        stamp_ns = 0 if index == 0 else SECOND + index * SECOND // 4
        log_ns = START_NS + index * SECOND // 4
        maker.image(stamp_ns, index, log_ns=log_ns)
        maker.odometry(stamp_ns, 0.1 * index, log_ns=log_ns)
    with open_recording(maker.write(tmp_path / "bag")) as recording:
        assert len(recording) == 11
        assert notes(recording).count("1 of 12 stamps lie far from those before and after") == 2
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], 0.1 * np.arange(1, 12), atol=1e-9)


def test_transforms_without_stamps_take_the_time_of_recording(tmp_path):
    maker = BagMaker()
    for index in range(12):
        log_ns = START_NS + index * SECOND // 4
        maker.image(log_ns, index)
        T_odom_base = se3.transform_from_xyyaw(np.array([0.1 * index, 0.0, 0.0]))
        raw = maker.make.transform(0, ("odom", "base_link"), T_odom_base)
        maker.add(log_ns, "/tf", "tf2_msgs/msg/TFMessage", raw)
    with open_recording(maker.write(tmp_path / "bag")) as recording:
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], 0.1 * np.arange(12), atol=1e-9)


def test_headers_without_stamps_take_the_time_of_recording_with_a_note(tmp_path):
    maker = BagMaker()
    for index in range(12):
        log_ns = START_NS + index * SECOND // 4
        maker.image(0, index, log_ns=log_ns)
        maker.odometry(0, 0.1 * index, log_ns=log_ns)
    with open_recording(maker.write(tmp_path / "bag")) as recording:
        told = "12 of 12 headers have no stamp (0); the time of recording stands in for it"
        assert f"/camera/color/image_raw: {told}" in notes(recording)
        assert f"/odom: {told}" in notes(recording)
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], 0.1 * np.arange(12), atol=1e-9)


def test_a_clock_that_was_set_cuts_all_topics_in_one_place(tmp_path):
    """The simulator was started again: both runs have stamps from 0 s on, and poses last longest in the other one."""
    maker, log_ns = BagMaker(), START_NS
    for run, (images_s, poses_s, y) in enumerate([(8.0, 8.0, 1.0), (5.0, 12.0, 2.0)]):
        for step in range(int(20 * max(images_s, poses_s))):
            stamp_ns, log_ns = SECOND + step * SECOND // 20, log_ns + SECOND // 20
            if step < 20 * images_s and step % 5 == 0:
                maker.image(stamp_ns, 10 * run + step // 5, log_ns=log_ns)
            if step < 20 * poses_s:
                T_odom_base = se3.transform_from_xyyaw(np.array([0.01 * step, y, 0.0]))
                raw = maker.make.odometry(stamp_ns, ("odom", "base_link"), T_odom_base, (0.0, 0.0))
                maker.add(log_ns, "/odom", ODOMETRY, raw)
        log_ns += 3 * SECOND
    with open_recording(maker.write(tmp_path / "bag")) as recording:
        assert len(recording) == 32
        np.testing.assert_allclose(recording.poses_xyyaw[:, 1], 1.0, atol=1e-9)  # not the second run's
        assert "/camera/color/image_raw: the clock steps back by 7.750 s at message 32" in notes(recording)
        assert "messages of the part recorded beside the images" in notes(recording)


@pytest.mark.parametrize(
    ("stamps_s", "kept", "note"),
    [
        ([0, 1, 2, 900_000_000, 3, 4], [0, 1, 2, 4, 5], "1 of 6 stamps lie far"),
        ([101, 102, 0, 103, 104], [0, 1, 3, 4], "1 of 5 stamps lie far"),
        ([0, 1_700_000_000, 1_700_000_001, 1_700_000_002], [1, 2, 3], "1 of 4 stamps lie far"),
        ([1, 2, 3, 1_700_000_000, 1_700_000_001], [0, 1, 2], "steps ahead by"),
        ([5, 6, 7, 8, 9, 1, 2], [0, 1, 2, 3, 4], "steps back by 8.000 s at message 5"),
        ([5, 6, 1, 2, 3, 4, 0, 1], [2, 3, 4, 5], "at message 2 and 1 times more"),
    ],
)
def test_clocks_that_were_set(stamps_s, kept, note):
    warnings: list[str] = []
    assert list(clean_order(np.array(stamps_s, np.int64) * SECOND, "/topic", warnings)) == kept
    assert note in warnings[0]
    assert len(warnings) == 1


def test_the_recorder_tells_how_far_clocks_are_apart(tmp_path):
    """A camera whose clock counts from its start: stamps of 8 and 20 Hz fit many offsets, times of recording one."""
    boot_ns = 123 * SECOND
    maker = BagMaker()
    for index in range(32):
        stamp_ns = START_NS + index * SECOND // 8
        maker.image(stamp_ns - START_NS + boot_ns, index, log_ns=stamp_ns + 2_000_000)
    for index in range(82):
        stamp_ns = START_NS + index * SECOND // 20
        maker.odometry(stamp_ns, 0.02 * index, log_ns=stamp_ns + 1_000_000)
    folder = maker.write(tmp_path / "bag")
    with pytest.raises(AssociationError, match=r"set --time-offset -1699999877\.001$"):
        open_recording(folder)
    with open_recording(folder, rate_hz=None, time_offset_s=-1699999877.001) as recording:
        np.testing.assert_allclose(recording.poses_xyyaw[:, 0], 0.05 * np.arange(32), atol=0.001)


def test_an_offset_that_stamps_alone_cannot_tell_is_not_advised():
    with pytest.raises(AssociationError, match=r"others from -\d+\.\d+ to -\d+\.\d+ s as well: find out"):
        associate(0.125 * np.arange(32), 1000.0 + 0.05 * np.arange(82), 0.02)


def test_a_latched_transform_and_calibration_before_the_start_are_read(tmp_path):
    maker = drive(lambda t: 0.4 * t)
    T_base_camera = SampleRecording().T_base_camera
    maker.transform(START_NS - SECOND // 50, ("base_link", "camera"), T_base_camera, topic="/tf_static")
    info = maker.make.camera_info(START_NS, "camera", SampleRecording().intrinsics)
    maker.add(START_NS, "/camera/color/camera_info", "sensor_msgs/msg/CameraInfo", info)
    with open_recording(maker.write(tmp_path / "bag"), start_s=2.0) as recording:
        np.testing.assert_allclose(recording.T_base_camera, T_base_camera, atol=1e-9)
        assert recording.intrinsics is not None


@pytest.mark.parametrize("rate_hz", [2.0, 4.0, 8.0])
def test_an_nwm_folder_keeps_the_time_of_its_recording(tmp_path, rate_hz):
    source = SampleRecording(25, rate_hz=rate_hz)
    folder = write_nwm_folder(tmp_path / "nwm", source)
    with open_recording(folder) as recording:
        step = 2 if rate_hz == 8.0 else 1
        np.testing.assert_array_equal(recording.stamps_s, source.stamps_s[::step])
        np.testing.assert_allclose(recording.poses_xyyaw, source.poses_xyyaw[::step], atol=1e-12)
        assert recording.rate_hz == (2.0 if rate_hz == 2.0 else 4.0)
        assert [int(recording.frame(index).rgb[0, 0, 0]) for index in (1, 5)] == pytest.approx([step, 5 * step], abs=2)
        assert ("below 4 Hz" in notes(recording)) == (rate_hz == 2.0)
    with open_recording(folder, rate_hz=None) as recording:
        assert len(recording) == 25
        assert recording.rate_hz == rate_hz


def test_an_nwm_folder_keeps_gaps(tmp_path):
    source = SampleRecording(20)
    source.stamps_s[12:] += 30.0
    with open_recording(write_nwm_folder(tmp_path / "nwm", source)) as recording:
        assert recording.segments == [(0, 12), (12, 20)]
        assert recording.gaps[0].duration_s == pytest.approx(30.25)


def test_an_nwm_folder_is_cut_at_jumps_and_where_the_camera_froze(tmp_path):
    source = SampleRecording(30)
    source.poses_xyyaw = np.stack([0.2 * np.arange(30), np.zeros(30), np.zeros(30)], axis=1)
    source.poses_xyyaw[10:, 1] += 7.0
    folder = write_nwm_folder(tmp_path / "nwm", source)
    for index in range(21, 25):
        shutil.copy(folder / "20.jpg", folder / f"{index}.jpg")
    with open_recording(folder) as recording:
        assert recording.segments == [(0, 10), (10, 21), (21, 22), (22, 23), (23, 24), (24, 25), (25, 30)]
        assert "pose jumps at 1 places, first after frame 9" in notes(recording)
        assert "4 images repeat the one before" in notes(recording)
        assert len(recording) == 30  # indices of published windows stay


def test_stamps_of_an_nwm_folder_are_checked(tmp_path):
    import pickle

    folder = write_nwm_folder(tmp_path / "nwm", SampleRecording(6))
    content = pickle.loads((folder / "traj_data.pkl").read_bytes())
    for stamps in (np.arange(5.0), np.zeros(6), np.full(6, np.nan), "text"):
        (folder / "traj_data.pkl").write_bytes(pickle.dumps({**content, "stamps_s": stamps}))
        with pytest.raises(DataError, match="stamps_s must be"):
            open_recording(folder)
    del content["stamps_s"]
    (folder / "traj_data.pkl").write_bytes(pickle.dumps(content))
    with open_recording(folder) as recording:
        assert "holds no stamps; its frames are taken to be 0.25 s apart" in notes(recording)
