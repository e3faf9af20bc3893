"""What the memory of a planner's process is made of: after each import and step, by parts of its address space.

A process of its own imports what the planner needs, loads the model, observes a drive and plans with the cloud, as
``come_nav.navigation`` does without ROS and without training. The drive was simulated and saved by another process.
Two trees take turns where ``--before`` names one.

    python benchmarks/process_memory.py
    python benchmarks/process_memory.py --before ../before --rounds 3 --out benchmarks/results/process_memory.json

Resident memory counts pages of files that other processes share; the proportional set (PSS) counts a share of them;
private is what no other process has a use for. Megabytes are 10^6 bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FRAMES, GOAL_AFTER = 60, 7
COUNTED = ("Rss", "Pss", "Private_Dirty")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a tree of come_nav to compare this one with")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--plans", type=int, default=4)
    parser.add_argument("--use", nargs="*", default=["spatial"], help="memories besides the context frames")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)  # written by one process, read by another
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(worker(args)))
        return
    if args.drive is not None:
        save_drive(args.drive)
        return
    here = Path(__file__).resolve().parents[1]
    trees = {"before": args.before, "after": here} if args.before else {"after": here}
    with tempfile.TemporaryDirectory() as folder:
        drive = Path(folder, "drive.npz")
        run_in(here, ["--drive", str(drive)])
        for tree in trees.values():
            measured(args, tree, drive)  # compiles
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
        for _ in range(args.rounds):
            for name, tree in trees.items():
                rounds[name].append(measured(args, tree, drive))
    found = {name: medians(own) for name, own in rounds.items()}
    report(found)
    if args.out is not None:
        sys.path.insert(0, str(here))
        from machine import machine_facts

        facts = {"what": __doc__.splitlines()[0], "frames": FRAMES, "plans": args.plans, "memories": args.use}
        document = {**facts, "rounds": args.rounds, "machine": machine_facts(), "trees": found}
        args.out.write_text(json.dumps(document, indent=1) + "\n")


def run_in(tree: Path, words: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), *words]
    return subprocess.run(command, env=environment, cwd=tree, check=True, stdout=subprocess.PIPE, text=True).stdout


def measured(args: argparse.Namespace, tree: Path, drive: Path) -> dict[str, Any]:
    words = ["--worker", "--drive", str(drive), "--plans", str(args.plans), "--use", *args.use]
    found: dict[str, Any] = json.loads(run_in(tree, words).splitlines()[-1])
    return found


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of rounds' figures, with the range of what the process ends with."""
    steps = {
        step: {
            kind: round(statistics.median(own["steps"][step][kind] for own in rounds), 1)
            for kind in rounds[0]["steps"][step]
        }
        for step in rounds[0]["steps"]
    }
    ends = [list(own["steps"].values())[-1]["rss_mb"] for own in rounds]
    peaks = [own["peak_mb"] for own in rounds]
    return {
        "steps": steps,
        "end_mb_range": [min(ends), max(ends)],
        "peak_mb": round(statistics.median(peaks), 1),
        "files_mb": rounds[-1]["files_mb"],
        "modules": rounds[-1]["modules"],
        "plans_sha256": rounds[-1]["plans_sha256"],
    }


def report(found: dict[str, dict[str, Any]]) -> None:
    for name, own in found.items():
        print(f"{name}: {'RSS':>14} {'PSS':>8} {'private':>8} MB")
        for step, sizes in own["steps"].items():
            print(f"  {step:28}" + " ".join(f"{size:8.1f}" for size in sizes.values()))
        print(f"  paths of the plans {own['plans_sha256']}")
        print(f"  most at any time {own['peak_mb']} MB; ends with {own['end_mb_range']} MB; files {own['files_mb']}")


