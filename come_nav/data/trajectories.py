"""Trajectory files: TUM, KITTI and EuRoC, and the poses of a bag. The format is found by content, not by name."""

from __future__ import annotations

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
from come_nav.data.trajectory_text import UNITS, NumberTable, read_numbers, stamp_unit

logger = logging.getLogger(__name__)

FORMATS = ("tum", "kitti", "euroc", "bag")
EUROC_COLUMNS = 18
PLANAR_QUATERNION = 1e-3  # x and y of a robot on a floor
ROTATION_TOLERANCE = 0.02  # files carry few digits; further off, the numbers are no rotation at all


def read_trajectory(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    unit: str | None = None,
    topic: str | None = None,
    rate_hz: float = 10.0,
    settings: tuple[str, str] = ("format", "unit"),
) -> Trajectory:
    """Read a trajectory file or the poses of a bag.

    Args:
        path: file, or bag in any spelling that :func:`come_nav.data.bags.bag.open_bag` takes.
        format: ``tum`` (t x y z qx qy qz qw), ``kitti`` (12 numbers of a 3x4 matrix), ``euroc`` (csv of EuRoC and VINS:
            ns, x y z, qw qx qy qz, more) or ``bag``; None looks at the content.
        unit: of the stamps, s, ms, us or ns; None looks at heading, date and rate (``euroc``: ns).
        topic: pose topic of a bag; None chooses.
        rate_hz: of a KITTI file, which has no stamps.
        settings: how the user names format and unit; stands in messages.

    Raises:
        DataError: missing, empty, not numbers, NaN, or stamps that do not increase; names the line where it can.
    """
    target = Path(path)
    if format is not None:
        check_choice(settings[0], format, FORMATS)
    if unit is not None:
        check_choice(settings[1], unit, tuple(UNITS))
    if format == "bag" or (format is None and (is_bag(target) or target.is_dir())):
        return _from_bag(target, topic)
    if not target.is_file():
        raise DataError(f"{target}: no such file; expected a TUM, KITTI or EuRoC file, or a bag")
    table = read_numbers(target)
    columns = table.values.shape[1]
    if format == "kitti":
        unit = "s"
    elif unit is None:
        unit = "ns" if format == "euroc" else stamp_unit(table, settings[1])
    chosen = format or _format_of(table, unit, settings[0])
    expected = {"tum": (8,), "kitti": (12,), "euroc": tuple(range(8, EUROC_COLUMNS + 1))}[chosen]
    if columns not in expected:
        raise DataError(f"{target}: line {table.first_line} has {columns} columns, but {chosen} needs {expected[0]}")
    if chosen == "kitti":
        return _from_kitti(target, table.values, rate_hz)
    stamps_s, quats = table.seconds(unit), table.values[:, 4:8]
    other_quats = quats[:, [1, 2, 3, 0]]
    if chosen == "euroc":
        quats, other_quats = other_quats, quats
    if _turns_about_z(other_quats) and not _turns_about_z(quats):
        other = "tum" if chosen == "euroc" else "euroc"
        logger.warning(
            "%s: the quaternions would all turn about z in the order of %s, and do not in that of %s; if they are in "
            "that order, set %s %s and %s %s",
            *(target, other, chosen, settings[0], other, settings[1], unit),
        )
    return _timed(target, stamps_s, table.values[:, 1:4], quats)


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
        warnings = list(bag.warnings)
        track = read_poses(bag, name, warnings)
    for warning in warnings:
        logger.warning("%s: %s", path, warning)
    return Trajectory(seconds_from_ns(track.stamps_ns), track.T_world_body, track.world_frame)


def _format_of(table: NumberTable, unit: str, setting: str) -> str:
    """Tell the format by columns, unit and separator; raise DataError where that does not decide."""
    path, columns = table.path, table.values.shape[1]
    if columns == 8:
        order = table.quaternion_order
        if order is not None:
            return "euroc" if order == "wxyz" else "tum"
        if unit != "s":
            chosen = "euroc" if table.has_commas else "tum"  # csv of EuRoC and VINS; text of ORB-SLAM3
            order = "qw qx qy qz" if chosen == "euroc" else "qx qy qz qw"
            other = "tum" if chosen == "euroc" else "euroc"
            logger.info("%s: stamps in %s, then x y z %s; else set %s %s", path, unit, order, setting, other)
            return chosen
        return "tum"
    if unit != "s" and 8 < columns <= EUROC_COLUMNS and (table.has_commas or columns == 17):
        return "euroc"
    if columns == 12:
        return "kitti"
    advice = f"; set {setting} euroc if the columns are t x y z qw qx qy qz and more" if columns > 8 else ""
    raise DataError(
        f"{path}: {columns} columns; a TUM file has 8, KITTI 12, a csv of EuRoC or VINS 8 to {EUROC_COLUMNS} with a "
        f"nanosecond stamp{advice}"
    )


def _turns_about_z(quats: NDArray[np.float64]) -> bool:
    return bool((np.abs(quats[:, :2]) < PLANAR_QUATERNION).all() and (np.abs(quats[:, 2:]).max(axis=1) > 0.1).all())


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
