"""Folders of TUM RGB-D, KITTI odometry and EuRoC as recordings: axes, calibration, stamps, and what is missing."""

from __future__ import annotations

import pickle
import shutil

import cv2
import numpy as np
import pytest
from data_folders import (
    COUNT,
    P2,
    RADTAN,
    RATE_HZ,
    T_BODY_OPTICAL,
    T_BS,
    drive,
    texture,
    write_euroc,
    write_kitti,
    write_tum,
)

from come_nav.core.errors import AssociationError, DataError
from come_nav.core.geometry import se3
from come_nav.core.protocols import Recording
from come_nav.data import open_recording
from come_nav.data.folders.euroc import base_axes

POINT = np.array([6.0, 0.7, 0.4])  # ahead of the first pose, in the world of z up
# Axes of a body of EuRoC's drones: x up, y right, z ahead
R_BASE_BODY = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])


def pixel(recording, index: int) -> np.ndarray:
    """Where the recording says that POINT is, in pixels with centres at one half."""
    T_odom_camera = recording.T_odom_base[index] @ recording.T_base_camera
    x, y, z = se3.transform_points(se3.inverse(T_odom_camera), POINT[None])[0]
    camera = recording.intrinsics
    return np.array([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy])


def expected_pixel(K: np.ndarray, T_world_camera: np.ndarray) -> np.ndarray:
    """The same in OpenCV's convention, by the layout's own definition."""
    point = K @ se3.transform_points(se3.inverse(T_world_camera), POINT[None])[0]
    return point[:2] / point[2] + 0.5


def test_tum_folder(tmp_path):
    poses = drive()
    poses[:, 2, 3] = 1.2  # a camera on a tripod, held level
    folder = write_tum(tmp_path / "rgbd_dataset_freiburg3_walk", poses, size=(640, 480))
    with open_recording(folder, rate_hz=None) as recording:
        assert isinstance(recording, Recording)
        assert (len(recording), recording.name) == (COUNT, "rgbd_dataset_freiburg3_walk")
        # poses come 3 ms after the images, and are interpolated
        steps = np.linalg.norm(recording.T_odom_base[1:, :3, 3] - poses[1:, :3, 3], axis=1)
        assert steps.max() < 0.03 * 0.6
        np.testing.assert_allclose(recording.poses_xyyaw[0], [0, 0, 0], atol=1e-6)
        frame = recording.frame(5)
        np.testing.assert_array_equal(frame.rgb, np.repeat(texture(5, (640, 480))[..., None], 3, axis=2))
        assert np.isnan(frame.depth_m[0, 0])
        assert frame.depth_m[7, 9] == pytest.approx(1.5)  # 7500 / 5000
        assert frame.stamp_s == pytest.approx(1305031102.175304 + 5 / RATE_HZ, abs=1e-6)
        camera = recording.intrinsics
        assert (camera.fx, camera.fy, camera.cx, camera.cy) == (535.4, 539.2, 320.6, 248.1)
        K = np.array([[535.4, 0, 320.1], [0, 539.2, 247.6], [0, 0, 1]])
        np.testing.assert_allclose(pixel(recording, 0), expected_pixel(K, poses[0] @ T_BODY_OPTICAL), atol=0.01)
        assert any("x forward and z up" in note for note in recording.report.warnings)
        again = pickle.loads(pickle.dumps(recording))
        np.testing.assert_array_equal(again.frame(5).depth_m, frame.depth_m)
        with pytest.raises(IndexError):
            recording.frame(COUNT)


@pytest.mark.parametrize(
    ("name", "heading", "fx"),
    [
        ("rgbd_dataset_freiburg1_xyz", "", 517.3),
        ("fr2_desk", "", 520.9),
        ("mine", "rgbd_dataset_freiburg2_desk.bag", 520.9),
        ("mine", "", 525.0),
    ],
)
def test_tum_calibration_is_that_of_the_sequence(tmp_path, name, heading, fx):
    folder = write_tum(tmp_path / name, drive(6), heading=heading, size=(640, 480))
    with open_recording(folder) as recording:
        assert recording.intrinsics.fx == fx
        assumed = [note for note in recording.report.warnings if "default calibration" in note]
        assert bool(assumed) == (fx == 525.0)


