"""A robot drives to goals for as long as asked while sensors fail and nodes are killed, with TF and a localiser.

The robot of test/ros_robot.py lives in a built-in world with drifting odometry; a localiser corrects map -> odom every
few seconds, and the nodes follow it. An operator drives it around once; then goals come, images and poses in ``map`` in
turn. At random times the camera falls silent, images come damaged, odometry falls silent, holds NaN or begins anew,
and a random node is killed with SIGKILL and started again two seconds later, as ros2 launch does. Measured:

- goals reached (the robot says REACHED and truly stands within 0.5 m, poses and images within 0.6 rad), collisions; a
  goal is given again to a planner that was killed, and up to three times where a sensor was away for too long;
- blind motion: what the base still does after a kill or a fault when the time is over within which the robot must
  stand (``allowed_s``), unless the node is back or the sensor works again;
- loss: places and points that were saved before a kill and that a node does not have after it;
- memory of each node over time, by age of its process.

tf2_msgs is needed; where it is not installed it is compiled, once, into the user's cache.

    benchmarks/ros_soak.py --minutes 30 --kills 20 --faults 40 --out benchmarks/results/ros_soak_faults.json
    benchmarks/ros_soak.py --minutes 40 --kills 100 --faults 0 --out benchmarks/results/ros_kills.json
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test"), str(ROOT / "benchmarks")]

from ros_distros import JAZZY, Environment  # noqa: E402

from come_nav.cli.evaluate_flags import camera_size  # noqa: E402
from come_nav.core.geometry import se2  # noqa: E402

NODES = ("spatial_memory", "planner", "controller")
RESPAWN_S = 2.0
GIVEN_AGAIN, TRIES = ("STALE_SENSOR", "NO_CONTEXT"), 3  # a sensor or who tells of obstacles was away for too long
STOOD_S = 0.4  # of standing still, after which a command comes from a node that was started again
REACHED_M, REACHED_RAD = 0.5, 0.6
SETTLE_S = 0.5  # until a base that is told to stand does, and what the trace resolves


def sections(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the parameters of each node: those that ship, memory on disk, and the localiser followed."""
    shipped = yaml.safe_load((ROOT / "config" / "ros_sim.yaml").read_text())
    found = {}
    for name in NODES:
        own = {**shipped["/**"]["ros__parameters"], **shipped[f"/**/{name}"]["ros__parameters"]}
        found[name] = {**own, "use_sim_time": True, "diagnostics_rate_hz": 2.0}
    common = {"map_odom": "follow"}
    found["spatial_memory"] |= {**common, "memory_folder": str(folder / "cloud"), "save_period_s": 2.0}
    found["planner"] |= {**common, "memory_folder": str(folder / "places"), "save_period_s": 5.0, "device": "cpu"}
    found["planner"]["experts"] = {"use": ["spatial"], "spatial_store": str(folder / "cloud")}
    found["planner"]["time_limit_s"] = args.time_limit
    return found


