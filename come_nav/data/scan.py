"""The first pass over a bag: stamps, poses, calibration and extrinsics, no pixels; then the choice of frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import CameraIntrinsics
from come_nav.data.bags.bag import Bag, BagMessage
from come_nav.data.bags.calibration import camera_extrinsics, camera_intrinsics
from come_nav.data.bags.images import decode_colour
from come_nav.data.bags.poses import PoseCollector, read_poses
from come_nav.data.bags.ros_types import TF_TYPES
from come_nav.data.bags.topics import TopicChoice, tf_topics
from come_nav.data.bags.transforms import TransformTree, is_static_topic
from come_nav.data.recording_report import RecordingReport
from come_nav.data.scan_settings import ScanSettings
from come_nav.data.timing.association import Association
from come_nav.data.timing.interpolation import interpolate_poses
from come_nav.data.timing.matching import StampedTopic, match_depth, match_poses
from come_nav.data.timing.motion import NEVER_MOVES, frozen_frames, never_moves, pose_jumps, require_one_publisher
from come_nav.data.timing.stamps import find_gaps, median_rate_hz, resample, seconds_after, with_cuts

HEADER_BYTES = 12  # of a message until behind its stamp, in CDR and in ROS 1
GAP_PERIODS = 2.5  # one missing frame is no gap, two are
TF_MESSAGES_FOR_EXTRINSICS = 500  # enough for every publisher to have spoken once; decoding all of /tf is slow


@dataclass(frozen=True)
class BagScan:
    """Result of the first pass, one row per chosen frame; ``depth`` has -1 where a frame has none."""

    images: StampedTopic
    depth: StampedTopic | None
    T_odom_base: NDArray[np.float64]
    intrinsics: CameraIntrinsics | None
    T_base_camera: NDArray[np.float64] | None
    report: RecordingReport


class _Pass:
    """What the pass collects while messages stream by."""

    def __init__(self, bag: Bag, topics: TopicChoice) -> None:
        self.topics = topics
        self.stamps: dict[str, list[tuple[int, int]]] = {topics.image: []}
        if topics.depth is not None:
            self.stamps[topics.depth] = []
        self.checksums: dict[tuple[int, int], int] = {}  # header and log time -> of the image's bytes
        self.pose_clock_ns: list[int] = []  # header minus log time
        self.first_image: BagMessage | None = None
        self.info: Any = None
        self.tree = TransformTree()
        self._tf_left = dict.fromkeys(tf_topics(bag), TF_MESSAGES_FOR_EXTRINSICS)
        pose_type = bag.topic(topics.pose).type
        self.collector = None if pose_type in TF_TYPES else PoseCollector(topics.pose, pose_type)

    def wanted(self) -> set[str]:
        names = {*self.stamps, *self._tf_left}
        if self.collector is not None:
            names.add(self.topics.pose)
        return names | {self.topics.info} if self.topics.info else names

    def run(self, bag: Bag, settings: ScanSettings) -> None:
        """Stream the chosen part of the bag."""
        start_ns = None if settings.start_s is None else bag.start_ns + round(settings.start_s * 1e9)
        stop_ns = None if settings.stop_s is None else bag.start_ns + round(settings.stop_s * 1e9)
        latched = {name for name in self._tf_left if is_static_topic(name)}
        if start_ns is not None:  # said once, perhaps long before
            self._take_all(bag.messages(latched, None, start_ns))
        self._take_all(bag.messages(self.wanted(), start_ns, stop_ns))
        if start_ns is not None and self.info is None and self.topics.info is not None:
            self._take_all(bag.messages({self.topics.info}, None, start_ns))
        if self.first_image is None:
            raise DataError(f"{bag.path}: {self.topics.image} has no message in the chosen part of the bag")

    def _take_all(self, messages: Iterable[BagMessage]) -> None:
        for message in messages:
            self.take(message)

    def first_frame(self, warnings: list[str]) -> tuple[Any, CameraIntrinsics | None]:
        """Return the first image message, decoded, and the calibration for its size."""
        assert self.first_image is not None
        first = self.first_image.decode()
        if self.info is None or self.topics.info is None:
            return first, None
        height, width = decode_colour(first, self.first_image.type).shape[:2]
        return first, camera_intrinsics(self.info, (width, height), self.topics.info, warnings)

    def take(self, message: BagMessage) -> None:
        name = message.topic
        if name in self.stamps:
            self.stamps[name].append((message.header_ns, message.log_ns))
            if name == self.topics.image:
                self.checksums[message.header_ns, message.log_ns] = crc32(memoryview(message.raw)[HEADER_BYTES:])
                self.first_image = self.first_image or message
        elif name == self.topics.info:
            self.info = self.info or message.decode()
        elif name in self._tf_left:
            if is_static_topic(name) or self._tf_left[name] > 0:
                self._tf_left[name] -= 1
                self.tree.add(message.decode(), is_static_topic(name), keep_all=False)
        elif self.collector is not None:
            self.pose_clock_ns.append(message.header_ns - message.log_ns)
            self.collector.add(message.header_ns, message.decode())

    def offset_of_clocks_s(self, images: StampedTopic) -> float | None:
        """Return what must be added to the poses' stamps so that both topics' agree with the recorder's clock."""
        if not self.pose_clock_ns:
            return None
        return float((np.median(images.header_ns - images.log_ns) - np.median(self.pose_clock_ns)) * 1e-9)


