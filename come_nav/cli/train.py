"""``come-nav train``: train or fine-tune a world model; the same command resumes a run that was stopped."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from come_nav.cli.output import add_json_flag, print_json

if TYPE_CHECKING:
    from come_nav.training.config import TrainConfig

EPILOG = """examples:
  come-nav train --config config/train_tiny.yaml --out runs/tiny         the shipped model, from nothing
  come-nav train --config config/train_tiny.yaml --out runs/tiny         ... again: goes on where it stopped
  come-nav train --init models/tiny --data my_bag --out runs/mine        fine-tune on one's own recording
  come-nav train --config config/train_tiny.yaml --out runs/tiny --max-minutes 9   one slice of a longer run
  torchrun --nproc-per-node 4 -m come_nav train --config ... --devices 4 --strategy ddp

The run folder holds config.yaml, logs/ (CSV), checkpoints of both stages, and at the end the model folder, which
`come-nav evaluate --model RUN/NAME` takes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    parser.add_argument("--config", type=Path, help="YAML that overrides the defaults (see config/train_tiny.yaml)")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an existing run in it is resumed")
    parser.add_argument("--init", type=Path, help="model folder to fine-tune instead of starting from nothing")
    parser.add_argument("--data", action="append", default=[], help="bag or NWM folder to learn from (may repeat)")
    parser.add_argument("--data-use", help="part of each recording to learn from, e.g. 0-0.6 (default all)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key")
    parser.add_argument("--accelerator", default="auto", help="Lightning accelerator: auto, cpu, gpu (default auto)")
    parser.add_argument("--devices", default="1", help="number of devices per node (default 1)")
    parser.add_argument("--num-nodes", type=int, default=1, help="nodes (default 1)")
    parser.add_argument("--strategy", default="auto", help="Lightning strategy: auto, ddp, fsdp (default auto)")
    parser.add_argument("--precision", default="auto", help="auto, 32-true, bf16-mixed (default auto)")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: all cores)")
    parser.add_argument("--max-minutes", type=float, help="stop and save after this time")
    parser.add_argument("--no-progress", action="store_true", help="no progress bars")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Train, resume or fine-tune; print the exported model folder."""
    import logging

    import torch

    from come_nav.training.run import Machine, Run

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    config, init = _config(args), None
    if args.init is not None:
        from come_nav.world_model.model import DiffusionWorldModel

        init = DiffusionWorldModel.load(args.init)
    devices: int | str = int(args.devices) if args.devices.lstrip("-").isdigit() else args.devices
    machine = Machine(
        args.accelerator, devices, args.num_nodes, args.strategy, args.precision, args.max_minutes, not args.no_progress
    )
    exported = Run(config, args.out, machine, init).finish()
    if exported is None:
        print(f"stopped before the end; run the same command to go on from {args.out}", file=sys.stderr)
    if args.json:
        print_json({"model": exported, "finished": exported is not None, "config": dataclasses.asdict(config)})
    elif exported is not None:
        print(exported)
    return 0


def _config(args: argparse.Namespace) -> TrainConfig:
    """Merge defaults, the YAML file, --set overrides and the --data flags; later ones win."""
    import yaml

    from come_nav.core.errors import ConfigError
    from come_nav.core.settings import from_mapping, read_yaml
    from come_nav.training.config import TrainConfig

    values = read_yaml(args.config) if args.config else {}
    for override in args.set:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set needs KEY=VALUE, got '{override}'")
        target = values
        *parents, leaf = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {key}: '{parent}' is a value, not a group of keys")
        target[leaf] = yaml.safe_load(text)
    data = values.setdefault("data", {})
    if args.data:
        data["recordings"] = [*data.get("recordings", []), *args.data]
    if args.data_use:
        try:
            low, high = (float(part) for part in args.data_use.split("-"))
        except ValueError:
            raise ConfigError(f"--data-use must look like 0-0.6, got '{args.data_use}'") from None
        data["recording_use"] = [low, high]
    return from_mapping(TrainConfig, values)
