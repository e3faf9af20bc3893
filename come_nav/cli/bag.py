"""``come-nav bag info``: what a bag or folder holds, what come_nav would use of it, and whether that fits together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, format_table, print_json
from come_nav.cli.recording_flags import add_recording_flags, open_from_flags
from come_nav.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from come_nav.core.protocols import Recording
    from come_nav.data.bags.bag import Bag
    from come_nav.data.folders.drive import FolderDrive
    from come_nav.data.recording import BagRecording

EPILOG = """examples:
  come-nav bag info my_bag                                  topics, rates, gaps, what come_nav would use
  come-nav bag info my_bag --image sheet.png                and a contact sheet of its frames
  come-nav bag info run.bag --pose-topic /amcl_pose --json  ROS 1 works too; one JSON document
  come-nav bag info rgbd_dataset_freiburg3_long_office_household  folders of TUM RGB-D, KITTI odometry and EuRoC, too
"""
IMAGES = 12
IMAGE_HEIGHT_PX = 120
DEPTH_RANGE_M = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    actions = parser.add_subparsers(title="actions", dest="action", metavar="info", required=True)
    info = actions.add_parser("info", help="describe a bag", description="Describe a bag and how it would be used.")
    info.add_argument(
        "path",
        type=Path,
        help="rosbag2 folder, metadata.yaml, .mcap, .db3, ROS 1 .bag, or a folder of TUM, KITTI, EuRoC",
    )
    info.add_argument(
        "--image", "--picture", type=Path, metavar="PNG", help="write a contact sheet of colour and depth"
    )
    add_recording_flags(info)
    add_json_flag(info)


def run(args: argparse.Namespace) -> int:
    """Describe the bag; if come_nav cannot use it, say why after the table and return 1."""
    document = _describe(args)
    problem: DataError | None = None
    try:
        with open_from_flags(args.path, args, quiet=True) as recording:
            document["recording"] = describe_recording(recording)
            if args.image is not None:
                _draw(args.image, recording)
    except DataError as error:
        problem = error
        document["problem"] = str(error)
    if args.json:
        print_json(document)
        return 1 if problem is not None else 0
    _print_bag(document)
    if problem is not None:
        raise problem
    _print_recording(document["recording"])
    return 0


def _describe(args: argparse.Namespace) -> dict[str, Any]:
    """Return what is there, before anything of it is used."""
    from come_nav.data.bags.bag import open_bag
    from come_nav.data.bags.storage import is_bag
    from come_nav.data.folders.drive import FolderChoice
    from come_nav.data.folders.layouts import is_folder_drive, read_folder_drive

    if not is_bag(args.path) and is_folder_drive(args.path):
        choice = FolderChoice(args.image_topic, args.depth_topic, args.info_topic, args.pose_topic)
        return describe_folder(read_folder_drive(args.path, choice))
    with open_bag(args.path, recover=args.recover) as bag:
        return describe_bag(bag)


def describe_folder(drive: FolderDrive) -> dict[str, Any]:
    """Return the same table as :func:`describe_bag` of a folder's lists, by the stamps in them."""
    streams = drive.streams
    first_ns = min(int(stamps_ns[0]) for _, stamps_ns in streams.values())
    last_ns = max(int(stamps_ns[-1]) for _, stamps_ns in streams.values())
    return {
        "path": str(drive.path),
        "storage": drive.layout,
        "start_s": first_ns / 1e9,
        "duration_s": (last_ns - first_ns) / 1e9,
        "messages": sum(len(stamps_ns) for _, stamps_ns in streams.values()),
        "custom_data": {},
        "topics": [_stream_facts(name, kind, stamps_ns) for name, (kind, stamps_ns) in streams.items()],
    }


def _stream_facts(name: str, kind: str, stamps_ns: NDArray[np.int64]) -> dict[str, Any]:
    import numpy as np

    steps_s = np.diff(stamps_ns) * 1e-9
    rate_hz = float(1.0 / np.median(steps_s)) if len(steps_s) and np.median(steps_s) > 0 else None
    gap_s = float(steps_s.max()) if len(steps_s) else None
    return {"name": name, "type": kind, "count": len(stamps_ns), "rate_hz": rate_hz, "largest_gap_s": gap_s}


def describe_bag(bag: Bag) -> dict[str, Any]:
    """Return the topic table with rates and largest gaps, read from the recording times of all messages."""
    import numpy as np
    from tqdm import tqdm

    times: dict[str, list[int]] = {name: [] for name in bag.topics}
    progress = tqdm(bag.messages(), total=bag.message_count, desc="reading", unit="msg", leave=False, disable=None)
    for message in progress:
        times[message.topic].append(message.log_ns)
    topics = [
        {**_stream_facts(name, topic.type, np.array(times[name], np.int64)), "count": topic.count}
        for name, topic in bag.topics.items()
    ]
    return {
        "path": str(bag.path),
        "storage": bag.storage,
        "start_s": bag.start_ns / 1e9,
        "duration_s": bag.duration_s,
        "messages": bag.message_count,
        "custom_data": bag.custom_data,
        "topics": topics,
    }


