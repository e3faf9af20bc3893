"""What an evaluation leaves behind: results.json, table.csv, plan.mp4, figures and one self-contained report.html."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from come_nav.core.files import atomic_path, atomic_write_text
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.results import Record, flat
from come_nav.evaluation.protocols.rows import CONSTANT_VELOCITY, PERFECT_MODEL, WORLD_MODEL, Row
from come_nav.evaluation.reports import examples as show
from come_nav.evaluation.reports.composition_tables import RowPasses, marked, marked_lines, marks_of, pass_lines
from come_nav.evaluation.reports.registration_tables import PART_METRICS
from come_nav.evaluation.reports.tables import (
    PlanningTable,
    format_interval,
    gap_lines,
    group_lines,
    image_lines,
    plan_lines,
    ratio_lines,
    registration_lines,
    registration_ratio_lines,
)
from come_nav.viz.figures import plot_bars_with_intervals, plot_error_over_time
from come_nav.viz.report import HtmlReport

METHOD = (
    "Each window gives the planner the context frames up to a start frame and, as its goal, the frame that the camera "
    "saw at the end of the horizon. One plan is made and never corrected (open loop). ATE is the root mean square "
    "distance between the plan's waypoints and the poses really driven at the same times, without alignment; RPE is "
    "that of the steps between consecutive waypoints; the start pose counts in neither. One spacing is the mean "
    "distance between waypoints really driven. A plan whose status is not OK is never driven and counts as standing "
    "still. A success is a plan whose last pose is within the stated distance and turn of the goal pose. Brackets are "
    "95 % bootstrap intervals, of the success rate Wilson's interval over windows."
)
PASSES = (
    "each row is the product of these densities, to these powers; equal passes have cancelled; '= row' is equal to "
    "that row by construction"
)
GAP_CLOSURE = "(ATE constant velocity - ATE of the row) / (ATE constant velocity - ATE perfect model), paired"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        title: of the report, e.g. the recording's name.
        windows: that were evaluated.
        rows: competitors, to plan the examples again.
        records: row -> records in the order of ``windows``.
        table: all figures.
        settings: all that the figures depend on.
        facts: further things worth knowing: versions, device, command; nothing here changes a figure.
        map_of: obstacles around a window, for figures.
        main: name of the row to show images of, where there is such a row.
        passes: of the compositions, where rows compose experts.
    """

    title: str
    windows: Sequence[Window]
    rows: Sequence[Row]
    records: Mapping[str, Sequence[Record]]
    table: PlanningTable
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    map_of: show.MapFunction = field(default=lambda window: None)
    main: str = WORLD_MODEL
    passes: Sequence[RowPasses] = ()

    @property
    def main_row(self) -> Row:
        """The row that the report shows images of."""
        by_name = {row.name: row for row in self.rows}
        for name in (self.main, PERFECT_MODEL, CONSTANT_VELOCITY):
            if name in by_name:
                return by_name[name]
        return self.rows[0]


def write_results(folder: Path, evaluation: Evaluation) -> None:
    """Write results.json (everything) and table.csv (the figures alone: equal runs give equal bytes)."""
    document = {
        "title": evaluation.title,
        "settings": evaluation.settings,
        "windows": [
            {"recording": window.recording_id, "start": window.start, "goal": window.goal, "dt_s": window.dt_s}
            for window in evaluation.windows
        ],
        "table": evaluation.table.to_mapping(),
        **({"compositions": [row.to_mapping() for row in evaluation.passes]} if evaluation.passes else {}),
        "facts": evaluation.facts,
        "timing": timing(evaluation.records),
    }
    atomic_write_text(folder / "results.json", json.dumps(strict(document), indent=1) + "\n")
    atomic_write_text(folder / "table.csv", _csv(evaluation.table))


def timing(records: Mapping[str, Sequence[Record]]) -> dict[str, dict[str, float]]:
    """Return per row the median and the longest time of one plan in seconds, as measured when it was computed."""
    result = {}
    for row, found in records.items():
        seconds = np.array([record["seconds"] for record in found])
        if len(seconds):
            result[row] = {"median_s": float(np.median(seconds)), "max_s": float(seconds.max())}
    return result


def timing_lines(records: Mapping[str, Sequence[Record]], digits: int = 3) -> tuple[list[str], list[list[str]]]:
    """Return header and text cells of :func:`timing`."""
    lines = [
        [row, f"{times['median_s']:.{digits}f}", f"{times['max_s']:.{digits}f}"]
        for row, times in timing(records).items()
    ]
    return ["row", "median [s]", "longest [s]"], lines


