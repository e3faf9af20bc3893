"""Core types as ROS messages and back. Stamps are seconds inside and sec/nanosec outside; frames follow REP-105.

CameraInfo puts integer coordinates at pixel centres, come_nav at pixel edges: ``cx = K[2] + 0.5``.
"""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, TransformStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry as OdometryMessage
from nav_msgs.msg import Path as PathMessage
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Odometry, Plan, PlanStatus
from come_nav.data.bags.ros_types import PIXEL_CENTRE

NANO = 1_000_000_000


def stamp_from_seconds(stamp_s: float) -> Time:
    """Return the message stamp of seconds >= 0."""
    sec, nanosec = divmod(max(0, round(stamp_s * NANO)), NANO)
    return Time(sec=sec, nanosec=nanosec)


def duration_from_seconds(seconds: float) -> Duration:
    """Return a duration message of seconds >= 0."""
    sec, nanosec = divmod(max(0, round(seconds * NANO)), NANO)
    return Duration(sec=sec, nanosec=nanosec)


def seconds_from_stamp(stamp: Time) -> float:
    """Return seconds of a message stamp."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def header(stamp_s: float, frame_id: str) -> Header:
    """Return a header."""
    return Header(stamp=stamp_from_seconds(stamp_s), frame_id=frame_id)


# -- images ------------------------------------------------------------------------------------------------------


def image_message(rgb: NDArray[np.uint8], stamp_s: float, frame_id: str) -> Image:
    """Return an rgb8 Image of (H, W, 3)."""
    return _image(np.ascontiguousarray(rgb), "rgb8", stamp_s, frame_id)


def depth_message(depth_m: NDArray[np.float32], stamp_s: float, frame_id: str, encoding: str = "32FC1") -> Image:
    """Return metres (H, W) as 32FC1 (NaN = unknown) or as 16UC1 millimetres (0 = unknown)."""
    if encoding == "32FC1":
        return _image(np.ascontiguousarray(depth_m, dtype="<f4"), encoding, stamp_s, frame_id)
    if encoding != "16UC1":
        raise DataError(f"depth encoding must be 32FC1 or 16UC1, got '{encoding}'")
    millimetres = np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0) * 1000.0
    millimetres[(millimetres < 0) | (millimetres > 65535)] = 0
    return _image(np.rint(millimetres).astype("<u2"), encoding, stamp_s, frame_id)


def camera_info_message(camera: CameraIntrinsics, stamp_s: float, frame_id: str) -> CameraInfo:
    """Return CameraInfo without distortion."""
    K = camera.matrix()
    K[:2, 2] -= PIXEL_CENTRE
    P = np.concatenate([K, np.zeros((3, 1))], axis=1)
    return CameraInfo(
        header=header(stamp_s, frame_id),
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K.reshape(-1).tolist(),
        r=np.eye(3).reshape(-1).tolist(),
        p=P.reshape(-1).tolist(),
    )


def _image(pixels: NDArray[Any], encoding: str, stamp_s: float, frame_id: str) -> Image:
    message = Image(
        header=header(stamp_s, frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=pixels.strides[0],
    )
    data = array.array("B")
    data.frombytes(pixels.tobytes())  # ten times faster than assigning bytes, which are checked one by one
    message.data = data
    return message


# -- poses ---------------------------------------------------------------------------------------------------------


def pose_message(T_a_b: NDArray[np.float64]) -> Pose:
    """Return the pose of a transform (4, 4)."""
    quat = se3.quaternion_from_matrix(np.asarray(T_a_b, float)[:3, :3])
    x, y, z = (float(value) for value in T_a_b[:3, 3])
    qx, qy, qz, qw = (float(value) for value in quat)
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def transform_from_pose(pose: Pose) -> NDArray[np.float64]:
    """Return T (4, 4) of a pose message.

    Raises:
        DataError: a value is not finite, or the quaternion is zero.
    """
    position, q = pose.position, pose.orientation
    quat = np.array([q.x, q.y, q.z, q.w], float)
    xyz = np.array([position.x, position.y, position.z], float)
    return transform_from_parts(xyz, quat)


def xyyaw_from_pose(pose: Pose) -> NDArray[np.float64]:
    """Return the planar part (3,) of a pose message, x, y (m) and yaw (rad); raise DataError as above."""
    return np.array(se3.xyyaw_from_transform(transform_from_pose(pose)))


def transform_from_parts(xyz: NDArray[np.float64], quat_xyzw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return T (4, 4) of a translation (3,) and a quaternion (4,); raise DataError where they describe no pose."""
    if not (np.isfinite(xyz).all() and np.isfinite(quat_xyzw).all()):
        raise DataError(f"a pose holds NaN or infinite values: {xyz.tolist()}, {quat_xyzw.tolist()}")
    if float(np.abs(quat_xyzw).max()) < 1e-6:
        raise DataError("a pose has the quaternion (0, 0, 0, 0); an unset orientation must be (0, 0, 0, 1)")
    return se3.make_transform(se3.matrix_from_quaternion(quat_xyzw), xyz)


