"""Tells which published layout a folder has, and reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from come_nav.core.errors import DataError
from come_nav.data.folders.drive import FolderChoice, FolderDrive
from come_nav.data.folders.euroc import is_euroc, read_euroc
from come_nav.data.folders.kitti import is_kitti, read_kitti
from come_nav.data.folders.tum import is_tum, read_tum

_LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[Path, FolderChoice], FolderDrive]], ...] = (
    (is_tum, read_tum),
    (is_kitti, read_kitti),
    (is_euroc, read_euroc),
)


def is_folder_drive(path: Path) -> bool:
    """Tell whether a path is a folder in a layout that is read here."""
    try:
        return path.is_dir() and any(fits(_absolute(path)) for fits, _ in _LAYOUTS)
    except OSError:  # no permission to look into it
        return False


def read_folder_drive(path: Path, choice: FolderChoice | None = None) -> FolderDrive:
    """Read what a folder holds, no pixels; raise DataError where it has none of the layouts, or a file is wrong."""
    path = _absolute(path)
    for fits, read in _LAYOUTS:
        if fits(path):
            try:
                return read(path, choice or FolderChoice())
            except OSError as error:
                raise DataError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
    raise DataError(f"{path}: neither a TUM RGB-D (rgb.txt), KITTI odometry (sequences) nor EuRoC folder (mav0)")


def _absolute(path: Path) -> Path:
    """Return the path from the root on: names of folders above count. Links are not followed: a sequence may be one."""
    return Path(os.path.abspath(path))
