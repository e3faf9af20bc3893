"""The long-term expert in figures: how fast an episode is memorised, and what it recalls.

``speed``: training steps per second, seconds from an observation to a usable adapter (a round of steps and a swap),
size of the adapter, time of a swap.

``recall``: on validation worlds the robot drives once through a world (the memory phase), the adapter trains on that
drive, and the model is asked for views of a second drive. Only targets count that the memory saw (a remembered frame
within 0.5 m and 20 degrees). Rows, paired on the same targets and noise: base, long-term alone (weight 1), the contrast
(weight 2), and the remembered frame nearest in pose, copied. Anti-forgetting: base against adapter on another world.
Pose key on and off, ranks, and lengths of the memory phase are swept. One JSON line for each case, written as soon as
it is known: a killed run goes on where it stopped.

    python benchmarks/episodic_memory.py speed --model tiny
    python benchmarks/episodic_memory.py recall --model tiny --worlds 4 --ranks 8 32 64 --frames 50 150 450 \
        --steps-per-frame 2.5 --learning-rate 1e-4 --out benchmarks/results/episodic_recall.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from come_nav.config import find_resource
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2
from come_nav.core.types import CameraIntrinsics, Context
from come_nav.evaluation.image_metrics import psnr, ssim
from come_nav.experts.lora import LongTermExpert, LoraSettings, adapted, adapter_metadata
from come_nav.experts.passes import ABSOLUTE_POSE
from come_nav.memory.episodic import Adapter, EpisodicMemory, EpisodicSettings
from come_nav.sim.episodes import simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.sim.worlds import generate_world
from come_nav.world_model.composition import CompositionSettings
from come_nav.world_model.episode_loss import EpisodeLoss
from come_nav.world_model.model import DiffusionWorldModel

HORIZON_FRAMES = 8
NEAR_M, NEAR_RAD = 0.5, np.deg2rad(20.0)


class Drive:
    """One drive through a world: images (N, 3, S, S) in [-1, 1] and poses (N, 3) in the world."""

    def __init__(self, model: DiffusionWorldModel, world_seed: int, frames: int, seed: int) -> None:
        size, world = model.image_size, generate_world(world_seed)
        episode = simulate_episode(world, "tour", frames / model.rate_hz + 1.0, model.rate_hz, seed=seed)
        self.poses = torch.as_tensor(np.asarray(episode.poses_world_xyyaw), dtype=torch.float32)[:frames]
        renderer = Raycaster([world], CameraIntrinsics.from_field_of_view(size, size, np.pi / 2))
        self.images = torch.cat([renderer.render(part)[0] for part in self.poses.split(64)])
        self.latents = model.encode(self.images)


def memorise(
    model: DiffusionWorldModel, drive: Drive, lora: LoraSettings, settings: EpisodicSettings
) -> tuple[EpisodicMemory, LongTermExpert]:
    """Return the memory of a drive, not trained yet, and the expert that uses its adapters."""
    expert, loss = LongTermExpert(model.base, lora), EpisodeLoss(model)

    def publish(adapter: Adapter | None) -> None:
        expert.swap(None if adapter is None else adapter.tensors)

    network = adapted(model.base, lora, torch.Generator().manual_seed(settings.seed))
    memory = EpisodicMemory(network, loss, settings, on_publish=publish, metadata=adapter_metadata(model.base, lora))
    for index, (latents, pose) in enumerate(zip(drive.latents, drive.poses, strict=True)):
        memory.observe(latents, pose, index / model.rate_hz, loss.frame(drive.images[index]))
    return memory, expert


def windows_of(model: DiffusionWorldModel, memory: Drive, revisit: Drive, count: int) -> list[tuple[int, int, int]]:
    """Return (newest, target, nearest remembered frame) of targets that the memory saw, evenly spread."""
    first, last = model.context_frames - 1, len(revisit.poses) - HORIZON_FRAMES
    found = []
    for newest in range(first, last):
        target = newest + HORIZON_FRAMES
        away = se2.relative(revisit.poses[target][None], memory.poses)
        near = (away[:, :2].norm(dim=1) < NEAR_M) & (away[:, 2].abs() < NEAR_RAD)
        if near.any():
            distance = away[:, :2].norm(dim=1) + away[:, 2].abs()
            found.append((newest, target, int(distance.argmin())))
    chosen = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)) if found else []
    return [found[index] for index in chosen]


def imagined(
    model: DiffusionWorldModel, drive: Drive, windows: Sequence[tuple[int, int, int]], experts: dict, weights: tuple
) -> torch.Tensor:
    """Return the views (W, 3, S, S) at the targets, from one noise per window whatever the experts."""
    composed = DiffusionWorldModel(
        model.autoencoder, experts, model.schedule, model.sampler,
        composition=CompositionSettings("normalised", weights), rate_hz=model.rate_hz, images=model.images,
        inference=model.inference, depth=model.depth, reprojection=model.reprojection,
    )  # fmt: skip
    views = []
    for index, (newest, target, _) in enumerate(windows):
        rows = slice(newest - model.context_frames + 1, newest + 1)
        context = composed.context_from_images(drive.images[rows], drive.poses[rows])
        extras = {**context.extras, ABSOLUTE_POSE: drive.poses[newest][None]}
        context = Context(context.latents, context.poses_xyyaw, context.frame_offsets, extras)
        action = se2.relative(drive.poses[newest], drive.poses[target])[None]
        generator = torch.Generator().manual_seed(index)
        latents = composed.predict(context, action, torch.full((1,), float(HORIZON_FRAMES)), generator)
        views.append(composed.decode(latents)[0])
    return torch.stack(views).clamp(-1.0, 1.0)


def interval(values: np.ndarray) -> list[float]:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(2000, len(values)))].mean(axis=1)
    return [round(float(np.quantile(means, share)), 3) for share in (0.025, 0.975)]


def recall_case(
    model: DiffusionWorldModel, world: int, lora: LoraSettings, settings: EpisodicSettings, frames: int, windows: int
) -> dict:
    drive, revisit = Drive(model, world, frames, 1), Drive(model, world, max(frames, 100), 2)
    other = Drive(model, world + 1, 100, 3)
    started_s = time.perf_counter()
    memory, expert = memorise(model, drive, lora, settings)
    memory.train_steps(memory.steps_due)
    seconds = time.perf_counter() - started_s
    chosen = windows_of(model, drive, revisit, windows)
    elsewhere = windows_of(model, other, other, windows)
    compositions = {
        "base": ({"base": model.base}, (1.0,)),
        "long-term": ({"base": model.base, "long": expert}, (1.0, 1.0)),
        "contrast 2": ({"base": model.base, "long": expert}, (1.0, 2.0)),
    }
    row = {"windows": len(chosen), "steps": memory.steps, "seconds": round(seconds, 2), "loss": memory.last_loss}
    for where, seen, at in (("seen", revisit, chosen), ("other world", other, elsewhere)):
        if not at:
            continue
        truth = seen.images[[target for _, target, _ in at]]
        results = {name: imagined(model, seen, at, *how) for name, how in compositions.items()}
        if where == "seen":
            results["nearest remembered frame"] = drive.images[[nearest for _, _, nearest in at]]
        base_db = psnr(results["base"], truth).numpy()
        for name, views in results.items():
            values = psnr(views, truth).clamp(max=60.0).numpy()
            row[f"{where}: {name}"] = {
                "psnr_db": round(float(values.mean()), 3),
                "ssim": round(float(ssim(views, truth).mean()), 4),
                "gain_db": round(float((values - base_db).mean()), 3),
                "gain_db_interval": interval(values - base_db),
            }
    return row


def recall(model: DiffusionWorldModel, args: argparse.Namespace) -> None:
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out and args.out.exists() else []
    worlds = list(VALIDATION_SEEDS)[args.first_world : args.first_world + args.worlds]
    cases = itertools.product(worlds, args.frames, args.ranks, args.pose_key)
    for world, frames, rank, key in cases:
        case = {
            "model": args.model, "world": world, "frames": frames, "rank": rank, "pose_key": key == "on",
            "learning_rate": args.learning_rate, "steps_per_frame": args.steps_per_frame, "batch": args.batch,
        }  # fmt: skip
        if any(all(row.get(name) == value for name, value in case.items()) for row in done):
            continue
        lora = LoraSettings(rank, rank, tuple(args.targets), key == "on")
        settings = EpisodicSettings(
            context_frames=model.context_frames, learning_rate=args.learning_rate,
            steps_per_frame=args.steps_per_frame, batch_size=args.batch,
        )  # fmt: skip
        row = {**case, **recall_case(model, world, lora, settings, frames, args.windows)}
        done.append(row)
        print(json.dumps(row), flush=True)
        if args.out:
            atomic_write_text(args.out, "".join(json.dumps(each) + "\n" for each in done))


def speed(model: DiffusionWorldModel, args: argparse.Namespace) -> None:
    drive = Drive(model, VALIDATION_SEEDS[0], args.frames[0], 1)
    rows = []
    for rank in args.ranks:
        settings = EpisodicSettings(context_frames=model.context_frames, batch_size=args.batch)
        lora = LoraSettings(rank, rank, tuple(args.targets))
        memory, expert = memorise(model, drive, lora, settings)
        memory.train_steps(2)  # warms up
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        steps = memory.train_steps(args.steps)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        adapter = memory.newest
        swaps, swaps_cpu = [], []
        for _ in range(5):
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
            expert.swap(adapter.tensors)
            swaps.append((time.perf_counter() - started_s) * 1e3)
            swaps_cpu.append((time.process_time() - started_cpu_s) * 1e3)
        rows.append(
            {
                "rank": rank,
                "batch": args.batch,
                "steps_per_s": round(steps / wall_s, 2),
                "steps_per_cpu_s": round(steps / max(cpu_s, 1e-9), 2),
                "round_s": round(settings.round_steps * wall_s / steps, 2),
                "adapter_values": sum(tensor.numel() for tensor in adapter.tensors.values()),
                "adapter_mb": round(sum(t.numel() * t.element_size() for t in adapter.tensors.values()) / 1e6, 2),
                "swap_ms": round(statistics.median(swaps), 2),
                "swap_cpu_ms": round(statistics.median(swaps_cpu), 2),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": args.device,
        "load": os.getloadavg()[0],
    }
    if args.out:
        document = {"what": __doc__.splitlines()[0], "model": args.model, "machine": machine, "rows": rows}
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="speed", choices=("speed", "recall"))
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 32, 64])
    parser.add_argument("--targets", nargs="+", default=list(LoraSettings().targets))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, nargs="+", default=[50], help="lengths of the memory phase")
    parser.add_argument("--steps", type=int, default=20, help="training steps that are timed (speed)")
    parser.add_argument("--worlds", type=int, default=2)
    parser.add_argument("--first-world", type=int, default=0)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--pose-key", nargs="+", default=["on", "off"], choices=("on", "off"))
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--steps-per-frame", type=float, default=2.5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = DiffusionWorldModel.load(find_resource("models", args.model), args.device)
    (speed if args.what == "speed" else recall)(model, args)


if __name__ == "__main__":
    main()
