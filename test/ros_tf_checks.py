"""Run by test_ros_tf.py where tf2_msgs and nav2_msgs are; the name keeps it out of the ordinary tests."""

from __future__ import annotations

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from nav2_msgs.action import ComputePathToPose
from ros_driver import FRAME, Driver, RobotFacts
from ros_harness import IDEAL_64, SMALL_SEARCH, WORLD, Bench
from tf2_msgs.msg import TFMessage

from come_nav.core.geometry import se2, se3
from come_nav.ros import messages
from come_nav.ros.qos import STATIC_TRANSFORMS
from come_nav.ros.transforms import camera_pose

HEIGHT_M = 0.244
QUICK = {"diagnostics_rate_hz": 5.0}


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()


def say_where_the_camera_sits(bench: Bench, topic: str) -> None:
    T = camera_pose((0.1, 0.0, HEIGHT_M, 0.0, 0.0, 0.0))
    publisher = bench.publisher(TFMessage, topic, STATIC_TRANSFORMS)
    publisher.publish(TFMessage(transforms=[messages.transform_message(T, 0.0, ("base_link", FRAME))]))


def test_the_tf_of_a_namespaced_robot_is_heard_and_missing_it_is_told(bench: Bench):
    drivers = [Driver(bench, RobotFacts(space=space)) for space in ("/r1", "/r2")]
    try:
        for space in ("/r1", "/r2"):
            say_where_the_camera_sits(bench, f"{space}/tf_static")
        bench.start("spatial_memory", QUICK, __ns="/r1", **{"/tf": "tf", "/tf_static": "tf_static"})
        deaf = bench.start("spatial_memory", QUICK, __ns="/r2")
        bench.wait("tf", lambda: bench.told("r1/spatial_memory", "extrinsics").get("source") == "tf")
        assert float(bench.told("r1/spatial_memory", "extrinsics")["height_m"]) == pytest.approx(HEIGHT_M)
        told = "camera_xyz_rpy is taken, 0.500 m above it; transforms are on /r2/tf_static: remap /tf"
        bench.wait("the fallback", lambda: told in bench.said("r2/spatial_memory", "extrinsics"))
        assert "camera_xyz_rpy is taken" in deaf.log()
    finally:
        for driver in drivers:
            driver.close()


def test_paths_for_nav2_are_whole_or_refused_with_its_codes(bench: Bench):
    from rclpy.action import ActionClient

    bench.start("simulator", {**IDEAL_64, "world_seed": WORLD, "publish_clock": True, "real_time_factor": 0.5})
    common = {"use_sim_time": True, **QUICK}
    bench.start("spatial_memory", common)
    serving = {"serve_compute_path_to_pose": True, "max_obstacle_age_s": 10.0, "max_sensor_age_s": 30.0}
    bench.start("planner", {**SMALL_SEARCH, **common, **serving})
    client = ActionClient(bench.node, ComputePathToPose, "compute_path_to_pose")
    bench.wait("the server", client.server_is_ready)
    bench.wait("obstacles", lambda: int(bench.told("planner", "obstacles").get("received", 0)) > 0)
    bench.wait_for_context()
    T_map_odom = np.array([2.0, 1.0, 0.5])
    transform = messages.transform_message(se3.transform_from_xyyaw(T_map_odom), 0.0, ("map", "odom"))
    bench.publisher(TFMessage, "/tf_static", STATIC_TRANSFORMS).publish(TFMessage(transforms=[transform]))

    def ask(frame: str, pose: np.ndarray, planner_id: str = ""):
        goal: PoseStamped = messages.pose_list(pose[None], [0.0], frame)[0]
        request = ComputePathToPose.Goal(goal=goal, planner_id=planner_id)
        sent = bench.between_callbacks(client.send_goal_async, request)
        bench.wait("acceptance", sent.done)
        answer = bench.between_callbacks(sent.result().get_result_async)
        bench.wait("an answer", answer.done)
        return answer.result().result

    here = np.zeros(3)  # odom began there
    ways = [np.array([0.8 * np.cos(turn), 0.8 * np.sin(turn), turn]) for turn in np.arange(0.0, 6.28, 0.39)]
    found = [(goal, ask("odom", goal)) for goal in ways]
    whole = [(goal, result) for goal, result in found if result.error_code == 0]
    assert whole, [result.error_code for _, result in found]
    for goal, result in whole:
        ends = [messages.xyyaw_from_pose(result.path.poses[at].pose) for at in (0, -1)]
        np.testing.assert_allclose(ends[0][:2], here[:2], atol=1e-6)
        left = se2.relative(ends[1], goal)  # its turn is wrapped
        np.testing.assert_allclose(left, 0.0, atol=1e-6)
        assert result.planning_time.sec + 1e-9 * result.planning_time.nanosec > 0.0
    refused = {result.error_code for _, result in found} - {0}
    assert refused <= {ComputePathToPose.Result.GOAL_OCCUPIED, ComputePathToPose.Result.NO_VALID_PATH}
    goal = whole[0][0]
    in_map = ask("map", se2.compose(T_map_odom, goal))
    left = se2.relative(messages.xyyaw_from_pose(in_map.path.poses[-1].pose), goal)
    np.testing.assert_allclose(left, 0.0, atol=1e-6)
    assert ask("nowhere", goal).error_code == ComputePathToPose.Result.TF_ERROR
    assert ask("odom", goal, "SmacPlanner").error_code == ComputePathToPose.Result.INVALID_PLANNER
