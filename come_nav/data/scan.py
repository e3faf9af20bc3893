"""The first pass over a bag: stamps, poses, calibration and extrinsics, no pixels; then the choice of frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.data.bags.bag import Bag
from come_nav.data.bags.poses import read_poses
from come_nav.data.bags.topics import TopicChoice
from come_nav.data.cameras.depth_alignment import DepthAlignment
from come_nav.data.cameras.extrinsics import camera_extrinsics, pose_of_base
from come_nav.data.cameras.frames import frame_prefix
from come_nav.data.cameras.lens import Lens
from come_nav.data.recording_report import RecordingReport
from come_nav.data.scan_motion import PosePath
from come_nav.data.scan_pass import ScanPass
from come_nav.data.scan_settings import ScanSettings
from come_nav.data.timing.association import Association
from come_nav.data.timing.matching import StampedTopic, match_depth, match_poses
from come_nav.data.timing.stamps import find_gaps, median_rate_hz, resample, seconds_after
from come_nav.data.video.stream import VideoIndex

GAP_PERIODS = 2.5  # one missing frame is no gap, two are


@dataclass(frozen=True)
class BagScan:
    """Result of the first pass, one row per chosen frame; ``depth`` has -1 where a frame has none.

    ``T_base_camera`` is (4, 4), or (N, 4, 4) where the camera moves on the robot; ``frame_id`` is None where the
    images' headers name their frame; ``video`` is None where they are still images.
    """

    images: StampedTopic
    depth: StampedTopic | None
    T_odom_base: NDArray[np.float64]
    lens: Lens | None
    bits: int
    T_base_camera: NDArray[np.float64] | None
    alignment: DepthAlignment | None
    depth_scale_m: float
    frame_id: str | None
    report: RecordingReport
    video: VideoIndex | None = None


def scan_bag(bag: Bag, topics: TopicChoice, settings: ScanSettings) -> BagScan:
    """Read stamps and poses, match them, and choose the frames of the recording.

    Raises:
        DataError: no usable image or pose, or a broken clock.
        AssociationError: images and poses do not overlap in time; tells the offset that would match.
    """
    warnings = [*bag.warnings, *topics.notes]
    found = ScanPass(bag, topics)
    found.run(bag, settings, warnings)
    view = found.camera_view(bag, settings, warnings)
    images = found.images(warnings)
    track = (
        found.collector.track(warnings, images.recorded_ns)
        if found.collector
        else read_poses(
            bag,
            topics.pose,
            warnings,
            frames=(settings.odom_frame, settings.base_frame),
            tf_topics=topics.tf,
            prefix=frame_prefix(view.frame),
            beside_ns=images.recorded_ns,
        )
    )
    body = pose_of_base(track, found.tree, settings.base_frame, warnings)
    start_ns = int(images.header_ns[0])  # seconds after the first image keep their nanoseconds in float64
    image_s, pose_s = images.seconds(start_ns), seconds_after(track.stamps_ns, start_ns)
    names, offset_s = (topics.image, topics.pose), found.offset_of_clocks_s(images)
    posed, association = match_poses(image_s, pose_s, settings, names, offset_s)
    if len(posed) < len(image_s):
        warnings.append(f"{topics.image}: {len(image_s) - len(posed)} of {len(image_s)} images have no pose in time")
    path = PosePath(topics.pose, pose_s + settings.time_offset_s, body.track.T_world_body)
    posed = path.usable(found, images, image_s, posed, warnings)
    chosen = resample(image_s[posed], settings.rate_hz)
    if chosen.slower:
        warnings.append(f"images come at {chosen.rate_hz:.2f} Hz, below {settings.rate_hz:g} Hz: every frame is kept")
    frames = posed[chosen.index]
    depth, depth_match = _depth_of_frames(found, images, image_s, frames, settings, warnings)
    alignment = None if depth is None else found.depth_alignment(view, warnings)
    chosen_images = StampedTopic(topics.image, images.header_ns[frames], images.log_ns[frames])
    T_base_camera = camera_extrinsics(
        bag,
        topics.tf,
        found.tree,
        body,
        view.frame,
        chosen_images.header_ns,
        warnings,
        believed=settings.camera_frame is not None,
    )
    gaps = find_gaps(image_s[frames], settings.max_gap_s or GAP_PERIODS / chosen.rate_hz)
    gaps = path.cut(gaps, image_s[frames], float(image_s[0]), warnings)
    report = RecordingReport(
        topics=topics.roles,
        association=association.report,
        depth_association=None if depth_match is None else depth_match.report,
        source_rate_hz=median_rate_hz(image_s),
        rate_hz=chosen.rate_hz,
        slower_than_asked=chosen.slower,
        missed_ticks=chosen.missed_ticks,
        gaps=gaps,
        warnings=tuple(warnings),
        pose_jumps=path.frames_before_jumps(image_s[frames]),
    )
    return BagScan(
        chosen_images,
        depth if alignment is not None else None,
        path.at(image_s[frames]),
        view.lens,
        view.bits,
        T_base_camera,
        alignment,
        settings.depth_scale_m,
        settings.camera_frame,
        report,
        found.video,
    )


def _depth_of_frames(
    found: ScanPass,
    images: StampedTopic,
    image_s: NDArray[np.float64],
    frames: NDArray[np.int64],
    settings: ScanSettings,
    warnings: list[str],
) -> tuple[StampedTopic | None, Association | None]:
    """Return where the depth of each frame is (-1 = none), and the match; None, None without any."""
    name = found.topics.depth
    if name is None or not found.stamps[name]:
        return None, None
    stream = StampedTopic.cleaned(name, found.stamps[name], warnings, images.recorded_ns)
    of_image, match = match_depth(image_s, stream.seconds(int(images.header_ns[0])), settings, name, warnings)
    chosen = of_image[frames]
    missing = int((chosen < 0).sum())
    if match is None or missing == len(frames):
        return None, match
    if missing:
        limit_s = settings.max_depth_difference_s
        warnings.append(f"{name}: {missing} of {len(frames)} frames have no depth within {limit_s:g} s")
    header_ns = np.where(chosen < 0, -1, stream.header_ns[chosen])
    return StampedTopic(name, header_ns, np.where(chosen < 0, -1, stream.log_ns[chosen])), match
