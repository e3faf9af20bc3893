"""Which frames odometry says that it is of: poses of another frame would be believed silently."""

from __future__ import annotations

from typing import Any

from come_nav.core.errors import DataError
from come_nav.data.bags.transforms import BASE_FRAMES
from come_nav.data.cameras.frames import frame_matches


def check_odometry_frame(message: Any, odom_frame: str) -> None:
    """Raise DataError where odometry's frame_id is not ``odom_frame``; one that is empty is believed."""
    frame = str(message.header.frame_id).lstrip("/")
    if frame and frame != odom_frame.lstrip("/"):
        raise DataError(f"odometry is in frame '{frame}', expected is '{odom_frame}'; set odom_frame to '{frame}'")


def is_base(child: str, base_frame: str) -> bool:
    """Whether odometry's child_frame_id is the robot's base; one that is empty is believed."""
    return not child or child == base_frame.lstrip("/") or any(frame_matches(child, known) for known in BASE_FRAMES)


def check_base(message: Any, base_frame: str) -> None:
    """Raise DataError where odometry is of another body than the base, for whoever has no tf to carry it over."""
    child = str(message.child_frame_id).lstrip("/")
    if not is_base(child, base_frame):
        raise DataError(
            f"odometry is of frame '{child}', not of the base; remap odom to the base's odometry, or set base_frame to "
            f"'{child}' if that is the base"
        )
