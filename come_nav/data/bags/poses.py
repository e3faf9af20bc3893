"""Pose streams of a bag: Odometry, PoseStamped, PoseWithCovarianceStamped, or a chain of transforms on /tf."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.data.bags.bag import Bag
from come_nav.data.bags.ros_types import ODOMETRY, POSE_STAMPED, POSE_WITH_COVARIANCE, TF_TYPES
from come_nav.data.bags.transforms import read_pose_track
from come_nav.data.timing.stamps import clean_order

POSE_STREAM_TYPES = (ODOMETRY, POSE_WITH_COVARIANCE, POSE_STAMPED)


@dataclass(frozen=True)
class PoseTrack:
    """Poses in the order of their stamps.

    Attributes:
        stamps_ns: (N,) int64, strictly increasing.
        T_world_body: (N, 4, 4).
        world_frame, body_frame: names; ``body_frame`` is base_link where the message does not tell.
    """

    stamps_ns: NDArray[np.int64]
    T_world_body: NDArray[np.float64]
    world_frame: str
    body_frame: str


class PoseCollector:
    """Gathers the poses of one topic while a bag streams by, then checks and converts them at once."""

    def __init__(self, topic: str, type_name: str) -> None:
        self.topic, self.type_name = topic, type_name
        self._stamps_ns: list[int] = []
        self._rows: list[tuple[float, ...]] = []
        self._frames = ("odom", "base_link")

    def add(self, header_ns: int, message: Any) -> None:
        """Take the pose of a decoded message."""
        if not self._rows:
            child = str(getattr(message, "child_frame_id", "") or "base_link")
            self._frames = (str(message.header.frame_id or "odom").lstrip("/"), child.lstrip("/"))
        pose = message.pose if self.type_name == POSE_STAMPED else message.pose.pose
        position, quat = pose.position, pose.orientation
        self._stamps_ns.append(header_ns)
        self._rows.append((position.x, position.y, position.z, quat.x, quat.y, quat.z, quat.w))

    def track(self, warnings: list[str]) -> PoseTrack:
        """Return the poses; raise DataError when none is usable."""
        return make_track(self.topic, self._stamps_ns, self._rows, self._frames, warnings)


def make_track(
    topic: str, stamps_ns: list[int], rows: list[tuple[float, ...]], frames: tuple[str, str], warnings: list[str]
) -> PoseTrack:
    """Build a track of rows (x, y, z, qx, qy, qz, qw): drops NaN poses and zero quaternions, sorts, drops doubles.

    Raises:
        DataError: no pose is left, or the clock steps back.
    """
    values = np.array(rows, float).reshape(-1, 7)
    stamps = np.array(stamps_ns, np.int64)
    norms = np.linalg.norm(values[:, 3:], axis=1)
    good = np.isfinite(values).all(axis=1) & (norms > 1e-6)
    if not good.any():
        raise DataError(
            f"{topic}: none of the {len(values)} poses is finite with a valid quaternion; name another topic"
        )
    if not good.all():
        warnings.append(
            f"{topic}: {int((~good).sum())} of {len(values)} poses are NaN or invalid and have been dropped"
        )
    values, stamps = values[good], stamps[good]
    order = clean_order(stamps, topic, warnings)
    values, stamps = values[order], stamps[order]
    T_world_body = se3.make_transform(se3.matrix_from_quaternion(values[:, 3:]), values[:, :3])
    return PoseTrack(stamps, T_world_body, *frames)


def read_poses(
    bag: Bag,
    topic: str,
    warnings: list[str] | None = None,
    *,
    frames: tuple[str | None, str | None] = (None, None),
    tf_topics: Collection[str] | None = None,
    prefix: str = "",
) -> PoseTrack:
    """Read one pose topic of a bag by itself, e.g. ground truth to evaluate against.

    Args:
        bag: to read.
        topic: of poses or transforms.
        warnings: notes are appended.
        frames: world and base frame on /tf; None finds them.
        tf_topics: that carry transforms; None takes all of the bag.
        prefix: of the robot whose frames are preferred.

    Raises:
        DataError: unknown topic, a type without poses, or no usable pose.
    """
    notes: list[str] = [] if warnings is None else warnings
    type_name = bag.topic(topic).type
    if type_name in TF_TYPES:
        stamps_ns, rows, names = read_pose_track(bag, *frames, topics=tf_topics, prefix=prefix)
        return make_track(topic, stamps_ns, rows, names, notes)
    if type_name not in POSE_STREAM_TYPES:
        raise DataError(f"{bag.path}: {topic} is a {type_name}, which carries no poses")
    collector = PoseCollector(topic, type_name)
    for message in bag.messages([topic]):
        collector.add(message.header_ns, message.decode())
    return collector.track(notes)
