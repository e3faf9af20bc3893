"""Pixels of ROS image messages: colour as uint8 (H, W, 3) RGB, depth as float32 metres (H, W) with NaN = unknown."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError, suggest
from come_nav.core.image_headers import plausible_size
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE
from come_nav.data.cameras.rvl import decode_rvl

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
    "rgba16": ("u2", 4),
    "bgra16": ("u2", 4),
    "16uc3": ("u2", 3),
    "16uc4": ("u2", 4),
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
MILLIMETRE = 1e-3
SENSOR_BITS = (10, 12, 14)
# A plane of brightness, then one or two of colour: encoding -> (rows of a column of H pixels, OpenCV's code)
PLANAR = {"nv12": "NV12", "nv21": "NV21", "i420": "I420", "yuv420": "I420", "yv12": "YV12"}
FULL_PLANES = ("nv24", "nv42")  # colour for every pixel, in pairs behind the plane of brightness
VIDEO_WORDS = {
    "h264": "H.264",
    "avc": "H.264",
    "x264": "H.264",
    "h265": "H.265",
    "x265": "H.265",
    "hevc": "H.265",
    "av1": "AV1",
    "vp9": "VP9",
    "vp8": "VP8",
}


def decode_colour(message: Any, type_name: str, bits: int = 16) -> Rgb:
    """Return RGB of an Image or CompressedImage message; 16-bit ones use ``bits`` bits (:func:`used_bits`).

    Raises:
        DataError: unknown encoding, sizes that do not agree, or compressed bytes that are damaged.
    """
    if type_name == COMPRESSED_IMAGE:
        return _colour_from_file_bytes(np.asarray(message.data, np.uint8), str(message.format))
    encoding = str(message.encoding).lower()
    if encoding in PLANAR or encoding in FULL_PLANES:
        return _planar_to_rgb(_planes(message), int(message.height), int(message.width), encoding)
    return _to_rgb(_pixels(message), encoding, bits)


def used_bits(message: Any, type_name: str) -> int:
    """Return how many bits the values of a 16-bit colour image use: sensors of 10, 12 or 14 bits leave zeros."""
    encoding = str(getattr(message, "encoding", "")).lower()
    if type_name == COMPRESSED_IMAGE or LAYOUTS.get(encoding, ("",))[0] != "u2":
        return 16
    brightest = int(_pixels(message).max())
    return next((bits for bits in SENSOR_BITS if 0 < brightest < 1 << bits), 16)


def decode_depth(message: Any, type_name: str, unit_m: float = MILLIMETRE) -> Depth:
    """Return depth in metres of an Image (16UC1, 32FC1) or a compressedDepth message (PNG or RVL).

    Whole numbers count ``unit_m`` metres (REP 118: millimetres); 32FC1 is in metres.

    Raises:
        DataError: as :func:`decode_colour`, or an encoding that is no depth.
    """
    if type_name == COMPRESSED_IMAGE:
        return _compressed_depth(bytes(memoryview(message.data)), str(message.format), unit_m)
    encoding = str(message.encoding).lower()
    if encoding not in DEPTH_ENCODINGS:
        raise DataError(f"depth image has encoding '{message.encoding}'; expected 16UC1 (mm) or 32FC1 (m)")
    return metric_depth(_pixels(message)[..., 0], unit_m)


def metric_depth(values: NDArray[Any], unit_m: float = MILLIMETRE) -> Depth:
    """Return metres of uint16 units or float metres; 0, negative and infinite values become NaN."""
    depth = values.astype(np.float32)
    if values.dtype.kind == "u":
        depth *= np.float32(unit_m)
    with np.errstate(invalid="ignore"):
        depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def check_layout(message: Any) -> None:
    """Raise DataError where an Image's bytes are not as many as its sizes and encoding say, or its encoding unknown."""
    encoding = str(message.encoding).lower()
    (_planes if encoding in PLANAR or encoding in FULL_PLANES else _rows)(message)


def _pixels(message: Any) -> NDArray[Any]:
    """Return (H, W, channels) of an Image, without the padding that ``step`` adds to rows, in native byte order."""
    data, dtype, channels = _rows(message)
    height, width = int(message.height), int(message.width)
    rows = np.ascontiguousarray(data[:, : width * channels * dtype.itemsize])
    pixels: NDArray[Any] = rows.view(dtype).reshape(height, width, channels)
    return pixels.astype(dtype.newbyteorder("="), copy=False)


def _rows(message: Any) -> tuple[NDArray[np.uint8], np.dtype[Any], int]:
    """Return the bytes (H, step) of an Image, the type of an element and how many a pixel has."""
    encoding = str(message.encoding).lower()
    if encoding not in LAYOUTS:
        known = (*LAYOUTS, *PLANAR, *FULL_PLANES)
        raise DataError(f"image encoding '{message.encoding}' is not supported{suggest(encoding, known)}")
    element, channels = LAYOUTS[encoding]
    dtype = np.dtype((">" if message.is_bigendian else "<") + element)
    return _lines(message, int(message.width) * channels * dtype.itemsize, 1.0), dtype, channels


def _planes(message: Any) -> NDArray[np.uint8]:
    """Return the bytes (H * 3 / 2 or H * 3, W) of an Image in planes."""
    encoding = str(message.encoding).lower()
    height, width = int(message.height), int(message.width)
    if encoding in PLANAR and (height % 2 or width % 2):
        raise DataError(f"a {encoding} image must have even sides, got {width}x{height}")
    lines = _lines(message, width, 3.0 if encoding in FULL_PLANES else 1.5)
    planes: NDArray[np.uint8] = np.ascontiguousarray(lines[:, :width])
    return planes


