"""Pixels of live image messages: by cv_bridge where ROS has it, by come_nav's own conversion elsewhere; equal results.

cv_bridge gets what it converts exactly as :mod:`come_nav.data.bags.images` does: raw images of eight bits, and depth as
it is. Images of 16 bits it scales with rounding, generic encodings (8UC3) and planes it refuses, and rows padded by
other than whole pixels it shears (its array has ``step // channels`` columns), so these are ours.
"""

from __future__ import annotations

import functools
import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.data.bags.images import (
    DEPTH_ENCODINGS,
    LAYOUTS,
    MILLIMETRE,
    Depth,
    Rgb,
    check_layout,
    decode_colour,
    decode_depth,
    metric_depth,
)
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE, IMAGE
from come_nav.ros.transforms import optional_module

COLOURS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "yuv422", "yuv422_yuy2"),
    *(f"bayer_{order}8" for order in ("rggb", "bggr", "gbrg", "grbg")),
)
_log = logging.getLogger(__name__)


def message_type_name(message: Any) -> str:
    """Return the ROS name of an image message's type."""
    return IMAGE if hasattr(message, "encoding") else COMPRESSED_IMAGE


def colour_of(message: Any) -> Rgb:
    """Return RGB (H, W, 3) of an Image or CompressedImage; raise DataError as ``decode_colour`` does."""
    if _converts(message, COLOURS):
        found = _converted(message, "rgb8")
        if found is not None:
            return np.ascontiguousarray(found, np.uint8)
    return decode_colour(message, message_type_name(message))


def depth_of(message: Any, unit_m: float = MILLIMETRE) -> Depth:
    """Return metres (H, W) of an Image or compressedDepth message; raise DataError as ``decode_depth`` does."""
    if _converts(message, DEPTH_ENCODINGS):
        found = _converted(message, "passthrough")
        if found is not None:
            return metric_depth(found, unit_m)
    return decode_depth(message, message_type_name(message), unit_m)


def converter() -> str:
    """Return what converts raw images here."""
    return "come_nav" if bridge() is None else "cv_bridge"


@functools.cache
def bridge() -> Any | None:
    """Return a CvBridge that converts as come_nav does; None where there is none, or where it does not work here.

    One that was compiled for another numpy or OpenCV fails in many ways, some of them only when it is used.
    """
    module = optional_module("cv_bridge")
    if module is None:
        return None
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    sample = SimpleNamespace(height=2, width=2, encoding="bgr8", is_bigendian=0, step=6, data=pixels.tobytes())
    try:
        found = module.CvBridge()
        if np.array_equal(found.imgmsg_to_cv2(sample, "rgb8"), pixels[..., ::-1]):
            return found
        reason = "it swaps colours"
    except Exception as error:
        reason = str(error) or type(error).__name__
    _log.warning("cv_bridge does not work here (%s): images are converted without it", reason)
    return None


def _converts(message: Any, encodings: tuple[str, ...]) -> bool:
    """Whether cv_bridge is asked; what its bytes do not fit is refused before, with the reason."""
    encoding = str(getattr(message, "encoding", ""))
    if encoding.lower() not in encodings or message.is_bigendian or bridge() is None:
        return False
    check_layout(message)
    element, channels = LAYOUTS[encoding.lower()]
    if message.step != message.width * channels * np.dtype(element).itemsize:
        return False
    return not (encoding.lower().startswith("yuv") and message.width % 2)


def _converted(message: Any, desired: str) -> NDArray[Any] | None:
    cv: Any = bridge()
    try:
        found: NDArray[Any] = cv.imgmsg_to_cv2(message, desired)
    except (TypeError, RuntimeError):  # CvBridgeError is a TypeError
        return None
    return found
