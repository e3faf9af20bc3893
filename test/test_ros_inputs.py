"""Live: images of any transport are taken, and what is missing or of another frame is named with the way out."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from ros_driver import Driver, RobotFacts
from ros_harness import Bench

pytestmark = pytest.mark.slow
QUICK = {"diagnostics_rate_hz": 5.0}
COMPRESSED = {"image": "camera/color/image_raw/compressed", "depth": "camera/depth/image_raw/compressedDepth"}


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    drivers: list[Driver] = []
    made.driver = lambda **facts: drivers.append(Driver(made, RobotFacts(**facts))) or drivers[-1]
    yield made
    for driver in drivers:
        driver.close()
    made.close()


def test_compressed_images_are_taken_where_nothing_else_is_published(bench):
    driver = bench.driver(**COMPRESSED)
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
    bench.driver(space="/packed", **COMPRESSED)
    bench.driver(space="/elsewhere")
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
    driver = bench.driver()
    bench.start("controller", QUICK)
    bench.wait("odometry", lambda: bench.said("controller", "odometry") == "receiving")
    driver.child = "camera_link"
    told = "odometry is of frame 'camera_link', not of the base"
    bench.wait("the body", lambda: told in bench.said("controller", "odometry"))
    driver.child, driver.odom_frame = "base_link", "map"
    bench.wait("the frame", lambda: "set odom_frame to 'map'" in bench.said("controller", "odometry"))
