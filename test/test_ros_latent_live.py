"""A spatial memory of latents over DDS: one node fills its store, the planner follows it, and a kill costs nothing."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from geometry_msgs.msg import Twist
from ros_harness import IDEAL_64, NEVER_ARRIVES, WORLD, Bench
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger

from come_nav.core.errors import ComeNavError
from come_nav.memory.store.store import MemoryStore
from come_nav.ros import messages
from come_nav.ros.qos import LATCHED, SENSOR
from come_nav.sim.builtin import BuiltInSimulator, ideal_camera
from come_nav.sim.worlds import generate_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("latent"))
    yield made
    made.close()


def saved_cloud(folder) -> dict[str, np.ndarray]:
    """The newest whole cloud in the store; empty before the first."""
    try:
        return MemoryStore(folder).load(parts=("cloud",)).cloud or {}
    except ComeNavError:
        return {}


def test_the_planner_follows_the_latents_that_a_node_remembers(bench: Bench):
    folder = bench.folder / "memory"
    common = {"use_sim_time": True, "device": "cpu", "diagnostics_rate_hz": 4.0}
    filler = {**common, "memory_folder": str(folder), "save_period_s": 0.5, "spatial": {"features": "latent"}}
    planner = {
        **common,
        "experts": {"use": ["spatial"], "spatial_store": str(folder)},
        "spatial": {"features": "latent"},
        **NEVER_ARRIVES,
    }
    bench.start("simulator", {**IDEAL_64, "world_seed": WORLD, "publish_clock": True, "real_time_factor": 0.7})
    first = bench.start("spatial_memory", filler)
    user = bench.start("planner", planner)
    obstacles = bench.listen(PointCloud2, "obstacles", LATCHED)
    turn = bench.publisher(Twist, "cmd_vel")
    bench.node.create_timer(0.1, lambda: turn.publish(_turning()))

    cloud = bench.wait("a saved cloud of latents", lambda: saved_cloud(folder))
    assert cloud["latent"]
    assert cloud["features"].shape[1] > 32  # the latents of the shipped model, and what the cloud keeps beside them
    assert np.isfinite(cloud["features"]).all()
    bench.wait("obstacles of colours", lambda: obstacles.newest(lambda message: message.width > 0))
    bench.wait_for_context()
    goal = bench.connected(bench.publisher(Image, "goal_image"))
    goal.publish(messages.image_message(_view(), 0.0, "camera"))

    def plans_with_memory() -> bool:
        told = bench.told("planner", "mission")
        return told.get("plan_status") == "OK" and "without the spatial" not in told.get("plan_message", "")

    bench.wait("a plan with latents", plans_with_memory)

    # killed, not asked: the planner goes on with what was saved, and the node finds it again
    first.stop(signal.SIGKILL)
    left = len(bench.wait("the store", lambda: saved_cloud(folder))["features"])
    assert user.alive()
    bench.diagnostics.pop("planner: mission", None)
    bench.wait("a plan after the kill", plans_with_memory)
    again = bench.start("spatial_memory", filler)
    bench.wait("points again", lambda: "points remembered from" in again.log())
    bench.diagnostics.pop("spatial_memory: memory", None)  # the last words of the killed one
    bench.wait("as many", lambda: int(bench.told("spatial_memory", "memory").get("points", 0)) >= left)

    assert bench.call(Trigger, "spatial_memory/save").success
    assert bench.call(Trigger, "spatial_memory/reset").success
    bench.wait("a new memory", lambda: 0 < len(saved_cloud(folder).get("features", ())) < left)
    bench.diagnostics.pop("planner: mission", None)
    bench.wait("a plan with the new one", plans_with_memory)
    for process in (again, user):
        assert process.stop() == 0
        assert "Traceback" not in process.log()


def test_what_a_mask_tells_to_move_is_not_remembered(bench: Bench):
    """A segmentation node answers each image of the simulator: everything moves, then nothing does."""
    for process in bench.processes:
        process.stop()
    masks, moving = bench.publisher(Image, "camera/color/mask", SENSOR), [255]

    def answer(message: Image) -> None:
        mask = np.full((message.height // 2, message.width // 2), moving[0], np.uint8)
        told = messages.image_message(np.repeat(mask[..., None], 3, axis=2), 0.0, message.header.frame_id)
        told.header.stamp = message.header.stamp
        masks.publish(told)

    bench.node.create_subscription(Image, "camera/color/image_raw", answer, SENSOR)
    bench.start("simulator", {**IDEAL_64, "world_seed": WORLD, "publish_clock": True, "real_time_factor": 0.7})
    bench.start(
        "spatial_memory", {"use_sim_time": True, "device": "cpu", "diagnostics_rate_hz": 4.0, "masks": "required"}
    )
    bench.diagnostics.clear()

    def told(entry: str) -> int:
        return int(bench.told("spatial_memory", "memory").get(entry, 0))

    bench.wait("frames of which nothing stays", lambda: told("frames no_points") >= 3)
    assert told("points") == 0
    moving[0] = 0
    bench.wait("points once nothing moves", lambda: told("points") > 100)


def test_a_planner_of_colours_says_why_it_cannot_follow_latents(bench: Bench):
    for process in bench.processes:
        process.stop()
    folder = bench.folder / "latents"
    common = {"use_sim_time": True, "device": "cpu", "diagnostics_rate_hz": 4.0}
    filler = {**common, "memory_folder": str(folder), "save_period_s": 0.5, "spatial": {"features": "latent"}}
    planner = {**common, "experts": {"use": ["spatial"], "spatial_store": str(folder)}, **NEVER_ARRIVES}
    bench.start("simulator", {**IDEAL_64, "world_seed": WORLD, "publish_clock": True, "real_time_factor": 0.7})
    bench.start("spatial_memory", filler)
    bench.wait("a saved cloud of latents", lambda: saved_cloud(folder))
    bench.diagnostics.clear()
    process = bench.start("planner", planner)
    bench.wait_for_context()
    goal = bench.connected(bench.publisher(Image, "goal_image"))
    goal.publish(messages.image_message(_view(), 0.0, "camera"))
    bench.wait("a plan", lambda: bench.told("planner", "mission").get("plan_status") == "OK")
    bench.wait("the reason", lambda: "spatial.features" in bench.told("planner", "mission").get("plan_message", ""))
    assert process.alive()
    assert process.stop() == 0
    assert "Traceback" not in process.log()


def _view() -> np.ndarray:
    """What is seen from somewhere in the world: an image that is no place of the drive."""
    simulator = BuiltInSimulator.in_world(generate_world(WORLD), ideal_camera(), seed=11)
    simulator.reset()
    return simulator.observe()[0].rgb


def _turning() -> Twist:
    command = Twist()
    command.angular.z = 0.5
    return command