def test_tum_lens_is_straightened_with_its_depth(tmp_path):
    folder = write_tum(tmp_path / "freiburg1_x", drive(6), size=(640, 480))
    K = np.array([[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1]])
    D = np.array([0.2624, -0.9531, -0.0054, 0.0026, 1.1633])
    with open_recording(folder, rate_hz=None) as recording:
        raw = np.repeat(texture(2, (640, 480))[..., None], 3, axis=2)
        frame = recording.frame(2)
        assert np.abs(frame.rgb.astype(int) - cv2.undistort(raw, K, D)).max() <= 1
        assert np.abs(frame.rgb.astype(int) - raw).max() > 50
        assert frame.depth_m[240, 320] == pytest.approx(1.5)


def test_tum_stamps_match_within_twenty_milliseconds(tmp_path):
    near = write_tum(tmp_path / "near", drive(8), depth_after_s=0.018)
    with open_recording(near, rate_hz=None) as recording:
        assert recording.frame(3).depth_m is not None
        assert recording.report.depth_association.matched == 8
    far = write_tum(tmp_path / "far", drive(8), depth_after_s=0.022)
    with open_recording(far, rate_hz=None) as recording:
        assert recording.frame(3).depth_m is None
        assert any("no depth matches" in note for note in recording.report.warnings)
    with open_recording(far, rate_hz=None, max_depth_difference_s=0.05) as recording:
        assert recording.frame(3).depth_m is not None


def test_tum_poses_are_not_interpolated_over_a_dropout(tmp_path):
    folder = write_tum(tmp_path / "run", drive(40))
    rows = (folder / "groundtruth.txt").read_text().splitlines()
    (folder / "groundtruth.txt").write_text("\n".join(rows[:12] + rows[16:]) + "\n")  # four poses, half a second
    with open_recording(folder, rate_hz=None) as recording:
        assert len(recording) == 36
        assert len(recording.gaps) == 1
        assert any("4 of 40 images have no pose in time" in note for note in recording.report.warnings)


def test_tum_without_depth_and_with_another_unit(tmp_path):
    folder = write_tum(tmp_path / "run", drive(6))
    with open_recording(folder, depth_topic="none") as recording:
        assert recording.frame(0).depth_m is None
    with open_recording(folder, depth_scale_m=0.001) as recording:
        assert recording.frame(0).depth_m[5, 5] == pytest.approx(7.5)
    (folder / "depth.txt").unlink()
    with open_recording(folder) as recording:
        assert recording.frame(0).depth_m is None


@pytest.mark.parametrize("where", ["", "sequences", "sequences/03"])
def test_kitti_folder(tmp_path, where, monkeypatch):
    poses = drive()
    root = write_kitti(tmp_path / "dataset", poses)
    monkeypatch.chdir(root / where)
    with open_recording(".", rate_hz=None) as recording:
        assert (len(recording), recording.name) == (COUNT, "kitti_03")
        np.testing.assert_allclose(recording.T_odom_base, poses, atol=1e-7)
        np.testing.assert_allclose(recording.stamps_s, np.arange(COUNT) / RATE_HZ, atol=1e-6)
        frame = recording.frame(4)
        assert frame.depth_m is None
        np.testing.assert_array_equal(frame.rgb, np.repeat(texture(4)[..., None], 3, axis=2))
        for index in (0, 3):
            T_camera0 = T_BODY_OPTICAL.T @ poses[index] @ T_BODY_OPTICAL
            point = se3.transform_points(se3.inverse(T_camera0) @ T_BODY_OPTICAL.T, POINT[None])[0]
            u, v, w = P2 @ [*point, 1.0]  # x = P2 X, X in camera 0
            np.testing.assert_allclose(pixel(recording, index), [u / w + 0.5, v / w + 0.5], atol=1e-4)


