"""KITTI's drift: how far an estimate goes astray over stretches of 100 to 800 m, per metre driven.

As the odometry benchmark defines it (Geiger, Lenz and Urtasun, CVPR 2012): from every tenth pose, for every length, the
stretch ends at the first pose that lies further along the reference; the error of the motion over it is divided by the
length. No alignment: only motions are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.types import Trajectory

LENGTHS_M = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)
START_EVERY = 10  # poses; a second of KITTI


@dataclass(frozen=True)
class DriftOfLength:
    """Mean drift over the ``n`` stretches of one length; NaN-free: lengths without a stretch have no entry."""

    length_m: float
    t_rel_percent: float
    r_rel_deg_per_m: float
    n: int


@dataclass(frozen=True)
class Drift:
    """Drift of one pair of trajectories.

    Attributes:
        t_rel_percent: mean error of position, metres per 100 m driven.
        r_rel_deg_per_m: mean error of heading, degrees per metre driven.
        n: stretches; long and short ones count alike, as in the benchmark.
        lengths: the same for each length that fits.
    """

    t_rel_percent: float
    r_rel_deg_per_m: float
    n: int
    lengths: tuple[DriftOfLength, ...]


def drift(
    reference: Trajectory,
    estimate: Trajectory,
    lengths_m: Sequence[float] = LENGTHS_M,
    start_every: int = START_EVERY,
) -> Drift:
    """Return the drift of two matched trajectories of N poses each.

    Args:
        reference: truth; lengths are measured along it.
        estimate: matched poses.
        lengths_m: of the stretches, > 0.
        start_every: poses between starts, >= 1.

    Raises:
        DataError: the reference is shorter than every length. ShapeError: when the numbers of poses differ.
    """
    check_shape("estimate", estimate.T_world_body, f"{len(reference)} 4 4")
    check_range("start_every", start_every, 1)
    for length_m in lengths_m:
        check_range("lengths_m", length_m, 0.0, open_low=True)
    steps_m = np.linalg.norm(np.diff(reference.positions_xyz, axis=0), axis=1)
    path_m = np.concatenate([[0.0], np.cumsum(steps_m)])
    starts = np.arange(0, len(path_m), start_every)
    rows, errors = [], []
    for length_m in lengths_m:
        ends = np.searchsorted(path_m, path_m[starts] + length_m, side="right")
        fits = ends < len(path_m)
        if fits.any():
            found = _errors(reference, estimate, starts[fits], ends[fits]) / length_m
            errors.append(found)
            rows.append(DriftOfLength(length_m, *_means(found), len(found)))
    if not errors:
        raise DataError(
            f"drift: the matched reference is {path_m[-1]:.1f} m long, shorter than the shortest stretch of "
            f"{min(lengths_m):g} m; compare ATE and RPE instead"
        )
    together = np.concatenate(errors)
    return Drift(*_means(together), len(together), tuple(rows))


def _errors(
    reference: Trajectory, estimate: Trajectory, first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return position (m) and heading (rad) errors (P, 2) of the motions between poses ``first`` and ``last`` (P,)."""
    motion_reference = se3.relative(reference.T_world_body[first], reference.T_world_body[last])
    motion_estimate = se3.relative(estimate.T_world_body[first], estimate.T_world_body[last])
    error = se3.relative(motion_estimate, motion_reference)
    left, _, right = np.linalg.svd(error[:, :3, :3])  # files round rotation matrices to a few digits
    angles_rad = se3.rotation_angle(left @ right)
    return np.stack([np.linalg.norm(error[:, :3, 3], axis=1), angles_rad], axis=1)


def _means(errors: NDArray[np.float64]) -> tuple[float, float]:
    translation, rotation_rad = errors.mean(axis=0)
    return float(100.0 * translation), float(np.degrees(rotation_rad))