def describe_recording(recording: Any) -> dict[str, Any]:
    """Return what come_nav would use: topics, frames, rate, match, gaps, path, camera and depth."""
    import numpy as np

    from come_nav.data.timing.motion import driven_m
    from come_nav.data.timing.sideways import sideways_motion

    report = recording.report
    first = recording.frame(0)
    depth_known = None if first.depth_m is None else float(np.isfinite(first.depth_m).mean())
    camera = recording.intrinsics
    motion = sideways_motion(recording.stamps_s, recording.poses_xyyaw, report.pose_jumps)
    return {
        "topics": getattr(report, "topics", {}),
        "frames": len(recording),
        "rate_hz": recording.rate_hz,
        "source_rate_hz": getattr(report, "source_rate_hz", recording.rate_hz),
        "missed_ticks": getattr(report, "missed_ticks", 0),
        "association": report.association.to_mapping() if hasattr(report, "association") else None,
        "gaps": [{"after_frame": gap.index, "duration_s": gap.duration_s} for gap in recording.gaps],
        "path_length_m": driven_m(recording.T_odom_base, report.pose_jumps),
        "kinematics": motion.kinematics,
        "sideways_share": motion.share,
        "image_size": [first.rgb.shape[1], first.rgb.shape[0]],
        "camera": None if camera is None else {name: getattr(camera, name) for name in ("fx", "fy", "cx", "cy")},
        "T_base_camera": recording.T_base_camera,
        "from_bag": hasattr(recording, "bag"),
        "depth_known_in_first_frame": depth_known,
        "warnings": list(report.warnings),
    }


def _print_bag(document: dict[str, Any]) -> None:
    print(
        f"{document['path']}: {document['storage']}, {document['duration_s']:.1f} s, {document['messages']} messages\n"
    )
    rows = [
        [
            topic["name"],
            topic["type"],
            str(topic["count"]),
            "-" if topic["rate_hz"] is None else f"{topic['rate_hz']:.2f}",
            "-" if topic["largest_gap_s"] is None else f"{topic['largest_gap_s']:.3f}",
        ]
        for topic in document["topics"]
    ]
    print(format_table(["topic", "type", "count", "Hz", "largest gap s"], rows))


def _print_recording(facts: dict[str, Any]) -> None:
    match = facts["association"]
    camera = facts["camera"]
    known = facts["depth_known_in_first_frame"]
    print("\ncome_nav would use")
    for role, name in facts["topics"].items():
        print(f"  {role:<7} {name}")
    width, height = facts["image_size"]
    print(f"  frames  {facts['frames']} of {width}x{height} at {facts['rate_hz']:.2f} Hz, {len(facts['gaps'])} gaps")
    print(f"  path    {facts['path_length_m']:.2f} m")
    print(f"  moves   {facts['kinematics']} ({100 * facts['sideways_share']:.0f} % of the way is sideways)")
    if match is not None:
        print(
            f"  match   {match['matched']} of {match['count_a']} images have a pose, median difference "
            f"{1e3 * match['median_difference_s']:.1f} ms, largest gap {match['largest_gap_s']:.3f} s, "
            f"best offset {match['best_offset_s']:+.3f} s"
        )
    print("  camera  " + ("not calibrated" if camera is None else f"fx {camera['fx']:.1f} fy {camera['fy']:.1f}"))
    known_from = "/tf" if facts["from_bag"] else "the calibration"
    extrinsics = (
        "unknown (no transform to the camera)" if facts["T_base_camera"] is None else f"known from {known_from}"
    )
    print(f"  extrinsics   {extrinsics}")
    print("  depth   " + ("none" if known is None else f"{100 * known:.0f} % of the first frame's pixels"))
    for warning in facts["warnings"]:
        print(f"  note    {warning}")


def _draw(path: Path, recording: Recording | BagRecording) -> None:
    """Write a contact sheet: frames spread over the recording, depth below each (near dark, unknown white)."""
    import numpy as np

    from come_nav.core.files import atomic_path
    from come_nav.viz.images import contact_sheet, enlarge

    chosen = np.unique(np.linspace(0, len(recording) - 1, IMAGES).astype(int))
    images = []
    for index in chosen:
        frame = recording.frame(int(index))
        column = [enlarge(frame.rgb, IMAGE_HEIGHT_PX)]
        if frame.depth_m is not None:
            grey = np.nan_to_num(np.clip(frame.depth_m / DEPTH_RANGE_M, 0, 1) * 230, nan=255).astype(np.uint8)
            column.append(enlarge(np.repeat(grey[..., None], 3, axis=2), IMAGE_HEIGHT_PX))
        images.append(np.concatenate(column))
    with atomic_path(path) as temporary:
        temporary.write_bytes(contact_sheet(images, columns=4))