def write_report(folder: Path, evaluation: Evaluation) -> Path:
    """Write plan.mp4 and the self-contained report.html into ``folder``; return the page's path."""
    main = evaluation.main_row
    chosen = show.pick_examples(evaluation.windows, evaluation.records[main.name])
    examples = [show.make_example(label, window, main, evaluation.rows) for label, window in chosen]
    report = HtmlReport(evaluation.title, _headline(evaluation), _footer(evaluation))
    _add_results(report, evaluation)
    _add_examples(report, evaluation, examples)
    film = show.video(examples, evaluation.map_of)
    with atomic_path(folder / "plan.mp4") as temporary:
        temporary.write_bytes(film.data)
    report.video(film.data, f"The drive, and the plan of '{main.name}' made at its start. {film.note}".strip())
    report.heading("How it was measured")
    report.text(METHOD)
    report.key_values({**flat(evaluation.settings), **flat(evaluation.facts)})
    return report.write(folder / "report.html")


def strict(value: Any) -> Any:
    """Return JSON values in which NaN and infinities are null."""
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _add_results(report: HtmlReport, evaluation: Evaluation) -> None:
    table, count = evaluation.table, len(evaluation.windows)
    report.heading("Results")
    marks = marks_of(evaluation.passes)
    header, lines = marked_lines(plan_lines(table), marks)
    interval = f"mean with 95 % bootstrap interval over {table.resampled}"
    caption = f"{count} windows; one spacing is {table.spacing_m:.3f} m; {interval}"
    report.table(header, lines, caption, highlight=[marked(evaluation.main_row.name, marks)])
    if table.gap_closure:
        report.table(*gap_lines(table), f"{GAP_CLOSURE}; {interval}")
    if table.registered:
        for metric in PART_METRICS:
            split = registration_lines(table.registered, metric)
            report.table(*split, f"By what the goal's image registers to; {interval}")
    names = list(table.rows)
    ates = [table.rows[name]["ate_m"] for name in names]
    report.figure(
        plot_bars_with_intervals(
            names,
            [ate.value for ate in ates],
            [ate.low for ate in ates],
            [ate.high for ate in ates],
            "ATE [m]",
            n=count,
        ),
        "Mean ATE of each row.",
    )
    report.figure(
        plot_error_over_time({name: (table.steps_s, errors) for name, errors in table.error_by_step.items()}),
        "Mean distance between plan and drive at each waypoint.",
    )
    report.heading("Compared on the same windows", 3)
    compared = "mean error of the row over that of the other, below 1 is better; differences below 0 are better"
    report.table(*marked_lines(ratio_lines(table), marks), compared)
    if table.registered:
        ratios = registration_ratio_lines(table.registered)
        report.table(*ratios, "The same where the goal's image registers to the context, to memory, or not at all")
    if evaluation.passes:
        report.heading("Passes of each composition", 3)
        report.table(*pass_lines(evaluation.passes), PASSES)
    if len(table.groups) > 1:
        report.heading("By world or recording", 3)
        report.table(*group_lines(table))
    report.heading("Time of one plan", 3)
    note = "measured while the records were computed; no figure depends on it"
    report.table(*timing_lines(evaluation.records), note)


def _add_examples(report: HtmlReport, evaluation: Evaluation, examples: Sequence[show.Example]) -> None:
    images = image_lines(evaluation.table)
    strip = show.imagined_figure(examples)
    if strip is not None or images[1]:
        report.heading("Imagined against real")
    if strip is not None:
        report.figure(strip, "What the model imagined for the end of the plan, and what the camera saw there.")
    if images[1]:
        report.table(*images, "against the goal frame; PSNR is capped at 60 dB; sharpness below 1 is blurred")
    report.heading("Examples")
    report.text(f"The windows on which '{evaluation.main_row.name}' had its best, median and worst ATE.")
    for example in examples:
        drawn = show.candidates_figure(example, evaluation.map_of)
        if drawn is not None:
            report.figure(drawn, f"Candidates by cost, {example.label} window: {example.place}.")
        report.figure(
            show.paths_figure(example),
            f"All rows from above in the start frame, {example.label} window: {example.place}.",
        )


def _headline(evaluation: Evaluation) -> str:
    ates = [f"{name} {format_interval(metrics['ate_m'])} m" for name, metrics in evaluation.table.rows.items()]
    return f"ATE over {len(evaluation.windows)} windows: {'; '.join(ates)}"


def _footer(evaluation: Evaluation) -> str:
    version = evaluation.facts.get("versions", {}).get("come_nav", "")
    return f"come_nav {version}: results.jsonl, results.json and table.csv beside this file hold every figure."


def _csv(table: PlanningTable) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    metrics = list(next(iter(table.rows.values())))
    columns = [
        f"{metric}{suffix}" for metric in [*metrics, "success", "gap_closure"] for suffix in ("", "_low", "_high")
    ]
    writer.writerow(["row", "n", "not_ok", *columns, "kinematics"])
    for row, found in table.rows.items():
        intervals = [*(found[metric] for metric in metrics), table.success[row]]
        intervals += [table.gap_closure[row]] if row in table.gap_closure else []
        figures = [repr(value) for interval in intervals for value in _ends(interval)]
        figures += [""] * (len(columns) - len(figures))
        writer.writerow([row, table.counts[row]["n"], table.counts[row]["not_ok"], *figures, table.kinematics[row]])
    return buffer.getvalue()


def _ends(interval: Any) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high
