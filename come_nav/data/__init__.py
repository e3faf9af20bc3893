"""Bytes on disk to frames and odometry: bags, trajectory folders and files, time association, training windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from come_nav.data.opening import open_recording

__all__ = ["open_recording"]


def __getattr__(name: str) -> Any:
    if name == "open_recording":  # lazy: the readers behind it load OpenCV and rosbags
        from come_nav.data.opening import open_recording

        return open_recording
    raise AttributeError(f"module 'come_nav.data' has no attribute '{name}'")
