"""Small recordings and bags that the tests of the data room make for themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.data.bags.ros_messages import MessageWriter
from come_nav.data.bags.ros_types import COMPRESSED_IMAGE, IMAGE, ODOMETRY, TF_TYPES, typestore

START_S = 1_700_000_000.0
WIDTH, HEIGHT = 24, 16
SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND


class SampleRecording:
    """``count`` frames at ``rate_hz`` along an arc; pixel values tell the frame's index."""

    name = "sample"

    def __init__(self, count: int = 12, rate_hz: float = 4.0, with_depth: bool = True, metadata: dict | None = None):
        self.rate_hz = rate_hz
        self.stamps_s = START_S + np.arange(count) / rate_hz
        steps = np.arange(count)
        self.poses_xyyaw = np.stack([0.1 * steps, 0.01 * steps**2, 0.05 * steps], axis=1)
        self.T_odom_base = se3.transform_from_xyyaw(self.poses_xyyaw)
        self.intrinsics = CameraIntrinsics(WIDTH, HEIGHT, 12.0, 12.5, 12.0, 8.0)
        self.T_base_camera = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.1, 0.0, 0.5]))
        self.metadata = metadata or {}
        self.with_depth = with_depth

    def __len__(self) -> int:
        return len(self.stamps_s)

    def frame(self, index: int) -> Frame:
        rgb = np.full((HEIGHT, WIDTH, 3), index, np.uint8)
        rgb[..., 1] = np.arange(WIDTH)
        rgb[..., 2] = np.arange(HEIGHT)[:, None]
        depth = None
        if self.with_depth:
            depth = np.full((HEIGHT, WIDTH), 1.0 + 0.125 * index, np.float32)
            depth[0, 0] = np.nan
        return Frame(self.stamps_s[index], rgb, depth, self.intrinsics, self.T_base_camera)


class BagMaker:
    """Collects serialised messages and writes them as rosbag2 or ROS 1, in the order of ``log_ns``."""

    def __init__(self) -> None:
        self.make = MessageWriter()
        self.messages: list[tuple[int, str, str, bytes]] = []

    def add(self, log_ns: int, topic: str, type_name: str, raw: bytes) -> None:
        self.messages.append((log_ns, topic, type_name, raw))

    def image(self, stamp_ns: int, value: int = 0, topic: str = "/camera/color/image_raw", log_ns: int | None = None):
        rgb = np.full((HEIGHT, WIDTH, 3), value, np.uint8)
        self.add(log_ns or stamp_ns, topic, IMAGE, self.make.image(stamp_ns, "camera", rgb))

    def jpeg(self, stamp_ns: int, value: int = 0, topic: str = "/camera/color/image_raw/compressed"):
        rgb = np.full((HEIGHT, WIDTH, 3), value, np.uint8)
        self.add(stamp_ns, topic, COMPRESSED_IMAGE, self.make.jpeg(stamp_ns, "camera", rgb))

    def depth(self, stamp_ns: int, shape: tuple[int, int] = (HEIGHT, WIDTH), topic: str = "/camera/depth/image_raw"):
        depth = np.full(shape, 2.0, np.float32)
        self.add(stamp_ns, topic, IMAGE, self.make.depth(stamp_ns, "camera", depth, "16UC1"))

    def odometry(self, stamp_ns: int, x: float, yaw: float = 0.0, topic: str = "/odom", log_ns: int | None = None):
        transform = se3.transform_from_xyyaw(np.array([x, 0.0, yaw]))
        raw = self.make.odometry(stamp_ns, ("odom", "base_link"), transform, (0.0, 0.0))
        self.add(log_ns or stamp_ns, topic, ODOMETRY, raw)

    def transform(self, stamp_ns: int, frames: tuple[str, str], T_a_b: np.ndarray, topic: str = "/tf"):
        self.add(stamp_ns, topic, TF_TYPES[0], self.make.transform(stamp_ns, frames, T_a_b))

    def drive(self, count: int = 20, rate_hz: float = 4.0, offset_ns: int = 0) -> BagMaker:
        """Add images and odometry at the same stamps, 0.1 m apart; odometry is ``offset_ns`` late."""
        for index in range(count):
            stamp_ns = START_NS + round(index * SECOND / rate_hz)
            self.image(stamp_ns, index)
            self.odometry(stamp_ns + offset_ns, 0.1 * index, log_ns=stamp_ns)
        return self

    def write(self, folder: Path, storage: str = "mcap", compression: str = "NONE", version: int = 9) -> Path:
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        writer = Writer(folder, version=version, storage_plugin=StoragePlugin[storage.upper()])
        writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
        links: dict[str, object] = {}
        with writer:
            for log_ns, topic, type_name, raw in sorted(self.messages, key=lambda message: message[0]):
                if topic not in links:
                    links[topic] = writer.add_connection(topic, type_name, typestore=typestore(False))
                writer.write(links[topic], log_ns, raw)
        return folder

    def write_ros1(self, path: Path, compression: str | None = None) -> Path:
        from rosbags.rosbag1 import Writer

        store = typestore(True)
        links: dict[str, object] = {}
        writer = Writer(path)
        if compression is not None:
            writer.set_compression(Writer.CompressionFormat[compression])
        with writer:
            for log_ns, topic, type_name, raw in sorted(self.messages, key=lambda message: message[0]):
                if topic not in links:
                    links[topic] = writer.add_connection(topic, type_name, typestore=store)
                writer.write(links[topic], log_ns, typestore(False).cdr_to_ros1(raw, type_name))
        return path
