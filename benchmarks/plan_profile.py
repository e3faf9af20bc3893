"""Where the time goes: a plan without and with memory, an observed frame, a step of an adapter's training.

A robot drives through a validation world, then plans to an image. Shares are of the processor's time (other processes
do not change them); each part is counted without the parts inside it. Operations are those of the torch profiler.

    python benchmarks/plan_profile.py --out benchmarks/results/plan_profile.json --flames docs/images/flames.png
    python benchmarks/plan_profile.py --device cuda --flames flames.png          the same on a GPU
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flames import CALL_TREE, call_tree, draw
from machine import machine_facts

from come_nav.core import compiled
from come_nav.core.files import atomic_write_text
from come_nav.core.types import CameraIntrinsics, Goal, Odometry, PlanStatus
from come_nav.experts.cdit import CDiT
from come_nav.localisation.localiser import VisualLocaliser
from come_nav.memory.spatial import cloud
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.cem import CemPlanner
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model import reprojection
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder

CAMERA = CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
PARTS: dict[str, tuple[Any, str]] = {
    "render the cloud": (cloud, "render_splats"),
    "merge far points of the cloud": (cloud, "thinned"),
    "take a frame into the cloud": (cloud.SpatialMemory, "observe"),
    "render the context's points": (reprojection, "render_points"),
    "close cracks": (reprojection, "close_gaps"),
    "fill the unseen": (reprojection, "fill_unseen"),
    "encode images": (ImageAutoencoder, "encode"),
    "networks": (CDiT, "forward"),
    "localise a key frame": (VisualLocaliser, "observe"),
    "search (the rest of it)": (CemPlanner, "plan"),
}
PLANS = {
    "a plan without memory": (),
    "a plan with the cloud": ("spatial",),
    "a plan with the cloud and a longer past": ("short_term", "spatial"),
}


class Shares:
    """Processor seconds of named parts, each without those inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._inner.append(0.0)
        started_s = time.process_time()
        try:
            yield
        finally:
            spent_s = time.process_time() - started_s
            self.seconds[name] += spent_s - self._inner.pop()
            self._inner[-1] += spent_s

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        kept = [(owner, name, getattr(owner, name)) for owner, name in PARTS.values()]
        for part, (owner, name, function) in zip(PARTS, kept, strict=True):
            setattr(owner, name, self._counted(part, function))
        try:
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)

    def _counted(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.part(part), torch.profiler.record_function(part):
                return function(*args, **kwargs)

        return counted


def profiled(
    name: str, work: Callable[[], object], repeats: int, trees: dict[str, CALL_TREE] | None = None
) -> dict[str, Any]:
    """Run ``work`` once to warm up, then repeatedly; print and return times, parts and operations of torch.

    On a GPU, operations and the tree of calls, which goes into ``trees``, are of its time.
    """
    cuda = torch.cuda.is_available()
    work()
    shares, times_s, wall_s = Shares(), [], []
    for _ in range(repeats):
        cpu_s, clock_s = time.process_time(), time.perf_counter()
        with shares.watching(), shares.part("the rest"):
            work()
        times_s.append(time.process_time() - cpu_s)
        wall_s.append(time.perf_counter() - clock_s)
    kinds = torch.profiler.ProfilerActivity
    activities = [kinds.CPU, kinds.CUDA] if cuda else [kinds.CPU]
    profiler, whole = torch.profiler.profile(activities=activities), torch.profiler.record_function(name)
    with profiler as profile, Shares().watching(), whole:
        work()
        if cuda:
            torch.cuda.synchronize()
    field = "self_device_time_total" if cuda else "self_cpu_time_total"
    spent_us = {row.key: getattr(row, field) for row in profile.key_averages() if row.key not in {*PARTS, name}}
    operations = {key: value / max(sum(spent_us.values()), 1e-9) for key, value in spent_us.items()}
    if trees is not None:
        trees[name] = call_tree(profile.events(), cuda)
    parts = dict(sorted(shares.seconds.items(), key=lambda pair: -pair[1]))
    result = {
        "name": name,
        "cpu_ms": [round(1e3 * value, 1) for value in times_s],
        "wall_ms": [round(1e3 * value, 1) for value in wall_s],
        "parts": {part: round(value / sum(parts.values()), 3) for part, value in parts.items()},
        "operations": dict(sorted(((k, round(v, 3)) for k, v in operations.items()), key=lambda pair: -pair[1])[:8]),
    }
    print(f"{name}: {min(result['cpu_ms']):.1f} ms of the processor at least, {min(result['wall_ms']):.1f} ms passed")
    for heading in ("parts", "operations"):
        print(f"  {heading}: " + ", ".join(f"{k} {100 * v:.0f} %" for k, v in result[heading].items() if v >= 0.005))
    return result


def drive(stack: NavStack, recording: EpisodeRecording, frames: range) -> None:
    for index in frames:
        stamp_s = float(recording.stamps_s[index])
        stack.observe(recording.frame(index), Odometry(stamp_s, recording.T_odom_base[index]))


def a_stack(settings: NavigationSettings, use: tuple[str, ...], model: Any) -> NavStack:
    weights = dict.fromkeys(use, 1.0)
    own = NavigationSettings(model=settings.model, device=settings.device, experts=ExpertsSettings(use=use, **weights))
    return NavStack(model, own, background_training=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=80, help="that the robot has seen, at 4 Hz")
    parser.add_argument("--plans", type=int, default=3)
    parser.add_argument("--tensors", action="store_true", help="render with tensors, as where numba is missing")
    parser.add_argument("--flames", type=Path, help="image of flame graphs to write")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    trees: dict[str, CALL_TREE] = {}
    if args.tensors:
        compiled.available = lambda: False
    settings = NavigationSettings(model=args.model, device=args.device)
    model, world = load_configured_model(settings), generate_world(10003)
    episode = simulate_episode(world, "tour", (args.frames + 16) / 4.0)
    recording = EpisodeRecording(episode, Raycaster([world], CAMERA), use_truth=True)
    goal = Goal(image_rgb=recording.frame(args.frames + 7).rgb)
    rows = []
    for name, use in PLANS.items():
        stack = a_stack(settings, use, model)
        drive(stack, recording, range(args.frames))

        def plan(stack: NavStack = stack) -> None:
            found = stack.plan(goal, generator=torch.Generator().manual_seed(0), registers=False)
            assert found.status is PlanStatus.OK, found.message

        rows.append(profiled(name, plan, args.plans, trees) | {"points": stack_points(stack)})
    seen = iter(range(args.frames, args.frames + 8))
    with_all = a_stack(settings, ("spatial", "long_term"), model)
    drive(with_all, recording, range(args.frames))

    def observe() -> None:
        index = next(seen)
        drive(with_all, recording, range(index, index + 1))

    rows.append(profiled("an observed frame", observe, 5, trees))
    learner = with_all.episode.episodic
    assert learner is not None

    def train() -> None:
        learner.train_steps(1, publish=False)

    rows.append(profiled("a step of an adapter's training", train, args.plans, trees))
    rows.append(profiled("a step of the denoiser's training", a_training_step(model), args.plans, trees))
    if args.flames is not None:
        draw(trees, args.flames)
    if args.out is not None:
        machine = machine_facts() | {"compiled_loops": compiled.available(), "numpy": np.__version__}
        document = {"what": __doc__.splitlines()[0], "model": args.model, "machine": machine, "rows": rows}
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


def a_training_step(model: Any, rows: int = 32) -> Callable[[], None]:
    """Return forwards, backwards and AdamW of the model's base on random views, as training of a denoiser takes."""
    network, generator = copy.deepcopy(model.base.model).train().requires_grad_(True), torch.Generator().manual_seed(0)
    optimiser, shape = torch.optim.AdamW(network.parameters()), network.settings

    def noise(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator).to(model.device)

    grid = (shape.input_size, shape.input_size)
    context = noise(rows, shape.context_size, shape.in_channels, *grid)
    told: dict[str, Any] = {"context_pose": noise(rows, shape.context_size, 5 + 4 * shape.pose_octaves)}
    if shape.extra_channels and not shape.view_groups:
        told["extra"] = noise(rows, shape.extra_channels, *grid)
    told = told if shape.context_pose else {}

    def step() -> None:
        optimiser.zero_grad()
        t = torch.randint(1000, (rows,), generator=generator).to(model.device)
        with model.autocast():
            output = network(noise(rows, shape.in_channels, *grid), t, noise(rows, 3), context, noise(rows), **told)
        output.float().pow(2).mean().backward()
        optimiser.step()

    return step


def stack_points(stack: NavStack) -> int:
    """Return how many points the cloud has."""
    space = stack.episode.space
    return 0 if space is None else len(space.cloud)


if __name__ == "__main__":
    main()
