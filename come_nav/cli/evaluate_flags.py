"""From the flags that all suites of ``come-nav evaluate`` share to settings."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from come_nav.cli.recording_flags import parse_rate, recording_settings
from come_nav.cli.sensor_flags import other_words, sensors_of
from come_nav.core.errors import ConfigError, suggest

if TYPE_CHECKING:
    from come_nav.config import Config
    from come_nav.evaluation.metrics.success import SuccessSettings
    from come_nav.evaluation.suites.inputs import SourceSettings

PLANNING, QUALITY, RECALL, MEMORY_PLANNING = SUITES = ("planning", "quality", "recall", "memory-planning")


def prepare(args: argparse.Namespace) -> tuple[Config, Path]:
    """Return the configuration that the flags ask for and the output folder, which can be written."""
    from come_nav.core.files import writable_folder

    if args.suite is not None:
        if args.suite not in SUITES:
            raise ConfigError(f"unknown suite '{args.suite}'{suggest(args.suite, SUITES)}")
    elif not args.input:
        raise ConfigError("give a recording to evaluate, or --suite planning or quality for built-in worlds")
    config = configuration(args)
    names = "+".join(Path(path).resolve().stem for path in args.input)
    name = "_".join(word for word in (names, args.suite) if word)
    return config, writable_folder(args.out or Path("runs/evaluate") / name)


def configuration(args: argparse.Namespace) -> Config:
    """Return the configuration of ``--config``, ``--set``, ``--model``, ``--seed`` and ``--device``."""
    from come_nav.config import load_config, override_words

    flags = {"model": args.model, "seed": args.seed, "device": args.device}
    flags["inference.measured_depth"] = None if args.depth is None else args.depth == "measured"
    return load_config(args.config, [*other_words(args.set), *override_words(flags)])


def source_settings(args: argparse.Namespace) -> SourceSettings:
    """Return what the flags want to be evaluated."""
    from come_nav.evaluation.suites.inputs import SourceSettings
    from come_nav.sim.world_sets import BUILT_IN

    suite = args.suite or PLANNING
    recording = recording_settings(argparse.Namespace(**vars(args) | {"rate": "all"}))
    del recording["rate_hz"]  # the model's, whatever it is
    if suite == PLANNING and args.depth == "estimated":  # no plan looks at depth then
        recording["depth_topic"] = args.depth_topic or "none"
    asked = None if args.rate is None else parse_rate(args.rate)
    return SourceSettings(
        suite=suite,
        paths=tuple(args.input),
        worlds=parse_worlds(args.worlds),
        windows=args.windows,
        part=None if args.part is None else parse_part(args.part),
        choice=args.choice,
        recording=recording,
        rate_hz=math.inf if args.rate is not None and asked is None else asked,
        kinematics=asked_kinematics(args),
        camera_px=camera_size(args.camera),
        sensors=sensors_of(args),
        world_set=args.set_of_worlds or BUILT_IN,
    )


def asked_kinematics(args: argparse.Namespace) -> str:
    """Return what ``--kinematics`` says; without it auto, or nothing where the configuration names robot.kinematics."""
    from come_nav.config import load_layers

    if args.kinematics is not None:
        return str(args.kinematics)
    return "" if "robot.kinematics" in load_layers(args.config, args.set).given else "auto"


def chosen_rows(text: str | None, known: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names that ``--rows`` gives, None without it; raise ConfigError for others than the ``known``."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in known:
            raise ConfigError(f"--rows takes {', '.join(known)}, got '{name}'{suggest(name, known)}")
    return names


def parse_horizons(text: str | None) -> tuple[float, ...] | None:
    """Return the seconds of ``2`` or ``1,2,4,8``; None for None; raise ConfigError for what is no number."""
    try:
        return None if text is None else tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"--horizon takes seconds, or a list such as 2,4,8, got '{text}'") from None


def success_settings(args: argparse.Namespace) -> SuccessSettings:
    """Return when a plan counts as a success."""
    from come_nav.evaluation.metrics.success import SuccessSettings

    asked = {"within_m": args.success_m, "within_deg": args.success_deg}
    return SuccessSettings(**{name: value for name, value in asked.items() if value is not None})


def parse_part(text: str) -> tuple[float, float]:
    """Return the fractions that ``0.6-1.0`` names."""
    match = re.fullmatch(r"([0-9.]+)-([0-9.]+)", text.strip())
    try:
        if match is None:
            raise ValueError
        return float(match.group(1)), float(match.group(2))
    except ValueError:
        raise ConfigError(f"--part must look like 0.6-1.0 (fractions of each recording), got '{text}'") from None


def parse_share(text: str | None) -> tuple[int, int] | None:
    """Return K and N of ``K/N``, a share of the windows."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not 1 <= int(match.group(1)) <= int(match.group(2)):
        raise ConfigError(f"--share must be K/N with 1 <= K <= N, e.g. 1/2, got '{text}'")
    return int(match.group(1)), int(match.group(2))


def parse_worlds(text: str) -> range:
    """Return the seeds that ``20000-20019`` or ``20003`` names."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    first = int(match.group(1)) if match else 0
    last = int(match.group(2) or first) if match else -1
    if last < first:
        raise ConfigError(f"--worlds must look like 20000-20019 or 20003, got '{text}'")
    return range(first, last + 1)


def camera_size(text: str) -> tuple[int, int]:
    """Return the width and height that ``320x240`` names."""
    try:
        width, height = (int(word) for word in text.lower().split("x"))
    except ValueError:
        raise ConfigError(f"--camera must look like 320x240, got '{text}'") from None
    return width, height
