"""``come-nav evaluate --suite quality``: imagined views at several horizons against the real ones."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.evaluate import (
    Outcome,
    chosen_rows,
    evaluate,
    model_settings,
    parse_horizons,
    prepare,
    print_outcome,
)
from come_nav.cli.output import Steps, format_table, outcome_document, print_files, print_json
from come_nav.core.errors import DataError

if TYPE_CHECKING:
    from come_nav.config import Config
    from come_nav.evaluation.protocols.protocol import ProtocolSettings
    from come_nav.evaluation.reports.quality_report import QualityEvaluation
    from come_nav.evaluation.suites.inputs import Input
    from come_nav.world_model.model import DiffusionWorldModel

ROWS = ("copy", "autoencoder", "depth", "jump", "rollout")
OF_MODEL = ("autoencoder", "jump", "rollout")
DEFAULT_HORIZONS = "1,2,4,8"
CONTEXT_FRAMES, RATE_HZ = 4, 4.0  # without a model


@dataclass(frozen=True)
class QualityOutcome:
    """What a quality evaluation made: the figures, the folder, the HTML page, and the plans that followed (or None)."""

    evaluation: QualityEvaluation
    folder: Path
    page: Path | None
    planning: Outcome | None


def run(args: argparse.Namespace) -> int:
    """Evaluate imagined views, or go on; print the tables and where the report is."""
    outcome = evaluate_views(args)
    if args.json:
        print_json(quality_document(outcome))
        return 0
    print_quality(outcome)
    if outcome.planning is not None:
        print()
        print_outcome(outcome.planning)
    return 0


def evaluate_views(args: argparse.Namespace) -> QualityOutcome:
    """Evaluate imagined views, or go on, as the flags of the verb say; then plan where plans are wanted."""
    from come_nav.evaluation.protocols.protocol import ProtocolSettings
    from come_nav.evaluation.reports.quality_report import write_quality_report, write_quality_results
    from come_nav.evaluation.suites.inputs import open_input, parse_part
    from come_nav.navigation.loading import load_configured_model

    config, folder = prepare(args)
    wanted = chosen_rows(args.rows, ROWS)
    model = load_configured_model(config) if any(name in OF_MODEL for name in wanted) else None
    rate_hz = RATE_HZ if model is None else model.rate_hz
    steps = parse_horizons(args.horizon or DEFAULT_HORIZONS, rate_hz)
    protocol = ProtocolSettings(
        context_frames=CONTEXT_FRAMES if model is None else model.context_frames,
        horizon_steps=steps[-1],
        rate_hz=rate_hz,
        choice=args.choice,
        seed=config.seed,
        part=parse_part(args.part),
    )
    source = open_input(args, config, rate_hz)
    evaluation = _evaluate(args, source, protocol, steps, wanted, config, model, folder)
    write_quality_results(folder, evaluation)
    page = None if args.no_report else write_quality_report(folder, evaluation)
    return QualityOutcome(evaluation, folder, page, _plan(args, folder, planned=model is not None))


def _evaluate(
    args: argparse.Namespace,
    source: Input,
    protocol: ProtocolSettings,
    steps: list[int],
    wanted: list[str],
    config: Config,
    model: DiffusionWorldModel | None,
    folder: Path,
) -> QualityEvaluation:
    from come_nav.core.settings import to_mapping
    from come_nav.evaluation.protocols.quality import WINDOWS_PER_BATCH, evaluate_quality, has_depth, quality_windows
    from come_nav.evaluation.protocols.results import ResultStore
    from come_nav.evaluation.reports.quality_report import QualityEvaluation
    from come_nav.evaluation.reports.quality_tables import quality_table
    from come_nav.evaluation.suites.inputs import machine_facts
    from come_nav.evaluation.suites.quality_rows import images_of, quality_rows
    from come_nav.navigation.loading import choose_device

    count = source.default_windows if args.windows is None else args.windows
    windows = quality_windows(source.recordings, protocol, steps, count)
    if "depth" in wanted and not has_depth(source.recordings):
        if args.rows is not None:
            raise DataError(f"{source.title}: has no depth registered to its images, so take 'depth' out of --rows")
        wanted = [name for name in wanted if name != "depth"]
    rows, images = quality_rows(wanted, model), images_of(model)
    settings: dict[str, Any] = {
        "input": source.fingerprint,
        "protocol": to_mapping(protocol),
        "quality": {"horizon_steps": steps, "windows_per_batch": WINDOWS_PER_BATCH},
        "device": choose_device(config.device).partition(":")[0],
        "model": None if model is None else model_settings(config, model),
    }
    with ResultStore(folder / "results.jsonl", settings, args.fresh) as store:
        with Steps(len(windows) * len(rows), "views", "window", leave=True) as progress:
            evaluate_quality(windows, rows, images, store, lambda record: progress.add(record["row"]))
        chosen = [item.window for item in windows]
        records = {row.name: store.table(chosen, row.name) for row in rows}
    return QualityEvaluation(
        title=source.title,
        windows=windows,
        rows=rows,
        images=images,
        records=records,
        table=quality_table(records, [step / protocol.rate_hz for step in steps], config.seed, source.groups),
        settings={"windows": len(windows), **settings},
        facts={**source.facts, **machine_facts()},
    )


def _plan(args: argparse.Namespace, folder: Path, planned: bool) -> Outcome | None:
    """Evaluate plans with the same model and inputs in the folder ``planning``; None where none are wanted."""
    from come_nav.evaluation.suites.inputs import PLANNING_WINDOWS

    default = 0 if args.input or not planned else PLANNING_WINDOWS
    count = default if args.planning_windows is None else args.planning_windows
    if count == 0:
        return None
    changed = {"suite": "planning", "windows": count, "rows": None, "horizon": None, "out": folder / "planning"}
    return evaluate(argparse.Namespace(**vars(args) | changed))


def quality_document(outcome: QualityOutcome) -> dict[str, Any]:
    """Return all figures of a quality evaluation and where its files are, for ``--json``."""
    planning = None if outcome.planning is None else outcome_document(outcome.planning)
    return {**outcome_document(outcome), "planning": planning}


def print_quality(outcome: QualityOutcome) -> None:
    """Print the tables of imagined views and where the files are."""
    from come_nav.evaluation.reports.quality_tables import IMAGE_METRICS, gain_lines, metric_lines

    table = outcome.evaluation.table
    print(f"{outcome.evaluation.title}: {table.windows} windows, intervals over {table.resampled}")
    for metric in IMAGE_METRICS:
        print("\n" + format_table(*metric_lines(table, metric)))
    if table.gains:
        print("\n" + format_table(*gain_lines(table)))
    print_files(outcome.folder, outcome.page)
