"""``come-nav navigate``: a simulated robot explores a built-in world and then drives to images, without ROS."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.config import add_config_flags
from come_nav.cli.output import Steps, add_json_flag, format_table, print_json
from come_nav.cli.sensor_flags import add_sensor_flag, add_world_flag, other_words, sensors_of

if TYPE_CHECKING:
    from come_nav.evaluation.suites.closed_loop.settings import ClosedLoop
    from come_nav.evaluation.suites.closed_loop.suite import OnDrive

ABLATIONS = ("all", "no-recognition", "no-route", "no-imagination", "no-correction", "imagination", "base")
ROW_KEYS = (*ABLATIONS, "topological", "topological-search")
# The simulated robot may back off, and its depth camera sees 6 m far; a configuration may say otherwise.
ROBOT = ("planner.limits.v_min_mps=-0.15", "spatial.max_range_m=6.0", "experts.use=[spatial]")
EPILOG = """examples:
  come-nav navigate                                       explore world 20003, then four goals; maps in runs/navigate
  come-nav navigate --worlds 20003,20007 --goals 10       the same in two worlds, ten goals each
  come-nav navigate --ablations --goals 4                 switch recognition, route and imagination off, one by one
  come-nav navigate --rows all,base --drift 2             with and without memory, odometry that drifts 2 % of the way
  come-nav navigate --explore 60 --policy nomad           roam for a minute without a goal, by NoMaD's paths
  come-nav navigate --explore 60                          the same, to where memory knows least
  come-nav navigate --policy nomad --rows topological     NoMaD alone along a topological map, shown the way before
  come-nav navigate --camera 64x64                        the camera of the model's own images: faster, fewer features
  come-nav navigate --rows all,no-correction --drift 2     with and without drift taken out of memory

The robot is led once through all rooms, and is turned around in each; then it gets images, half of them taken in view,
up to 1.5 m ahead, half at least 3 m of way off and out of view. It has reached one when it says so and stands within
0.5 m and 0.6 rad of where the image was taken. It runs the same NavStack, Navigator and path follower as the ROS nodes.
Time is simulated: a plan is followed --latency seconds after the frame that it starts from.

