"""Trajectory files: TUM, KITTI and EuRoC, and the poses of a bag. The format is found by content, not by name."""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice
from come_nav.core.errors import DataError
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se3
from come_nav.core.types import Trajectory
from come_nav.data.bags.storage import is_bag
from come_nav.data.timing.stamps import seconds_from_ns

logger = logging.getLogger(__name__)

FORMATS = ("tum", "kitti", "euroc", "bag")
ROTATION_TOLERANCE = 0.02  # files carry few digits; further off, the numbers are no rotation at all


def read_trajectory(
    path: str | os.PathLike[str], format: str | None = None, *, topic: str | None = None, rate_hz: float = 10.0
) -> Trajectory:
    """Read a trajectory file or the poses of a bag.

    Args:
        path: file, or bag in any spelling that :func:`come_nav.data.bags.bag.open_bag` takes.
        format: ``tum`` (t x y z qx qy qz qw), ``kitti`` (12 numbers of a 3x4 matrix), ``euroc`` (ground-truth csv: ns,
            x y z, qw qx qy qz) or ``bag``; None looks at the content.
        topic: pose topic of a bag; None chooses.
        rate_hz: of a KITTI file, which has no stamps.

    Raises:
        DataError: missing, empty, not numbers, NaN, or stamps that do not increase; names the line where it can.
    """
    target = Path(path)
    if format is not None:
        check_choice("format", format, FORMATS)
    if format == "bag" or (format is None and (is_bag(target) or target.is_dir())):
        return _from_bag(target, topic)
    if not target.is_file():
        raise DataError(f"{target}: no such file; expected a TUM, KITTI or EuRoC file, or a bag")
    values, first_line = _numbers(target)
    columns = values.shape[1]
    chosen = format or _format_of(columns, target)
    expected = {"tum": (8,), "kitti": (12,), "euroc": tuple(range(8, 18))}[chosen]
    if columns not in expected:
        raise DataError(f"{target}: line {first_line} has {columns} columns, but {chosen} needs {expected[0]}")
    if chosen == "kitti":
        return _from_kitti(target, values, rate_hz)
    if chosen == "euroc":
        return _timed(target, values[:, 0] / 1e9, values[:, 1:4], values[:, [5, 6, 7, 4]])
    return _timed(target, values[:, 0], values[:, 1:4], values[:, 4:8])


def write_tum(path: str | os.PathLike[str], trajectory: Trajectory) -> None:
    """Write ``t x y z qx qy qz qw`` lines with enough digits to read the same doubles back; atomic."""
    quats = se3.quaternion_from_matrix(trajectory.T_world_body[:, :3, :3])
    lines = ["# timestamp_s x y z qx qy qz qw"]
    for stamp_s, position, quat in zip(trajectory.stamps_s, trajectory.positions_xyz, quats, strict=True):
        numbers = " ".join(f"{value:.17g}" for value in (*position, *quat))
        lines.append(f"{stamp_s:.9f} {numbers}")
    atomic_write_text(Path(path), "\n".join(lines) + "\n")


def write_kitti(path: str | os.PathLike[str], trajectory: Trajectory) -> None:
    """Write one line of 12 numbers (3x4, row by row) per pose; the stamps are lost, as the format has none; atomic."""
    rows = trajectory.T_world_body[:, :3, :].reshape(len(trajectory), 12)
    atomic_write_text(Path(path), "\n".join(" ".join(f"{value:.17g}" for value in row) for row in rows) + "\n")


def recording_trajectory(recording) -> Trajectory:  # type: ignore[no-untyped-def]
    """Return stamps and poses of any core.protocols.Recording as a Trajectory."""
    return Trajectory(np.asarray(recording.stamps_s), np.asarray(recording.T_odom_base))


