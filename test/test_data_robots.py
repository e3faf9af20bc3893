"""Whose topics and frames are taken, and poses of other bodies than the base: closed forms of one drive."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from data_samples import HEIGHT, SECOND, START_NS, WIDTH, BagMaker

from come_nav.core.errors import DataError, MissingDependencyError
from come_nav.core.geometry import se3
from come_nav.data import open_recording
from come_nav.data.bags.bag import open_bag
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE, IMAGE, ODOMETRY, typestore
from come_nav.data.bags.topics import choose_topics, image_kinds
from come_nav.data.cameras.frames import frame_matches, frame_prefix, level_world

COUNT = 12
T_BASE_CAMERA = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.2, -0.05, 0.6]))


def poses():
    steps = np.arange(COUNT)
    return se3.transform_from_xyyaw(np.stack([0.1 * steps, 0.01 * steps**2, 0.05 * steps], axis=1))


def stamps_ns():
    return [START_NS + index * SECOND // 4 for index in range(COUNT)]


def drive(
    maker, image="/camera/color/image_raw", odom="/odom", frames=("odom", "base_link"), T_world=None, frame="camera"
):
    """Add images and odometry with the given poses."""
    transforms = poses() if T_world is None else T_world
    for index, stamp_ns in enumerate(stamps_ns()):
        if image is not None:
            rgb = np.full((HEIGHT, WIDTH, 3), index, np.uint8)
            maker.add(stamp_ns, image, IMAGE, maker.make.image(stamp_ns, frame, rgb))
        if odom is not None:
            raw = maker.make.odometry(stamp_ns, frames, transforms[index], (0.0, 0.0))
            maker.add(stamp_ns, odom, ODOMETRY, raw)
    return maker


# -- robots ----------------------------------------------------------------------------------------------------------


def two_robots():
    maker = drive(BagMaker(), "/robot2/camera/image_raw", "/robot2/odom", ("robot2/odom", "robot2/base_link"))
    still = np.repeat(np.eye(4)[None], COUNT, axis=0)
    return drive(maker, None, "/robot1/odom", ("robot1/odom", "robot1/base_link"), still)


def test_image_and_pose_are_of_one_robot(tmp_path):
    folder = two_robots().write(tmp_path / "run")
    with open_recording(folder) as recording:
        assert recording.report.topics["pose"] == "/robot2/odom"
        np.testing.assert_allclose(recording.T_odom_base, poses(), atol=1e-9)
        assert any("/robot2/odom is used, and not /robot1/odom" in note for note in recording.report.warnings)
    with open_recording(folder, pose_topic="/robot1/odom") as recording:  # the user's choice stands
        assert recording.report.topics["pose"] == "/robot1/odom"


def test_the_image_follows_a_named_pose(tmp_path):
    maker = drive(BagMaker(), "/robot1/camera/image_raw", "/robot1/odom")
    drive(maker, "/robot2/camera/image_raw", "/robot2/odom")
    with open_bag(maker.write(tmp_path / "run")) as bag:
        assert choose_topics(bag, pose="/robot1/odom").image == "/robot1/camera/image_raw"
        assert choose_topics(bag, pose="/robot2/odom").image == "/robot2/camera/image_raw"
        assert choose_topics(bag, image="/robot1/camera/image_raw").pose == "/robot1/odom"


def test_each_robot_has_a_tree_of_its_own(tmp_path):
    """Nav2 keeps the frames' names and gives each robot its own /tf topic."""
    maker = drive(BagMaker(), "/robot2/camera/image_raw", None)
    for index, stamp_ns in enumerate(stamps_ns()):
        maker.transform(stamp_ns, ("odom", "base_link"), poses()[index], "/robot2/tf")
        maker.transform(stamp_ns, ("odom", "base_link"), np.eye(4), "/robot1/tf")
    for robot, height in (("robot1", 9.0), ("robot2", 0.6)):
        T = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.0, 0.0, height]))
        maker.transform(START_NS - 1, ("base_link", "camera"), T, f"/{robot}/tf_static")
    with open_recording(maker.write(tmp_path / "run"), pose_topic="/robot2/tf") as recording:
        np.testing.assert_allclose(recording.T_odom_base, poses(), atol=1e-9)
        assert recording.T_base_camera[2, 3] == 0.6


