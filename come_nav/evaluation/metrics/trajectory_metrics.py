"""ATE and RPE of matched trajectories, with the conventions of the tool evo (checked against its version 1.38.1).

Absolute trajectory error (ATE, evo's APE) compares poses; relative pose error (RPE) compares motions between pairs of
poses: E = (Q_i^-1 Q_j)^-1 (P_i^-1 P_j) for reference Q and estimate P (Sturm et al., IROS 2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Trajectory
from come_nav.evaluation.metrics.alignment import Alignment, align

DELTA_UNITS = ("f", "m")


@dataclass(frozen=True)
class Statistics:
    """Summary of n errors; ``std`` divides by n, ``sse`` is the sum of squares."""

    rmse: float
    mean: float
    median: float
    std: float
    min: float
    max: float
    sse: float
    n: int

    @classmethod
    def of(cls, errors: NDArray[np.float64]) -> Statistics:
        """Summarise errors (N,); raise DataError when there are none."""
        if len(errors) == 0:
            raise DataError("no errors to summarise: the trajectories share no pose")
        squares = errors**2
        return cls(
            rmse=float(np.sqrt(squares.mean())),
            mean=float(errors.mean()),
            median=float(np.median(errors)),
            std=float(errors.std()),
            min=float(errors.min()),
            max=float(errors.max()),
            sse=float(squares.sum()),
            n=len(errors),
        )


@dataclass(frozen=True)
class ErrorReport:
    """ATE or RPE of one pair of trajectories.

    Attributes:
        translation_m, rotation_deg: statistics of the errors.
        translation_errors_m, rotation_errors_deg: (P,) the errors themselves.
        stamps_s: (P,) reference time of each error; for RPE that of the end of the pair.
        alignment: the one that was applied before comparing.
    """

    translation_m: Statistics
    rotation_deg: Statistics
    translation_errors_m: NDArray[np.float64]
    rotation_errors_deg: NDArray[np.float64]
    stamps_s: NDArray[np.float64]
    alignment: Alignment


@dataclass(frozen=True)
class RpeSettings:
    """Which pairs of poses RPE compares.

    Attributes:
        delta: distance between the poses of a pair, in ``unit``.
        unit: ``f`` poses, ``m`` metres along the path.
        all_pairs: every start pose, so that pairs overlap; else each pair starts where the last one ended.
        pairs_from_reference: measure metres along the reference; else along the estimate (evo's default).
        rel_delta_tol: with metres and all pairs, a pair's length may be off by this fraction of delta.
    """

    delta: float = 1.0
    unit: str = "f"
    all_pairs: bool = False
    pairs_from_reference: bool = False
    rel_delta_tol: float = 0.1

    def __post_init__(self) -> None:
        check_range("delta", self.delta, 0.0, open_low=True)
        check_choice("delta unit", self.unit, DELTA_UNITS)
        check_range("rel_delta_tol", self.rel_delta_tol, 0.0)
        if self.unit == "f" and self.delta != int(self.delta):
            raise ConfigError(f"delta must be a whole number of frames when its unit is 'f', got {self.delta:g}")


def ate(reference: Trajectory, estimate: Trajectory, alignment: str = "none") -> ErrorReport:
    """Absolute trajectory error of two matched trajectories of N poses each.

    Raises:
        DataError: when the alignment is not determined. ShapeError: when the lengths differ.
    """
    check_shape("estimate", estimate.T_world_body, f"{len(reference)} 4 4")
    found = align(reference.T_world_body, estimate.T_world_body, alignment)
    aligned = found.apply(estimate.T_world_body)
    error = se3.relative(reference.T_world_body, aligned)
    # The distance of the positions, rather than of the error transform, does not feel a rotation matrix's rounding.
    translation_m = np.linalg.norm(aligned[:, :3, 3] - reference.positions_xyz, axis=1)
    return _report(translation_m, error, reference.stamps_s, found)


def rpe(
    reference: Trajectory, estimate: Trajectory, settings: RpeSettings | None = None, alignment: str = "none"
) -> ErrorReport:
    """Relative pose error of two matched trajectories of N poses each, over the pairs that ``settings`` choose.

    Raises:
        DataError: when no pair of poses is that far apart. ShapeError: when the lengths differ.
    """
    settings = settings or RpeSettings()
    check_shape("estimate", estimate.T_world_body, f"{len(reference)} 4 4")
    found = align(reference.T_world_body, estimate.T_world_body, alignment)
    aligned = found.apply(estimate.T_world_body)
    source_xyz = reference.positions_xyz if settings.pairs_from_reference else aligned[:, :3, 3]
    pairs = select_pairs(source_xyz, settings)
    if len(pairs) == 0:
        length_m = float(np.linalg.norm(np.diff(source_xyz, axis=0), axis=1).sum())
        raise DataError(
            f"RPE finds no pair {settings.delta:g} {settings.unit} apart among {len(reference)} matched poses "
            f"({length_m:.2f} m of path); choose a smaller delta"
        )
    first, last = pairs[:, 0], pairs[:, 1]
    motion_reference = se3.relative(reference.T_world_body[first], reference.T_world_body[last])
    motion_estimate = se3.relative(aligned[first], aligned[last])
    error = se3.relative(motion_reference, motion_estimate)
    translation_m = np.linalg.norm(error[:, :3, 3], axis=1)
    return _report(translation_m, error, reference.stamps_s[last], found)


def select_pairs(positions_xyz: NDArray[np.float64], settings: RpeSettings) -> NDArray[np.int64]:
    """Return index pairs (P, 2) of poses that are ``settings.delta`` apart along positions (N, 3)."""
    if settings.unit == "f":
        step, count = int(settings.delta), len(positions_xyz)
        first = np.arange(0, max(count - step, 0), 1 if settings.all_pairs else step)
        return np.stack([first, first + step], axis=1)
    steps_m = np.linalg.norm(np.diff(positions_xyz, axis=0), axis=1)
    if settings.all_pairs:
        return _all_pairs_by_path(steps_m, settings.delta, settings.rel_delta_tol * settings.delta)
    return _consecutive_pairs_by_path(steps_m, settings.delta)


def _consecutive_pairs_by_path(steps_m: NDArray[np.float64], delta_m: float) -> NDArray[np.int64]:
    """Cut the path where at least ``delta_m`` was covered since the last cut."""
    cuts, covered_m = [0], 0.0
    for index, step_m in enumerate(steps_m, start=1):
        covered_m += step_m
        if covered_m >= delta_m:
            cuts.append(index)
            covered_m = 0.0
    return np.stack([np.array(cuts[:-1], dtype=np.int64), np.array(cuts[1:], dtype=np.int64)], axis=1)


def _all_pairs_by_path(steps_m: NDArray[np.float64], delta_m: float, tolerance_m: float) -> NDArray[np.int64]:
    """For every start, the later pose whose path distance is nearest to ``delta_m``, if within ``tolerance_m``."""
    path_m = np.concatenate([[0.0], np.cumsum(steps_m)])
    count = len(path_m)
    first = np.arange(count - 1)
    after = np.searchsorted(path_m, path_m[:-1] + delta_m)
    around = np.stack([after - 1, after, after + 1], axis=1).clip(first[:, None] + 1, count - 1)
    miss_m = np.abs(path_m[around] - path_m[:-1, None] - delta_m)
    nearest = around[first, np.argmin(miss_m, axis=1)]
    # A robot that stands still has many poses at the same path distance; the earliest of them ends the pair.
    last = np.maximum(np.searchsorted(path_m, path_m[nearest]), first + 1)
    keep = miss_m.min(axis=1) <= tolerance_m
    return np.stack([first[keep], last[keep]], axis=1)


@dataclass(frozen=True)
class PlanErrors:
    """Errors of one plan against the path really driven, as NWM's planning evaluation measures them.

    Attributes:
        ate_m: RMSE of the T positions, without alignment and without the common start pose.
        rpe_m: RMSE of the T - 1 position steps (delta one step, consecutive).
        final_m: distance of the last positions.
        final_yaw_rad: absolute difference of the last headings.
    """

    ate_m: float
    rpe_m: float
    final_m: float
    final_yaw_rad: float


def plan_errors(planned_xyyaw: NDArray[np.float64], driven_xyyaw: NDArray[np.float64]) -> PlanErrors:
    """Compare planned poses (T, 3) with driven poses (T, 3), both in the start frame and without the start pose.

    Steps are compared in the start frame's axes: NWM gives evo constant orientations, so RPE sees positions alone.
    """
    sizes = check_shape("planned_xyyaw", planned_xyyaw, "T 3")
    check_shape("driven_xyyaw", driven_xyyaw, f"{sizes['T']} 3")
    offset = np.asarray(planned_xyyaw, float) - np.asarray(driven_xyyaw, float)
    steps = np.diff(offset[:, :2], axis=0)
    return PlanErrors(
        ate_m=float(np.sqrt((offset[:, :2] ** 2).sum(axis=1).mean())),
        rpe_m=float(np.sqrt((steps**2).sum(axis=1).mean())) if len(steps) else 0.0,
        final_m=float(np.linalg.norm(offset[-1, :2])),
        final_yaw_rad=float(np.abs(se2.wrap_angle(offset[-1:, 2]))[0]),
    )


def _report(
    translation_m: NDArray[np.float64],
    T_error: NDArray[np.float64],
    stamps_s: NDArray[np.float64],
    alignment: Alignment,
) -> ErrorReport:
    # Files round rotation matrices to a few digits (KITTI): take the angle of the nearest rotation.
    left, _, right = np.linalg.svd(T_error[:, :3, :3])
    rotation_deg = np.degrees(se3.rotation_angle(left @ right))
    return ErrorReport(
        translation_m=Statistics.of(translation_m),
        rotation_deg=Statistics.of(rotation_deg),
        translation_errors_m=translation_m,
        rotation_errors_deg=rotation_deg,
        stamps_s=stamps_s,
        alignment=alignment,
    )
