"""Pieces of H.264 and H.265 video in messages: which codec, and where a decoder may begin.

Messages are ffmpeg_image_transport_msgs/FFMPEGPacket, foxglove_msgs/CompressedVideo, and sensor_msgs/CompressedImage
whose format or first bytes say video. All hold Annex B byte streams: units behind the start code 00 00 01
(ITU-T H.264 and H.265, annex B and table 7-1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from come_nav.core.errors import DataError
from come_nav.data.bags.images import video_codec
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE, COMPRESSED_VIDEO, FFMPEG_PACKET

VIDEO_TYPES = (FFMPEG_PACKET, COMPRESSED_VIDEO)
START_CODE = b"\0\0\1"
FFMPEG_NAMES = {"H.264": "h264", "H.265": "hevc"}


@dataclass(frozen=True)
class VideoPacket:
    """One piece of video: FFmpeg's name of its codec, the optical frame of its camera, and the bytes."""

    codec: str
    frame_id: str
    data: bytes


def packet_of(message: Any, type_name: str) -> VideoPacket | None:
    """Return the piece of video in a decoded message, None where it holds a still image.

    Raises:
        DataError: video of a codec that is not read, or an empty piece.
    """
    if type_name not in (COMPRESSED_IMAGE, *VIDEO_TYPES):
        return None
    words = str(message.encoding if type_name == FFMPEG_PACKET else message.format)
    data = np.asarray(message.data, np.uint8).tobytes()
    name = video_codec(words.partition(";")[0] if type_name == FFMPEG_PACKET else words, data[:8])
    if name is None and type_name == COMPRESSED_IMAGE:
        return None
    if not data:
        raise DataError(f"a piece of {name or words or 'unknown'} video is empty (0 bytes)")
    codec = FFMPEG_NAMES.get(name or "") or (_codec_of(data) if name is None or " or " in name else None)
    if codec is None:
        raise DataError(
            f"{name or words or 'unknown'} video is not read, H.264 and H.265 are; turn it into images:  ros2 run "
            "image_transport republish"
        )
    holder = getattr(message, "header", message)  # CompressedVideo has the fields of a header, but no header
    return VideoPacket(codec, str(holder.frame_id).lstrip("/"), data)


def begins_anew(packet: VideoPacket) -> bool:
    """Tell whether a decoder may begin here: the first picture needs none before it."""
    for kind, _ in units(packet):
        if packet.codec == "h264" and 1 <= kind <= 5:
            return kind == 5
        if packet.codec == "hevc" and kind < 32:
            return 16 <= kind <= 21
    return False


def parameter_sets(packet: VideoPacket) -> bytes:
    """Return the units that tell a decoder the size and coding of pictures; empty where a piece has none."""
    wanted = (7, 8) if packet.codec == "h264" else (32, 33, 34)
    return b"".join(b"\0" + START_CODE + unit for kind, unit in units(packet) if kind in wanted)


def units(packet: VideoPacket) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, bytes) of the units of a piece."""
    data, at = packet.data, packet.data.find(START_CODE)
    while at >= 0:
        begin = at + len(START_CODE)
        at = data.find(START_CODE, begin)
        unit = data[begin : at if at >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield (unit[0] & 31 if packet.codec == "h264" else unit[0] >> 1 & 63), unit


def _codec_of(data: bytes) -> str | None:
    """Tell the codecs apart by their parameter sets, which stand before the first picture."""
    for codec, kinds in (("hevc", (32, 33)), ("h264", (7,))):
        found = [(kind, unit) for kind, unit in units(VideoPacket(codec, "", data)) if kind in kinds]
        if found and (codec == "h264" or found[0][1][1] == 1):  # the second byte of H.265's: layer 0, temporal id 0
            return codec
    return None
