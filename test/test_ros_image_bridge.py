"""Images come out the same by cv_bridge and without it; a cv_bridge that does not work is done without.

cv_bridge is on no package index: a stand-in has its interface (vision_opencv, branches humble to rolling:
``CvBridge().imgmsg_to_cv2(message, desired_encoding)``, CvBridgeError is a TypeError) and converts with OpenCV's codes
as cv_bridge.cpp lists them. Where a ROS installation has the real one, that is tested as well.
"""

from __future__ import annotations

import logging
import sys
import types

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from sensor_msgs.msg import CompressedImage, Image

from come_nav.core.errors import DataError
from come_nav.data.bags.images import decode_colour, decode_depth
from come_nav.ros.inputs import image_bridge
from come_nav.ros.inputs.image_bridge import COLOURS, bridge, colour_of, converter, depth_of

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "yuv422": 2, "yuv422_yuy2": 2}
CODES = {
    "bgr8": "BGR2RGB",
    "rgba8": "RGBA2RGB",
    "bgra8": "BGRA2RGB",
    "mono8": "GRAY2RGB",
    "yuv422": "YUV2RGB_UYVY",
    "yuv422_yuy2": "YUV2RGB_YUY2",
    "bayer_rggb8": "BayerBG2RGB",
    "bayer_bggr8": "BayerRG2RGB",
    "bayer_gbrg8": "BayerGR2RGB",
    "bayer_grbg8": "BayerGB2RGB",
}
TYPES = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}


class StandIn:
    """CvBridge's interface."""

    asked = 0

    def imgmsg_to_cv2(self, message, desired_encoding="passthrough"):
        StandIn.asked += 1
        kind = np.dtype(TYPES.get(message.encoding, np.uint8))
        data = np.frombuffer(bytes(message.data), np.uint8).reshape(message.height, message.step)
        channels = CHANNELS.get(message.encoding, 1)
        pixels = np.ascontiguousarray(data[:, : message.width * channels * kind.itemsize]).view(kind)
        pixels = pixels.reshape(message.height, message.width, channels)
        pixels = pixels[..., 0] if channels == 1 else pixels
        if desired_encoding in ("passthrough", message.encoding):
            return pixels
        if message.encoding not in CODES or desired_encoding != "rgb8":
            raise TypeError(f"[{message.encoding}] is not a color format. but [{desired_encoding}] is.")
        return cv2.cvtColor(pixels, getattr(cv2, f"COLOR_{CODES[message.encoding]}"))


@pytest.fixture
def install(monkeypatch):
    def put(kind: type | None) -> None:
        module = None
        if kind is not None:
            module = types.ModuleType("cv_bridge")
            module.CvBridge = kind
        monkeypatch.setitem(sys.modules, "cv_bridge", module)
        StandIn.asked = 0
        bridge.cache_clear()

    yield put
    bridge.cache_clear()


def image(encoding: str, padding: int = 0, shape: tuple[int, int] = (6, 8), seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    kind, (height, width) = np.dtype(TYPES.get(encoding, np.uint8)), shape
    row = width * CHANNELS.get(encoding, 1) * kind.itemsize
    data = rng.integers(0, 255, (height, row + padding), np.uint8)
    if encoding == "32FC1":
        metres = rng.uniform(0.2, 5.0, shape).astype(np.float32)
        metres[0, :3] = [np.nan, 0.0, np.inf]
        data[:, :row] = metres.view(np.uint8)
    return Image(height=height, width=width, encoding=encoding, step=row + padding, data=data.tobytes())


def compare(encoding: str, padding: int) -> None:
    """Compare what the nodes get with the conversion that bags have."""
    message = image(encoding, padding)
    if encoding not in TYPES:
        np.testing.assert_array_equal(colour_of(message), decode_colour(message, "sensor_msgs/msg/Image"))
        return
    found, own = depth_of(message, 0.001), decode_depth(message, "sensor_msgs/msg/Image", 0.001)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, own)


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize("encoding", [*COLOURS, *TYPES])
def test_images_are_equal(install, encoding, padding):
    install(StandIn)
    assert converter() == "cv_bridge"
    compare(encoding, padding)
    assert StandIn.asked == (1 if padding else 2)  # once to see whether it works; padded rows it may shear


def test_images_of_the_installed_cv_bridge_are_equal():
    pytest.importorskip("cv_bridge", reason="cv_bridge is part of a ROS installation, not on PyPI")
    bridge.cache_clear()
    assert converter() == "cv_bridge"
    for encoding in (*COLOURS, *TYPES):
        for padding in (0, 8):
            compare(encoding, padding)


def test_cv_bridge_is_asked_for_what_it_converts_alike_and_for_nothing_else(install):
    install(StandIn)
    assert converter() == "cv_bridge"
    for encoding in (*COLOURS, *TYPES):
        before = StandIn.asked
        (depth_of if encoding in TYPES else colour_of)(image(encoding))
        assert StandIn.asked == before + 1, encoding
    before = StandIn.asked
    big = image("mono8")
    big.is_bigendian = 1  # cv_bridge swaps with what numpy 2 no longer has
    colour_of(big)
    jpeg = cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    assert colour_of(CompressedImage(format="jpeg", data=jpeg)).shape == (4, 4, 3)
    assert StandIn.asked == before


def test_damaged_images_are_refused_with_the_same_words(install):
    told = []
    for kind in (StandIn, None):
        install(kind)
        message = image("rgb8")
        message.data = message.data[:50]
        with pytest.raises(DataError) as caught:
            colour_of(message)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert "needs 144 bytes, got 50" in told[0]


def test_a_cv_bridge_that_does_not_work_is_done_without(install, caplog):
    class Broken:
        def imgmsg_to_cv2(self, message, desired_encoding="passthrough"):
            raise AttributeError("_ARRAY_API not found")

    class Swapped(StandIn):
        def imgmsg_to_cv2(self, message, desired_encoding="passthrough"):
            return super().imgmsg_to_cv2(message)

    expected = decode_colour(image("bgr8"), "sensor_msgs/msg/Image")
    for kind, reason in ((Broken, "_ARRAY_API not found"), (Swapped, "it swaps colours"), (None, "")):
        install(kind)
        caplog.clear()
        with caplog.at_level(logging.WARNING, image_bridge.__name__):
            np.testing.assert_array_equal(colour_of(image("bgr8")), expected)
        assert converter() == "come_nav"
        assert reason in caplog.text
