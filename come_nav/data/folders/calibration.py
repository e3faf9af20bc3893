"""Calibrations in files: CameraInfo as YAML (ROS's camera_calibration), and what layouts write themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ComeNavError, DataError
from come_nav.core.settings import read_yaml
from come_nav.data.bags.calibration import read_lens
from come_nav.data.bags.topics import NO_TOPIC
from come_nav.data.cameras.lens import Lens
from come_nav.data.folders.drive import FolderChoice, ImageStream
from come_nav.data.image_files import file_size_px

SIDECAR = "camera_info.yaml"
TRIED_IMAGES = 20  # of which one must be whole to tell the size

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class NoRoi:
    """A region of interest that is the whole image."""

    width: int = 0
    height: int = 0
    x_offset: int = 0
    y_offset: int = 0


@dataclass(frozen=True)
class Calibration:
    """The fields of sensor_msgs/CameraInfo that :func:`come_nav.data.bags.calibration.read_lens` reads.

    Attributes:
        k: (9,) in OpenCV's convention: integer coordinates at pixel centres.
        d: distortion coefficients.
        distortion_model: their model.
        width, height: of the images that it was made with; 0 where that is not told.
    """

    k: Matrix
    d: Matrix = field(default_factory=lambda: np.zeros(0))
    distortion_model: str = "plumb_bob"
    width: int = 0
    height: int = 0
    p: Matrix = field(default_factory=lambda: np.zeros(12))
    roi: NoRoi = field(default_factory=NoRoi)

    @classmethod
    def of_pinhole(cls, intrinsics: Sequence[float], distortion: Sequence[float] = (), **fields: Any) -> Calibration:
        """Return the calibration of (fx, fy, cx, cy) and coefficients."""
        fx, fy, cx, cy = intrinsics
        return cls(np.array([fx, 0, cx, 0, fy, cy, 0, 0, 1.0]), np.array(distortion, float), **fields)


def lens_of(
    found: Calibration | None, source: str, images: ImageStream, folder: Path, choice: FolderChoice, notes: list[str]
) -> tuple[Lens | None, str | None]:
    """Return the lens and where it is from: the file that the user named, the one beside the data, or ``found``.

    Raises:
        DataError: a calibration file that is none, or for images of another shape.
    """
    if choice.info == NO_TOPIC:
        return None, None
    sidecar = Path(choice.info) if choice.info is not None else folder / SIDECAR
    if choice.info is not None or sidecar.is_file():
        found, source = read_camera_info(sidecar), str(sidecar) if choice.info else SIDECAR
    if found is None:
        notes.append(f"{folder}: no calibration; name one with --info-topic FILE, or put {SIDECAR} there")
        return None, None
    lens = read_lens(found, first_size(images), source, notes)
    return lens, source if lens is not None else None


def first_size(images: ImageStream) -> tuple[int, int]:
    """Return (width, height) of the first image that is whole; raise DataError where none is."""
    problem = ""
    for file in images.files[:TRIED_IMAGES]:
        try:
            return file_size_px(file)
        except DataError as error:
            problem = problem or str(error)
    raise DataError(problem)


def read_camera_info(path: Path) -> Calibration:
    """Read a CameraInfo as camera_calibration writes it: image_width, camera_matrix, distortion_coefficients.

    Raises:
        DataError: missing, no YAML, or a field that is missing or no numbers.
    """
    content = yaml_of(path)
    return Calibration(
        numbers(path, content, "camera_matrix", (9,)),
        numbers(path, content, "distortion_coefficients", range(15)),
        str(content.get("distortion_model", "plumb_bob")),
        _whole(path, content, "image_width"),
        _whole(path, content, "image_height"),
    )


def yaml_of(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file; raise DataError where it is none."""
    try:
        return read_yaml(path)
    except ComeNavError as error:
        raise DataError(str(error)) from error


def numbers(path: Path, content: Mapping[str, Any], name: str, counts: Sequence[int]) -> Matrix:
    """Return the numbers of a field, alone or under ``data``; raise DataError where they are not ``counts`` many."""
    value = content.get(name)
    value = value.get("data") if isinstance(value, Mapping) else value
    try:
        found = np.array([] if value is None and 0 in counts else value, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        found = np.full(0, np.nan)
    if len(found) not in counts or not np.isfinite(found).all():
        wanted = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        raise DataError(f"{path}: {name} must be {wanted} numbers, got '{str(value)[:60]}'")
    return found


def rigid(path: Path, content: Mapping[str, Any], name: str) -> Matrix:
    """Return the (4, 4) transform of a field; raise DataError where its rotation is none."""
    T: Matrix = numbers(path, content, name, (16,)).reshape(4, 4)
    away = np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max()
    if away > 0.01 or np.linalg.det(T[:3, :3]) < 0 or not np.allclose(T[3], (0, 0, 0, 1)):
        raise DataError(f"{path}: {name} is no rigid transform (R R^T differs from 1 by {away:.3g})")
    return T


def _whole(path: Path, content: Mapping[str, Any], name: str) -> int:
    value = content.get(name, 0)
    if not isinstance(value, int) or not 0 <= value <= 1 << 16:
        raise DataError(f"{path}: {name} must be a number of pixels, got '{str(value)[:60]}'")
    return value