def test_kitti_cameras(tmp_path):
    root = write_kitti(tmp_path / "dataset", drive(6))
    write_kitti(root, drive(6), camera="image_0")
    with open_recording(root) as recording:
        assert recording.report.topics["image"] == "image_2"
    with open_recording(root, image_topic="image_0") as recording:
        np.testing.assert_allclose(recording.T_base_camera, T_BODY_OPTICAL, atol=1e-12)  # P0 has no offset
    with pytest.raises(DataError, match=r"no camera 'image_5' .*did you mean"):
        open_recording(root, image_topic="image_5")
    write_kitti(root, drive(6), number="04")
    with pytest.raises(DataError, match="holds the sequences 03, 04; name one"):
        open_recording(root)
    (root / "poses" / "04.txt").unlink()
    with pytest.raises(DataError, match=r"04.txt is missing; put it there, or name a file with --pose-topic"):
        open_recording(root / "sequences" / "04")
    with open_recording(root / "sequences" / "04", pose_topic=str(root / "poses" / "03.txt")) as recording:
        assert len(recording) == 4


def test_kitti_turns_agree_with_its_images(shared_data):
    """Where the car turns left (yaw grows), everything in the image moves right."""
    with open_recording(shared_data / "kitti00", rate_hz=None) as recording:
        assert len(recording) == 600
        turned_rad, moved_px = [], []
        for index in range(60, 260, 4):
            grey = [cv2.cvtColor(recording.frame(at).rgb, cv2.COLOR_RGB2GRAY) for at in (index, index + 1)]
            corners = cv2.goodFeaturesToTrack(grey[0][:70], 80, 0.01, 5)  # far things: above the road
            found, status, _ = cv2.calcOpticalFlowPyrLK(grey[0], grey[1], corners, None)
            moved_px.append(np.median((found - corners)[status[:, 0] == 1][..., 0]))
            yaw = recording.poses_xyyaw[[index, index + 1], 2]
            turned_rad.append((yaw[1] - yaw[0] + np.pi) % (2 * np.pi) - np.pi)
        assert np.corrcoef(turned_rad, moved_px)[0, 1] > 0.9
        slope_px = np.polyfit(turned_rad, moved_px, 1)[0]
        assert slope_px == pytest.approx(recording.intrinsics.fx, rel=0.2)
        ahead = np.diff(recording.T_odom_base[:, :3, 3], axis=0)
        forward = np.einsum("ni,ni->n", ahead, recording.T_odom_base[:-1, :3, 0])
        assert (forward > 0.9 * np.linalg.norm(ahead, axis=1) - 0.02).all()  # it drives ahead
        assert np.ptp(recording.T_odom_base[:, 2, 3]) < 12.0  # the ground is about level, up is z


def euroc_bodies(poses: np.ndarray) -> np.ndarray:
    return poses @ se3.make_transform(R_BASE_BODY, np.zeros(3))


def test_euroc_folder(tmp_path):
    poses = drive()
    bodies = euroc_bodies(poses)
    folder = write_euroc(tmp_path / "MH_01_easy", bodies)
    K = np.array([[60.0, 0, 30.5], [0, 61.0, 22.5], [0, 0, 1]])
    for path in (folder, folder / "mav0"):
        with open_recording(path, rate_hz=None) as recording:
            assert (len(recording), recording.name) == (COUNT, "MH_01_easy")
            np.testing.assert_allclose(recording.T_odom_base, poses, atol=1e-5)  # x forward, z up
            np.testing.assert_allclose(recording.T_base_camera[:3, :3], R_BASE_BODY @ T_BS[:3, :3], atol=1e-9)
            for index in (0, 5):
                np.testing.assert_allclose(pixel(recording, index), expected_pixel(K, bodies[index] @ T_BS), atol=1e-3)
            assert recording.stamps_s[1] == 1403636579.888555584
            frame = recording.frame(1)
            raw = np.repeat(texture(1)[..., None], 3, axis=2)
            straight = cv2.undistort(raw, K, np.array(RADTAN))
            assert np.abs(frame.rgb.astype(int) - straight).max() <= 1
            assert np.abs(straight.astype(int) - raw).max() > 50
            assert any(
                "x is the body's z, y is the body's -y, z is the body's x" in n for n in recording.report.warnings
            )


