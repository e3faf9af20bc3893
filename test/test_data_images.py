"""Image decoders against hand-made arrays: every encoding, padded rows, byte order, damage."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import DataError
from come_nav.data.bags.images import decode_colour, decode_depth, used_bits
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE, IMAGE
from come_nav.data.cameras.wholeness import jpeg_parts

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def image(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> SimpleNamespace:
    """Build an Image message of (H, W) or (H, W, C) with ``padding`` bytes after each row."""
    dtype = pixels.dtype.newbyteorder(">" if big_endian else "<")
    rows = np.ascontiguousarray(pixels.astype(dtype)).view(np.uint8).reshape(pixels.shape[0], -1)
    padded = np.concatenate([rows, np.full((len(rows), padding), 0xAB, np.uint8)], axis=1)
    return SimpleNamespace(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=padded.shape[1],
        data=padded.reshape(-1),
    )


def alpha(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 77, np.uint8)], axis=2)


@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("rgba8", alpha(RGB), RGB),
        ("bgra8", alpha(RGB[..., ::-1]), RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgb16", RGB.astype(np.uint16) * 256 + 9, RGB),
        ("mono8", RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
        ("8UC1", RGB[..., 0], np.repeat(RGB[..., :1], 3, axis=2)),
        ("mono16", RGB[..., 0].astype(np.uint16) * 256 + 200, np.repeat(RGB[..., :1], 3, axis=2)),
    ],
)
def test_plain_colour(encoding, pixels, expected, padding):
    decoded = decode_colour(image(pixels, encoding, padding), IMAGE)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, expected)


def test_big_endian_rows():
    pixels = RGB[..., 0].astype(np.uint16) * 256 + 3
    decoded = decode_colour(image(pixels, "mono16", padding=3, big_endian=True), IMAGE)
    np.testing.assert_array_equal(decoded[..., 0], RGB[..., 0])


@pytest.mark.parametrize(
    ("order", "corner"), [("rggb", "rg/gb"), ("bggr", "bg/gr"), ("gbrg", "gb/rg"), ("grbg", "gr/bg")]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_of_a_plain_colour(order, corner, bits):
    """A mosaic of one colour must come out as that colour, whatever the order of its cells."""
    colour = {"r": 200, "g": 120, "b": 40}
    cell = np.array([[colour[letter] for letter in row] for row in corner.split("/")], np.uint8)
    mosaic = np.tile(cell, (5, 6))
    pixels = mosaic if bits == 8 else mosaic.astype(np.uint16) << 8
    decoded = decode_colour(image(pixels, f"bayer_{order}{bits}", padding=2), IMAGE)
    np.testing.assert_array_equal(decoded[2:-2, 2:-2], np.broadcast_to([200, 120, 40], decoded[2:-2, 2:-2].shape))


@pytest.mark.parametrize(
    ("encoding", "luma_first"), [("yuv422", False), ("uyvy", False), ("yuyv", True), ("yuv422_yuy2", True)]
)
def test_yuv_grey_and_red(encoding, luma_first):
    luma = np.array([[16, 81, 126, 235]] * 2, np.uint8)
    chroma = np.full_like(luma, 128)  # no colour
    pair = [luma, chroma] if luma_first else [chroma, luma]
    decoded = decode_colour(image(np.stack(pair, axis=2), encoding, padding=4), IMAGE)
    np.testing.assert_allclose(decoded[0, :, 0], [0, 76, 128, 255], atol=1)
    assert (decoded.max(axis=2) == decoded.min(axis=2)).all()
    red = np.array([[81, 81]], np.uint8), np.array([[90, 240]], np.uint8)  # BT.601 red: Y 81, U 90, V 240
    pair = list(red) if luma_first else [red[1], red[0]]
    decoded = decode_colour(image(np.stack(pair, axis=2), encoding), IMAGE)
    np.testing.assert_allclose(decoded[0, 0], [255, 0, 0], atol=3)


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_in_millimetres(padding, big_endian):
    millimetres = np.array([[0, 1, 1500], [65535, 4000, 250]], np.uint16)
    depth = decode_depth(image(millimetres, "16UC1", padding, big_endian), IMAGE)
    expected = np.array([[np.nan, 0.001, 1.5], [65.535, 4.0, 0.25]], np.float32)
    np.testing.assert_allclose(depth, expected, rtol=1e-6)
    assert depth.dtype == np.float32


@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_in_metres_marks_what_is_unknown(big_endian):
    metres = np.array([[0.5, np.nan, np.inf], [-1.0, 0.0, 3.25]], np.float32)
    depth = decode_depth(image(metres, "32FC1", 4, big_endian), IMAGE)
    np.testing.assert_array_equal(depth, np.array([[0.5, np.nan, np.nan], [np.nan, np.nan, 3.25]], np.float32))


def compressed(data: bytes | np.ndarray, image_format: str) -> SimpleNamespace:
    return SimpleNamespace(data=np.frombuffer(bytes(data), np.uint8), format=image_format)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_compressed_colour_is_rgb():
    decoded = decode_colour(compressed(png(RGB[..., ::-1]), "rgb8; png compressed bgr8"), COMPRESSED_IMAGE)
    np.testing.assert_array_equal(decoded, RGB)
    flat = np.broadcast_to(np.array([10, 60, 200], np.uint8), (16, 16, 3))
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(flat[..., ::-1]))[1]
    np.testing.assert_allclose(decode_colour(compressed(jpeg, "jpeg"), COMPRESSED_IMAGE), flat, atol=3)


def test_compressed_depth_of_millimetres():
    millimetres = np.array([[0, 1500], [65535, 700]], np.uint16)
    header = struct.pack("<iff", 0, 0.0, 0.0)
    for image_format in ("16UC1; compressedDepth", "16UC1; compressedDepth png"):
        depth = decode_depth(compressed(header + png(millimetres), image_format), COMPRESSED_IMAGE)
        np.testing.assert_allclose(depth, [[np.nan, 1.5], [65.535, 0.7]], rtol=1e-6)
    depth = decode_depth(compressed(png(millimetres), "16UC1; png compressed"), COMPRESSED_IMAGE)
    np.testing.assert_allclose(depth, [[np.nan, 1.5], [65.535, 0.7]], rtol=1e-6)


def test_compressed_depth_of_metres_inverts_the_quantisation():
    """compressed_depth_image_transport stores A / depth + B; with max 10 m and quantisation 100."""
    depth_max, quantisation = 10.0, 100.0
    quant_a = quantisation * (quantisation + 1.0)
    quant_b = 1.0 - quant_a / depth_max
    truth = np.array([[0.6, 1.0, 2.5], [4.0, 9.0, np.nan]])
    values = np.nan_to_num(quant_a / truth + quant_b, nan=0.0).astype(np.uint16)
    data = struct.pack("<iff", 0, quant_a, quant_b) + png(values)
    depth = decode_depth(compressed(data, "32FC1; compressedDepth png"), COMPRESSED_IMAGE)
    known = np.isfinite(truth)
    assert np.isnan(depth[~known]).all()
    error = np.abs(depth[known] - truth[known])
    assert (error <= truth[known] ** 2 / quant_a * 1.2).all()  # one step of the quantiser


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoding": "rgb9"}, "not supported; did you mean 'rgb8'"),
        ({"step": 23}, "at least 24 bytes, step is 23"),
        ({"height": 7}, "needs 168 bytes, got 144"),
        ({"width": 9}, "at least 27 bytes"),
        ({"width": 0}, "0x6"),
        ({"data": np.zeros(10, np.uint8)}, "needs 144 bytes, got 10"),
    ],
)
def test_sizes_that_do_not_agree(changes, message):
    broken = image(RGB, "rgb8")
    for name, value in changes.items():
        setattr(broken, name, value)
    with pytest.raises(DataError, match=message):
        decode_colour(broken, IMAGE)


def test_wrong_kinds_are_named():
    with pytest.raises(DataError, match="expected 16UC1"):
        decode_depth(image(RGB, "rgb8"), IMAGE)
    with pytest.raises(DataError, match="cannot serve as colour"):
        decode_colour(image(np.ones((2, 2), np.float32), "32FC1"), IMAGE)
    with pytest.raises(DataError, match="even width"):
        decode_colour(image(np.zeros((2, 3, 2), np.uint8), "yuyv"), IMAGE)
    with pytest.raises(DataError, match="RVL"):
        decode_depth(compressed(b"x" * 40, "16UC1; compressedDepth rvl"), COMPRESSED_IMAGE)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff garbage", b"x" * 13])
def test_damaged_compressed_images(data):
    with pytest.raises(DataError, match="damaged"):
        decode_colour(compressed(data, "jpeg"), COMPRESSED_IMAGE)
    for image_format in ("16UC1; compressedDepth png", "32FC1; compressedDepth", "16UC1; png compressed"):
        with pytest.raises(DataError, match="not a 16-bit PNG"):
            decode_depth(compressed(data, image_format), COMPRESSED_IMAGE)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 6), st.booleans(), st.integers(0, 2**31))
def test_any_size_padding_and_byte_order(height, width, padding, big_endian, seed):
    millimetres = np.random.default_rng(seed).integers(1, 65536, (height, width), dtype=np.uint16)
    depth = decode_depth(image(millimetres, "16UC1", padding, big_endian), IMAGE)
    np.testing.assert_allclose(depth, millimetres * 1e-3, rtol=1e-6)


# -- planes ----------------------------------------------------------------------------------------------------------


def planar(encoding: str, rgb: np.ndarray, padding: int = 0) -> SimpleNamespace:
    """Build an Image with a plane of brightness and planes or pairs of colour (BT.601)."""
    height, width = rgb.shape[:2]
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    luma, rest = i420[: height * width].reshape(height, width), i420[height * width :]
    blue, red = rest[: rest.size // 2], rest[rest.size // 2 :]
    if encoding in ("nv24", "nv42"):
        blue, red = (plane.reshape(height // 2, width // 2).repeat(2, 0).repeat(2, 1) for plane in (blue, red))
    pair = (red, blue) if encoding in ("nv21", "nv42", "yv12") else (blue, red)
    colour = (
        np.concatenate([plane.reshape(-1) for plane in pair]) if encoding in ("i420", "yv12") else np.stack(pair, -1)
    )
    rows = np.concatenate([luma, colour.reshape(-1, width)])
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=9)
    return SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=0, step=width + padding, data=padded.reshape(-1)
    )


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", ["nv12", "nv21", "nv24", "nv42", "i420", "yv12"])
def test_planes_of_brightness_and_colour(encoding, padding):
    rgb = np.repeat(
        np.repeat(np.array([[[200, 40, 40], [40, 200, 40]], [[40, 40, 200], [90, 90, 90]]], np.uint8), 4, 0), 4, 1
    )
    decoded = decode_colour(planar(encoding, rgb, padding), IMAGE)
    np.testing.assert_allclose(decoded.astype(int), rgb, atol=4)


def test_planes_of_a_wrong_size_are_told():
    message = planar("nv12", np.zeros((4, 6, 3), np.uint8))
    message.data = message.data[:-5]
    with pytest.raises(DataError, match="needs 36 bytes, got 31"):
        decode_colour(message, IMAGE)
    message = planar("nv12", np.zeros((4, 6, 3), np.uint8))
    message.width = 5
    with pytest.raises(DataError, match="even sides"):
        decode_colour(message, IMAGE)


# -- video and RVL ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_format", "start", "name"),
    [
        ("h264", b"\0\0\0\1\x67", r"H\.264"),
        ("hevc", b"xxxx", r"H\.265"),
        ("jpeg", b"\0\0\0\1\x40", r"H\.264 or H\.265"),
    ],
)
def test_video_is_not_called_damaged(image_format, start, name):
    with pytest.raises(DataError, match=rf"{name} video .*republish") as caught:
        decode_colour(compressed(start + bytes(50), image_format), COMPRESSED_IMAGE)
    assert "damaged" not in str(caught.value)


def rvl(depth: np.ndarray) -> bytes:
    """Compress as the paper's C code does: one group of three bits after another."""
    groups: list[int] = []

    def number(value: int) -> None:
        while True:
            group, value = value & 7, value >> 3
            groups.append(group | (8 if value else 0))
            if not value:
                return

    flat, place, before = depth.reshape(-1).astype(int), 0, 0
    while place < len(flat):
        zeros = next((n for n in range(place, len(flat)) if flat[n]), len(flat)) - place
        first = place + zeros
        last = next((n for n in range(first, len(flat)) if not flat[n]), len(flat))
        number(zeros)
        number(last - first)
        for value in flat[first:last]:
            step = int(value) - before
            number((step << 1) ^ (step >> 31))
            before = int(value)
        place = last
    groups += [0] * (-len(groups) % 8)
    words = [
        sum(group << (28 - 4 * n) for n, group in enumerate(groups[at : at + 8])) for at in range(0, len(groups), 8)
    ]
    return struct.pack("<ii", depth.shape[1], depth.shape[0]) + struct.pack(f"<{len(words)}I", *words)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**31))
