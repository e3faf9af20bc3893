"""Where the camera sits on the robot, and poses given in other frames: tf2_ros where it exists, a small buffer else.

The buffer is fed from /tf and /tf_static where the message type tf2_msgs/TFMessage exists; without it, the camera's
pose comes from parameters and odometry from its topic, which is all that the nodes need.
"""

from __future__ import annotations

import importlib
import threading
from collections import deque
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3
from come_nav.data.timing.interpolation import interpolate_poses

KEEP_S = 10.0
MAX_DEPTH = 64  # of a chain of frames; more can only be a loop


class Transforms(Protocol):
    """Looks up transforms between frames."""

    def lookup(self, target: str, source: str, stamp_s: float | None = None) -> NDArray[np.float64] | None:
        """Return T_target_source (4, 4) at a time (None = the newest), or None where it is not known."""
        ...


class TransformBuffer:
    """A tree of frames with the transforms of the last seconds; poses in between are interpolated."""

    def __init__(self, keep_s: float = KEEP_S) -> None:
        self._keep_s = keep_s
        self._lock = threading.Lock()  # whoever looks up has a thread of its own
        self._parent: dict[str, str] = {}
        self._static: dict[str, NDArray[np.float64]] = {}
        self._moving: dict[str, deque[tuple[float, NDArray[np.float64]]]] = {}

    def add(
        self, parent: str, child: str, stamp_s: float, T_parent_child: NDArray[np.float64], static: bool = False
    ) -> None:
        """Take one transform. A stamp that jumps back by more than what is kept starts the edge anew."""
        with self._lock:
            self._add(parent.lstrip("/"), child.lstrip("/"), stamp_s, T_parent_child, static)

    def _add(self, parent: str, child: str, stamp_s: float, T_parent_child: NDArray[np.float64], static: bool) -> None:
        if self._parent.get(child) != parent:
            self._moving.pop(child, None)
            self._static.pop(child, None)
        self._parent[child] = parent
        if static:
            self._static[child] = T_parent_child
            return
        edge = self._moving.setdefault(child, deque())
        if edge and stamp_s < edge[-1][0] - self._keep_s:
            edge.clear()
        if edge and stamp_s <= edge[-1][0]:
            return
        edge.append((stamp_s, T_parent_child))
        while edge[0][0] < stamp_s - self._keep_s:
            edge.popleft()

    def lookup(self, target: str, source: str, stamp_s: float | None = None) -> NDArray[np.float64] | None:
        """Return T_target_source (4, 4), or None where the frames are not connected at that time."""
        with self._lock:
            return self._lookup(target, source, stamp_s)

    def _lookup(self, target: str, source: str, stamp_s: float | None) -> NDArray[np.float64] | None:
        up_target, up_source = self._chain(target.lstrip("/")), self._chain(source.lstrip("/"))
        common = next((frame for frame in up_target if frame in up_source), None)
        if common is None:
            return None
        T_common_target = self._compose(up_target[: up_target.index(common)], stamp_s)
        T_common_source = self._compose(up_source[: up_source.index(common)], stamp_s)
        if T_common_target is None or T_common_source is None:
            return None
        return se3.relative(T_common_target, T_common_source)

    def _chain(self, frame: str) -> list[str]:
        chain = [frame]
        while chain[-1] in self._parent and len(chain) < MAX_DEPTH:
            chain.append(self._parent[chain[-1]])
        return chain

    def _compose(self, children: list[str], stamp_s: float | None) -> NDArray[np.float64] | None:
        result = np.eye(4)
        for child in children:
            edge = self._edge(child, stamp_s)
            if edge is None:
                return None
            result = edge @ result
        return result

    def _edge(self, child: str, stamp_s: float | None) -> NDArray[np.float64] | None:
        if child in self._static:
            return self._static[child]
        edge = self._moving.get(child)
        if not edge:
            return None
        if stamp_s is None:
            return edge[-1][1]
        if not edge[0][0] <= stamp_s <= edge[-1][0]:
            return None
        stamps_s = np.array([stamp for stamp, _ in edge])
        transforms = np.stack([transform for _, transform in edge])
        found: NDArray[np.float64] = interpolate_poses(stamps_s, transforms, np.array([stamp_s]))[0]
        return found


class Tf2Transforms:
    """tf2_ros's buffer behind the same interface."""

    def __init__(self, node: Any, tf2_ros: Any) -> None:
        self._tf2_ros = tf2_ros
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str, stamp_s: float | None = None) -> NDArray[np.float64] | None:
        """Return T_target_source (4, 4), or None where tf2 does not know it."""
        from rclpy.time import Time

        when = Time() if stamp_s is None else Time(nanoseconds=round(stamp_s * 1e9))
        try:
            found = self._buffer.lookup_transform(target, source, when).transform
        except self._tf2_ros.TransformException:
            return None
        xyz = np.array([found.translation.x, found.translation.y, found.translation.z])
        q = found.rotation
        return se3.make_transform(se3.matrix_from_quaternion(np.array([q.x, q.y, q.z, q.w])), xyz)


def listen(node: Any) -> Transforms:
    """Return the transforms that ``node`` can hear: tf2_ros's, the small buffer's, or none at all."""
    from come_nav.ros.messages import seconds_from_stamp, transform_from_parts
    from come_nav.ros.qos import COMMAND, STATIC_TRANSFORMS

    tf2_ros = optional_module("tf2_ros")
    if tf2_ros is not None:
        return Tf2Transforms(node, tf2_ros)
    buffer = TransformBuffer()
    tf2_messages = optional_module("tf2_msgs.msg")
    if tf2_messages is None:
        return buffer

    def take(message: Any, static: bool) -> None:
        for stamped in message.transforms:
            move, turn = stamped.transform.translation, stamped.transform.rotation
            xyz, quat = np.array([move.x, move.y, move.z]), np.array([turn.x, turn.y, turn.z, turn.w])
            T_parent_child = transform_from_parts(xyz, quat)
            stamp_s = seconds_from_stamp(stamped.header.stamp)
            buffer.add(stamped.header.frame_id, stamped.child_frame_id, stamp_s, T_parent_child, static)

    kind = tf2_messages.TFMessage
    node.create_subscription(kind, "/tf", lambda message: take(message, False), COMMAND)
    node.create_subscription(kind, "/tf_static", lambda message: take(message, True), STATIC_TRANSFORMS)
    return buffer


def optional_module(name: str) -> Any | None:
    """Return a module that a robot has and a bare machine may lack, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def camera_pose(xyz_rpy: tuple[float, ...]) -> NDArray[np.float64]:
    """Return T_base_camera (4, 4) of the optical frame from the camera body's x, y, z, roll, pitch, yaw in base_link.

    The body axes are x forward, y left, z up; pitch > 0 looks down, as in URDF.
    """
    x, y, z, roll, pitch, yaw = xyz_rpy
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    rotation: NDArray[np.float64] = about_z @ about_y @ about_x @ se3.R_BODY_OPTICAL
    return se3.make_transform(rotation, np.array([x, y, z]))
