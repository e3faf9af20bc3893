"""Whether an image message can be decoded, found out without decoding its pixels wherever that is possible."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

from come_nav.core.errors import DataError
from come_nav.data.bags.bag import BagMessage
from come_nav.data.bags.images import FULL_PLANES, LAYOUTS, PLANAR, check_layout, decode_colour, decode_depth
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE
from come_nav.data.video.packets import packet_of

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
TAIL = 64  # bytes of padding that drivers put behind a JPEG


def fault_of(message: BagMessage, is_depth: bool) -> str | None:
    """Return what is wrong with one image message, None where it is whole.

    A kind that is never read (an unknown encoding, video) is not this message's fault: None, and decoding tells.
    """
    try:
        decoded = message.decode()
        if packet_of(decoded, message.type) is not None:
            return None
        if message.type != COMPRESSED_IMAGE:
            if str(decoded.encoding).lower() in (*LAYOUTS, *PLANAR, *FULL_PLANES):
                check_layout(decoded)
            return None
        data = np.asarray(decoded.data, np.uint8).tobytes()
        if _ends_well(data):
            return None
        (decode_depth if is_depth else decode_colour)(decoded, message.type)
    except DataError as error:
        return str(error)
    return None


def _ends_well(data: bytes) -> bool:
    """Tell whether a JPEG has its end mark, or all parts of a PNG their checksums; False where that is not known."""
    if data.startswith(JPEG_START):
        return JPEG_END in data[-TAIL:]
    start = data.find(PNG_START, 0, 13 + len(PNG_START))  # compressedDepth has twelve bytes before it
    return start >= 0 and _png_is_whole(data, start + len(PNG_START))


def _png_is_whole(data: bytes, position: int) -> bool:
    view: Any = memoryview(data)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        if end + 4 > len(data) or zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return False
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position = end + 4
    return False
