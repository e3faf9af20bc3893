"""Writes a recording as an ordinary rosbag2 that ``ros2 bag play`` and Foxglove accept, all of it or nothing."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice
from come_nav.core.errors import ConfigError, DataError, StorageError
from come_nav.core.files import printable
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.types import Frame, Trajectory
from come_nav.data.atomic_folder import atomic_folder
from come_nav.data.bags.ros_messages import MessageWriter
from come_nav.data.bags.ros_types import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE, ODOMETRY, TF_TYPES, typestore
from come_nav.data.bags.storage import is_bag
from come_nav.data.timing.stamps import ns_from_seconds

STORAGES = ("mcap", "sqlite3")
COMPRESSIONS = ("none", "chunk", "file", "message")
METADATA_VERSION: Literal[8] = (
    8  # read by Humble to Kilted; version 9 writes QoS profiles in a form that Humble cannot parse
)

IMAGE_TOPIC = "/camera/color/image_raw"
INFO_TOPIC = "/camera/color/camera_info"
DEPTH_TOPIC = "/camera/depth/image_raw"
ODOMETRY_TOPIC = "/odom"
TRUTH_TOPIC = "/ground_truth/odom"


@dataclass(frozen=True)
class BagFormat:
    """How a bag is stored.

    Attributes:
        storage: mcap or sqlite3.
        compression: zstd per ``chunk`` (mcap only; Foxglove reads it), per ``message``, of the whole ``file``, or none.
        image: raw (rgb8, lossless) or jpeg (/compressed, about 15 times smaller).
        depth: 16UC1 (millimetres) or 32FC1 (metres).
    """

    storage: str = "mcap"
    compression: str = "none"
    image: str = "raw"
    depth: str = "16UC1"

    def __post_init__(self) -> None:
        check_choice("storage", self.storage, STORAGES)
        check_choice("compression", self.compression, COMPRESSIONS)
        check_choice("image", self.image, ("raw", "jpeg"))
        check_choice("depth", self.depth, ("16UC1", "32FC1"))
        if self.compression == "chunk" and self.storage != "mcap":
            raise ConfigError("compression chunk needs storage mcap; use file or message with sqlite3")


def write_bag(  # noqa: PLR0913 - each is one flag of the command line
    path: str | os.PathLike[str],
    recording: Recording,
    storage: str = "mcap",
    compression: str = "none",
    *,
    image: str = "raw",
    depth: str = "16UC1",
    ground_truth: Trajectory | None = None,
    overwrite: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Path:
    """Stream ``recording`` into the rosbag2 folder ``path`` and return it.

    Topics: /camera/color/image_raw (or /compressed), /camera/color/camera_info, /camera/depth/image_raw, /odom, /tf,
    /tf_static, and /ground_truth/odom when ``ground_truth`` is given. ``recording.metadata`` goes to custom_data.
    The bag is made in a hidden folder beside ``path`` and renamed at the end, so a kill leaves no half a bag.

    Args:
        path: folder to make.
        recording: frames and poses; read once, in order.
        storage: mcap or sqlite3.
        compression: none, chunk, file or message (zstd; see :class:`BagFormat`).
        image: raw or jpeg.
        depth: 16UC1 or 32FC1.
        ground_truth: further poses, in their own frame ``frame_id``.
        overwrite: replace a bag that is there already.
        progress: called with 1 after each frame.

    Raises:
        StorageError: ``path`` exists, or has a name that is not UTF-8, or cannot be written, or the disk is full.
        ConfigError: an unknown storage, compression or encoding.
        DataError: the recording is empty or one of its frames cannot be read.
    """
    form = BagFormat(storage, compression, image, depth)
    target = Path(path)
    if printable(target.name) != target.name:
        raise StorageError(
            f"{printable(str(target))}: the name of a bag must be UTF-8, as metadata.yaml names its files; "
            "choose another"
        )
    if not len(recording):
        raise DataError(f"{recording.name}: holds no frames, so there is nothing to write")
    with atomic_folder(target, overwrite, is_bag) as folder, _writer(folder, form, target) as writer:
        for key, value in recording.metadata.items():
            writer.set_custom_data(str(key), encode_custom(value))
        _Stream(writer, recording, form).write(ground_truth, progress)
    return target


class _Stream:
    """Sends a recording's messages to the writer in order of time."""

    def __init__(self, writer: Any, recording: Recording, form: BagFormat) -> None:
        self.writer, self.recording, self.form = writer, recording, form
        self.messages = MessageWriter()
        self.links: dict[str, Any] = {}
        self.twists = _twists(recording)

    def write(self, ground_truth: Trajectory | None, progress: Callable[[int], Any] | None) -> None:
        truth = iter(()) if ground_truth is None else self._truth(ground_truth)
        pending = next(truth, None)
        first_ns = ns_from_seconds(float(self.recording.stamps_s[0]))
        last_ns = -1
        for index in range(len(self.recording)):
            frame = self.recording.frame(index)
            stamp_ns = ns_from_seconds(frame.stamp_s)
            if stamp_ns < last_ns:
                raise DataError(f"{self.recording.name}: frame {index} is older than the frame before it")
            last_ns = stamp_ns
            while pending is not None and pending[0] <= stamp_ns:
                self._send(TRUTH_TOPIC, ODOMETRY, max(pending[0], 0), pending[1])
                pending = next(truth, None)
            if index == 0 and self.recording.T_base_camera is not None:
                frames = ("base_link", frame.frame_id)
                static = self.messages.transform(first_ns, frames, self.recording.T_base_camera)
                self._send("/tf_static", TF_TYPES[0], stamp_ns, static)
            self._frame(index, stamp_ns, frame)
            if progress is not None:
                progress(1)
        while pending is not None:
            self._send(TRUTH_TOPIC, ODOMETRY, pending[0], pending[1])
            pending = next(truth, None)

    def _frame(self, index: int, stamp_ns: int, frame: Frame) -> None:
        T_odom_base = self.recording.T_odom_base[index]
        frames = ("odom", "base_link")
        self._send("/tf", TF_TYPES[0], stamp_ns, self.messages.transform(stamp_ns, frames, T_odom_base))
        vx, vy, w = self.twists[index]
        odometry = self.messages.odometry(stamp_ns, frames, T_odom_base, (vx, w), vy)
        self._send(ODOMETRY_TOPIC, ODOMETRY, stamp_ns, odometry)
        if frame.intrinsics is not None:
            info = self.messages.camera_info(stamp_ns, frame.frame_id, frame.intrinsics)
            self._send(INFO_TOPIC, CAMERA_INFO, stamp_ns, info)
        if self.form.image == "jpeg":
            data = self.messages.jpeg(stamp_ns, frame.frame_id, frame.rgb)
            self._send(f"{IMAGE_TOPIC}/compressed", COMPRESSED_IMAGE, stamp_ns, data)
        else:
            self._send(IMAGE_TOPIC, IMAGE, stamp_ns, self.messages.image(stamp_ns, frame.frame_id, frame.rgb))
        if frame.depth_m is not None:
            data = self.messages.depth(stamp_ns, frame.frame_id, frame.depth_m, self.form.depth)
            self._send(DEPTH_TOPIC, IMAGE, stamp_ns, data)

    def _truth(self, truth: Trajectory) -> Iterator[tuple[int, bytes]]:
        frames = (truth.frame_id, "base_link")
        for stamp_s, T_world_base in zip(truth.stamps_s, truth.T_world_body, strict=True):
            stamp_ns = ns_from_seconds(float(stamp_s))
            yield stamp_ns, self.messages.odometry(stamp_ns, frames, T_world_base, (0.0, 0.0))

    def _send(self, topic: str, type_name: str, log_ns: int, data: bytes) -> None:
        if topic not in self.links:
            profile = quality_of_service(latched=topic == "/tf_static")
            self.links[topic] = self.writer.add_connection(
                topic, type_name, typestore=typestore(False), offered_qos_profiles=[profile]
            )
        self.writer.write(self.links[topic], log_ns, data)