def _lines(message: Any, row_bytes: int, planes: float) -> NDArray[np.uint8]:
    """Return an Image's bytes (H * planes, step) after checking that there are so many."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.ascontiguousarray(message.data).view(np.uint8).reshape(-1)
    if height <= 0 or width <= 0 or step < row_bytes:
        raise DataError(
            f"image of {width}x{height} {message.encoding} needs rows of at least {row_bytes} bytes, step is {step}"
        )
    if planes > 1.0 and data.size != int(height * planes) * step:  # some drivers count all planes into a row
        step = row_bytes
    if data.size != int(height * planes) * step:
        raise DataError(
            f"image of {width}x{height} {message.encoding} with step {step} needs {int(height * planes) * step} bytes, "
            f"got {data.size}"
        )
    lines: NDArray[np.uint8] = data.reshape(-1, step)
    return lines


def _planar_to_rgb(planes: NDArray[np.uint8], height: int, width: int, encoding: str) -> Rgb:
    import cv2

    if encoding in PLANAR:
        return np.asarray(cv2.cvtColor(planes, getattr(cv2, f"COLOR_YUV2RGB_{PLANAR[encoding]}")), np.uint8)
    pairs = planes[height:].reshape(height, width, 2).astype(np.float32) - 128.0
    blue, red = (pairs[..., 0], pairs[..., 1]) if encoding == "nv24" else (pairs[..., 1], pairs[..., 0])
    luma = 1.164 * np.maximum(planes[:height].astype(np.float32) - 16.0, 0.0)  # BT.601, as OpenCV converts the others
    values = np.stack([luma + 1.596 * red, luma - 0.813 * red - 0.391 * blue, luma + 2.018 * blue], axis=-1)
    rgb: Rgb = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rgb


def _to_rgb(pixels: NDArray[Any], encoding: str, bits: int) -> Rgb:
    import cv2

    if encoding in ("32fc1", "16uc1"):
        raise DataError(f"a depth image ({encoding.upper()}) cannot serve as colour; name the colour topic")
    if encoding.startswith("bayer_"):
        mosaic = _to_eight_bits(pixels[..., 0], bits)
        code = getattr(cv2, f"COLOR_{BAYER_CODES[encoding[6:10]]}2RGB")
        return np.asarray(cv2.cvtColor(mosaic, code), np.uint8)
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        if pixels.shape[1] % 2:
            raise DataError(f"a {encoding} image must have an even width, got {pixels.shape[1]}")
        code = cv2.COLOR_YUV2RGB_UYVY if encoding in ("yuv422", "uyvy") else cv2.COLOR_YUV2RGB_YUY2
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), code), np.uint8)
    pixels = _to_eight_bits(pixels, bits)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    order = [2, 1, 0] if encoding.startswith(("bgr", "8uc")) else [0, 1, 2]  # OpenCV fills 8UC3 with BGR
    return np.ascontiguousarray(pixels[..., order])


def _to_eight_bits(pixels: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if pixels.dtype.itemsize == 1:
        return np.ascontiguousarray(pixels, np.uint8)
    eight: NDArray[np.uint8] = np.minimum(pixels >> (bits - 8), 255).astype(np.uint8)
    return eight


def _colour_from_file_bytes(data: NDArray[np.uint8], image_format: str) -> Rgb:
    import cv2

    if "compresseddepth" in image_format.lower():
        raise DataError("a compressedDepth image cannot serve as colour; name the colour topic")
    video = video_codec(image_format, data[:8].tobytes())
    if video is not None:
        raise DataError(
            f"{video} video in a compressed image is not read: record jpeg or png, or unpack it with  ros2 run "
            "image_transport republish"
        )
    bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size and plausible_size(data.tobytes()) else None
    if bgr is None:
        raise DataError(f"compressed image ({image_format or 'no format'}, {data.size} bytes) is damaged")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def video_codec(image_format: str, start: bytes) -> str | None:
    """Return the name of the video codec that a format or the first bytes tell, None for still images."""
    words = image_format.lower().replace(".", "")
    for word, name in VIDEO_WORDS.items():
        if word in words:
            return name
    return "H.264 or H.265" if start.startswith((b"\0\0\0\1", b"\0\0\1")) else None


def _compressed_depth(data: bytes, image_format: str, unit_m: float) -> Depth:
    """Decode compressed_depth_image_transport: 12 bytes (int32 format, float32 A, float32 B), then a 16-bit PNG or RVL.

    16UC1 is stored as it is. 32FC1 is stored as inverse depth, ``value = A / depth + B``, with 0 = unknown.
    Plain 16-bit PNGs on a compressed topic ("16UC1; png compressed") have no such header.
    """
    lower = image_format.lower()
    has_header = "compresseddepth" in lower
    body = data[12:] if has_header and len(data) > 12 else data
    values = decode_rvl(body) if has_header and "rvl" in lower else png_values(body)
    if values is None:
        raise DataError(f"compressed depth ({image_format or 'no format'}, {len(data)} bytes) is not a 16-bit PNG")
    if not (has_header and lower.startswith("32fc1")):
        return metric_depth(values, unit_m)
    _, quantisation_a, quantisation_b = struct.unpack_from("<iff", data)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(quantisation_a) / (values.astype(np.float32) - np.float32(quantisation_b))
    depth[values == 0] = np.nan
    return metric_depth(depth)


def png_values(data: bytes) -> NDArray[np.uint16] | None:
    """Return the values (H, W) of a 16-bit grey PNG, None where it is none."""
    import cv2

    whole = bool(data) and plausible_size(data)
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if whole else None
    return np.asarray(values) if values is not None and values.ndim == 2 and values.dtype == np.uint16 else None
