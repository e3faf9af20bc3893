"""What training the shipped models costs: floating-point operations and processor time of a step, times the steps.

    python benchmarks/training_compute.py --out benchmarks/results/training_compute.json
    python benchmarks/training_compute.py --only "small: denoiser" --steps 16
    python benchmarks/training_compute.py --runs runs/small --out FILE

Each stage is trained for some steps and for three times as many, from its shipped configuration; what the longer run
takes more is divided by the steps between, so that setting up and validating cancel. Operations are those of matrix
products, convolutions and attention, forward and backward, in the training process (torch's FlopCounterMode); seconds
are those of its processor on one thread, in float32 and in what precision "auto" means here. Making the data is not
counted. With --runs the stages are those that folders of trainings hold checkpoints of: each by its own configuration,
with the steps of its newest checkpoint and untrained weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from machine import machine_facts
from torch.utils.flop_counter import FlopCounterMode

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_write_text
from come_nav.core.resources import find_resource
from come_nav.core.settings import from_mapping, read_yaml
from come_nav.training.checkpoints import newest_checkpoint, steps_done
from come_nav.training.config import TrainSettings
from come_nav.training.machine import Machine
from come_nav.training.pretrained import fine_tuning_values, merged
from come_nav.training.run import Run
from come_nav.training.run_parts import new_estimator
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.model import DiffusionWorldModel

FEW_WORLDS = {"worlds": 3, "view_worlds": 3, "validation_worlds": 1, "pool_drives": 4, "passes": 200}


@dataclass(frozen=True)
class Part:
    """One stage of a training: its configuration, the steps that it took, and the model that it began with."""

    name: str
    stage: str
    config: str
    steps: int
    init: str | None = None
    untrained: bool = False

    @property
    def model(self) -> str:
        """Whose stage it is."""
        return self.name.partition(":")[0]


# Steps as the cards in models/ tell them.
PARTS = (
    Part("tiny: depth", "depth", "train_tiny.yaml", 5000),
    Part("tiny: denoiser", "denoiser", "train_tiny.yaml", 2400),
    Part("tiny: denoiser on memories", "denoiser", "train_tiny_memory.yaml", 3500, "models/tiny"),
    Part("small: depth", "depth", "train_small.yaml", 14000),
    Part("small: denoiser", "denoiser", "train_small.yaml", 3000),
)


def parts_of(run: Path) -> list[Part]:
    """Return the stages that a folder of a training holds checkpoints of.

    Raises:
        DataError: it holds none.
    """
    found = [(stage, steps_done(newest_checkpoint(run / stage))) for stage in ("autoencoder", "depth", "denoiser")]
    parts = [
        Part(f"{run.name}: {stage}", stage, str(run / "config.yaml"), steps, untrained=True)
        for stage, steps in found
        if steps
    ]
    if not parts:
        raise DataError(f"{run}: holds no checkpoint of a training; give the --out folder of come-nav train")
    return parts


class Trainings:
    """Short trainings of one part, each in a folder of its own with the data of the first."""

    def __init__(self, part: Part, folder: Path) -> None:
        self.part, self.folder = part, folder
        self.init = None if part.init is None else DiffusionWorldModel.load(part.init)
        path = Path(part.config) if part.untrained else find_resource("config", part.config)
        values: dict[str, Any] = read_yaml(path)
        if self.init is not None:
            values = merged(fine_tuning_values(self.init), values)
        few = FEW_WORLDS if values["data"].get("worlds", 1) else {}  # a training on recordings alone has none
        self.config = from_mapping(TrainSettings, merged(values, {"data": few}))
        if part.untrained:  # only the work of a step counts: whatever it began with, untrained networks of its size do
            self.config = replace(self.config, autoencoder_from=None, depth_from=None, denoiser_from=None)
            self.autoencoder = ImageAutoencoder(self.config.autoencoder_model)
            self.depth = None if self.config.depth_model is None else new_estimator(self.config, None)
        else:
            model = DiffusionWorldModel.load(find_resource("models", part.model))
            self.autoencoder, self.depth = model.autoencoder, model.depth

    def train(self, steps: int, precision: str) -> None:
        """Train the stage for so many steps."""
        stage = replace(getattr(self.config, self.part.stage), steps=steps, validate_every=steps, save_every=steps)
        data = replace(self.config.data, cache_folder=str(self.folder / "banks"))
        config = replace(self.config, data=data, **{self.part.stage: stage})
        machine = Machine(accelerator="cpu", precision=precision, progress=False)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            run = Run(config, Path(folder), machine, self.init)
            if self.part.stage == "autoencoder":
                run.train_autoencoder()
            elif self.part.stage == "depth":
                run.train_depth(self.autoencoder)
            else:
                run.train_denoiser(self.autoencoder, self.depth)

    def more_of(self, steps: int, precision: str, measure: Callable[[Callable[[], None]], float]) -> float:
        """Return what a step takes, by the measure of a run of ``3 * steps`` less that of ``steps``."""
        self.train(2, precision)  # makes the data, and what is made once
        few, many = (measure(lambda count=count: self.train(count, precision)) for count in (steps, 3 * steps))
        return (many - few) / (2 * steps)


def operations(work: Callable[[], None]) -> float:
    """Return the floating-point operations of ``work``."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def processor_s(work: Callable[[], None]) -> float:
    """Return the processor time of ``work``, s."""
    started_s = time.process_time()
    work()
    return time.process_time() - started_s