def test_a_body_with_the_axes_of_a_robot_keeps_them(tmp_path):
    T_body_camera = T_BODY_OPTICAL.copy()
    T_body_camera[:3, 3] = (0.1, 0.0, 0.2)
    folder = write_euroc(tmp_path / "robot", drive(8), T_body_camera)
    with open_recording(folder, rate_hz=None) as recording:
        np.testing.assert_allclose(recording.T_odom_base, drive(8), atol=1e-6)
        np.testing.assert_allclose(recording.T_base_camera, T_body_camera, atol=1e-9)
        assert not any("renamed" in note for note in recording.report.warnings)


def test_base_axes_of_a_camera_that_looks_down():
    """The upper edge of its image is ahead."""
    down = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # columns right, down, view: z down
    assert np.linalg.det(down) == pytest.approx(1.0)
    np.testing.assert_array_equal(base_axes(np.eye(3)[None], down), np.eye(3))


def test_calibration_beside_the_images_comes_first(tmp_path):
    folder = write_tum(tmp_path / "freiburg1_x", drive(6))
    wide = write_tum(tmp_path / "freiburg1_wide", drive(6), size=(64, 20))
    with pytest.raises(DataError, match="for 640x480 images but the images have 64x20"):
        open_recording(wide)
    text = (
        "image_width: 64\nimage_height: 48\ncamera_name: x\ncamera_matrix:\n  rows: 3\n  cols: 3\n"
        "  data: [50, 0, 31, 0, 52, 24, 0, 0, 1]\ndistortion_model: plumb_bob\n"
        "distortion_coefficients: {rows: 1, cols: 5, data: [0, 0, 0, 0, 0]}\n"
    )
    (folder / "camera_info.yaml").write_text(text)
    with open_recording(folder) as recording:
        assert recording.intrinsics.fx == 50.0
        assert recording.report.topics["info"] == "camera_info.yaml"
    with open_recording(folder, info_topic="none") as recording:
        assert recording.intrinsics is None
    with pytest.raises(DataError, match=r"elsewhere\.yaml: cannot be read"):
        open_recording(folder, info_topic=str(tmp_path / "elsewhere.yaml"))
    (folder / "camera_info.yaml").write_text(text.replace("[50, 0, 31,", "[50, 0,"))
    with pytest.raises(DataError, match=r"camera_info.yaml: camera_matrix must be 9 numbers"):
        open_recording(folder)


