"""From records to tables: means with intervals, paired comparisons, one line per world, image quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.types import PlanStatus
from come_nav.evaluation.metrics.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    enough_clusters,
    paired_difference,
)
from come_nav.evaluation.metrics.success import SuccessSettings, success_rate
from come_nav.evaluation.protocols.protocol import Window, waypoint_spacing_m
from come_nav.evaluation.protocols.results import Record
from come_nav.evaluation.protocols.rows import CONSTANT_VELOCITY, HINDSIGHT, PERFECT_MODEL, STAND_STILL
from come_nav.evaluation.reports.registration_tables import PART_METRICS, RegistrationPart, Split, by_registration

PLAN_METRICS = ("ate_m", "rpe_m", "final_m", "final_yaw_rad")
PLAN_HEADINGS = {"ate_m": "ATE [m]", "rpe_m": "RPE [m]"}
HEADINGS = {
    "psnr_db": "PSNR [dB]",
    "ssim": "SSIM",
    "sharpness": "sharpness ratio",
    "kernel_distance": "kernel distance",
    "lpips": "LPIPS",
}
DIGITS = {"psnr_db": 2, "ssim": 3, "sharpness": 2, "kernel_distance": 2, "lpips": 3}
IMAGE_KINDS = {
    "imagined": "imagined at the chosen pose",
    "prediction": "imagined at the true pose",
    "copy_last_frame": "(last seen frame, as if nothing moved)",
}


@dataclass(frozen=True)
class PlanningTable:
    """All figures of one evaluation; nothing in it depends on how fast or in how many runs they were computed.

    Attributes:
        spacing_m: mean distance between waypoints really driven, the unit of NWM's figures.
        resampled: what the bootstrap draws: ``windows``, or e.g. ``20 worlds or recordings``.
        rows: row -> metric -> interval (``ate_m``, ``ate_spacings``, ``rpe_m``, ``final_m``, ``final_yaw_rad``).
        counts: row -> ``n`` windows and ``not_ok`` plans that were not driven.
        ratios: (row, reference row) -> interval of mean ATE over mean ATE on the same windows.
        rpe_ratios: the same of RPE.
        differences: (row, reference row) -> ``ate_m`` and ``rpe_m`` -> interval of the mean of row minus reference.
        gap_closure: row -> (ATE constant velocity - ATE row) / (ATE constant velocity - ATE perfect model), paired; of
            every row but these, the hindsight one and standing still; empty without a perfect model.
        groups: group (world or recording) -> row -> mean ATE in metres.
        images: (row, kind) -> metric -> interval.
        error_by_step: row -> (T,) mean position error of each waypoint in metres.
        steps_s: (T,) mean times of the waypoints.
        success: row -> share of plans that end at the goal pose, with Wilson's interval over windows.
        success_settings: how near that is.
        kinematics: row -> that of its paths; empty where there is no motion.
        registered: what the goal registers to -> figures of those windows; empty without the row that registers.
    """

    spacing_m: float
    resampled: str
    rows: dict[str, dict[str, Interval]]
    counts: dict[str, dict[str, int]]
    ratios: dict[tuple[str, str], Interval]
    rpe_ratios: dict[tuple[str, str], Interval]
    differences: dict[tuple[str, str], dict[str, Interval]]
    gap_closure: dict[str, Interval]
    groups: dict[str, dict[str, float]]
    images: dict[tuple[str, str], dict[str, Interval]]
    error_by_step: dict[str, list[float]]
    steps_s: list[float]
    success: dict[str, Interval]
    success_settings: SuccessSettings
    kinematics: dict[str, str]
    registered: Split = field(default_factory=dict)

    def to_mapping(self) -> dict[str, Any]:
        """Return the figures as JSON values."""

        def plain(intervals: Mapping[str, Interval]) -> dict[str, Any]:
            return {name: asdict(interval) for name, interval in intervals.items()}

        registered = {name: part.to_mapping() for name, part in self.registered.items()}
        return {
            "waypoint_spacing_m": self.spacing_m,
            "resampled": self.resampled,
            "success_settings": asdict(self.success_settings),
            "rows": [
                {
                    "row": row,
                    "kinematics": self.kinematics[row],
                    **self.counts[row],
                    **plain({**metrics, "success": self.success[row]}),
                }
                for row, metrics in self.rows.items()
            ],
            **{
                name: [
                    {"row": row, "reference": reference, **asdict(interval)}
                    for (row, reference), interval in found.items()
                ]
                for name, found in (("ate_ratios", self.ratios), ("rpe_ratios", self.rpe_ratios))
            },
            "differences": [
                {"row": row, "reference": reference, **plain(metrics)}
                for (row, reference), metrics in self.differences.items()
            ],
            "gap_closure": plain(self.gap_closure),
            "ate_m_by_group": self.groups,
            "images": [{"row": row, "image": kind, **plain(metrics)} for (row, kind), metrics in self.images.items()],
            "error_by_step_m": self.error_by_step,
            "steps_s": self.steps_s,
            **({"by_registration": registered} if registered else {}),
        }


def planning_table(
    windows: Sequence[Window],
    records: Mapping[str, Sequence[Record]],
    seed: int,
    groups: Mapping[str, str] | None = None,
    success: SuccessSettings | None = None,
    kinematics: Mapping[str, str] | None = None,
) -> PlanningTable:
    """Summarise.

    Args:
        windows: that were asked for.
        records: row -> records in the order of ``windows``; all rows hold the same windows.
        seed: of the bootstrap.
        groups: recording id -> group whose windows are not independent (a world); None, or fewer than MIN_CLUSTERS
            groups, takes windows as independent.
        success: when a plan succeeds; by default within 0.25 m and 15 degrees.
        kinematics: row -> that of its paths.
    """
    success = success or SuccessSettings()
    spacing_m = waypoint_spacing_m(windows)
    named = None if groups is None else [groups[window.recording_id] for window in windows]
    clusters = groups if enough_clusters(named) is not None else None
    rows: dict[str, dict[str, Interval]] = {}
    for row, found in records.items():
        labels = _labels(found, clusters)
        rows[row] = {metric: bootstrap_mean(_column(found, metric), seed, labels) for metric in PLAN_METRICS}
        rows[row]["ate_spacings"] = bootstrap_mean(_column(found, "ate_m") / max(spacing_m, 1e-12), seed, labels)
    return PlanningTable(
        spacing_m=spacing_m,
        resampled="windows" if clusters is None else f"{len(set(named or ()))} worlds or recordings",
        rows=rows,
        counts={row: {"n": len(found), "not_ok": _not_ok(found)} for row, found in records.items()},
        ratios=_ratios(records, "ate_m", seed, clusters),
        rpe_ratios=_ratios(records, "rpe_m", seed, clusters),
        differences=_differences(records, seed, clusters),
        gap_closure=_gap_closure(records, seed, clusters),
        groups=_by_group(records, groups),
        images=_images(records, seed, clusters),
        error_by_step={
            row: [float(value) for value in np.mean([record["step_errors_m"] for record in found], axis=0)]
            for row, found in records.items()
            if found
        },
        steps_s=[
            float(np.mean([window.dt_s for window in windows]) * step)
            for step in range(1, len(windows[0].driven_xyyaw) + 1)
        ],
        success={row: success_rate(found, success) for row, found in records.items()},
        success_settings=success,
        kinematics={row: (kinematics or {}).get(row, "") for row in records},
        registered={name: _part(own, seed, clusters) for name, own in by_registration(records).items()},
    )


def plan_lines(table: PlanningTable) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the main table."""
    header = ["row", "ATE [m]", "ATE [spacings]", "RPE [m]", "final [m]", "final yaw [deg]"]
    header += [f"success ({table.success_settings})", "n", "not OK", "kinematics"]
    lines = []
    for row, metrics in table.rows.items():
        yaw = metrics["final_yaw_rad"]
        degrees = Interval(math.degrees(yaw.value), math.degrees(yaw.low), math.degrees(yaw.high), yaw.n, yaw.clusters)
        counts = table.counts[row]
        cells = [format_interval(metrics[name]) for name in ("ate_m", "ate_spacings", "rpe_m", "final_m")]
        cells += [format_interval(degrees, 1), format_interval(table.success[row], 2)]
        lines.append([row, *cells, str(counts["n"]), str(counts["not_ok"]), table.kinematics[row] or "-"])
    return header, lines