def test_rvl_depth_comes_back(height, width, holes, seed):
    rng = np.random.default_rng(seed)
    millimetres = rng.integers(1, 65536, (height, width)).astype(np.uint16)
    millimetres[rng.random((height, width)) < holes] = 0
    data = struct.pack("<iff", 1, 0.0, 0.0) + rvl(millimetres)
    depth = decode_depth(compressed(data, "16UC1; compressedDepth rvl"), COMPRESSED_IMAGE)
    np.testing.assert_allclose(np.nan_to_num(depth), millimetres * 1e-3, rtol=1e-6)


def test_rvl_of_a_known_image():
    """Two zeros, then 10, 12, 11: runs 2 and 3, steps +10, +2, -1 as 20, 4, 1; in groups of three bits."""
    word = 0x2_3_C2_4_1 << 8  # groups 2 3 (4|8) 2 4 1 and two that stay zero
    data = struct.pack("<iff", 1, 0.0, 0.0) + struct.pack("<iiI", 5, 1, word)
    depth = decode_depth(compressed(data, "16UC1; compressedDepth rvl"), COMPRESSED_IMAGE)
    np.testing.assert_allclose(depth, [[np.nan, np.nan, 0.010, 0.012, 0.011]], rtol=1e-6)


@pytest.mark.parametrize(
    "body",
    [b"", b"\1\0\0\0", struct.pack("<ii", -1, 5), struct.pack("<ii", 2**20, 2**20), struct.pack("<iiI", 4, 4, 0)],
)
def test_damaged_rvl_is_one_line(body):
    with pytest.raises(DataError, match="RVL"):
        decode_depth(compressed(bytes(12) + body, "16UC1; compressedDepth rvl"), COMPRESSED_IMAGE)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_rvl_bytes_end(data):
    try:
        decode_depth(
            compressed(bytes(12) + struct.pack("<ii", 6, 4) + data, "16UC1; compressedDepth rvl"), COMPRESSED_IMAGE
        )
    except DataError as error:
        assert "\n" not in str(error)