class Crew:
    """The nodes: killed, started again, and what became of them."""

    def __init__(self, bench: Any, parameters: dict[str, dict[str, Any]]) -> None:
        self.bench, self.parameters = bench, parameters
        self.processes, self.began_s = {}, {}
        self.kills: list[dict[str, Any]] = []
        self.unasked: list[str] = []  # ends that nobody asked for
        self._restart_s: dict[str, float] = {}
        for name in NODES:
            self._start(name)

    def _start(self, name: str) -> None:
        self.bench.diagnostics.pop(f"{name}: node", None)
        self.bench.diagnostics.pop(f"{name}: memory", None)
        self.processes[name] = self.bench.start(name, self.parameters[name])
        self.began_s[name] = time.monotonic()

    def active(self, name: str) -> bool:
        return bool(self.bench.said(name, "node") == "active" and self.processes[name].alive())

    def kill(self, name: str) -> dict[str, Any]:
        """Kill a node; return the entry about it, which grows."""
        remembered = self.remembered(name)
        process = self.processes[name]
        process.ended = True
        process.popen.send_signal(signal.SIGKILL)
        process.popen.wait()
        now_s = time.monotonic()
        entry = {"node": name, "at_s": now_s, "before": remembered, "back_s": None}
        self.kills.append(entry)
        self._restart_s[name] = now_s + RESPAWN_S
        return entry

    def remembered(self, name: str) -> int:
        """Return how many places or points a node says that it has."""
        key = {"planner": "places", "spatial_memory": "points"}.get(name)
        return int(self.bench.told(name, "memory").get(key, 0)) if key else 0

    def look(self) -> None:
        """Start again what has been dead for long enough; note who is back."""
        now_s = time.monotonic()
        for name, process in list(self.processes.items()):
            if not process.alive() and name not in self._restart_s:
                process.ended = True
                self.unasked.append(f"{name}: {process.log()[-500:]}")
                self._restart_s[name] = now_s + RESPAWN_S
            if now_s >= self._restart_s.get(name, math.inf):
                del self._restart_s[name]
                self._start(name)
        for entry in self.kills:
            name = entry["node"]
            if entry["back_s"] is None and name not in self._restart_s and self.active(name):
                if name != "controller" and not self.bench.told(name, "memory"):
                    continue
                entry["back_s"] = round(now_s - entry["at_s"], 2)
                entry["after"] = self.remembered(name)