def scan_bag(bag: Bag, topics: TopicChoice, settings: ScanSettings) -> BagScan:
    """Read stamps and poses, match them, and choose the frames of the recording.

    Raises:
        DataError: no usable image or pose, or a broken clock.
        AssociationError: images and poses do not overlap in time; tells the offset that would match.
    """
    warnings = list(bag.warnings)
    found = _Pass(bag, topics)
    found.run(bag, settings)
    track = found.collector.track(warnings) if found.collector else read_poses(bag, topics.pose, warnings)
    images = StampedTopic.cleaned(topics.image, found.stamps[topics.image], warnings)
    start_ns = int(images.header_ns[0])  # seconds after the first image keep their nanoseconds in float64
    image_s, pose_s = images.seconds(start_ns), seconds_after(track.stamps_ns, start_ns)
    names, offset_s = (topics.image, topics.pose), found.offset_of_clocks_s(images)
    posed, association = match_poses(image_s, pose_s, settings, names, offset_s)
    if len(posed) < len(image_s):
        warnings.append(f"{topics.image}: {len(image_s) - len(posed)} of {len(image_s)} images have no pose in time")
    pose_s += settings.time_offset_s
    require_one_publisher(topics.pose, track.T_world_body[:, :3, 3])
    jumps = pose_jumps(pose_s, track.T_world_body)
    posed = posed[~_within(image_s[posed], pose_s, jumps)]
    posed = _without_frozen(
        found, images, posed, interpolate_poses(pose_s, track.T_world_body, image_s[posed]), warnings
    )
    chosen = resample(image_s[posed], settings.rate_hz)
    if chosen.slower:
        warnings.append(f"images come at {chosen.rate_hz:.2f} Hz, below {settings.rate_hz:g} Hz: every frame is kept")
    frames = posed[chosen.index]
    depth, depth_match = _depth_of_frames(found, image_s, start_ns, frames, settings, warnings)
    first, intrinsics = found.first_frame(warnings)
    T_base_camera = camera_extrinsics(found.tree, track.body_frame, str(first.header.frame_id), warnings)
    gaps = find_gaps(image_s[frames], settings.max_gap_s or GAP_PERIODS / chosen.rate_hz)
    gaps = with_cuts(gaps, image_s[frames], np.searchsorted(image_s[frames], pose_s[jumps], side="right") - 1)
    T_odom_base = interpolate_poses(pose_s, track.T_world_body, image_s[frames])
    if never_moves(se3.xyyaw_from_transform(T_odom_base)):
        warnings.append(NEVER_MOVES.format(topics.pose))
    if len(jumps):
        steps_m = np.linalg.norm(np.diff(track.T_world_body[:, :3, 3], axis=0), axis=1)[jumps]
        warnings.append(
            f"{topics.pose}: the pose jumps at {len(jumps)} places, first {pose_s[jumps[0]] - image_s[0]:.2f} s after "
            f"the first image, at most by {steps_m.max():.2f} m; the recording is cut there"
        )
    report = RecordingReport(
        topics={role: name for role, name in vars(topics).items() if name is not None},
        association=association.report,
        depth_association=None if depth_match is None else depth_match.report,
        source_rate_hz=median_rate_hz(image_s),
        rate_hz=chosen.rate_hz,
        slower_than_asked=chosen.slower,
        missed_ticks=chosen.missed_ticks,
        gaps=gaps,
        warnings=tuple(warnings),
    )
    chosen_images = StampedTopic(topics.image, images.header_ns[frames], images.log_ns[frames])
    return BagScan(chosen_images, depth, T_odom_base, intrinsics, T_base_camera, report)


def _within(image_s: NDArray[np.float64], pose_s: NDArray[np.float64], jumps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which images (N,) lie between the two poses of a jump, where no pose between them is true."""
    after = np.searchsorted(pose_s, image_s, side="left")  # the pose at or after the image
    between = (after > 0) & (after < len(pose_s)) & (pose_s[np.minimum(after, len(pose_s) - 1)] > image_s)
    return np.asarray(between & np.isin(after - 1, jumps))


def _without_frozen(
    found: _Pass,
    images: StampedTopic,
    posed: NDArray[np.int64],
    T_odom_base: NDArray[np.float64],
    warnings: list[str],
) -> NDArray[np.int64]:
    """Return the images (indices) without those that repeat the one before while the robot moves."""
    keys = zip(images.header_ns[posed].tolist(), images.log_ns[posed].tolist(), strict=True)
    frozen = frozen_frames([found.checksums[key] for key in keys], se3.xyyaw_from_transform(T_odom_base))
    if frozen.any():
        warnings.append(
            f"{images.name}: {int(frozen.sum())} of {len(posed)} images repeat the one before while the robot "
            "moves, as of a camera that froze, and have been dropped"
        )
    if not len(posed):
        raise DataError(f"{images.name}: every image lies within a jump of the pose; name another topic (--pose-topic)")
    return np.asarray(posed[~frozen])


def _depth_of_frames(
    found: _Pass,
    image_s: NDArray[np.float64],
    start_ns: int,
    frames: NDArray[np.int64],
    settings: ScanSettings,
    warnings: list[str],
) -> tuple[StampedTopic | None, Association | None]:
    """Return where the depth of each frame is (-1 = none), and the match; None, None without any."""
    name = found.topics.depth
    if name is None or not found.stamps[name]:
        return None, None
    stream = StampedTopic.cleaned(name, found.stamps[name], warnings)
    of_image, match = match_depth(image_s, stream.seconds(start_ns), settings, name, warnings)
    chosen = of_image[frames]
    missing = int((chosen < 0).sum())
    if match is None or missing == len(frames):
        return None, match
    if missing:
        limit_s = settings.max_depth_difference_s
        warnings.append(f"{name}: {missing} of {len(frames)} frames have no depth within {limit_s:g} s")
    header_ns = np.where(chosen < 0, -1, stream.header_ns[chosen])
    return StampedTopic(name, header_ns, np.where(chosen < 0, -1, stream.log_ns[chosen])), match
