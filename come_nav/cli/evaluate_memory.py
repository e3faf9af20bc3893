"""``come-nav evaluate --suite recall | memory-planning``: what memories are worth, on places seen long before."""

from __future__ import annotations

import argparse
import math
import re
from typing import TYPE_CHECKING, Any

from come_nav.cli.evaluate_flags import (
    RECALL,
    chosen_rows,
    configuration,
    parse_horizons,
    parse_part,
    prepare,
    source_settings,
    success_settings,
)
from come_nav.cli.output import Steps, format_table, outcome_document, print_files, print_json
from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from come_nav.evaluation.reports.memory_report import RecallEvaluation
    from come_nav.evaluation.suites.memory.planning import MemoryPlanningOutcome
    from come_nav.evaluation.suites.memory.settings import MemorySuiteSettings
    from come_nav.evaluation.suites.memory.weights import ChosenWeights
    from come_nav.evaluation.suites.outcome import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of these suites to ``come-nav evaluate``."""
    group = parser.add_argument_group("memory (--suite recall or memory-planning)")
    group.add_argument("--memory-frames", type=int, metavar="N", help="frames of the memory phase (default 320)")
    group.add_argument(
        "--test-frames", type=int, metavar="N", help="frames after it (default 240; plans of 2 s 1600, of 4 s 480)"
    )
    group.add_argument("--memory-part", metavar="A-B", help="of a recording: what is remembered (default 0-0.6)")
    group.add_argument("--drift", type=float, default=0.0, metavar="PERCENT", help="of odometry (default 0)")
    group.add_argument(
        "--ages",
        metavar="BINS",
        help="as many targets of each bin of seconds since they were last seen, e.g. 0.5-2,2-8,8-30,30- (default: long "
        "ago)",
    )
    group.add_argument("--rgb-only", action="store_true", help="a robot without a depth camera: memories estimate it")
    group.add_argument(
        "--tilt-told",
        action="store_true",
        help="recall of a camera in a hand or on legs: imagine with its height, pitch and roll at the target",
    )
    group.add_argument("--weights", metavar="FILE", help="of the experts (default: the model's own)")
    group.add_argument(
        "--contrast", choices=("both", "on", "off"), default="both", help="of compositions (default both)"
    )
    group.add_argument(
        "--choose-weights", action="store_true", help="choose weights on validation worlds, e.g. --worlds 10000-10009"
    )


def run(args: argparse.Namespace) -> int:
    """Run one of the suites, or the choice of weights; print the tables and where the files are."""
    if args.choose_weights:
        if args.suite != RECALL:
            raise ConfigError("--choose-weights goes with --suite recall")
        _choose_weights(args)
    elif args.suite == RECALL:
        recall = evaluate_recall(args)
        if args.json:
            print_json(recall_document(recall))
        else:
            _print_recall(recall)
    else:
        plans = evaluate_memory_plans(args)
        if args.json:
            print_json(compositions_document(plans))
        else:
            _print_plans(plans)
    return 0


def evaluate_recall(args: argparse.Namespace) -> Outcome[RecallEvaluation]:
    """Evaluate recall, or go on, as the flags say."""
    from come_nav.evaluation.suites.memory.optional_rows import OPTIONAL_ROWS
    from come_nav.evaluation.suites.memory.recall import run_recall
    from come_nav.evaluation.suites.memory.rows import RECALL_ROWS

    rows = chosen_rows(args.rows, (*RECALL_ROWS, *OPTIONAL_ROWS))
    config, folder = prepare(args)
    return run_recall(memory_settings(args, config.model, rows), config, folder, Steps)


def evaluate_memory_plans(args: argparse.Namespace) -> MemoryPlanningOutcome:
    """Evaluate plans to remembered views, or go on, as the flags say."""
    from come_nav.evaluation.suites.memory.planning import MEMORY_PLANNING_ROWS, run_memory_planning

    if args.tilt_told:
        raise ConfigError("--tilt-told goes with --suite recall: no plan can know how the camera will lean")
    rows = chosen_rows(args.rows, MEMORY_PLANNING_ROWS)
    config, folder = prepare(args)
    return run_memory_planning(memory_settings(args, config.model, rows), config, folder, Steps)


def memory_settings(args: argparse.Namespace, model: str, rows: Sequence[str] | None = None) -> MemorySuiteSettings:
    """Return what the flags ask of a memory suite."""
    from come_nav.evaluation.suites.memory.compositions import find_weights
    from come_nav.evaluation.suites.memory.settings import MemorySuiteSettings

    return MemorySuiteSettings(
        source=source_settings(args),
        weights=find_weights(args.weights, model),
        rows=None if rows is None else tuple(rows),
        policies=tuple(args.policy),
        sequences=tuple(args.sequence_model),
        contrast=args.contrast,
        horizons_s=parse_horizons(args.horizon),
        ages_s=parse_ages(args.ages),
        memory_frames=args.memory_frames,
        test_frames=args.test_frames,
        memory_part=parse_part(args.memory_part or "0-0.6"),
        drift_percent=args.drift,
        tilt_told=args.tilt_told,
        rgb_only=args.rgb_only,
        success=success_settings(args),
        fresh=args.fresh,
        report=not args.no_report,
    )


def parse_ages(text: str | None) -> tuple[tuple[float, float], ...]:
    """Return the bins of ``0.5-2,2-8,30-``, none for None; raise ConfigError for what is no such list."""
    found = []
    for word in [] if text is None else text.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)?\s*", word)
        low_s, high_s = (0.0, 0.0) if match is None else (float(match[1]), float(match[2] or math.inf))
        if high_s <= low_s:
            raise ConfigError(f"--ages takes bins of seconds that rise, such as 0.5-2,2-8,8-30,30-, got '{text}'")
        found.append((low_s, high_s))
    return tuple(found)


def recall_document(outcome: Outcome[RecallEvaluation]) -> dict[str, Any]:
    """Return all figures and where the files are, for ``--json``."""
    return {**compositions_document(outcome), "notes": list(outcome.evaluation.notes)}


def compositions_document(outcome: Outcome[Any]) -> dict[str, Any]:
    """Return all figures, where the files are and what each composition is made of, for ``--json``."""
    compositions = [row.to_mapping() for row in outcome.evaluation.passes]
    return {**outcome_document(outcome), "compositions": compositions}


def _print_recall(outcome: Outcome[RecallEvaluation]) -> None:
    """Print the tables, the weights, the notes and where the files are."""
    from come_nav.evaluation.reports.composition_tables import marked_lines, marks_of, pass_lines
    from come_nav.evaluation.reports.memory_tables import (
        ALL,
        GEOMETRY,
        NEAREST,
        gain_lines,
        metric_lines,
        shown_metrics,
    )
    from come_nav.evaluation.suites.memory.compositions import TITLES

    evaluation, table = outcome.evaluation, outcome.evaluation.table
    print(f"{evaluation.title}: {table.counts[ALL]} windows, intervals over {table.resampled}")
    print(f"targets: {'; or '.join(each.describe() for each in evaluation.limits)}")
    for note in evaluation.notes:
        print(note)
    marks = marks_of(evaluation.passes)
    for metric in shown_metrics(table):
        print("\n" + format_table(*marked_lines(metric_lines(table, metric), marks)))
    gains = gain_lines(table, [TITLES["base"], GEOMETRY, NEAREST])
    print("\n" + format_table(*marked_lines(gains, marks)))
    print("\n" + format_table(*evaluation.weights))
    print("\n" + format_table(*pass_lines(evaluation.passes)))
    print_files(outcome.folder, outcome.page)


def _print_plans(outcome: MemoryPlanningOutcome) -> None:
    """Print the tables, the weights, the notes and where the files are."""
    from come_nav.evaluation.protocols.rows import CONSTANT_VELOCITY
    from come_nav.evaluation.reports.composition_tables import marked_lines, marks_of, pass_lines
    from come_nav.evaluation.reports.memory_tables import GEOMETRY, NEAREST
    from come_nav.evaluation.reports.tables import (
        gap_lines,
        plan_lines,
        ratio_lines,
        registration_lines,
        registration_ratio_lines,
    )
    from come_nav.evaluation.suites.memory.compositions import base_row, weight_lines

    evaluation, table = outcome.evaluation, outcome.evaluation.table
    print(f"{evaluation.title}: {len(evaluation.windows)} windows, one spacing is {table.spacing_m:.3f} m")
    print(f"targets: {'; or '.join(each.describe() for each in outcome.selection.limits)}")
    for note in outcome.notes:
        print(note)
    marks = marks_of(evaluation.passes)
    print("\n" + format_table(*marked_lines(plan_lines(table), marks)))
    print(f"\nkinematics: {evaluation.facts['kinematics']}")
    if table.gap_closure:
        print("\n" + format_table(*gap_lines(table)))
    if table.registered:
        print("\n" + format_table(*registration_lines(table.registered)))
    base = base_row(outcome.compositions)
    references = [base, CONSTANT_VELOCITY, GEOMETRY, NEAREST]
    print("\n" + format_table(*marked_lines(ratio_lines(table, references), marks)))
    if table.registered:
        print("\n" + format_table(*registration_ratio_lines(table.registered, references)))
    print("\n" + format_table(*weight_lines(outcome.compositions)))
    print("\n" + format_table(*pass_lines(evaluation.passes)))
    print_files(outcome.folder, outcome.page)


def _choose_weights(args: argparse.Namespace) -> None:
    """Choose weights and print them."""
    from come_nav.evaluation.suites.memory.weights import check_validation, run_choice_of_weights

    settings = memory_settings(args, configuration(args).model)
    check_validation(settings)  # before a folder is made
    config, folder = prepare(args)
    found = run_choice_of_weights(settings, config, folder, Steps)
    if args.json:
        print_json(_weights_document(found))
    else:
        _print_weights(found)


def _weights_document(found: ChosenWeights) -> dict[str, Any]:
    rows = [
        {"row": own.composed_row.name, "weights": dict(own.composed_row.weights), "psnr_db": own.psnr_db}
        for own in found.choices
    ]
    return {"weights": str(found.path), "windows": found.windows, "rows": rows}


def _print_weights(found: ChosenWeights) -> None:
    from come_nav.evaluation.suites.memory.compositions import weight_lines

    header, lines = weight_lines([choice.composed_row for choice in found.choices])
    for note in found.notes:
        print(note)
    print(f"{found.windows} windows of validation worlds\n")
    cells = [[*line, f"{choice.psnr_db:.2f}"] for line, choice in zip(lines, found.choices, strict=True)]
    print(format_table([*header, "PSNR [dB]"], cells))
    print(f"\nweights: {found.path}")
