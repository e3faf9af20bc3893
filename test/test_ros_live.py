"""Nodes in processes of their own, over DDS: a simulated robot drives to an image, and memory outlives a kill."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, Twist
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry as OdometryMessage
from nav_msgs.msg import Path as PathMessage
from ros_harness import IDEAL_64, SMALL_SEARCH, WORLD, Bench
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from come_nav.core.geometry import se2
from come_nav.memory.keyframes import Keyframes, KeyframesSettings
from come_nav.memory.store.store import MemoryStore
from come_nav.ros import messages
from come_nav.ros.qos import LATCHED
from come_nav.sim.builtin import BuiltInSimulator, ideal_camera
from come_nav.sim.worlds import generate_world

pytestmark = pytest.mark.slow


def image_ahead(distance_m: float, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a start pose with free space ahead, the pose that far ahead, and what is seen from there."""
    simulator = BuiltInSimulator.in_world(generate_world(WORLD), ideal_camera(), seed=seed)
    for _ in range(200):
        simulator.reset()
        start = simulator.pose_world_xyyaw.copy()
        poses = [se2.compose(start, np.array([x, 0.0, 0.0])) for x in np.arange(0.0, distance_m + 1.0, 0.05)]
        if all(not simulator._robot.map.touches(pose[0], pose[1], 0.3) for pose in poses):
            goal = se2.compose(start, np.array([distance_m, 0.0, 0.0]))
            simulator.reset(goal)
            return start, goal, simulator.observe()[0].rgb
    raise AssertionError("no free corridor in this world")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("live"))
    yield made
    made.close()


def value(status: DiagnosticStatus, key: str) -> str:
    return next((item.value for item in status.values if item.key == key), "")


def saved_places(folder: Path) -> int:
    """Return how many places the newest whole version in the folder holds."""
    store = MemoryStore(folder)
    saved = store.load(parts=("keyframes",)).keyframes if store.newest() is not None else None
    if saved is None:
        return 0
    kept = Keyframes(KeyframesSettings())
    kept.load_state(saved)
    return len(kept)


