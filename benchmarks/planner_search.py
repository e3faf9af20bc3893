"""How good is the search alone? The simulator renders every candidate's last view: a perfect world model.

For each window of episodes in validation worlds the planner sees four past poses and the image two seconds later; its
path is compared with what the robot drove (ATE over 8 steps at 4 Hz), with the best of all candidates that this plan
tried (hindsight), with constant velocity and with standing still. All settings see the same windows and seeds.

    python benchmarks/planner_search.py --windows 100 --out benchmarks/results/planner_search.json
    python benchmarks/planner_search.py --set parameterisation=spline --set iterations=4
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from come_nav.config import parse_override
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2
from come_nav.core.settings import from_mapping, to_mapping
from come_nav.core.types import CameraIntrinsics, Imagination, PlanStatus
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import ImageDistance, Smoothness
from come_nav.planning.settings import PlannerSettings
from come_nav.planning.twists import path_from_twists
from come_nav.sim.episodes import simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.sim.worlds import generate_world

STEPS, DT_S, CONTEXT = 8, 0.25, 4
DRIVERS = ("tour", "wander")
OBJECTIVES = {
    "l1": ("l1", (1,)),
    "l1_pyramid": ("l1", (1, 2, 4, 8)),
    "l1_pyramid16": ("l1", (1, 2, 4, 8, 16)),
    "l1_coarse": ("l1", (2, 4, 8)),
    "l2": ("l2", (1,)),
    "l2_pyramid": ("l2", (1, 2, 4, 8)),
}


@dataclass(frozen=True)
class Window:
    world_seed: int
    driver: str
    start_world_xyyaw: torch.Tensor  # (3,)
    twist: np.ndarray  # (3,) over the last step before the start
    driven_xyyaw: torch.Tensor  # (T, 3) in the start frame
    goal_image: torch.Tensor  # (3, H, W)
    raycaster: Raycaster


class PerfectImaginer:
    def __init__(self, window: Window) -> None:
        self._window = window

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        ends = se2.compose(self._window.start_world_xyyaw[None], poses_xyyaw[:, -1])
        images, _ = self._window.raycaster.render(ends)
        return Imagination(poses_xyyaw, images=images)


def make_windows(count: int) -> list[Window]:
    """Windows of tour and wander episodes, two per episode, each in another validation world."""
    windows = []
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    for seed, driver in itertools.cycle(zip(VALIDATION_SEEDS, itertools.cycle(DRIVERS), strict=False)):
        world = generate_world(seed)
        episode = simulate_episode(world, driver, 20.0, 4.0, seed=seed)
        raycaster = Raycaster([world], camera)
        poses = np.asarray(episode.poses_world_xyyaw, dtype=np.float64)
        for now in (24, 56):
            if len(windows) == count:
                return windows
            twist = np.array(se2.planar_twist_between(poses[now - 1], poses[now], DT_S))
            driven = se2.relative(poses[now], poses[now + 1 : now + 1 + STEPS])
            goal = raycaster.render(torch.from_numpy(poses[now + STEPS]).float()[None])[0][0]
            start = torch.from_numpy(poses[now]).float()
            driven_t = torch.from_numpy(driven).float()
            windows.append(Window(seed, driver, start, twist, driven_t, goal, raycaster))
    return windows


def ate(paths: torch.Tensor, driven: torch.Tensor) -> torch.Tensor:
    """RMSE of positions (S,) of paths (S, T, 3)."""
    return ((paths[..., :2] - driven[None, :, :2]) ** 2).sum(-1).mean(-1).sqrt()


def interval(values: np.ndarray) -> list[float]:
    """95 % bootstrap interval of the mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(2000, len(values)))].mean(axis=1)
    return [float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))]


