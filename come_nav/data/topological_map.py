"""Topological maps in the format of visualnav-transformer's create_topomap: a folder of images 0.png, 1.png, ...

The folder holds nothing else, so that their tools read it too. Where the images were taken, if that is known, lies
beside it in ``<folder>_poses.csv``: number, stamp_s, x_m, y_m, yaw_rad in odom.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import DataError, StorageError
from come_nav.core.files import atomic_path, atomic_write_text, writable_folder
from come_nav.core.protocols import Recording
from come_nav.data.image_files import read_rgb

SUFFIXES = (".png", ".jpg", ".jpeg")
COLUMNS = ("number", "stamp_s", "x_m", "y_m", "yaw_rad")


@dataclass(frozen=True)
class TopologicalMap:
    """Images along one way, in order.

    Attributes:
        folder: where they are.
        files: one for each node.
        stamps_s: (N,) when they were taken; None where that is not known.
        poses_xyyaw: (N, 3) where, in odom; None where that is not known.
    """

    folder: Path
    files: tuple[Path, ...]
    stamps_s: NDArray[np.float64] | None = None
    poses_xyyaw: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def image(self, node: int) -> NDArray[np.uint8]:
        """Return the image (H, W, 3) of one node; raise DataError naming its file where it is damaged."""
        return read_rgb(self.files[node])

    def images(self) -> list[NDArray[np.uint8]]:
        """Return all images."""
        return [self.image(node) for node in range(len(self))]


def read_topological_map(folder: Path) -> TopologicalMap:
    """Read what a folder of numbered images holds, no pixels.

    Raises:
        DataError: no such folder, no images, a file whose name is no number, or poses that do not fit.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of numbered images; write one by 'come-nav topomap create'")
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    wrong = sorted(path.name for path in files if not path.stem.isdecimal())
    if wrong:
        raise DataError(f"{folder / wrong[0]}: images of a topological map are named 0.png, 1.png, ...; rename it")
    numbers = sorted(files, key=lambda path: int(path.stem))
    if not numbers:
        raise DataError(f"{folder}: holds no images 0.png, 1.png, ...")
    if len({int(path.stem) for path in numbers}) < len(numbers):
        raise DataError(f"{folder}: holds two images of one number; remove one")
    beside = poses_file(folder)
    if not beside.is_file():
        return TopologicalMap(folder, tuple(numbers))
    stamps_s, poses = _read_poses(beside, [int(path.stem) for path in numbers])
    return TopologicalMap(folder, tuple(numbers), stamps_s, poses)


def write_topological_map(
    recording: Recording,
    folder: Path,
    every_s: float = 1.0,
    overwrite: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> TopologicalMap:
    """Write an image of a recording every so many seconds, and where each was taken.

    Args:
        recording: a drive along the way that the map shall hold.
        folder: made if need be.
        every_s: time between nodes, s, > 0 (create_topomap: 1 s).
        overwrite: replace the images of a map that is there.
        progress: called with 1 for each image.

    Raises:
        StorageError: the folder holds images already, or cannot be written.
        DataError: no frame can be decoded.
    """
    from PIL import Image

    check_range("--every", every_s, 0.0, open_low=True)
    writable_folder(folder)
    old = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    if old and not overwrite:
        raise StorageError(f"{folder}: holds {len(old)} images already; choose another folder, or --overwrite")
    chosen = _every(np.asarray(recording.stamps_s, float), every_s)
    rows: list[tuple[float, ...]] = []
    why = ""
    for index in chosen:
        try:
            rgb = recording.frame(index).rgb
        except DataError as error:
            why = str(error)
            continue
        if not rows:  # only now: a recording that cannot be read leaves the old map
            for path in old:
                path.unlink()
        with atomic_path(folder / f"{len(rows)}.png") as temporary:
            Image.fromarray(rgb).save(temporary, format="PNG")
        rows.append((float(recording.stamps_s[index]), *(float(value) for value in recording.poses_xyyaw[index])))
        if progress is not None:
            progress(1)
    if not rows:
        raise DataError(f"{recording.name}: no frame can be decoded; the last says: {why}")
    lines = [",".join(COLUMNS)] + [",".join([str(node), *map(repr, row)]) for node, row in enumerate(rows)]
    atomic_write_text(poses_file(folder), "\n".join(lines) + "\n")
    return read_topological_map(folder)


def poses_file(folder: Path) -> Path:
    """Return where a map's poses lie: beside its folder."""
    absolute = folder.absolute()
    return absolute.parent / f"{absolute.name}_poses.csv"


def _every(stamps_s: NDArray[np.float64], every_s: float) -> list[int]:
    """Return the first frame (index) at or after every multiple of ``every_s`` from the first one on."""
    due = np.arange(stamps_s[0], stamps_s[-1] + 1e-6, every_s)
    frames: list[int] = np.unique(np.searchsorted(stamps_s, due - 1e-6)).tolist()
    return frames


def _read_poses(path: Path, numbers: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
        found = {int(row["number"]): [float(row[name]) for name in COLUMNS[1:]] for row in rows}
        values = np.array([found[number] for number in numbers])
    except KeyError as error:
        raise DataError(
            f"{path}: has no {error}, which the images have; remove the file or write the map anew"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read as {','.join(COLUMNS)} ({error}); remove it or write it anew"
        ) from error
    if not np.isfinite(values).all():
        raise DataError(f"{path}: holds values that are not finite; remove it or write the map anew")
    return values[:, 0], values[:, 1:]
