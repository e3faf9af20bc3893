"""The long-term expert in figures: how fast an episode is memorised, and what it recalls.

``speed``: training steps per second, seconds from an observation to a usable adapter (a round of steps and a swap),
size of the adapter, time of a swap.

``recall``: on validation worlds the robot drives once through a world (the memory phase) and the adapter trains on that
drive. Then the robot comes back to places of it (within 0.25 m and 10 degrees) on turns of 70 to 140 degrees, so that
its four context frames show little of the view two seconds later, which the model is asked for. Rows, paired on the
same targets and noise: base, long-term alone (weight 1), the contrast (weight 2), and the remembered frame nearest in
pose, copied. Anti-forgetting: base against adapter in another world.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.metrics.image_metrics import psnr, ssim
from come_nav.experts.lora import LongTermExpert, adapted, adapter_metadata
from come_nav.experts.lora_settings import LoraSettings
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.episodic.settings import EpisodicSettings
from come_nav.sim.episodes import simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.sim.worlds import generate_world
from come_nav.world_model.episode_loss import EpisodeLoss
from come_nav.world_model.model import DiffusionWorldModel

HORIZON_FRAMES = 8
LONG_TERM_WEIGHTS = {"long-term": 1.0, "contrast 2": 2.0}


class Drive:
    """One drive through a world: images (N, 3, S, S) in [-1, 1] and poses (N, 3) in the world."""

    def __init__(self, model: DiffusionWorldModel, world_seed: int, frames: int, seed: int) -> None:
        size, self.world = model.image_size, generate_world(world_seed)
        episode = simulate_episode(self.world, "tour", frames / model.rate_hz + 1.0, model.rate_hz, seed=seed)
        self.poses = torch.as_tensor(np.asarray(episode.poses_world_xyyaw), dtype=torch.float32)[:frames]
        self.renderer = Raycaster([self.world], CameraIntrinsics.from_field_of_view(size, size, np.pi / 2))
        self.images = self.render(self.poses)

    def render(self, poses: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.renderer.render(part)[0] for part in poses.split(64)])


@dataclass(frozen=True)
class Revisits:
    """W returns: context images (W, T, 3, S, S) and poses (W, T, 3); poses (W, 3), views and nearest frames (W,)."""

    images: torch.Tensor
    poses: torch.Tensor
    target_poses: torch.Tensor
    targets: torch.Tensor
    nearest: torch.Tensor


def revisits_of(model: DiffusionWorldModel, drive: Drive, count: int, seed: int) -> Revisits:
    """Draw collision-free returns to places of a drive; the same seed gives the same ones."""
    generator, horizon_s = torch.Generator().manual_seed(seed), HORIZON_FRAMES / model.rate_hz
    frames, kept_poses, kept_targets = model.context_frames, [], []
    ages_s = torch.arange(1.0 - frames, 1.0) / model.rate_hz
    while len(kept_targets) < count:
        low, high = torch.tensor([[-0.25, -0.25, -0.17, 0.0, 0.6], [0.25, 0.25, 0.17, 0.5, 1.2]])
        offset = low + (high - low) * torch.rand(5, generator=generator)
        sign = 1.0 if torch.rand(1, generator=generator) < 0.5 else -1.0
        place = drive.poses[torch.randint(len(drive.poses), (1,), generator=generator)[0]]
        target = torch.cat([place[:2] + offset[:2], place[2:] + offset[2:3]])
        v, w = offset[3], sign * offset[4]
        newest = se2.compose(target, se2.inverse(se2.integrate_twist(v, w, horizon_s)))
        poses = se2.compose(newest[None], se2.integrate_twist(v.expand(frames), w.expand(frames), ages_s))
        if bool(drive.world.free(torch.cat([poses, target[None]])[:, :2], 0.2).all()):
            kept_poses.append(poses)
            kept_targets.append(target)
    poses, targets = torch.stack(kept_poses), torch.stack(kept_targets)
    away = se2.relative(targets[:, None], drive.poses[None])
    nearest = (away[..., :2].norm(dim=-1) + away[..., 2].abs()).argmin(1)
    images = drive.render(poses.flatten(0, 1)).unflatten(0, poses.shape[:2])
    return Revisits(images, poses, targets, drive.render(targets), nearest)


def memorise(
    model: DiffusionWorldModel, drive: Drive, lora: LoraSettings, settings: EpisodicSettings
) -> tuple[EpisodicMemory, LongTermExpert]:
    """Return the memory of a drive, not trained yet, and the expert that uses its adapters."""
    expert, loss = LongTermExpert(model.memory_base, lora), EpisodeLoss(model)

    def publish(adapter: Adapter | None) -> None:
        expert.swap(None if adapter is None else adapter.tensors)

    network = adapted(model.memory_base, lora, torch.Generator().manual_seed(settings.seed))
    memory = EpisodicMemory(
        network, loss, settings, on_publish=publish, metadata=adapter_metadata(model.memory_base, lora)
    )
    for index, (latents, pose) in enumerate(zip(model.encode(drive.images), drive.poses, strict=True)):
        memory.observe(latents, pose, index / model.rate_hz, loss.frame(drive.images[index]))
    return memory, expert


def imagined(model: DiffusionWorldModel, revisits: Revisits, weights: dict[str, float]) -> torch.Tensor:
    """Return the views (W, 3, S, S) at the targets, from one noise per window whatever the experts."""
    composed = model.composed(weights, "normalised")
    views = []
    for index, (images, poses) in enumerate(zip(revisits.images, revisits.poses, strict=True)):
        context = composed.context_from_images(images, poses, absolute_pose_xyyaw=poses[-1])
        action = se2.relative(poses[-1], revisits.target_poses[index])[None]
        generator = torch.Generator().manual_seed(index)
        latents = composed.predict(context, action, torch.full((1,), float(HORIZON_FRAMES)), generator)
        views.append(composed.decode(latents)[0])
    return torch.stack(views).clamp(-1.0, 1.0).cpu()  # the truth is rendered there


def interval(values: np.ndarray) -> list[float]:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(2000, len(values)))].mean(axis=1)
    return [round(float(np.quantile(means, share)), 3) for share in (0.025, 0.975)]


def recall_case(
    model: DiffusionWorldModel, world: int, lora: LoraSettings, settings: EpisodicSettings, frames: int, windows: int
) -> dict:
    drive, other = Drive(model, world, frames, 1), Drive(model, world + 1, 100, 3)
    started_s = time.perf_counter()
    memory, expert = memorise(model, drive, lora, settings)
    memory.train_steps(memory.steps_due)
    seconds = time.perf_counter() - started_s
    remembering = model.with_memory(long_term=expert)
    compositions = {"base": {"base": 1.0}}
    compositions |= {name: {"base": 1.0, "long_term": weight} for name, weight in LONG_TERM_WEIGHTS.items()}
    row = {"windows": windows, "steps": memory.steps, "seconds": round(seconds, 2), "loss": memory.last_loss}
    for where, place in (("seen", drive), ("other world", other)):
        revisits = revisits_of(model, place, windows, world)
        truth = revisits.targets
        results = {name: imagined(remembering, revisits, weights) for name, weights in compositions.items()}
        results["nearest remembered frame"] = place.images[revisits.nearest]
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
            context_frames=model.context_frames, learning_rate=args.learning_rate, reach=args.reach,
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
    parser.add_argument("--reach", type=int, default=40, help="most frames from context to target in training")
    parser.add_argument("--steps-per-frame", type=float, default=2.5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = DiffusionWorldModel.load(find_resource("models", args.model), args.device)
    (speed if args.what == "speed" else recall)(model, args)


if __name__ == "__main__":
    main()
