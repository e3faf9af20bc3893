"""Lists in text: lines of a stamp and a file, and stamps without loss."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.core.types import Trajectory
from come_nav.data.timing.stamps import ns_from_seconds
from come_nav.data.trajectories import read_trajectory
from come_nav.data.trajectory_text import read_numbers, read_text

LATEST_S = 9.2e9  # what 64 bits of nanoseconds hold


def read_file_list(path: Path, separator: str | None, unit_places: int) -> list[tuple[int, str]]:
    """Return (stamp in ns, file name) of each line ``stamp file``; '#' starts a comment.

    Args:
        path: of the list.
        separator: between stamp and file; None is white space.
        unit_places: decimal places from the stamps' unit to nanoseconds: 9 for seconds, 0 for nanoseconds.

    Raises:
        DataError: names the first line that is none, or an empty list.
    """
    rows: list[tuple[int, str]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.partition("#")[0].strip().split(separator, 1)
        if words in ([], [""]):
            continue
        stamp_ns = _nanoseconds(words[0].strip(), unit_places)
        if len(words) != 2 or not words[1].strip() or stamp_ns is None:
            raise DataError(f"{path}: line {number} must be a stamp and a file name, got '{line.strip()[:60]}'")
        rows.append((stamp_ns, words[1].strip()))
    if not rows:
        raise DataError(f"{path}: lists no image")
    return rows


def read_times(path: Path) -> NDArray[np.int64]:
    """Return the stamps (N,) in ns of a file with seconds, one a line; raise DataError naming what is wrong."""
    table = read_numbers(path)
    if table.values.shape[1] != 1:
        raise DataError(f"{path}: line {table.first_line} must hold one number, the seconds of an image")
    stamps = [_nanoseconds(word, 9) for word in table.stamps]
    bad = next((at for at, stamp in enumerate(stamps) if stamp is None), None)
    if bad is not None:
        raise DataError(f"{path}: {table.stamps[bad][:40]} s is no time")
    return np.array(stamps, np.int64)


def read_track(path: Path, times_ns: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], Trajectory]:
    """Return stamps in ns (P,) and poses of a trajectory file in any format that read_trajectory knows.

    ``times_ns`` (N,) are those of the rows of a KITTI file, which has none of its own.

    Raises:
        DataError: as of read_trajectory, or a KITTI file with more poses than there are times.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; name a trajectory file (TUM, KITTI or EuRoC) with --pose-topic")
    if read_numbers(path).values.shape[1] != 12:
        track = read_trajectory(path)
        if len(track) and np.abs(track.stamps_s).max() > LATEST_S:
            raise DataError(f"{path}: a stamp of {np.abs(track.stamps_s).max():.3g} s is no time")
        return np.array([ns_from_seconds(float(stamp)) for stamp in track.stamps_s], np.int64), track
    track = read_trajectory(path, "kitti")
    if times_ns is None:
        raise DataError(f"{path}: poses in KITTI's format have no stamps; give a file in TUM's or EuRoC's format")
    if len(track) > len(times_ns):
        raise DataError(f"{path}: has {len(track)} poses, but there are {len(times_ns)} times; copy both files again")
    return times_ns[: len(track)], track


def _nanoseconds(word: str, unit_places: int) -> int | None:
    """Return a stamp in whole ns, None where the word is no number or too large."""
    try:
        rough = float(word)
        if "_" in word or not math.isfinite(rough) or abs(rough) > LATEST_S * 10 ** (9 - unit_places):
            return None
        return round(Decimal(word).scaleb(unit_places))
    except (ValueError, ArithmeticError):
        return None
