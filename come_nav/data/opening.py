"""Opens whatever holds a drive: a bag of any kind, an NWM trajectory folder, or a data set's folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from come_nav.core.errors import DataError
from come_nav.data.bags.storage import is_bag

if TYPE_CHECKING:
    from come_nav.data.folders.recording import FolderRecording
    from come_nav.data.nwm.folder import NwmRecording
    from come_nav.data.recording import BagRecording

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened", "BagRecording", "NwmRecording", "FolderRecording")


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
) -> BagRecording | NwmRecording | FolderRecording:
    """Open a recording at the protocol rate.

    Args:
        path: rosbag2 folder, metadata.yaml, .mcap, .db3, ROS 1 .bag, a folder with images and traj_data.pkl, or one of
            TUM RGB-D, KITTI odometry or EuRoC.
        rate_hz: frames per second; a slower bag keeps all frames and reports its own rate; None keeps every frame.
        image_topic: name instead of the automatic choice; of a folder, that of the camera's.
        depth_topic: the same for depth; "none" leaves depth out.
        info_topic: the same for the calibration, a file for a folder; "none" leaves it out.
        pose_topic: the same for the poses; a trajectory file for a folder.
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
        named = {"image": image_topic, "depth": depth_topic, "info": info_topic, "pose": pose_topic}
        return _noted(_open_folder(target, named, {"rate_hz": rate_hz, **settings}), quiet)
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


def _open_folder(path: Path, named: dict[str, str | None], settings: dict[str, Any]) -> FolderRecording:
    """Open a folder in a published layout; ``named`` are the fields of FolderChoice."""
    from come_nav.data.folders.drive import FolderChoice
    from come_nav.data.folders.layouts import is_folder_drive, read_folder_drive
    from come_nav.data.folders.recording import open_folder_drive

    if not is_folder_drive(path):
        raise DataError(
            f"{path}: neither a bag (metadata.yaml, .mcap, .db3, .bag), an NWM folder (traj_data.pkl), nor a folder of "
            "TUM RGB-D (rgb.txt), KITTI odometry (sequences/NN) or EuRoC (mav0)"
        )
    choice = FolderChoice(**named, depth_unit_m=settings.get("depth_scale_m"))
    return open_folder_drive(read_folder_drive(path, choice), settings)


def _noted(recording: Opened, quiet: bool) -> Opened:
    """Log what was repaired and left out, so that nobody has to ask for it."""
    for note in () if quiet else recording.report.warnings:
        logger.warning("%s: %s", recording.name, note)
    return recording