def measured(part: Part, steps: int) -> Mapping[str, Any]:
    """Return what a step of ``part`` takes, and all of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        trainings = Trainings(part, Path(folder))
        flop = trainings.more_of(max(2, steps // 4), "32-true", operations)
        seconds = {name: trainings.more_of(steps, name, processor_s) for name in ("32-true", "auto")}
    return {
        "part": part.name,
        "config": part.config,
        "steps": part.steps,
        "flop_per_step": flop,
        "flop": flop * part.steps,
        "seconds_per_step": seconds["32-true"],
        "seconds_per_step_auto": seconds["auto"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of parts, separated by commas: " + ", ".join(p.name for p in PARTS))
    parser.add_argument("--runs", nargs="+", type=Path, help="measure these trainings instead of the shipped models'")
    parser.add_argument("--steps", type=int, default=24, help="of the shorter of two timed trainings (default 24)")
    parser.add_argument(
        "--out", type=Path, help="JSON (default benchmarks/results/training_compute.json without --runs)"
    )
    args = parser.parse_args()
    if args.out is None and args.runs is not None:
        parser.error("--runs needs --out")
    out = args.out or Path("benchmarks/results/training_compute.json")
    parts = PARTS if args.runs is None else [part for run in args.runs for part in parts_of(run)]
    wanted = {part.name for part in parts} if args.only is None else {word.strip() for word in args.only.split(",")}
    if unknown := wanted - {part.name for part in parts}:
        parser.error(f"--only {', '.join(unknown)}: there are {', '.join(part.name for part in parts)}")
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    auto = Machine(accelerator="cpu").lightning_precision()
    document: dict[str, Any] = {
        "what": __doc__.splitlines()[0] if args.runs is None else "What trainings cost, by their folders.",
        "machine": {**machine_facts(), "auto": auto},
        "parts": [],
    }
    for part in [part for part in parts if part.name in wanted]:
        found = measured(part, args.steps)
        document["parts"].append(found)
        print(
            f"{part.name:26s} {found['flop_per_step'] / 1e9:7.1f} GFLOP a step, {found['seconds_per_step']:.3f} s "
            f"({auto}: {found['seconds_per_step_auto']:.3f} s), {part.steps} steps: {found['flop'] / 1e12:.0f} TFLOP",
            flush=True,
        )
    atomic_write_text(out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
