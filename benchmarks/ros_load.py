"""What the nodes take of a machine with a camera of 640x480 px and 30 Hz, colour and depth, and odometry at 60 Hz.

A fake robot publishes one view of a built-in world all the time and says that it creeps ahead; the planner has a goal
thirty metres ahead, so that it plans at its full rate. Taken from /proc and /diagnostics over the time of measuring:
processor time of each process (seconds per second; 1 = one core), memory, images that arrived of those published, that
were used, and how long odometry waited for its callback.

Each node takes what it needs of the images (4 a second by its parameters); the rest is dropped undecoded, by intent.

    benchmarks/ros_load.py --seconds 60 --out benchmarks/results/ros_load.json
    benchmarks/ros_load.py --seconds 60 --composition --out benchmarks/results/ros_load_composed.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from ros_driver import CREEP_MPS, Driver, RobotFacts  # noqa: E402
from ros_harness import Bench, resident_mb, setting  # noqa: E402
from ros_launch import Launch  # noqa: E402

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SETTLE_S = 10.0


def processor_s(pid: int) -> float:
    """Return the processor time that a process has taken (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def a_view(facts: RobotFacts, world: int) -> tuple[np.ndarray, np.ndarray]:
    """Return colour and depth of a place with space ahead."""
    from ros_robot import simulator_of, stand_with_space_ahead

    simulator = simulator_of(facts, world)
    stand_with_space_ahead(simulator, 2.0)
    frame = simulator.observe()[0]
    return frame.rgb, frame.depth_m


def start(bench: Bench, launch: Launch) -> None:
    """Start what nav.launch.py would."""
    for process in launch.started:
        words = [*process.words, "--ros-args"]
        words += [word for file in process.files for word in ("--params-file", file)]
        far = {"use_obstacles": False, "time_limit_s": 86000.0, "recovery.progress_s": 86000.0}
        own = far if process.executable in ("planner", "come_nav_nodes") else {}
        bench.start(process.executable, {**process.parameters, **own}, words, **process.remaps)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Let everything run for some time; return what it took."""
    from geometry_msgs.msg import PoseStamped

    from come_nav.ros import messages

    width, height = (int(word) for word in args.size.split("x"))
    facts = RobotFacts(size=(width, height), rate_hz=args.rate, odometry_rate_hz=2.0 * args.rate)
    launch = Launch("nav", composition=str(args.composition).lower())
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        driver = Driver(bench, facts, view=a_view(facts, args.world))
        try:
            start(bench, launch)
            bench.wait_for_context()
            goals = bench.connected(bench.publisher(PoseStamped, "goal_pose"))
            x_m = 30.0 + CREEP_MPS * time.monotonic() % 1.0
            goals.publish(messages.pose_list(np.array([[x_m, 0.0, 0.0]]), [0.0], "base_link")[0])
            bench.wait("a plan", lambda: "plan_status" in bench.told("planner", "mission"))
            time.sleep(SETTLE_S)
            pids = {process.name: process.popen.pid for process in bench.processes}
            before = {name: processor_s(pid) for name, pid in pids.items()}
            own_s, images, began_s = time.process_time(), driver.images, time.monotonic()
            counts = counted(bench)
            time.sleep(args.seconds)
            took_s = time.monotonic() - began_s
            after = {name: processor_s(pid) for name, pid in pids.items()}
            published = driver.images - images
            now = counted(bench)
            return {
                "benchmark": "ros_load",
                "setting": {**setting(), "seconds": args.seconds, "size": args.size, "rate_hz": args.rate,
                            "composition": args.composition, "processors": len(os.sched_getaffinity(0))},
                "cores taken": {name: round((after[name] - before[name]) / took_s, 3) for name in pids},
                "cores of the fake robot": round((time.process_time() - own_s) / took_s, 3),
                "memory_mb": {name: round(resident_mb(pid), 1) for name, pid in pids.items()},
                "images published per s": round(published / took_s, 2),
                "nodes": {name: of_node(counts[name], now[name], published, took_s) for name in now},
                "odometry callback_p99_s": {
                    name: float(bench.told(name, "odometry").get("callback_p99_s", "nan"))
                    for name in ("spatial_memory", "planner", "controller")
                },
                "plans": bench.told("planner", "plans"),
            }  # fmt: skip
        finally:
            driver.close()
            bench.close()
            launch.close()


def counted(bench: Bench) -> dict[str, dict[str, int]]:
    """Return how many images have arrived at each node, and what became of them."""
    found = {}
    for name in ("spatial_memory", "planner"):
        memory = bench.told(name, "memory")
        own = {key: int(value) for key, value in memory.items() if key.startswith(("frames", "images dropped"))}
        found[name] = {"arrived": int(bench.told(name, "camera").get("received", 0)), **own}
    return found


def of_node(before: dict[str, int], now: dict[str, int], published: int, took_s: float) -> dict[str, float]:
    """Return the share of images that did not arrive, and what became of the others, per second."""
    rates = {f"{key} per s": round((now[key] - before.get(key, 0)) / took_s, 2) for key in now}
    return {**rates, "lost on the way": round(1.0 - (now["arrived"] - before["arrived"]) / max(1, published), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--rate", type=float, default=30.0, help="of the camera, Hz")
    parser.add_argument("--world", type=int, default=10000)
    parser.add_argument("--composition", action="store_true", help="all nodes in one process")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    document = measure(args)
    if args.out is not None:
        args.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
