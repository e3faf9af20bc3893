"""From recall records to tables: every row over all windows and over parts of them, and paired gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.evaluation.metrics.image_sets import kernel_distance
from come_nav.evaluation.metrics.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    enough_clusters,
    paired_difference,
)
from come_nav.evaluation.protocols.memory_windows import OFFSET_BINS, MemoryWindow
from come_nav.evaluation.protocols.results import Record
from come_nav.evaluation.reports.tables import DIGITS, HEADINGS, format_interval

NEAREST = "nearest remembered frame"
GEOMETRY = "geometry only"
CONTEXT_GEOMETRY = "context geometry"
FACTS = "(window)"  # name of the records that hold what is true of a window whatever the row
ALL = "all"
COVERED = 0.6  # share of the target that the point cloud knows: below it imagination has to earn its cost
METRICS = ("psnr_db", "ssim", "sharpness", "kernel_distance", "lpips")
LEAST_IMAGES = 20  # of a set: the kernel distance of fewer is noise


@dataclass(frozen=True)
class RecallTable:
    """All figures of one evaluation; nothing in it depends on how fast or in how many runs they were computed.

    Attributes:
        resampled: what the bootstrap draws.
        counts: part -> number of windows; the part "all" comes first.
        rows: row -> metric -> part -> interval; sharpness is the gradient energy of all images over the truth's, the
            kernel distance that of all images to all true ones (NaN where they are too few), the interval of it the
            middle 95 % of subsets.
        gains: (row, reference) -> metric -> part -> interval of the paired difference.
        windows: mean share visible from the context, mean share remembered, median age in frames, mean coverage.
    """

    resampled: str
    counts: dict[str, int]
    rows: dict[str, dict[str, dict[str, Interval]]]
    gains: dict[tuple[str, str], dict[str, dict[str, Interval]]]
    windows: dict[str, float]

    def to_mapping(self) -> dict[str, Any]:
        """Return the figures as JSON values."""

        def plain(metrics: Mapping[str, Mapping[str, Interval]]) -> list[dict[str, Any]]:
            parts = next(iter(metrics.values()))
            return [{"part": part, **{name: asdict(found[part]) for name, found in metrics.items()}} for part in parts]

        return {
            "resampled": self.resampled,
            "windows": self.counts,
            "facts_of_windows": self.windows,
            "rows": [{"row": row, **line} for row, metrics in self.rows.items() for line in plain(metrics)],
            "gains": [
                {"row": row, "reference": reference, **line}
                for (row, reference), metrics in self.gains.items()
                for line in plain(metrics)
            ],
        }


def recall_table(
    windows: Sequence[MemoryWindow],
    records: Mapping[str, Sequence[Record]],
    facts: Sequence[Record],
    references: Mapping[str, Sequence[str]],
    seed: int,
    groups: Mapping[str, str] | None = None,
    ages_s: Sequence[tuple[float, float]] = (),
    truths: Sequence[Record] = (),
) -> RecallTable:
    """Summarise.

    Args:
        windows: that were evaluated.
        records: row -> records in the order of ``windows``.
        facts: one record per window with its ``coverage``.
        references: row -> rows that it is compared with; those that are not in ``records`` are passed over.
        seed: of the bootstrap.
        groups: recording id -> group whose windows are not independent (a world).
        ages_s: bins of seconds since a target was last seen, which are parts too.
        truths: one record per window of what the camera saw, with its features; without them no sets are compared.
    """
    coverage = np.array([record["coverage"] for record in facts], float)
    parts = _parts(windows, coverage, ages_s)
    names = None if groups is None else np.array([groups[window.window.recording_id] for window in windows])
    columns = {row: _columns(found) for row, found in records.items()}
    rows = {row: _metrics(found, parts, seed, names) for row, found in columns.items()}
    if truths:
        true = features_of(truths)
        for row, metrics in rows.items():
            made = features_of(records[row])
            metrics["kernel_distance"] = {
                part: set_distance(made[mask], true[mask], seed) for part, mask in parts.items()
            }
    gains = {
        (row, reference): _gains(columns[row], columns[reference], parts, seed, names)
        for row in records
        for reference in references.get(row, ())
        if reference in records and reference != row
    }
    clusters = _clusters(names)
    return RecallTable(
        resampled="windows" if clusters is None else f"{len(set(clusters))} worlds or recordings",
        counts={part: int(mask.sum()) for part, mask in parts.items()},
        rows=rows,
        gains=gains,
        windows={
            "visible_from_context": float(np.mean([window.share_visible for window in windows])),
            "seen_in_memory_phase": float(np.mean([window.share_remembered for window in windows])),
            "median_age_frames": float(np.median([window.age_frames for window in windows])),
            "cloud_coverage": float(coverage.mean()),
        },
    )


def metric_lines(table: RecallTable, metric: str) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of one metric: rows by parts."""
    header = [HEADINGS[metric], *_part_names(table)]
    lines = [[row, *_cells(metrics, metric)] for row, metrics in table.rows.items()]
    return header, lines


