"""Time of one plan, candidates per second and peak memory, with a trivial cost and with a world model.

python benchmarks/planning.py --out benchmarks/results/planning.json
python benchmarks/planning.py --model tiny --device cuda --repeats 20
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from machine import machine_facts

from come_nav.config import load_config
from come_nav.core.errors import ConfigError
from come_nav.core.files import atomic_write_text
from come_nav.core.protocols import Imaginer, Objective
from come_nav.core.resources import find_resource
from come_nav.core.types import Imagination
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import GoalPose, LatentDistance


class PathsOnly:
    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        return Imagination(poses_xyyaw)


def timed(config, imaginer: Imaginer, objectives: list[Objective], repeats: int, device: str) -> dict:
    """Plan ``repeats`` times after one warm-up; return times and rates."""
    planner = CemPlanner(config.planner, objectives)
    times_s, cpu_s, candidates = [], [], 0
    for run in range(repeats + 1):
        generator = torch.Generator(device).manual_seed(run)
        cpu = time.process_time()
        plan = planner.plan(imaginer, generator, initial_twist=np.array([0.4, 0.0, 0.1]))
        times_s.append(plan.duration_s)
        cpu_s.append(time.process_time() - cpu)
        planner_cfg = config.planner
        candidates = planner_cfg.first_samples + planner_cfg.samples * (planner_cfg.iterations - 1)
        candidates += planner_cfg.result != "best"
    times_s, cpu_s = np.array(times_s[1:]), np.array(cpu_s[1:])
    return {
        "plans": repeats,
        "candidates_per_plan": candidates,
        "plan_s_median": float(np.median(times_s)),
        "plan_s_min": float(times_s.min()),
        "plan_s_max": float(times_s.max()),
        "plan_cpu_s_median": float(np.median(cpu_s)),
        "candidates_per_s_median": float(candidates / np.median(times_s)),
        "candidates_per_cpu_s_median": float(candidates / np.median(cpu_s)),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def with_model(config, name: str, device: str, repeats: int) -> dict:
    from come_nav.world_model.model import DiffusionWorldModel

    model = DiffusionWorldModel.load(find_resource("models", name), device)
    if config.sampler is not None:
        model.sampler = config.sampler
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(model.context_frames)]
    poses = np.stack([[0.1 * index, 0.0, 0.0] for index in range(model.context_frames)])
    images = model.images_from_rgb(frames)
    imaginer = model.imaginer(model.context_from_images(images, poses), config.planner.horizon_steps)
    objectives: list[Objective] = [LatentDistance(model.encode(images[:1]))]
    result = timed(config, imaginer, objectives, repeats, device)
    return result | {"model": name, "sampler": f"{model.sampler.name}, {model.sampler.steps} steps", "device": device}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], help="configuration key=value")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    config = load_config(None, args.set)
    goal = GoalPose(torch.tensor([0.9, 0.1, 0.2]))
    document = {
        "what": __doc__.splitlines()[0],
        "machine": machine_facts() | {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None},
        "trivial_cost": timed(config, PathsOnly(), [goal], args.repeats, "cpu") | {"device": "cpu"},
    }
    try:
        document["world_model"] = with_model(config, args.model, args.device, args.repeats)
    except ConfigError as error:
        document["world_model"] = {"skipped": str(error)}
    text = json.dumps(document, indent=1)
    print(text)
    if args.out is not None:
        atomic_write_text(args.out, text + "\n")


if __name__ == "__main__":
    main()
