"""``come-nav <verb>``: finds the verb's module and runs it; heavy libraries load only when a verb needs them."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence

from come_nav import __version__
from come_nav.core.errors import ComeNavError, suggest

# verb -> (module in come_nav.cli with add_arguments(parser) and run(args) -> int, one line of help)
VERBS: dict[str, tuple[str, str]] = {
    "doctor": ("doctor", "check this machine: libraries, devices, models, ROS"),
    "demo": ("demo", "record, remember, plan and evaluate in a built-in world; writes an HTML report"),
    "simulate": ("simulate", "drive a scripted robot through a built-in world and record a bag"),
    "assets": ("assets", "collect photographed materials and furniture that are installed here, for worlds"),
    "bag": ("bag", "describe a recorded bag: topics, rates, gaps, what come_nav would use"),
    "convert": ("convert", "convert recordings and trajectories between formats"),
    "train": ("train", "train or fine-tune a world model; resumable"),
    "evaluate": ("evaluate", "plan on a recording or a suite of built-in worlds; ATE/RPE table and HTML report"),
    "plan": ("plan", "plan once from a recording to a goal image or pose and draw what was considered"),
    "navigate": ("navigate", "explore a built-in world, then drive to images: the whole robot in a loop, without ROS"),
    "topomap": ("topomap", "topological maps as folders of numbered images: create, describe, localise, key frames"),
    "memory": ("memory", "build, describe, export and verify what a robot remembers"),
    "trajectory": ("trajectory", "ATE and RPE of two trajectory files"),
    "models": ("models", "list, describe and verify model checkpoints"),
    "config": ("config", "show the configuration that a command would use"),
}

EPILOG = """examples:
  come-nav demo                                   the whole job in the built-in world
  come-nav evaluate my_bag --out report           evaluate plans on a recorded bag
  come-nav trajectory ref.txt est.txt --align se3 ATE/RPE of two TUM files
  come-nav <verb> --help                          every flag of one verb
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status: 0 success, 1 a mistake told in one line, 2 bad usage, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be UTF-8, nor the terminal
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        args = _parse(words)
        _set_up_logging(args)
        return int(args.run(args))
    except ComeNavError as error:
        print(f"come-nav: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("come-nav: interrupted; results so far are kept, run the same command to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `come-nav ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="come-nav",
        description="Navigation for robots that remember: record, train, plan, evaluate.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"come-nav {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="<verb>", required=True)
    wanted = next((word for word in words if not word.startswith("-")), None)
    if wanted is not None and wanted not in VERBS:
        parser.error(f"unknown verb '{wanted}'{suggest(wanted, VERBS)}")
    for verb, (module_name, line) in VERBS.items():
        verb_parser = verbs.add_parser(
            verb, help=line, description=line, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if verb == wanted:  # only the chosen verb's module is imported, so that --help stays fast
            module = importlib.import_module(f"come_nav.cli.{module_name}")
            module.add_arguments(verb_parser)
            verb_parser.set_defaults(run=module.run)
    return parser.parse_args(words)


def _set_up_logging(args: argparse.Namespace) -> None:
    level = logging.DEBUG if getattr(args, "verbose", False) else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("come_nav").setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
