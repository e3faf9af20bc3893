"""Live, each with nodes of its own: a robot runs into something unseen; a memory is killed while it writes."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from geometry_msgs.msg import PoseStamped, Twist
from nav_msgs.msg import Odometry as OdometryMessage
from ros_harness import IDEAL_64, SMALL_SEARCH, WORLD, Bench
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Int32

from come_nav.core.geometry import se2
from come_nav.memory.store.files import CLOUD
from come_nav.memory.store.store import MemoryStore
from come_nav.ros import messages
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.worlds import generate_world

pytestmark = pytest.mark.slow


def unseen_wall() -> tuple[np.ndarray, float]:
    """Return a pose of a robot that looks at something, and how far it can drive until it touches it."""
    simulator = BuiltInSimulator.in_world(generate_world(WORLD), seed=5)
    for _ in range(500):
        simulator.reset()
        start = simulator.pose_world_xyyaw.copy()
        free_m = np.arange(0.0, 1.5, 0.01)
        touches = [simulator._robot.map.touches(*se2.compose(start, np.array([x, 0.0, 0.0]))[:2], 0.2) for x in free_m]
        if any(touches) and 0.4 < free_m[int(np.argmax(touches))] < 0.9:
            return start, float(free_m[int(np.argmax(touches))])
    raise AssertionError("nothing to run into in this world")


def test_a_robot_that_runs_into_something_unseen_backs_off_and_keeps_away(tmp_path):
    start, free_m = unseen_wall()
    bench = Bench(tmp_path)
    try:
        place = {
            **IDEAL_64,
            "world_seed": WORLD,
            "start_pose": [float(number) for number in start],
            "publish_clock": True,
        }
        bench.start("simulator", place)
        blind = {"use_obstacles": True, "use_places": False, "plan_rate_hz": 4.0, "planner.limits.v_min_mps": -0.15}
        blind["max_failures"] = 10000
        bench.start("planner", {**SMALL_SEARCH, "use_sim_time": True, **blind})
        bench.start("controller", {"use_sim_time": True})
        truth = bench.listen(OdometryMessage, "ground_truth/odom", keep=100000)
        cloud = bench.publisher(PointCloud2, "obstacles")
        blocked, touches = bench.listen(PoseStamped, "blocked"), bench.listen(Int32, "collisions")

        def driven_m() -> np.ndarray:
            poses = [messages.xyyaw_from_pose(m.pose.pose) for m in list(truth)]
            return se2.relative(start[None], np.array(poses))[:, 0]

        bench.wait_for_context()
        bench.wait("the true pose", lambda: truth)
        goal = bench.connected(bench.publisher(PoseStamped, "goal_pose"))
        goal.publish(messages.pose_list(np.array([[free_m + 1.0, 0.0, 0.0]]), [0.0], "odom")[0])
        bench.wait("a refusal to drive blind", lambda: "no cloud of obstacles" in bench.said("planner", "mission"))
        assert "set use_obstacles to false" in bench.said("planner", "clearance")
        assert np.abs(driven_m()).max() < 1e-6

        def show_nothing() -> None:
            if truth:
                now_s = messages.seconds_from_stamp(truth[-1].header.stamp)
                cloud.publish(messages.cloud_message(np.zeros((0, 3), np.float32), None, now_s, "odom"))

        bench.node.create_timer(0.1, show_nothing)
        bench.wait("being blocked", lambda: blocked)
        told = messages.xyyaw_from_pose(blocked[0].pose)  # odom began at the start
        assert np.hypot(told[0] - free_m, told[1]) < 0.1
        furthest = driven_m().max()
        assert furthest == pytest.approx(free_m, abs=0.1)
        bench.wait("the way back", lambda: driven_m()[-1] < furthest - 0.15)
        bench.wait("a report", lambda: int(bench.told("planner", "clearance").get("places_where_blocked", 0)) >= 1)
        bench.wait("a stall", lambda: int(bench.told("controller", "control").get("stalls", 0)) >= 1)
        bench.wait("collisions", lambda: touches.newest(lambda last: last.data > 0))
        hits, now_s = touches[-1].data, messages.seconds_from_stamp(truth[-1].header.stamp)

        def five_seconds_on(last: OdometryMessage) -> bool:
            return messages.seconds_from_stamp(last.header.stamp) > now_s + 5.0

        bench.wait("plans that go on", lambda: truth.newest(five_seconds_on))  # and none leads there again
        assert (touches[-1].data, len(blocked)) == (hits, 1)
    finally:
        bench.close()


def test_a_spatial_memory_that_is_killed_while_it_writes_goes_on_with_what_it_had(tmp_path):
    bench, folder = Bench(tmp_path), tmp_path / "memory"
    try:
        bench.start("simulator", {**IDEAL_64, "world_seed": WORLD, "publish_clock": True})
        turn = bench.publisher(Twist, "cmd_vel")
        turning = Twist()
        turning.angular.z = 0.5
        bench.node.create_timer(0.1, lambda: turn.publish(turning))
        settings = {"use_sim_time": True, "memory_folder": str(folder), "save_period_s": 0.5}
        node, torn, least = bench.start("spatial_memory", settings), 0, 0
        for kills in range(20):  # at least four; more until one tore a version that was being written
            if kills >= 4 and torn:
                break
            bench.wait("a version", lambda: MemoryStore(folder).newest() is not None)
            begun = bench.wait("a version that is being written", lambda: [*folder.glob(".v*.tmp")])
            node.stop(signal.SIGKILL)
            torn += begun[0].exists()
            kept = MemoryStore(folder).load(parts=(CLOUD,)).cloud  # the newest whole one
            assert kept is not None and len(kept["xyz"]) >= 0.8 * least  # carving may take some away
            least = len(kept["xyz"])
            bench.diagnostics.clear()
            node = bench.start("spatial_memory", settings)
            bench.wait("the memory", lambda n=node: "points remembered from" in n.log())
            bench.wait("more", lambda: bench.told("spatial_memory", "memory").get("frames"))
            assert "Traceback" not in node.log()
        assert torn >= 1  # else nothing was shown
        assert least > 0
    finally:
        bench.close()
