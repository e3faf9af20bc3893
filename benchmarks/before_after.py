"""Two trees of come_nav against each other in one run: plans, an observed frame, a rendered view, start and memory.

Processes of both trees take turns, so that a slow minute hits both; times are of the processor, whatever else runs.
A ratio is that of medians over rounds, its interval the smallest and the largest ratio of one round.

    git worktree add ../before 21fcfba
    python benchmarks/before_after.py --before ../before --after . --rounds 5 --out benchmarks/results/before_after.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PLANS = {
    "plan without memory": (),
    "plan with the cloud": ("spatial",),
    "plan with the cloud and a longer past": ("short_term", "spatial"),
}
STARTS = {
    "import come_nav": ["-c", "import come_nav"],
    "import the robot": ["-c", "import importlib as i, pathlib as p\nfor n in ('navigation.loading', 'config') if "
        "p.Path('come_nav/navigation').is_dir() else ('stack', 'config'): i.import_module(f'come_nav.{n}')"],
    "come-nav --help": ["-m", "come_nav", "--help"],
}  # fmt: skip
FRAMES, CLOUD_POINTS = 60, 200_000
IN_ROOMS = Path("come_nav/navigation").is_dir()  # of the tree that a worker runs in; 0.1 had no such room


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a tree of come_nav")
    parser.add_argument("--after", type=Path, help="another one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plans", type=int, default=2, help="of each kind, round and tree, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(args.plans, args.threads)))
        return
    if args.before is None or args.after is None:
        parser.error("two trees are compared: give --before and --after")
    found: dict[str, dict[str, list[float]]] = {"before": {}, "after": {}}
    for number in range(args.rounds):
        for name in ("before", "after") if number % 2 == 0 else ("after", "before"):
            for part, value in measured(args, getattr(args, name)).items():
                found[name].setdefault(part, []).append(value)
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
    rows = [
        row(part, found["before"][part], found["after"][part]) for part in found["after"] if part in found["before"]
    ]
    for own in rows:
        print(" ".join(f"{key} {value}" for key, value in own.items()))
    if args.out is not None:
        sys.path.insert(0, str(args.after.resolve()))
        from machine import machine_facts

        trees = {name: commit_of(getattr(args, name)) for name in ("before", "after")}
        document = {"what": __doc__.splitlines()[0], "trees": trees, "machine": machine_facts(), "rows": rows}
        args.out.write_text(json.dumps(document, indent=1) + "\n")


def commit_of(tree: Path) -> str:
    """Return the commit of a tree, or its folder's name."""
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or tree.name


def row(part: str, before: list[float], after: list[float]) -> dict[str, Any]:
    """Return medians and their ratio; the interval is that of the rounds' ratios."""
    ratios = [own / other for own, other in zip(after, before, strict=True)]
    values = statistics.median(before), statistics.median(after)
    return {
        "part": part,
        "before": round(values[0], 3),
        "after": round(values[1], 3),
        "ratio": round(values[1] / values[0], 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "rounds": len(ratios),
    }


def measured(args: argparse.Namespace, tree: Path) -> dict[str, float]:
    """Return what a tree needs in processes of their own: ms of the processor, MB."""
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": str(args.threads)}
    found = {}
    for part, words in STARTS.items():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], env=environment, cwd=tree, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found[f"{part}, ms"] = 1e3 * spent_s
    words = [str(Path(__file__).resolve()), "--worker", "--plans", str(args.plans), "--threads", str(args.threads)]
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=tree, check=True, stdout=subprocess.PIPE, text=True
    )
    return found | json.loads(done.stdout.splitlines()[-1])


