"""Makes docs/images/recording.png: a drive to an image, recorded for Rerun, and what the recording holds at one moment.

A simulated robot is led along a way in a test world, then drives to an image by the Navigator alone. Everything goes
to recording.rrd, which the Rerun viewer opens (``pip install 'come_nav[rerun]'``, then ``rerun recording.rrd``); the
same calls are drawn here by matplotlib, since the viewer needs a screen.

python docs/make/rerun_image.py --rrd /tmp/recording.rrd
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.config import load_config
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2
from come_nav.evaluation.navigation_recorder import NavigationRecorder
from come_nav.navigation.goals.step import GoalRequest
from come_nav.navigation.loading import load_stack
from come_nav.navigation.navigator import Navigator
from come_nav.navigation.settings import NavigatorSettings
from come_nav.planning.follower import PathFollower
from come_nav.sim.builtin import BuiltInSimulator, default_camera
from come_nav.sim.driving.grid_planner import GridPlanner
from come_nav.sim.worlds import generate_world
from come_nav.viz.candidates import cost_colours, spread
from come_nav.viz.rerun_recording import RerunRecording

ROOT = Path(__file__).resolve().parents[2]
WORLD, STEP_S, PLAN_S = 20003, 0.05, 0.5
SETTINGS = ("model=tiny", "device=cpu", "experts.use=[spatial]", "show_imagined=true", "spatial.max_range_m=6.0")
MOST = 60


class Kept(RerunRecording):
    """A recording that also keeps the newest of each kind, to be drawn."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.newest: dict[str, Any] = {}
        self.driven: list[NDArray[np.float64]] = []
        self.weights: list[tuple[float, dict[str, float]]] = []

    def frame(self, frame: Any, T_odom_base: NDArray[np.float64]) -> None:
        super().frame(frame, T_odom_base)
        self.newest["camera"] = frame.rgb
        self.driven.append(T_odom_base[:2, 3].copy())

    def cloud(self, stamp_s: float, points_odom_xyz: Any, rgb: Any) -> None:
        super().cloud(stamp_s, points_odom_xyz, rgb)
        self.newest["cloud"] = points_odom_xyz, rgb

    def plan(self, plan: Any, way_xy: Any, target: Any, most: int = 100) -> None:
        super().plan(plan, way_xy, target, most)
        if plan.trace is not None and len(plan.poses_xyyaw) and (way_xy is not None or "plan" not in self.newest):
            self.newest["plan"] = plan, way_xy, target

    def imagined(self, stamp_s: float, imagined_rgb: Any, came_rgb: Any) -> None:
        super().imagined(stamp_s, imagined_rgb, came_rgb)
        self.newest["imagined"] = imagined_rgb, came_rgb

    def exponents(self, stamp_s: float, exponents: Any) -> None:
        super().exponents(stamp_s, exponents)
        self.weights.append((stamp_s, dict(exponents)))

    def registered(self, stamp_s: float, images: Any, pixels: Any) -> None:
        super().registered(stamp_s, images, pixels)
        if len(pixels[0]) >= len(self.newest.get("registered", (None, ([],)))[1][0]):
            self.newest["registered"] = images, pixels


def drive(recording: Kept) -> str:
    """Lead the robot, then let it drive to an image of the way's start; return how that ended."""
    simulator = BuiltInSimulator.in_world(generate_world(WORLD), default_camera(), seed=WORLD)
    navigator = Navigator(load_stack(load_config(None, list(SETTINGS))), NavigatorSettings())
    recorder = NavigationRecorder(navigator, recording)
    start = simulator.pose_world_xyyaw
    rooms = simulator.world.rooms.numpy()
    goal_image = simulator.observe()[0].rgb
    planner = GridPlanner(simulator.world, simulator.config.radius_m)
    ways = [planner.plan(tuple(start[:2]), ((r[0] + r[2]) / 2, (r[1] + r[3]) / 2)) for r in rooms]
    way = min((own for own in ways if own is not None and len(own) > 40), key=len)

    def look() -> None:
        frame, odometry = simulator.observe()
        navigator.observe(frame, odometry)
        recorder.observe(frame, odometry)
        space = navigator.stack.episode.space
        if space is not None and len(space.cloud):
            points = space.cloud.points_near(odometry.pose_xyyaw, 5.0, (0.1, 1.2), 2.0)
            planar = se2.transform_points(odometry.pose_xyyaw, points[:, :2].astype(float))
            navigator.obstacles.see(np.column_stack([planar, points[:, 2]]), frame.stamp_s)

    lead(simulator, way, look)
    turn(simulator, look)
    navigator.begin(GoalRequest(image_rgb=goal_image, camera=default_camera()))
    follower, ticks = PathFollower(), 0
    while navigator.mission.active and ticks * STEP_S < 60.0:
        if ticks % round(0.25 / STEP_S) == 0:
            look()
        if ticks % round(PLAN_S / STEP_S) == 0:
            step = navigator.step(simulator.time_s, simulator.odometry().pose_xyyaw)
            recorder.show(step)
            if step.drive is not None:
                follower.set_plan(step.drive)
        v, _, w = follower.command(simulator.time_s, simulator.odometry().pose_xyyaw)
        simulator.step(v, w, STEP_S)
        ticks += 1
    left = se2.relative(simulator.pose_world_xyyaw, start)
    recorder.close()
    return f"{navigator.mission.state.value}, {np.hypot(*left[:2]):.2f} m left"


