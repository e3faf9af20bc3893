"""A recorded drive through the nodes over DDS: what arrives, how long it takes, whether published ATE and RPE hold.

The bag plays at its own pace into spatial_memory and planner, each in a process of its own. Every few seconds a
image that the robot will see later becomes the goal. Each plan is evaluated twice: by the planner, from the odometry
that reached it, and here, from the bag itself with the function of `come-nav evaluate`; the figures must be equal.

    benchmarks/ros_replay.py                      the kitchen of the recorded data (COME_NAV_DATA or ../shared/data)
    benchmarks/ros_replay.py --bag my_bag --rate 0.5 --device cuda
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]
DEFAULT_SEARCH = {"initial_samples": 240, "samples": 40, "iterations": 5, "elites": 10}
NAMESPACE = "replayed"


def kitchen() -> Path | None:
    """Return the recorded bag where the data is, else None."""
    folders = [Path(os.environ["COME_NAV_DATA"])] if "COME_NAV_DATA" in os.environ else []
    candidates = [folder / "bags" / "kitchen" for folder in (*folders, ROOT.parent / "shared" / "data")]
    return next((path for path in candidates if path.exists()), None)


Errors = dict[str, float]


def paired(published: list[Errors], offline: dict[float, list[Errors]]) -> list[tuple[Errors, Errors]]:
    """Return each published evaluation with one offline evaluation of its stamp, the most alike first; each once.

    A goal that comes while the newest frame is still that of the plan before gives two plans of one stamp.
    """
    left, pairs = {stamp_s: list(found) for stamp_s, found in offline.items()}, []
    for own in published:
        same = left.get(round(own["plan_stamp_s"], 6))
        if same:
            nearest = min(same, key=lambda other: max(abs(own[name] - other[name]) for name in other))
            same.remove(nearest)
            pairs.append((own, nearest))
    return pairs


class Replay:
    """One bag, the nodes that it plays into, and what they published."""

    def __init__(self, bench: Any, bag: Path, planner: dict[str, Any], device: str = "cpu") -> None:
        from diagnostic_msgs.msg import DiagnosticStatus
        from nav_msgs.msg import Path as PathMessage
        from sensor_msgs.msg import Image

        from come_nav.data.opening import open_recording

        self.bench, self.bag = bench, bag
        self.recording = open_recording(bag, None)
        self.topics = self.recording.report.topics
        common = {"use_sim_time": True, "image_transport": self._transport(), "camera_xyz_rpy": self._extrinsics()}
        missions = {"max_failures": 10000, "time_limit_s": 86000.0, "max_sensor_age_s": 1e6, "use_obstacles": False}
        # Without memories no goal is looked for, so that plans keep pace with the bag.
        alone = {"goal_difference": 1e-6, "device": device, "planner": planner, "experts": {"use": [""]}}
        planning = {**common, **missions, **alone}
        bench.start("spatial_memory", common, __ns=f"/{NAMESPACE}")
        bench.start("planner", planning, __ns=f"/{NAMESPACE}")
        self.plans = bench.listen(PathMessage, f"/{NAMESPACE}/plan", keep=100000)
        self.evaluated = bench.listen(DiagnosticStatus, f"/{NAMESPACE}/plan_accuracy", keep=100000)
        self.goal = bench.publisher(Image, f"/{NAMESPACE}/goal_image")
        for node in ("planner", "spatial_memory"):
            bench.wait(node, lambda node=node: bench.said(f"{NAMESPACE}/{node}", "node") == "active")
        bench.wait("connection", lambda: self.goal.get_subscription_count() > 0)

    def run(self, rate: float, goal_period_s: float, ahead: int) -> dict[str, Any]:
        """Play the bag once, sending goals; return what was measured."""
        began_s, rows = time.monotonic(), self.recording.stamps_s
        self._play(rate)
        player, next_goal_s, goals = f"{NAMESPACE}/bag_player", 0.0, 0
        while self.bench.said(player, "playback") != "finished":
            now_s = self.told("planner", "mission").get("plan_stamp_s")
            if time.monotonic() >= next_goal_s and self.frames_kept() >= 4:
                last = float(now_s) if now_s else rows[0] + (time.monotonic() - began_s) * rate
                index = min(int(np.searchsorted(rows, last)) + ahead, len(rows) - 1)
                self.send(self.recording.frame(index).rgb)
                next_goal_s, goals = time.monotonic() + goal_period_s / rate, goals + 1
            time.sleep(0.1)
        count = -1
        while count != len(self.evaluated):  # the last search may still run
            count = len(self.evaluated)
            time.sleep(3.0)
        return {"goals": goals, **self.results()}

    def send(self, image: np.ndarray) -> None:
        """Make an image the goal."""
        from come_nav.ros import messages

        self.goal.publish(messages.image_message(image, 0.0, "camera"))

    def frames_kept(self) -> int:
        return int(self.told("planner", "memory").get("frames kept", 0))

    def told(self, node: str, entry: str) -> dict[str, str]:
        return self.bench.told(f"{NAMESPACE}/{node}", entry)

    def results(self) -> dict[str, Any]:
        """Return what arrived, how long it took, and both evaluations of the same plans."""
        found: dict[str, Any] = {"recorded": self._recorded(), "sent": int(self.told("bag_player", "playback")["sent"])}
        for node in ("planner", "spatial_memory"):
            inputs = {"images": self.told(node, "camera"), "odometry": self.told(node, "odometry")}
            found[f"{node}_received"] = {name: int(values["received"]) for name, values in inputs.items()}
            memory = self.told(node, "memory")
            found[f"{node}_frames"] = {key: int(value) for key, value in memory.items() if key.startswith("frames ")}
            found[f"{node}_dropped"] = {key: int(value) for key, value in memory.items() if "dropped" in key}
            found[f"{node}_image_to_memory_s"] = percentiles(memory, "image_to_memory")
            found[f"{node}_odometry_callback_s"] = percentiles(inputs["odometry"], "callback")
        plans = self.told("planner", "plans")
        found |= {"plan_s": percentiles(plans, "plan"), "goal_to_plan_s": percentiles(plans, "goal_to_plan")}
        return {**found, "accuracy": self.accuracy()}

    def accuracy(self) -> dict[str, Any]:
        """Return mean errors as published and as found in the bag, over the same plans, and the largest difference."""
        published = [{item.key: float(item.value) for item in status.values} for status in self.evaluated]
        pairs = paired(published, self.offline())
        if not pairs:
            return {"windows": 0}
        names = ("ate_m", "rpe_m", "final_m")
        worst = max(abs(own[name] - other[name]) for own, other in pairs for name in names)
        table = {name: [float(np.mean([pair[side][name] for pair in pairs])) for side in (0, 1)] for name in names}
        return {
            "windows": len(pairs),
            "judged_without_a_published_path": len(published) - len(pairs),
            **{f"{name}_published": values[0] for name, values in table.items()},
            **{f"{name}_offline": values[1] for name, values in table.items()},
            "largest_difference_m": worst,
        }

    def offline(self) -> dict[float, list[Errors]]:
        """Return the errors of the plans published at each stamp, from the poses in the bag."""
        from come_nav.core.geometry import se2, se3
        from come_nav.data.timing.interpolation import interpolate_poses
        from come_nav.evaluation.metrics.trajectory_metrics import plan_errors
        from come_nav.ros import messages

        rows, found = self.recording.stamps_s, defaultdict(list)
        for message in self.plans:
            if len(message.poses) < 2:
                continue
            plan = messages.plan_from_path(message, 1.0)
            stamps_s = plan.stamp_s + plan.dt_s * np.arange(len(plan.poses_xyyaw) + 1)
            if stamps_s[-1] > rows[-1]:
                continue
            driven = se3.xyyaw_from_transform(interpolate_poses(rows, self.recording.T_odom_base, stamps_s))
            errors = plan_errors(plan.poses_xyyaw, se2.relative(driven[:1], driven[1:]))
            own = {"ate_m": errors.ate_m, "rpe_m": errors.rpe_m, "final_m": errors.final_m}
            found[round(plan.stamp_s, 6)].append(own)
        return found

    def _play(self, rate: float) -> None:
        names = {self.topics["image"]: f"camera/color/image_raw{'/compressed' * (self._transport() == 'compressed')}"}
        names |= {self.topics["info"]: "camera/color/camera_info", self.topics["pose"]: "odom"}
        if "depth" in self.topics:
            names[self.topics["depth"]] = "camera/depth/image_raw"
        wanted = {key: f"/{NAMESPACE}/{value}" for key, value in names.items()}
        parameters = {"bag": str(self.bag), "rate": rate, "topics": list(names), "start_delay_s": 3.0}
        self.bench.start("bag_player", parameters, __ns=f"/{NAMESPACE}", **wanted)

    def _transport(self) -> str:
        return "compressed" if self.topics["image"].endswith("/compressed") else "raw"

    def _extrinsics(self) -> list[float]:
        """Return the camera body in base_link as the nodes' parameter takes it: x, y, z, roll, pitch, yaw."""
        from scipy.spatial.transform import Rotation

        from come_nav.ros.transforms import camera_pose

        T_base_camera = self.recording.T_base_camera
        if T_base_camera is None:
            return [0.0, 0.0, 0.5, 0.0, 0.0, 0.0]
        T_base_body = T_base_camera @ np.linalg.inv(camera_pose([0.0] * 6))
        angles = Rotation.from_matrix(T_base_body[:3, :3]).as_euler("xyz")
        return [float(value) for value in (*T_base_body[:3, 3], *angles)]

    def _recorded(self) -> dict[str, int]:
        roles = {"images": "image", "odometry": "pose", "depth": "depth"}
        return {
            key: self.recording.bag.topics[self.topics[role]].count
            for key, role in roles.items()
            if role in self.topics
        }