def gain_lines(table: RecallTable, references: Sequence[str] | None = None) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the paired differences, to ``references`` alone where they are given."""
    lines = [
        [row, reference, HEADINGS[metric], *_cells(metrics, metric)]
        for (row, reference), metrics in table.gains.items()
        if references is None or reference in references
        for metric in metrics
    ]
    return ["gain of", "over", "metric", *_part_names(table)], lines


def shown_metrics(table: RecallTable) -> list[str]:
    """Return the metrics that were measured, in their order."""
    return [metric for metric in METRICS if metric in next(iter(table.rows.values()))]


def _parts(
    windows: Sequence[MemoryWindow], coverage: NDArray[np.float64], ages_s: Sequence[tuple[float, float]]
) -> dict[str, NDArray[np.bool_]]:
    """Return part -> (N,): all windows, by time to the target, by what the cloud covers, by age; no empty ones."""
    times_s = np.array([window.times_s[0] for window in windows])
    offsets = np.array([window.offset_frames for window in windows])
    rate_hz = float(np.median(offsets / times_s))
    short, middle = OFFSET_BINS
    short_s, middle_s = (f"{round(offset / rate_hz, 1):g}" for offset in OFFSET_BINS)
    parts = {
        ALL: np.ones(len(windows), bool),
        f"<= {short_s} s": offsets <= short,
        f"{short_s}-{middle_s} s": (offsets > short) & (offsets <= middle),
        f"> {middle_s} s": offsets > middle,
        f"cloud < {COVERED:.0%}": coverage < COVERED,
        f"cloud >= {COVERED:.0%}": coverage >= COVERED,
    }
    since_s = np.array([window.age_frames for window in windows]) / rate_hz
    for low_s, high_s in ages_s:
        name = f"> {low_s:g} s" if math.isinf(high_s) else f"{low_s:g}-{high_s:g} s"
        parts[f"last seen {name} ago"] = (since_s >= low_s) & (since_s < high_s)
    return {part: mask for part, mask in parts.items() if mask.any()}


def _columns(records: Sequence[Record]) -> dict[str, NDArray[np.float64]]:
    names = [name for name in ("psnr_db", "ssim", "energy", "truth_energy", "lpips") if name in records[0]]
    return {name: np.array([record[name][0] for record in records], dtype=np.float64) for name in names}


def _metrics(
    columns: Mapping[str, NDArray[np.float64]],
    parts: Mapping[str, NDArray[np.bool_]],
    seed: int,
    names: NDArray[np.str_] | None,
) -> dict[str, dict[str, Interval]]:
    found: dict[str, dict[str, Interval]] = {}
    for metric in ("psnr_db", "ssim", "lpips"):
        if metric in columns:
            values = columns[metric]
            found[metric] = {
                part: bootstrap_mean(values[mask], seed, _clusters(names, mask)) for part, mask in parts.items()
            }
    found["sharpness"] = {
        part: bootstrap_ratio(columns["energy"][mask], columns["truth_energy"][mask], seed, _clusters(names, mask))
        for part, mask in parts.items()
    }
    return found


def _gains(
    row: Mapping[str, NDArray[np.float64]],
    reference: Mapping[str, NDArray[np.float64]],
    parts: Mapping[str, NDArray[np.bool_]],
    seed: int,
    names: NDArray[np.str_] | None,
) -> dict[str, dict[str, Interval]]:
    return {
        metric: {
            part: paired_difference(row[metric][mask], reference[metric][mask], seed, _clusters(names, mask))
            for part, mask in parts.items()
        }
        for metric in ("psnr_db", "ssim", "lpips")
        if metric in row and metric in reference
    }


def features_of(records: Sequence[Record]) -> torch.Tensor:
    """Return the features (N, D) of the first target of each record."""
    return torch.tensor([record["features"][0] for record in records])


def set_distance(made: torch.Tensor, true: torch.Tensor, seed: int) -> Interval:
    """Return the kernel distance of features of images (N, D) to those of what the camera saw; NaN for too few."""
    if len(made) < LEAST_IMAGES:
        return Interval(math.nan, math.nan, math.nan, len(made), 0)
    found = kernel_distance(true, made, torch.Generator().manual_seed(seed))
    return Interval(found.value, found.low, found.high, len(made), 0)


def _clusters(names: NDArray[np.str_] | None, mask: NDArray[np.bool_] | None = None) -> Sequence[object] | None:
    """Return the groups of the windows, or None where there are too few of them for a bootstrap over groups."""
    if names is None:
        return None
    return enough_clusters([str(name) for name in (names if mask is None else names[mask])])


def _part_names(table: RecallTable) -> list[str]:
    return [f"{part} (n = {count})" for part, count in table.counts.items()]


def _cells(metrics: Mapping[str, Mapping[str, Interval]], metric: str) -> list[str]:
    return [format_interval(interval, DIGITS[metric]) for interval in metrics[metric].values()]
