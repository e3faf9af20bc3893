"""``come-nav evaluate``: evaluate plans or imagined views on recordings or in built-in worlds; tables and a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli import evaluate_memory, evaluate_nwm
from come_nav.cli.evaluate_flags import (
    MEMORY_PLANNING,
    QUALITY,
    RECALL,
    chosen_rows,
    parse_horizons,
    parse_share,
    prepare,
    source_settings,
    success_settings,
)
from come_nav.cli.output import Steps, add_json_flag, format_table, outcome_document, print_files, print_json
from come_nav.cli.recording_flags import add_recording_flags
from come_nav.cli.sensor_flags import add_sensor_flag, add_world_flag
from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from come_nav.evaluation.reports.report import Evaluation
    from come_nav.evaluation.suites.outcome import Outcome
    from come_nav.evaluation.suites.quality import QualityOutcome

EPILOG = """examples:
  come-nav evaluate my_bag                                       50 windows, report in runs/evaluate/my_bag
  come-nav evaluate my_bag --windows 100 --out report --model tiny --seed 1
  come-nav evaluate my_bag --part 0.6-1.0                        only the last 40 %, e.g. after training on the rest
  come-nav evaluate my_bag --set planner.samples=120 --set planner.iterations=1 --out report_120
  come-nav evaluate my_bag --rows trivial                        the baselines alone, needs no model
  come-nav evaluate --suite planning --worlds 20000-20019 --windows 200 --out suite
  come-nav evaluate --suite planning --horizon 4 --out suite_4s  plans of 4 s (16 waypoints)
  come-nav evaluate my_bag --share 1/2 --out report              half of the windows, e.g. in each of two processes;
                                                                 then the same without --share makes the table
  come-nav evaluate my_bag --horizon 2,4,8,16                    each horizon on its own windows, in out/2s, out/4s ...
  come-nav evaluate --suite planning --rows perfect --worlds 10000-10009     tune the search without a model
  come-nav evaluate --suite quality --out quality                imagined views, 500 windows at 1, 2, 4 and 8 s
  come-nav evaluate my_bag --suite quality --horizon 1,2         the same on a recording
  come-nav evaluate --suite recall --out recall                  what memories are worth: views seen long before
  come-nav evaluate --suite memory-planning --horizon 4 --out mp plans to such views
  come-nav evaluate --suite recall --choose-weights --worlds 10000-10009     weights of the experts, into weights.yaml
  come-nav evaluate --protocol nwm --dataset recon --root DIR    NWM's own protocol; also nwm-time, nwm-rollout

Planning: a window is 4 context frames and a goal frame 2 s later (8 waypoints at 4 Hz, --horizon). Windows are spread
evenly over the recording. The rows 'stand still' and 'constant velocity' are always there, and where images have enough
pixels 'registration' (the goal's image registered to what was seen, a smooth path there) and 'hybrid' (that and the
model, as the robot plans); in built-in worlds (the
suite, or a bag of `come-nav simulate`) 'perfect model' renders the true view of every candidate, and 'best candidate in
hindsight' is the best path that its search tried.

Quality: from each start the model imagines the views at 1, 2, 4 and 8 s, by a jump and by a rollout along the true
poses; PSNR, SSIM and sharpness against copying the last frame, the autoencoder alone and a warp by true depth. In
built-in worlds a planning evaluation of the same model follows in the folder 'planning' (--planning-windows 0: none).

Memory: on a tour of each world (or on the first 60 % of a recording) the memories fill; windows start in the rest, and
their targets are hardly visible from the context, were seen in the memory phase, and not within the last 60 frames.
'recall' asks for the view, 'memory-planning' for a plan to it. Rows: base, short-term (stm), long-term (ltm, an adapter
trained on the drive), spatial (sltm), and their compositions with and without contrast, against the remembered frame
nearest in pose, the point cloud itself and the memory network without memory; 'render blend' rows paste the rendered
cloud over the same predictions. The passes of each row are printed, and rows that are equal by construction marked.

