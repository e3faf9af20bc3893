"""How long training waits for its data: a bank on disk and endless worlds, against the training step itself.

    python benchmarks/training_data.py --config config/train_tiny.yaml --out benchmarks/results/training_data.json
    python benchmarks/training_data.py --config config/train_tiny.yaml --device cuda --steps 200

The networks are untrained: speed does not depend on the weights. Every row trains the same denoiser, step by step, on
batches from its source, which makes them ahead in a thread as in training. Figures per source: the share of the time
that the loop waits for a batch (the target is 5 %), how much longer a step takes than on one batch given over and over,
and the time to make a batch when nothing else runs, drives included. On a CPU data and step share the processor, so
that the loop hardly waits but takes longer: there the share of processor time tells what data cost, and other programs
on the machine do not disturb it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from come_nav.cli.output import format_table
from come_nav.core.files import atomic_write_text
from come_nav.core.settings import from_mapping, read_yaml
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.sim.raycaster import Raycaster
from come_nav.training.config import TrainSettings
from come_nav.training.data.endless import DriveMaker
from come_nav.training.data.mixture import MixtureStream
from come_nav.training.data.sim_bank import training_camera
from come_nav.training.data.sources import TrainingData
from come_nav.training.data.windows import WindowBatch, step_generator
from come_nav.training.tasks.denoiser import DenoiserTask
from come_nav.training.tasks.views import ViewMaker
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.images import ImageSettings
from come_nav.world_model.sampling.schedule import NoiseSchedule

TARGET_SHARE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="training configuration; the default one when left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=60, help="training steps per source")
    parser.add_argument("--worlds", type=int, default=8, help="worlds of the bank")
    parser.add_argument("--episode-s", type=float, default=30.0, help="length of a drive")
    parser.add_argument("--pool", type=int, default=16, help="drives that the endless stream mixes")
    parser.add_argument("--workers", type=int, default=1, help="processes that make drives")
    parser.add_argument("--passes", default="1,4", help="uses of an endless window, comma-separated")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help="bfloat16 on CUDA by default")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    base = from_mapping(TrainSettings, read_yaml(args.config)) if args.config else TrainSettings()
    data = replace(base.data, episode_s=args.episode_s, workers=args.workers, recordings=(), cache_folder="")
    with tempfile.TemporaryDirectory() as folder:
        measurement = Measurement(args, replace(base, data=data), Path(folder))
        rows = measurement.rows()
        document = {
            "benchmark": "training_data",
            "config": None if args.config is None else args.config.name,
            "contexts_per_step": base.denoiser.batch_size,
            "goals_per_context": data.goals_per_context,
            "image_size": base.image_size,
            "parameters": sum(weight.numel() for weight in measurement.task.expert.parameters()),
            "given_batch_s": measurement.given_s,
            "sources": rows,
            "parts": measurement.parts(),
            "target_share": TARGET_SHARE,
            "machine": machine(args),
        }
    report(document)
    if args.out is not None:
        atomic_write_text(args.out, json.dumps(document, indent=2) + "\n")


class Measurement:
    """The networks, and the times of steps on them."""

    def __init__(self, args: argparse.Namespace, config: TrainSettings, folder: Path) -> None:
        self.args, self.config, self.folder = args, config, folder
        self.autoencoder = ImageAutoencoder(config.autoencoder_model).eval().to(args.device)
        self.depth = None if config.depth_model is None else DepthEstimator(config.depth_model).eval().to(args.device)
        schedule = NoiseSchedule.linear()
        network = CDiT.from_settings(config.denoiser_model)
        expert = BaseExpert(network, Normalizer.metric(config.scale_m), schedule, config.prediction)
        views = None
        if self.depth is not None:
            views = ViewMaker(self.encode, config.reprojection, ImageSettings())
        self.task = DenoiserTask(expert, schedule, config.denoiser, 0.1, 0, views).to(args.device)
        self.optimiser = torch.optim.AdamW(self.task.expert.parameters(), 1e-4)
        self.given_s = self.given_cpu_s = 0.0

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.encode(images.to(self.args.device))

    def step(self, batch: WindowBatch, number: int) -> None:
        """Train one step and wait until it is done."""
        precision = self.args.precision or ("bfloat16" if self.args.device.startswith("cuda") else "float32")
        kind = torch.device(self.args.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = self.task.diffusion_loss(batch, step_generator(0, 0, number), 0.1)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        float(loss.detach())

    def rows(self) -> list[dict[str, Any]]:
        """Measure a given batch first, then each source."""
        sources: list[tuple[str, dict[str, Any]]] = [("bank", {"worlds": self.args.worlds})]
        for passes in (int(word) for word in self.args.passes.split(",")):
            pool = {"endless": True, "pool_drives": self.args.pool, "passes": passes}
            sources.append((f"endless, {passes} pass{'es' if passes > 1 else ''}", {"worlds": 10000, **pool}))
        rows = []
        for name, changes in tqdm(sources, desc="sources"):
            config = replace(self.config, data=replace(self.config.data, first_world=0, **changes))
            data = TrainingData(config, self.folder, self.args.device, self.autoencoder, self.depth)
            rows.append(self.measure(name, data))
        return rows

    def measure(self, name: str, data: TrainingData) -> dict[str, Any]:
        batch_size, steps = self.config.denoiser.batch_size, self.args.steps
        started_s = time.perf_counter()
        stream = iter(data.stream(batch_size, 0, 10**9))
        first = next(stream)
        start_s = time.perf_counter() - started_s
        if not self.given_s:
            self.step(first, 0)
            cpu_s = time.process_time()
            given, _ = self.loop(cycle([first]), max(8, steps // 4))
            self.given_s = float(np.median(given))
            self.given_cpu_s = (time.process_time() - cpu_s) / len(given)
        self.loop(stream, 2)
        step_s, wait_s = self.loop(stream, steps)
        stream.close()  # type: ignore[attr-defined]
        alone_s, alone_cpu_s = self.alone(data, batch_size)
        total_s = sum(step_s) + sum(wait_s)
        return {
            "source": name,
            "share_waited": sum(wait_s) / total_s,
            "seconds_per_step": total_s / steps,
            "slower_than_given_batch": total_s / steps / self.given_s - 1.0,
            "batch_alone_s": alone_s,
            "share_of_processor": alone_cpu_s / (alone_cpu_s + self.given_cpu_s),
            "start_s": start_s,
            "steps": steps,
        }

    def loop(self, batches: Iterable[WindowBatch], steps: int) -> tuple[list[float], list[float]]:
        """Return the seconds of each step and of each wait for its batch."""
        step_s, wait_s = [], []
        source = iter(batches)
        for number in range(steps):
            asked_s = time.perf_counter()
            batch = next(source)
            got_s = time.perf_counter()
            self.step(batch, number)
            step_s.append(time.perf_counter() - got_s)
            wait_s.append(got_s - asked_s)
        return step_s, wait_s

    def alone(self, data: TrainingData, batch_size: int) -> tuple[float, float]:
        """Return seconds and processor seconds to make a batch in this process when nothing else runs.

        They are means over many batches, since new drives come in jumps.
        """
        settings = replace(data.config, data=replace(data.config.data, workers=0))
        here = TrainingData(settings, self.folder, self.args.device, self.autoencoder, self.depth)
        sources, weights = here.sources(batch_size)
        batches: Iterator[WindowBatch] = iter(MixtureStream(sources, weights, batch_size, 0, 0, 10**9))
        next(batches)
        started_s, cpu_s = time.perf_counter(), time.process_time()
        count = 2 * self.args.steps
        for _ in islice(batches, count):
            pass
        synchronise(self.args.device)
        return (time.perf_counter() - started_s) / count, (time.process_time() - cpu_s) / count

    def parts(self) -> dict[str, float]:
        """Frames per second rendered, encoded and (where the model estimates depth) given depth; drives per second."""
        drive = DriveMaker(replace(self.config.data, worlds=10000), self.config.rate_hz, 0)[0]
        raycaster = Raycaster([drive.world], training_camera(self.config.image_size), device=self.args.device)
        poses = drive.poses_world_xyyaw.repeat(4, 1)[:256].to(self.args.device)
        images = raycaster.render(poses)[0]
        found = {
            "rendered_per_s": 256 / self.time(lambda: raycaster.render(poses)),
            "encoded_per_s": 256 / self.time(lambda: self.encode(images)),
            "drives_per_s": 1 / self.time(lambda: DriveMaker(self.config.data, self.config.rate_hz, 0)[1]),
            "views_per_drive": float(drive.branch_frames.numel() + len(drive.poses_world_xyyaw)),
        }
        if (depth := self.depth) is not None:
            found["depth_per_s"] = 256 / self.time(lambda: depth.depth_m(images))
        return found

    @torch.no_grad()
    def time(self, run: Callable[[], Any]) -> float:
        """Median seconds of five runs, after one to warm up."""
        times = []
        for _ in range(6):
            started_s = time.perf_counter()
            run()
            synchronise(self.args.device)
            times.append(time.perf_counter() - started_s)
        return float(np.median(times[1:]))


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def machine(args: argparse.Namespace) -> dict[str, Any]:
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def report(document: dict[str, Any]) -> None:
    facts = document["machine"]
    print(f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}, load {facts['load_average']:.1f}")
    rows = [
        [
            row["source"],
            f"{100 * row['share_waited']:.1f}",
            f"{100 * row['slower_than_given_batch']:.1f}",
            f"{100 * row['share_of_processor']:.1f}",
            f"{1e3 * row['seconds_per_step']:.1f}",
            f"{1e3 * row['batch_alone_s']:.1f}",
            f"{row['start_s']:.1f}",
        ]
        for row in document["sources"]
    ]
    print(format_table(["source", "waits %", "slower %", "processor %", "step ms", "batch alone ms", "start s"], rows))
    print(f"a step on a given batch: {1e3 * document['given_batch_s']:.1f} ms")
    for name, value in document["parts"].items():
        print(f"{name.replace('_', ' ')}: {value:.1f}")


if __name__ == "__main__":
    main()
