"""``come-nav train``: train or fine-tune a world model; the same command resumes a run that was stopped."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.cli.output import add_json_flag, print_json

if TYPE_CHECKING:
    from come_nav.training.config import TrainSettings
    from come_nav.training.machine import Machine
    from come_nav.training.motion.run import MotionRun
    from come_nav.training.motion.settings import MotionTrainSettings
    from come_nav.training.policies.run import PolicyRun
    from come_nav.training.policies.settings import PolicyTrainSettings
    from come_nav.training.run import Run
    from come_nav.training.sequence.run import SequenceRun
    from come_nav.training.sequence.settings import SequenceTrainSettings
    from come_nav.world_model.model import DiffusionWorldModel

TOPIC_ROLES, FRAME_ROLES = ("image", "depth", "info", "pose"), ("odom", "base", "camera")  # of recordings
RECORDING_ROLES = (*(f"{role}_topic" for role in TOPIC_ROLES), *(f"{role}_frame" for role in FRAME_ROLES))

EPILOG = """examples:
  come-nav train --config config/train_tiny.yaml --out runs/tiny         the base of tiny, from nothing
  come-nav train --config config/train_tiny.yaml --out runs/tiny         ... again: goes on where it stopped
  come-nav train --config config/train_tiny.yaml --out runs/tiny --max-minutes 9   one slice of a longer run
  come-nav train --init models/tiny --data my_bag --out runs/mine        fine-tune on one's own recording
  come-nav train --init models/tiny --data my_bag --data-use 0-0.6 --out runs/mine   ... the rest is for evaluate
  come-nav train --policy nomad --out runs/nomad                         NoMaD, in built-in worlds
  come-nav train --policy nomad --config config/train_nomad.yaml --out runs/small_nomad    a small one, on one core
  come-nav train --policy vint --data my_bag --out runs/vint             ViNT, on one's own recording
  come-nav train --sequence ssm --config config/train_sequence.yaml --out runs/ssm    a state-space memory, in mazes
  come-nav train --motion --config config/train_motion.yaml --out runs/motion    the prior of motion
  torchrun --nproc-per-node 8 -m come_nav train --config config/train_xl.yaml --out runs/xl
  srun come-nav train --config config/train_xl.yaml --out runs/xl --devices 8 --num-nodes 4

what comes out, in the run folder:
  config.yaml       every setting that was used; a folder with other settings is refused, never mixed
  autoencoder/, denoiser/   checkpoints of each stage: best.ckpt, last.ckpt and the newest few numbered ones
  logs/             CSV, a file for every slice           tensorboard/   tensorboard --logdir RUN/tensorboard
  samples/          truth beside reconstruction, and context, truth, imagined view, at every validation
  NAME/             the model folder, at the end: come-nav evaluate my_bag --model RUN/NAME

