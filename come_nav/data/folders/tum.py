"""Folders of the TUM RGB-D benchmark: rgb.txt, depth.txt, groundtruth.txt (Sturm et al., IROS 2012).

Poses are those of the colour camera's optical frame in a world with z up; depth is registered to colour.
"""

from __future__ import annotations

import re
from pathlib import Path

from come_nav.core.geometry import se3
from come_nav.data.bags.topics import NO_TOPIC
from come_nav.data.cameras.frames import level_world
from come_nav.data.folders.calibration import Calibration, lens_of
from come_nav.data.folders.drive import T_BODY_OPTICAL, FolderChoice, FolderDrive, ImageStream, PoseFile, image_stream
from come_nav.data.folders.tables import read_file_list, read_track
from come_nav.data.trajectory_text import read_text

LAYOUT = "TUM RGB-D folder"
COLOUR_LIST, DEPTH_LIST, POSES = "rgb.txt", "depth.txt", "groundtruth.txt"
DEPTH_UNIT_M = 1.0 / 5000.0
# fx, fy, cx, cy px and k1, k2, p1, p2, k3, as published for the colour cameras (640x480), and the driver's default
PUBLISHED = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), ()),
}
ROS_DEFAULT = ((525.0, 525.0, 319.5, 239.5), ())
SEQUENCE = re.compile(r"(?:freiburg|(?<![a-z])fr)_?([123])(?![0-9])", re.IGNORECASE)
HEADING_LINES = 5
TOLERANCES = {"max_difference_s": 0.02, "max_depth_difference_s": 0.02, "max_pose_gap_s": 0.2}  # associate.py: 0.02 s


def is_tum(folder: Path) -> bool:
    """Tell whether a folder has a list of colour images."""
    return (folder / COLOUR_LIST).is_file()


def read_tum(folder: Path, choice: FolderChoice) -> FolderDrive:
    """Read the lists, poses and calibration; raise DataError naming the file and line that is wrong."""
    notes: list[str] = []
    images = _stream(folder, choice.image or COLOUR_LIST, notes)
    depth_list = choice.depth or DEPTH_LIST
    depth = None
    if choice.depth != NO_TOPIC and (choice.depth is not None or (folder / DEPTH_LIST).is_file()):
        depth = _stream(folder, depth_list, notes)
    poses = Path(choice.pose) if choice.pose is not None else folder / POSES
    stamps_ns, track = read_track(poses)
    notes.append(f"{poses.name}: poses are of the camera; base_link is its body frame, x forward and z up")
    T_odom_base = level_world(track.T_world_body @ se3.inverse(T_BODY_OPTICAL), poses.name, notes)
    found, source = published_calibration(folder)
    lens, calibration = lens_of(found, source, images, folder, choice, notes)
    if calibration == source and source == "ROS default":
        notes.append(
            f"{folder.name}: no sequence of freiburg1, 2 or 3; the driver's default calibration (fx 525) is assumed"
        )
    return FolderDrive(
        LAYOUT,
        folder,
        folder.name,
        images,
        PoseFile(poses.name, stamps_ns, T_odom_base),
        T_BODY_OPTICAL,
        lens,
        calibration,
        depth,
        choice.depth_unit_m or DEPTH_UNIT_M,
        TOLERANCES,
        tuple(notes),
    )


def published_calibration(folder: Path) -> tuple[Calibration, str]:
    """Return the calibration of the sequence that the folder's name or the lists' headings tell, and its name."""
    heading = "\n".join(read_text(folder / COLOUR_LIST).splitlines()[:HEADING_LINES])
    comments = " ".join(line for line in heading.splitlines() if line.startswith("#"))
    found = SEQUENCE.search(folder.name) or SEQUENCE.search(comments)
    source = f"freiburg{found.group(1)}" if found is not None else "ROS default"
    intrinsics, distortion = PUBLISHED.get(source, ROS_DEFAULT)
    return Calibration.of_pinhole(intrinsics, distortion, width=640, height=480), source


def _stream(folder: Path, name: str, notes: list[str]) -> ImageStream:
    listed = read_file_list(folder / name, None, 9)
    return image_stream(name, ((stamp_ns, folder / file) for stamp_ns, file in listed), notes)
