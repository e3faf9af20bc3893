"""Opens whatever holds a drive: a bag of any kind, or an NWM trajectory folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from come_nav.core.errors import DataError
from come_nav.data.bags.storage import is_bag

if TYPE_CHECKING:
    from come_nav.data.nwm.folder import NwmRecording
    from come_nav.data.recording import BagRecording

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened", "BagRecording", "NwmRecording")


def open_recording(
    path: str | os.PathLike[str],
    rate_hz: float | None = 4.0,
    *,
    image_topic: str | None = None,
    depth_topic: str | None = None,
    info_topic: str | None = None,
    pose_topic: str | None = None,
    recover: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> BagRecording | NwmRecording:
    """Open a recording at the protocol rate.

    Args:
        path: rosbag2 folder, metadata.yaml, .mcap, .db3, ROS 1 .bag, or a folder with images and traj_data.pkl.
        rate_hz: frames per second; a slower bag keeps all frames and reports its own rate; None keeps every frame.
        image_topic: name instead of the automatic choice.
        depth_topic: the same for depth; "none" leaves depth out.
        info_topic: the same for the calibration; "none" leaves it out.
        pose_topic: the same for the poses.
        recover: read a bag that was cut off, as far as it is whole.
        quiet: do not log the notes of the recording's report, e.g. to show them elsewhere.
        settings: further fields of :class:`come_nav.data.scan_settings.ScanSettings`, e.g. ``time_offset_s``.

    Raises:
        DataError: one line that says what is wrong with the recording and the way out.
    """
    target = Path(path)
    if (target / "traj_data.pkl").is_file():
        from come_nav.data.nwm.folder import NwmRecording

        return _noted(NwmRecording(target, rate_hz), quiet)
    if target.is_dir() and not is_bag(target):
        raise DataError(f"{target}: neither a bag (metadata.yaml, .mcap, .db3, .bag) nor an NWM folder (traj_data.pkl)")
    from come_nav.core.settings import from_mapping
    from come_nav.data.bags.bag import open_bag
    from come_nav.data.bags.topics import choose_topics
    from come_nav.data.recording import BagRecording
    from come_nav.data.scan import scan_bag
    from come_nav.data.scan_settings import ScanSettings

    chosen = from_mapping(ScanSettings, {"rate_hz": rate_hz, **settings})
    bag = open_bag(target, recover=recover)
    try:
        topics = choose_topics(bag, image_topic, depth_topic, info_topic, pose_topic)
        return _noted(BagRecording(bag, scan_bag(bag, topics, chosen)), quiet)
    except BaseException:
        bag.close()
        raise


def _noted(recording: Opened, quiet: bool) -> Opened:
    """Log what was repaired and left out, so that nobody has to ask for it."""
    for note in () if quiet else recording.report.warnings:
        logger.warning("%s: %s", recording.name, note)
    return recording
