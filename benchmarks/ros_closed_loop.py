"""A simulated robot explores a test world and then drives to pictures, with every node in a process of its own.

Half of the goals lie in view of the start (up to 1.5 m ahead), half at key places of the exploration, mostly in other
rooms. Measured per goal: reached or not (true distance, not what the planner believes), time, path driven over shortest
path, collisions; over all: latencies and rates from /diagnostics. ``--soak`` keeps sending goals for some minutes and
reports the growth of memory and the errors.

    benchmarks/ros_closed_loop.py --worlds 20003 --goals 4
    benchmarks/ros_closed_loop.py --worlds 20003 --soak 30
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav_msgs.msg import Odometry as OdometryMessage  # noqa: E402
from ros_harness import Bench  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from come_nav.core.geometry import se2, se3  # noqa: E402
from come_nav.ros import messages  # noqa: E402
from come_nav.ros.qos import LATCHED  # noqa: E402
from come_nav.sim.builtin import BuiltInSimulator  # noqa: E402
from come_nav.sim.grid_planner import GridPlanner  # noqa: E402
from come_nav.sim.robot import RobotConfig  # noqa: E402
from come_nav.sim.worlds import generate_world  # noqa: E402

REACHED_M, REACHED_RAD = 0.5, 0.6


class Drive:
    """One world: the nodes, the truth, and goals one after another."""

    def __init__(self, bench: Bench, seed: int, args: argparse.Namespace) -> None:
        self.bench, self.args = bench, args
        self.camera = BuiltInSimulator.in_world(generate_world(seed), seed=seed)
        self.start = self.camera.pose_world_xyyaw.copy()
        self.map = GridPlanner(self.camera.world, RobotConfig().radius_m)
        common = {"use_sim_time": True}
        pose = [float(value) for value in self.start]
        simulator = {"world_seed": seed, "start_pose": pose, "publish_clock": True}
        bench.start("simulator", {**simulator, "real_time_factor": args.real_time_factor})
        bench.start("spatial_memory", common)
        bench.start("planner", {**common, "model": args.model, "device": args.device, "time_limit_s": args.time_limit})
        bench.start("controller", common)
        self.truth = bench.listen(OdometryMessage, "ground_truth/odom", keep=100000)
        self.status = bench.listen(DiagnosticStatus, "navigation_status", LATCHED)
        self.pictures, self.poses = bench.publisher(Image, "goal_image"), bench.publisher(PoseStamped, "goal_pose")
        bench.wait("context", lambda: int((bench.said("planner", "memory") or "0").split()[0]) >= 4, 300.0)

    def pose(self) -> np.ndarray:
        T = messages.transform_from_pose(self.truth[-1].pose.pose)
        return np.array(se3.xyyaw_from_transform(T))

    def state(self) -> str:
        values = self.status[-1].values if self.status else []
        return next((item.value for item in values if item.key == "state"), "")

    def send(self, publisher: Any, message: Any) -> tuple[str, float]:
        """Send a goal; return how it ended and after how many simulated seconds."""
        began_s = messages.seconds_from_stamp(self.truth[-1].header.stamp)
        del self.status[:]
        publisher.publish(message)
        self.bench.wait("start", lambda: self.state() == "ACTIVE")
        patience_s = 2.0 * self.args.time_limit / self.args.real_time_factor + 60.0
        self.bench.wait("end", lambda: self.state() in ("REACHED", "FAILED"), patience_s)
        return self.state(), messages.seconds_from_stamp(self.truth[-1].header.stamp) - began_s

    def explore(self) -> list[np.ndarray]:
        """Visit the rooms in turn by pose goals one metre apart; return true poses along the way."""
        visited = []
        for room in self.camera.world.rooms.numpy():
            centre = (float(room[0] + room[2]) / 2, float(room[1] + room[3]) / 2)
            way = self.map.plan((float(self.pose()[0]), float(self.pose()[1])), centre)
            if way is None:
                continue
            for here, there in itertools.pairwise(way):
                for point in along(here, there, 0.8):
                    goal = np.array([*point, np.arctan2(*(there - here)[::-1])])
                    local = se2.relative(self.start, goal)
                    self.send(self.poses, messages.pose_list(local[None], [0.0], "odom")[0])
                    visited.append(self.pose())
        return visited

    def reach(self, goal: np.ndarray, kind: str) -> dict[str, Any]:
        """Drive to the picture seen from a true pose."""
        self.camera.reset(goal)
        picture = messages.image_message(self.camera.observe()[0].rgb, 0.0, "camera")
        began, first = self.pose(), len(self.truth)
        hits = int(self.bench.told("simulator", "robot").get("collisions", 0))
        ended, seconds = self.send(self.pictures, picture)
        poses = [messages.transform_from_pose(message.pose.pose)[:2, 3] for message in self.truth[first:]]
        driven_m = float(np.hypot(*np.diff(np.array(poses), axis=0).T).sum()) if len(poses) > 1 else 0.0
        shortest = self.map.plan((began[0], began[1]), (goal[0], goal[1]))
        shortest_m = float("nan") if shortest is None else float(np.hypot(*np.diff(shortest, axis=0).T).sum())
        left = se2.relative(self.pose(), goal)
        near = bool(np.hypot(*left[:2]) <= REACHED_M and abs(left[2]) <= REACHED_RAD)
        time.sleep(1.5)
        return {
            "kind": kind,
            "ended": ended,
            "success": near,
            "left_m": float(np.hypot(*left[:2])),
            "left_rad": float(abs(left[2])),
            "time_s": seconds,
            "driven_over_shortest": driven_m / shortest_m if shortest_m > 0.1 else None,
            "collisions": int(self.bench.told("simulator", "robot").get("collisions", 0)) - hits,
        }

    def goal_in_view(self, rng: np.random.Generator) -> np.ndarray | None:
        for _ in range(100):
            offset = np.array([rng.uniform(0.6, 1.5), rng.uniform(-0.3, 0.3), rng.uniform(-0.4, 0.4)])
            goal = se2.compose(self.pose(), offset)
            way = self.map.plan((self.pose()[0], self.pose()[1]), (goal[0], goal[1]))
            if way is not None and np.hypot(*np.diff(way, axis=0).T).sum() < 1.1 * np.hypot(*offset[:2]):
                return np.array(goal)
        return None


def along(start: np.ndarray, end: np.ndarray, step_m: float) -> np.ndarray:
    """Return points (N, 2) from start to end, start excluded."""
    count = max(1, int(np.ceil(np.hypot(*(end - start)) / step_m)))
    return np.array(start + (end - start) * np.linspace(1.0 / count, 1.0, count)[:, None])


def resident_mb(bench: Bench) -> dict[str, float]:
    """Return the memory of each node process, MB (Linux)."""
    found = {}
    for process in bench.processes:
        text = Path(f"/proc/{process.popen.pid}/status").read_text()
        found[process.name] = next(int(line.split()[1]) / 1024 for line in text.splitlines() if "VmRSS" in line)
    return found


def run_world(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Explore, reach goals, and soak if asked for."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            drive = Drive(bench, seed, args)
            visited = drive.explore()
            goals, before_mb, began_s = [], resident_mb(bench), time.monotonic()
            while len(goals) < args.goals or time.monotonic() - began_s < 60.0 * args.soak:
                near = drive.goal_in_view(rng) if len(goals) % 2 == 0 else None
                goal = near if near is not None else visited[int(rng.integers(len(visited)))]
                goals.append(drive.reach(goal, "in view" if near is not None else "remembered"))
                print(json.dumps({"world": seed, **goals[-1]}), flush=True)
            entries = {name: {v.key: v.value for v in status.values} for name, status in bench.diagnostics.items()}
            growth = {name: now - before_mb[name] for name, now in resident_mb(bench).items()}
            return {"world": seed, "goals": goals, "growth_mb": growth, "diagnostics": entries}
        finally:
            bench.close()


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return success by kind of goal, and collisions."""
    goals = [goal for result in results for goal in result["goals"]]
    found: dict[str, Any] = {"collisions": sum(goal["collisions"] for goal in goals)}
    for kind in ("in view", "remembered"):
        mine = [goal for goal in goals if goal["kind"] == kind]
        if mine:
            found[kind] = {"n": len(mine), "success": float(np.mean([goal["success"] for goal in mine]))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="20003", help="seeds, comma-separated; 20000-20099 are for tests")
    parser.add_argument("--goals", type=int, default=4, help="goals per world")
    parser.add_argument("--soak", type=float, default=0.0, help="go on for so many minutes")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--time-limit", type=float, default=60.0, help="simulated seconds per goal")
    parser.add_argument("--real-time-factor", type=float, default=0.5)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    results = [run_world(int(seed), args) for seed in args.worlds.split(",")]
    import rclpy

    setting = {"rmw": rclpy.get_rmw_implementation_identifier(), "machine": platform.processor(), **vars(args)}
    document = {"setting": {key: str(value) for key, value in setting.items()}, "summary": summary(results)}
    print(json.dumps(document, indent=2))
    if args.out is not None:
        args.out.write_text(json.dumps({**document, "worlds": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