def quality_of_service(latched: bool) -> Any:
    """Return the profile a player offers: reliable; /tf_static stays available to late listeners (transient local)."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        durability,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )


def encode_custom(value: Any) -> str:
    """Return ``value`` as rosbag2's custom_data keeps it: JSON, but plain text stays as it is."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _twists(recording: Recording) -> list[tuple[float, float, float]]:
    """Return planar twists (vx, vy, w) from each pose to the next (the last repeats)."""
    poses: NDArray[np.float64] = np.asarray(recording.poses_xyyaw, float)
    if len(poses) < 2:
        return [(0.0, 0.0, 0.0)]
    twists = []
    for index, duration_s in enumerate(np.diff(recording.stamps_s)):
        vx, vy, w = se2.planar_twist_between(poses[index], poses[index + 1], float(duration_s))
        twists.append((float(vx), float(vy), float(w)))
    return [*twists, twists[-1]]


@contextmanager
def _writer(folder: Path, form: BagFormat, target: Path) -> Iterator[Any]:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    plugin = StoragePlugin.MCAP if form.storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(folder, version=METADATA_VERSION, storage_plugin=plugin)
    mode = "STORAGE" if form.compression == "chunk" else form.compression.upper()
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    try:
        with writer:
            yield writer
    except sqlite3.OperationalError as error:
        raise StorageError(
            f"{target}: cannot be written ({error}); free some space or choose another folder"
        ) from error
