"""Run by test_ros_kilted.py in an environment with ROS 2 Kilted; the name keeps it out of the ordinary tests."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Path as PathMessage
from ros_harness import IDEAL_64, LEAST_SEARCH, Bench

from come_nav.ros import messages
from come_nav.ros.run import NODES, node_class

PLANNER = {"device": "cpu", "planner": LEAST_SEARCH, "max_sensor_age_s": 30.0, "max_failures": 10000}
ROBOT = ("simulator", "spatial_memory", "planner", "controller", "episodic_memory")


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()


def start(bench: Bench, planner: dict, nodes: tuple[str, ...]) -> None:
    simulator = {**IDEAL_64, "world_seed": 10000, "publish_clock": True, "real_time_factor": 0.5}
    common = {"use_sim_time": True, "diagnostics_rate_hz": 4.0}
    slowly = {"device": "cpu", "experts": {"budget": {"steps_per_s": 1.0}}}
    sections = {"/**": common, "/simulator": simulator, "/planner": planner, "/episodic_memory": slowly}
    bench.start("come_nav_nodes", sections, words=nodes)
    for node in nodes:
        bench.wait(node, lambda node=node: bench.said(node, "node") == "active")
    bench.wait_for_context()


def test_every_node_can_be_imported():
    assert metadata.version("ros-rclpy").startswith("9."), "this is not Kilted"
    assert all(node_class(name).PARAMETERS for name in NODES)


def test_a_robot_drives(bench: Bench):
    start(bench, PLANNER, ROBOT)
    plans, commands = bench.listen(PathMessage, "plan"), bench.listen(Twist, "cmd_vel")
    goal = bench.connected(bench.publisher(PoseStamped, "goal_pose"))
    goal.publish(messages.pose_list(np.array([[50.0, 0.0, 0.0]]), [0.0], "odom")[0])
    bench.wait("a plan", lambda: any(len(plan.poses) > 1 for plan in plans))
    bench.wait("driving", lambda: commands.newest(lambda last: abs(last.linear.x) + abs(last.angular.z) > 0.02))
    bench.wait("a duration", lambda: float(bench.told("planner", "odometry").get("callback_p99_s", 0)) > 0.0)
    assert "Traceback" not in bench.processes[0].log()


def test_the_action_of_an_image(bench: Bench):
    from rclpy.action import ActionClient

    from come_nav_interfaces.action import NavigateToImage

    never = {"goal_difference": 1e-6, "goal_tolerance_m": 0.01, "use_obstacles": False, "use_places": False}
    start(bench, {**PLANNER, **never}, ("simulator", "planner"))
    client = ActionClient(bench.node, NavigateToImage, "navigate_to_image")
    bench.wait("server", client.server_is_ready)
    feedback: list = []

    def send(image: np.ndarray, encoding: str = "rgb8"):
        image = messages.image_message(image, 0.0, "camera")
        image.encoding = encoding
        goal = NavigateToImage.Goal(image=image)
        future = bench.between_callbacks(client.send_goal_async, goal, lambda told: feedback.append(told.feedback))
        bench.wait("an answer", future.done)
        assert future.result().accepted
        return future.result(), bench.between_callbacks(future.result().get_result_async)

    grey = np.full((64, 64, 3), 128, np.uint8)
    bad = send(grey, "banana8")[1]
    bench.wait("refusal", bad.done)
    assert (bad.result().status, bad.result().result.code) == (6, "BAD_GOAL")  # aborted

    first = send(grey)[1]
    bench.wait("feedback", lambda: feedback and feedback[-1].difference > 0.0)
    assert feedback[-1].pose.header.frame_id == "odom"
    handle, second = send(grey)
    bench.wait("replacement", first.done)
    assert first.result().result.outcome == NavigateToImage.Result.REPLACED
    cancelling = bench.between_callbacks(handle.cancel_goal_async)
    bench.wait("cancelling", cancelling.done)
    bench.wait("the end", second.done)
    assert (second.result().status, second.result().result.outcome) == (5, NavigateToImage.Result.CANCELLED)
    bench.wait("diagnostics of odometry", lambda: bench.told("planner", "odometry"))
    assert "Traceback" not in bench.processes[0].log()
