"""Decodes serialised ROS messages with the types that rosbags knows, or with the definitions inside the bag."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from come_nav.core.errors import DataError

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
FFMPEG_PACKET = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
COMPRESSED_VIDEO = "foxglove_msgs/msg/CompressedVideo"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
ODOMETRY = "nav_msgs/msg/Odometry"
POSE_STAMPED = "geometry_msgs/msg/PoseStamped"
POSE_WITH_COVARIANCE = "geometry_msgs/msg/PoseWithCovarianceStamped"
TRANSFORM_STAMPED = "geometry_msgs/msg/TransformStamped"
TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
# Types that rosbags does not know, for bags that carry no definitions (sqlite3 before ROS 2 Iron)
DEFINITIONS = {
    FFMPEG_PACKET: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
    "bool is_bigendian\nuint8[] data\n",
    COMPRESSED_VIDEO: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
}
# CameraInfo puts integer coordinates at pixel centres (OpenCV), come_nav at pixel edges: cx = cx_ros + 0.5.
PIXEL_CENTRE = 0.5


class MessageDecoder:
    """Decodes messages of one bag; types that rosbags does not know are learnt from the bag's own definitions."""

    def __init__(self, is_ros1: bool) -> None:
        self.is_ros1 = is_ros1
        self._definitions: dict[str, Any] = {}
        self._own: dict[str, Any] = {}

    def knowing(self, connection: Any) -> MessageDecoder:
        """Remember the definition that the bag carries for ``connection``; return self."""
        self._definitions.setdefault(connection.msgtype, connection.msgdef)
        return self

    def decode(self, raw: bytes, type_name: str) -> Any:
        """Return the message; raise DataError when its bytes do not fit the type."""
        name = TF_TYPES[0] if type_name == TF_TYPES[1] else type_name
        store = self._store(name)
        try:
            return store.deserialize_ros1(raw, name) if self.is_ros1 else store.deserialize_cdr(raw, name)
        except Exception as error:  # the generated readers raise many kinds on bytes that do not fit
            raise DataError(f"a {type_name} message cannot be decoded ({len(raw)} bytes: {error})") from error

    def fits(self, raw: bytes, type_name: str) -> bool:
        """Tell whether the bytes are a message of the type."""
        try:
            self.decode(raw, type_name)
        except DataError:
            return False
        return True

    def _store(self, name: str) -> Any:
        store = typestore(self.is_ros1)
        if name in store.fielddefs:
            return store
        if name not in self._own:
            types = self._types_of(name)
            self._own[name] = _fresh_store(self.is_ros1)
            self._own[name].register(types)
        return self._own[name]

    def _types_of(self, name: str) -> Any:
        definition = self._definitions.get(name)
        if definition is not None and definition.data:
            return _parse_definition(definition, name)
        if name not in DEFINITIONS:
            raise DataError(f"the bag carries no definition of the message type {name}, so it cannot be decoded")
        from rosbags.typesys import get_types_from_msg

        text = DEFINITIONS[name]
        return get_types_from_msg(text.replace("builtin_interfaces/Time", "time") if self.is_ros1 else text, name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_own": {}}


@lru_cache(maxsize=2)
def typestore(is_ros1: bool) -> Any:
    """Return the standard message types, shared: loading them takes a tenth of a second. Never registered into."""
    return _fresh_store(is_ros1)


def header_stamp_ns(raw: bytes, is_ros1: bool) -> int:
    """Return ``header.stamp`` in nanoseconds of a serialised message whose first field is a std_msgs/Header.

    Reads twelve bytes instead of the whole message: a pass over a large bag costs no image decoding. Zero if too short.
    """
    if len(raw) < 12:
        return 0
    if is_ros1:  # uint32 seq, uint32 secs, uint32 nsecs
        seconds, nanoseconds = struct.unpack_from("<II", raw, 4)
    else:  # CDR: byte 1 of the encapsulation header tells the byte order
        seconds, nanoseconds = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def stamp_ns(stamp: Any) -> int:
    """Return nanoseconds of a decoded builtin_interfaces/Time."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _fresh_store(is_ros1: bool) -> Any:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    if not is_ros1:
        return get_typestore(Stores.ROS2_JAZZY)
    store = get_typestore(Stores.ROS1_NOETIC)  # lacks tf2_msgs
    store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", TF_TYPES[0]))
    return store


def _parse_definition(definition: Any, name: str) -> Any:
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import get_types_from_idl, get_types_from_msg

    try:
        if definition.format == MessageDefinitionFormat.MSG:
            return get_types_from_msg(definition.data, name)
        return get_types_from_idl(definition.data)
    except Exception as error:  # the grammar raises several kinds
        raise DataError(f"the bag's definition of {name} cannot be parsed ({error})") from error