def percentiles(values: dict[str, str], name: str) -> dict[str, float]:
    """Return p50, p95 and p99 of one duration, s."""
    found = {p: values.get(f"{name}_{p}_s") for p in ("p50", "p95", "p99")}
    return {p: float(value) for p, value in found.items() if value is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bag", type=Path, default=kitchen())
    parser.add_argument("--rate", type=float, default=1.0, help="recorded seconds per second")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--goal-period", type=float, default=3.0, help="a new goal every so many recorded seconds")
    parser.add_argument("--ahead", type=int, default=30, help="goals are images so many images ahead")
    parser.add_argument("--iterations", type=int, default=DEFAULT_SEARCH["iterations"], help="of the search")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    try:
        import rclpy  # noqa: F401
    except ImportError:
        print("skipped: rclpy is not installed (pip install 'come_nav[ros]')")
        return
    if args.bag is None:
        print("skipped: no recorded bag here; set COME_NAV_DATA to the folder of the data, or give --bag")
        return
    from ros_harness import Bench, setting

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            planner = {**DEFAULT_SEARCH, "iterations": args.iterations}
            results = Replay(bench, args.bag, planner, args.device).run(args.rate, args.goal_period, args.ahead)
        finally:
            bench.close()
    run = {"bag": args.bag.name, "rate": args.rate, "iterations": args.iterations, **setting(args.device)}
    document = {"setting": run, **results}
    print(json.dumps(document, indent=2))
    if args.out is not None:
        args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