@pytest.mark.parametrize("joint", ["/", "_"])
def test_frames_with_a_prefix_on_tf(tmp_path, joint):
    maker = drive(BagMaker(), "/camera/image_raw", None, frame=f"robot2{joint}camera")
    for index, stamp_ns in enumerate(stamps_ns()):
        maker.transform(stamp_ns, (f"robot2{joint}odom", f"robot2{joint}base_link"), poses()[index])
        if joint == "/":
            maker.transform(stamp_ns, ("robot1/odom", "robot1/base_link"), np.eye(4))
    maker.transform(START_NS - 1, (f"robot2{joint}base_link", f"robot2{joint}camera"), T_BASE_CAMERA, "/tf_static")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        np.testing.assert_allclose(recording.T_odom_base, poses(), atol=1e-9)
        np.testing.assert_allclose(recording.T_base_camera, T_BASE_CAMERA, atol=1e-12)


def test_frames_can_be_named(tmp_path):
    maker = drive(BagMaker(), odom=None)
    for index, stamp_ns in enumerate(stamps_ns()):
        maker.transform(stamp_ns, ("start", "rover"), poses()[index])
    maker.transform(START_NS - 1, ("rover", "eye"), T_BASE_CAMERA, "/tf_static")
    folder = maker.write(tmp_path / "run")
    with pytest.raises(DataError, match=r"no base frame .*--base-frame: .*rover"):
        open_recording(folder)
    names = {"odom_frame": "start", "base_frame": "rover", "camera_frame": "eye"}
    with open_recording(folder, **names) as recording:
        np.testing.assert_allclose(recording.T_odom_base, poses(), atol=1e-9)
        np.testing.assert_allclose(recording.T_base_camera, T_BASE_CAMERA, atol=1e-12)
        assert recording.frame(0).frame_id == "eye"


def test_names_of_frames():
    assert frame_matches("robot1/odom", "odom") and frame_matches("r1_base_link", "base_link")
    assert not frame_matches("visodom", "odom") and not frame_matches("odom2", "odom")
    assert (frame_prefix("robot1/odom"), frame_prefix("odom")) == ("robot1", "")


# -- depth or colour -------------------------------------------------------------------------------------------------


def test_encodings_tell_depth_from_colour_and_names_do_not(tmp_path):
    maker = drive(BagMaker(), "/depth_camera/image_raw")
    for stamp_ns in stamps_ns():
        maker.depth(stamp_ns, topic="/oakd/stereo/image_raw")
        maker.image(stamp_ns, 1, "/camera/depth/colourised")
    with open_bag(maker.write(tmp_path / "run")) as bag:
        assert image_kinds(bag) == {
            "/depth_camera/image_raw": "colour",
            "/oakd/stereo/image_raw": "depth",
            "/camera/depth/colourised": "colour",
        }
        chosen = choose_topics(bag)
        assert (chosen.image, chosen.depth) == ("/depth_camera/image_raw", "/oakd/stereo/image_raw")


def test_compressed_depth_is_depth_whatever_its_name(tmp_path):
    maker, store = drive(BagMaker()), typestore(False)
    for stamp_ns in stamps_ns():
        message = store.deserialize_cdr(
            maker.make.jpeg(stamp_ns, "camera", np.zeros((4, 4, 3), np.uint8)), COMPRESSED_IMAGE
        )
        message.format = "16UC1; compressedDepth png"
        png = cv2.imencode(".png", np.full((HEIGHT, WIDTH), 1500, np.uint16))[1].reshape(-1)
        message.data = np.concatenate([np.zeros(12, np.uint8), png])
        maker.add(stamp_ns, "/stereo/z", COMPRESSED_IMAGE, bytes(store.serialize_cdr(message, COMPRESSED_IMAGE)))
    with open_recording(maker.write(tmp_path / "run")) as recording:
        assert recording.report.topics["depth"] == "/stereo/z"
        np.testing.assert_allclose(recording.frame(3).depth_m, 1.5)


