"""From records of imagined images to a table: each row at each horizon, and its gain over copying the last frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.evaluation.metrics.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    enough_clusters,
    paired_difference,
)
from come_nav.evaluation.protocols.quality import COPY_LAST
from come_nav.evaluation.protocols.results import Record
from come_nav.evaluation.reports.tables import DIGITS, HEADINGS, format_interval

IMAGE_METRICS = ("psnr_db", "ssim", "sharpness")
GAIN_METRICS = ("psnr_db", "ssim")


@dataclass(frozen=True)
class QualityTable:
    """All figures of one evaluation; nothing in it depends on how fast or in how many runs they were computed.

    Attributes:
        horizons_s: (K) times of the targets after the start.
        windows: number of windows.
        resampled: what the bootstrap draws: ``windows``, or e.g. ``20 worlds or recordings``.
        rows: row -> metric -> (K) intervals: ``psnr_db``, ``ssim``, ``sharpness`` (gradient energy of all images over
            that of the truth: below 1 is blurred, above 1 noisy).
        gains: row -> metric -> (K) intervals of the paired difference to ``copy the last frame``; not of that row.
    """

    horizons_s: list[float]
    windows: int
    resampled: str
    rows: dict[str, dict[str, list[Interval]]]
    gains: dict[str, dict[str, list[Interval]]]

    def to_mapping(self) -> dict[str, Any]:
        """Return the figures as JSON values."""

        def plain(rows: Mapping[str, Mapping[str, Sequence[Interval]]]) -> list[dict[str, Any]]:
            return [
                {"row": row, "horizon_s": horizon_s, **{name: asdict(found[index]) for name, found in metrics.items()}}
                for row, metrics in rows.items()
                for index, horizon_s in enumerate(self.horizons_s)
            ]

        return {
            "horizons_s": self.horizons_s,
            "windows": self.windows,
            "resampled": self.resampled,
            "rows": plain(self.rows),
            "gains_over_copy": plain(self.gains),
        }


def quality_table(
    records: Mapping[str, Sequence[Record]],
    horizons_s: Sequence[float],
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> QualityTable:
    """Summarise.

    Args:
        records: row -> records; all rows hold the same windows in the same order.
        horizons_s: times of the targets.
        seed: of the bootstrap.
        groups: recording id -> group whose windows are not independent (a world); None, or fewer than MIN_CLUSTERS
            groups, takes windows as independent.
    """
    first = next(iter(records.values()))
    names = None if groups is None else [groups[record["recording"]] for record in first]
    labels = enough_clusters(names)
    columns = {row: _columns(found) for row, found in records.items()}

    def each_horizon(estimate: Callable[[int], Interval]) -> list[Interval]:
        return [estimate(index) for index in range(len(horizons_s))]

    rows, gains = {}, {}
    copied = columns.get(COPY_LAST)
    for row, found in columns.items():
        rows[row] = {
            name: each_horizon(lambda k, v=found[name]: bootstrap_mean(v[:, k], seed, labels))  # type: ignore[misc]
            for name in ("psnr_db", "ssim")
        }
        rows[row]["sharpness"] = each_horizon(
            lambda k, v=found: bootstrap_ratio(v["energy"][:, k], v["truth_energy"][:, k], seed, labels)  # type: ignore[misc]
        )
        if copied is not None and row != COPY_LAST:
            gains[row] = {
                name: each_horizon(
                    lambda k, v=found[name], c=copied[name]: paired_difference(v[:, k], c[:, k], seed, labels)  # type: ignore[misc]
                )
                for name in GAIN_METRICS
            }
    resampled = "windows" if labels is None else f"{len(set(labels))} worlds or recordings"
    return QualityTable([float(value) for value in horizons_s], len(first), resampled, rows, gains)


def metric_lines(table: QualityTable, metric: str) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of one metric: rows by horizons."""
    header = [HEADINGS[metric], *_horizon_names(table), "n"]
    lines = []
    for row, metrics in table.rows.items():
        cells = [format_interval(interval, DIGITS[metric]) for interval in metrics[metric]]
        lines.append([row, *cells, str(table.windows)])
    return header, lines


def gain_lines(table: QualityTable) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of the paired differences to copying the last frame."""
    header = [f"gain over '{COPY_LAST}'", "metric", *_horizon_names(table), "n"]
    lines = [
        [row, HEADINGS[metric], *[format_interval(value, DIGITS[metric]) for value in values], str(table.windows)]
        for row, metrics in table.gains.items()
        for metric, values in metrics.items()
    ]
    return header, lines


def _horizon_names(table: QualityTable) -> list[str]:
    return [f"{horizon_s:g} s" for horizon_s in table.horizons_s]


def _columns(records: Sequence[Record]) -> dict[str, NDArray[np.float64]]:
    """Return metric -> (N, K)."""
    names = ("psnr_db", "ssim", "energy", "truth_energy")
    return {name: np.array([record[name] for record in records], dtype=np.float64) for name in names}
