"""Images as JPEG or PNG in memory."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError


def compress(rgb: NDArray[np.uint8], image_format: Literal["jpeg", "png"], jpeg_quality: int) -> bytes:
    """Return an image (H, W, 3) as a JPEG or PNG file's content."""
    import cv2

    bgr = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR)
    options = [] if image_format == "png" else [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    done, data = cv2.imencode(".png" if image_format == "png" else ".jpg", bgr, options)
    if not done:
        raise DataError(f"an image of shape {rgb.shape} cannot be compressed as {image_format}")
    return bytes(data.tobytes())


def decompress(image: bytes) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) of a file's content; raise DataError where it is damaged."""
    import cv2

    bgr = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DataError("a key frame's image is damaged; verify the memory it was loaded from")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
