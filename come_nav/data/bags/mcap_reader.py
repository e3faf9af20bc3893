"""mcap storage: also of tools that leave the profile empty, mix in other schemas, or hold ROS 1 messages."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from rosbags.rosbag2.storage_mcap import McapReader, Schema

MAGIC = b"\x89MCAP0\r\n"
HEADER = 0x01
PAYLOAD_START = len(MAGIC) + 9  # after the header record's kind and length
ROS2_PROFILE = struct.pack("<I", 4) + b"ros2"
SCHEMA_ENCODINGS = {"ros1msg": "ros2msg"}  # the same grammar
KNOWN_ENCODINGS = ("ros2msg", "ros2idl", "omgidl", "")


class AnyProfileMcapReader(McapReader):
    """Reads messages in CDR whatever the file's profile is, and those of ROS 1 under their ROS 2 type names."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.schemas = _Schemas()

    def _open(self) -> None:
        assert self.bio is not None
        size = header_length(self.bio)
        if size is not None:
            self.bio = _Ros2Header(self.bio, size)  # type: ignore[assignment]
        super()._open()
        self.name_types_as_ros2()

    def name_types_as_ros2(self) -> None:
        """Turn the type names of ROS 1 (sensor_msgs/Image) into those of ROS 2 (sensor_msgs/msg/Image)."""
        self.connections[:] = [link._replace(msgtype=_ros2_name(link.msgtype)) for link in self.connections]


class _Schemas(dict[int, Schema]):
    """Schemas by number; those of other kinds (protobuf, JSON) count as not given: their topics are left out later."""

    def get(self, key: int, default: Any = None) -> Any:
        schema = super().get(key, default)
        if schema is None:
            return None
        encoding = SCHEMA_ENCODINGS.get(schema.encoding, schema.encoding)
        known = encoding in KNOWN_ENCODINGS
        return schema._replace(encoding=encoding if known else "", data=schema.data if known else "")


class _Ros2Header:
    """A file whose header record reads as if its profile were ros2, which is all that rosbags asks of it."""

    def __init__(self, bio: BinaryIO, length: int) -> None:
        self._bio, self._length = bio, length

    def read(self, size: int = -1) -> bytes:
        start = self._bio.tell()
        data = self._bio.read(size)
        return ROS2_PROFILE + data[len(ROS2_PROFILE) :] if (start, size) == (PAYLOAD_START, self._length) else data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bio, name)


def header_length(bio: BinaryIO) -> int | None:
    """Return the length of the header record, None where there is none; the position is kept."""
    start = bio.tell()
    bio.seek(0)
    head = bio.read(PAYLOAD_START)
    bio.seek(start)
    if len(head) < PAYLOAD_START or head[: len(MAGIC)] != MAGIC or head[len(MAGIC)] != HEADER:
        return None
    (length,) = struct.unpack_from("<Q", head, len(MAGIC) + 1)
    return int(length) if length >= len(ROS2_PROFILE) else None


def _ros2_name(name: str) -> str:
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name
