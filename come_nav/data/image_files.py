"""Image files of a folder: colour, depth, and what can be told of them without decoding pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from come_nav.core.errors import DataError
from come_nav.core.image_headers import plausible_size
from come_nav.data.bags.images import MILLIMETRE, Depth, Rgb, metric_depth, png_values
from come_nav.data.cameras.wholeness import Size, compressed_parts


def read_rgb(path: Path) -> Rgb:
    """Return (H, W, 3) of a colour or grey image file; raise DataError naming the file if it is damaged."""
    import cv2

    bgr = None
    try:
        data = np.fromfile(path, np.uint8)  # OpenCV takes no names that are not UTF-8
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) and plausible_size(data.tobytes()) else None
    except (OSError, cv2.error) as error:
        raise DataError(f"{path}: the image cannot be read ({error}); copy it again") from error
    if bgr is None:
        raise DataError(f"{path}: the image is damaged; copy it again")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def read_depth(path: Path, unit_m: float = MILLIMETRE) -> Depth:
    """Return metres (H, W) of a 16-bit PNG in units of ``unit_m``, NaN = unknown; raise DataError naming the file."""
    import cv2

    try:
        values = png_values(path.read_bytes())
    except (OSError, cv2.error) as error:
        raise DataError(f"{path}: the depth image cannot be read ({error}); copy it again") from error
    if values is None:
        raise DataError(f"{path}: the depth image is damaged, or no 16-bit PNG")
    return metric_depth(values, unit_m)


def file_size_px(path: Path) -> Size:
    """Return (width, height) of a colour or 16-bit image that is whole; raise DataError where it is not."""
    try:
        whole, size = compressed_parts(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: the image cannot be read ({error.strerror})") from error
    if whole and size is not None:
        return size
    if whole is False:
        raise DataError(f"{path}: the image is damaged: its parts do not follow")
    height, width = read_rgb(path).shape[:2]
    return width, height


def file_contents(files: Sequence[Path]) -> list[tuple[int, int]]:
    """Return (bytes, checksum) of every file (N,); the checksum is 0 where the size tells it from its neighbours."""
    sizes = [file.stat().st_size for file in files]
    return [
        (size, crc32(file.read_bytes()) if size in (*sizes[max(0, at - 1) : at], *sizes[at + 1 : at + 2]) else 0)
        for at, (file, size) in enumerate(zip(files, sizes, strict=True))
    ]