class Mission:
    """An operator who gives goals, and an observer who knows the truth."""

    def __init__(self, bench: Any, crew: Crew, robot: Any, course: Any, args: argparse.Namespace) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import Image

        from come_nav.ros.qos import LATCHED

        self.bench, self.crew, self.robot, self.course, self.args = bench, crew, robot, course, args
        self.status = bench.listen(DiagnosticStatus, "navigation_status", LATCHED, keep=5)
        self.images, self.poses = bench.publisher(Image, "goal_image"), bench.publisher(PoseStamped, "goal_pose")
        self.goals: list[dict[str, Any]] = []

    # -- by hand -----------------------------------------------------------------------------------------------------

    def operate(self, way: np.ndarray, patience_s: float = 120.0) -> None:
        """Drive along a way (N, 2)."""
        end_s, done = time.monotonic() + patience_s, 0
        while time.monotonic() < end_s and np.hypot(*(way[-1] - self.robot.pose[:2])) > 0.15:
            pose = self.robot.pose
            done += int(np.hypot(*(way[done : done + 8] - pose[:2]).T).argmin())
            beyond = np.flatnonzero(np.hypot(*(way[done:] - pose[:2]).T) > 0.35)
            x, y = se2.transform_points(se2.inverse(pose), (way[done + beyond[0]] if len(beyond) else way[-1])[None])[0]
            bearing = math.atan2(y, x)
            self._steer(0.5 * max(0.0, math.cos(bearing)) ** 2 if abs(bearing) < 1.0 else 0.0, 2.5 * bearing)
        self.robot.by_hand = None

    def turn(self, angle_rad: float) -> None:
        """Turn on the spot."""
        last, left, end_s = self.robot.pose[2], angle_rad, time.monotonic() + 40.0
        while abs(left) > 0.05 and time.monotonic() < end_s:
            self._steer(0.0, 2.0 * left)
            now = self.robot.pose[2]
            left, last = left - se2.wrap_angle(now - last), now
        self.robot.by_hand = None

    def _steer(self, v_mps: float, w_radps: float) -> None:
        self.robot.by_hand = (v_mps, float(np.clip(w_radps, -0.9, 0.9)))
        time.sleep(0.05)
        self.crew.look()

    def explore(self, legs: int) -> None:
        """Drive the first legs of the course, and turn around at the end of each."""
        for leg in self.course.legs[:legs]:
            self.operate(leg)
            self.turn(2.0 * math.pi)

    # -- goals -------------------------------------------------------------------------------------------------------

    def state(self, key: str = "state") -> str:
        values = self.status[-1].values if self.status else []
        return next((item.value for item in values if item.key == key), "")

    def wait(self, seconds: float, condition: Any) -> bool:
        """Look after the nodes until a condition holds."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.crew.look()
            if condition():
                return True
            time.sleep(0.05)
        return False

    def draw(self, rng: np.random.Generator, tour: np.ndarray) -> np.ndarray | None:
        """Return a pose (3,) of the tour that is a drive away and where the robot fits."""
        for _ in range(200):
            goal = tour[rng.integers(len(tour))]
            if 1.0 <= self.course.way_m(self.robot.pose, goal) <= self.args.far and self.course.fits(goal):
                return goal
        return None

    def reach(self, kind: str, goal: np.ndarray) -> None:
        """Let the robot drive to a true pose (3,); give the goal again to a planner that was killed meanwhile."""
        began_s, hits, given, kills = time.monotonic(), self.robot.hits, 0, len(self.crew.kills)
        end_s = began_s + 2.0 * self.args.time_limit / self.robot.pace + 60.0
        faults_before, ended = dict(self.args.counted), "never taken"
        while time.monotonic() < end_s:
            if not self.wait(60.0, lambda: self.crew.active("planner") and self.told_frames() >= 4):
                continue
            planner = self.crew.began_s["planner"]
            del self.status[:]
            self.give(kind, goal)
            given += 1
            if not self.wait(20.0, lambda: self.state() in ("ACTIVE", "REACHED") or self.state("refused")):
                continue
            if self.state("refused"):
                ended = f"refused: {self.state('refused')}"
                time.sleep(1.0)
                continue
            self.wait(end_s - time.monotonic(), lambda before=planner: self.over(before))
            if self.crew.began_s["planner"] != planner or self.state() in ("IDLE", "CANCELLED"):
                ended = "lost with the planner"
                continue
            ended = " ".join(filter(None, (self.state(), self.state("code"))))
            if self.state("code") not in GIVEN_AGAIN or given >= TRIES:
                break
        self.wait(1.0, lambda: False)
        left = se2.relative(self.robot.pose, goal)
        near = bool(np.hypot(*left[:2]) <= REACHED_M and abs(left[2]) <= REACHED_RAD)
        since = {key: n - faults_before.get(key, 0) for key, n in self.args.counted.items()}
        self.goals.append({
            "kind": kind, "ended": ended, "success": near and ended == "REACHED", "given": given,
            "left_m": round(float(np.hypot(*left[:2])), 3), "left_rad": round(float(abs(left[2])), 3),
            "real_s": round(time.monotonic() - began_s, 1), "hits": self.robot.hits - hits,
            "kills": len(self.crew.kills) - kills, "told": self.status[-1].message if self.status else "",
            "faults": {key: n for key, n in since.items() if n},
        })  # fmt: skip
        print(json.dumps(self.goals[-1]), flush=True)

    def over(self, planner_began_s: float) -> bool:
        """Whether the mission ended, or the planner that had it."""
        ended = self.state() in ("REACHED", "FAILED", "CANCELLED", "IDLE")
        return ended or self.crew.began_s["planner"] != planner_began_s

    def told_frames(self) -> int:
        return int(self.bench.told("planner", "memory").get("frames kept", 0))

    def give(self, kind: str, goal: np.ndarray) -> None:
        from come_nav.ros import messages

        if kind == "image":
            self.images.publish(self.course.image(goal))
        else:
            self.poses.publish(messages.pose_list(goal[None], [0.0], "map")[0])


class Troubles(threading.Thread):
    """Kills nodes and lets sensors fail, at random times over the whole run; notes memory each ten seconds."""

    def __init__(self, mission: Mission, args: argparse.Namespace) -> None:
        super().__init__(daemon=True)
        self.mission, self.crew, self.robot = mission, mission.crew, mission.robot
        rng = np.random.default_rng(args.seed)
        self.running, self.faults, self.memory = True, [], []
        length_s, self.began_s = 60.0 * args.minutes, time.monotonic()
        from ros_robot import FAULTS

        kinds = [kind for kind in FAULTS if kind not in args.without.split(",")]
        due = [(at, "kill") for at in rng.uniform(0.0, length_s, args.kills)]
        due += [(at, str(rng.choice(kinds))) for at in rng.uniform(0.0, length_s, args.faults)]
        self.due, self.rng, self.counted = sorted(due), rng, args.counted

    def run(self) -> None:
        next_note_s = 0.0
        while self.running:
            passed_s = time.monotonic() - self.began_s
            if passed_s >= next_note_s:
                next_note_s = passed_s + 10.0
                self._note(passed_s)
            while self.due and passed_s >= self.due[0][0]:
                if not self._cause(self.due[0][1]):
                    break
                self.due.pop(0)
            time.sleep(0.05)

    def _cause(self, what: str) -> bool:
        """Cause one trouble; return whether it could be: only a node that works is killed."""
        if what == "kill":
            alive = [name for name in NODES if self.crew.active(name)]
            if len(alive) < len(NODES):
                return False
            self.crew.kill(str(self.rng.choice(alive)))
            return True
        duration_s = float(self.rng.uniform(0.5, 6.0))
        self.faults.append({"fault": what, "at_s": time.monotonic(), "duration_s": round(duration_s, 2)})
        self.counted[what] = self.counted.get(what, 0) + 1
        self.robot.fail(what, duration_s)
        return True

    def _note(self, passed_s: float) -> None:
        from ros_harness import resident_mb

        for name, process in list(self.crew.processes.items()):
            if process.alive():
                try:
                    mb = resident_mb(process.popen.pid)
                except (OSError, StopIteration):
                    continue
                age_s = time.monotonic() - self.crew.began_s[name]
                self.memory.append((round(passed_s, 1), name, round(age_s, 1), round(mb, 1)))


def went_on(trace: np.ndarray, at_s: float, until_s: float) -> tuple[bool, float, float]:
    """Return whether the base was told to move at a time, for how long it still was, and the way of it, s and m.

    Args:
        trace: (N, 6) real time, x, y, yaw, v, w.
        at_s, until_s: the time in between is looked at, up to the first ``STOOD_S`` of standing still.
    """
    chosen = trace[(trace[:, 0] >= at_s - 0.3) & (trace[:, 0] <= until_s)]
    told_s = chosen[np.abs(chosen[:, 4:]).max(axis=1) > 1e-6, 0]
    moving = bool((told_s < at_s).any())
    last_s = at_s
    for stamp_s in told_s[told_s >= at_s]:
        if stamp_s - last_s > STOOD_S:
            break
        last_s = stamp_s
    way = chosen[(chosen[:, 0] >= at_s) & (chosen[:, 0] <= last_s), 1:3]
    return moving, float(last_s - at_s), float(np.hypot(*np.diff(way, axis=0).T).sum()) if len(way) > 1 else 0.0


def judged(crew: Crew, robot: Any, allowed: dict[str, float]) -> list[dict[str, Any]]:
    """Return for each kill how long the base went on while the node was dead, and what was lost."""
    trace, found = np.array(robot.trace), []
    for entry in crew.kills:
        back_s = entry["back_s"]
        until_s = entry["at_s"] + (back_s if back_s is not None else 60.0)
        moving, went_on_s, way_m = went_on(trace, entry["at_s"], until_s)
        limit_s = allowed[entry["node"]]
        row = {"node": entry["node"], "moving": moving, "went_on_s": round(went_on_s, 2), "way_m": round(way_m, 3),
               "limit_s": limit_s, "blind": went_on_s > limit_s, "back_s": back_s}  # fmt: skip
        if entry["node"] != "controller":
            row |= {"before": entry["before"], "after": entry.get("after")}
        found.append(row)
    return found


def summary(mission: Mission, troubles: Troubles, kills: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the run is judged on."""
    goals, n = mission.goals, len(mission.goals)
    share, z = (sum(goal["success"] for goal in goals) / n if n else math.nan), 1.96
    if n:
        middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        interval = np.clip(np.array([middle - spread, middle + spread]) / (1 + z * z / n), 0, 1).round(2).tolist()
    result: dict[str, Any] = {"goals": n, "success": round(share, 3), "interval": interval if n else []}
    result["ended"] = {key: sum(goal["ended"] == key for goal in goals) for key in sorted({g["ended"] for g in goals})}
    result |= {"collisions": mission.robot.hits, "faults": dict(mission.args.counted)}
    result["kills"] = {}
    for name in NODES:
        own = [row for row in kills if row["node"] == name]
        moving = [row["went_on_s"] for row in own if row["moving"]]
        lost = [max(0, row["before"] - row["after"]) for row in own if row.get("after") is not None]
        result["kills"][name] = {
            "n": len(own), "while moving": len(moving), "longest went_on_s": max(moving, default=0.0),
            "blind": sum(row["blind"] for row in own), "back": sum(row["back_s"] is not None for row in own),
            "longest back_s": max((row["back_s"] for row in own if row["back_s"] is not None), default=None),
            "most lost": max(lost, default=0), "of": max((row["before"] for row in own if "before" in row), default=0),
        }  # fmt: skip
    result["memory_mb"] = memory_of(troubles.memory)
    return result


