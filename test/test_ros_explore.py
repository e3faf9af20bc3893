"""Live: a robot that is told to explore drives without a goal, until it is told to stop."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry as OdometryMessage
from ros_harness import IDEAL_64, SMALL_SEARCH, WORLD, Bench
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from come_nav.ros import messages
from come_nav.ros.qos import LATCHED

pytestmark = pytest.mark.slow
FEW = {"pose_search": {"samples": 20, "initial_samples": 60, "iterations": 2, "elites": 6}}


def value(status: DiagnosticStatus, key: str) -> str:
    return next((item.value for item in status.values if item.key == key), "")


def test_a_robot_explores_until_it_is_told_to_stop(tmp_path):
    bench = Bench(tmp_path)
    try:
        bench.start("simulator", {**IDEAL_64, "world_seed": WORLD, "publish_clock": True})
        bench.start("spatial_memory", {"use_sim_time": True})
        planner = {**SMALL_SEARCH, **FEW, "use_sim_time": True, "max_obstacle_age_s": 30.0, "explore": False}
        bench.start("planner", {**planner, "time_limit_s": 1.0})
        bench.start("controller", {"use_sim_time": True})
        truth, commands = bench.listen(OdometryMessage, "ground_truth/odom"), bench.listen(Twist, "cmd_vel")
        status = bench.listen(DiagnosticStatus, "navigation_status", LATCHED)
        bench.wait_for_context()
        bench.wait("the true pose", lambda: truth)

        def position() -> np.ndarray:
            return messages.xyyaw_from_pose(truth[-1].pose.pose)[:2]

        start = position()
        assert bench.call(Trigger, "explore").success
        bench.wait("exploring", lambda: status.newest(lambda last: last.message == "exploring"))
        assert value(status[-1], "state") == "ACTIVE"
        bench.wait("driving", lambda: np.hypot(*(position() - start)) > 0.7)  # longer than time_limit_s
        assert value(status[-1], "state") == "ACTIVE"
        assert bench.call(Trigger, "cancel_goal").success
        bench.wait("the end", lambda: status.newest(lambda last: value(last, "state") == "CANCELLED"))
        bench.wait("standing", lambda: commands.newest(lambda last: not last.linear.x and not last.angular.z))
        del status[:]
        bench.connected(bench.publisher(Bool, "e_stop")).publish(Bool(data=True))
        bench.wait("the e-stop", lambda: "e-stop" in bench.said("controller", "control") or status)
        bench.call(Trigger, "explore")
        bench.wait("a refusal", lambda: status.newest(lambda last: "e-stop" in value(last, "refused")))
        assert value(status[-1], "state") == "CANCELLED"
    finally:
        bench.close()


def test_a_planner_may_explore_from_the_start_until_a_goal_comes(tmp_path):
    bench = Bench(tmp_path)
    try:
        bench.start("simulator", {**IDEAL_64, "world_seed": WORLD, "publish_clock": True})
        planner = {**SMALL_SEARCH, **FEW, "use_sim_time": True, "use_obstacles": False, "explore": True}
        bench.start("planner", planner)
        status = bench.listen(DiagnosticStatus, "navigation_status", LATCHED)
        bench.wait("exploring", lambda: status.newest(lambda last: last.message == "exploring"))
        assert bench.call(Trigger, "cancel_goal").success
        bench.wait("the end", lambda: status.newest(lambda last: value(last, "state") == "CANCELLED"))
    finally:
        bench.close()
