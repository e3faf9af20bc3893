"""Pose streams of a bag: Odometry, PoseStamped, PoseWithCovarianceStamped, TransformStamped, or a chain on /tf."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.data.bags.bag import Bag
from come_nav.data.bags.ros_types import (
    ODOMETRY,
    POSE_STAMPED,
    POSE_WITH_COVARIANCE,
    TF_TYPES,
    TRANSFORM_STAMPED,
    stamp_ns,
)
from come_nav.data.bags.transforms import BASE_FRAMES, read_pose_track, without_stamps
from come_nav.data.cameras.frames import frame_matches
from come_nav.data.timing.stamps import Recorded, clean_order

POSE_STREAM_TYPES = (ODOMETRY, POSE_WITH_COVARIANCE, POSE_STAMPED, TRANSFORM_STAMPED)


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
        self._frames: list[tuple[str, str]] = []
        self._log_ns: list[int] = []
        self._without_stamp: list[bool] = []

    def add(self, header_ns: int, message: Any, log_ns: int = 0) -> None:
        """Take the pose of a decoded message; ``log_ns`` is when it was recorded."""
        child = str(getattr(message, "child_frame_id", "") or "base_link")
        self._frames.append((str(message.header.frame_id or "odom").lstrip("/"), child.lstrip("/")))
        self._log_ns.append(log_ns)
        self._without_stamp.append(stamp_ns(message.header.stamp) == 0)
        position, quat = _position_and_turn(message, self.type_name)
        self._stamps_ns.append(header_ns)
        self._rows.append((position.x, position.y, position.z, quat.x, quat.y, quat.z, quat.w))

    def track(self, warnings: list[str], beside_ns: tuple[int, int] | None = None) -> PoseTrack:
        """Return the poses of one body; raise DataError when none is usable; ``beside_ns`` as of :class:`Recorded`."""
        frames = self._chosen_frames(warnings)
        own = [index for index, found in enumerate(self._frames) if found == frames]
        without = sum(self._without_stamp[index] for index in own)
        if without > 1:  # a first one alone is that of simulated time before its clock, and dropped
            warnings.append(without_stamps(self.topic, without, len(own)))
        stamps_ns, rows = [self._stamps_ns[index] for index in own], [self._rows[index] for index in own]
        recorded = Recorded(np.array([self._log_ns[index] for index in own], np.int64), beside_ns)
        return make_track(self.topic, stamps_ns, rows, frames, warnings, recorded)

    def _chosen_frames(self, warnings: list[str]) -> tuple[str, str]:
        """Return world and body of the poses that are used: of several, the robot's base, else the most frequent."""
        counts = Counter(self._frames)
        if not counts:
            return "odom", "base_link"
        based = [found for found in counts if any(frame_matches(found[1], base) for base in BASE_FRAMES)]
        chosen = max(based or counts, key=lambda found: counts[found])
        if len(counts) > 1:
            others = ", ".join(
                f"{count} of {body} in {world}"
                for (world, body), count in counts.most_common()
                if (world, body) != chosen
            )
            warnings.append(
                f"{self.topic}: several nodes publish on it; the {counts[chosen]} poses of {chosen[1]} in {chosen[0]} "
                f"are used, and not {others}"
            )
        return chosen


def _position_and_turn(message: Any, type_name: str) -> tuple[Any, Any]:
    if type_name == TRANSFORM_STAMPED:  # as motion capture sends it
        return message.transform.translation, message.transform.rotation
    pose = message.pose if type_name == POSE_STAMPED else message.pose.pose
    return pose.position, pose.orientation


def make_track(
    topic: str,
    stamps_ns: list[int],
    rows: list[tuple[float, ...]],
    frames: tuple[str, str],
    warnings: list[str],
    recorded: Recorded | None = None,
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
    if recorded is not None:
        recorded = Recorded(recorded.log_ns[good], recorded.beside_ns)
    order = clean_order(stamps, topic, warnings, recorded)
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
    beside_ns: tuple[int, int] | None = None,
) -> PoseTrack:
    """Read one pose topic of a bag by itself, e.g. ground truth to evaluate against.

    Args:
        bag: to read.
        topic: of poses or transforms.
        warnings: notes are appended.
        frames: world and base frame on /tf; None finds them.
        tf_topics: that carry transforms; None takes all of the bag.
        prefix: of the robot whose frames are preferred.
        beside_ns: when the images that are used were recorded, see :class:`Recorded`.

    Raises:
        DataError: unknown topic, a type without poses, or no usable pose.
    """
    notes: list[str] = [] if warnings is None else warnings
    type_name = bag.topic(topic).type
    if type_name in TF_TYPES:
        log_ns: list[int] = []
        stamps_ns, rows, names = read_pose_track(
            bag, *frames, topics=tf_topics, prefix=prefix, log_ns=log_ns, warnings=notes
        )
        recorded = Recorded(np.array(log_ns, np.int64), beside_ns)
        return make_track(topic, stamps_ns, rows, names, notes, recorded)
    if type_name not in POSE_STREAM_TYPES:
        raise DataError(f"{bag.path}: {topic} is a {type_name}, which carries no poses")
    collector = PoseCollector(topic, type_name)
    for message in bag.messages([topic]):
        collector.add(message.header_ns, message.decode(), message.log_ns)
    return collector.track(notes, beside_ns)
