"""Pixels of ROS image messages: colour as uint8 (H, W, 3) RGB, depth as float32 metres (H, W) with NaN = unknown."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError, suggest
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE

Rgb = NDArray[np.uint8]
Depth = NDArray[np.float32]

# encoding -> (element type, channels), as in sensor_msgs/image_encodings
LAYOUTS: dict[str, tuple[str, int]] = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "rgb16": ("u2", 3),
    "bgr16": ("u2", 3),
    "mono8": ("u1", 1),
    "8uc1": ("u1", 1),
    "8uc3": ("u1", 3),
    "8uc4": ("u1", 4),
    "mono16": ("u2", 1),
    "16uc1": ("u2", 1),
    "32fc1": ("f4", 1),
    "yuv422": ("u1", 2),
    "uyvy": ("u1", 2),
    "yuv422_yuy2": ("u1", 2),
    "yuyv": ("u1", 2),
    **{f"bayer_{order}{bits}": (f"u{bits // 8}", 1) for order in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)},
}
# OpenCV names a Bayer pattern after the second row's second and third pixel, ROS after the first two rows' corner.
BAYER_CODES = {"rggb": "BayerBG", "bggr": "BayerRG", "gbrg": "BayerGR", "grbg": "BayerGB"}
DEPTH_ENCODINGS = ("16uc1", "mono16", "32fc1")


def decode_colour(message: Any, type_name: str) -> Rgb:
    """Return RGB of an Image or CompressedImage message.

    Raises:
        DataError: unknown encoding, sizes that do not agree, or compressed bytes that are damaged.
    """
    if type_name == COMPRESSED_IMAGE:
        return _colour_from_file_bytes(np.asarray(message.data, np.uint8), str(message.format))
    encoding = str(message.encoding).lower()
    return _to_rgb(_pixels(message), encoding)


def decode_depth(message: Any, type_name: str) -> Depth:
    """Return depth in metres of an Image (16UC1 millimetres, 32FC1 metres) or a compressedDepth message.

    Raises:
        DataError: as :func:`decode_colour`, or an encoding that is no depth.
    """
    if type_name == COMPRESSED_IMAGE:
        return _compressed_depth(bytes(memoryview(message.data)), str(message.format))
    encoding = str(message.encoding).lower()
    if encoding not in DEPTH_ENCODINGS:
        raise DataError(f"depth image has encoding '{message.encoding}'; expected 16UC1 (mm) or 32FC1 (m)")
    return metric_depth(_pixels(message)[..., 0])


def metric_depth(values: NDArray[Any]) -> Depth:
    """Return metres of uint16 millimetres or float metres; 0, negative and infinite values become NaN."""
    depth = values.astype(np.float32)
    if values.dtype.kind == "u":
        depth *= np.float32(1e-3)
    with np.errstate(invalid="ignore"):
        depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def _pixels(message: Any) -> NDArray[Any]:
    """Return (H, W, channels) of an Image, without the padding that ``step`` adds to rows, in native byte order."""
    encoding = str(message.encoding).lower()
    if encoding not in LAYOUTS:
        raise DataError(f"image encoding '{message.encoding}' is not supported{suggest(encoding, LAYOUTS)}")
    element, channels = LAYOUTS[encoding]
    dtype = np.dtype((">" if message.is_bigendian else "<") + element)
    height, width, step = int(message.height), int(message.width), int(message.step)
    row_bytes = width * channels * dtype.itemsize
    data = np.ascontiguousarray(message.data).view(np.uint8).reshape(-1)
    if height <= 0 or width <= 0 or step < row_bytes:
        raise DataError(
            f"image of {width}x{height} {message.encoding} needs rows of at least {row_bytes} bytes, step is {step}"
        )
    if data.size != height * step:
        raise DataError(
            f"image of {width}x{height} {message.encoding} with step {step} needs {height * step} bytes, "
            f"got {data.size}"
        )
    rows = np.ascontiguousarray(data.reshape(height, step)[:, :row_bytes])
    return rows.view(dtype).reshape(height, width, channels).astype(dtype.newbyteorder("="), copy=False)


def _to_rgb(pixels: NDArray[Any], encoding: str) -> Rgb:
    import cv2

    if encoding in ("32fc1", "16uc1"):
        raise DataError(f"a depth image ({encoding.upper()}) cannot serve as colour; name the colour topic")
    if encoding.startswith("bayer_"):
        mosaic = _to_eight_bits(pixels[..., 0])
        code = getattr(cv2, f"COLOR_{BAYER_CODES[encoding[6:10]]}2RGB")
        return np.asarray(cv2.cvtColor(mosaic, code), np.uint8)
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        if pixels.shape[1] % 2:
            raise DataError(f"a {encoding} image must have an even width, got {pixels.shape[1]}")
        code = cv2.COLOR_YUV2RGB_UYVY if encoding in ("yuv422", "uyvy") else cv2.COLOR_YUV2RGB_YUY2
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), code), np.uint8)
    pixels = _to_eight_bits(pixels)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    order = [2, 1, 0] if encoding.startswith(("bgr", "8uc")) else [0, 1, 2]  # OpenCV fills 8UC3 with BGR
    return np.ascontiguousarray(pixels[..., order])


def _to_eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return (pixels >> 8).astype(np.uint8) if pixels.dtype.itemsize == 2 else np.ascontiguousarray(pixels, np.uint8)


def _colour_from_file_bytes(data: NDArray[np.uint8], image_format: str) -> Rgb:
    import cv2

    if "compresseddepth" in image_format.lower():
        raise DataError("a compressedDepth image cannot serve as colour; name the colour topic")
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if bgr is None:
        raise DataError(f"compressed image ({image_format or 'no format'}, {data.size} bytes) is damaged")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def _compressed_depth(data: bytes, image_format: str) -> Depth:
    """Decode compressed_depth_image_transport: 12 bytes (int32 format, float32 A, float32 B), then a 16-bit PNG.

    16UC1 is stored as it is. 32FC1 is stored as inverse depth, ``value = A / depth + B``, with 0 = unknown.
    Plain 16-bit PNGs on a compressed topic ("16UC1; png compressed") have no such header.
    """
    import cv2

    lower = image_format.lower()
    has_header = "compresseddepth" in lower
    if has_header and "rvl" in lower:
        raise DataError("compressedDepth in RVL format is not supported; record it with format png")
    png = np.frombuffer(data, np.uint8, offset=12 if has_header and len(data) > 12 else 0)
    values = cv2.imdecode(png, cv2.IMREAD_UNCHANGED) if png.size else None
    if values is None or values.ndim != 2 or values.dtype != np.uint16:
        raise DataError(f"compressed depth ({image_format or 'no format'}, {len(data)} bytes) is not a 16-bit PNG")
    if not (has_header and lower.startswith("32fc1")):
        return metric_depth(values)
    _, quantisation_a, quantisation_b = struct.unpack_from("<iff", data)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(quantisation_a) / (values.astype(np.float32) - np.float32(quantisation_b))
    depth[values == 0] = np.nan
    return metric_depth(depth)
