"""Builds and serialises (CDR) the ROS 2 messages of a drive: images, calibration, odometry and transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.data.bags.ros_types import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    ODOMETRY,
    PIXEL_CENTRE,
    TF_TYPES,
    typestore,
)

JPEG_QUALITY = 95


class MessageWriter:
    """Makes serialised messages. Stamps are nanoseconds; images are arrays at the project's conventions."""

    def __init__(self) -> None:
        self._store = typestore(False)
        self._types = self._store.types

    def image(self, stamp_ns: int, frame_id: str, rgb: NDArray[np.uint8]) -> bytes:
        """Return an rgb8 Image of (H, W, 3) uint8."""
        return self._image(stamp_ns, frame_id, "rgb8", np.ascontiguousarray(rgb))

    def jpeg(self, stamp_ns: int, frame_id: str, rgb: NDArray[np.uint8]) -> bytes:
        """Return a CompressedImage (JPEG) of (H, W, 3) uint8."""
        import cv2

        done, data = cv2.imencode(
            ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        if not done:
            raise DataError(f"an image of shape {rgb.shape} cannot be compressed as JPEG")
        make = self._types[COMPRESSED_IMAGE]
        message = make(
            header=self._header(stamp_ns, frame_id), format="rgb8; jpeg compressed bgr8", data=data.reshape(-1)
        )
        return self._serialise(message, COMPRESSED_IMAGE)

    def depth(self, stamp_ns: int, frame_id: str, depth_m: NDArray[np.float32], encoding: str) -> bytes:
        """Return a depth Image of metres (H, W): 16UC1 millimetres with 0 = unknown, or 32FC1 metres with NaN."""
        if encoding == "32FC1":
            return self._image(stamp_ns, frame_id, encoding, np.ascontiguousarray(depth_m, dtype="<f4"))
        millimetres = np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0) * 1000.0
        millimetres[(millimetres < 0) | (millimetres > 65535)] = 0
        return self._image(stamp_ns, frame_id, "16UC1", np.rint(millimetres).astype("<u2"))

    def camera_info(self, stamp_ns: int, frame_id: str, camera: CameraIntrinsics) -> bytes:
        """Return CameraInfo without distortion."""
        K = camera.matrix()
        K[:2, 2] -= PIXEL_CENTRE
        P = np.concatenate([K, np.zeros((3, 1))], axis=1)
        roi = self._types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        message = self._types[CAMERA_INFO](
            header=self._header(stamp_ns, frame_id),
            height=camera.height,
            width=camera.width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=K.reshape(-1),
            r=np.eye(3).reshape(-1),
            p=P.reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )
        return self._serialise(message, CAMERA_INFO)

    def odometry(
        self,
        stamp_ns: int,
        frames: tuple[str, str],
        T_a_b: NDArray[np.float64],
        twist: tuple[float, float],
        vy_mps: float = 0.0,
    ) -> bytes:
        """Return Odometry of ``frames`` (parent, child) with a planar twist in the child frame.

        ``twist`` is forward speed (m/s) and yaw rate (rad/s), ``vy_mps`` the speed to the left.
        """
        parent, child = frames
        vector = self._types["geometry_msgs/msg/Vector3"]
        position, rotation = self._pose_parts(T_a_b)
        pose = self._types["geometry_msgs/msg/Pose"](
            position=self._types["geometry_msgs/msg/Point"](*position), orientation=rotation
        )
        velocity = self._types["geometry_msgs/msg/Twist"](
            linear=vector(twist[0], vy_mps, 0.0), angular=vector(0.0, 0.0, twist[1])
        )
        with_covariance = self._types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36))
        moving = self._types["geometry_msgs/msg/TwistWithCovariance"](twist=velocity, covariance=np.zeros(36))
        message = self._types[ODOMETRY](
            header=self._header(stamp_ns, parent), child_frame_id=child, pose=with_covariance, twist=moving
        )
        return self._serialise(message, ODOMETRY)

    def transform(self, stamp_ns: int, frames: tuple[str, str], T_a_b: NDArray[np.float64]) -> bytes:
        """Return a TFMessage with one transform of ``frames`` (parent, child)."""
        parent, child = frames
        translation, rotation = self._pose_parts(T_a_b)
        transform = self._types["geometry_msgs/msg/Transform"](
            translation=self._types["geometry_msgs/msg/Vector3"](*translation), rotation=rotation
        )
        stamped = self._types["geometry_msgs/msg/TransformStamped"](
            header=self._header(stamp_ns, parent), child_frame_id=child, transform=transform
        )
        return self._serialise(self._types[TF_TYPES[0]](transforms=[stamped]), TF_TYPES[0])

    def _image(self, stamp_ns: int, frame_id: str, encoding: str, pixels: NDArray[Any]) -> bytes:
        message = self._types[IMAGE](
            header=self._header(stamp_ns, frame_id),
            height=pixels.shape[0],
            width=pixels.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=pixels.strides[0],
            data=pixels.reshape(-1).view(np.uint8),
        )
        return self._serialise(message, IMAGE)

    def _pose_parts(self, T_a_b: NDArray[np.float64]) -> tuple[list[float], Any]:
        quat = se3.quaternion_from_matrix(T_a_b[:3, :3])
        return [float(value) for value in T_a_b[:3, 3]], self._types["geometry_msgs/msg/Quaternion"](*map(float, quat))

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        stamp = self._types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return self._types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)

    def _serialise(self, message: Any, type_name: str) -> bytes:
        return bytes(self._store.serialize_cdr(message, type_name))
