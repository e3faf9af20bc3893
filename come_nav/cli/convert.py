"""``come-nav convert``: recordings and trajectories from one format to another."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, print_json
from come_nav.cli.recording_flags import add_recording_flags, open_from_flags, parse_size
from come_nav.core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from come_nav.core.protocols import Recording
    from come_nav.core.types import Trajectory

TARGETS = ("nwm", "nwm-dataset", "tum", "kitti", "mcap", "sqlite3")
EPILOG = """examples:
  come-nav convert my_bag trajectory_folder --to nwm --size 320x240    for training NWM
  come-nav convert my_bag nwm_data --to nwm-dataset --dataset recon    adds it to a data set with evaluation windows
  come-nav convert my_bag poses.txt --to tum                           all poses of the bag, as evo reads them
  come-nav convert run.bag run_ros2 --to mcap --compression chunk      ROS 1 to ROS 2
  come-nav convert killed.mcap saved --to mcap --rate all --recover    what is whole of a cut-off recording
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("input", type=Path, help="bag, folder (NWM, TUM RGB-D, KITTI, EuRoC), or trajectory file")
    parser.add_argument("output", type=Path, help="folder (nwm, mcap, sqlite3) or file (tum, kitti) to write")
    parser.add_argument(
        "--to", choices=TARGETS, help="format of the output (default: tum for .txt and .tum, else mcap)"
    )
    parser.add_argument("--size", metavar="WxH", help="resize images, e.g. 320x240")
    parser.add_argument("--compression", default="none", help="of bags: none, chunk (mcap), file or message (zstd)")
    parser.add_argument("--image", default="raw", help="images in bags: raw or jpeg")
    parser.add_argument("--depth", default="16UC1", help="depth in bags: 16UC1 (mm) or 32FC1 (m)")
    parser.add_argument("--ground-truth", type=Path, metavar="FILE", help="trajectory to add as /ground_truth/odom")
    parser.add_argument(
        "--trajectory-format", choices=("tum", "kitti", "euroc", "bag"), help="of the trajectory file that is read"
    )
    parser.add_argument("--trajectory-unit", choices=("s", "ms", "us", "ns"), help="of its stamps")
    parser.add_argument("--overwrite", action="store_true", help="replace an output of the same kind")
    parser.add_argument("--dataset", default="recon", metavar="NAME", help="of --to nwm-dataset (default recon)")
    add_recording_flags(parser)
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Convert and print what was written."""
    target = args.to or ("tum" if args.output.suffix in (".txt", ".tum") else "mcap")
    if target == "nwm-dataset":
        return _write_dataset(args)
    written = _write_trajectory(args, target) if target in ("tum", "kitti") else _write_recording(args, target)
    if args.json:
        print_json(written)
    else:
        print(f"{written['output']}: {written['count']} {written['what']} as {written['format']}")
    return 0


def _write_dataset(args: argparse.Namespace) -> int:
    from come_nav.cli.nwm_writer import convert_dataset, print_dataset

    written = convert_dataset(args)
    if args.json:
        print_json(written)
    else:
        print_dataset(written)
    return 0


def _write_trajectory(args: argparse.Namespace, target: str) -> dict[str, Any]:
    from come_nav.data.trajectories import write_kitti, write_tum

    if args.output.is_dir():
        raise StorageError(f"{args.output}: is a folder, but --to {target} writes a file")
    if args.output.exists() and not args.overwrite:
        raise StorageError(f"{args.output}: exists already; choose another name or replace it with --overwrite")
    trajectory = _trajectory(args)
    (write_tum if target == "tum" else write_kitti)(args.output, trajectory)
    return {"output": str(args.output), "format": target, "count": len(trajectory), "what": "poses"}


def _trajectory(args: argparse.Namespace) -> Trajectory:
    from come_nav.data.folders.drive import FolderChoice
    from come_nav.data.folders.layouts import is_folder_drive, read_folder_drive
    from come_nav.data.trajectories import read_trajectory, recording_trajectory

    if (args.input / "traj_data.pkl").is_file():
        return recording_trajectory(open_from_flags(args.input, args))
    unused = {"--start": args.start, "--stop": args.stop, "--time-offset": args.time_offset or None}
    if given := [flag for flag, value in unused.items() if value is not None]:
        raise ConfigError(
            f"{', '.join(given)}: poses are written whole, as they were recorded; leave it out, or convert to a bag "
            "with it first and that bag to poses"
        )
    if is_folder_drive(args.input):
        drive = read_folder_drive(args.input, FolderChoice(image=args.image_topic, pose=args.pose_topic))
        for note in drive.notes:
            print(f"note: {note}", file=sys.stderr)
        return drive.poses.trajectory()
    return read_trajectory(args.input, topic=args.pose_topic, **_trajectory_settings(args))


def _trajectory_settings(args: argparse.Namespace) -> dict[str, Any]:
    flags = ("--trajectory-format", "--trajectory-unit")
    return {"format": args.trajectory_format, "unit": args.trajectory_unit, "settings": flags}


def _write_recording(args: argparse.Namespace, target: str) -> dict[str, Any]:
    from tqdm import tqdm

    from come_nav.data.bags.writer import BagFormat, write_bag
    from come_nav.data.nwm.folder import write_nwm_folder
    from come_nav.data.resized import ResizedRecording
    from come_nav.data.trajectories import read_trajectory

    storage = "sqlite3" if target == "sqlite3" else "mcap"
    BagFormat(storage, args.compression, args.image, args.depth)  # a typo shows before a long read
    size = parse_size(args.size)
    truth = None if args.ground_truth is None else read_trajectory(args.ground_truth, **_trajectory_settings(args))
    with open_from_flags(args.input, args, quiet=True) as source:
        recording: Recording = source if size is None else ResizedRecording(source, *size)
        with tqdm(total=len(recording), desc="converting", unit="frame", disable=None) as bar:
            if target == "nwm":
                write_nwm_folder(args.output, recording, overwrite=args.overwrite, progress=bar.update)
            else:
                write_bag(
                    args.output,
                    recording,
                    storage,
                    args.compression,
                    image=args.image,
                    depth=args.depth,
                    ground_truth=truth,
                    overwrite=args.overwrite,
                    progress=bar.update,
                )
        for warning in source.report.warnings:
            print(f"note: {warning}", file=sys.stderr)
        return {"output": str(args.output), "format": target, "count": len(recording), "what": "frames"}