The folder gets results.jsonl (written as it goes; the same command goes on where it stopped), summary.json and a map of
every drive.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("--worlds", default="20003", metavar="A,B|A-B", help="built-in worlds (default 20003)")
    parser.add_argument("--goals", type=int, default=4, metavar="N", help="goals in each world (default 4)")
    parser.add_argument("--rows", default="all", metavar="A,B", help=f"what is on: {', '.join(ROW_KEYS)} (default all)")
    parser.add_argument("--ablations", action="store_true", help="all of these rows but those along a map")
    parser.add_argument("--time-limit", type=float, default=40.0, metavar="S", help="simulated s per goal (default 40)")
    parser.add_argument(
        "--explore",
        type=float,
        metavar="S",
        help="no goals: roam for so many simulated s, by --policy's own paths or to where the robot was least",
    )
    parser.add_argument(
        "--policy", metavar="NAME", help="planner.proposals: model name or folder of a gnm, vint, nomad"
    )
    parser.add_argument("--latency", type=float, default=0.25, metavar="S", help="of a plan, s (default 0.25)")
    parser.add_argument("--drift", type=float, metavar="PERCENT", help="of wheel odometry (default: the sensors')")
    add_world_flag(parser)
    add_sensor_flag(parser)
    parser.add_argument(
        "--camera", default="320x240", metavar="WxH", help="px; its square is 90 deg wide (default 320x240)"
    )
    parser.add_argument("--model", metavar="NAME", help="model name or folder (default: the configuration's)")
    parser.add_argument("--seed", type=int, help="of the search (default: the configuration's)")
    parser.add_argument("--out", type=Path, default=Path("runs/navigate"), metavar="DIR", help="default runs/navigate")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results in the output folder")
    parser.add_argument("--no-maps", action="store_true", help="draw no maps")
    add_config_flags(parser)
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Explore and drive, or go on; print the table and where the maps are."""
    import json

    from come_nav.core.files import atomic_write_text, writable_folder
    from come_nav.evaluation.suites.closed_loop.suite import run_closed_loop
    from come_nav.evaluation.suites.closed_loop.summary import summarise, summary_lines

    if args.explore is not None:
        return _explore(args)
    folder = writable_folder(args.out)
    on_drive = None if args.no_maps else _maps_in(folder)
    result = run_closed_loop(wanted_of(args), folder, Steps, on_drive, args.fresh)
    summary = summarise(result)
    document = {**summary, "settings": result.settings, "goals": result.records}
    atomic_write_text(folder / "summary.json", json.dumps(document, indent=1, default=str) + "\n")
    if args.json:
        print_json(document)
    else:
        print(format_table(*summary_lines(summary)))
        print(f"\nresults: {folder / 'summary.json'}" + ("" if args.no_maps else f"\nmaps:    {folder / 'maps'}"))
    return 0


def _explore(args: argparse.Namespace) -> int:
    """Roam without a goal; print what was driven in each world."""
    from come_nav.core.checks import check_range
    from come_nav.evaluation.suites.closed_loop.exploration import run_exploration

    check_range("--explore", args.explore, 0.0, 36000.0, open_low=True)
    records = run_exploration(wanted_of(args), args.explore, Steps)
    if args.json:
        print_json({"explored": records})
        return 0
    header = ("world", "driven m", "cells of 0.5 m", "rooms", "collisions")
    cells = [
        (own["world"], own["driven_m"], own["cells"], f"{own['rooms']} of {own['rooms_in_all']}", own["collisions"])
        for own in records
    ]
    print(format_table(header, [[str(cell) for cell in row] for row in cells]))
    return 0


def wanted_of(args: argparse.Namespace) -> ClosedLoop:
    """Return what the flags ask for."""
    from come_nav.cli.evaluate_flags import camera_size
    from come_nav.config import load_config, override_words
    from come_nav.evaluation.suites.closed_loop.settings import ClosedLoop, ClosedLoopSettings
    from come_nav.sim.sensors.mounting import default_fov_rad
    from come_nav.sim.world_sets import BUILT_IN

    flags = {"seed": args.seed, "model": args.model, "planner.proposals": args.policy}
    config = load_config(args.config, [*other_words(args.set), *override_words(flags)], ROBOT)
    width, height = camera_size(args.camera)
    loop = ClosedLoopSettings(
        worlds=tuple(world_seeds(args.worlds)),
        goals=args.goals,
        time_limit_s=args.time_limit,
        latency_s=args.latency,
        image_width=width,
        image_height=height,
        horizontal_fov_deg=round(math.degrees(default_fov_rad(width, height)), 2),
        drift_percent=args.drift or 0.0,
        sensors=sensors_of(args, args.drift),
        world_set=args.set_of_worlds or BUILT_IN,
    )
    ablations = ABLATIONS if args.drift else tuple(key for key in ABLATIONS if key != "no-correction")
    rows = ablations if args.ablations else tuple(word.strip() for word in args.rows.split(","))
    return ClosedLoop(loop, config, rows=rows)


def world_seeds(text: str) -> list[int]:
    """Return the seeds that ``20003,20007`` or ``20000-20003`` names."""
    from come_nav.cli.evaluate_flags import parse_worlds

    return [seed for word in text.split(",") for seed in parse_worlds(word)]


def _maps_in(folder: Path) -> OnDrive:
    """Return what draws each drive into ``folder`` / maps."""
    from come_nav.core.files import atomic_path, writable_folder
    from come_nav.evaluation.suites.closed_loop.summary import map_of_drive
    from come_nav.viz.images import png_from_rgb

    maps = writable_folder(folder / "maps")

    def draw(row: str, course: Any, goal: Any, driven: Any, record: dict[str, Any]) -> None:
        name = f"world{record['world']}_{row}_{record['number']:02d}.png"
        with atomic_path(maps / name) as temporary:
            temporary.write_bytes(png_from_rgb(map_of_drive(course, goal, driven)))

    return draw
