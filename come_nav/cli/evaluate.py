"""``come-nav evaluate``: evaluate plans or imagined views on recordings or in built-in worlds; tables and a report."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, format_table, outcome_document, print_files, print_json
from come_nav.cli.recording_flags import add_recording_flags
from come_nav.core.errors import ConfigError, DataError, suggest
from come_nav.evaluation.suites.memory import MEMORY_SUITES, add_memory_arguments
from come_nav.evaluation.suites.nwm import add_nwm_arguments

if TYPE_CHECKING:
    from come_nav.config import Config
    from come_nav.evaluation.protocols.protocol import Window
    from come_nav.evaluation.protocols.results import Record, ResultStore
    from come_nav.evaluation.protocols.rows import Row
    from come_nav.evaluation.reports.report import Evaluation
    from come_nav.evaluation.suites.inputs import Input
    from come_nav.world_model.model import DiffusionWorldModel

ROWS = ("trivial", "model", "perfect")
EPILOG = """examples:
  come-nav evaluate my_bag                                       50 windows, report in runs/evaluate/my_bag
  come-nav evaluate my_bag --windows 100 --out report --model tiny --seed 1
  come-nav evaluate my_bag --part 0.6-1.0                        only the last 40 %, e.g. after training on the rest
  come-nav evaluate my_bag --set planner.samples=120 --set planner.iterations=1 --out report_120
  come-nav evaluate my_bag --rows trivial                        the baselines alone, needs no model
  come-nav evaluate --suite planning --worlds 20000-20019 --windows 200 --out suite
  come-nav evaluate --suite planning --horizon 4 --out suite_4s  plans of 4 s (16 waypoints)
  come-nav evaluate --suite planning --rows perfect --worlds 10000-10009     tune the search without a model
  come-nav evaluate --suite quality --out quality                imagined views, 500 windows at 1, 2, 4 and 8 s
  come-nav evaluate my_bag --suite quality --horizon 1,2         the same on a recording
  come-nav evaluate --suite recall --out recall                  what memories are worth: views seen long before
  come-nav evaluate --suite memory-planning --horizon 4 --out mp plans to such views
  come-nav evaluate --suite recall --choose-weights --worlds 10000-10009     weights of the experts, into weights.yaml
  come-nav evaluate --protocol nwm --dataset recon --root DIR    NWM's own protocol; also nwm-time, nwm-rollout

Planning: a window is 4 context frames and a goal frame 2 s later (8 waypoints at 4 Hz, --horizon). Windows are spread
evenly over the recording. The rows 'stand still' and 'constant velocity' are always there; in built-in worlds (the
suite, or a bag of `come-nav simulate`) 'perfect model' renders the true view of every candidate, and 'best candidate in
hindsight' is the best path that its search tried.

Quality: from each start the model imagines the views at 1, 2, 4 and 8 s, by a jump and by a rollout along the true
poses; PSNR, SSIM and sharpness against copying the last frame, the autoencoder alone and a warp by true depth. In
built-in worlds a planning evaluation of the same model follows in the folder 'planning' (--planning-windows 0: none).

Memory: on a tour of each world (or on the first 60 % of a recording) the memories fill; windows start in the rest, and
their targets are hardly visible from the context, were seen in the memory phase, and not within the last 60 frames.
'recall' asks for the view, 'memory-planning' for a plan to it. Rows: base, short-term (stm), long-term (ltm, an adapter
trained on the drive), spatial (sltm), and their compositions with and without contrast, against the remembered frame
nearest in pose and the point cloud itself.

