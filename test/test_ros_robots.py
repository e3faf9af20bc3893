"""Live: each ready launch file against a fake robot that publishes as that one does: memory fills, the base is told.

What launch would start is read from the launch file and started with the same parameters and remaps.
"""

from __future__ import annotations

import runpy
import sys
import types
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
import yaml
from geometry_msgs.msg import Twist, TwistStamped
from ros_driver import Driver, RobotFacts
from ros_harness import Bench

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


class Anything(types.ModuleType):
    """Stands for a module of launch, which exists on a robot only."""

    def __getattr__(self, name: str) -> type:
        return type(name, (), {"__init__": lambda self, *args, **keywords: None})


def launch_file(name: str) -> dict:
    """Return the names that a launch file defines."""
    parts = ("actions", "conditions", "event_handlers", "substitutions", "launch_description_sources")
    names = ["launch", *(f"launch.{part}" for part in parts), "launch_ros", "launch_ros.actions"]
    with pytest.MonkeyPatch.context() as patch:
        for module in (*names, "ament_index_python.packages"):
            patch.setitem(sys.modules, module, Anything(module))
        return runpy.run_path(str(ROOT / "launch" / f"{name}.launch.py"))


OAKD = "oakd_rgb_camera_optical_frame"
TURTLEBOT4 = RobotFacts(
    "/robot1",
    "oakd/rgb/image_raw",
    "oakd/stereo/image_raw",
    "oakd/rgb/camera_info",
    "odom",
    "bgr8",
    "16UC1",
    OAKD,
    True,
)
REALSENSE = RobotFacts(
    "",
    "camera/camera/color/image_raw/compressed",
    "camera/camera/aligned_depth_to_color/image_raw/compressedDepth",
    "camera/camera/color/camera_info",
)
RGB_ONLY = RobotFacts("", "image_raw", "", "camera_info", frame="camera", encoding="bgr8")


def types_of(bench: Bench, topic: str) -> set[str]:
    """Return what types are published on a topic."""
    return {info.topic_type for info in bench.node.get_publishers_info_by_topic(topic)}


@pytest.mark.parametrize(
    ("name", "facts", "kind", "cmd_vel"),
    [
        ("turtlebot4", TURTLEBOT4, TwistStamped, "/robot1/cmd_vel"),
        ("realsense", REALSENSE, Twist, "/cmd_vel_nav"),
        ("rgb_only", RGB_ONLY, Twist, "/cmd_vel"),
    ],
)
def test_a_ready_launch_file_fits_its_robot(tmp_path, name, facts, kind, cmd_vel):
    given, topics = launch_file(name)["DEFAULTS"], launch_file("nav")["TOPICS"]
    remaps = {topic: given.get(argument, topic.lstrip("/")) for argument, (topic, _) in topics.items()}
    sections = yaml.safe_load((ROOT / "config" / f"ros_{name}.yaml").read_text())
    bench = Bench(tmp_path)
    driver = Driver(bench, facts)
    try:
        nodes = [node for node in ("spatial_memory", "planner", "controller") if given.get(node, "true") == "true"]
        for node in nodes:
            values = {
                key: value
                for section in ("/**", f"/**/{node}")
                for key, value in sections[section]["ros__parameters"].items()
            }
            space = {"__ns": facts.space} if facts.space else {}
            bench.start(node, {**values, "diagnostics_rate_hz": 5.0}, **space, **remaps)
        prefix = f"{facts.space}/".lstrip("/")
        # the one zero when it begins may come before a listener is known: the type of what is published tells as much
        told = f"geometry_msgs/msg/{kind.__name__}"
        bench.wait("commands", lambda: told in types_of(bench, cmd_vel))
        bench.wait("frames", lambda: int(bench.told(f"{prefix}planner", "memory").get("frames kept", 0)) >= 2)
        if "spatial_memory" in nodes:
            seen = f"{prefix}spatial_memory"
            bench.wait("a cloud", lambda: int(bench.told(seen, "memory").get("frames", 0)) >= 2)
            bench.wait("obstacles", lambda: bench.said(f"{prefix}planner", "clearance").startswith("points"))
        else:
            assert bench.said("planner", "clearance").startswith("points")  # none needed
        bench.wait("odometry", lambda: bench.said(f"{prefix}controller", "odometry") == "receiving")
        bench.wait("no other type", lambda: bench.said(f"{prefix}controller", "cmd_vel").startswith("geometry_msgs"))
        assert all("Traceback" not in process.log() for process in bench.processes)
    finally:
        driver.close()
        bench.close()