def worker(plans: int, threads: int) -> dict[str, float]:
    """Return what the tree of this process needs: medians in ms of the processor, MB."""
    import torch

    torch.set_num_threads(threads)
    types, found = importlib.import_module("come_nav.core.types"), {}
    recording = a_drive(types)
    goal = types.Goal(image_rgb=recording.frame(FRAMES + 7).rgb)
    stack = None
    for part, use in PLANS.items():
        stack, keywords = a_stack(use)
        drive(types, stack, recording, range(FRAMES))
        found[f"{part}, ms"] = median_ms(lambda s=stack, k=keywords: s.plan(goal, **k), plans)
        if part == "plan with the cloud":
            found["process that plans with the cloud, MB"] = resident_mb()
    seen = iter(range(FRAMES, FRAMES + 9))
    found["observe a frame, ms"] = median_ms(lambda: drive(types, stack, recording, [next(seen)]), 8)
    found["render a view of 200,000 points, ms"] = a_view_ms(types)
    return found


def median_ms(work: Any, repeats: int) -> float:
    work()
    spent = []
    for _ in range(repeats):
        started_s = time.process_time()
        work()
        spent.append(time.process_time() - started_s)
    return 1e3 * statistics.median(spent)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def a_drive(types: Any) -> Any:
    episodes, worlds = (importlib.import_module(f"come_nav.sim.{name}") for name in ("episodes", "worlds"))
    raycaster = importlib.import_module("come_nav.sim.raycaster")
    world, camera = worlds.generate_world(10003), types.CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
    episode = episodes.simulate_episode(world, "tour", (FRAMES + 20) / 4.0)
    return episodes.EpisodeRecording(episode, raycaster.Raycaster([world], camera), use_truth=True)


def a_stack(use: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """Return the robot of this tree without training in the background, and what its plans are told."""
    import torch

    weights = dict.fromkeys(use, 1.0)
    if not IN_ROOMS:
        config, stack = (importlib.import_module(f"come_nav.{name}") for name in ("config", "stack"))
        settings = config.Config(device="cpu", experts=config.ExpertsConfig(use=use, **weights))
        model = stack.DiffusionWorldModel.load(config.find_resource("models", settings.model))
        return stack.NavStack(model, settings), {}
    from come_nav.navigation.loading import load_configured_model
    from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
    from come_nav.navigation.stack import NavStack

    own = NavigationSettings(device="cpu", experts=ExpertsSettings(use=use, **weights))
    told = {"generator": torch.Generator().manual_seed(0), "registers": False}
    return NavStack(load_configured_model(own), own, background_training=False), told


def drive(types: Any, stack: Any, recording: Any, frames: Any) -> None:
    for index in frames:
        stamp_s = float(recording.stamps_s[index])
        stack.observe(recording.frame(index), types.Odometry(stamp_s, recording.T_odom_base[index]))


def a_view_ms(types: Any) -> float:
    """Return ms for each of 64 views of points on walls and floors of a large building."""
    import torch

    name = "come_nav.memory.spatial"
    own = f"{name}.splatting" if IN_ROOMS else "come_nav.memory.splatting"
    splatting, generator = importlib.import_module(own), torch.Generator().manual_seed(0)
    rooms = torch.rand(CLOUD_POINTS, 3, generator=generator) * torch.tensor([24.0, 24.0, 2.5])
    axis, side = torch.randint(3, (CLOUD_POINTS,), generator=generator), torch.rand(CLOUD_POINTS, generator=generator)
    for wall, apart_m in enumerate((6.0, 6.0, 2.5)):  # every point on the nearest wall of one axis
        on_it = axis == wall
        rooms[on_it, wall] = (rooms[on_it, wall] / apart_m).round() * apart_m
    normals = torch.nn.functional.one_hot(axis, 3).float() * torch.where(side > 0.5, 1.0, -1.0)[:, None]
    colours = torch.rand(CLOUD_POINTS, 3, generator=generator)
    splats = splatting.Splats(rooms, colours, normals, torch.full_like(side, 0.05), torch.ones_like(side))
    poses = torch.tensor([9.0, 9.0, 0.5]) + torch.randn(64, 3, generator=generator) * torch.tensor([0.7, 0.7, 0.5])
    rendering = importlib.import_module("come_nav.core.geometry.point_rendering")
    camera = types.CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
    view = splatting.Viewpoint(poses, rendering.camera_fractions(camera), rendering.level_camera(0.5))
    return median_ms(lambda: splatting.render_splats(splats, view, (64, 64)), 3) / len(poses)


if __name__ == "__main__":
    main()
