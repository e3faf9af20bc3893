"""What a folder of images and poses holds, whatever its layout: the readers fill this, the recording is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import Trajectory
from come_nav.data.cameras.lens import Lens
from come_nav.data.timing.matching import StampedTopic
from come_nav.data.timing.stamps import clean_order, seconds_from_ns

# Pose of a camera's optical frame in its body frame: x forward, y left, z up (REP 103).
T_BODY_OPTICAL: NDArray[np.float64] = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))


@dataclass(frozen=True)
class FolderChoice:
    """What the user named instead of what is found; the same flags as of a bag's topics.

    Attributes:
        image: camera folder, e.g. ``image_0`` or ``cam1``.
        depth: "none" leaves depth out.
        info: calibration file (CameraInfo as YAML), "none" leaves the calibration out.
        pose: trajectory file.
        depth_unit_m: metres of a unit of depth.
    """

    image: str | None = None
    depth: str | None = None
    info: str | None = None
    pose: str | None = None
    depth_unit_m: float | None = None


@dataclass(frozen=True)
class ImageStream:
    """Image files in the order of their stamps: ``stamps_ns`` (N,) strictly increasing, ``files`` (N,)."""

    name: str
    stamps_ns: NDArray[np.int64]
    files: tuple[Path, ...]

    @property
    def topic(self) -> StampedTopic:
        """The same as stamps that are matched; ``log_ns`` is the index of the file."""
        return StampedTopic(self.name, self.stamps_ns, np.arange(len(self.files), dtype=np.int64))


@dataclass(frozen=True)
class PoseFile:
    """Poses of base_link: ``stamps_ns`` (P,) increasing, ``T_odom_base`` (P, 4, 4); ``name`` of the file."""

    name: str
    stamps_ns: NDArray[np.int64]
    T_odom_base: NDArray[np.float64]

    def trajectory(self) -> Trajectory:
        """Return all poses."""
        return Trajectory(seconds_from_ns(self.stamps_ns), self.T_odom_base)


@dataclass(frozen=True)
class FolderDrive:
    """One drive in a folder.

    Attributes:
        layout: name of the layout, e.g. ``TUM RGB-D``.
        path: its folder.
        name: short name for tables.
        images: colour or grey images.
        poses: of base_link.
        depth: depth images in the pixels of ``images``, None without any.
        depth_unit_m: metres of a unit of depth.
        lens: of the images, None where it is not known.
        calibration: where the lens is from.
        T_base_camera: (4, 4) pose of the optical frame in base_link.
        tolerances: fields of ScanSettings that the layout's own tools use.
        notes: what was assumed, turned and left out, one line each.
    """

    layout: str
    path: Path
    name: str
    images: ImageStream
    poses: PoseFile
    T_base_camera: NDArray[np.float64]
    lens: Lens | None = None
    calibration: str | None = None
    depth: ImageStream | None = None
    depth_unit_m: float = 0.001
    tolerances: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def roles(self) -> dict[str, str]:
        """Role -> name of the folder or file."""
        depth = None if self.depth is None else self.depth.name
        found = {"image": self.images.name, "pose": self.poses.name, "depth": depth, "info": self.calibration}
        return {role: name for role, name in found.items() if name is not None}

    @property
    def streams(self) -> dict[str, tuple[str, NDArray[np.int64]]]:
        """Name of a list or file -> what it holds, and its stamps in ns."""
        depth = {} if self.depth is None else {self.depth.name: ("depth", self.depth.stamps_ns)}
        images = {self.images.name: ("images", self.images.stamps_ns)}
        return images | depth | {self.poses.name: ("poses of base_link", self.poses.stamps_ns)}


def image_stream(name: str, rows: Iterable[tuple[int, Path]], notes: list[str]) -> ImageStream:
    """Return the files that are there, in the order of their stamps.

    Args:
        name: of the list or folder, for messages.
        rows: stamp in ns and file.
        notes: what was dropped is appended.

    Raises:
        DataError: none of the files is there.
    """
    listed = list(rows)
    there = [(stamp_ns, file) for stamp_ns, file in listed if _is_file(file)]
    missing = [file for _, file in listed if not _is_file(file)] if len(there) < len(listed) else []
    if not there:
        first = f"; the first would be {missing[0]}" if missing else ""
        raise DataError(f"{name}: none of its {len(listed)} images is there{first}")
    if missing:
        notes.append(f"{name}: {len(missing)} of {len(listed)} images are missing, the first is {missing[0]}")
    stamps_ns = np.array([stamp_ns for stamp_ns, _ in there], np.int64)
    order = clean_order(stamps_ns, name, notes)
    return ImageStream(name, stamps_ns[order], tuple(there[index][1] for index in order))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte in it
        return False
