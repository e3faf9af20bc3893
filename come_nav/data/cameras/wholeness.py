"""Whether an image message can be decoded, found out without decoding its pixels wherever that is possible."""

from __future__ import annotations

import re
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
MARKER = re.compile(rb"\xff[^\x00\xff]")  # in a scan, FF 00 is a byte FF and FF FF is filling (ITU-T T.81, B.1.1.2)
START_OF_SCAN, END_OF_IMAGE, FIRST_RESTART, RESTARTS = 0xDA, 0xD9, 0xD0, 8
BETWEEN_SCANS = {0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)}
SIZES_IN = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}

Size = tuple[int, int]


def look_at(message: BagMessage, is_depth: bool) -> tuple[str | None, Size | None]:
    """Return what is wrong with one image message (None where it is whole), and its (width, height) if it tells them.

    A kind that is never read (an unknown encoding) is not this message's fault, and decoding tells. Of a JPEG its parts
    are checked, not the pixels: damage within a scan that leaves every marker in place is not seen.
    """
    try:
        decoded = message.decode()
        if packet_of(decoded, message.type) is not None:
            return None, None
        if message.type != COMPRESSED_IMAGE:
            if str(decoded.encoding).lower() in (*LAYOUTS, *PLANAR, *FULL_PLANES):
                check_layout(decoded)
            return None, (int(decoded.width), int(decoded.height))
        data = np.asarray(decoded.data, np.uint8).tobytes()
        whole, size = compressed_parts(data)
        if whole:
            return None, size
        pixels = (decode_depth if is_depth else decode_colour)(decoded, message.type)
        if whole is False:
            return f"compressed image ({decoded.format}, {len(data)} bytes) is damaged: its parts do not follow", None
    except DataError as error:
        return str(error), None
    return None, (pixels.shape[1], pixels.shape[0])


def compressed_parts(data: bytes) -> tuple[bool | None, Size | None]:
    """Tell whether the parts of a JPEG or PNG follow each other, None where that is not known; and its size."""
    return jpeg_parts(data) if data.startswith(JPEG_START) else _png_parts(data)


def jpeg_parts(data: bytes) -> tuple[bool | None, Size | None]:
    """Tell whether the parts of a JPEG follow each other to its end, None where that is not known; and its size."""
    if JPEG_END not in data[-TAIL:]:
        return None, None  # drivers cut an end mark off; decoding tells whether more is missing
    size, at = None, 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return False, size
        kind = data[at + 1]
        if kind == 0xFF:  # filling
            at += 1
            continue
        if kind == END_OF_IMAGE:
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if kind in SIZES_IN and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = int(width), int(height)
        at += 2 + length
        if kind == START_OF_SCAN:
            found = _end_of_scan(data, at)
            if found is None:
                return False, size
            at = found
    return (True if at < len(data) and size is not None else None), size


def _end_of_scan(data: bytes, at: int) -> int | None:
    """Return where the part behind a scan begins; None where a mark cannot stand there or restarts are missing."""
    expected = 0
    for found in MARKER.finditer(data, at):
        kind = found.group()[1]
        if FIRST_RESTART <= kind < FIRST_RESTART + RESTARTS:
            if kind - FIRST_RESTART != expected:
                return None
            expected = (expected + 1) % RESTARTS
            continue
        return found.start() if kind == END_OF_IMAGE or kind in BETWEEN_SCANS else None
    return None


def _png_parts(data: bytes) -> tuple[bool | None, Size | None]:
    """Tell likewise of a PNG, by the checksums of its parts."""
    start = data.find(PNG_START, 0, 13 + len(PNG_START))  # compressedDepth has twelve bytes before it
    begin = start + len(PNG_START)
    if start < 0 or not _png_is_whole(data, begin):
        return None, None
    width, height = struct.unpack_from(">II", data, begin + 8)
    return True, (int(width), int(height))


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
