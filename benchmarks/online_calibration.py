"""Weights that follow what came true, against weights as they are set: on the robot's own tests while it drives.

    python benchmarks/online_calibration.py --worlds 20000 20001 --drift 0 2 --out FILE
    python benchmarks/online_calibration.py --bag ../shared/data/bags/kitchen --out FILE

Every drive is shown to a NavStack with ``experts.calibration``; each of its tests asks what the experts, as they stood
some seconds before, would have said of a frame. Errors are mean squares of the clean latents, prequential: with the
weights before the frame. The ratio is calibrated over prior, paired, with an interval over whole drives (over tests
where there is one drive). With ``--plans`` the robot also plans, at that spacing, to the image of 2 s later from what
it has seen so far: once with the calibrated weights and once with the prior, the same chance, nothing registered, so
that imagination alone decides. Errors of plans are ATE, m, paired. ``--keys`` sets more of the configuration, e.g.
``experts.use=[spatial,long_term]``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import machine_facts

from come_nav.config import load_config
from come_nav.core.files import atomic_path, atomic_write_text
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.core.types import CameraIntrinsics, Goal, Odometry
from come_nav.data.opening import open_recording
from come_nav.evaluation.metrics.statistics import bootstrap_mean, bootstrap_ratio, paired_difference
from come_nav.evaluation.metrics.trajectory_metrics import plan_errors
from come_nav.navigation.calibrating.online import Tested
from come_nav.navigation.loading import load_configured_model
from come_nav.navigation.stack import NavStack
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.worlds import generate_world
from come_nav.viz.canvas import add_legend, new_figure, png_bytes, style_axes
from come_nav.viz.palette import BLUE, GREEN, GREY, ORANGE, PURPLE

CAMERA = CameraIntrinsics.from_field_of_view(320, 240, 0.5 * math.pi)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE)
KEYS = ["memory.tolerance=0.5", "experts.calibration.use=true", "experts.calibration.period_s=1.0"]
Row = dict[str, Any]


class Found(NamedTuple):
    """What one drive told: its tests, CPU ms of one frame, and ATE (W, 2) of plans, calibrated and prior, m."""

    tests: list[Tested]
    cpu_ms: float
    ate_m: np.ndarray


def tested(drive: Recording, keys: Sequence[str], plans_every_s: float) -> Found:
    """Show one drive to a robot."""
    config = load_config(None, [*KEYS, *keys])
    stack = NavStack(load_configured_model(config), config, background_training=False)
    took_s, planned_s, errors = 0.0, float(drive.stamps_s[0]), []
    for index in range(len(drive)):
        started_s, stamp_s = time.process_time(), float(drive.stamps_s[index])
        stack.observe(drive.frame(index), Odometry(stamp_s, drive.T_odom_base[index]))
        took_s += time.process_time() - started_s
        if plans_every_s and stack.episode.calibrated and stamp_s >= planned_s + plans_every_s:
            planned_s = stamp_s
            errors += plan_errors_m(stack, drive, index)
    return Found(list(stack.calibration.tests), 1e3 * took_s / len(drive), np.array(errors).reshape(-1, 2))


def plan_errors_m(stack: NavStack, drive: Recording, index: int) -> list[tuple[float, float]]:
    """Return ATE, m, of plans from the newest frame to the image of 2 s later: calibrated, prior; none at the end."""
    search = stack.settings.planner
    ends_s = float(drive.stamps_s[index]) + search.horizon_steps * search.dt_s
    goal, newest = int(np.searchsorted(drive.stamps_s, ends_s - 1e-6)), stack.memory.newest
    if newest is None or goal >= len(drive) or drive.stamps_s[goal] > ends_s + search.dt_s:
        return []
    part = slice(index, goal + 1)
    at_s = drive.stamps_s[index] + search.dt_s * np.arange(1, search.horizon_steps + 1)
    truth = se2.relative(drive.poses_xyyaw[index], drive.poses_xyyaw[part])
    driven = np.column_stack([np.interp(at_s, drive.stamps_s[part], truth[:, axis]) for axis in range(3)])
    kept, errors = dict(stack.episode.calibrated), []
    for weights in (kept, {}):
        stack.episode.calibrated = weights
        chance = torch.Generator().manual_seed(index)
        plan = stack.plan(Goal(drive.frame(goal).rgb), generator=chance, registers=False)
        errors.append(plan_errors(plan.poses_xyyaw, driven).ate_m)
    stack.episode.calibrated = kept
    return [(errors[0], errors[1])]


def summary(found: Sequence[Found]) -> Row:
    """Return errors of all rows over some drives."""
    drives, cpu_ms = [own.tests for own in found], [own.cpu_ms for own in found]
    tests = [own for drive in drives for own in drive]
    clusters = [number for number, drive in enumerate(drives) for _ in drive]
    prior, calibrated = (np.array([getattr(own, name) for own in tests]) for name in ("prior", "calibrated"))
    ratio = bootstrap_ratio(calibrated, prior, 0, clusters if len(drives) > 1 else None)
    names = sorted({name for own in tests for name in own.errors})
    return {
        "tests": len(tests),
        "prior": float(prior.mean()),
        "calibrated": float(calibrated.mean()),
        "ratio": ratio.value,
        "ratio, 95 %": [ratio.low, ratio.high],
        "alone": {name: float(np.mean([own.errors[name] for own in tests if name in own.errors])) for name in names},
        "last weights": [{name: round(w, 3) for name, w in drive[-1].weights.items()} for drive in drives if drive],
        "CPU ms a frame": float(np.mean(cpu_ms)),
        **plans_summary([own.ate_m for own in found]),
    }


def plans_summary(drives: Sequence[np.ndarray]) -> Row:
    """Return ATE of plans with both weights, m, and the paired difference; nothing without plans."""
    ate_m = np.concatenate(drives)
    if not len(ate_m):
        return {}
    clusters = [number for number, drive in enumerate(drives) for _ in drive] if len(drives) > 1 else None
    rows = [bootstrap_mean(ate_m[:, column], 0, clusters) for column in (0, 1)]
    worse = paired_difference(ate_m[:, 0], ate_m[:, 1], 0, clusters)
    names = ("ATE of plans, calibrated [m]", "ATE of plans, prior [m]", "calibrated - prior [m]")
    found = {name: [own.value, own.low, own.high] for name, own in zip(names, [*rows, worse], strict=True)}
    return {"plans": len(ate_m), **found}


def drawn(drives: dict[str, Sequence[Tested]], path: Path) -> None:
    """Write weights (above) and errors (below) over the time of each drive."""
    figure = new_figure(4.2 * len(drives), 5.0)
    for column, (title, tests) in enumerate(drives.items()):
        above, below = (figure.add_subplot(2, len(drives), row * len(drives) + column + 1) for row in (0, 1))
        times_s = [own.stamp_s - tests[0].stamp_s for own in tests]
        for number, name in enumerate(tests[-1].weights):
            weights = [own.weights.get(name, math.nan) for own in tests]
            above.plot(times_s, weights, color=COLOURS[number % len(COLOURS)], label=name)
        below.plot(times_s, [own.prior for own in tests], color=GREY, label="weights as set")
        below.plot(times_s, [own.calibrated for own in tests], color=BLUE, label="calibrated")
        style_axes(above, "", "weight", title)
        style_axes(below, "time (s)", "error of clean latents")
        add_legend(above)
        add_legend(below)
    with atomic_path(path) as temporary:
        temporary.write_bytes(png_bytes(figure))


def in_world(seed: int, percent: float, seconds: float) -> Recording:
    """Return a tour with odometry that drifts."""
    world = generate_world(seed)
    noise = OdometrySettings.from_percent(percent) if percent else None
    episode = simulate_episode(world, "tour", seconds, 4.0, 1, noise)
    return EpisodeRecording(episode, Raycaster([world], CAMERA), use_truth=not percent)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="*", default=[])
    parser.add_argument("--drift", type=float, nargs="*", default=[0.0, 2.0], help="percent of the way")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each tour")
    parser.add_argument("--bag", type=Path, nargs="*", default=[])
    parser.add_argument("--plans", type=float, default=0.0, help="s between plans, 0 = none")
    parser.add_argument("--keys", nargs="*", default=[], help="more of the configuration")
    parser.add_argument("--plot", type=Path, help="weights and errors over time, of the first drive of each row")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: dict[str, Row] = {}
    shown: dict[str, Sequence[Tested]] = {}
    for percent in args.drift if args.worlds else []:
        found = [tested(in_world(seed, percent, args.seconds), args.keys, args.plans) for seed in args.worlds]
        rows[f"worlds {args.worlds}, drift {percent:g} %"] = summary(found)
        shown[f"world {args.worlds[0]}, drift {percent:g} %"] = found[0].tests
        print(json.dumps({f"drift {percent:g} %": list(rows.values())[-1]}), flush=True)
    for path in args.bag:
        with open_recording(path, rate_hz=4.0) as recording:
            here = tested(recording, args.keys, args.plans)
        rows[path.name], shown[path.name] = summary([here]), here.tests
        print(json.dumps({path.name: rows[path.name]}), flush=True)
    if args.plot is not None:
        drawn(shown, args.plot)
    if args.out is not None:
        document = {"machine": machine_facts(), "keys": args.keys, "rows": rows}
        atomic_write_text(args.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