The output folder gets results.jsonl (written as computed), results.json, table.csv, report.html and, of plans,
plan.mp4. Stop at any time: the same command goes on where it stopped and gives the same table. More windows or rows may
be added to a folder; other settings need another folder or --fresh.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("input", nargs="*", metavar="INPUT", help="bags, or NWM folders")
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="planning (default), quality, recall or memory-planning; without INPUT in built-in worlds",
    )
    parser.add_argument(
        "--worlds", default="20000-20019", metavar="A-B", help="of the suite (default 20000-20019: test)"
    )
    parser.add_argument(
        "--windows", type=int, metavar="N", help="number of windows (default 50; suite 200, quality 500)"
    )
    parser.add_argument(
        "--horizon", metavar="S", help="seconds to the goal (default 2); of quality a list (default 1,2,4,8)"
    )
    parser.add_argument("--part", metavar="A-B", help="windows from this part of each recording alone, e.g. 0.6-1.0")
    parser.add_argument("--choice", default="even", choices=("even", "random"), help="of the windows (default even)")
    parser.add_argument(
        "--rows",
        default=None,
        metavar="A,B",
        help="trivial, model, perfect; of quality copy, autoencoder, depth, jump, rollout; of memory copy, nearest, "
        "geometry, context, perfect, base, stm, ltm, sltm, base+stm, base+ltm, base+sltm, stm+ltm, all "
        "(default: all that apply)",
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
    parser.add_argument("--fresh", action="store_true", help="forget earlier results in the output folder")
    parser.add_argument("--no-report", action="store_true", help="no video and no HTML page")
    add_recording_flags(parser)
    parser.set_defaults(rate=None)  # the model's
    add_memory_arguments(parser)
    add_nwm_arguments(parser)
    add_json_flag(parser)


@dataclass(frozen=True)
class Outcome:
    """What an evaluation made: the input, the figures, the folder and the HTML page (None with --no-report)."""

    source: Input
    evaluation: Evaluation
    folder: Path
    page: Path | None


def run(args: argparse.Namespace) -> int:
    """Evaluate, or go on with an evaluation; print the table and where the report is."""
    if args.protocol is not None:
        from come_nav.evaluation.suites import nwm as evaluate_nwm

        return evaluate_nwm.run(args)
    if args.suite == "quality":
        from come_nav.evaluation.suites import quality as evaluate_quality

        return evaluate_quality.run(args)
    if args.suite in MEMORY_SUITES:
        from come_nav.evaluation.suites import memory as evaluate_memory

        return evaluate_memory.run(args)
    outcome = evaluate(args)
    if args.json:
        print_json(outcome_document(outcome))
    else:
        print_outcome(outcome)
    return 0


def evaluate(args: argparse.Namespace) -> Outcome:
    """Evaluate plans, or go on, as the flags of this verb say; write the results and the report."""
    from come_nav.evaluation.protocols.protocol import ProtocolSettings, choose_windows
    from come_nav.evaluation.protocols.results import ResultStore, evaluate_windows
    from come_nav.evaluation.reports.report import write_report, write_results
    from come_nav.evaluation.suites.inputs import open_input, parse_part
    from come_nav.navigation.loading import load_configured_model

    config, folder = prepare(args)
    wanted = chosen_rows(args.rows, ROWS)
    model = load_configured_model(config) if "model" in wanted else None
    rate_hz = model.rate_hz if model is not None else 4.0
    horizons = [config.planner.horizon_steps] if args.horizon is None else parse_horizons(args.horizon, rate_hz)
    if len(horizons) > 1:
        raise ConfigError(f"--horizon takes one number of seconds for plans, got '{args.horizon}'")
    protocol = ProtocolSettings(
        context_frames=model.context_frames if model is not None else 4,
        horizon_steps=horizons[0],
        rate_hz=rate_hz,
        choice=args.choice,
        seed=config.seed,
        part=parse_part(args.part),
    )
    source = open_input(args, config, protocol.rate_hz)
    windows = choose_windows(
        source.recordings, protocol, source.default_windows if args.windows is None else args.windows
    )
    rows = _rows(wanted, args.rows is not None, source, config, model)
    settings = _settings(source, protocol, config, model)
    with ResultStore(folder / "results.jsonl", settings, args.fresh) as store:
        with _Progress(len(windows) * sum(len(row.names) for row in rows), rows) as progress:
            evaluate_windows(windows, rows, store, progress.add)
        evaluation = _summary(args, source, windows, rows, store, config)
    write_results(folder, evaluation)
    return Outcome(source, evaluation, folder, None if args.no_report else write_report(folder, evaluation))


def prepare(args: argparse.Namespace) -> tuple[Config, Path]:
    """Return the configuration that the flags ask for and the output folder, which can be written."""
    from come_nav.config import load_config
    from come_nav.core.files import writable_folder
    from come_nav.evaluation.suites.inputs import check_suite

    if args.suite is not None:
        check_suite(args.suite)
    elif not args.input:
        raise ConfigError("give a recording to evaluate, or --suite planning or quality for built-in worlds")
    flags = {"model": args.model, "seed": args.seed, "device": args.device}
    config = load_config(
        args.config, [*args.set, *(f"{key}={value}" for key, value in flags.items() if value is not None)]
    )
    names = "+".join(Path(path).resolve().stem for path in args.input)
    name = "_".join(word for word in (names, args.suite) if word)
    return config, writable_folder(args.out or Path("runs/evaluate") / name)


def parse_horizons(text: str, rate_hz: float) -> list[int]:
    """Return the protocol frames of ``2`` or ``1,2,4,8`` seconds; raise ConfigError for what is no whole frame >= 1."""
    try:
        frames = [float(word) * rate_hz for word in text.split(",")]
        if any(abs(value - round(value)) > 1e-6 or value < 1 for value in frames):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"--horizon takes seconds that are whole frames at {rate_hz:g} Hz (quality: a list), got '{text}'"
        ) from None
    return [round(value) for value in frames]