def test_the_unit_of_whole_numbers_can_be_another():
    depth = decode_depth(image(np.array([[5000]], np.uint16), "16UC1"), IMAGE, 0.0002)
    np.testing.assert_allclose(depth, [[1.0]])
    assert decode_depth(image(np.array([[1.5]], np.float32), "32FC1"), IMAGE, 0.0002)[0, 0] == 1.5


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("encoding", ["mono16", "bayer_rggb16", "rgb16"])
def test_sensors_with_fewer_bits_are_not_dark(bits, encoding):
    """A grey ramp from nothing to the sensor's highest value comes out from black to white."""
    ramp = np.linspace(0, (1 << bits) - 1, 32).astype(np.uint16)
    pixels = np.broadcast_to(ramp, (8, 32)) if encoding != "rgb16" else np.broadcast_to(ramp[:, None], (8, 32, 3))
    message = image(np.ascontiguousarray(pixels), encoding)
    assert used_bits(message, IMAGE) == bits
    grey = decode_colour(message, IMAGE, bits)[4, :, 1].astype(int)
    assert (grey[0] <= 8, grey[-1] >= 247) == (True, True)
    assert abs(grey[16] - 132) <= 8


# -- damage within a file --------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(7).integers(0, 255, (48, 64, 3), np.uint8)