def save_drive(path: Path) -> None:
    """Write frames and poses of a simulated drive."""
    import before_after
    import numpy as np

    recording = before_after.a_drive(importlib.import_module("come_nav.core.types"))
    frames = [recording.frame(index) for index in [*range(FRAMES), FRAMES + GOAL_AFTER]]
    camera = frames[0].intrinsics
    np.savez(
        path,
        rgb=np.stack([frame.rgb for frame in frames]),
        depth_m=np.stack([frame.depth_m for frame in frames]),
        stamps_s=np.array([frame.stamp_s for frame in frames]),
        T_base_camera=np.stack([frame.T_base_camera for frame in frames]),
        T_odom_base=recording.T_odom_base[:FRAMES],
        camera=np.array([camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy]),
    )


def worker(args: argparse.Namespace) -> dict[str, Any]:
    """Return sizes after each step of this process."""
    steps: dict[str, dict[str, float]] = {}
    paths: list[Any] = []
    for step in planner_steps(args, paths):
        steps[step] = sizes_mb()
    digest = hashlib.sha256(b"".join(path.tobytes() for path in paths)).hexdigest()[:16]
    peak_kb = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    memory = {"steps": steps, "peak_mb": peak_kb * 1024 / 1e6, "files_mb": files_mb()}
    return memory | {"modules": len(sys.modules), "plans_sha256": digest}


def planner_steps(args: argparse.Namespace, paths: list[Any]) -> Iterator[str]:
    """Do what a planner's process does; yield the name of each step that is done, and keep the paths."""
    yield "python"
    import numpy as np

    yield "numpy"
    import torch

    torch.set_num_threads(1)
    yield "torch"
    from come_nav.core.types import CameraIntrinsics, Frame, Goal, Odometry
    from come_nav.navigation.loading import load_configured_model
    from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
    from come_nav.navigation.stack import NavStack

    yield "packages of navigation"
    experts = ExpertsSettings(use=tuple(args.use), **dict.fromkeys(args.use, 1.0))
    settings = NavigationSettings(device="cpu", experts=experts)
    stack = NavStack(load_configured_model(settings), settings, background_training=False)
    yield "model"
    kept = np.load(args.drive)
    size, lens = kept["camera"][:2].astype(int), kept["camera"][2:]
    camera = CameraIntrinsics(int(size[0]), int(size[1]), *(float(value) for value in lens))
    parts = {name: kept[name] for name in ("rgb", "depth_m", "stamps_s", "T_base_camera", "T_odom_base")}
    for index in range(FRAMES):
        stamp_s = float(parts["stamps_s"][index])
        seen = parts["rgb"][index], parts["depth_m"][index]
        frame = Frame(stamp_s, *seen, camera, parts["T_base_camera"][index])
        stack.observe(frame, Odometry(stamp_s, parts["T_odom_base"][index]))
    yield f"{FRAMES} frames observed"
    goal = Goal(image_rgb=parts["rgb"][FRAMES])
    for number in range(args.plans):
        plan = stack.plan(goal, generator=torch.Generator().manual_seed(number), registers=False)
        assert plan.status.name == "OK", plan.message
        paths.append(plan.poses_xyyaw)
        yield f"plan {number + 1}"


def sizes_mb() -> dict[str, float]:
    text = Path("/proc/self/smaps_rollup").read_text()
    return {
        f"{kind.lower()}_mb": int(re.search(rf"^{kind}:\s+(\d+)", text, re.MULTILINE)[1]) * 1024 / 1e6
        for kind in COUNTED
    }


def files_mb(most: int = 8) -> dict[str, float]:
    """Return resident MB of the largest mapped files; heap and memory without a file are two more."""
    found: dict[str, float] = defaultdict(float)
    name = ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)", line):
            name = Path(head[1]).name or "no file"
        elif line.startswith("Rss:"):
            found[name] += int(line.split()[1]) * 1024 / 1e6
    return {name: round(size, 1) for name, size in sorted(found.items(), key=lambda item: -item[1])[:most]}


if __name__ == "__main__":
    main()
