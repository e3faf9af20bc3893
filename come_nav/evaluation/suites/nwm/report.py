"""Tables and page of the protocol "nwm"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from come_nav.core.files import atomic_write_text
from come_nav.data.nwm.dataset import DatasetFacts
from come_nav.evaluation.metrics.statistics import Interval
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.results import Record, flat
from come_nav.evaluation.protocols.rows import Row
from come_nav.evaluation.reports.examples import candidates_figure, make_example, paths_figure, pick_examples
from come_nav.evaluation.reports.report import strict
from come_nav.evaluation.reports.tables import format_interval
from come_nav.evaluation.suites.fingerprints import machine_facts
from come_nav.viz.report import HtmlReport

METRES = {"ATE [m]": "ate_m", "RPE [m]": "rpe_m", "final [m]": "final_m"}
SPACINGS = {"ATE [spacings]": "ate_spacings", "RPE [spacings]": "rpe_spacings", "final [spacings]": "final_spacings"}


def planning_document(
    settings: Mapping[str, Any],
    facts: DatasetFacts,
    records: Mapping[str, Sequence[Record]],
    table: Mapping[str, Mapping[str, Interval]],
) -> dict[str, Any]:
    """Return everything that the protocol found, as JSON values."""
    plain = {row: {name: asdict(value) for name, value in metrics.items()} for row, metrics in table.items()}
    not_ok = {row: sum(record["status"] != "OK" for record in found) for row, found in records.items()}
    return {
        "title": f"NWM planning protocol, {facts.name}",
        "settings": json.loads(json.dumps(settings)),
        "spacing_m": facts.spacing_m,
        "prior": "published" if facts.prior_known else "that of recon: none is published for this data set",
        "windows": len(next(iter(records.values()))),
        "table": plain,
        "not_ok": not_ok,
        "facts": machine_facts(),
    }


def headline(document: Mapping[str, Any]) -> str:
    """Return one line with all that a published figure must be compared under."""
    settings, search = document["settings"], document["settings"]["search"]
    sampler = settings["model"]["sampler"]
    quirks = "official quirks on" if all(settings["quirks"].values()) else "official quirks off"
    return (
        f"population {search['samples']}, top-k {search['elites']}, iterations {search['iterations']}, repeats "
        f"{search['repeats']}, {search['steps']} waypoints, {sampler['name']} {sampler['steps']} steps, cost "
        f"{settings['cost']}, rollout through {settings['model']['rollout_path']}, stride "
        f"{settings['model']['rollout_stride']}, {quirks}"
    )


def table_lines(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells; spacings lead where the official quirks are on."""
    first, second = (SPACINGS, METRES) if document["settings"]["quirks"]["goal_in_spacings"] else (METRES, SPACINGS)
    columns = {**first, **second}
    lines = []
    for row, metrics in document["table"].items():
        cells = [format_interval(Interval(**metrics[name])) for name in columns.values()]
        lines.append([row, *cells, str(metrics["ate_m"]["n"]), str(document["not_ok"][row])])
        lines[-1].append(document.get("kinematics", {}).get(row) or "-")
    return ["row", *columns, "n", "not OK", "kinematics"], lines


def write_planning(
    folder: Path,
    document: Mapping[str, Any],
    windows: Sequence[Window],
    rows: Sequence[Row],
    records: Mapping[str, Sequence[Record]],
    *,
    report: bool,
) -> Path | None:
    """Write results.json and, unless told not to, report.html; return the page's path."""
    atomic_write_text(folder / "results.json", json.dumps(strict(document), indent=1) + "\n")
    if not report:
        return None
    main = rows[-1]
    page = HtmlReport(document["title"], headline(document), "results.jsonl and results.json hold every figure.")
    page.heading("Results")
    page.table(*table_lines(document), "mean with 95 % bootstrap interval", highlight=[main.name])
    page.heading("Examples")
    for label, window in pick_examples(windows, records[main.name]):
        example = make_example(label, window, main, rows)
        drawn = candidates_figure(example, lambda window: None)
        if drawn is not None:
            page.figure(drawn, f"Candidates by cost, {label} window: {example.place}.")
        page.figure(paths_figure(example), f"All rows from above, {label} window: {example.place}.")
    page.heading("Settings")
    page.key_values(flat({**document["settings"], **document["facts"]}))
    return page.write(folder / "report.html")
