"""Plans a second on a device, the memory of one, and what an adapter that trains beside costs them.

A robot that has seen a drive plans to an image with the planner's defaults. Times are by the clock; the slowest of a
hundred (p99) counts beside an adapter's training. Memory is that of the GPU, or of the process.

    python benchmarks/plan_rates.py --device cuda --plans 100 --out benchmarks/results/plan_rates_cuda.json
    python benchmarks/plan_rates.py --device cpu --plans 5                a dry run
    python benchmarks/plan_rates.py --imagined 1.0 0.25                   also as robots over ROS do (config/ros_*.yaml)
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from machine import machine_facts
from nwm_planning import peak_bytes, start_peak
from plan_profile import CAMERA, PLANS, a_stack, drive

from come_nav.core.files import atomic_write_text
from come_nav.core.types import Goal, PlanStatus
from come_nav.experts.forward_ways import ForwardWay
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.settings import NavigationSettings
from come_nav.navigation.stack import NavStack
from come_nav.planning.settings import PlannerSettings
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world

MOST_SLOWER = 1.05  # p99 of plans beside training over p99 without


def times_s(stack: NavStack, goal: Goal, count: int, search: PlannerSettings | None = None) -> list[float]:
    """Return seconds of each plan, after one that warms up."""
    found = []
    for number in range(count + 1):
        started_s = time.perf_counter()
        plan = stack.plan(goal, generator=torch.Generator().manual_seed(number), planner=search, registers=False)
        assert plan.status is PlanStatus.OK, plan.message  # its costs came back, so the device has finished
        found.append(time.perf_counter() - started_s)
    return found[1:]


def rates(values_s: list[float]) -> dict[str, Any]:
    p50, p99 = (float(own) for own in np.percentile(values_s, [50, 99]))
    return {"n": len(values_s), "hz": round(1.0 / p50, 2), "p50_s": round(p50, 4), "p99_s": round(p99, 4)}


def beside_training(stack: NavStack, goal: Goal, plans: int) -> dict[str, Any]:
    """Return rates without and with an adapter's steps in another thread, and how many steps that were."""
    learner = stack.episode.episodic
    assert learner is not None
    alone, stop, steps = times_s(stack, goal, plans), threading.Event(), [0]

    def train() -> None:
        while not stop.is_set():
            learner.train_steps(1, publish=False)
            steps[0] += 1

    thread, started_s = threading.Thread(target=train), time.perf_counter()
    thread.start()
    beside = times_s(stack, goal, plans)
    stop.set()
    thread.join()
    ratio = float(np.percentile(beside, 99) / np.percentile(alone, 99))
    return {
        "alone": rates(alone),
        "beside": rates(beside),
        "p99_ratio": round(ratio, 3),
        "within_5_percent": ratio <= MOST_SLOWER,
        "training_steps_per_s": round(steps[0] / (time.perf_counter() - started_s), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=60, help="that the robot has seen, at 4 Hz")
    parser.add_argument("--plans", type=int, default=20)
    parser.add_argument(
        "--compile", nargs="+", default=["eager"], choices=get_args(ForwardWay), help="how networks run"
    )
    parser.add_argument(
        "--imagined", nargs="+", type=float, default=[1.0], help="shares of the candidates that networks imagine"
    )
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    settings = NavigationSettings(model=args.model, device=args.device)
    model, world = load_configured_model(settings), generate_world(10003)
    episode = simulate_episode(world, "tour", (args.frames + 16) / 4.0)
    recording = EpisodeRecording(episode, Raycaster([world], CAMERA), use_truth=True)
    goal, rows = Goal(image_rgb=recording.frame(args.frames + 7).rgb), []
    for name, use in PLANS.items():
        stack = a_stack(settings, use, model)
        drive(stack, recording, range(args.frames))
        start_peak(args.device)
        for way, share in itertools.product(args.compile, args.imagined):
            model.inference = replace(settings.inference, compile=way)
            search = replace(settings.planner, imagined_share=share)
            spent_s = times_s(stack, goal, args.plans, search)
            facts = {"name": name, "compile": way, "imagined_share": share}
            found = {**facts, **rates(spent_s), "peak_bytes": peak_bytes(args.device)}
            print(" ".join(f"{key} {value}" for key, value in found.items()), flush=True)
            rows.append(found)
        model.inference = settings.inference
    stack = a_stack(settings, ("spatial", "long_term"), model)
    drive(stack, recording, range(args.frames))
    training = beside_training(stack, goal, args.plans)
    print(f"beside an adapter's training: {training}")
    if args.out is not None:
        what = {"what": __doc__.splitlines()[0], "model": args.model, "device": args.device}
        device = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
        document = {**what, "device_name": device, "machine": machine_facts(), "rows": rows, "training": training}
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
