"""Which images become frames of a recording, and with which pose: the same rules for bags and folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.data.recording_report import RecordingReport
from come_nav.data.scan_motion import PosePath
from come_nav.data.scan_settings import ScanSettings
from come_nav.data.timing.association import Association
from come_nav.data.timing.matching import StampedTopic, match_depth, match_poses
from come_nav.data.timing.stamps import Gap, Resampling, find_gaps, median_rate_hz, resample, seconds_after

GAP_PERIODS = 2.5  # one missing frame is no gap, two are

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Streams:
    """What frames are chosen from.

    Attributes:
        images: where they are, in the order of their stamps.
        checksums: (header, log) stamps of an image -> something that is equal where images are.
        pose_topic: name of the poses.
        pose_ns: (P,) their stamps, increasing.
        T_odom_base: (P, 4, 4) poses of the base.
        clocks_apart_s: what the times of recording say must be added to the poses' stamps, if they are known.
    """

    images: StampedTopic
    checksums: Mapping[tuple[int, int], object]
    pose_topic: str
    pose_ns: NDArray[np.int64]
    T_odom_base: NDArray[np.float64]
    clocks_apart_s: float | None = None


@dataclass(frozen=True)
class ChosenFrames:
    """The frames of a recording.

    Attributes:
        index: (N,) of the images.
        image_s: (M,) stamps of all images, seconds after the first.
        T_odom_base: (N, 4, 4).
        association: images against poses.
        resampling: how the rate was reached.
        gaps, pose_jumps: as of :class:`RecordingReport`.
    """

    index: Indices
    image_s: NDArray[np.float64]
    T_odom_base: NDArray[np.float64]
    association: Association
    resampling: Resampling
    gaps: tuple[Gap, ...]
    pose_jumps: tuple[int, ...]

    def report(
        self, topics: dict[str, str], depth_match: Association | None, warnings: tuple[str, ...]
    ) -> RecordingReport:
        """Return what a user is told."""
        return RecordingReport(
            topics=topics,
            association=self.association.report,
            depth_association=None if depth_match is None else depth_match.report,
            source_rate_hz=median_rate_hz(self.image_s),
            rate_hz=self.resampling.rate_hz,
            slower_than_asked=self.resampling.slower,
            missed_ticks=self.resampling.missed_ticks,
            gaps=self.gaps,
            warnings=warnings,
            pose_jumps=self.pose_jumps,
        )


def choose_frames(
    streams: Streams,
    settings: ScanSettings,
    warnings: list[str],
    whole: Callable[[Indices], Indices] | None = None,
) -> ChosenFrames:
    """Match images to poses, leave out what motion forbids, and choose at the rate.

    Args:
        streams: images and poses.
        settings: rate and tolerances.
        warnings: notes are appended.
        whole: returns those of the chosen images that can be read, where that is not known yet.

    Raises:
        AssociationError: images and poses do not overlap in time; tells the offset that would match.
        DataError: two publishers on the pose topic, or every image lies within a jump or is damaged.
    """
    images = streams.images
    start_ns = int(images.header_ns[0])  # seconds after the first image keep their nanoseconds in float64
    image_s, pose_s = images.seconds(start_ns), seconds_after(streams.pose_ns, start_ns)
    names = (images.name, streams.pose_topic)
    posed, association = match_poses(image_s, pose_s, settings, names, streams.clocks_apart_s)
    if len(posed) < len(image_s):
        warnings.append(f"{images.name}: {len(image_s) - len(posed)} of {len(image_s)} images have no pose in time")
    path = PosePath(streams.pose_topic, pose_s + settings.time_offset_s, streams.T_odom_base)
    posed = path.usable(streams.checksums, images, image_s, posed, warnings)
    chosen = resample(image_s[posed], settings.rate_hz)
    if chosen.slower:
        warnings.append(f"images come at {chosen.rate_hz:.2f} Hz, below {settings.rate_hz:g} Hz: every frame is kept")
    frames = posed[chosen.index] if whole is None else whole(posed[chosen.index])
    if not len(frames):
        raise DataError(f"{images.name}: no image is left that is whole and has a pose")
    frame_s = image_s[frames]
    gaps = find_gaps(frame_s, settings.max_gap_s or GAP_PERIODS / chosen.rate_hz)
    gaps = path.cut(gaps, frame_s, float(image_s[0]), warnings)
    jumps = path.frames_before_jumps(frame_s)
    return ChosenFrames(frames, image_s, path.at(frame_s), association, chosen, gaps, jumps)


def depth_of_frames(
    stream: StampedTopic, chosen: ChosenFrames, start_ns: int, settings: ScanSettings, warnings: list[str]
) -> tuple[StampedTopic | None, Association | None]:
    """Return where the depth of each frame is (-1 = none), and the match; None where no frame has any.

    Args:
        stream: depth images.
        chosen: frames.
        start_ns: stamp of the first image.
        settings: tolerances.
        warnings: notes are appended.
    """
    of_image, match = match_depth(chosen.image_s, stream.seconds(start_ns), settings, stream.name, warnings)
    of_frame = of_image[chosen.index]
    missing = int((of_frame < 0).sum())
    if match is None or missing == len(of_frame):
        return None, match
    if missing:
        limit_s = settings.max_depth_difference_s
        warnings.append(f"{stream.name}: {missing} of {len(of_frame)} frames have no depth within {limit_s:g} s")
    header_ns = np.where(of_frame < 0, -1, stream.header_ns[of_frame])
    return StampedTopic(stream.name, header_ns, np.where(of_frame < 0, -1, stream.log_ns[of_frame])), match
