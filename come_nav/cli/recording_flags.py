"""Flags of the verbs that open a recording: which topics, which part, how stamps are matched."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from come_nav.data.folders.recording import FolderRecording
    from come_nav.data.nwm.folder import NwmRecording
    from come_nav.data.recording import BagRecording


def add_recording_flags(parser: argparse.ArgumentParser) -> None:
    """Add topic names, the part to read, time offset and recovery."""
    group = parser.add_argument_group("recording")
    group.add_argument(
        "--image-topic",
        metavar="NAME",
        help="colour camera (default: found by type and name); of a folder, image_0 or cam1",
    )
    group.add_argument("--depth-topic", metavar="NAME", help="depth aligned to colour, or 'none'")
    group.add_argument(
        "--info-topic", metavar="NAME", help="CameraInfo of the colour camera, or 'none'; a YAML file for a folder"
    )
    group.add_argument(
        "--pose-topic", metavar="NAME", help="of poses or /tf (default: found); a trajectory file for a folder"
    )
    group.add_argument("--rate", default="4", metavar="HZ", help="frames per second, or 'all' (default: 4)")
    group.add_argument("--start", type=float, metavar="S", help="begin S seconds after the first message")
    group.add_argument("--stop", type=float, metavar="S", help="end S seconds after the first message")
    group.add_argument("--time-offset", type=float, default=0.0, metavar="S", help="added to the stamps of poses")
    group.add_argument("--max-difference", type=float, metavar="S", help="image to pose, at most (default: 0.05)")
    group.add_argument("--odom-frame", metavar="NAME", help="world frame on /tf (default: odom, map or world)")
    group.add_argument("--base-frame", metavar="NAME", help="the robot's frame (default: base_link, base_footprint)")
    group.add_argument("--camera-frame", metavar="NAME", help="optical frame of the images (default: their header's)")
    group.add_argument(
        "--depth-scale", type=float, metavar="M", help="metres of a unit of depth (default: 0.001; TUM: 0.0002)"
    )
    group.add_argument("--recover", action="store_true", help="read an mcap that was cut off, as far as it is whole")


def recording_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Return the keyword arguments of ``open_recording`` for these flags."""
    settings: dict[str, Any] = {
        "rate_hz": parse_rate(args.rate),
        "recover": args.recover,
        "time_offset_s": args.time_offset,
        **{name: getattr(args, name) for name in ("image_topic", "depth_topic", "info_topic", "pose_topic")},
    }
    optional = {"start_s": args.start, "stop_s": args.stop, "max_difference_s": args.max_difference}
    optional |= {name: getattr(args, name) for name in ("odom_frame", "base_frame", "camera_frame")}
    optional["depth_scale_m"] = args.depth_scale
    return settings | {name: value for name, value in optional.items() if value is not None}


def open_from_flags(
    path: Path, args: argparse.Namespace, quiet: bool = False
) -> BagRecording | NwmRecording | FolderRecording:
    """Open the recording that the flags describe; ``quiet`` leaves its notes to the caller."""
    from come_nav.data import open_recording

    return open_recording(path, quiet=quiet, **recording_settings(args))


def parse_rate(text: str) -> float | None:
    """Return frames per second, None for 'all'; raise ConfigError for anything else."""
    if text == "all":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--rate must be a number of frames per second or 'all', got '{text}'") from None


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (width, height) of ``320x240``; raise ConfigError for anything else."""
    if text is None:
        return None
    words = text.lower().split("x")
    if len(words) != 2 or not all(word.isdigit() and int(word) > 0 for word in words):
        raise ConfigError(f"--size must be WIDTHxHEIGHT in pixels, e.g. 320x240, got '{text}'")
    return int(words[0]), int(words[1])