def ratio_lines(table: PlanningTable, references: Sequence[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the paired comparisons, with ``references`` alone where they are given."""
    lines = []
    for (row, reference), ratio in table.ratios.items():
        if references is not None and reference not in references:
            continue
        differences = [format_interval(table.differences[row, reference][metric]) for metric in ("ate_m", "rpe_m")]
        ratios = [format_interval(ratio), format_interval(table.rpe_ratios[row, reference])]
        lines.append([row, reference, *ratios, *differences, str(ratio.n)])
    return ["row", "compared with", "ATE ratio", "RPE ratio", "ATE difference [m]", "RPE difference [m]", "n"], lines


def gap_lines(table: PlanningTable) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the gap closure."""
    lines = [[row, format_interval(closed, 2), str(closed.n)] for row, closed in table.gap_closure.items()]
    return [f"gap closed from '{CONSTANT_VELOCITY}' (0) to '{PERFECT_MODEL}' (1)", "gap closure", "n"], lines


def registration_lines(split: Split, metric: str = PART_METRICS[0]) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells: mean error of every row by what the goal registers to."""
    counts = (f"{words} (n {part.windows})" for words, part in split.items())
    header = [f"{PLAN_HEADINGS[metric]} where the goal registers to", *counts]
    rows = dict.fromkeys(row for part in split.values() for row in part.rows)
    parts = [part.rows for part in split.values()]
    return header, [[row, *(format_interval(own[row][metric]) if row in own else "-" for own in parts)] for row in rows]


def registration_ratio_lines(
    split: Split, references: Sequence[str] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the paired ratios by what the goal registers to, ATE and RPE.

    With ``references``, to those alone.
    """
    lines = []
    for words, part in split.items():
        for row, reference in part.ratios[PART_METRICS[0]]:
            if references is None or reference in references:
                found = [part.ratios[metric][row, reference] for metric in PART_METRICS]
                lines.append([words, row, reference, *map(format_interval, found), str(found[0].n)])
    return ["the goal registers to", "row", "compared with", "ATE ratio", "RPE ratio", "n"], lines


def horizon_lines(tables: Sequence[PlanningTable]) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of several horizons side by side: ATE and success of every row."""
    header = ["row"]
    lines = {row: [row] for table in tables for row in table.rows}
    for table in tables:
        header += [f"ATE at {table.steps_s[-1]:.3g} s [m]", f"success at {table.steps_s[-1]:.3g} s"]
        for row, cells in lines.items():
            known = row in table.rows
            cells.append(format_interval(table.rows[row]["ate_m"]) if known else "-")
            cells.append(format_interval(table.success[row], 2) if known else "-")
    return header, list(lines.values())


def group_lines(table: PlanningTable) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of mean ATE by world or recording."""
    rows = list(table.rows)
    lines = [
        [group, *[f"{means[row]:.3f}" if row in means else "" for row in rows]] for group, means in table.groups.items()
    ]
    return ["mean ATE [m]", *rows], lines


def image_lines(table: PlanningTable) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the image quality."""
    shown = ("psnr_db", "ssim", "sharpness")
    lines = []
    for (row, kind), metrics in table.images.items():
        cells = [format_interval(metrics[name], DIGITS[name]) for name in shown]
        lines.append([f"{row}: {IMAGE_KINDS[kind]}", *cells, str(metrics["psnr_db"].n)])
    return ["image against the goal frame", *(HEADINGS[name] for name in shown), "n"], lines


def format_interval(interval: Interval, digits: int = 3) -> str:
    """Return ``0.123 [0.100, 0.150]``; without an interval the value alone, ``-`` where there is no value.

    A ratio to a row without any error has no value, as where the robot never moves.
    """
    if math.isnan(interval.value):
        return "-"
    if math.isnan(interval.low):
        return f"{interval.value:.{digits}f}"
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _part(records: Mapping[str, Sequence[Record]], seed: int, clusters: Mapping[str, str] | None) -> RegistrationPart:
    """Return the figures of some of the windows, of each row those that it has."""
    found = {row: own for row, own in records.items() if own}
    windows = next(iter(found.values()))
    groups = clusters if enough_clusters(_labels(windows, clusters)) is not None else None
    rows = {
        row: {metric: bootstrap_mean(_column(own, metric), seed, _labels(own, groups)) for metric in PART_METRICS}
        for row, own in found.items()
    }
    ratios = {metric: _ratios(found, metric, seed, groups) for metric in PART_METRICS}
    return RegistrationPart(len(windows), rows, ratios)


def _ratios(
    records: Mapping[str, Sequence[Record]], metric: str, seed: int, groups: Mapping[str, str] | None
) -> dict[tuple[str, str], Interval]:
    """Compare every row with every row above it in the table, on the same windows."""
    ratios = {}
    for row, reference in _pairs(records):
        first, second = _on_shared_windows(records[row], records[reference])
        errors = _column(first, metric), _column(second, metric)
        ratios[row, reference] = bootstrap_ratio(*errors, seed, _labels(first, groups))
    return ratios


def _differences(
    records: Mapping[str, Sequence[Record]], seed: int, groups: Mapping[str, str] | None
) -> dict[tuple[str, str], dict[str, Interval]]:
    differences = {}
    for row, reference in _pairs(records):
        first, second = _on_shared_windows(records[row], records[reference])
        labels = _labels(first, groups)
        differences[row, reference] = {
            metric: paired_difference(_column(first, metric), _column(second, metric), seed, labels)
            for metric in ("ate_m", "rpe_m")
        }
    return differences


def _gap_closure(
    records: Mapping[str, Sequence[Record]], seed: int, groups: Mapping[str, str] | None
) -> dict[str, Interval]:
    if CONSTANT_VELOCITY not in records or PERFECT_MODEL not in records:
        return {}
    closures = {}
    for row in records:
        if row in (STAND_STILL, CONSTANT_VELOCITY, PERFECT_MODEL, HINDSIGHT):
            continue
        trivial, evaluated, perfect = _on_shared_windows(
            records[CONSTANT_VELOCITY], records[row], records[PERFECT_MODEL]
        )
        start = _column(trivial, "ate_m")
        closed, gap = start - _column(evaluated, "ate_m"), start - _column(perfect, "ate_m")
        closures[row] = bootstrap_ratio(closed, gap, seed, _labels(trivial, groups))
    return closures


def _pairs(records: Mapping[str, Sequence[Record]]) -> list[tuple[str, str]]:
    """Return every row with every row above it in the table."""
    names = list(records)
    return [(row, reference) for position, row in enumerate(names) for reference in names[:position]]


def _on_shared_windows(*rows: Sequence[Record]) -> list[list[Record]]:
    """Return each row's records on the windows that all of them have, in the order of the first."""
    by_window = [{(record["recording"], record["start"]): record for record in records} for records in rows]
    keys = [key for key in by_window[0] if all(key in found for found in by_window)]
    return [[found[key] for key in keys] for found in by_window]


def _by_group(records: Mapping[str, Sequence[Record]], groups: Mapping[str, str] | None) -> dict[str, dict[str, float]]:
    sums: dict[str, dict[str, list[float]]] = {}
    for row, found in records.items():
        for record in found:
            group = record["recording"] if groups is None else groups[record["recording"]]
            sums.setdefault(group, {}).setdefault(row, []).append(record["ate_m"])
    return {group: {row: float(np.mean(values)) for row, values in rows.items()} for group, rows in sums.items()}


def _images(
    records: Mapping[str, Sequence[Record]], seed: int, groups: Mapping[str, str] | None
) -> dict[tuple[str, str], dict[str, Interval]]:
    images = {}
    for row, found in records.items():
        for kind in IMAGE_KINDS:
            having = [record for record in found if kind in record]
            if having:
                qualities, labels = [record[kind] for record in having], _labels(having, groups)
                images[row, kind] = {
                    metric: bootstrap_mean(_column(qualities, metric), seed, labels) for metric in qualities[0]
                }
    return images


def _labels(records: Sequence[Record], groups: Mapping[str, str] | None) -> list[str] | None:
    return None if groups is None else [groups[record["recording"]] for record in records]


def _column(records: Sequence[Mapping[str, Any]], metric: str) -> NDArray[np.float64]:
    return np.array([record[metric] for record in records], dtype=np.float64)


def _not_ok(records: Sequence[Record]) -> int:
    return sum(record["status"] != PlanStatus.OK.value for record in records)
