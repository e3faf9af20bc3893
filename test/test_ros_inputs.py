"""Live: images of any transport are taken, and what is missing or of another frame is named with the way out."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from nav_msgs.msg import Odometry as OdometryMessage
from ros_harness import Bench
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Odometry
from come_nav.ros import messages

pytestmark = pytest.mark.slow
SIZE = 64
FRAME = "camera_color_optical_frame"
QUICK = {"diagnostics_rate_hz": 5.0}


class Driver:
    """Publishes what a camera driver with image_transport and a wheel odometry would, under one namespace."""

    def __init__(self, bench: Bench, space: str, compressed: bool, odom_frame: str = "odom") -> None:
        make, self.compressed, self.odom_frame = bench.publisher, compressed, odom_frame
        colour, depth = f"{space}/camera/color/image_raw", f"{space}/camera/depth/image_raw"
        if compressed:
            self.colour, self.depth = (
                make(CompressedImage, f"{colour}/compressed"),
                make(CompressedImage, f"{depth}/compressedDepth"),
            )
        else:
            self.colour, self.depth = make(Image, colour), make(Image, depth)
        self.info = make(CameraInfo, f"{space}/camera/color/camera_info")
        self.odom = make(OdometryMessage, f"{space}/odom")
        self.child = "base_link"
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join(5.0)

    def _run(self) -> None:
        rgb = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        depth_m = np.full((SIZE, SIZE), 2.0, np.float32)
        camera = CameraIntrinsics.from_field_of_view(SIZE, SIZE, np.pi / 2)
        tick = 0
        while self._running:
            now_s = time.time()
            odometry = Odometry(now_s, se3.transform_from_xyyaw(np.array([0.01 * tick, 0.0, 0.0])), 0.2, 0.0)
            self.odom.publish(messages.odometry_message(odometry, (self.odom_frame, self.child)))
            if tick % 4 == 0:
                self.info.publish(messages.camera_info_message(camera, now_s, FRAME))
                self._look(rgb, depth_m, now_s)
            tick += 1
            time.sleep(0.05)

    def _look(self, rgb: np.ndarray, depth_m: np.ndarray, now_s: float) -> None:
        if not self.compressed:
            self.colour.publish(messages.image_message(rgb, now_s, FRAME))
            self.depth.publish(messages.depth_message(depth_m, now_s, FRAME, "16UC1"))
            return
        header = messages.header(now_s, FRAME)
        jpeg = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
        self.colour.publish(CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=jpeg))
        png = cv2.imencode(".png", (1000 * depth_m).astype(np.uint16))[1].tobytes()
        self.depth.publish(CompressedImage(header=header, format="16UC1; compressedDepth png", data=bytes(12) + png))


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    drivers: list[Driver] = []
    made.driver = lambda *facts: drivers.append(Driver(made, *facts)) or drivers[-1]
    yield made
    for driver in drivers:
        driver.close()
    made.close()


def test_compressed_images_are_taken_where_nothing_else_is_published(bench):
    driver = bench.driver("", True)
    node = bench.start("spatial_memory", QUICK)
    bench.wait("frames", lambda: int(bench.told("spatial_memory", "memory").get("frames", 0)) >= 3)
    assert bench.told("spatial_memory", "camera")["topic"] == "/camera/color/image_raw/compressed"
    assert bench.told("spatial_memory", "depth")["topic"] == "/camera/depth/image_raw/compressedDepth"
    log = node.log()
    assert "configured; inputs: /camera/color/image_raw, /odom, " in log
    assert "]: active" in log
    assert "tf does not connect 'camera_color_optical_frame' to 'base_link': camera_xyz_rpy is taken, 0.500 m" in log
    assert bench.told("spatial_memory", "extrinsics")["source"] == "camera_xyz_rpy"
    driver.odom_frame = "wheel_odom"
    told = "odometry is in frame 'wheel_odom', expected is 'odom'; set odom_frame to 'wheel_odom'"
    bench.wait("the frame", lambda: told in bench.said("spatial_memory", "odometry"))


def test_silent_inputs_are_named_with_the_way_out(bench):
    bench.driver("/packed", True)
    bench.driver("/elsewhere", False)
    packed = bench.start("spatial_memory", {**QUICK, "image_transport": "raw"}, __ns="/packed")
    lost = bench.start("spatial_memory", QUICK, __ns="/lost")
    controller = bench.start("controller", QUICK, __ns="/lost")
    there = "a publisher exists on /packed/camera/color/image_raw/compressed: set image_transport to compressed"
    bench.wait("the transport", lambda: there in bench.said("packed/spatial_memory", "camera"))
    assert f"nothing received on /packed/camera/color/image_raw: {there}" in packed.log()
    other = "nobody publishes there; /elsewhere/camera/color/image_raw exists: set the namespace, or remap"
    bench.wait("the namespace", lambda: other in bench.said("lost/spatial_memory", "camera"))
    bench.wait("odometry", lambda: "/elsewhere/odom" in bench.said("lost/controller", "odometry"))
    assert lost.log().count("nothing received on /lost/camera/color/image_raw") == 1  # not every second
    assert "nothing received on /lost/odom" in controller.log()


def test_the_controller_drives_by_odometry_of_the_base_alone(bench):
    driver = bench.driver("", False)
    bench.start("controller", QUICK)
    bench.wait("odometry", lambda: bench.said("controller", "odometry") == "receiving")
    driver.child = "camera_link"
    told = "odometry is of frame 'camera_link', not of the base"
    bench.wait("the body", lambda: told in bench.said("controller", "odometry"))
    driver.child, driver.odom_frame = "base_link", "map"
    bench.wait("the frame", lambda: "set odom_frame to 'map'" in bench.said("controller", "odometry"))
