"""Each ready launch file against a fake robot of its kind: what was launched, what came up, which goals were reached.

The robot lives in a built-in world: its camera publishes under the names, frames, encodings, QoS and rates of the real
one, its base obeys what comes on its own topic, with the type that it takes. It is led around once by hand
(a turn on the spot and 1.5 m ahead), then gets a pose ahead and an image of where it began.

    benchmarks/ros_fake_robots.py --out benchmarks/results/ros_fake_robots.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from ros_driver import RobotFacts  # noqa: E402
from ros_harness import Bench, setting  # noqa: E402
from ros_launch import Launch  # noqa: E402
from ros_robot import MovingRobot, simulator_of, stand_with_space_ahead  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from test_ros_robots import REALSENSE, RGB_ONLY, TURTLEBOT4, start, types_of  # noqa: E402

from come_nav.core.geometry import se2  # noqa: E402
from come_nav.ros import messages  # noqa: E402
from come_nav.ros.qos import LATCHED  # noqa: E402

ROBOTS = {
    "turtlebot4": replace(TURTLEBOT4, size=(320, 240), rate_hz=10.0, fov_deg=69.0),
    "realsense": replace(REALSENSE, size=(424, 240), rate_hz=15.0, odometry_rate_hz=30.0, fov_deg=69.0),
    "rgb_only": replace(RGB_ONLY, size=(640, 480), rate_hz=10.0, fov_deg=78.0),
}


class Trial:
    """One robot with what its launch file starts."""

    def __init__(self, name: str, bench: Bench, robot: MovingRobot, facts: RobotFacts, patience_s: float) -> None:
        self.name, self.bench, self.robot, self.facts = name, bench, robot, facts
        self.prefix, self.patience_s = f"{facts.space}/".lstrip("/"), patience_s
        self.status = bench.listen(DiagnosticStatus, f"{facts.space}/navigation_status", LATCHED)

    def state(self, key: str) -> str:
        """Return what the planner says of its mission."""
        return next((item.value for item in self.status[-1].values if item.key == key), "") if self.status else ""

    def lead(self) -> None:
        """Turn on the spot, and drive ahead, by hand."""
        for command, duration_s in (((0.0, 0.6), 2.0 * np.pi / 0.6), ((0.25, 0.0), 6.0)):
            self.robot.by_hand, began_s = command, self.robot.simulator.time_s
            while self.robot.simulator.time_s < began_s + duration_s:
                time.sleep(0.01)
        self.robot.by_hand = None
        time.sleep(1.0)

    def reach(self, kind: str, publisher: Any, message: Any, goal: np.ndarray) -> dict[str, Any]:
        """Give a goal; return how it ended."""
        del self.status[:]
        hits, began_s = self.robot.hits, time.monotonic()
        publisher.publish(message)
        ended = ("REACHED", "FAILED", "CANCELLED")
        while self.state("state") not in ended and time.monotonic() - began_s < self.patience_s:
            time.sleep(0.1)
        took_s, left = time.monotonic() - began_s, None
        time.sleep(1.0)
        left = se2.relative(self.robot.pose, goal)
        return {
            "goal": kind,
            "ended": " ".join(filter(None, (self.state("state"), self.state("code")))),
            "left_m": round(float(np.hypot(*left[:2])), 2),
            "left_rad": round(float(abs(left[2])), 2),
            "real_s": round(took_s, 1),
            "collisions": self.robot.hits - hits,
        }

    def up(self) -> dict[str, Any]:
        """Return what came up, and at what rates inputs come."""
        told = self.bench.told
        nodes = [name for name in ("spatial_memory", "planner", "controller") if told(f"{self.prefix}{name}", "camera")]
        nodes += ["controller"] if self.bench.said(f"{self.prefix}controller", "node") == "active" else []
        topic = f"{self.facts.space}/{self.facts.cmd_vel}"
        return {
            "active": sorted(set(nodes)),
            "camera": told(f"{self.prefix}planner", "camera").get("topic", ""),
            "camera_hz": round(float(told(f"{self.prefix}planner", "camera").get("rate_hz", 0.0)) / self.robot.pace, 1),
            "odometry_hz": round(
                float(told(f"{self.prefix}planner", "odometry").get("rate_hz", 0.0)) / self.robot.pace, 1
            ),
            "commands": f"{', '.join(sorted(types_of(self.bench, topic)))} on {topic}",
        }


def try_one(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Launch, lead, give both goals."""
    facts = ROBOTS[name]
    paced = {"use_sim_time": "true"} if args.pace else {}
    launch = Launch(name, namespace=facts.space.strip("/"), **paced)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        simulator = simulator_of(facts, args.world)
        stand_with_space_ahead(simulator, 2.5)
        robot = MovingRobot(bench, facts, simulator, clock=bool(args.pace))
        robot.pace = args.pace or 1.0
        try:
            start(bench, launch)
            trial = Trial(name, bench, robot, facts, args.patience)
            kept = f"{trial.prefix}planner"
            bench.wait("frames", lambda: int(bench.told(kept, "memory").get("frames kept", 0)) >= 4)
            image = messages.image_message(simulator.observe()[0].rgb, 0.0, "goal")
            place, odom = robot.pose, simulator.odometry().pose_xyyaw
            trial.lead()
            poses = bench.connected(bench.publisher(PoseStamped, f"{facts.space}/goal_pose"))
            ahead = messages.pose_list(np.array([[0.6, 0.0, 0.0]]), [0.0], "base_link")[0]
            goals = [trial.reach("pose", poses, ahead, se2.compose(robot.pose, np.array([0.6, 0.0, 0.0])))]
            back = se2.relative(simulator.odometry().pose_xyyaw, odom)
            images = bench.connected(bench.publisher(Image, f"{facts.space}/goal_image"))
            goals.append(trial.reach("image", images, image, place))
            goals[-1]["way_m"] = round(float(np.hypot(*back[:2])), 2)
            shown = {"namespace": facts.space, "image": facts.image, "depth": facts.depth, "size": facts.size,
                     "encoding": facts.encoding, "frame": facts.frame, "rate_hz": facts.rate_hz,
                     "qos": "best effort" if facts.sensor_qos else "reliable"}  # fmt: skip
            return {"launched": f"{name}.launch.py", "robot": shown, "came up": trial.up(), "goals": goals}
        finally:
            robot.close()
            bench.close()
            launch.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robots", default=",".join(ROBOTS))
    parser.add_argument("--world", type=int, default=20001, help="20000-20099 are for tests")
    parser.add_argument(
        "--pace",
        type=float,
        default=0.0,
        help="simulated seconds per second, with /clock, on a busy machine; 0 = real time",
    )
    parser.add_argument("--patience", type=float, default=150.0, help="real s per goal")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    rows = []
    for name in args.robots.split(","):
        rows.append(try_one(name, args))
        print(json.dumps(rows[-1]), flush=True)
    if args.out is not None:
        document = {
            "benchmark": "ros_fake_robots",
            "setting": {**setting(), "world": args.world, "pace": args.pace},
            "robots": rows,
        }
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