def chosen_rows(text: str | None, known: tuple[str, ...]) -> list[str]:
    """Return the names that ``--rows`` gives, all known ones without it; raise ConfigError for others."""
    names = list(known) if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(f"--rows takes {', '.join(known)}, got '{name}'{suggest(name, known)}")
    return names


def _rows(
    wanted: list[str], asked: bool, source: Input, config: Config, model: DiffusionWorldModel | None
) -> list[Row]:
    from come_nav.evaluation.protocols.rows import trivial_rows
    from come_nav.evaluation.suites.planning_rows import perfect_model_row, world_model_row

    rows = trivial_rows()
    if model is not None:
        rows.append(world_model_row(model, config))
    if "perfect" in wanted and source.places:
        rows.append(perfect_model_row(source.places, config, model))
    elif "perfect" in wanted and asked:
        raise DataError(f"{source.title} was not made in a built-in world, so take 'perfect' out of --rows")
    return rows


def _settings(source: Input, protocol: Any, config: Config, model: DiffusionWorldModel | None) -> dict[str, Any]:
    """Return all that a record depends on: a folder of results belongs to exactly these values."""
    from come_nav.core.settings import to_mapping
    from come_nav.navigation.loading import choose_device

    return {
        "input": source.fingerprint,
        "protocol": to_mapping(protocol),
        "planner": to_mapping(config.planner),
        "objective": to_mapping(config.objective),
        "device": choose_device(config.device).partition(":")[0],
        "model": None if model is None else model_settings(config, model) | {"imagination": config.imagination},
    }


def model_settings(config: Config, model: DiffusionWorldModel) -> dict[str, Any]:
    """Return what identifies a model and how it is sampled."""
    from come_nav.core.settings import to_mapping
    from come_nav.evaluation.suites.inputs import model_fingerprint

    return {
        **model_fingerprint(config.model),
        "sampler": to_mapping(model.sampler),
        "precision": model.inference.precision,
    }


def _summary(
    args: argparse.Namespace,
    source: Input,
    windows: list[Window],
    rows: list[Row],
    store: ResultStore,
    config: Config,
) -> Evaluation:
    from come_nav.evaluation.reports.report import Evaluation
    from come_nav.evaluation.reports.tables import planning_table
    from come_nav.evaluation.suites.inputs import machine_facts

    records = {name: store.table(windows, name) for row in rows for name in row.names}
    return Evaluation(
        title=source.title,
        windows=windows,
        rows=rows,
        records=records,
        table=planning_table(windows, records, config.seed, source.groups),
        settings={"windows": len(windows), **store.settings},
        facts={**source.facts, **machine_facts(), "candidates_per_plan": _candidates(records)},
        map_of=source.map_of,
    )


def _candidates(records: dict[str, list[Record]]) -> dict[str, int]:
    """Return row -> most candidates that one of its plans tried."""
    tried = {row: max((record.get("candidates", 0) for record in found), default=0) for row, found in records.items()}
    return {row: count for row, count in tried.items() if count}


def print_outcome(outcome: Outcome) -> None:
    """Print the tables of an evaluation and where its files are."""
    from come_nav.evaluation.reports.tables import gap_lines, group_lines, image_lines, plan_lines, ratio_lines

    evaluation, table = outcome.evaluation, outcome.evaluation.table
    print(f"{evaluation.title}: {len(evaluation.windows)} windows, one spacing is {table.spacing_m:.3f} m\n")
    print(format_table(*plan_lines(table)) + "\n")
    if table.gap_closure:
        print(format_table(*gap_lines(table)) + "\n")
    print(format_table(*ratio_lines(table)))
    for lines in (image_lines(table), group_lines(table) if len(table.groups) > 1 else ([], [])):
        if lines[1]:
            print("\n" + format_table(*lines))
    print_files(outcome.folder, outcome.page)


class _Progress:
    """A bar on stderr with the running mean ATE of the row that matters; silent where stderr is no terminal."""

    def __init__(self, total: int, rows: list[Row]) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, desc="plans", unit="plan", file=sys.stderr, disable=None, dynamic_ncols=True)
        names = [row.name for row in rows]
        self._shown = "world model" if "world model" in names else names[-1]
        self._sum, self._count = 0.0, 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def add(self, record: Record) -> None:
        """Count one record."""
        if record["row"] == self._shown:
            self._sum, self._count = self._sum + record["ate_m"], self._count + 1
            self._bar.set_postfix_str(f"{self._shown} ATE {self._sum / self._count:.3f} m", refresh=False)
        self._bar.update()
