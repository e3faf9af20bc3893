"""What a recall evaluation leaves behind: results.json, table.csv and report.html with memory beside truth."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.files import atomic_write_text
from come_nav.evaluation.protocols.memory_windows import MemoryWindow, RevisitLimits
from come_nav.evaluation.protocols.quality import COPY_LAST, ImagesFunction, QualityRow, read_batch
from come_nav.evaluation.protocols.results import Record, flat
from come_nav.evaluation.reports.composition_tables import RowPasses, marked, marked_lines, marks_of, pass_lines
from come_nav.evaluation.reports.memory_tables import (
    ALL,
    METRICS,
    RecallTable,
    gain_lines,
    metric_lines,
    shown_metrics,
)
from come_nav.evaluation.reports.report import PASSES, strict, timing, timing_lines
from come_nav.evaluation.reports.tables import HEADINGS, format_interval
from come_nav.viz.figures import imagined_vs_real, plot_bars_with_intervals, rgb_from_unit
from come_nav.viz.report import HtmlReport

METHOD = (
    "The robot explores (memory phase), its memories fill, and it drives on (test phase). A window starts in the test "
    "phase with four context frames; its target is a later frame that the context hardly shows, that the memory phase "
    "saw, and that was not seen for a while. Which pixels of a target were seen before is decided by true depth: a "
    "pixel was seen by a frame that measured the same surface there.\n\n"
    "Every row makes the image at the target's pose. 'nearest remembered frame' copies the frame of the memory phase "
    "nearest in pose (0.5 m count as 1 rad); 'geometry only' renders the remembered point cloud and fills its holes "
    "smoothly; 'context geometry' does the same with the context's points. The other rows "
    "compose experts; 'no contrast' averages their predictions in place of adding what each memory changes. Their "
    "images are what the composed sampler drew, decoded; only rows named 'render blend' have the rendered cloud pasted "
    "in afterwards. 'memory network without memory' is the network of the memory experts, which sees all that SLTM "
    "sees but for the cloud.\n\n"
    "PSNR and SSIM are against the true image, PSNR is capped at 60 dB. The sharpness ratio is the gradient energy "
    "of all images over that of the true ones. The kernel distance compares the set of all images with that of the "
    "true ones, in features of the depth network of the model tiny: near 0 they look like what a camera sees, wherever "
    "that is; its brackets hold the middle 95 % of subsets. Other brackets are 95 % bootstrap intervals; gains are "
    "paired on the same windows and noise."
)
EXAMPLES = 8


@dataclass(frozen=True)
class RecallEvaluation:
    """A finished evaluation.

    Attributes:
        title: of the report.
        windows: that were evaluated.
        rows: competitors, to draw the examples again.
        main: name of the row that examples are chosen by.
        images: brings frames to the size that was compared.
        records: row -> records in the order of ``windows``.
        table: all figures.
        limits: of which the windows fulfil one each.
        weights: of the experts, by row.
        settings: all that the figures depend on.
        facts: further things worth knowing.
        notes: what a reader must know, one line each.
        passes: of the compositions.
    """

    title: str
    windows: Sequence[MemoryWindow]
    rows: Sequence[QualityRow]
    main: str
    images: ImagesFunction
    records: Mapping[str, Sequence[Record]]
    table: RecallTable
    limits: Sequence[RevisitLimits]
    weights: tuple[list[str], list[list[str]]]
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=list)
    passes: Sequence[RowPasses] = ()


def write_recall_results(folder: Path, evaluation: RecallEvaluation) -> None:
    """Write results.json (everything) and table.csv (the figures alone: equal runs give equal bytes)."""
    document = {
        "title": evaluation.title,
        "settings": evaluation.settings,
        "windows": [window_facts(window) for window in evaluation.windows],
        "table": evaluation.table.to_mapping(),
        "compositions": [row.to_mapping() for row in evaluation.passes],
        "facts": evaluation.facts,
        "notes": list(evaluation.notes),
        "timing": timing(evaluation.records),
    }
    atomic_write_text(folder / "results.json", json.dumps(strict(document), indent=1) + "\n")
    atomic_write_text(folder / "table.csv", _csv(evaluation.table))


def window_facts(window: MemoryWindow) -> dict[str, Any]:
    """Return what is known of one window as JSON values."""
    return {
        "recording": window.window.recording_id,
        "start": window.window.start,
        "target": window.targets[0],
        "visible_from_context": round(window.share_visible, 4),
        "seen_in_memory_phase": round(window.share_remembered, 4),
        "age_frames": window.age_frames,
    }


def write_recall_report(folder: Path, evaluation: RecallEvaluation) -> Path:
    """Write the self-contained report.html into ``folder``; return its path."""
    table, marks = evaluation.table, marks_of(evaluation.passes)
    report = HtmlReport(
        evaluation.title, headline(evaluation), "results.jsonl, results.json and table.csv: all figures"
    )
    for note in evaluation.notes:
        report.text(note)
    report.heading("Memory against truth")
    report.figure(
        examples_figure(evaluation), f"Windows over the range of '{evaluation.main}' by PSNR, noise drawn anew."
    )
    report.heading("Results")
    caption = f"{table.counts[ALL]} windows; 95 % bootstrap intervals over {table.resampled}"
    for metric in shown_metrics(table):
        lines = marked_lines(metric_lines(table, metric), marks)
        report.table(*lines, caption, highlight=[marked(evaluation.main, marks)])
        if metric not in ("sharpness", "kernel_distance"):
            report.figure(_bars(table, metric), f"{HEADINGS[metric]} of each row over all windows.")
    report.heading("Compared on the same windows")
    compared = "row minus reference, paired; an interval above 0 is a gain (of LPIPS: below 0)"
    report.table(*marked_lines(gain_lines(table), marks), compared)
    report.heading("Weights of the experts", 3)
    report.table(*evaluation.weights)
    report.heading("Passes of each composition", 3)
    report.table(*pass_lines(evaluation.passes), PASSES)
    report.heading("Time of one window", 3)
    note = "in batches; the longest holds the making of a drive's memories; no figure depends on it"
    report.table(*timing_lines(evaluation.records, digits=4), note)
    report.heading("How it was measured")
    report.text(METHOD)
    report.text(f"Targets: {'; or '.join(each.describe() for each in evaluation.limits)}.")
    report.key_values({**flat(evaluation.settings), **flat(evaluation.facts), **flat({"windows": table.windows})})
    return report.write(folder / "report.html")


def headline(evaluation: RecallEvaluation) -> str:
    """Return the gains of the main row in one line."""
    found = [
        f"{format_interval(metrics['psnr_db'][ALL], 2)} dB and {format_interval(metrics['ssim'][ALL])} SSIM "
        f"over '{reference}'"
        for (row, reference), metrics in evaluation.table.gains.items()
        if row == evaluation.main
    ]
    return f"'{evaluation.main}', {evaluation.table.counts[ALL]} windows: {'; '.join(found)}"


def pick_examples(evaluation: RecallEvaluation) -> list[MemoryWindow]:
    """Return windows spread over the main row's range of PSNR, worst first."""
    records = evaluation.records[evaluation.main]
    order = sorted(range(len(records)), key=lambda index: float(records[index]["psnr_db"][0]))
    count = min(EXAMPLES, len(order))
    chosen = dict.fromkeys(order[round(part * (len(order) - 1) / max(1, count - 1))] for part in range(count))
    return [evaluation.windows[index] for index in chosen]