def lead(simulator: BuiltInSimulator, way: NDArray[np.float64], look: Any) -> None:
    """Drive along a way (N, 2), looking four times a second."""
    for point in way[:: max(1, len(way) // 40)]:
        for tick in range(100):
            x, y = se2.transform_points(se2.inverse(simulator.pose_world_xyyaw), point[None])[0]
            if np.hypot(x, y) < 0.2:
                break
            bearing = float(np.arctan2(y, x))
            simulator.step(0.4 if abs(bearing) < 0.6 else 0.0, float(np.clip(2.0 * bearing, -1.0, 1.0)), STEP_S)
            if tick % 5 == 0:
                look()


def turn(simulator: BuiltInSimulator, look: Any) -> None:
    """Turn around once."""
    for tick in range(round(2.0 * np.pi / 0.8 / STEP_S)):
        simulator.step(0.0, 0.8, STEP_S)
        if tick % 5 == 0:
            look()


def draw(recording: Kept, out: Path) -> None:
    """Write the image."""
    from matplotlib.figure import Figure

    newest = recording.newest
    figure = Figure(figsize=(14, 6.6), layout="constrained")
    above = figure.add_gridspec(3, 4, width_ratios=[1.3, 1.3, 1, 1])
    view = figure.add_subplot(above[:, :2])
    points, rgb = newest["cloud"]
    shown = (points[:, 2] > 0.05) & (points[:, 2] < 1.8)
    view.scatter(points[shown, 0], points[shown, 1], s=1, c=rgb[shown] / 255.0)
    plan, way_xy, target = newest["plan"]
    poses = np.concatenate([own.poses_xyyaw.cpu().numpy() for own in plan.trace.iterations])
    costs = np.concatenate([own.costs.cpu().numpy() for own in plan.trace.iterations])
    chosen = spread(costs, MOST)
    for pose, colour in zip(poses[chosen], cost_colours(costs[chosen]), strict=True):
        ends = se2.compose(plan.start_odom_xyyaw[None], np.vstack([np.zeros((1, 3)), pose]))
        view.plot(ends[:, 0], ends[:, 1], color=colour, lw=0.8, alpha=0.7)
    ends = np.vstack([plan.start_odom_xyyaw[None], plan.poses_odom_xyyaw()])
    view.plot(ends[:, 0], ends[:, 1], color="#0072B2", lw=3, label="plan")
    driven = np.array(recording.driven)
    view.plot(driven[:, 0], driven[:, 1], color="0.5", lw=1, label="driven")
    if way_xy is not None and len(way_xy):
        view.plot(way_xy[:, 0], way_xy[:, 1], color="#E69F00", lw=2, ls="--", label="route")
    if target is not None and target.pose_odom_xyyaw is not None:
        x, y, yaw = target.pose_odom_xyyaw
        view.arrow(x, y, 0.4 * np.cos(yaw), 0.4 * np.sin(yaw), color="#D55E00", width=0.05)
    view.set_aspect("equal")
    low, high = driven.min(axis=0) - 2.2, driven.max(axis=0) + 2.2
    view.set_xlim(low[0], high[0])
    view.set_ylim(low[1], high[1])
    view.legend(loc="lower left")
    view.set_title("world: memory, candidates by cost (yellow cheap), plan, route")
    titles = ("camera", "imagined: the end of a plan", "what came there")
    images = (newest["camera"], *newest.get("imagined", (np.zeros((2, 2, 3), np.uint8),) * 2))
    for at, title, image in zip((above[0, 2], above[1, 2], above[1, 3]), titles, images, strict=True):
        panel = figure.add_subplot(at)
        panel.imshow(image)
        panel.set_title(title, fontsize=10)
        panel.axis("off")
    bars = figure.add_subplot(above[0, 3])
    weights = recording.weights[-1][1]
    bars.bar(list(weights), list(weights.values()), color="#0072B2")
    bars.set_title("exponents of the experts", fontsize=10)
    if "registered" in newest:
        (a, b), (left, right) = newest["registered"]
        panel = figure.add_subplot(above[2, 2:])
        panel.imshow(np.concatenate([a, b], axis=1))
        for p, q in zip(left, right, strict=True):
            panel.plot([p[0], q[0] + a.shape[1]], [p[1], q[1]], color="#56B4E9", lw=0.6)
        panel.set_title(f"registered: {len(left)} features of the newest frame and the goal's image", fontsize=10)
        panel.axis("off")
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=90, format="png")


def main() -> None:
    """Drive, record, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rrd", type=Path, help="where to keep the recording; else it is lost")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "recording.png")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        recording = Kept(args.rrd or Path(made) / "recording.rrd")
        print(drive(recording))
    draw(recording, args.out)


if __name__ == "__main__":
    main()