def test_a_robot_drives_to_an_image_and_remembers_after_a_kill(bench: Bench):
    start, goal, image = image_ahead(0.8)
    folder = bench.folder / "memory"
    planner = {
        **SMALL_SEARCH,
        "use_sim_time": True,
        "memory_folder": str(folder),
        "save_period_s": 0.5,
        "show_imagined": True,
        "goal_tolerance_m": 0.35,
        "goal_difference": 1.2,
        "keyframes.spacing_m": 0.2,
        "experts.use": ["spatial"],
        "planner.limits.v_min_mps": -0.15,
    }
    simulator = {
        **IDEAL_64,
        "world_seed": WORLD,
        "start_pose": [float(number) for number in start],
        "publish_clock": True,
    }
    bench.start("simulator", {**simulator, "real_time_factor": 0.5})
    bench.start("spatial_memory", {"use_sim_time": True, "memory_folder": str(folder), "save_period_s": 1.0})
    first = bench.start("planner", planner)
    bench.start("controller", {"use_sim_time": True})
    truth = bench.listen(OdometryMessage, "ground_truth/odom")
    commands = bench.listen(Twist, "cmd_vel")
    plans = bench.listen(PathMessage, "plan")
    status = bench.listen(DiagnosticStatus, "navigation_status", LATCHED)
    candidates = bench.listen(MarkerArray, "candidates")
    imagined = bench.listen(Image, "imagined_image")
    obstacles = bench.listen(PointCloud2, "obstacles", LATCHED)
    send = bench.publisher(Image, "goal_image")

    def position() -> np.ndarray:
        return messages.xyyaw_from_pose(truth[-1].pose.pose)

    def left_m() -> float:
        return float(np.linalg.norm(position()[:2] - goal[:2]))

    bench.wait_for_context()
    bench.wait("obstacles", lambda: obstacles.newest(lambda cloud: cloud.width > 0))
    bench.wait("the true pose", lambda: truth)
    assert left_m() == pytest.approx(0.8, abs=0.01)
    assert not any(message.linear.x for message in commands)
    bench.connected(send).publish(messages.image_message(image, 0.0, "camera"))
    bench.wait("an imagined view", lambda: imagined)
    bench.wait("a plan", lambda: any(len(plan.poses) == 9 for plan in plans))
    bench.wait("candidates", lambda: any(marker.points for shown in candidates for marker in shown.markers))
    bench.wait("driving", lambda: commands.newest(lambda last: abs(last.linear.x) + abs(last.angular.z) > 0.02))
    bench.wait("the end", lambda: status.newest(lambda last: value(last, "state") == "REACHED"))
    assert left_m() < 0.6
    target = se2.relative(start, goal)[None]
    pose = bench.connected(bench.publisher(PoseStamped, "goal_pose"))
    del status[:]
    pose.publish(messages.pose_list(target, [0.0], "odom")[0])
    bench.wait("the end", lambda: status.newest(lambda last: value(last, "state") == "REACHED"))
    assert left_m() < 0.6
    bench.wait("evaluated plans", lambda: float(bench.told("planner", "accuracy").get("ate_m", 9)) < 1.0)
    bench.wait("standing", lambda: commands.newest(lambda last: last.linear.x == 0.0 and last.angular.z == 0.0))

    # killed, not asked: what it saved before is there again
    places = bench.wait("saved places", lambda: (saved := saved_places(folder)) >= 2 and saved)
    first.stop(signal.SIGKILL)
    again = bench.start("planner", planner)
    bench.wait("places again", lambda: "places remembered from" in again.log())
    bench.diagnostics.clear()  # the last words of the killed one among them
    bench.wait("as many", lambda: int(bench.told("planner", "memory").get("places", 0)) >= places)
    assert "points remembered from" in again.log()

    # and what it remembers tells where the image of a place behind it was taken
    was_at_start = BuiltInSimulator.in_world(generate_world(WORLD), ideal_camera(), seed=WORLD)
    was_at_start.reset(start)
    bench.wait_for_context()
    del status[:]
    send.publish(messages.image_message(was_at_start.observe()[0].rgb, 0.0, "camera"))
    bench.wait("the way back", lambda: status.newest(lambda last: value(last, "state") in ("REACHED", "FAILED")))
    assert value(status[-1], "state") == "REACHED"
    assert "the image was taken at" in again.log()
    assert np.linalg.norm(position()[:2] - start[:2]) < 0.5


def test_lifecycle_and_a_clean_end(bench: Bench):
    """The controller by hand: unconfigured, inactive, active, inactive, and a last zero when it ends."""
    process = bench.start("controller", {"autostart": False}, __ns="/hand")
    commands = bench.listen(Twist, "/hand/cmd_vel")
    state = bench.call(GetState, "/hand/controller/get_state").current_state
    assert state.label == "unconfigured"

    def change(label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        request.transition.id = {"configure": 1, "cleanup": 2, "activate": 3, "deactivate": 4}[label]
        return bool(bench.call(ChangeState, "/hand/controller/change_state", request).success)

    assert change("configure")
    assert not commands
    assert change("activate")
    bench.wait("commands", lambda: commands)
    assert commands[-1].linear.x == 0.0
    assert change("deactivate")
    assert change("cleanup")
    assert change("configure")
    assert change("activate")
    assert process.stop() == 0
    assert "Traceback" not in process.log()


def test_a_mistake_in_the_parameters_is_one_line(bench: Bench):
    process = bench.start("bag_player", {"bag": "/no/such/bag"}, __ns="/mistake")
    bench.wait("a message", lambda: "/no/such/bag" in process.log())
    assert process.alive()  # unconfigured, as a lifecycle node that could not be configured
    unknown = bench.start("controller", {"rate_hertz": 10.0}, __ns="/typo")
    bench.wait("a hint", lambda: "did you mean 'rate_hz'?" in unknown.log())
    wrong = bench.start("controller", {"rate_hz": 1000.0}, __ns="/range")
    wrong.ended = True
    bench.wait("an end", lambda: not wrong.alive())
    assert "Parameter rate_hz out of range" in wrong.log()
    assert len(wrong.log().splitlines()) == 1
    for started in (process, unknown, wrong):
        started.stop()
        assert "Traceback" not in started.log()
