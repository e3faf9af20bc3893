"""Compositions sampled in many steps against one step called "one-step blend": images of places seen long before.

    python benchmarks/composition_sampling.py --out benchmarks/results/composition_sampling.json

Each configuration imagines the same windows of the recall suite on validation worlds, from the same noise. PSNR, SSIM
(mean images have the best), sharpness (gradient energy over that of the true images, 1 is right) and the kernel
distance to the true images (features of the model's own depth network; unbiased, so that about 0 is best), beside the
kernel distance of the true images of one half against those of the other. Differences are paired with the first row.
Every configuration is written as it is done; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts
from torch import Tensor

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.cli.output import Steps
from come_nav.config import load_config
from come_nav.core.experts import CompositionMode
from come_nav.core.files import atomic_write_text
from come_nav.evaluation.metrics.image_metrics import gradient_energy
from come_nav.evaluation.metrics.image_sets import kernel_distance
from come_nav.evaluation.metrics.statistics import bootstrap_mean, bootstrap_ratio, paired_difference
from come_nav.evaluation.protocols.quality import WINDOWS_PER_BATCH, FeaturesFunction, measure, read_batch
from come_nav.evaluation.suites.inputs import SourceSettings
from come_nav.evaluation.suites.memory.compositions import ComposedRow, find_weights
from come_nav.evaluation.suites.memory.drive_memories import experts_of
from come_nav.evaluation.suites.memory.recall import set_up_recall
from come_nav.evaluation.suites.memory.rows import BatchContexts
from come_nav.evaluation.suites.memory.settings import RECALL, MemorySuiteSettings
from come_nav.evaluation.suites.memory.setup import MemorySetup
from come_nav.evaluation.suites.quality_rows import images_of
from come_nav.evaluation.suites.set_features import features_of
from come_nav.world_model.prediction import product_of
from come_nav.world_model.sampling.settings import SamplerName, SamplerSettings

SHIPPED = {"base": 1.0, "spatial": 1.0}
MIXED = {"base": 1.0, "long_term": 0.4, "spatial": 1.0}
GUIDED = {"base": 1.0, "long_term": 0.75, "spatial": 1.5}
HIGH = (0.3, 1.0)


@dataclass(frozen=True)
class Configuration:
    """One row: weights, mode, sampler and the noise levels at which the experts count."""

    weights: Mapping[str, float]
    sampler: SamplerName = "ddim"
    steps: int = 1
    mode: CompositionMode = "normalised"
    eta: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)

    @property
    def name(self) -> str:
        """As it stands in the table."""
        kind = {"normalised": "", "literal": "literal, ", "average": "no contrast, "}[self.mode]
        weights = " ".join(f"{name} {weight:g}" for name, weight in self.weights.items())
        how = "one-step blend" if self.steps == 1 else f"{self.sampler} {self.steps}"
        noise = f", eta {self.eta:g}" if self.eta else ""
        where = "" if self.interval == (0.0, 1.0) else f", experts at {self.interval[0]:g} to {self.interval[1]:g}"
        return f"{kind}{weights}: {how}{noise}{where}"


CONFIGURATIONS = (
    Configuration(SHIPPED),
    *(Configuration(SHIPPED, "ddim", steps) for steps in (5, 10, 20)),
    Configuration(SHIPPED, "dpm++", 10),
    Configuration(SHIPPED, "ddpm", 20),
    Configuration(MIXED),
    Configuration(MIXED, "ddim", 10),
    Configuration(MIXED, "ddim", 10, interval=HIGH),
    Configuration(MIXED, "ddpm", 20),
    Configuration(GUIDED),
    Configuration(GUIDED, "ddim", 10),
    Configuration(GUIDED, "ddim", 10, interval=HIGH),
    Configuration(GUIDED, "ddim", 10, mode="literal"),
    Configuration(GUIDED, "ddim", 10, mode="literal", eta=1.0),
    Configuration(MIXED, "ddim", 1, mode="average"),
    Configuration(MIXED, "ddim", 10, mode="average"),
)


class Study:
    """Windows, their true images, and what every configuration makes of them."""

    def __init__(self, setup: MemorySetup) -> None:
        self.model, self.setup = setup.model, setup
        self.older_frames = setup.navigation.experts.older_frames
        self.row = ComposedRow("all", True, dict.fromkeys(("base", "short_term", "long_term", "spatial"), 1.0))
        self.cache = setup.cache([self.row], room=len(setup.found.drives))
        told, images = experts_of(self.row, setup.model, self.older_frames), images_of(setup.model)
        self.batches = []
        for _, group in groupby(setup.selection.windows, key=lambda item: item.window.recording_id):
            own = list(group)
            for start in range(0, len(own), WINDOWS_PER_BATCH):
                batch = read_batch(own[start : start + WINDOWS_PER_BATCH], images)
                self.batches.append((batch, BatchContexts(self.cache, told)))
        self.truth = torch.cat([batch.truth.flatten(0, 1) for batch, _ in self.batches])
        groups = setup.found.source.groups or {}
        names = [item.window.recording_id for batch, _ in self.batches for item in batch.windows]
        self.clusters = [groups.get(name, name) for name in names]
        self.imagined(CONFIGURATIONS[0])  # makes memories and contexts, which no row is to pay for

    def imagined(self, own: Configuration) -> tuple[Tensor, float, int]:
        """Return views (W, 3, S, S), CPU ms of one, and how many passes a step takes at the noisy end."""
        views, passes, started_s = [], 0, time.process_time()
        for batch, contexts in self.batches:
            memories = self.cache.of(batch.windows[0].window.recording_id)
            told = replace(experts_of(self.row, self.model, self.older_frames), mode=own.mode)
            model = memories.composed(told).composed(own.weights, own.mode)
            model.composition = replace(model.composition, interval=own.interval)
            model.sampler = SamplerSettings(own.sampler, own.steps, own.eta)
            passes = len(product_of(model).exponents(len(model.schedule) - 1))
            views.append(model.decode(contexts.predicted(model, batch)).cpu())
        images = torch.cat(views)
        return images, 1e3 * (time.process_time() - started_s) / len(images), passes

    @cached_property
    def features(self) -> FeaturesFunction:
        """Images (W, 3, H, W) to the features (W, D) of the model's own depth network."""
        assert self.model.depth is not None  # whose contexts have views
        return features_of(self.model.depth, self.model.image_size)


