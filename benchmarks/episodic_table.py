"""What an adapter of an episode earns by its rank and the frames that it learned: adapted against unadapted weights.

    python benchmarks/episodic_table.py --set-of-worlds furnished --out FILE
    python benchmarks/episodic_table.py ../shared/data/bags/kitchen --frames 25 50 80 --windows 30 --out FILE

An episode is a place that training has not seen: furnished validation worlds (``come-nav assets collect``), or a
recording. Its memory phase has so many frames; an adapter of each rank learns them as the robot does. Then the same
network predicts views of places seen in that phase, with the adapter and without, from the same context and noise (no
cloud takes part). Errors are mean squares of clean latents from pure noise (one step) and at the noise level 0.4;
ratios are adapted over unadapted, paired, with intervals over drives (windows where there is one). The model's hidden
size is the largest rank: at 128 an adapter of the shipped model can change a matrix in any way. Every cell is written
as it is done; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from machine import machine_facts

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.cli.output import Steps
from come_nav.config import Config, load_config
from come_nav.core.experts import LONG_TERM
from come_nav.core.files import atomic_write_text
from come_nav.data.opening import open_recording
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.evaluation.metrics.statistics import bootstrap_ratio, paired_difference
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.memory.calibration import contrasts_of
from come_nav.evaluation.suites.memory.compositions import find_weights
from come_nav.evaluation.suites.memory.recall import set_up_recall
from come_nav.evaluation.suites.memory.settings import RECALL, MemorySuiteSettings
from come_nav.evaluation.suites.memory.setup import MemorySetup
from come_nav.sim.world_sets import BUILT_IN

LEVELS = (1.0, 0.4)
MEMORY_ENDS = 0.6  # of a recording


def suite_of(args: argparse.Namespace, frames: int) -> MemorySuiteSettings:
    """Return what is evaluated after a memory phase of so many frames."""
    source = SourceSettings(
        RECALL, tuple(args.bag), parse_worlds(args.worlds), args.windows, world_set=args.set_of_worlds
    )
    own = MemorySuiteSettings(source, find_weights(None, args.model))
    if not args.bag:
        return replace(own, memory_frames=frames)
    with open_recording(args.bag[0], rate_hz=4.0, quiet=True) as recording:
        share = frames / len(recording)
    return replace(own, memory_part=(max(0.0, MEMORY_ENDS - share), MEMORY_ENDS))


def cell_of(setup: MemorySetup, config: Config, rank: int) -> dict[str, Any]:
    """Return the errors of adapted and unadapted weights with adapters of one rank."""
    lora = replace(setup.navigation.lora, rank=rank, alpha=rank)
    with tempfile.TemporaryDirectory() as folder:
        own = replace(setup, navigation=replace(setup.navigation, lora=lora), folder=Path(folder))
        started_s = time.process_time()
        found = contrasts_of(own, LEVELS, names=(LONG_TERM,))
        seconds = time.process_time() - started_s
    drives = [item.window.recording_id for item in setup.selection.windows]
    clusters = drives if len(set(drives)) > 1 else None
    row: dict[str, Any] = {"windows": len(drives), "drives": len(set(drives)), "cpu_s": round(seconds, 1)}
    for level, said in zip(LEVELS, found, strict=True):
        number = said.names.index(LONG_TERM)
        sides = said.with_memory[number], said.without[number]
        errors = [((side - said.clean) ** 2).flatten(1).mean(1).double().cpu().numpy() for side in sides]
        row[f"unadapted, {level:g}"] = round(float(errors[1].mean()), 4)
        row[f"ratio, {level:g}"] = asdict(bootstrap_ratio(*errors, config.seed, clusters))
        if level == LEVELS[0]:
            truth = setup.model.decode(said.clean)
            values = [psnr(setup.model.decode(side), truth).double().cpu().numpy() for side in sides]
            row["psnr_db gained"] = asdict(paired_difference(*values, config.seed, clusters))
    return row


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", nargs="*")
    parser.add_argument("--worlds", default="10000-10002")
    parser.add_argument("--set-of-worlds", default=BUILT_IN)
    parser.add_argument("--windows", type=int, default=48)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--frames", type=int, nargs="+", default=[50, 150, 450])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = load_config(None, {"model": args.model})
    asked = {"worlds": args.worlds, "set": args.set_of_worlds, "recordings": [Path(bag).name for bag in args.bag]}
    asked |= {"model": args.model, "windows": args.windows}
    document: dict[str, Any] = {"settings": asked, "machine": machine_facts(), "rows": []}
    if args.out.exists() and (kept := json.loads(args.out.read_text()))["settings"] == asked:
        document = kept
    for frames in args.frames:
        missing = [
            rank
            for rank in args.ranks
            if not any((row["frames"], row["rank"]) == (frames, rank) for row in document["rows"])
        ]
        setup = set_up_recall(suite_of(args, frames), config, Path(), Steps) if missing else None
        for rank in missing if setup is not None else ():
            row = {"frames": frames, "rank": rank, **cell_of(setup, config, rank)}
            document["rows"].append(row)
            atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
