"""A simulated robot is driven through test worlds, then drives to images itself; every node is a process of its own.

An operator drives it through all rooms, along the shortest ways, and turns it around in each. Then, for each goal, the
operator drives it to a start, and the robot gets an image. Half of the images were taken in view of the start, up to
1.5 m ahead; half at a place of the tour that is at least 3 m of way off and out of view. Starts and goals follow from
the world's seed alone, so that all kinds of memory get the same ones: ``come`` has the spatial expert and places,
``nwm`` the world model alone. Both keep away from the obstacles that the spatial memory node publishes.

Success: the robot says REACHED and stands within 0.5 m and 0.6 rad of where the image was taken. Also measured: the
true distance left, time, way driven over the shortest, collisions, rates and latencies from /diagnostics. ``--soak``
goes on with goals until so many minutes are over; memory and messages of the nodes are noted after every goal.

    benchmarks/ros_closed_loop.py --worlds 20003,20007 --goals 10 --memory come --out come.json
    benchmarks/ros_closed_loop.py --worlds 20003 --goals 2 --soak 30 --out soak.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import Twist  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from nav_msgs.msg import Odometry as OdometryMessage  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter as RclParameter  # noqa: E402
from ros_harness import Bench, resident_mb, setting  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from come_nav.cli.evaluate_flags import camera_size  # noqa: E402
from come_nav.core.errors import ConfigError  # noqa: E402
from come_nav.core.geometry import se2  # noqa: E402
from come_nav.ros import messages  # noqa: E402
from come_nav.ros.qos import LATCHED  # noqa: E402
from come_nav.sim.builtin import BuiltInSimulator, default_camera  # noqa: E402
from come_nav.sim.driving.grid_planner import GridPlanner  # noqa: E402
from come_nav.sim.robot import RobotSettings  # noqa: E402
from come_nav.sim.worlds import generate_world  # noqa: E402

REACHED_M, REACHED_RAD = 0.5, 0.6
KINDS = ("in view", "out of view")
FAR_M = 3.0
ALONE = {"use_places": False, "experts": {"use": [""]}}  # NWM without memories


class Course:
    """Where the operator drives in one world, and starts and goals; all of it follows from the seed."""

    def __init__(self, seed: int, width_px: int, height_px: int) -> None:
        camera = default_camera(width_px, height_px)
        self.camera = BuiltInSimulator.in_world(generate_world(seed), camera, seed=seed)
        self.world, self.start = self.camera.world, self.camera.pose_world_xyyaw.copy()
        self.map = GridPlanner(self.world, RobotSettings().radius_m)
        self.legs, here = [], self.start
        for room in self.world.rooms.numpy():
            way = self.map.plan((here[0], here[1]), (float(room[0] + room[2]) / 2, float(room[1] + room[3]) / 2))
            if way is not None and len(way) > 2:
                self.legs.append(way)
                here = way[-1]
        points = np.concatenate(self.legs)
        heading = np.concatenate([headings(leg) for leg in self.legs])
        self.tour = np.column_stack([points, heading])

    def goals(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield kinds, starts (3,) and goals (3,), of both kinds in turn, without end."""
        rng = np.random.default_rng(self.world.seed)
        for kind in itertools.cycle(KINDS):
            yield (kind, *self._draw(kind, rng))

    def way_m(self, start: np.ndarray, goal: np.ndarray) -> float:
        """Return the length of the shortest way, m; infinite where there is none."""
        way = self.map.plan((start[0], start[1]), (goal[0], goal[1]))
        return math.inf if way is None else float(np.hypot(*np.diff(way, axis=0).T).sum())

    def _draw(self, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        while True:
            start = self.tour[rng.integers(len(self.tour))]
            goal = self.tour[rng.integers(len(self.tour))]
            if kind == "in view":
                goal = se2.compose(start, rng.uniform([0.6, -0.3, -0.4], [1.5, 0.3, 0.4]))
            line = torch.from_numpy(np.linspace(start[:2], goal[:2], 50)).float()
            ahead = se2.relative(start, goal)
            seen = bool(self.world.free(line, 0.0).all()) and abs(math.atan2(ahead[1], ahead[0])) < 0.25 * math.pi
            far = self.way_m(start, goal) >= FAR_M
            if seen != (kind == "in view") or far == seen or not math.isfinite(self.way_m(start, goal)):
                continue
            if self.fits(start) and self.fits(goal):
                return start, goal

    def fits(self, pose: np.ndarray) -> bool:
        """Return whether the robot can stand there."""
        try:
            self.camera.reset(pose)
        except ConfigError:
            return False
        return True

    def image(self, pose: np.ndarray) -> Image:
        """Return what the camera sees from a true pose."""
        self.camera.reset(pose)
        return messages.image_message(self.camera.observe()[0].rgb, 0.0, "camera")


def headings(way: np.ndarray) -> np.ndarray:
    """Return the direction (N,) of a way (N, 2) at each of its points."""
    steps = np.diff(way, axis=0)
    directions = np.arctan2(steps[:, 1], steps[:, 0])
    return np.append(directions, directions[-1])


class Robot:
    """The nodes in one world, the truth, and an operator."""

    def __init__(self, bench: Bench, course: Course, args: argparse.Namespace) -> None:
        self.bench, self.course, self.args = bench, course, args
        shipped = yaml.safe_load((ROOT / "config" / "ros_sim.yaml").read_text())
        own = {name: shipped[f"/**/{name}"]["ros__parameters"] for name in ("spatial_memory", "planner", "controller")}
        planner = {**own["planner"], "device": args.device, "model": args.model, "time_limit_s": args.time_limit}
        if args.memory == "nwm":
            planner |= ALONE
        size = course.camera.renderer.intrinsics
        place = {
            "image_width": size.width,
            "image_height": size.height,
            "horizontal_fov_deg": math.degrees(size.horizontal_fov_rad),
            "world_seed": course.world.seed,
            "start_pose": [float(value) for value in course.start],
        }
        bench.start("simulator", {**place, "publish_clock": True, "real_time_factor": args.explore_factor})
        bench.start("spatial_memory", {**own["spatial_memory"], "use_sim_time": True})
        bench.start("planner", {**planner, "use_sim_time": True})
        bench.start("controller", {**own["controller"], "use_sim_time": True, "autostart": False})
        self.truth = bench.listen(OdometryMessage, "ground_truth/odom", keep=100000)
        self.status = bench.listen(DiagnosticStatus, "navigation_status", LATCHED)
        self.commands = bench.listen(Twist, "cmd_vel")
        self.images, self.hand = bench.publisher(Image, "goal_image"), bench.publisher(Twist, "cmd_vel")
        bench.wait("truth", lambda: self.truth)
        bench.wait("context", lambda: int((bench.said("planner", "memory") or "0").split()[0]) >= 4, 300.0)
        self._change("configure")

    def pose(self) -> np.ndarray:
        """Return the true pose (3,)."""
        return messages.xyyaw_from_pose(self.truth[-1].pose.pose)

    def now_s(self) -> float:
        """Return the simulated time."""
        return messages.seconds_from_stamp(self.truth[-1].header.stamp)

    def collisions(self) -> int:
        """Return how often the robot has touched something."""
        return int(self.bench.told("simulator", "robot").get("collisions", 0))

    def pace(self, factor: float) -> None:
        """Set simulated seconds per second."""
        request = SetParameters.Request(parameters=[RclParameter("real_time_factor", value=factor).to_parameter_msg()])
        self.bench.call(SetParameters, "simulator/set_parameters", request)

    def operate(self, way: np.ndarray) -> None:
        """Drive along a way (N, 2) by hand."""
        end_s, done = time.monotonic() + 300.0, 0
        while time.monotonic() < end_s and np.hypot(*(way[-1] - self.pose()[:2])) > 0.15:
            pose = self.pose()
            done += int(np.hypot(*(way[done : done + 8] - pose[:2]).T).argmin())
            beyond = np.flatnonzero(np.hypot(*(way[done:] - pose[:2]).T) > 0.35)
            aim = way[done + beyond[0]] if len(beyond) else way[-1]
            x, y = se2.transform_points(se2.inverse(pose), aim[None])[0]
            bearing = math.atan2(y, x)
            self._steer(0.5 * max(0.0, math.cos(bearing)) ** 2 if abs(bearing) < 1.0 else 0.0, 2.5 * bearing)
        self._steer(0.0, 0.0)

    def turn(self, angle_rad: float) -> None:
        """Turn on the spot by hand."""
        last, left = self.pose()[2], angle_rad
        end_s = time.monotonic() + 60.0
        while abs(left) > 0.05 and time.monotonic() < end_s:
            self._steer(0.0, max(-0.9, min(0.9, 2.0 * left)))
            now = self.pose()[2]
            left, last = left - se2.wrap_angle(now - last), now
        self._steer(0.0, 0.0)

    def explore(self) -> float:
        """Drive the whole course by hand; return how long that took, simulated s."""
        began_s = self.now_s()
        for leg in self.course.legs:
            self.operate(leg)
            self.turn(2.0 * math.pi)
        return self.now_s() - began_s

    def stand_at(self, pose: np.ndarray) -> None:
        """Drive to a pose by hand and stand still long enough for a context."""
        here = self.pose()
        way = self.course.map.plan((here[0], here[1]), (pose[0], pose[1]))
        if way is not None:
            self.operate(way)
        self.turn(float(se2.wrap_angle(pose[2] - self.pose()[2])))
        until_s = self.now_s() + 1.5
        self.bench.wait("standing", lambda: self.now_s() > until_s)

    def reach(self, kind: str, start: np.ndarray, goal: np.ndarray) -> dict[str, Any]:
        """Let the robot drive to the image seen from a true pose."""
        self.pace(self.args.explore_factor)
        self.stand_at(start)
        self.pace(self.args.real_time_factor)
        began, first, hits, began_s = self.pose(), len(self.truth), self.collisions(), time.monotonic()
        del self.status[:]
        self._change("activate")
        image = self.course.image(goal)
        del self.commands[:]
        asked_s = time.monotonic()
        self.images.publish(image)
        self.bench.wait("start", lambda: self._state() == "ACTIVE")
        patience_s = 2.0 * self.args.time_limit / self.args.real_time_factor + 120.0
        end_s, moves_s = time.monotonic() + patience_s, None
        while moves_s is None and self._state() not in ("REACHED", "FAILED") and time.monotonic() < end_s:
            if any(own.linear.x or own.linear.y or own.angular.z for own in list(self.commands)):
                moves_s = time.monotonic() - asked_s
            time.sleep(0.01)
        while self._state() not in ("REACHED", "FAILED") and time.monotonic() < end_s:
            time.sleep(0.05)  # one that never ends is a failure of that goal, not of the benchmark
        ended = self._state()
        driven = np.array([messages.xyyaw_from_pose(message.pose.pose) for message in self.truth[first:]])
        time.sleep(1.0)
        self._change("deactivate")
        left = se2.relative(self.pose(), goal)
        near = bool(np.hypot(*left[:2]) <= REACHED_M and abs(left[2]) <= REACHED_RAD)
        moved_s = [messages.seconds_from_stamp(m.header.stamp) for m in (self.truth[first], self.truth[-1])]
        shortest_m = self.course.way_m(began, goal)
        driven_m = float(np.hypot(*np.diff(driven[:, :2], axis=0).T).sum())
        return {
            "kind": kind,
            "ended": ended,
            "success": near and ended == "REACHED",
            "left_m": round(float(np.hypot(*left[:2])), 3),
            "left_rad": round(float(abs(left[2])), 3),
            "simulated_s": round(moved_s[1] - moved_s[0], 1),
            "real_s": round(time.monotonic() - began_s, 1),
            "goal_to_motion_s": None if moves_s is None else round(moves_s, 2),
            "shortest_m": round(shortest_m, 2),
            "driven_over_shortest": round(driven_m / shortest_m, 2),
            "collisions": self.collisions() - hits,
        }

    def _steer(self, v_mps: float, w_radps: float) -> None:
        self.hand.publish(messages.twist_message(v_mps, max(-1.2, min(1.2, w_radps))))
        time.sleep(0.05 / max(1.0, self.args.explore_factor))

    def _state(self) -> str:
        values = self.status[-1].values if self.status else []
        return next((item.value for item in values if item.key == "state"), "")

    def _change(self, label: str) -> None:
        request = ChangeState.Request()
        request.transition.label = label
        request.transition.id = {"configure": 1, "activate": 3, "deactivate": 4}[label]
        if not self.bench.call(ChangeState, "controller/change_state", request).success:
            raise RuntimeError(f"the controller refused to {label}")


def complaints(bench: Bench) -> dict[str, int]:
    """Return how many errors and warnings each node has logged."""
    logs = {process.name: process.log() for process in bench.processes}
    return {f"{name} {level}": log.count(f"[{level}]") for name, log in logs.items() for level in ("ERROR", "WARN")}


def run_world(seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Explore, reach goals, and soak if asked for."""
    course = Course(seed, *camera_size(args.camera))
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) if args.logs is None else args.logs / str(seed)
        logs.mkdir(parents=True, exist_ok=True)
        bench = Bench(logs)
        try:
            robot, began_s = Robot(bench, course, args), time.monotonic()
            result: dict[str, Any] = {"world": seed, "explored_s": round(robot.explore(), 1)}
            print(json.dumps({**result, "collisions": robot.collisions()}), flush=True)
            goals, course_of_time = [], []
            for number, (kind, start, goal) in enumerate(course.goals()):
                minutes = (time.monotonic() - began_s) / 60.0
                if number >= args.goals and minutes >= args.soak:
                    break
                goals.append(robot.reach(kind, start, goal))
                print(json.dumps({"world": seed, **goals[-1]}), flush=True)
                resident = {process.name: resident_mb(process.popen.pid) for process in bench.processes}
                course_of_time.append({"minutes": round(minutes, 1), "resident_mb": resident})
            asked, more = goals[: args.goals], goals[args.goals :]
            entries = {name: {v.key: v.value for v in status.values} for name, status in bench.diagnostics.items()}
            result |= {"goals": asked, "soak_goals": more, "over_time": course_of_time}
            return {**result, "log_entries": complaints(bench),
                    "minutes": (time.monotonic() - began_s) / 60.0, "diagnostics": entries}  # fmt: skip
        finally:
            bench.close()


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return success by kind of goal with a 95 % interval (Wilson), and medians of those that were reached."""
    goals = [goal for result in results for goal in result["goals"]]
    found: dict[str, Any] = {"collisions": sum(goal["collisions"] for goal in goals)}
    for kind in KINDS:
        mine = [goal for goal in goals if goal["kind"] == kind]
        reached = [goal for goal in mine if goal["success"]]
        if mine:
            share, z = len(reached) / len(mine), 1.96
            middle = share + z * z / (2 * len(mine))
            spread = z * math.sqrt(share * (1 - share) / len(mine) + z * z / (4 * len(mine) ** 2))
            ends = np.array([middle - spread, middle + spread]) / (1 + z * z / len(mine))
            interval = ends.clip(0.0, 1.0).round(2).tolist()  # rounding may end a hair outside
            found[kind] = {"n": len(mine), "success": share, "interval": interval}
            for name in ("left_m", "simulated_s", "driven_over_shortest"):
                found[kind][f"median {name} where reached"] = (
                    float(np.median([goal[name] for goal in reached])) if reached else None
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", default="20003", help="seeds, comma-separated; 20000-20099 are for tests")
    parser.add_argument("--goals", type=int, default=4, help="goals per world")
    parser.add_argument("--camera", default="320x240", help="WxH px; its square is 90 deg wide (default 320x240)")
    parser.add_argument("--memory", choices=("come", "nwm"), default="come")
    parser.add_argument("--soak", type=float, default=0.0, help="go on until so many minutes are over")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--time-limit", type=float, default=60.0, help="simulated seconds per goal")
    parser.add_argument("--real-time-factor", type=float, default=0.5, help="while the robot drives itself")
    parser.add_argument("--explore-factor", type=float, default=1.0, help="while the operator drives")
    parser.add_argument("--logs", type=Path, help="folder to keep what the nodes log; else it is lost")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    results = []
    for seed in args.worlds.split(","):
        results.append(run_world(int(seed), args))
        asked = {key: str(value) for key, value in vars(args).items() if key not in ("out", "logs")}
        document = {"setting": {**setting(args.device), **asked}, "summary": summary(results), "worlds": results}
        if args.out is not None:
            args.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["summary"], indent=2))


if __name__ == "__main__":
    main()
