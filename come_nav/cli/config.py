"""``come-nav config show``: the configuration that a command would use, every key explained."""

from __future__ import annotations

import argparse

from come_nav.cli.output import add_json_flag, print_json

EPILOG = """examples:
  come-nav config show                                    all defaults, explained
  come-nav config show --config my.yaml                   with a file over them
  come-nav config show --set planner.samples=120 --json   with one key changed, as JSON
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("action", choices=["show"], help="show: print the resolved configuration as YAML")
    add_config_flags(parser)
    add_json_flag(parser)


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--set``, which every verb that uses the configuration shares."""
    parser.add_argument("--config", metavar="FILE", help="YAML file, or the name of one in config/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one key, e.g. planner.samples=60"
    )


def run(args: argparse.Namespace) -> int:
    """Print the configuration."""
    from come_nav.config import describe, load_config
    from come_nav.core.settings import to_mapping

    config = load_config(args.config, args.set)
    if args.json:
        print_json(to_mapping(config))
    else:
        print(describe(config), end="")
    return 0
