"""The first pass over a bag: stamps, poses, calibration and extrinsics, no pixels; then the choice of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import AssociationError, DataError
from come_nav.core.types import CameraIntrinsics
from come_nav.data.association import Association, associate
from come_nav.data.bag import Bag, BagMessage
from come_nav.data.images import decode_colour
from come_nav.data.interpolation import interpolate_poses
from come_nav.data.poses import PoseCollector, PoseTrack, read_poses
from come_nav.data.ros_types import PIXEL_CENTRE, TF_TYPES
from come_nav.data.stamps import clean_order, find_gaps, median_rate_hz, resample, seconds_after
from come_nav.data.topics import TopicChoice, tf_topics
from come_nav.data.transforms import TransformTree, is_static_topic

if TYPE_CHECKING:
    from come_nav.data.recording import RecordingReport

Nanoseconds = NDArray[np.int64]
TF_MESSAGES_FOR_EXTRINSICS = 500  # enough for every publisher to have spoken once; decoding all of /tf is slow


@dataclass(frozen=True)
class ScanSettings:
    """How a bag is turned into a recording.

    Attributes:
        rate_hz: frames per second to choose; None keeps every image.
        time_offset_s: added to pose stamps before matching.
        max_difference_s: an image is used when a pose is at most this far away in time...
        max_pose_gap_s: ...or when the poses around it are at most this far apart (then it is interpolated).
        max_depth_difference_s: depth is taken from the nearest depth image within this time.
        max_gap_s: longer steps between frames are reported as gaps; None takes 2.5 periods.
        start_s, stop_s: part of the bag, in seconds after its first message.
    """

    rate_hz: float | None = 4.0
    time_offset_s: float = 0.0
    max_difference_s: float = 0.05
    max_pose_gap_s: float = 1.0
    max_depth_difference_s: float = 0.05
    max_gap_s: float | None = None
    start_s: float | None = None
    stop_s: float | None = None

    def __post_init__(self) -> None:
        if self.rate_hz is not None:
            check_range("rate_hz", self.rate_hz, 0.0, 1000.0, open_low=True)
        check_range("time_offset_s", self.time_offset_s, -1e10, 1e10)
        for name in ("max_difference_s", "max_pose_gap_s", "max_depth_difference_s"):
            check_range(name, getattr(self, name), 0.0)


@dataclass(frozen=True)
class BagScan:
    """Result of the first pass, one row per chosen frame; ``*_log_ns`` find a message, -1 = no depth."""

    topics: TopicChoice
    image_ns: Nanoseconds
    image_header_ns: Nanoseconds
    image_log_ns: Nanoseconds
    depth_header_ns: Nanoseconds
    depth_log_ns: Nanoseconds
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

    def take(self, message: BagMessage) -> None:
        name = message.topic
        if name in self.stamps:
            self.stamps[name].append((message.header_ns, message.log_ns))
            if name == self.topics.image and self.first_image is None:
                self.first_image = message
        elif name == self.topics.info:
            self.info = self.info or message.decode()
        elif name in self._tf_left:
            if is_static_topic(name) or self._tf_left[name] > 0:
                self._tf_left[name] -= 1
                self.tree.add(message.decode(), is_static_topic(name), keep_all=False)
        elif self.collector is not None:
            self.collector.add(message.header_ns, message.decode())


def scan_bag(bag: Bag, topics: TopicChoice, settings: ScanSettings) -> BagScan:
    """Read stamps and poses, match them, and choose the frames of the recording.

    Raises:
        DataError: no usable image or pose, or a broken clock.
        AssociationError: images and poses do not overlap in time; tells the offset that would match.
    """
    from come_nav.data.recording import RecordingReport

    warnings = list(bag.warnings)
    start_ns = None if settings.start_s is None else bag.start_ns + round(settings.start_s * 1e9)
    stop_ns = None if settings.stop_s is None else bag.start_ns + round(settings.stop_s * 1e9)
    found = _Pass(bag, topics)
    for message in bag.messages(found.wanted(), start_ns, stop_ns):
        found.take(message)
    if found.first_image is None:
        raise DataError(f"{bag.path}: {topics.image} has no message in the chosen part of the bag")
    track = found.collector.track(warnings) if found.collector else read_poses(bag, topics.pose, warnings)

    header_ns, log_ns = np.array(found.stamps[topics.image], np.int64).T
    order = clean_order(header_ns, topics.image, warnings)
    header_ns, log_ns = header_ns[order], log_ns[order]
    base_ns = int(header_ns[0])  # float64 seconds relative to the first image keep nanoseconds
    image_s = seconds_after(header_ns, base_ns)
    pose_s = seconds_after(track.stamps_ns, base_ns)
    posed, association = _match_poses(image_s, pose_s, settings, topics)
    if len(posed) < len(image_s):
        warnings.append(f"{topics.image}: {len(image_s) - len(posed)} of {len(image_s)} images have no pose in time")
    chosen = resample(image_s[posed], settings.rate_hz)
    frames = posed[chosen.index]
    depth_header_ns, depth_log_ns, depth_association = _match_depth(found, base_ns, image_s, frames, settings, warnings)
    if chosen.slower:
        warnings.append(f"images come at {chosen.rate_hz:.2f} Hz, below {settings.rate_hz:g} Hz: every frame is kept")
    gaps = find_gaps(image_s[frames], settings.max_gap_s or 2.5 / chosen.rate_hz)
    first = found.first_image.decode()
    report = RecordingReport(
        topics={role: name for role, name in vars(topics).items() if name is not None},
        association=association.report,
        depth_association=depth_association.report if depth_association is not None else None,
        source_rate_hz=median_rate_hz(image_s),
        rate_hz=chosen.rate_hz,
        slower_than_asked=chosen.slower,
        missed_ticks=chosen.missed_ticks,
        gaps=gaps,
        warnings=tuple(warnings),
    )
    return BagScan(
        topics=topics,
        image_ns=header_ns[frames],
        image_header_ns=header_ns[frames],
        image_log_ns=log_ns[frames],
        depth_header_ns=depth_header_ns,
        depth_log_ns=depth_log_ns,
        T_odom_base=interpolate_poses(pose_s + settings.time_offset_s, track.T_world_body, image_s[frames]),
        intrinsics=_intrinsics(found, first),
        T_base_camera=_extrinsics(found.tree, track, str(first.header.frame_id), warnings),
        report=report,
    )


def _match_poses(
    image_s: NDArray[np.float64], pose_s: NDArray[np.float64], settings: ScanSettings, topics: TopicChoice
) -> tuple[NDArray[np.int64], Association]:
    """Return the images (indices) that a pose can be given, and the one-to-one match for the report."""
    unshifted_s, pose_s = pose_s, pose_s + settings.time_offset_s
    right = np.searchsorted(pose_s, image_s, side="left")
    inside = (right > 0) & (right < len(pose_s))
    safe = np.clip(right, 1, max(len(pose_s) - 1, 1))
    bracket_s = np.full(len(image_s), np.inf)
    if len(pose_s) > 1:
        bracket_s[inside] = (pose_s[safe] - pose_s[safe - 1])[inside]
    ends = np.stack([pose_s[np.clip(right, 0, len(pose_s) - 1)], pose_s[np.maximum(right - 1, 0)]])
    near = np.abs(ends - image_s).min(axis=0) <= settings.max_difference_s
    posed = np.flatnonzero(near | (bracket_s <= settings.max_pose_gap_s))
    tolerance_s = max(settings.max_difference_s, 0.5 * settings.max_pose_gap_s) if len(posed) else 0.02
    names = (f"images ({topics.image})", f"poses ({topics.pose})")
    match = associate(image_s, unshifted_s, tolerance_s, settings.time_offset_s, names=names, flag="--time-offset")
    return posed, match


def _match_depth(
    found: _Pass,
    base_ns: int,
    image_s: NDArray[np.float64],
    frames: NDArray[np.int64],
    settings: ScanSettings,
    warnings: list[str],
) -> tuple[Nanoseconds, Nanoseconds, Association | None]:
    none = np.full(len(frames), -1, np.int64)
    depth = found.topics.depth
    if depth is None or not found.stamps[depth]:
        return none, none, None
    header_ns, log_ns = np.array(found.stamps[depth], np.int64).T
    order = clean_order(header_ns, depth, warnings)
    header_ns, log_ns = header_ns[order], log_ns[order]
    try:
        match = associate(image_s, seconds_after(header_ns, base_ns), settings.max_depth_difference_s)
    except AssociationError as error:
        warnings.append(f"{depth}: no depth matches an image in time and none is used ({error})")
        return none, none, None
    of_image = np.full(len(image_s), -1, np.int64)
    of_image[match.index_a] = match.index_b
    chosen = of_image[frames]
    missing = int((chosen < 0).sum())
    if missing:
        warnings.append(
            f"{depth}: {missing} of {len(frames)} frames have no depth within {settings.max_depth_difference_s:g} s"
        )
    return (
        np.where(chosen < 0, -1, header_ns[chosen]),
        np.where(chosen < 0, -1, log_ns[chosen]),
        match,
    )


def _intrinsics(found: _Pass, first: Any) -> CameraIntrinsics | None:
    """Return the calibration, scaled where CameraInfo speaks of another resolution of the same view."""
    if found.info is None or found.first_image is None:
        return None
    info = found.info
    K = np.asarray(info.k if hasattr(info, "k") else info.K, float).reshape(3, 3)
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        return None  # an uncalibrated driver publishes zeros
    height, width = decode_colour(first, found.first_image.type).shape[:2]
    info_width, info_height = int(info.width) or width, int(info.height) or height
    focal_x, focal_y = float(K[0, 0]), float(K[1, 1])
    centre_x, centre_y = float(K[0, 2]) + PIXEL_CENTRE, float(K[1, 2]) + PIXEL_CENTRE
    calibrated = CameraIntrinsics(info_width, info_height, focal_x, focal_y, centre_x, centre_y)
    if (info_width, info_height) == (width, height):
        return calibrated
    if abs(info_width * height - info_height * width) > 0.01 * info_width * height:
        raise DataError(
            f"{found.topics.info} is for {info_width}x{info_height} images but {found.topics.image} has "
            f"{width}x{height}; name the fitting topic with --info-topic"
        )
    return calibrated.scaled(width, height)


def _extrinsics(
    tree: TransformTree, track: PoseTrack, camera_frame: str, warnings: list[str]
) -> NDArray[np.float64] | None:
    if not tree.parents:
        return None
    T_base_camera = tree.lookup(track.body_frame, camera_frame)
    if T_base_camera is None:
        warnings.append(f"/tf does not connect {track.body_frame} to {camera_frame}; the camera's pose is unknown")
    return T_base_camera
