"""A fake robot for tests: what its drivers publish, under the names, frames, encodings and QoS of a real one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np
from nav_msgs.msg import Odometry as OdometryMessage
from rclpy.qos import qos_profile_sensor_data
from ros_harness import Bench
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Odometry
from come_nav.ros import messages

FRAME = "camera_color_optical_frame"
CREEP_MPS = 0.2


@dataclass(frozen=True)
class RobotFacts:
    """How a robot publishes. An empty topic is not published.

    Attributes:
        space: namespace, with its leading slash.
        image, depth, camera_info, odom: topics below it; compressed ones end with what image_transport adds.
        encoding: of colour.
        depth_encoding: of depth.
        frame: of the images.
        sensor_qos: whether everything is best effort.
        size: columns and rows, px.
        rate_hz: of the camera.
        odometry_rate_hz: of odometry and of its transform.
        cmd_vel: topic of commands below the namespace.
        stamped: whether the base takes TwistStamped.
        fov_deg: width of view, degrees.
        height_m: of the camera above ground.
    """

    space: str = ""
    image: str = "camera/color/image_raw"
    depth: str = "camera/depth/image_raw"
    camera_info: str = "camera/color/camera_info"
    odom: str = "odom"
    encoding: str = "rgb8"
    depth_encoding: str = "16UC1"
    frame: str = FRAME
    sensor_qos: bool = False
    size: tuple[int, int] = (64, 64)
    rate_hz: float = 5.0
    odometry_rate_hz: float = 20.0
    cmd_vel: str = "cmd_vel"
    stamped: bool = False
    fov_deg: float = 90.0
    height_m: float = 0.5


class Driver:
    """Publishes what a camera driver with image_transport and a wheel odometry would: a robot that creeps ahead."""

    def __init__(
        self,
        bench: Bench,
        facts: RobotFacts,
        odom_frame: str = "odom",
        child: str = "base_link",
        view: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """Publish in a thread of its own: ``view``, colour and depth, all the time; noise 2 m ahead when None."""
        self.facts, self.odom_frame, self.child, self.view = facts, odom_frame, child, view
        self.images = 0
        qos = qos_profile_sensor_data if facts.sensor_qos else 10

        def make(topic: str, kind: type, suffix: str):
            packed = topic.endswith(suffix)
            own = CompressedImage if packed else kind
            return bench.publisher(own, f"{facts.space}/{topic}", qos) if topic else None

        self.colour, self.depth = make(facts.image, Image, "/compressed"), make(facts.depth, Image, "/compressedDepth")
        self.info = make(facts.camera_info, CameraInfo, "/none")
        self.odom = make(facts.odom, OdometryMessage, "/none")
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join(5.0)

    def _run(self) -> None:
        width, height = self.facts.size
        rgb = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
        rgb, depth_m = self.view or (rgb, np.full((height, width), 2.0, np.float32))
        camera = CameraIntrinsics.from_field_of_view(width, height, np.radians(self.facts.fov_deg))
        tick, every = 0, max(1, round(self.facts.odometry_rate_hz / self.facts.rate_hz))
        due_s = time.monotonic()
        while self._running:
            now_s = time.time()
            x_m = CREEP_MPS * tick / self.facts.odometry_rate_hz
            odometry = Odometry(now_s, se3.transform_from_xyyaw(np.array([x_m, 0.0, 0.0])), CREEP_MPS, 0.0)
            self.odom.publish(messages.odometry_message(odometry, (self.odom_frame, self.child)))
            if tick % every == 0:
                if self.info is not None:
                    self.info.publish(messages.camera_info_message(camera, now_s, self.facts.frame))
                self._look(rgb, depth_m, now_s)
                self.images += 1
            tick += 1
            due_s = max(due_s + 1.0 / self.facts.odometry_rate_hz, time.monotonic() - 0.2)
            time.sleep(max(1e-4, due_s - time.monotonic()))

    def _look(self, rgb: np.ndarray, depth_m: np.ndarray, now_s: float) -> None:
        facts, header = self.facts, messages.header(now_s, self.facts.frame)
        if facts.image.endswith("/compressed"):
            jpeg = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
            self.colour.publish(CompressedImage(header=header, format="rgb8; jpeg compressed bgr8", data=jpeg))
        else:
            order = slice(None, None, -1 if facts.encoding == "bgr8" else 1)
            message = messages.image_message(rgb[..., order], now_s, facts.frame)
            message.encoding = facts.encoding
            self.colour.publish(message)
        if facts.depth.endswith("/compressedDepth"):
            png = cv2.imencode(".png", (1000 * depth_m).astype(np.uint16))[1].tobytes()
            packed = CompressedImage(header=header, format="16UC1; compressedDepth png", data=bytes(12) + png)
            self.depth.publish(packed)
        elif self.depth is not None:
            self.depth.publish(messages.depth_message(depth_m, now_s, facts.frame, facts.depth_encoding))