Ctrl-C, SIGTERM, a time limit, a crash: the same command goes on, and on a CPU in float32 the weights are those of an
uninterrupted run, bit for bit. batch_size is the total of all devices: more of them give the same steps, sooner.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this verb."""
    parser.epilog = EPILOG
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--config", type=Path, help="YAML that overrides the defaults (see config/train_tiny.yaml, train_xl.yaml)"
    )
    what.add_argument(
        "--policy",
        metavar="KIND",
        help="train a learned planner instead of a world model: gnm, vint or nomad; with --init it begins with the "
        "weights of that policy",
    )
    what.add_argument(
        "--sequence",
        metavar="KIND",
        help="train a denoiser of whole sequences instead, whose state is its memory: ssm (state space), window, full "
        "(attention to all frames) or none",
    )
    what.add_argument(
        "--motion",
        action="store_true",
        help="train a prior of motion instead: where a robot that sees this, and moves so, will be",
    )
    what.add_argument("--out", type=Path, required=True, help="run folder; an existing run in it is resumed")
    what.add_argument(
        "--init",
        type=Path,
        help="model folder to fine-tune; shapes and units are its own, the learning rate is low (2e-4, 1500 steps) and "
        "only --data is learned from, until --config or --set says otherwise",
    )
    what.add_argument(
        "--data", action="append", default=[], help="bag or folder (NWM, TUM, KITTI, EuRoC) to learn from"
    )
    what.add_argument(
        "--data-use",
        metavar="FROM-TO",
        help="part of each recording to learn from, e.g. 0-0.6, so that the rest can measure the result (default all)",
    )
    for role in TOPIC_ROLES:
        what.add_argument(
            f"--{role}-topic", metavar="NAME", help=f"of the recordings, as in bag info (data.{role}_topic)"
        )
    for role in FRAME_ROLES:
        what.add_argument(
            f"--{role}-frame", metavar="NAME", help=f"of the recordings, as in bag info (data.{role}_frame)"
        )
    what.add_argument("--time-offset", type=float, metavar="S", help="added to the stamps of their poses")
    what.add_argument("--depth-scale", type=float, metavar="M", help="metres of a unit of 16UC1 depth (default 0.001)")
    what.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one config key")
    where = parser.add_argument_group("where to train (the words are Lightning's)")
    where.add_argument("--accelerator", default="auto", help="auto, cpu, gpu (default auto)")
    where.add_argument("--devices", help="devices per node (default 1; under torchrun, its processes per node)")
    where.add_argument("--num-nodes", type=int, help="nodes (default 1; under torchrun, as many as it started)")
    where.add_argument(
        "--strategy",
        default="auto",
        help="auto (ddp where there are several devices), ddp, fsdp: weights sharded, for networks that no device "
        "holds; without averaged weights (default auto)",
    )
    where.add_argument("--precision", help="auto, 32-true, bf16-mixed (default: the configuration's)")
    where.add_argument("--threads", type=int, help="CPU threads of torch (default: all cores)")
    where.add_argument("--max-minutes", type=float, help="stop and save after this time")
    where.add_argument(
        "--export",
        action="store_true",
        help="train nothing: write the model folder of the newest checkpoint of a run that is not finished",
    )
    where.add_argument("--no-progress", action="store_true", help="no progress bars")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Train, resume or fine-tune; print the exported model folder."""
    import logging

    import torch

    from come_nav.training.run import Run

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.motion:
        return _run_motion(args)
    if args.sequence is not None:
        return _run_sequence(args)
    if args.policy is not None:
        return _run_policy(args)
    init = None
    if args.init is not None:
        from come_nav.world_model.model import DiffusionWorldModel

        init = DiffusionWorldModel.load(args.init)
    config = _config(args, init)
    return _finish(args, Run(config, args.out, _machine(args, config.precision), init))


def _run_policy(args: argparse.Namespace) -> int:
    """Train a learned planner; print the exported model folder."""
    from come_nav.policies.model import LearnedPolicy
    from come_nav.training.policies.run import PolicyRun

    config = _policy_config(args)
    init = None if args.init is None else LearnedPolicy.load(args.init)
    return _finish(args, PolicyRun(config, args.out, _machine(args, config.precision), init))


def _run_sequence(args: argparse.Namespace) -> int:
    """Train a denoiser of sequences; print the exported model folder."""
    from come_nav.training.sequence.run import SequenceRun

    config = _sequence_config(args)
    return _finish(args, SequenceRun(config, args.out, _machine(args, config.precision)))


def _run_motion(args: argparse.Namespace) -> int:
    """Train a prior of motion; print the exported model folder."""
    from come_nav.training.motion.run import MotionRun

    config = _motion_config(args)
    return _finish(args, MotionRun(config, args.out, _machine(args, config.precision)))


def _machine(args: argparse.Namespace, precision: str) -> Machine:
    """Return what the flags say to train on; ``precision`` counts where no flag says another."""
    from come_nav.training.machine import Machine

    devices, nodes = _devices(args)
    wanted = args.precision or precision
    return Machine(args.accelerator, devices, nodes, args.strategy, wanted, args.max_minutes, not args.no_progress)


def _finish(args: argparse.Namespace, training: Run | PolicyRun | SequenceRun | MotionRun) -> int:
    """Train as long as the flags say, or export what there is, and tell."""
    exported = training.export_newest() if args.export else training.finish()
    if training.processes.rank:  # the first process tells
        return 0
    if exported is None:
        print(f"stopped before the end; run the same command to go on from {args.out}", file=sys.stderr)
    if args.json:
        config = dataclasses.asdict(training.config)
        print_json({"model": exported, "finished": exported is not None, "config": config})
    elif exported is not None:
        print(exported)
    return 0


