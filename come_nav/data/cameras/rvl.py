"""RVL, the lossless depth compression of compressed_depth_image_transport.

A. Wilson, "Fast lossless depth image compression", ISS 2017. Depth is a sequence of runs: how many zeros, how many
values, then each value's difference to the one before. All are written in groups of three bits with a fourth that
says whether more follow, eight groups in a 32-bit word, the first in its highest bits.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError

MOST_PIXELS = 1 << 28
GROUPS_OF_A_NUMBER = 11  # 33 bits


def decode_rvl(data: bytes) -> NDArray[np.uint16]:
    """Return depth (H, W) of ``int32 columns, int32 rows`` and the compressed words.

    Raises:
        DataError: sizes that cannot be, or words that end too soon.
    """
    if len(data) < 8:
        raise DataError(f"RVL depth has {len(data)} bytes, fewer than its header")
    width, height = struct.unpack_from("<ii", data)
    if width <= 0 or height <= 0 or width * height > MOST_PIXELS:
        raise DataError(f"RVL depth of {width}x{height} pixels cannot be")
    numbers = _numbers(data[8:])
    depth = np.zeros(width * height, np.int64)
    place, position, before = 0, 0, 0
    while place < len(depth):
        if position + 2 > len(numbers):
            raise DataError(f"RVL depth ends after {place} of {len(depth)} pixels")
        zeros, count = int(numbers[position]), int(numbers[position + 1])
        position, place = position + 2, place + zeros
        steps = numbers[position : position + count]
        if place + count > len(depth) or len(steps) < count or zeros + count == 0:
            raise DataError(f"RVL depth is damaged at pixel {place} of {len(depth)}")
        values = before + np.cumsum((steps >> 1) ^ -(steps & 1))
        depth[place : place + count] = values
        before = int(values[-1]) if count else before
        position, place = position + count, place + count
    return depth.astype(np.uint16).reshape(height, width)


def _numbers(data: bytes) -> NDArray[np.int64]:
    """Return all whole numbers in the words."""
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
    groups: NDArray[np.int64] = (
        ((words[:, None] >> np.arange(28, -4, -4, dtype=np.uint32)) & 0xF).reshape(-1).astype(np.int64)
    )
    ends = np.flatnonzero(groups < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    first = np.concatenate([[0], ends[:-1] + 1])
    groups = groups[: ends[-1] + 1]
    place = np.arange(len(groups)) - np.repeat(first, ends + 1 - first)
    if place.max() >= GROUPS_OF_A_NUMBER:
        raise DataError("RVL depth holds a number of more than 32 bits")
    numbers: NDArray[np.int64] = np.add.reduceat((groups & 7) << (3 * place), first)
    return numbers