The output folder gets results.jsonl (written as computed), results.json, table.csv, report.html and, of plans,
plan.mp4. Stop at any time: the same command goes on where it stopped and gives the same table. More windows or rows may
be added to a folder; other settings need another folder or --fresh.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("input", nargs="*", metavar="INPUT", help="bags, or folders (NWM, TUM RGB-D, KITTI, EuRoC)")
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="planning (default), quality, recall or memory-planning; without INPUT in built-in worlds",
    )
    parser.add_argument(
        "--worlds", default="20000-20019", metavar="A-B", help="of the suite (default 20000-20019: test)"
    )
    parser.add_argument("--camera", default="64x64", metavar="WxH", help="in built-in worlds, px (default 64x64)")
    add_world_flag(parser)
    add_sensor_flag(parser)
    parser.add_argument(
        "--windows", type=int, metavar="N", help="number of windows (default 50; suite 200, quality 500)"
    )
    parser.add_argument(
        "--horizon", metavar="S", help="seconds to the goal, or a list of them (default 2; of quality 1,2,4,8)"
    )
    parser.add_argument(
        "--success-m", type=float, metavar="M", help="a plan succeeds that ends this near the goal pose (default 0.25)"
    )
    parser.add_argument("--success-deg", type=float, metavar="DEG", help="and within this turn of it (default 15)")
    parser.add_argument("--part", metavar="A-B", help="windows from this part of each recording alone, e.g. 0.6-1.0")
    parser.add_argument("--choice", default="even", choices=("even", "random"), help="of the windows (default even)")
    parser.add_argument(
        "--rows",
        default=None,
        metavar="A,B",
        help="trivial, model, hybrid, perfect; of quality copy, autoencoder, depth, jump, tilted, rollout; of memory "
        "copy, nearest, geometry, context, perfect, hybrid, memory-net, base, stm, ltm, sltm, base+stm, base+ltm, "
        "base+sltm, stm+ltm, all, sltm-blend, all-blend (default: all that apply)",
    )
    parser.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="NAME",
        help="also a learned planner: model name or folder of a gnm, vint or nomad (may be repeated)",
    )
    parser.add_argument(
        "--sequence-model",
        action="append",
        default=[],
        metavar="NAME",
        help="recall, memory-planning: also a memory of sequences, a model folder that come-nav train --sequence wrote "
        "(may be repeated)",
    )
    parser.add_argument(
        "--depth",
        choices=("measured", "estimated"),
        help="what context frames are moved by: what the camera measured, where it did (default), or the model's "
        "estimate alone",
    )
    parser.add_argument(
        "--kinematics",
        choices=("auto", "differential", "holonomic", "car"),
        help="how the robot moves (default auto: holonomic where the recording plainly moves sideways)",
    )
    parser.add_argument("--model", metavar="NAME", help="model name or folder (default: the configuration's, tiny)")
    parser.add_argument("--seed", type=int, metavar="S", help="of plans, random choice and bootstrap (default 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for results (default runs/evaluate/<input>)")
    parser.add_argument(
        "--config", "--planner-config", metavar="FILE", help="YAML over the defaults (see come-nav config show)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one configuration key"
    )
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (default auto)")
    parser.add_argument(
        "--planning-windows", type=int, metavar="N", help="plans after quality (default 200 in built-in worlds, else 0)"
    )
    parser.add_argument(
        "--share",
        metavar="K/N",
        help="of plans: every N-th window from the K-th on, without a table; the command without it takes all shares",
    )
    parser.add_argument("--fresh", action="store_true", help="forget earlier results in the output folder")
    parser.add_argument("--no-report", action="store_true", help="no video and no HTML page")
    add_recording_flags(parser)
    parser.set_defaults(rate=None)  # the model's
    evaluate_memory.add_arguments(parser)
    evaluate_nwm.add_arguments(parser)
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, or go on with an evaluation; print the table and where the report is."""
    _check_flags(args)
    if args.protocol is not None:
        return evaluate_nwm.run(args)
    if args.suite in (RECALL, MEMORY_PLANNING):
        return evaluate_memory.run(args)
    if args.suite == QUALITY:
        return _run_quality(args)
    outcomes = evaluate_horizons(args)
    if args.share is not None:
        if args.json:
            print_json({"share": args.share})
        else:
            print(f"share {args.share} is evaluated; when all are, the same command without --share makes the table")
        return 0
    if args.json:
        documents = [outcome_document(outcome) for outcome in outcomes]
        print_json(documents[0] if len(documents) == 1 else {"horizons": documents})
        return 0
    for number, outcome in enumerate(outcomes):
        print("\n" * (number > 0), end="")
        print_plans(outcome)
    if len(outcomes) > 1:
        _print_horizons(outcomes)
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    """Refuse flags where they would say nothing."""
    if args.protocol is not None:
        for flag, given in (("--share", args.share is not None), ("--policy", bool(args.policy))):
            if given:
                raise ConfigError(f"{flag} is for plans of come_nav's own protocol, not for --protocol")
    with_memory = args.protocol is None and args.suite in (RECALL, MEMORY_PLANNING)
    for part, counts, where in (
        (evaluate_memory, with_memory, "--suite recall or memory-planning"),
        (evaluate_nwm, args.protocol is not None, "--protocol"),
    ):
        own = argparse.ArgumentParser(add_help=False)
        part.add_arguments(own)
        defaults = vars(own.parse_args([]))
        unused = [name for name, value in defaults.items() if getattr(args, name, value) != value]
        if unused and not counts:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
            raise ConfigError(f"{flags}: says something only with {where}; leave it out")
    if args.suite in (RECALL, MEMORY_PLANNING, QUALITY) and args.share is not None:
        raise ConfigError(f"--share is for plans, not for --suite {args.suite}")
    if args.suite not in (RECALL, MEMORY_PLANNING) and args.sequence_model:
        raise ConfigError("--sequence-model is a memory: it goes with --suite recall or memory-planning")
    if args.suite in (RECALL, QUALITY) and args.policy:
        raise ConfigError(f"--policy is for plans (--suite planning or memory-planning), not for --suite {args.suite}")


def evaluate_plans(args: argparse.Namespace) -> Outcome[Evaluation]:
    """Evaluate plans of one horizon, or go on, as the flags of this verb say."""
    return evaluate_horizons(args)[0]


def evaluate_horizons(args: argparse.Namespace) -> list[Outcome[Evaluation]]:
    """Evaluate plans of every horizon, or go on, as the flags of this verb say."""
    from come_nav.evaluation.suites.planning import PLANNING_ROWS, PlanningSuiteSettings, run_horizons

    config, folder = prepare(args)
    settings = PlanningSuiteSettings(
        source=source_settings(args),
        rows=chosen_rows(args.rows, PLANNING_ROWS),
        policies=tuple(args.policy),
        horizon_s=parse_horizons(args.horizon),
        success=success_settings(args),
        fresh=args.fresh,
        report=not args.no_report,
        share=parse_share(args.share),
    )
    return run_horizons(settings, config, folder, Steps)


def _print_horizons(outcomes: list[Outcome[Evaluation]]) -> None:
    """Print ATE and success of every row at every horizon."""
    from come_nav.evaluation.reports.tables import horizon_lines

    print("\n" + format_table(*horizon_lines([outcome.evaluation.table for outcome in outcomes])))


def print_plans(outcome: Outcome[Evaluation]) -> None:
    """Print the tables of plans and where the files are."""
    from come_nav.evaluation.reports.tables import (
        gap_lines,
        group_lines,
        image_lines,
        plan_lines,
        ratio_lines,
        registration_lines,
        registration_ratio_lines,
    )

    evaluation, table = outcome.evaluation, outcome.evaluation.table
    print(f"{evaluation.title}: {len(evaluation.windows)} windows, one spacing is {table.spacing_m:.3f} m\n")
    print(format_table(*plan_lines(table)) + "\n")
    if "kinematics" in evaluation.facts:
        print(f"kinematics: {evaluation.facts['kinematics']}\n")
    if table.gap_closure:
        print(format_table(*gap_lines(table)) + "\n")
    if table.registered:
        print(format_table(*registration_lines(table.registered)) + "\n")
    print(format_table(*ratio_lines(table)))
    if table.registered:
        print("\n" + format_table(*registration_ratio_lines(table.registered)))
    for lines in (image_lines(table), group_lines(table) if len(table.groups) > 1 else ([], [])):
        if lines[1]:
            print("\n" + format_table(*lines))
    print_files(outcome.folder, outcome.page)


def _run_quality(args: argparse.Namespace) -> int:
    outcome = _evaluate_quality(args)
    if args.json:
        planning = None if outcome.planning is None else outcome_document(outcome.planning)
        document: dict[str, Any] = {**outcome_document(outcome), "planning": planning}
        print_json(document)
        return 0
    _print_quality(outcome)
    if outcome.planning is not None:
        print()
        print_plans(outcome.planning)
    return 0


def _evaluate_quality(args: argparse.Namespace) -> QualityOutcome:
    from come_nav.evaluation.suites.quality import HORIZONS_S, QUALITY_ROWS, QualitySuiteSettings, run_quality

    config, folder = prepare(args)
    settings = QualitySuiteSettings(
        source=source_settings(args),
        rows=chosen_rows(args.rows, QUALITY_ROWS),
        horizons_s=parse_horizons(args.horizon) or HORIZONS_S,
        planning_windows=args.planning_windows,
        fresh=args.fresh,
        report=not args.no_report,
    )
    return run_quality(settings, config, folder, Steps)


def _print_quality(outcome: QualityOutcome) -> None:
    from come_nav.evaluation.reports.quality_tables import IMAGE_METRICS, gain_lines, metric_lines

    table = outcome.evaluation.table
    print(f"{outcome.evaluation.title}: {table.windows} windows, intervals over {table.resampled}")
    for metric in IMAGE_METRICS:
        print("\n" + format_table(*metric_lines(table, metric)))
    if table.gains:
        print("\n" + format_table(*gain_lines(table)))
    print_files(outcome.folder, outcome.page)