def memory_of(notes: list[tuple[float, str, float, float]]) -> dict[str, dict[str, Any]]:
    """Return the largest memory of each node in each third of the run, of processes at least 60 s old."""
    found: dict[str, dict[str, Any]] = {}
    end_s = max((note[0] for note in notes), default=1.0)
    for name in NODES:
        own = [note for note in notes if note[1] == name and note[2] >= 60.0]
        thirds = [[mb for at, _, _, mb in own if third / 3 <= at / end_s <= (third + 1) / 3] for third in range(3)]
        found[name] = {"largest by third": [max(third, default=None) for third in thirds]}
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--world", type=int, default=20003, help="20000-20099 are for tests")
    made.add_argument("--camera", default="320x240", help="WxH px; its square is 90 deg wide (default 320x240)")
    made.add_argument("--minutes", type=float, default=30.0, help="of goals, after the exploration")
    made.add_argument("--kills", type=int, default=20)
    made.add_argument("--faults", type=int, default=40)
    made.add_argument("--without", default="", help="faults that are left out, comma-separated")
    made.add_argument("--seed", type=int, default=0, help="of troubles and goals")
    made.add_argument("--legs", type=int, default=3, help="legs of the course that are explored")
    made.add_argument("--far", type=float, default=8.0, help="longest way to a goal, m")
    made.add_argument("--drift", type=float, default=2.0, help="errors of odometry, percent")
    made.add_argument("--correct-every", type=float, default=10.0, help="the localiser corrects so often, simulated s")
    made.add_argument("--pace", type=float, default=0.5, help="simulated seconds per second")
    made.add_argument("--time-limit", type=float, default=60.0, help="simulated seconds per goal")
    made.add_argument("--logs", type=Path, help="folder to keep what the nodes log")
    made.add_argument("--out", type=Path, help="JSON file to write")
    return made