def _from_bag(path: Path, topic: str | None) -> Trajectory:
    from come_nav.data.bags.bag import open_bag
    from come_nav.data.bags.poses import read_poses
    from come_nav.data.bags.topics import find_pose

    with open_bag(path) as bag:
        name = topic or find_pose(bag)
        if name is None:
            raise DataError(f"{path}: no odometry, pose or /tf topic; the bag holds {', '.join(bag.topics)}")
        track = read_poses(bag, name)
    return Trajectory(seconds_from_ns(track.stamps_ns), track.T_world_body, track.world_frame)


def _numbers(path: Path) -> tuple[NDArray[np.float64], int]:
    """Return the rows of numbers (N, columns) and the number of the first such line; '#' starts a comment."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file (byte {error.start}); expected a trajectory file or a bag") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    rows: list[list[float]] = []
    first = 0
    for number, line in enumerate(io.StringIO(text), start=1):
        words = line.split("#", 1)[0].replace(",", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            if not rows and number == 1:
                continue  # a csv heading without '#'
            raise DataError(f"{path}: line {number} is not numbers: '{line.strip()[:60]}'") from None
        first = first or number
        if len(rows[-1]) != len(rows[0]):
            raise DataError(f"{path}: line {number} has {len(rows[-1])} columns, the lines before have {len(rows[0])}")
        if not np.isfinite(rows[-1]).all():
            raise DataError(f"{path}: line {number} holds NaN or an infinite value; remove that pose")
    if not rows:
        raise DataError(f"{path}: the file holds no poses")
    return np.array(rows, float), first


def _format_of(columns: int, path: Path) -> str:
    if columns == 12:
        return "kitti"
    if columns == 8:
        return "euroc" if _is_nanoseconds(path) else "tum"
    if columns == 17:
        return "euroc"
    raise DataError(f"{path}: {columns} columns; a TUM file has 8, KITTI 12, EuRoC 8 or 17 with a nanosecond stamp")


def _is_nanoseconds(path: Path) -> bool:
    """Tell EuRoC from TUM by commas and an integer stamp of nanoseconds since 1970."""
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            words = line.split("#", 1)[0].replace(",", " ").split()
            if words and words[0].isdigit():
                return int(words[0]) > 10**16
            if words and words[0][0].isdigit():
                return False
    return False


def _from_kitti(path: Path, values: NDArray[np.float64], rate_hz: float) -> Trajectory:
    matrices = values.reshape(-1, 3, 4)
    rotations = matrices[:, :, :3]
    error = np.abs(rotations @ rotations.swapaxes(-1, -2) - np.eye(3)).max(axis=(1, 2))
    if (error > ROTATION_TOLERANCE).any():
        worst = int(np.argmax(error > ROTATION_TOLERANCE))
        raise DataError(f"{path}: pose {worst} is no rotation (R R^T differs from 1 by {error[worst]:.3g})")
    return Trajectory(np.arange(len(values)) / rate_hz, se3.make_transform(rotations.copy(), matrices[:, :, 3].copy()))


def _timed(
    path: Path, stamps_s: NDArray[np.float64], positions: NDArray[np.float64], quats: NDArray[np.float64]
) -> Trajectory:
    norms = np.linalg.norm(quats, axis=1)
    if (norms < 1e-6).any():
        raise DataError(f"{path}: pose {int(np.argmax(norms < 1e-6))} has a quaternion of length zero")
    steps = np.diff(stamps_s)
    if (steps < 0).any():
        worst = int(np.argmax(steps < 0))
        raise DataError(
            f"{path}: stamps are not sorted: pose {worst + 1} has {stamps_s[worst + 1]:.6f} s after "
            f"{stamps_s[worst]:.6f} s; sort the file by time (sort -n) if it is one trajectory"
        )
    fresh = np.append([True], steps > 0)
    if not fresh.all():  # real ground-truth files hold some; evo, too, finds the first of equal stamps
        logger.warning("%s: dropped %d of %d poses with a duplicate stamp", path, int((~fresh).sum()), len(fresh))
    T_world_body = se3.make_transform(se3.matrix_from_quaternion(quats[fresh]), positions[fresh])
    return Trajectory(stamps_s[fresh], T_world_body)
