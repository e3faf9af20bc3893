"""``come-nav evaluate --suite recall | memory-planning``: what memories are worth, on places seen long before."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from come_nav.core.errors import ConfigError

if TYPE_CHECKING:
    from come_nav.config import Config
    from come_nav.evaluation.protocols.memory_windows import MemoryDrive
    from come_nav.evaluation.suites.compositions import CompositionWeights
    from come_nav.evaluation.suites.memory_cache import MemoryCache, MemorySettings
    from come_nav.world_model.model import DiffusionWorldModel

MEMORY_SUITES = RECALL, PLANNING = ("recall", "memory-planning")


def add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of these suites to ``come-nav evaluate``."""
    group = parser.add_argument_group("memory (--suite recall or memory-planning)")
    group.add_argument("--memory-frames", type=int, metavar="N", help="frames of the memory phase (default 320)")
    group.add_argument(
        "--test-frames", type=int, metavar="N", help="frames after it (default 240; plans of 2 s 1600, of 4 s 480)"
    )
    group.add_argument("--memory-part", metavar="A-B", help="of a recording: what is remembered (default 0-0.6)")
    group.add_argument("--drift", type=float, default=0.0, metavar="PERCENT", help="of odometry (default 0)")
    group.add_argument("--weights", metavar="FILE", help="of the experts (default: the model's own)")
    group.add_argument(
        "--contrast", choices=("both", "on", "off"), default="both", help="of compositions (default both)"
    )
    group.add_argument(
        "--choose-weights", action="store_true", help="choose weights on validation worlds, e.g. --worlds 10000-10009"
    )


def run(args: argparse.Namespace) -> int:
    """Run one of the suites; return the exit status."""
    if args.choose_weights:
        if args.suite != RECALL:
            raise ConfigError("--choose-weights goes with --suite recall")
        from come_nav.evaluation.suites import weights as evaluate_memory_weights

        return evaluate_memory_weights.run(args)
    if args.suite == RECALL:
        from come_nav.evaluation.suites import recall as evaluate_memory_recall

        return evaluate_memory_recall.run(args)
    from come_nav.evaluation.suites import memory_planning as evaluate_memory_planning

    return evaluate_memory_planning.run(args)


def load_weights(args: argparse.Namespace, config: Config) -> CompositionWeights:
    """Return the weights that ``--weights`` names, or those of the model."""
    from come_nav.evaluation.suites.compositions import find_weights

    return find_weights(args.weights, config.model)


def memory_settings(config: Config) -> MemorySettings:
    """Return how the configuration wants memories to be made."""
    from come_nav.evaluation.suites.memory_cache import MemorySettings

    return MemorySettings(config.spatial, config.episodic, config.lora, config.experts.older_frames)


def memory_cache(
    model: DiffusionWorldModel,
    config: Config,
    drives: dict[str, MemoryDrive],
    folder: Path,
    settings: MemorySettings,
    room: int = 1,
) -> MemoryCache:
    """Return where the memories of ``room`` drives are made and kept; adapters lie in ``folder`` / adapters."""
    from come_nav.evaluation.suites.inputs import model_fingerprint
    from come_nav.evaluation.suites.memory_cache import Memories, MemoryCache

    name = model_fingerprint(config.model)["sha256"]
    return MemoryCache(lambda drive: Memories(drives[drive], model, settings, folder / "adapters", name), room)


def suite_settings(
    source: dict[str, Any],
    protocol: dict[str, Any],
    config: Config,
    model: DiffusionWorldModel,
    weights: CompositionWeights,
    memory: MemorySettings,
) -> dict[str, Any]:
    """Return all that a record of these suites depends on."""
    from come_nav.cli.evaluate import model_settings
    from come_nav.core.settings import to_mapping
    from come_nav.navigation.loading import choose_device

    return {
        "input": source,
        "protocol": protocol,
        "device": choose_device(config.device).partition(":")[0],
        "model": model_settings(config, model),
        "memory": to_mapping(memory),
        "weights": weights.to_mapping(),
    }