def odometry_message(odometry: Odometry, frames: tuple[str, str]) -> OdometryMessage:
    """Return Odometry of ``frames`` (parent, child)."""
    parent, child = frames
    message = OdometryMessage(header=header(odometry.stamp_s, parent), child_frame_id=child)
    message.pose.pose = pose_message(odometry.T_odom_base)
    message.twist.twist = twist_message(odometry.v_mps or 0.0, odometry.w_radps or 0.0, odometry.vy_mps or 0.0)
    return message


def odometry_from_message(message: OdometryMessage) -> Odometry:
    """Return odometry; raise DataError for a pose that is none."""
    twist = message.twist.twist
    T_odom_base = transform_from_pose(message.pose.pose)
    v, vy, w = float(twist.linear.x), float(twist.linear.y), float(twist.angular.z)
    stamp_s = seconds_from_stamp(message.header.stamp)
    if not np.isfinite([v, vy, w]).all():
        return Odometry(stamp_s, T_odom_base)
    return Odometry(stamp_s, T_odom_base, v, w, vy)


def twist_message(v_mps: float, w_radps: float, vy_mps: float = 0.0) -> Twist:
    """Return a planar twist, ``vy_mps`` to the left."""
    message = Twist()
    message.linear.x, message.linear.y, message.angular.z = float(v_mps), float(vy_mps), float(w_radps)
    return message


def stamped_twist_message(
    v_mps: float, w_radps: float, stamp_s: float, frame_id: str, vy_mps: float = 0.0
) -> TwistStamped:
    """Return a planar twist with a header."""
    return TwistStamped(header=header(stamp_s, frame_id), twist=twist_message(v_mps, w_radps, vy_mps))


def transform_message(T_a_b: NDArray[np.float64], stamp_s: float, frames: tuple[str, str]) -> TransformStamped:
    """Return a TransformStamped of ``frames`` (parent, child)."""
    parent, child = frames
    pose = pose_message(T_a_b)
    message = TransformStamped(header=header(stamp_s, parent), child_frame_id=child)
    message.transform.rotation = pose.orientation
    translation = message.transform.translation
    translation.x, translation.y, translation.z = pose.position.x, pose.position.y, pose.position.z
    return message


# -- plans ---------------------------------------------------------------------------------------------------------


def path_message(plan: Plan, frame_id: str) -> PathMessage:
    """Return the plan in odom, its start first, each pose with the time when it is due; empty unless OK."""
    message = PathMessage(header=header(plan.stamp_s, frame_id))
    if plan.status is PlanStatus.OK and len(plan.poses_xyyaw):
        poses = np.vstack([plan.start_odom_xyyaw[None], plan.poses_odom_xyyaw()])
        stamps_s = plan.stamp_s + plan.dt_s * np.arange(len(poses))
        message.poses = pose_list(poses, stamps_s.tolist(), frame_id)
    return message


def pose_list(poses_xyyaw: NDArray[np.float64], stamps_s: Sequence[float], frame_id: str) -> list[PoseStamped]:
    """Return stamped poses of planar poses (N, 3)."""
    transforms = se3.transform_from_xyyaw(np.asarray(poses_xyyaw, float))
    return [
        PoseStamped(header=header(stamp_s, frame_id), pose=pose_message(T))
        for stamp_s, T in zip(stamps_s, transforms, strict=True)
    ]