@pytest.mark.parametrize("kind", ["foxglove_msgs/msg/CompressedVideo", "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"])
def test_video_topics_name_the_way_out_without_pyav(tmp_path, kind, monkeypatch):
    """Only the type's name is looked at, so any definition will do."""
    monkeypatch.setattr("come_nav.data.video.stream.has_av", lambda: False)
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(tmp_path / "run", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        link = writer.add_connection("/camera/video", kind, msgdef="uint8[] data", rihs01="RIHS01_0")
        writer.write(link, START_NS, bytes(12))
    with open_bag(tmp_path / "run") as bag:
        for named in (None, "/camera/video"):
            told = r"/camera/video is video .*needs the package 'av': .*come_nav\[video\].*republish"
            with pytest.raises(MissingDependencyError, match=told):
                choose_topics(bag, image=named)


# -- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("child", ["camera_color_optical_frame", "imu_link"])
def test_poses_of_another_body_are_carried_to_the_base(tmp_path, child):
    T_base_child = T_BASE_CAMERA if "optical" in child else se3.transform_from_xyyaw(np.array([0.3, 0.1, 1.2]))
    maker = drive(BagMaker(), frames=("odom", child), T_world=poses() @ T_base_child)
    maker.transform(START_NS - 1, ("base_link", child), T_base_child, "/tf_static")
    maker.transform(START_NS - 1, ("base_link", "camera"), T_BASE_CAMERA, "/tf_static")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        np.testing.assert_allclose(recording.T_odom_base, poses(), atol=1e-9)
        np.testing.assert_allclose(recording.T_base_camera, T_BASE_CAMERA, atol=1e-9)
        assert any(f"poses are of {child}" in note for note in recording.report.warnings)


def test_poses_in_an_optical_world_are_turned(tmp_path):
    """Visual odometry that starts at its first image: x right, y down, z forward."""
    T_optical_odom = se3.inverse(T_BASE_CAMERA)
    maker = drive(BagMaker(), frames=("odom_vo", "camera_optical"), T_world=T_optical_odom @ poses() @ T_BASE_CAMERA)
    maker.transform(START_NS - 1, ("base_link", "camera_optical"), T_BASE_CAMERA, "/tf_static")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        moved = se3.relative(recording.T_odom_base[:1], recording.T_odom_base)
        np.testing.assert_allclose(moved, se3.relative(poses()[:1], poses()), atol=1e-9)
        np.testing.assert_allclose(recording.T_odom_base[:, 2, 2], 1.0, atol=1e-9)
        assert any("the world is optical" in note for note in recording.report.warnings)


def test_an_optical_body_without_transforms_is_turned(tmp_path):
    turn = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))
    maker = drive(BagMaker(), frames=("odom", "camera_optical"), T_world=poses() @ turn, frame="camera_optical")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        np.testing.assert_allclose(recording.poses_xyyaw, se3.xyyaw_from_transform(poses()), atol=1e-9)
        np.testing.assert_allclose(recording.T_base_camera, turn, atol=1e-9)


def test_a_footprint_stays_the_body_it_is(tmp_path):
    maker = drive(BagMaker(), frames=("odom", "base_footprint"))
    maker.transform(
        START_NS - 1,
        ("base_footprint", "base_link"),
        se3.make_transform(np.eye(3), np.array([0, 0, 0.1])),
        "/tf_static",
    )
    maker.transform(START_NS - 1, ("base_link", "camera"), T_BASE_CAMERA, "/tf_static")
    with open_recording(maker.write(tmp_path / "run")) as recording:
        np.testing.assert_allclose(recording.T_odom_base, poses(), atol=1e-9)
        assert recording.T_base_camera[2, 3] == pytest.approx(0.7)


def test_a_robot_on_its_side_is_told():
    notes: list[str] = []
    rolled = poses() @ se3.make_transform(se3.matrix_from_quaternion(np.array([-1.0, 0, 0, 1.0])), np.zeros(3))
    np.testing.assert_array_equal(level_world(rolled, "odom", notes), rolled)
    assert "does not point up" in notes[0]
