"""An image of what the nodes publish, for machines without RViz: the map from above, and what the robot sees.

Listens in the present ROS domain until a search was published (or for --seconds), then draws the spatial memory, the
obstacles, the remembered way, the candidates with the colours of their markers, the chosen path and the robot; beside
it the camera, the goal's image if one comes meanwhile, and the imagined view.

    ROS_DOMAIN_ID=0 python benchmarks/ros_image.py --out robot.png
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import rclpy  # noqa: E402
from nav_msgs.msg import Odometry as OdometryMessage  # noqa: E402
from nav_msgs.msg import Path as PathMessage  # noqa: E402
from sensor_msgs.msg import Image, PointCloud2  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from come_nav.ros import messages  # noqa: E402
from come_nav.ros.inputs.image_bridge import colour_of  # noqa: E402
from come_nav.ros.qos import COMMAND, LATCHED, SENSOR  # noqa: E402

TOPICS = {
    "spatial_memory": (PointCloud2, LATCHED),
    "obstacles": (PointCloud2, LATCHED),
    "route": (PathMessage, LATCHED),
    "plan": (PathMessage, COMMAND),
    "candidates": (MarkerArray, COMMAND),
    "odom": (OdometryMessage, SENSOR),
    "camera/color/image_raw": (Image, SENSOR),
    "goal_image": (Image, COMMAND),
    "imagined_image": (Image, COMMAND),
}
IMAGES = {"camera/color/image_raw": "camera", "goal_image": "goal", "imagined_image": "imagined"}
BOUNDS_M = (0.1, 1.8)


def listen(seconds: float) -> dict[str, Any]:
    """Return the newest message of each topic, once a plan that is no stop came with everything else."""
    rclpy.init()
    node, newest = rclpy.create_node("image"), {}
    for name, (kind, qos) in TOPICS.items():
        node.create_subscription(kind, name, lambda message, name=name: newest.__setitem__(name, message), qos)
    end_s = time.monotonic() + seconds
    needed = ("spatial_memory", "odom", "camera/color/image_raw", "candidates")
    while time.monotonic() < end_s:
        rclpy.spin_once(node, timeout_sec=0.2)
        path = newest.get("plan")
        if path is not None and len(path.poses) > 2 and all(name in newest for name in needed):
            end_s = min(end_s, time.monotonic() + 1.0)  # images of the same search may still be on their way
    node.destroy_node()
    rclpy.shutdown()
    return newest


def draw(newest: dict[str, Any], out: Path) -> None:
    """Write the image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    images = [name for name in IMAGES if name in newest]
    grid = figure.add_gridspec(max(1, len(images)), 2, width_ratios=(3, 1))
    above = figure.add_subplot(grid[:, 0])
    _clouds(above, newest)
    _paths(above, newest)
    above.set(aspect="equal", xlabel="x in odom, m", ylabel="y in odom, m")
    above.legend(loc="upper right")
    for row, name in enumerate(images):
        view = figure.add_subplot(grid[row, 1])
        view.imshow(colour_of(newest[name]))
        view.set(title=IMAGES[name], xticks=[], yticks=[])
    figure.savefig(out, dpi=90)


def _clouds(above: Any, newest: dict[str, Any]) -> None:
    if "spatial_memory" in newest:
        message = newest["spatial_memory"]
        points = messages.points_from_cloud(message)
        rows = np.frombuffer(message.data, np.uint8).reshape(-1, message.point_step)
        field = {entry.name: entry.offset for entry in message.fields}.get("rgb")
        bgr = rows[:, field : field + 3] if field is not None else np.full((len(rows), 3), 120)
        inside = (points[:, 2] > BOUNDS_M[0]) & (points[:, 2] < BOUNDS_M[1])
        above.scatter(*points[inside, :2].T, c=bgr[inside, ::-1] / 255.0, s=2, label="spatial memory")
    if "obstacles" in newest:
        points = messages.points_from_cloud(newest["obstacles"])
        above.scatter(*points[:, :2].T, c="black", s=1, label="obstacles near")


def _paths(above: Any, newest: dict[str, Any]) -> None:
    for marker in newest.get("candidates", MarkerArray()).markers:
        ends = np.array([[point.x, point.y] for point in marker.points])
        if marker.type == Marker.LINE_LIST and len(ends):
            colours = [(c.r, c.g, c.b) for c in marker.colors[::2]]
            for (start, end), colour in zip(ends.reshape(-1, 2, 2), colours, strict=True):
                above.plot(*np.stack([start, end]).T, color=colour, linewidth=0.5)
    for name, style in (
        ("route", {"linestyle": "--", "color": "tab:blue"}),
        ("plan", {"color": "lime", "linewidth": 3}),
    ):
        poses = newest[name].poses if name in newest else []
        if poses:
            above.plot(*np.array([[p.pose.position.x, p.pose.position.y] for p in poses]).T, label=name, **style)
    if "odom" in newest:
        x, y, yaw = messages.xyyaw_from_pose(newest["odom"].pose.pose)
        above.plot(x, y, marker=(3, 0, np.degrees(yaw) - 90.0), markersize=16, color="crimson", label="robot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="wait at most this long")
    parser.add_argument("--out", type=Path, default=Path("robot.png"))
    args = parser.parse_args()
    newest = listen(args.seconds)
    if not newest:
        sys.exit("nothing was published; is ROS_DOMAIN_ID that of the robot?")
    draw(newest, args.out)
    print(f"{args.out}: {', '.join(sorted(newest))}")


if __name__ == "__main__":
    main()