def _policy_config(args: argparse.Namespace) -> PolicyTrainSettings:
    """Merge the published shape of a policy, the YAML file, --set overrides and --data; later ones win."""
    from come_nav.core.settings import from_mapping, read_yaml
    from come_nav.training.policies.settings import PolicyTrainSettings, default_values
    from come_nav.training.pretrained import merged

    values = merged(default_values(args.policy), read_yaml(args.config) if args.config else {})
    _override(values, args)
    data = values.setdefault("data", {})
    if args.data and "worlds" not in data:
        data["worlds"] = 0  # one's own recordings alone, until told otherwise
    return from_mapping(PolicyTrainSettings, values)


def _sequence_config(args: argparse.Namespace) -> SequenceTrainSettings:
    """Merge the shape of a kind, the YAML file and --set overrides; later ones win."""
    from come_nav.core.errors import ConfigError
    from come_nav.core.settings import from_mapping, read_yaml
    from come_nav.training.pretrained import merged
    from come_nav.training.sequence.settings import SequenceTrainSettings, default_values

    if args.policy is not None or args.init is not None or args.data:
        raise ConfigError("--sequence trains from nothing in built-in worlds; leave out --policy, --init and --data")
    values = merged(default_values(args.sequence), read_yaml(args.config) if args.config else {})
    _override(values, args)
    return from_mapping(SequenceTrainSettings, values)


def _motion_config(args: argparse.Namespace) -> MotionTrainSettings:
    """Merge the defaults, the YAML file and --set overrides; later ones win."""
    from come_nav.core.errors import ConfigError
    from come_nav.core.settings import from_mapping, read_yaml, to_mapping
    from come_nav.training.motion.settings import MotionTrainSettings
    from come_nav.training.pretrained import merged

    others = ("policy", "sequence", "init", "data_use", "time_offset", "depth_scale", *RECORDING_ROLES)
    if args.data or any(getattr(args, name) is not None for name in others):
        raise ConfigError(
            "--motion trains from nothing in built-in worlds; leave out --policy, --sequence, --init, --data and what "
            "tells of recordings"
        )
    values = merged(to_mapping(MotionTrainSettings()), read_yaml(args.config) if args.config else {})
    _override(values, args)
    return from_mapping(MotionTrainSettings, values)


def _devices(args: argparse.Namespace) -> tuple[int | str, int]:
    """Return devices per node and nodes: those of the flags, else those that torchrun or srun started, else one."""
    from come_nav.training.machine import started_processes

    local, there = started_processes()
    nodes = args.num_nodes or there
    if args.devices is None:
        return local, nodes
    return (int(args.devices) if args.devices.lstrip("-").isdigit() else args.devices), nodes


def _config(args: argparse.Namespace, init: DiffusionWorldModel | None) -> TrainSettings:
    """Merge defaults (those of fine-tuning with --init), the YAML file, --set overrides and --data; later ones win."""
    from come_nav.core.errors import ConfigError
    from come_nav.core.settings import from_mapping, read_yaml
    from come_nav.training.config import TrainSettings
    from come_nav.training.pretrained import fine_tuning_values, merged

    values = read_yaml(args.config) if args.config else {}
    if init is not None:
        values = merged(fine_tuning_values(init), values)
    _override(values, args)
    data = values["data"]
    if init is not None and not data.get("worlds") and not data.get("recordings"):
        raise ConfigError(
            "--init needs something to learn from: --data BAG, or built-in worlds with --set data.worlds=N"
        )
    return from_mapping(TrainSettings, values)


def _override(values: dict[str, Any], args: argparse.Namespace) -> None:
    """Put --set, --data and the flags of recordings into a configuration, in place."""
    from come_nav.config import parse_override
    from come_nav.core.errors import ConfigError
    from come_nav.core.settings import set_key

    for override in args.set:
        set_key(values, *parse_override(override))
    if values.get("data") is None:
        values["data"] = {}
    data = values["data"]
    if not isinstance(data, dict):
        raise ConfigError(f"data must be a group of keys, got {data!r}")
    if args.data:
        there = data.get("recordings") or []
        data["recordings"] = [*([there] if isinstance(there, str) else there), *args.data]
    if args.data_use:
        try:
            low, high = (float(part) for part in args.data_use.split("-"))
        except ValueError:
            raise ConfigError(f"--data-use must look like 0-0.6, got '{args.data_use}'") from None
        data["recording_use"] = [low, high]
    named = {name: getattr(args, name) for name in RECORDING_ROLES}
    named |= {"time_offset_s": args.time_offset, "depth_scale_m": args.depth_scale}
    data.update({name: value for name, value in named.items() if value is not None})