def allowed_s(args: argparse.Namespace) -> dict[str, float]:
    """Return after how many real seconds the base must have been told nothing but to stand, by node that is dead."""
    plans_s = 2.0  # a search that began before, on a busy machine
    return {
        "controller": 0.5 + SETTLE_S,  # the base's own time-out
        "planner": 5.0 + SETTLE_S,  # max_silence_s
        "spatial_memory": 2.0 / args.pace + plans_s + SETTLE_S,  # max_obstacle_age_s
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Explore, then goals and troubles."""
    from ros_closed_loop import Course
    from ros_driver import RobotFacts
    from ros_harness import Bench, setting
    from ros_robot import MovingRobot, simulator_of

    size = camera_size(args.camera)
    course, args.counted = Course(args.world, *size), {}
    fov_deg = math.degrees(course.camera.renderer.intrinsics.horizontal_fov_rad)
    with tempfile.TemporaryDirectory() as made:
        folder = args.logs or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        facts = RobotFacts(rate_hz=8.0, depth_encoding="32FC1", size=size, fov_deg=fov_deg)
        simulator = simulator_of(facts, args.world, args.drift)
        simulator.reset(course.start)
        bench = Bench(folder)
        robot = MovingRobot(bench, facts, simulator, clock=True, correct_every_s=args.correct_every)
        crew = Crew(bench, sections(args, Path(made)))
        troubles = None
        try:
            mission = Mission(bench, crew, robot, course, args)
            bench.wait("context", lambda: mission.told_frames() >= 4, 300.0)
            mission.explore(args.legs)
            print(json.dumps({"explored_s": round(simulator.time_s, 1), "collisions": robot.hits}), flush=True)
            robot.hits, robot.pace = 0, args.pace
            troubles = Troubles(mission, args)
            troubles.start()
            rng = np.random.default_rng(args.seed)
            seen = sum(len(leg) for leg in course.legs[: args.legs])
            while time.monotonic() - troubles.began_s < 60.0 * args.minutes:
                goal = mission.draw(rng, course.tour[:seen])
                if goal is not None:
                    mission.reach(("image", "pose")[len(mission.goals) % 2], goal)
                failed = [not entry["success"] for entry in mission.goals[-2:]]
                if goal is None or (len(failed) == 2 and all(failed)):
                    rescue(mission, rng, course.tour[:seen])
            troubles.running = False
            mission.wait(60.0, lambda: all(entry["back_s"] is not None for entry in crew.kills))
            kills = judged(crew, robot, allowed_s(args))
            asked = {key: str(value) for key, value in vars(args).items() if key not in ("out", "logs", "counted")}
            log = {p.name: p.log() for p in bench.processes}
            return {
                "benchmark": "ros_soak", "setting": {**setting(), **asked},
                "summary": summary(mission, troubles, kills),
                "unasked_ends": crew.unasked, "tracebacks": [name for name, text in log.items() if "Traceback" in text],
                "goals": mission.goals, "kills": kills,
                "faults": [{**row, "at_s": round(row["at_s"] - troubles.began_s, 1)} for row in troubles.faults],
                "memory": troubles.memory[:: max(1, len(troubles.memory) // 300)],
            }  # fmt: skip
        finally:
            if troubles is not None:
                troubles.running = False
            robot.close()
            bench.close()


def rescue(mission: Mission, rng: np.random.Generator, tour: np.ndarray) -> None:
    """Drive by hand to a place of the tour, as somebody would who finds the robot stuck."""
    here, target = mission.robot.pose, tour[rng.integers(len(tour))]
    way = mission.course.map.plan((here[0], here[1]), (target[0], target[1]))
    mission.args.counted["rescued by hand"] = mission.args.counted.get("rescued by hand", 0) + 1
    if way is not None:
        mission.operate(way)


def main() -> None:
    import importlib.util

    args = parser().parse_args()
    if importlib.util.find_spec("tf2_msgs") is None:
        environment = Environment(JAZZY)
        environment.prepare()
        environment.build_interfaces(("tf2_msgs", "nav2_msgs"))
        environment.replace_this_process([__file__, *sys.argv[1:]])
    document = run(args)
    if args.out is not None:
        args.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["summary"], indent=1))


if __name__ == "__main__":
    main()
