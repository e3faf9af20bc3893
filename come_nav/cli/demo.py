"""``come-nav demo``: the whole job in a built-in world: record a bag, plan, evaluate, remember and come back."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, format_table, outcome_document, print_json
from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from come_nav.evaluation.reports.memory_report import RecallEvaluation
    from come_nav.evaluation.reports.report import Evaluation
    from come_nav.evaluation.suites.memory.planning import MemoryPlanningOutcome
    from come_nav.evaluation.suites.outcome import Outcome

DRIVER = "tour"
RATE_HZ = 4.0
SHOWN_WINDOWS = 6
STEPS = 5
MEMORY_ROWS = "nearest,geometry,base,all"
MEMORY_WINDOWS, MEMORY_PLANS, SHORTEST_MEMORY_S = 40, 8, 60.0
EPILOG = """examples:
  come-nav demo                          a tour through world 20003, 20 plans, memories, report in demo_out
  come-nav demo --quick                  a shorter drive and fewer plans
  come-nav demo --world 20011 --windows 60 --out demo_20011

It runs, with the same code, what these commands run one by one:
  come-nav simulate --world 20003 --camera 64 --driver tour --duration 120 --out demo_out/tour_20003
  come-nav evaluate demo_out/tour_20003 --windows 20 --out demo_out
  come-nav evaluate demo_out/tour_20003 --suite recall --windows 40 ... --out demo_out/recall
  come-nav evaluate demo_out/tour_20003 --suite memory-planning --windows 8 ... --out demo_out/memory_planning
