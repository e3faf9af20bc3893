"""Live: each ready launch file against a fake robot that publishes as that one does, and drives to a goal.

What launch would start is read from the launch file (ros_launch.py) and started with the same parameters and remaps.
The robot is simulated: its camera sees a built-in world, and its base obeys the commands that come on its own topic.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from ros_driver import RobotFacts
from ros_harness import Bench
from ros_launch import Launch
from ros_robot import MovingRobot, simulator_of, stand_with_space_ahead

from come_nav.core.geometry import se2
from come_nav.ros import messages
from come_nav.ros.qos import LATCHED

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
WORLD = 10000  # a validation world
QUICK = {"diagnostics_rate_hz": 5.0}

TURTLEBOT4 = RobotFacts(
    space="/robot1",
    image="oakd/rgb/image_raw",
    depth="oakd/stereo/image_raw",
    camera_info="oakd/rgb/camera_info",
    encoding="bgr8",
    frame="oakd_rgb_camera_optical_frame",
    sensor_qos=True,
    stamped=True,
    height_m=0.244,
)
REALSENSE = RobotFacts(
    image="camera/camera/color/image_raw/compressed",
    depth="camera/camera/aligned_depth_to_color/image_raw/compressedDepth",
    camera_info="camera/camera/color/camera_info",
    cmd_vel="cmd_vel_nav",
)
RGB_ONLY = RobotFacts(image="image_raw", depth="", camera_info="camera_info", frame="camera", encoding="bgr8")
ROBOTS = {"turtlebot4": TURTLEBOT4, "realsense": REALSENSE, "rgb_only": RGB_ONLY}


def start(bench: Bench, launch: Launch) -> list[str]:
    """Start what a launch file would; return the executables."""
    for process in launch.started:
        words = [*process.words, "--ros-args"]
        words += [word for file in process.files for word in ("--params-file", file)]
        space = {"__ns": f"/{process.namespace.strip('/')}"} if process.namespace else {}
        bench.start(process.executable, {**process.parameters, **QUICK}, words, **space, **process.remaps)
    return [process.executable for process in launch.started]


def types_of(bench: Bench, topic: str) -> set[str]:
    """Return what types are published on a topic."""
    return {info.topic_type for info in bench.node.get_publishers_info_by_topic(topic)}


@pytest.mark.parametrize(
    ("name", "composition"),
    [("turtlebot4", "false"), ("realsense", "false"), ("rgb_only", "false"), ("turtlebot4", "true")],
)
def test_a_ready_launch_file_drives_its_robot_to_a_goal(tmp_path, name, composition):
    facts = ROBOTS[name]
    launch = Launch(name, namespace=facts.space.strip("/"), composition=composition)
    bench = Bench(tmp_path)
    simulator = simulator_of(facts, WORLD)
    stand_with_space_ahead(simulator, 1.5)
    robot = MovingRobot(bench, facts, simulator)
    try:
        executables = start(bench, launch)
        apart = ["spatial_memory", "planner", "controller"] if facts.depth else ["planner", "controller"]
        assert executables == (["come_nav_nodes"] if composition == "true" else apart)
        prefix = f"{facts.space}/".lstrip("/")
        bench.wait("frames", lambda: int(bench.told(f"{prefix}planner", "memory").get("frames kept", 0)) >= 4)
        if facts.depth:
            bench.wait("obstacles", lambda: int(bench.told(f"{prefix}planner", "obstacles").get("received", 0)) > 0)
        told = f"geometry_msgs/msg/{'TwistStamped' if facts.stamped else 'Twist'}"
        bench.wait("commands", lambda: told in types_of(bench, f"{facts.space}/{facts.cmd_vel}"))
        status = bench.listen(DiagnosticStatus, f"{facts.space}/navigation_status", LATCHED)
        goals = bench.connected(bench.publisher(PoseStamped, f"{facts.space}/goal_pose"))
        began = robot.pose
        goal = np.array([0.8, 0.0, 0.0])
        goals.publish(messages.pose_list(goal[None], [0.0], "odom")[0])

        def state() -> str:
            values = {item.key: item.value for item in status[-1].values} if status else {}
            return values.get("state", "")

        bench.wait("the goal's end", lambda: state() in ("REACHED", "FAILED"))
        assert state() == "REACHED", [item.value for item in status[-1].values]
        left = se2.relative(se2.relative(began, robot.pose), goal)
        assert np.hypot(*left[:2]) < 0.35
        assert robot.hits == 0
        bench.wait("the base's rest", lambda: bench.said(f"{prefix}controller", "control") in ("arrived", "no plan"))
        assert bench.said(f"{prefix}controller", "cmd_vel").startswith("geometry_msgs")
        assert all("Traceback" not in process.log() for process in bench.processes)
    finally:
        robot.close()
        bench.close()
        launch.close()