def test_images_that_are_missing_or_damaged_are_left_out_and_told(tmp_path):
    folder = write_tum(tmp_path / "run", drive(12))
    files = sorted((folder / "rgb").iterdir())
    files[3].unlink()
    files[6].write_bytes(files[6].read_bytes()[:-40])
    cv2.imwrite(str(files[8]), np.zeros((20, 20, 3), np.uint8))
    depth = sorted((folder / "depth").iterdir())
    depth[1].write_bytes(b"")
    with open_recording(folder, rate_hz=None) as recording:
        notes = "\n".join(recording.report.warnings)
        assert len(recording) == 9
        assert "rgb.txt: 1 of 12 images are missing" in notes
        assert "left out 2 of 11 images" in notes
        assert "left out 1 of 9 depth images" in notes
        assert recording.frame(1).depth_m is None
        assert recording.frame(2).depth_m is not None
    shutil.rmtree(folder / "rgb")
    with pytest.raises(DataError, match=r"none of its 12 images is there; the first would be .*rgb/13050"):
        open_recording(folder)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("rgb.txt", "1305031102.1 rgb/a.png\nnot a stamp\n", r"rgb.txt: line 2 must be a stamp and a file name"),
        ("rgb.txt", "# nothing\n", r"rgb.txt: lists no image"),
        ("groundtruth.txt", "1305031102.1 0 0 0 0 0 0\n", r"groundtruth.txt"),
        ("groundtruth.txt", "1305031102.1 0 0 0 0 0 nan 1\n", r"groundtruth.txt: line 1 holds NaN"),
        ("groundtruth.txt", None, r"groundtruth.txt: no such file; name a trajectory file .* with --pose-topic"),
    ],
)
def test_tum_mistakes_are_one_line(tmp_path, file, text, told):
    folder = write_tum(tmp_path / "run", drive(6))
    (folder / file).write_text(text) if text is not None else (folder / file).unlink()
    with pytest.raises(DataError, match=told) as caught:
        open_recording(folder)
    assert "\n" not in str(caught.value)


def test_stamps_of_another_clock_are_told_with_the_offset(tmp_path):
    folder = write_tum(tmp_path / "run", drive(12))
    rows = [line.split() for line in (folder / "groundtruth.txt").read_text().splitlines()[2:]]
    moved = "\n".join(" ".join([f"{float(row[0]) - 7.25:.4f}", *row[1:]]) for row in rows)
    (folder / "groundtruth.txt").write_text(moved + "\n")
    with pytest.raises(AssociationError, match=r"\+7\.2.*--time-offset"):
        open_recording(folder)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("sequences/03/times.txt", "0.0\nx\n", r"times.txt: line 2 is not numbers"),
        ("sequences/03/times.txt", "0.0\n0.125\n", r"03.txt: has 6 poses, but there are 2 times"),
        ("sequences/03/calib.txt", "P2: 1 2 3\n", r"calib.txt: line 1: P2 must be the 12 numbers"),
        ("poses/03.txt", "1 0 0 0 0 1 0 0 0 0 1\n", r"03.txt"),
        ("poses/03.txt", "2 0 0 0 0 1 0 0 0 0 1 0\n", r"03.txt: pose 0 is no rotation"),
    ],
)
def test_kitti_mistakes_are_one_line(tmp_path, file, text, told):
    root = write_kitti(tmp_path / "run", drive(6))
    (root / file).write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        open_recording(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("cam0/data.csv", "#t\n12.5;x.png\n", r"data.csv: line 2 must be a stamp and a file name"),
        ("cam0/sensor.yaml", None, r"sensor.yaml: no such file; it tells where the camera sits on the body"),
        ("cam0/sensor.yaml", "T_BS: [1, 2]\n", r"sensor.yaml: T_BS must be 16 numbers"),
        ("cam0/sensor.yaml", "T_BS: {data: [2,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1]}\n", r"T_BS is no rigid transform"),
        ("cam0/sensor.yaml", "[" * 3000, r"sensor.yaml: not valid YAML"),
        ("state_groundtruth_estimate0/data.csv", None, r"state_groundtruth_estimate0/data.csv: no such file; name"),
    ],
)
def test_euroc_mistakes_are_one_line(tmp_path, file, text, told):
    folder = write_euroc(tmp_path / "run", euroc_bodies(drive(6)))
    path = folder / "mav0" / file
    path.write_text(text) if text is not None else path.unlink()
    with pytest.raises(DataError, match=told) as caught:
        open_recording(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_of_none_of_these_is_told(tmp_path):
    with pytest.raises(DataError, match=r"neither a bag .* TUM RGB-D .* KITTI odometry .* EuRoC"):
        open_recording(tmp_path)