and draws map.png, imagined.png and memory.png. Stop at any time: the same command goes on where it stopped.
"""
NEXT = """
What to try next:
  come-nav bag info {episode}
  come-nav plan {episode} --at 40 --goal-index 48 --out plan.png
  come-nav evaluate my_bag                    the same on your own recording
  come-nav evaluate --suite planning          20 built-in test worlds, 200 windows"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("--out", type=Path, default=Path("demo_out"), metavar="DIR", help="folder (default demo_out)")
    parser.add_argument("--world", type=int, default=20003, metavar="SEED", help="built-in world (default 20003)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the drive and the plans (default 0)")
    parser.add_argument("--windows", type=int, metavar="N", help="number of plans (default 20; 6 with --quick)")
    parser.add_argument("--duration", type=float, metavar="S", help="of the drive (default 120; 30 with --quick)")
    parser.add_argument("--model", metavar="NAME", help="model name or folder (default: the configuration's, tiny)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a configuration key")
    parser.add_argument("--quick", action="store_true", help="a shorter drive and fewer plans")
    parser.add_argument("--fresh", action="store_true", help="forget an earlier demo in the output folder")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Run the demo, or go on with it; print the table, where everything is and what to try next."""
    from come_nav.cli import evaluate
    from come_nav.config import load_config, override_words
    from come_nav.core.files import writable_folder
    from come_nav.core.resources import find_resource

    flags = override_words({"model": args.model or None})
    find_resource("models", load_config(None, [*args.set, *flags]).model)  # a missing model is told before the work
    folder = writable_folder(args.out)
    episode = folder / f"{DRIVER}_{args.world}"  # the report is named after the bag
    _record(args, episode)
    _tell(2, f"opening it as a bag: {_describe(episode)}")
    words = [str(episode), "--out", str(folder), "--seed", str(args.seed)]
    words += ["--windows", str(args.windows or (6 if args.quick else 20))]
    words += [word for key in [*args.set, *flags] for word in ("--set", key)] + (["--fresh"] if args.fresh else [])
    _tell(3, "planning and evaluating each plan against the real drive (stop at any time; the same command goes on)")
    outcome = evaluate.evaluate_plans(_parse(evaluate, words))
    memory = _remember(args, episode, [word for key in [*args.set, *flags] for word in ("--set", key)])
    _tell(5, f"drawing {folder / 'map.png'}, {folder / 'imagined.png'} and {folder / 'memory.png'}")
    files = {**_draw(folder, outcome), **_draw_memory(folder, memory), "bag": str(episode)}
    if args.json:
        print_json({**outcome_document(outcome), "files": files, **_memory_document(memory)})
        return 0
    evaluate.print_plans(outcome)
    _print_memory(memory)
    print("".join(f"{name + ':':<17}{path}\n" for name, path in files.items()), end="")
    print(NEXT.format(episode=episode))
    return 0


@dataclass(frozen=True)
class MemoryPart:
    """What memories were worth on this drive: images of places seen before, and plans to them."""

    recall: Outcome[RecallEvaluation]
    planning: MemoryPlanningOutcome


def _remember(args: argparse.Namespace, episode: Path, settings: list[str]) -> MemoryPart | None:
    """Remember the first 60 % of the drive; let the base model and the memory experts imagine the rest, and plan."""
    from come_nav.cli import evaluate, evaluate_memory
    from come_nav.core.errors import DataError

    if _duration_s(args) < SHORTEST_MEMORY_S:
        _tell(4, f"memories: a drive of {_duration_s(args):g} s hardly comes back anywhere, left out")
        return None
    common = [str(episode), "--seed", str(args.seed), "--rows", MEMORY_ROWS, "--contrast", "on", *settings]
    common += ["--fresh"] if args.fresh else []
    _tell(4, "remembering the first 60 % of the drive; then places seen before: the base without, CoME with memories")
    words = ["--suite", "recall", "--windows", str(MEMORY_WINDOWS), "--out", str(args.out / "recall")]
    try:
        recall = evaluate_memory.evaluate_recall(_parse(evaluate, [*common, *words]))
        words = ["--suite", "memory-planning", "--windows", str(MEMORY_PLANS), "--horizon", "4"]
        words += ["--out", str(args.out / "memory_planning")]
        return MemoryPart(recall, evaluate_memory.evaluate_memory_plans(_parse(evaluate, [*common, *words])))
    except (ConfigError, DataError) as error:  # a model without views, or a drive that never comes back
        _tell(4, f"memories are left out: {error}")
        return None


def _memory_document(memory: MemoryPart | None) -> dict[str, Any]:
    from come_nav.cli.evaluate_memory import compositions_document, recall_document

    if memory is None:
        return {}
    return {"recall": recall_document(memory.recall), "memory_planning": compositions_document(memory.planning)}


def _print_memory(memory: MemoryPart | None) -> None:
    """Print the two tables that compare the base model with the memory experts."""
    from come_nav.evaluation.reports.composition_tables import marked_lines, marks_of
    from come_nav.evaluation.reports.memory_tables import ALL, metric_lines
    from come_nav.evaluation.reports.tables import plan_lines

    if memory is None:
        return
    table, marks = memory.recall.evaluation.table, marks_of(memory.recall.evaluation.passes)
    print(f"\nPlaces seen before, as imagined ({table.counts[ALL]} windows), and 4 s plans to them:\n")
    for metric in ("psnr_db", "ssim"):
        print(format_table(*marked_lines(metric_lines(table, metric), marks)) + "\n")
    print(format_table(*marked_lines(plan_lines(memory.planning.evaluation.table), marks)) + "\n")


def _draw_memory(folder: Path, memory: MemoryPart | None) -> dict[str, str]:
    """Write what each row imagines beside the truth; return name -> file."""
    from come_nav.core.files import atomic_path
    from come_nav.evaluation.reports.memory_report import examples_figure

    if memory is None:
        return {}
    with atomic_path(folder / "memory.png") as temporary:
        temporary.write_bytes(examples_figure(memory.recall.evaluation))
    pages = {"recall": memory.recall.page, "memory_planning": memory.planning.page}
    return {"memory": str(folder / "memory.png"), **{name: str(page) for name, page in pages.items()}}


def _duration_s(args: argparse.Namespace) -> float:
    return float(args.duration or (30.0 if args.quick else 120.0))


def _record(args: argparse.Namespace, episode: Path) -> None:
    """Record the drive with the verb ``simulate``, unless the bag is there from an earlier run."""
    from come_nav.cli import simulate

    duration_s = _duration_s(args)
    if episode.exists() and not args.fresh:
        _check_same(args, episode, duration_s)
        _tell(1, f"recording: {episode} is there from an earlier run")
        return
    _tell(1, f"recording a {duration_s:g} s {DRIVER} through built-in world {args.world}: {episode}")
    words = [
        "--camera",
        "64",
        "--world",
        str(args.world),
        "--driver",
        DRIVER,
        "--duration",
        str(duration_s),
        "--seed",
        str(args.seed),
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # stdout is for the demo's own result
        simulate.run(_parse(simulate, [*words, "--out", str(episode), *(["--overwrite"] if args.fresh else [])]))


def _check_same(args: argparse.Namespace, episode: Path, duration_s: float) -> None:
    """Refuse to mix two demos in one folder."""
    from come_nav.data import open_recording

    recording = open_recording(episode, RATE_HZ, depth_topic="none")
    facts = recording.metadata
    found_s = float(recording.stamps_s[-1] - recording.stamps_s[0])
    there = (facts.get("world"), facts.get("driver"), facts.get("seed"))
    if there != (args.world, DRIVER, args.seed) or abs(found_s - duration_s) > 1.0 / RATE_HZ:
        raise ConfigError(
            f"{episode} holds {found_s:g} s of a {there[1]} in world {there[0]} with seed {there[2]}, not "
            f"{duration_s:g} s of a {DRIVER} in world {args.world} with seed {args.seed}; choose another --out, or "
            "replace it with --fresh"
        )


def _describe(episode: Path) -> str:
    from come_nav.core.types import Trajectory
    from come_nav.data import open_recording

    recording = open_recording(episode, RATE_HZ, depth_topic="none")
    length_m = Trajectory.from_xyyaw(recording.stamps_s, recording.poses_xyyaw).path_length_m
    span_s = float(recording.stamps_s[-1] - recording.stamps_s[0])
    return f"{len(recording)} frames at {RATE_HZ:g} Hz over {span_s:.1f} s, {length_m:.1f} m of odometry"


def _draw(folder: Path, outcome: Outcome[Evaluation]) -> dict[str, str]:
    """Write the map with the drive and some plans, and imagined against real views; return name -> file."""
    from come_nav.core.files import atomic_path
    from come_nav.evaluation.reports.examples import imagined_figure, make_example

    evaluation = outcome.evaluation
    main, windows = evaluation.main_row, evaluation.windows
    step = max(1, len(windows) // SHOWN_WINDOWS)
    chosen = windows[step // 2 :: step][:SHOWN_WINDOWS]
    examples = [make_example(f"at {window.stamp_s:.0f} s", window, main, [main]) for window in chosen]
    images = {"map": _map_figure(outcome, main.name, examples), "imagined": imagined_figure(examples)}
    files = {}
    for name, png in images.items():
        if png is not None:
            files[name] = str(folder / f"{name}.png")
            with atomic_path(folder / f"{name}.png") as temporary:
                temporary.write_bytes(png)
    return {**files, "video": str(folder / "plan.mp4")}


def _map_figure(outcome: Outcome[Evaluation], row: str, examples: list[Any]) -> bytes:
    """Draw the world from above, the true drive, and the plan of each example where it was made."""
    import numpy as np

    from come_nav.core.geometry import se2
    from come_nav.viz.figures import MapDrawing, plot_trajectories

    place = outcome.source.places[outcome.evaluation.windows[0].recording_id]
    gap = np.full((1, 3), np.nan)
    pieces: list[Any] = []
    for example in examples:
        start = place.poses_world_xyyaw[example.window.start]
        path = np.concatenate([np.zeros((1, 3)), example.paths[row]])
        pieces += [se2.compose(np.broadcast_to(start, path.shape), path), gap]
    shapes, colours = zip(*place.obstacles, strict=True)
    paths = {"truth": place.poses_world_xyyaw, row: np.concatenate(pieces[:-1])}
    return plot_trajectories(paths, MapDrawing(shapes, colours), f"The drive, and {len(examples)} plans of '{row}'")


def _parse(verb: ModuleType, words: list[str]) -> argparse.Namespace:
    """Read ``words`` with the flags of another verb, so that its defaults hold."""
    parser = argparse.ArgumentParser(prog=f"come-nav {verb.__name__.rpartition('.')[2]}")
    verb.add_arguments(parser)
    return parser.parse_args(words)


def _tell(step: int, text: str) -> None:
    print(f"[{step}/{STEPS}] {text}", file=sys.stderr, flush=True)