def pillow_jpeg(**words) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(NOISE[..., 0] if words.pop("grey", False) else NOISE).save(buffer, "JPEG", **words)
    return buffer.getvalue()


def opencv_jpeg(*settings: int) -> bytes:
    return cv2.imencode(".jpg", NOISE, list(settings))[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        opencv_jpeg(),
        opencv_jpeg(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        opencv_jpeg(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        opencv_jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
        opencv_jpeg() + bytes(40),
        pillow_jpeg(grey=True),
        pillow_jpeg(progressive=True, quality=30),
        pillow_jpeg(comment=b"\xff\xd9 no end", exif=b"Exif\0\0" + opencv_jpeg()),
    ],
    ids=["plain", "progressive", "optimised", "restarts", "padded", "grey", "coarse", "with a thumbnail"],
)
def test_whole_jpegs_are_whole_and_tell_their_size(data):
    assert jpeg_parts(data) == (True, (64, 48))


def test_damage_that_leaves_the_end_mark_is_seen():
    data = opencv_jpeg()
    middle = len(data) // 2
    erased = data[:middle] + b"\xff" * 32 + b"\x11" + data[middle + 33 :]
    spliced = data[:middle] + data
    header = bytearray(data)
    header[data.index(b"\xff\xdb") + 2 : data.index(b"\xff\xdb") + 4] = b"\x00\x09"
    for damaged in (erased, spliced, bytes(header)):
        assert jpeg_parts(damaged)[0] is False
        assert cv2.imdecode(np.frombuffer(damaged, np.uint8), cv2.IMREAD_COLOR) is not None or damaged == bytes(header)
    rows = opencv_jpeg(cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
    lost = rows[: rows.index(b"\xff\xd2")] + rows[rows.index(b"\xff\xd3") :]
    assert jpeg_parts(lost)[0] is False
    assert jpeg_parts(data[:-2]) == (None, None)  # decoding tells