def measure(name: str, windows: list[Window], config: PlannerSettings, objective: str, smoothness: float) -> dict:
    kind, scales = OBJECTIVES[objective]
    chosen, hindsight, first_hindsight, costs_worse, durations, evaluations = [], [], [], [], [], []
    for index, window in enumerate(windows):
        view = ImageDistance(window.goal_image, kind, scales)
        smooth = Smoothness(DT_S, initial_twist=torch.from_numpy(window.twist))
        planner = CemPlanner(config, [view, smooth], {"smoothness": smoothness})
        generator = torch.Generator().manual_seed(index)
        plan = planner.plan(PerfectImaginer(window), generator, initial_twist=window.twist)
        if plan.status is not PlanStatus.OK:
            raise RuntimeError(f"window {index}: {plan.status} {plan.message}")
        tried = torch.cat([iteration.poses_xyyaw for iteration in plan.trace.iterations])
        chosen.append(float(ate(torch.from_numpy(plan.poses_xyyaw).float()[None], window.driven_xyyaw)[0]))
        hindsight.append(float(ate(tried, window.driven_xyyaw).min()))
        first_hindsight.append(float(ate(plan.trace.iterations[0].poses_xyyaw, window.driven_xyyaw).min()))
        at_truth = view(Imagination(window.driven_xyyaw[None], images=window.goal_image[None]))
        costs_worse.append(plan.cost > float(at_truth) + 0.02)
        durations.append(plan.duration_s)
        evaluations.append(config.first_samples + config.samples * (config.iterations - 1) + (config.result != "best"))
    chosen_m, hindsight_m = np.array(chosen), np.array(hindsight)
    row = {
        "name": name,
        "planner": to_mapping(config),
        "objective": objective,
        "smoothness_weight": smoothness,
        "windows": len(windows),
        "evaluations_per_plan": evaluations[0],
        "ate_m": float(chosen_m.mean()),
        "ate_m_interval": interval(chosen_m),
        "ate_m_median": float(np.median(chosen_m)),
        "hindsight_ate_m": float(hindsight_m.mean()),
        "first_iteration_hindsight_ate_m": float(np.mean(first_hindsight)),
        "ratio_of_means": float(chosen_m.mean() / hindsight_m.mean()),
        "share_above_0.3_m": float((chosen_m > 0.3).mean()),
        "plan_s_median": float(np.median(durations)),
        "ate_m_per_window": [round(value, 4) for value in chosen],
    }
    print(
        f"{name:44s} evals {row['evaluations_per_plan']:4d}  ATE {row['ate_m']:.3f} "
        f"[{row['ate_m_interval'][0]:.3f}, {row['ate_m_interval'][1]:.3f}] median {row['ate_m_median']:.3f}  "
        f"hindsight {row['hindsight_ate_m']:.3f}  ratio {row['ratio_of_means']:.2f}  "
        f">0.3 m {row['share_above_0.3_m']:.2f}  {row['plan_s_median']:.2f} s",
        flush=True,
    )
    return row


def baselines(windows: list[Window]) -> dict:
    still, constant = [], []
    for window in windows:
        straight_on = path_from_twists(torch.from_numpy(window.twist).float().repeat(STEPS, 1), DT_S)
        still.append(float(ate(torch.zeros(1, STEPS, 3), window.driven_xyyaw)[0]))
        constant.append(float(ate(straight_on[None], window.driven_xyyaw)[0]))
    result = {}
    for name, values in (("stand still", np.array(still)), ("constant velocity", np.array(constant))):
        result[name] = {"ate_m": float(values.mean()), "ate_m_interval": interval(values)}
        print(f"{name:44s} ATE {values.mean():.3f} {result[name]['ate_m_interval']}", flush=True)
    return result


def studies() -> dict[str, tuple[dict, str, float]]:
    """name -> (planner settings over the defaults, objective, smoothness weight)."""
    table: dict[str, tuple[dict, str, float]] = {"default": ({}, "l1_pyramid", 0.0)}
    for objective in OBJECTIVES:
        table[f"objective {objective}"] = ({}, objective, 0.0)
    for form in ("straight", "arc", "spline"):
        table[f"shape {form}"] = ({"parameterisation": form}, "l1_pyramid", 0.0)
    for proposal, sampling in itertools.product(("gaussian", "mixture"), ("gaussian", "sobol", "uniform")):
        settings = {"proposal": proposal, "initial_sampling": sampling}
        table[f"{proposal} proposal, {sampling} start"] = (settings, "l1_pyramid", 0.0)
    for first, samples, iterations in ((96, 1, 1), (360, 1, 1), (120, 60, 3), (240, 60, 3), (120, 30, 4), (480, 60, 3)):
        settings = {"initial_samples": first, "samples": samples, "iterations": iterations, "elites": min(6, samples)}
        table[f"{first} first, then {iterations - 1} x {samples}"] = (settings, "l1_pyramid", 0.0)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], help="one setting of the planner; runs this one alone")
    parser.add_argument("--objective", default="l1_pyramid", choices=list(OBJECTIVES))
    parser.add_argument("--smoothness", type=float, default=0.0)
    parser.add_argument("--only", help="run the studies whose name contains this")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    started_s = time.perf_counter()
    windows = make_windows(args.windows)
    print(f"{len(windows)} windows in {time.perf_counter() - started_s:.1f} s", flush=True)
    document = {
        "what": __doc__.splitlines()[0],
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": "cpu",
        },
        "worlds": sorted({window.world_seed for window in windows}),
        "baselines": baselines(windows),
        "rows": [],
    }
    if args.set:
        chosen = {" ".join(args.set): (dict(map(parse_override, args.set)), args.objective, args.smoothness)}
    else:
        chosen = {name: study for name, study in studies().items() if args.only is None or args.only in name}
    for name, (settings, objective, smoothness) in chosen.items():
        config = from_mapping(PlannerSettings, settings, "planner.")
        document["rows"].append(measure(name, windows, config, objective, smoothness))
        if args.out is not None:
            atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
