"""What the header of a JPEG or PNG claims, before anybody decodes it: a few damaged bytes may ask for gigabytes."""

from __future__ import annotations

import struct

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
START_OF_SCAN = 0xDA
SIZES_IN = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # frame headers (ITU-T T.81, table B.1)
# An even area costs a JPEG 6 bits per block of 16 x 16 pixels, and a PNG a thousandth of its bytes.
MOST_PIXELS_PER_BYTE = 2000
ALWAYS_PLAUSIBLE_PIXELS = 1 << 20


def plausible_size(data: bytes) -> bool:
    """Return whether a compressed image is long enough for the size in its header; True where no size is found."""
    size = _jpeg_size(data) if data.startswith(JPEG_START) else _png_size(data)
    pixels = 0 if size is None else size[0] * size[1]
    return pixels <= max(ALWAYS_PLAUSIBLE_PIXELS, MOST_PIXELS_PER_BYTE * len(data))


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != START_OF_SCAN:
        if data[at + 1] == 0xFF:  # filling
            at += 1
            continue
        if data[at + 1] in SIZES_IN:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return int(width), int(height)
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    start = data.find(PNG_START, 0, 32)  # compressedDepth has twelve bytes before it
    if start < 0 or len(data) < start + 24:
        return None
    width, height = struct.unpack_from(">II", data, start + 16)
    return int(width), int(height)