def entry_of(study: Study, own: Configuration, first: Mapping[str, Any] | None, seed: int) -> dict[str, Any]:
    """Return the figures of one configuration, with differences to the first."""
    images, cpu_ms, passes = study.imagined(own)
    values = {name: found.double().numpy() for name, found in measure(images, study.truth).items()}
    energies = [gradient_energy(part.clamp(-1.0, 1.0)).double().numpy() for part in (images, study.truth)]
    found: dict[str, Any] = {"name": own.name, "passes": passes, "cpu_ms": round(cpu_ms, 1)}
    for metric in ("psnr_db", "ssim"):
        found[metric] = asdict(bootstrap_mean(values[metric], seed, study.clusters))
        found[f"{metric} of windows"] = [round(float(value), 4) for value in values[metric]]
        if first is not None:
            before = np.array(first[f"{metric} of windows"])
            found[f"{metric} gained"] = asdict(paired_difference(values[metric], before, seed, study.clusters))
    found["sharpness"] = asdict(bootstrap_ratio(*energies, seed, study.clusters))
    generator = torch.Generator().manual_seed(seed)
    found["kernel_distance"] = asdict(kernel_distance(study.features(study.truth), study.features(images), generator))
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="10000-10007")
    parser.add_argument("--windows", type=int, default=96)
    parser.add_argument("--drift", type=float, default=0.0, help="percent")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--adapters", type=Path, help="folder that keeps the adapters of the drives for the next run")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = load_config(None, {"model": args.model})
    source = SourceSettings(RECALL, (), parse_worlds(args.worlds), args.windows)
    settings = MemorySuiteSettings(source, find_weights(None, args.model), drift_percent=args.drift)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(set_up_recall(settings, config, args.adapters or Path(folder), Steps))
        asked = {"worlds": args.worlds, "windows": len(study.truth), "drift_percent": args.drift, "model": args.model}
        document: dict[str, Any] = {"settings": asked, "machine": machine_facts(), "rows": []}
        if args.out.exists() and (kept := json.loads(args.out.read_text()))["settings"] == asked:
            document = kept
        real, half = (
            study.features(study.truth),
            torch.randperm(len(study.truth), generator=torch.Generator().manual_seed(0)),
        )
        halves = kernel_distance(real[half[::2]], real[half[1::2]], torch.Generator().manual_seed(0))
        document["true images against others"] = asdict(halves)
        for own in CONFIGURATIONS:
            if any(row["name"] == own.name for row in document["rows"]):
                continue
            first = document["rows"][0] if document["rows"] else None
            document["rows"].append(entry_of(study, own, first, config.seed))
            atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")
            shown = {key: value for key, value in document["rows"][-1].items() if "of windows" not in key}
            print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
