"""Interpolated poses in closed form, pose streams and transform chains of bags."""

from __future__ import annotations

import numpy as np
import pytest
from data_samples import SECOND, START_NS, BagMaker
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.data import open_recording
from come_nav.data.bags.bag import open_bag
from come_nav.data.bags.poses import make_track, read_poses
from come_nav.data.bags.topics import find_pose
from come_nav.data.bags.transforms import TransformTree
from come_nav.data.timing.interpolation import interpolate_poses, slerp

OPTICAL = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))


def turn(axis: list[float], angle_rad: float, position: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    direction = np.array(axis) / np.linalg.norm(axis)
    quat = np.append(direction * np.sin(angle_rad / 2), np.cos(angle_rad / 2))
    return se3.make_transform(se3.matrix_from_quaternion(quat), np.array(position, float))


def test_halfway_and_held_ends():
    poses = np.stack([turn([0, 0, 1], 0.2, (0, 0, 0)), turn([0, 0, 1], 1.0, (2, -4, 6))])
    stamps_s = np.array([10.0, 12.0])
    found = interpolate_poses(stamps_s, poses, np.array([11.0, 10.5, 5.0, 99.0, 12.0]))
    np.testing.assert_allclose(found[0], turn([0, 0, 1], 0.6, (1, -2, 3)), atol=1e-12)
    np.testing.assert_allclose(found[1], turn([0, 0, 1], 0.4, (0.5, -1, 1.5)), atol=1e-12)
    np.testing.assert_allclose(found[2], poses[0], atol=1e-12)
    np.testing.assert_allclose(found[3:], np.stack([poses[1]] * 2), atol=1e-12)


def test_single_pose_is_held():
    pose = turn([1, 2, 3], 0.7, (1, 2, 3))
    np.testing.assert_array_equal(interpolate_poses(np.array([4.0]), pose[None], np.array([0.0, 9.0])), [pose, pose])


def test_shortest_way_round():
    """From +170 to -170 degrees the way is through 180, not through 0."""
    poses = np.stack([turn([0, 0, 1], np.radians(170)), turn([0, 0, 1], np.radians(-170))])
    found = interpolate_poses(np.array([0.0, 1.0]), poses, np.array([0.5]))
    assert abs(se3.xyyaw_from_transform(found)[0, 2]) == pytest.approx(np.pi)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_slerp_agrees_with_scipy(seed, fraction):
    rotations = Rotation.random(2, random_state=seed)
    quats = rotations.as_quat()
    if abs(abs(quats[0] @ quats[1])) < 1e-3:
        return  # half a turn apart: both ways round are equally short
    expected = Slerp([0, 1], rotations)(fraction)
    found = Rotation.from_quat(slerp(quats[:1] * 3.0, -quats[1:], np.array([fraction]))[0])
    assert (expected.inv() * found).magnitude() < 1e-7


def test_track_drops_bad_poses_and_counts_them():
    good = (1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0)
    nan = (np.nan, *good[1:])
    zero = (*good[:3], 0.0, 0.0, 0.0, 0.0)
    warnings: list[str] = []
    track = make_track(
        "/odom", [1, 2, 3, 5, 4, 5], [good, nan, zero, good, good, good], ("odom", "base_link"), warnings
    )
    assert list(track.stamps_ns) == [1, 4, 5]
    assert any("2 of 6 poses are NaN" in line for line in warnings)
    assert any("1 of 4 stamps were out of order" in line for line in warnings)
    assert any("1 of 4 stamps were duplicates" in line for line in warnings)
    with pytest.raises(DataError, match="none of the 2 poses"):
        make_track("/odom", [1, 2], [nan, zero], ("odom", "base_link"), [])
    stamps_ns = [9 * SECOND, 10 * SECOND, 4 * SECOND, 5 * SECOND, 6 * SECOND]
    track = make_track("/odom", stamps_ns, [good] * 5, ("odom", "base_link"), warnings)
    assert list(track.stamps_ns) == stamps_ns[2:]
    assert "steps back by 6.000 s at message 2; used are the 3 of 5 messages of the longest part" in warnings[-1]


def test_lookup_goes_up_and_down_the_tree():
    tree = TransformTree()
    edges = {"body": ("base", turn([0, 0, 1], 0.3, (1, 0, 0))), "cam": ("body", turn([0, 1, 0], 0.2, (0, 0, 1)))}
    edges["lidar"] = ("base", turn([1, 0, 0], 0.1, (0, 2, 0)))
    for child, (parent, transform) in edges.items():
        quat = se3.quaternion_from_matrix(transform[:3, :3])
        tree.parents[child] = parent
        tree.rows[child] = [(*transform[:3, 3], *quat)]
    np.testing.assert_allclose(tree.lookup("base", "cam"), edges["body"][1] @ edges["cam"][1], atol=1e-12)
    expected = se3.inverse(edges["lidar"][1]) @ edges["body"][1] @ edges["cam"][1]
    np.testing.assert_allclose(tree.lookup("lidar", "/cam"), expected, atol=1e-12)
    assert tree.lookup("base", "gripper") is None
    np.testing.assert_array_equal(tree.lookup("cam", "cam"), np.eye(4))


def tf_bag(connected: bool = True) -> BagMaker:
    """odom -> base_footprint moves at 10 Hz, map -> odom at 2 Hz, base_footprint -> base_link -> camera are fixed."""
    maker = BagMaker()
    for index in range(41):
        stamp_ns = START_NS + index * SECOND // 10
        maker.transform(stamp_ns, ("odom", "base_footprint"), turn([0, 0, 1], 0.02 * index, (0.1 * index, 0, 0)))
        if index % 5 == 0:
            maker.transform(stamp_ns, ("map", "odom"), turn([0, 0, 1], 0.0, (0, 0.01 * index, 0)))
        if index % 2 == 0:
            maker.image(stamp_ns, index)
    parent = "base_footprint" if connected else "other"
    maker.transform(START_NS, (parent, "base_link"), turn([0, 0, 1], 0.0, (0, 0, 0.2)), "/tf_static")
    maker.transform(START_NS, ("base_link", "camera"), turn([0, 0, 1], 0.5, (0.3, 0, 0)) @ OPTICAL, "/tf_static")
    return maker


def test_poses_from_a_chain_of_transforms(tmp_path):
    with open_recording(tf_bag().write(tmp_path / "run"), rate_hz=5.0) as recording:
        assert recording.report.topics["pose"] == "/tf"
        index = np.arange(0, 41, 2)
        np.testing.assert_allclose(recording.T_odom_base[:, 0, 3], 0.1 * index, atol=1e-9)
        np.testing.assert_allclose(recording.T_odom_base[:, 2, 3], 0.2, atol=1e-12)
        np.testing.assert_allclose(recording.poses_xyyaw[:, 2], 0.02 * index, atol=1e-9)
        np.testing.assert_allclose(recording.T_base_camera, turn([0, 0, 1], 0.5, (0.3, 0, 0)) @ OPTICAL, atol=1e-12)


def test_slow_edges_are_interpolated(tmp_path):
    from come_nav.data.bags.transforms import read_pose_track

    with open_bag(tf_bag().write(tmp_path / "run")) as bag:
        stamps_ns, rows, frames = read_pose_track(bag, world_frame="map")
        assert frames == ("map", "base_link")
        assert len(stamps_ns) == 41
        np.testing.assert_allclose([row[1] for row in rows], 0.01 * np.arange(41), atol=1e-9)
        with pytest.raises(DataError, match="did you mean 'odom'"):
            read_pose_track(bag, world_frame="odm")


def test_broken_chain_is_told(tmp_path):
    with pytest.raises(DataError, match="does not connect base_link to odom"):
        open_recording(tf_bag(connected=False).write(tmp_path / "run"))


def test_pose_messages(tmp_path):
    """PoseStamped, PoseWithCovarianceStamped and TransformStamped give the same poses as Odometry."""
    from come_nav.data.bags.ros_types import POSE_STAMPED, POSE_WITH_COVARIANCE, TRANSFORM_STAMPED, typestore

    maker = BagMaker().drive(6)
    store = typestore(False)
    odometry = [message for message in maker.messages if message[1] == "/odom"]
    for log_ns, _, type_name, raw in odometry:
        message = store.deserialize_cdr(raw, type_name)
        plain = store.types[POSE_STAMPED](header=message.header, pose=message.pose.pose)
        maker.add(log_ns, "/pose", POSE_STAMPED, bytes(store.serialize_cdr(plain, POSE_STAMPED)))
        full = store.types[POSE_WITH_COVARIANCE](header=message.header, pose=message.pose)
        maker.add(log_ns, "/amcl_pose", POSE_WITH_COVARIANCE, bytes(store.serialize_cdr(full, POSE_WITH_COVARIANCE)))
        at = message.pose.pose
        moved = store.types["geometry_msgs/msg/Transform"](
            translation=store.types["geometry_msgs/msg/Vector3"](at.position.x, at.position.y, at.position.z),
            rotation=at.orientation,
        )
        sent = store.types[TRANSFORM_STAMPED](header=message.header, child_frame_id="base_link", transform=moved)
        maker.add(log_ns, "/vicon/robot", TRANSFORM_STAMPED, bytes(store.serialize_cdr(sent, TRANSFORM_STAMPED)))
    folder = maker.write(tmp_path / "run")
    with open_bag(folder) as bag:
        tracks = [read_poses(bag, topic) for topic in ("/odom", "/pose", "/amcl_pose", "/vicon/robot")]
        assert find_pose(bag) == "/odom"
        with pytest.raises(DataError, match="carries no poses"):
            read_poses(bag, "/camera/color/image_raw")
    for track in tracks:
        np.testing.assert_array_equal(track.stamps_ns, tracks[0].stamps_ns)
        np.testing.assert_allclose(track.T_world_body, tracks[0].T_world_body)
    for topic in ("/amcl_pose", "/vicon/robot"):
        with open_recording(folder, pose_topic=topic) as recording:
            assert len(recording) == 6
