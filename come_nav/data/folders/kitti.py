"""Folders of the KITTI odometry benchmark: sequences/NN/{image_2, times.txt, calib.txt}, poses/NN.txt (Geiger 2012).

Poses are those of camera 0 (grey, left; z forward, y down) in its first frame; image_2 is the left colour camera.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError, suggest
from come_nav.core.geometry import se3
from come_nav.data.cameras.frames import level_world
from come_nav.data.folders.calibration import Calibration, lens_of
from come_nav.data.folders.drive import T_BODY_OPTICAL, FolderChoice, FolderDrive, ImageStream, PoseFile, image_stream
from come_nav.data.folders.tables import read_times, read_track
from come_nav.data.trajectory_text import read_text

LAYOUT = "KITTI odometry folder"
CAMERAS = ("image_2", "image_3", "image_0", "image_1")
TIMES, CALIBRATION = "times.txt", "calib.txt"
SUFFIXES = (".png", ".jpg", ".jpeg")


def is_kitti(folder: Path) -> bool:
    """Tell whether a folder is a sequence, or holds sequences."""
    return _is_sequence(folder) or bool(_sequences(folder))


def read_kitti(folder: Path, choice: FolderChoice) -> FolderDrive:
    """Read times, poses and calibration of a sequence; raise DataError naming the file and line that is wrong."""
    sequence = _sequence_of(folder)
    notes: list[str] = []
    camera = _camera_of(sequence, choice.image)
    times_ns = read_times(sequence / TIMES)
    images = _images(sequence / camera, times_ns, notes)
    poses = _poses_file(sequence, choice.pose)
    stamps_ns, track = read_track(poses, times_ns)
    if len(track) < len(times_ns):
        notes.append(f"{poses.name}: {len(track)} poses for {len(times_ns)} images; the images without are not used")
    notes.append(f"{poses.name}: poses are of camera 0; base_link is its body frame, x forward and z up")
    T_odom_base = level_world(track.T_world_body @ se3.inverse(T_BODY_OPTICAL), poses.name, notes)
    found, T_camera0_camera = _calibration(sequence, camera, notes)
    lens, calibration = lens_of(found, CALIBRATION, images, sequence, choice, notes)
    return FolderDrive(
        LAYOUT,
        sequence,
        f"kitti_{sequence.name}",
        images,
        PoseFile(poses.name, stamps_ns, T_odom_base),
        T_BODY_OPTICAL @ T_camera0_camera,
        lens,
        calibration,
        notes=tuple(notes),
    )


def _sequences(folder: Path) -> list[Path]:
    """Return the sequences that a root, or its folder ``sequences``, holds."""
    inside = folder / "sequences" if (folder / "sequences").is_dir() else folder
    if inside.name != "sequences":
        return []
    return sorted(item for item in inside.iterdir() if _is_sequence(item))


def _is_sequence(folder: Path) -> bool:
    return (folder / TIMES).is_file() and any((folder / name).is_dir() for name in CAMERAS)


def _sequence_of(folder: Path) -> Path:
    if _is_sequence(folder):
        return folder
    found = _sequences(folder)
    if len(found) != 1:
        names = ", ".join(item.name for item in found)
        raise DataError(f"{folder}: holds the sequences {names}; name one, e.g. {found[0]}")
    return found[0]


def _camera_of(sequence: Path, named: str | None) -> str:
    there = [name for name in CAMERAS if (sequence / name).is_dir()]
    if named is None:
        return there[0]
    if named not in there:
        raise DataError(f"{sequence}: has no camera '{named}' (--image-topic){suggest(named, there)}")
    return named


def _images(folder: Path, times_ns: NDArray[np.int64], notes: list[str]) -> ImageStream:
    """Return the images NNNNNN.png with the time of the line NNNNNN."""
    by_number: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SUFFIXES and file.stem.isascii() and file.stem.isdigit() and len(file.stem) < 10:
            by_number.setdefault(int(file.stem), file)
    if not by_number:
        raise DataError(f"{folder}: holds no image named by its number, as 000000.png")
    beyond = sum(number >= len(times_ns) for number in by_number)
    if beyond:
        notes.append(f"{folder.name}: {beyond} images have no line in {TIMES} and are not used")
    missing = len(times_ns) - (len(by_number) - beyond)
    if missing:
        notes.append(f"{folder.name}: {missing} of the {len(times_ns)} images of {TIMES} are missing")
    rows = ((int(times_ns[number]), file) for number, file in by_number.items() if number < len(times_ns))
    return image_stream(folder.name, rows, notes)


def _poses_file(sequence: Path, named: str | None) -> Path:
    if named is not None:
        return Path(named)
    places = (sequence.parent.parent / "poses" / f"{sequence.name}.txt", sequence / "poses.txt")
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(f"{sequence}: no poses: {places[0]} is missing; put it there, or name a file with --pose-topic")
    return found


def _calibration(sequence: Path, camera: str, notes: list[str]) -> tuple[Calibration | None, NDArray[np.float64]]:
    """Return calibration and pose (4, 4) in camera 0 of a rectified camera, x = K (X + t) in camera 0's axes."""
    path = sequence / CALIBRATION
    if not path.is_file():
        return None, np.eye(4)
    key = f"P{camera[-1]}"
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, _, text = line.partition(":")
        if name.strip() != key:
            continue
        P = _projection(text)
        if P is None:
            raise DataError(f"{path}: line {number}: {key} must be the 12 numbers of a 3x4 matrix, got '{text[:60]}'")
        offset = np.linalg.solve(P[:, :3], P[:, 3])
        return Calibration(P[:, :3].reshape(-1)), se3.make_transform(np.eye(3), -offset)
    notes.append(f"{path.name}: has no {key}, so {camera} is not calibrated")
    return None, np.eye(4)


def _projection(text: str) -> NDArray[np.float64] | None:
    """Return P (3, 4), None where the text is no matrix of a camera."""
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        return None
    if len(values) != 12 or not np.isfinite(values).all():
        return None
    P = values.reshape(3, 4)
    return P if P[0, 0] > 0 and P[1, 1] > 0 and np.allclose(P[2, :3], (0, 0, 1)) and P[1, 0] == 0 else None