def examples_figure(evaluation: RecallEvaluation) -> bytes:
    """Return a PNG: one window per column, what was seen last, the truth and every row beneath."""
    windows = pick_examples(evaluation)
    by_place = sorted(range(len(windows)), key=lambda index: windows[index].window.recording_id)
    strips: dict[str, dict[int, NDArray[np.uint8]]] = {}
    for index in by_place:  # drive by drive: the memories of one drive at a time
        batch = read_batch([windows[index]], evaluation.images)
        strips.setdefault("last seen", {})[index] = rgb_from_unit(batch.last)[0]
        strips.setdefault("truth", {})[index] = rgb_from_unit(batch.truth[0])[0]
        for row in evaluation.rows:
            if row.name != COPY_LAST:
                view = row.imagine(batch)[0].float().clamp(-1, 1)
                strips.setdefault(row.name, {})[index] = rgb_from_unit(view)[0]
    rows = [(name, [found[index] for index in range(len(windows))]) for name, found in strips.items()]
    names = [f"+{window.times_s[0]:.1f} s" for window in windows]
    return imagined_vs_real(rows, names)


def _bars(table: RecallTable, metric: str) -> bytes:
    found = {row: metrics[metric][ALL] for row, metrics in table.rows.items()}
    return plot_bars_with_intervals(
        list(found),
        [interval.value for interval in found.values()],
        [interval.low for interval in found.values()],
        [interval.high for interval in found.values()],
        HEADINGS[metric],
        n=table.counts[ALL],
    )


def _csv(table: RecallTable) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    metrics = [metric for metric in METRICS if metric in shown_metrics(table)]
    writer.writerow(
        ["row", "over", "part", "n", *(f"{name}{end}" for name in metrics for end in ("", "_low", "_high"))]
    )
    lines = {(row, ""): found for row, found in table.rows.items()} | table.gains
    for (row, reference), found in lines.items():
        for part, count in table.counts.items():
            cells: list[str] = []
            for metric in metrics:
                interval = found[metric][part] if metric in found else None
                ends = () if interval is None else (interval.value, interval.low, interval.high)
                cells += [repr(value) for value in ends] or [""] * 3
            writer.writerow([row, reference, part, count, *cells])
    return buffer.getvalue()
