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
from come_nav.data.scan_frames import ChosenFrames, Streams, choose_frames, depth_of_frames
from come_nav.data.scan_pass import ScanPass
from come_nav.data.scan_settings import ScanSettings
from come_nav.data.timing.association import Association
from come_nav.data.timing.matching import StampedTopic
from come_nav.data.video.stream import VideoIndex


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
    streams = Streams(
        images,
        found.checksums,
        topics.pose,
        track.stamps_ns,
        body.track.T_world_body,
        found.offset_of_clocks_s(images),
    )
    chosen = choose_frames(streams, settings, warnings)
    frames = chosen.index
    depth, depth_match = _depth(found, images, chosen, settings, warnings)
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
    report = chosen.report(topics.roles, depth_match, tuple(warnings))
    return BagScan(
        chosen_images,
        depth if alignment is not None else None,
        chosen.T_odom_base,
        view.lens,
        view.bits,
        T_base_camera,
        alignment,
        settings.depth_scale_m,
        settings.camera_frame,
        report,
        found.video,
    )


def _depth(
    found: ScanPass, images: StampedTopic, chosen: ChosenFrames, settings: ScanSettings, warnings: list[str]
) -> tuple[StampedTopic | None, Association | None]:
    """Return :func:`depth_of_frames` of the bag's depth topic; None, None without any."""
    name = found.topics.depth
    if name is None or not found.stamps[name]:
        return None, None
    stream = StampedTopic.cleaned(name, found.stamps[name], warnings, images.recorded_ns)
    return depth_of_frames(stream, chosen, int(images.header_ns[0]), settings, warnings)
