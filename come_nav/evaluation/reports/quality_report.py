"""What a quality evaluation leaves behind: results.json, table.csv, figures, image strips and report.html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from come_nav.core.files import atomic_write_text
from come_nav.evaluation.protocols.quality import (
    AUTOENCODER,
    COPY_LAST,
    DEPTH_WARP,
    JUMP,
    ImagesFunction,
    QualityRow,
    QualityWindow,
    read_batch,
)
from come_nav.evaluation.protocols.results import Record, flat
from come_nav.evaluation.reports.quality_tables import IMAGE_METRICS, QualityTable, gain_lines, metric_lines
from come_nav.evaluation.reports.report import strict, timing, timing_lines
from come_nav.evaluation.reports.tables import HEADINGS, format_interval
from come_nav.viz.figures import imagined_vs_real, plot_error_over_time, rgb_from_unit
from come_nav.viz.report import HtmlReport

METHOD = (
    "From each start frame every row makes the image that the camera will see at each horizon. The model is given "
    "the context frames and the true pose of the target: a jump imagines each target at once, a rollout imagines "
    "frame after frame along the true poses and looks back on its own frames. "
    f"'{COPY_LAST}' is the guess that nothing moves. '{AUTOENCODER}' encodes and decodes the true image: no model in "
    f"this latent space can do better. '{DEPTH_WARP}' projects the context frames into the target's view with their "
    "depth and fills what they did not see from its neighbours: what geometry alone can know.\n\n"
    "PSNR and SSIM are against the true image, PSNR is capped at 60 dB. The sharpness ratio is the gradient energy "
    "of all images over that of the true ones; blur lowers it, so a row that wins by blurring shows. Brackets are "
    "95 % bootstrap intervals; gains are paired on the same windows."
)


@dataclass(frozen=True)
class QualityEvaluation:
    """A finished evaluation.

    Attributes:
        title: of the report.
        windows: that were evaluated.
        rows: competitors, to draw the examples again.
        images: brings frames to the size that was compared.
        records: row -> records in the order of ``windows``.
        table: all figures.
        settings: all that the figures depend on.
        facts: further things worth knowing.
    """

    title: str
    windows: Sequence[QualityWindow]
    rows: Sequence[QualityRow]
    images: ImagesFunction
    records: Mapping[str, Sequence[Record]]
    table: QualityTable
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def main_row(self) -> QualityRow:
        """The row that examples are chosen by: the jump where there is a model, else the last."""
        return next((row for row in self.rows if row.name == JUMP), self.rows[-1])


def write_quality_results(folder: Path, evaluation: QualityEvaluation) -> None:
    """Write results.json (everything) and table.csv (the figures alone: equal runs give equal bytes)."""
    document = {
        "title": evaluation.title,
        "settings": evaluation.settings,
        "table": evaluation.table.to_mapping(),
        "facts": evaluation.facts,
        "timing": timing(evaluation.records),
    }
    atomic_write_text(folder / "results.json", json.dumps(strict(document), indent=1) + "\n")
    atomic_write_text(folder / "table.csv", _csv(evaluation.table))


def write_quality_report(folder: Path, evaluation: QualityEvaluation) -> Path:
    """Write the self-contained report.html into ``folder``; return its path."""
    table = evaluation.table
    report = HtmlReport(
        evaluation.title, _headline(evaluation), "results.jsonl, results.json and table.csv: all figures"
    )
    report.heading("Results")
    for metric in IMAGE_METRICS:
        caption = f"{table.windows} windows; 95 % bootstrap intervals over {table.resampled}"
        report.table(*metric_lines(table, metric), caption, highlight=[evaluation.main_row.name])
        report.figure(_curves(table, metric), f"{HEADINGS[metric]} of each row over the horizon, with intervals.")
    report.heading(f"Against '{COPY_LAST}'")
    report.table(*gain_lines(table), "paired on the same windows; an interval above 0 is a gain")
    report.heading("Examples")
    report.text(f"Windows at the quartiles of '{evaluation.main_row.name}' by mean PSNR; its noise is drawn anew here.")
    for label, png in _strips(evaluation):
        report.figure(png, label)
    report.heading("Time of one window", 3)
    note = "all horizons of a window, in batches; no figure depends on it"
    report.table(*timing_lines(evaluation.records), note)
    report.heading("How it was measured")
    report.text(METHOD)
    report.key_values({**flat(evaluation.settings), **flat(evaluation.facts)})
    return report.write(folder / "report.html")


def pick_quartiles(evaluation: QualityEvaluation) -> list[tuple[str, QualityWindow]]:
    """Return the windows with the worst, quartile, median and best mean PSNR of the main row."""
    records = evaluation.records[evaluation.main_row.name]
    order = sorted(range(len(records)), key=lambda index: float(np.mean(records[index]["psnr_db"])))
    chosen: dict[int, str] = {}
    for label, share in (
        ("worst", 0.0),
        ("lower quartile", 0.25),
        ("median", 0.5),
        ("upper quartile", 0.75),
        ("best", 1),
    ):
        chosen.setdefault(order[round(share * (len(order) - 1))], label)
    return [(label, evaluation.windows[index]) for index, label in chosen.items()]


def _strips(evaluation: QualityEvaluation) -> list[tuple[str, bytes]]:
    """Return caption and PNG per example: the context and the truth above, every row below."""
    chosen = pick_quartiles(evaluation)
    batch = read_batch([window for _, window in chosen], evaluation.images)
    imagined = {row.name: rgb_from_unit(row.imagine(batch).clamp(-1, 1)) for row in evaluation.rows}
    strips = []
    for index, (label, item) in enumerate(chosen):
        context = rgb_from_unit(evaluation.images(batch.context[index]).cpu())
        blank = [np.full_like(context[0], 255)] * len(context)
        rows = [("camera", [*context, *rgb_from_unit(batch.truth[index])])]
        rows += [(name, [*blank, *views[index]]) for name, views in imagined.items() if name != COPY_LAST]
        times_s = [*item.window.context_stamps_s, *item.times_s]
        names = [f"{time_s:+.2f} s" for time_s in times_s]
        place = f"{item.window.recording_id}, frame {item.window.start}"
        strips.append((f"{label}: {place}", imagined_vs_real(rows, names, f"{label}: {place}")))
    return strips


def _curves(table: QualityTable, metric: str) -> bytes:
    series = {}
    for row, metrics in table.rows.items():
        columns = [[getattr(interval, end) for interval in metrics[metric]] for end in ("value", "low", "high")]
        series[row] = (table.horizons_s, *columns)
    return plot_error_over_time(
        series, y_label=HEADINGS[metric], x_label="horizon [s]", from_zero=metric == "sharpness"
    )


def _headline(evaluation: QualityEvaluation) -> str:
    table, row = evaluation.table, evaluation.main_row.name
    if row not in table.gains:
        return f"{table.windows} windows"
    gains = table.gains[row]["psnr_db"]
    words = [
        f"{format_interval(gain, 2)} dB at {horizon_s:g} s"
        for gain, horizon_s in zip(gains, table.horizons_s, strict=True)
    ]
    return f"'{row}' over '{COPY_LAST}', {table.windows} windows: {', '.join(words)}"


def _csv(table: QualityTable) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [*IMAGE_METRICS, "gain_psnr_db", "gain_ssim"]
    writer.writerow(["row", "horizon_s", "n", *(f"{name}{end}" for name in names for end in ("", "_low", "_high"))])
    for row, metrics in table.rows.items():
        for index, horizon_s in enumerate(table.horizons_s):
            intervals = [metrics[name][index] for name in IMAGE_METRICS]
            intervals += [found[index] for found in table.gains.get(row, {}).values()]
            cells = [repr(value) for interval in intervals for value in (interval.value, interval.low, interval.high)]
            cells += [""] * (3 * len(names) - len(cells))
            writer.writerow([row, repr(horizon_s), table.windows, *cells])
    return buffer.getvalue()