def plan_from_path(message: PathMessage, nominal_v_mps: float) -> Plan:
    """Return the plan of a path whose first pose is the start; an empty path is no plan.

    Other planners (Nav2) leave the stamps of the poses equal: such a path is driven at ``nominal_v_mps``.

    Raises:
        DataError: for poses that are not finite.
    """
    stamp_s = seconds_from_stamp(message.header.stamp)
    if len(message.poses) < 2:
        return Plan(PlanStatus.GOAL_MISSING, stamp_s, 1.0, np.zeros((0, 3)), np.zeros(3), message="the path is empty")
    transforms = np.stack([transform_from_pose(stamped.pose) for stamped in message.poses])
    poses = se3.xyyaw_from_transform(transforms)
    stamps_s = np.array([seconds_from_stamp(stamped.header.stamp) for stamped in message.poses])
    steps_s = np.diff(stamps_s)
    if (steps_s > 1e-6).all() and float(np.ptp(steps_s)) < 1e-3:
        dt_s = float(steps_s.mean())
        stamp_s = float(stamps_s[0])
    else:
        poses, dt_s = _evenly_timed(poses, nominal_v_mps)
    return Plan(PlanStatus.OK, stamp_s, dt_s, se2.relative(poses[:1], poses[1:]), poses[0])


def _evenly_timed(poses_xyyaw: NDArray[np.float64], v_mps: float) -> tuple[NDArray[np.float64], float]:
    """Resample a path at equal times of driving it at ``v_mps``; the final heading is kept."""
    distance_m = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(poses_xyyaw[:, :2], axis=0).T))])
    dt_s = 0.25
    count = max(2, int(np.ceil(distance_m[-1] / (v_mps * dt_s))) + 1)
    at_m = np.linspace(0.0, distance_m[-1], count)
    yaw = np.interp(at_m, distance_m, np.unwrap(poses_xyyaw[:, 2]))
    xy = [np.interp(at_m, distance_m, poses_xyyaw[:, axis]) for axis in (0, 1)]
    return np.stack([*xy, se2.wrap_angle(yaw)], axis=1), dt_s


# -- clouds --------------------------------------------------------------------------------------------------------


def cloud_message(
    points_xyz: NDArray[np.float32], rgb: NDArray[np.uint8] | None, stamp_s: float, frame_id: str
) -> PointCloud2:
    """Return an unordered cloud (N, 3), with colours (N, 3) packed as RViz and PCL read them."""
    names = ["x", "y", "z"] + (["rgb"] if rgb is not None else [])
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(names)
    ]
    values = np.zeros((len(points_xyz), len(names)), np.float32)
    values[:, :3] = points_xyz
    if rgb is not None:
        wide = rgb.astype(np.uint32)
        values[:, 3] = (wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2]).view(np.float32)
    data = array.array("B")
    data.frombytes(values.tobytes())
    step = 4 * len(names)
    message = PointCloud2(
        header=header(stamp_s, frame_id),
        height=1,
        width=len(points_xyz),
        fields=fields,
        point_step=step,
        row_step=step * len(points_xyz),
        is_dense=True,
    )
    message.data = data
    return message


def points_from_cloud(message: PointCloud2) -> NDArray[np.float32]:
    """Return the finite points (N, 3) of a cloud with float32 x, y, z; raise DataError for other layouts."""
    offsets = {field.name: field.offset for field in message.fields if field.datatype == PointField.FLOAT32}
    if not {"x", "y", "z"} <= set(offsets):
        have = ", ".join(field.name for field in message.fields) or "no fields"
        raise DataError(f"a point cloud needs float32 fields x, y, z; it has {have}")
    count = message.width * message.height
    rows = np.frombuffer(message.data, np.uint8, count=count * message.point_step).reshape(count, message.point_step)
    order = ">f4" if message.is_bigendian else "<f4"
    columns = [
        np.ascontiguousarray(rows[:, offsets[axis] : offsets[axis] + 4]).view(order)[:, 0] for axis in ("x", "y", "z")
    ]
    points = np.stack(columns, axis=1).astype(np.float32)
    return points[np.isfinite(points).all(axis=1)]
