"""``--suite recall``: views of places seen long before, by every composition of memory experts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.evaluate import chosen_rows, parse_horizons, prepare
from come_nav.cli.output import Steps, format_table, outcome_document, print_files, print_json
from come_nav.core.errors import ComeNavError
from come_nav.evaluation.suites.memory import load_weights, memory_cache, memory_settings, suite_settings

if TYPE_CHECKING:
    from come_nav.config import Config
    from come_nav.evaluation.metrics.perceptual import Distance
    from come_nav.evaluation.protocols.memory_windows import MemoryWindow
    from come_nav.evaluation.protocols.protocol import ProtocolSettings
    from come_nav.evaluation.protocols.quality import ImagesFunction, QualityRow
    from come_nav.evaluation.protocols.results import ResultStore
    from come_nav.evaluation.reports.memory_report import RecallEvaluation
    from come_nav.evaluation.suites.compositions import ComposedRow, CompositionWeights
    from come_nav.evaluation.suites.memory_cache import MemoryCache
    from come_nav.evaluation.suites.memory_inputs import MemoryInput, Selection
    from come_nav.world_model.model import DiffusionWorldModel

LONGEST_S = "16"  # to the farthest target


@dataclass(frozen=True)
class RecallOutcome:
    """What an evaluation made: the figures, the folder and the HTML page (None with --no-report)."""

    evaluation: RecallEvaluation
    folder: Path
    page: Path | None


@dataclass(frozen=True)
class RecallSetup:
    """Everything that is evaluated, before the first image is made."""

    config: Config
    folder: Path
    model: DiffusionWorldModel
    protocol: ProtocolSettings
    found: MemoryInput
    selection: Selection
    cache: MemoryCache
    weights: CompositionWeights


def run(args: argparse.Namespace) -> int:
    """Evaluate recall, or go on; print the tables and where the report is."""
    outcome = evaluate_recall(args)
    if args.json:
        print_json(recall_document(outcome))
    else:
        print_recall(outcome)
    return 0


def evaluate_recall(args: argparse.Namespace) -> RecallOutcome:
    """Evaluate recall as the flags of the verb say; write the results and the report."""
    from come_nav.evaluation.reports.memory_report import write_recall_report, write_recall_results
    from come_nav.evaluation.suites.memory_rows import RECALL_ROWS, available_rows

    wanted = chosen_rows(args.rows, RECALL_ROWS)
    setup = set_up(args)
    evaluation = _evaluate(args, setup, available_rows(wanted, args.rows is not None, setup.model))
    write_recall_results(setup.folder, evaluation)
    page = None if args.no_report else write_recall_report(setup.folder, evaluation)
    return RecallOutcome(evaluation, setup.folder, page)


def set_up(args: argparse.Namespace) -> RecallSetup:
    """Load the model, drive the worlds or open the recordings, and choose the windows."""
    from come_nav.evaluation.protocols.protocol import ProtocolSettings
    from come_nav.evaluation.suites.memory_inputs import open_memory_input, select_windows
    from come_nav.navigation.loading import load_configured_model

    config, folder = prepare(args)
    weights, settings = load_weights(args, config), memory_settings(config)
    model = load_configured_model(config)
    longest = parse_horizons(args.horizon or LONGEST_S, model.rate_hz)[-1]
    protocol = ProtocolSettings(
        context_frames=model.context_frames, horizon_steps=longest, rate_hz=model.rate_hz, seed=config.seed
    )
    found = open_memory_input(args, config, model.rate_hz, longest)
    count = found.source.default_windows if args.windows is None else args.windows
    with Steps(len(found.drives), "looking for windows", "drive") as progress:
        selection = select_windows(found, protocol, range(1, longest + 1), count, progress.add)
    room = len(found.drives) if args.choose_weights else 1  # all windows are imagined again and again
    cache = memory_cache(model, config, found.drives, folder, settings, room)
    return RecallSetup(config, folder, model, protocol, found, selection, cache, weights)


def image_distance() -> tuple[Distance | None, str]:
    """Return LPIPS, or None and the line that says why it is left out."""
    from come_nav.evaluation.metrics.perceptual import pair_distance

    try:
        return pair_distance("lpips"), ""
    except ComeNavError as error:
        return None, f"LPIPS left out: {str(error).splitlines()[0]}"


def evaluate_windows(
    windows: Sequence[MemoryWindow],
    rows: Sequence[QualityRow],
    images: ImagesFunction,
    store: ResultStore,
    distance: Distance | None,
    on_record: Any,
) -> None:
    """Evaluate every row on all windows, drive by drive: the windows of one drive share its memories."""
    from come_nav.evaluation.protocols.quality import evaluate_quality

    for _, own in groupby(windows, key=lambda window: window.window.recording_id):
        evaluate_quality(list(own), rows, images, store, on_record, distance=distance)


def note_coverage(windows: Sequence[MemoryWindow], cache: MemoryCache, store: ResultStore) -> None:
    """Keep in the store what the point cloud knows of each target, where it is not there yet."""
    import numpy as np
    import torch

    from come_nav.evaluation.reports.memory_tables import FACTS
    from come_nav.evaluation.suites.memory_rows import start_extrinsics

    for name, own in groupby(windows, key=lambda window: window.window.recording_id):
        missing = [window for window in own if store.get(window.window, FACTS) is None]
        if not missing:
            continue
        poses = np.stack([np.asarray(window.window.recording.poses_xyyaw)[window.targets[0]] for window in missing])
        extrinsics = start_extrinsics([window.window for window in missing])
        shares = cache.of(name).coverage(torch.from_numpy(poses), extrinsics).tolist()
        for window, share in zip(missing, shares, strict=True):
            store.add({"recording": name, "start": window.window.start, "row": FACTS, "coverage": share})


def _evaluate(args: argparse.Namespace, setup: RecallSetup, wanted: list[str]) -> RecallEvaluation:
    from come_nav.core.settings import to_mapping
    from come_nav.evaluation.protocols.quality import WINDOWS_PER_BATCH
    from come_nav.evaluation.protocols.results import ResultStore
    from come_nav.evaluation.reports.memory_report import RecallEvaluation
    from come_nav.evaluation.reports.memory_tables import FACTS, recall_table
    from come_nav.evaluation.suites.compositions import main_row, weight_lines
    from come_nav.evaluation.suites.inputs import machine_facts
    from come_nav.evaluation.suites.memory_rows import recall_rows
    from come_nav.evaluation.suites.quality_rows import images_of

    config, model, found, selection = setup.config, setup.model, setup.found, setup.selection
    windows = selection.windows
    distance, note = image_distance()
    rows, compositions = recall_rows(
        wanted, args.contrast, setup.weights, model, setup.cache, config.experts.older_frames
    )
    images = images_of(model)
    settings = suite_settings(
        found.source.fingerprint, to_mapping(setup.protocol), config, model, setup.weights, memory_settings(config)
    ) | {
        "limits": to_mapping(selection.limits),
        "recall": {"windows_per_batch": WINDOWS_PER_BATCH, "lpips": distance is not None},
    }
    with ResultStore(setup.folder / "results.jsonl", settings, args.fresh) as store:
        with Steps(len(windows) * len(rows), "views", "window") as progress:
            for _, own in groupby(windows, key=lambda window: window.window.recording_id):
                part = list(own)
                note_coverage(part, setup.cache, store)
                evaluate_windows(part, rows, images, store, distance, lambda record: progress.add(record["row"]))
        chosen = [item.window for item in windows]
        records = {row.name: store.table(chosen, row.name) for row in rows}
        facts = store.table(chosen, FACTS)
    names = [row.name for row in rows]
    main = main_row(compositions)
    return RecallEvaluation(
        title=found.source.title,
        windows=windows,
        rows=rows,
        main=main,
        images=images,
        records=records,
        table=recall_table(
            windows, records, facts, references(names, compositions, main), config.seed, found.source.groups
        ),
        limits=selection.limits,
        weights=weight_lines(compositions),
        settings={"windows": len(windows), **settings},
        facts={**found.source.facts, **machine_facts()},
        notes=[*selection.notes, *([note] if note else [])],
    )


def references(names: Sequence[str], compositions: Sequence[ComposedRow], main: str) -> Mapping[str, list[str]]:
    """Return what each row is compared with: the base; the full composition with everything; and contrast with none."""
    from come_nav.evaluation.reports.memory_tables import GEOMETRY, NEAREST
    from come_nav.evaluation.suites.compositions import base_row

    base = base_row(compositions)
    found = {name: [base] for name in names}
    found[main] = [base, GEOMETRY, NEAREST, *(name for name in names if name not in (base, GEOMETRY, NEAREST, main))]
    for composed_row in compositions:
        if composed_row.contrast and composed_row.name != main:
            found[composed_row.name] += [
                other.name for other in compositions if other.key == composed_row.key and not other.contrast
            ]
    return found


def recall_document(outcome: RecallOutcome) -> dict[str, Any]:
    """Return all figures and where the files are, for ``--json``."""
    return {**outcome_document(outcome), "notes": list(outcome.evaluation.notes)}


def print_recall(outcome: RecallOutcome) -> None:
    """Print the tables, the weights, the notes and where the files are."""
    from come_nav.evaluation.reports.memory_tables import (
        ALL,
        GEOMETRY,
        NEAREST,
        gain_lines,
        metric_lines,
        shown_metrics,
    )
    from come_nav.evaluation.suites.compositions import TITLES

    evaluation, table = outcome.evaluation, outcome.evaluation.table
    print(f"{evaluation.title}: {table.counts[ALL]} windows, intervals over {table.resampled}")
    print(f"targets: {evaluation.limits.describe()}")
    for note in evaluation.notes:
        print(note)
    for metric in shown_metrics(table):
        print("\n" + format_table(*metric_lines(table, metric)))
    print("\n" + format_table(*gain_lines(table, [TITLES["base"], GEOMETRY, NEAREST])))
    print("\n" + format_table(*evaluation.weights))
    print_files(outcome.folder, outcome.page)
