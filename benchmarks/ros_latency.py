"""How long odometry waits for its callback while the planner searches and an adapter is trained.

Simulator, planner and episodic_memory run as processes of their own (or the last two in one, with --composed). A
image that is never reached keeps the planner searching, a slow turn keeps the frames new. The wait is measured in
each node, from DDS's reception to the callback, and published on /diagnostics; the requirement is a p99 below 20 ms.

    benchmarks/ros_latency.py
    benchmarks/ros_latency.py --seconds 60 --composed --planner-trains
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]
WANTED_P99_S = 0.02
WINDOW = 1000  # messages that the nodes' percentiles are taken over


def start(bench: Any, folder: Path, args: argparse.Namespace) -> list[str]:
    """Start the nodes; return the names of those that are measured."""
    memory = str(folder / "memory")
    simulator = {"world_seed": 10000, "publish_clock": True, "odometry_rate_hz": args.odometry_rate}
    bench.start("simulator", simulator)
    experts: dict[str, Any] = {"use": ["long_term"], "adapter_store": "" if args.planner_trains else memory}

    def budget() -> dict[str, float]:
        return {"nice": args.nice, **({"steps_per_s": 1e-3} if args.idle else {})}

    experts["budget"] = budget()
    missions = {"goal_difference": 1e-6, "goal_tolerance_m": 0.01, "max_failures": 10000, "time_limit_s": 86000.0}
    planner = {"experts": experts, **missions, "plan_rate_hz": 20.0, "use_places": False}
    planner |= {"use_obstacles": False, "max_sensor_age_s": 60.0}  # nobody tells of obstacles here
    learner = {"memory_folder": memory, "save_period_s": 1.0, "experts": {"budget": budget()}}
    common = {"use_sim_time": True, "device": args.device}
    nodes = {"planner": {**common, **planner}}
    if not args.planner_trains:
        nodes["episodic_memory"] = {**common, **learner, "state_period_s": 10.0}
    if args.composed:
        sections = {f"/{name}": values for name, values in nodes.items()}
        bench.start("come_nav_nodes", sections, words=tuple(nodes))
    else:
        for name, values in nodes.items():
            bench.start(name, values)
    return list(nodes)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Let everything work for some time; return the waits of each node and what it did meanwhile."""
    from geometry_msgs.msg import Twist
    from ros_harness import Bench, setting
    from sensor_msgs.msg import Image

    from come_nav.ros import messages

    turning = Twist()
    turning.angular.z = 0.4
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        try:
            nodes = start(bench, Path(name), args)
            command, goal = bench.publisher(Twist, "cmd_vel"), bench.publisher(Image, "goal_image")
            bench.node.create_timer(0.1, lambda: command.publish(turning))
            bench.wait("context", lambda: int(bench.told("planner", "memory").get("frames kept", 0)) >= 4)
            if not args.idle:
                goal.publish(messages.image_message(np.zeros((64, 64, 3), np.uint8), 0.0, "camera"))
                bench.wait("an adapter", lambda: int(bench.told("planner", "long_term").get("adapter_version", 0)))
                bench.wait("plans", lambda: bench.told("planner", "plans").get("plan_p50_s"))
            settle(bench, nodes, args.seconds)
            found = {node: of_node(bench, node) for node in nodes}
            plans = bench.told("planner", "plans")
            found["planner"] |= {key: float(value) for key, value in plans.items() if key == "plan_p50_s"}
            learner = bench.told("episodic_memory", "training")
            if learner:
                keys = ("steps_per_s", "steps", "steps_due", "adapter_version", "frame_to_adapter_p50_s")
                found["episodic_memory"] |= {key: float(learner[key]) for key in keys if key in learner}
            return {"setting": setting(args.device), "nodes": found}
        finally:
            bench.close()


def settle(bench: Any, nodes: list[str], seconds: float) -> None:
    """Wait for that time, and until all messages that the figures are taken over came after the start."""

    def received(node: str) -> int:
        return int(bench.told(node, "odometry").get("received", 0))

    before = {node: received(node) for node in nodes}
    time.sleep(seconds)
    bench.wait("enough odometry", lambda: all(received(node) - before[node] >= WINDOW for node in nodes))


def of_node(bench: Any, node: str) -> dict[str, Any]:
    """Return count and percentiles of the wait, ms."""
    values = bench.told(node, "odometry")
    waits = {f"{p}_ms": 1000.0 * float(values[f"callback_{p}_s"]) for p in ("p50", "p95", "p99")}
    return {"odometry_messages": int(values["received"]), "over_the_last": WINDOW, **waits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--odometry-rate", type=float, default=20.0, help="Hz")
    parser.add_argument("--nice", type=int, default=5, help="of the training thread")
    parser.add_argument("--idle", action="store_true", help="no goal, no training: what the machine itself costs")
    parser.add_argument("--composed", action="store_true", help="planner and episodic_memory in one process")
    parser.add_argument("--planner-trains", action="store_true", help="no episodic_memory: the planner trains itself")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    try:
        import rclpy  # noqa: F401
    except ImportError:
        print("skipped: rclpy is not installed (pip install 'come_nav[ros]')")
        return
    document = measure(args)
    document["setting"] |= {
        "nice": args.nice,
        "composed": args.composed,
        "planner_trains": args.planner_trains,
        "idle": args.idle,
    }
    p99_ms = max(values["p99_ms"] for values in document["nodes"].values())
    document["p99_ms"], document["wanted_p99_ms"] = p99_ms, 1000.0 * WANTED_P99_S
    print(json.dumps(document, indent=2))
    if args.out is not None:
        args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
