"""``come-nav config show``: the configuration that a command would use, every key explained."""

from __future__ import annotations

import argparse

from come_nav.cli.output import add_json_flag, print_json
from come_nav.core.errors import ConfigError

EPILOG = """examples:
  come-nav config show --basic                            what a newcomer sets, explained
  come-nav config show                                    all keys: the basic ones, then those for experts
  come-nav config show --model nwm-b                      with what was tuned to another model
  come-nav config show --config my.yaml                   with a file over them
  come-nav config show --set planner.samples=120 --json   with one key changed, as JSON
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("action", choices=["show"], help="show: print the resolved configuration as YAML")
    parser.add_argument("--basic", action="store_true", help="the basic settings alone")
    parser.add_argument("--model", metavar="NAME", help="model name or folder (default: the configuration's)")
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
    from come_nav.config import describe, load_layers, override_words
    from come_nav.core.resources import find_resource
    from come_nav.core.settings import to_mapping

    words = [*args.set, *override_words({"model": args.model or None})]
    layers = load_layers(args.config, words)
    if args.model:
        find_resource("models", layers.config.model)  # a name that is none is told, not shown without its values
    if args.json:
        if args.basic:
            raise ConfigError("--json prints all keys; leave --basic out")
        print_json(to_mapping(layers.config))
    else:
        print(describe(layers.config, layers.from_model, basic_alone=args.basic), end="")
    return 0
