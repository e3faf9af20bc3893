"""A learned planner beside what needs no learning: constant velocity, and the mean path of what it learned from.

Open-loop plans of 2 s to the image of the last frame, on the planning suite's windows. Rows of the policy: its first
path, the mean of 8 of its paths, the first with the goal masked, and the best of 16 in hindsight: what a ranking
can reach. Paired differences are to constant velocity and to the mean path, resampled by worlds or, of one recording,
by windows.

    python benchmarks/policy_planning.py --policy runs/nomad/nomad --frames runs/nomad/frames/worlds.safetensors \
        --worlds 10000-10019 --windows 200 --out policy_validation_worlds.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine_facts
from numpy.typing import NDArray
from safetensors.torch import load_file

from come_nav.cli.evaluate_flags import parse_worlds
from come_nav.core.files import atomic_write_text
from come_nav.core.geometry import se2
from come_nav.core.types import Proposals
from come_nav.evaluation.metrics.statistics import Interval, bootstrap_mean, paired_difference
from come_nav.evaluation.metrics.trajectory_metrics import plan_errors
from come_nav.evaluation.protocols.protocol import ProtocolSettings, Window, choose_windows
from come_nav.evaluation.protocols.rows import constant_velocity
from come_nav.evaluation.suites.inputs import SourceSettings, open_input
from come_nav.evaluation.suites.policy_rows import context_images
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.proposals import drivable_paths
from come_nav.policies.model import LearnedPolicy
from come_nav.sim.world_sets import BUILT_IN
from come_nav.training.policies.frames import FrameBank

STEPS, RATE_HZ, DRAWN, MEAN_OF = 8, 4.0, 16, 8
BASELINES = ("constant velocity", "mean path")


def mean_path(frames: Path) -> NDArray[np.float64]:
    """Return the mean path (T, 3) of the frames that a policy learned from."""
    bank = FrameBank(**load_file(frames))
    now = bank.usable(0, STEPS)
    ahead = bank.poses_xyyaw[now[:, None] + torch.arange(1, STEPS + 1)]
    return np.asarray(se2.relative(bank.poses_xyyaw[now][:, None], ahead).double().mean(dim=0).numpy())


def paths_of(window: Window, policy: LearnedPolicy, mean: NDArray[np.float64]) -> tuple[dict[str, Any], float]:
    """Return paths (S, T, 3) by row, and how long the policy took for one path, s of the processor."""
    images, goal = context_images(window, policy.frames), window.goal_frame().rgb
    seeds = [torch.Generator().manual_seed(window.start + offset) for offset in (0, 1)]
    began_s = time.process_time()
    policy.propose(images, goal, 1, torch.Generator().manual_seed(0))
    took_s = time.process_time() - began_s
    drawn, masked = policy.propose(images, goal, DRAWN, seeds[0]), policy.propose(images, None, 1, seeds[1])
    navigation = NavigationSettings()
    steps = replace(navigation.planner, horizon_steps=STEPS, dt_s=window.dt_s)

    def drivable(found: Proposals) -> NDArray[np.float64]:
        return drivable_paths(found, steps, navigation.robot, window.initial_twist)

    all_of = drivable(drawn)
    averaged = replace(drawn, poses_xyyaw=drawn.poses_xyyaw[:MEAN_OF].mean(axis=0, keepdims=True))
    name = policy.settings.kind
    return {
        "stand still": np.zeros((1, STEPS, 3)),
        "constant velocity": constant_velocity(window, seeds[0]).poses_xyyaw[None],
        "mean path": mean[None],
        name: all_of[:1],
        f"{name}, mean of {MEAN_OF}": drivable(averaged),
        f"{name}, goal masked": drivable(masked),
        f"{name}, best of {DRAWN} in hindsight": all_of,
    }, took_s


def errors_m(paths_xyyaw: NDArray[np.float64], window: Window) -> dict[str, float]:
    """Return ATE and RPE, m, of that path of (S, T, 3) whose ATE is least."""
    best = min((plan_errors(path, window.driven_xyyaw) for path in paths_xyyaw), key=lambda own: own.ate_m)
    return {"ate_m": best.ate_m, "rpe_m": best.rpe_m}


def told(interval: Interval) -> dict[str, float]:
    return {name: round(float(getattr(interval, name)), 4) for name in ("value", "low", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", help="recordings instead of worlds")
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--frames", type=Path, required=True, help="worlds.safetensors of its run")
    parser.add_argument("--worlds", default="10000-10019")
    parser.add_argument("--set-of-worlds", default=BUILT_IN, help="built-in (default), photographed, furnished")
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--part", type=float, nargs=2, help="windows from this part of recordings alone")
    parser.add_argument("--spacing", type=float, help="metres of a spacing, of another robot")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    part = None if args.part is None else tuple(args.part)
    wanted = SourceSettings(
        paths=tuple(args.inputs), worlds=parse_worlds(args.worlds), part=part, world_set=args.set_of_worlds
    )
    source = open_input(wanted, RATE_HZ)
    protocol = ProtocolSettings(4, STEPS, part=part or (0.0, 1.0))
    windows = choose_windows(source.recordings, protocol, args.windows)
    policy, mean = LearnedPolicy.load(args.policy, spacing_m=args.spacing), mean_path(args.frames)
    found, seconds = [], []
    for window in windows:
        paths, took_s = paths_of(window, policy, mean)
        found.append({row: errors_m(own, window) for row, own in paths.items()})
        seconds.append(took_s)
    clusters = [source.groups[w.recording_id] for w in windows] if source.groups else None
    rows: dict[str, Any] = {}
    for row in found[0]:
        values = np.array([own[row]["ate_m"] for own in found])
        rows[row] = {"ate_m": told(bootstrap_mean(values, 0, clusters))}
        rows[row]["rpe_m"] = told(bootstrap_mean(np.array([own[row]["rpe_m"] for own in found]), 0, clusters))
        for other in BASELINES:
            if row not in (other, "stand still"):
                others = np.array([own[other]["ate_m"] for own in found])
                rows[row][f"minus {other}"] = told(paired_difference(values, others, 0, clusters))
    document = {
        "title": f"{policy.name} beside baselines: {source.title}",
        "machine": machine_facts(),
        "windows": len(windows),
        "horizon_s": STEPS / RATE_HZ,
        "policy": {"parameters": sum(p.numel() for p in policy.network.parameters()), "ms_of_a_path": None},
        "rows": rows,
    }
    document["policy"]["ms_of_a_path"] = round(1e3 * float(np.median(seconds)), 1)
    for row, own in rows.items():
        cells = [f"{name} {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}]" for name, v in own.items()]
        print(f"{row:36s} {'   '.join(cells)}")
    print(f"{document['policy']['ms_of_a_path']} ms of the processor for one path")
    if args.out:
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
