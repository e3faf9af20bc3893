"""The episodic memory node, live: it learns what the robot sees, is killed, and the planner keeps its adapter."""

from __future__ import annotations

import re
import signal

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from ros_harness import IDEAL_64, NEVER_ARRIVES, Bench
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from come_nav.memory.episodic.shared_adapter import EPISODE, FACTS
from come_nav.memory.store.store import MemoryStore
from come_nav.ros import messages
from come_nav.ros.qos import LATCHED

pytestmark = pytest.mark.slow
LORA = {"rank": 4, "alpha": 4}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("episodic"))
    yield made
    made.close()


def version(bench: Bench, node: str, entry: str) -> int:
    return int(bench.told(node, entry).get("adapter_version", 0))


def test_the_planner_uses_what_a_node_that_was_killed_has_learnt(bench: Bench):
    folder = bench.folder / "memory"
    common = {"use_sim_time": True, "device": "cpu", "lora": LORA, "diagnostics_rate_hz": 4.0}
    learner = {
        **common,
        "memory_folder": str(folder),
        "save_period_s": 0.2,
        "state_period_s": 2.0,
        "episodic": {"batch_size": 2, "round_steps": 4, "reach": 8},
    }
    planner = {
        **common,
        "experts": {"use": ["long_term"], "adapter_store": str(folder)},
        **NEVER_ARRIVES,
    }
    bench.start("simulator", {**IDEAL_64, "world_seed": 10000, "publish_clock": True, "real_time_factor": 0.7})
    first = bench.start("episodic_memory", learner)
    user = bench.start("planner", planner)
    told = bench.listen(DiagnosticStatus, "episodic_memory", LATCHED)
    turn = bench.publisher(Twist, "cmd_vel")
    bench.node.create_timer(0.1, lambda: turn.publish(_turning()))

    bench.wait("a saved adapter", lambda: int(bench.told("episodic_memory", "training").get("saved_version", 0)) >= 2)
    values = bench.told("episodic_memory", "training")
    assert float(values["steps_per_s"]) > 0.0
    assert float(values["frame_to_adapter_p50_s"]) > 0.0
    assert int(values["adapter_steps"]) <= int(values["steps"])
    assert int(values["frames kept"]) <= int(values["frames_seen"])
    facts = {"steps_per_s", "adapter_version", "adapter_frames"}
    bench.wait("the latched state", lambda: told.newest(lambda last: {item.key for item in last.values} >= facts))
    used = bench.wait("the planner's adapter", lambda: version(bench, "planner", "long_term"))
    bench.wait("a newer adapter", lambda: version(bench, "planner", "long_term") > used)
    bench.wait("frames saved", lambda: "training" in MemoryStore(folder).load(parts=()).about[FACTS])

    first.stop(signal.SIGKILL)
    left = MemoryStore(folder).load(adapters=(EPISODE,))
    saved, frames = left.about[FACTS]["adapter"], left.about[FACTS]["training"]["seen"]
    assert all(np.isfinite(tensor.numpy()).all() for tensor in left.adapters[EPISODE].values())
    assert user.alive()
    again = bench.start("episodic_memory", learner)
    bench.wait("what was saved", lambda: f"{frames} frames remembered from" in again.log())
    bench.diagnostics.pop("episodic_memory: training", None)  # the last words of the killed one
    bench.wait("more training", lambda: version(bench, "episodic_memory", "training") > saved["version"])
    # frames are saved less often than adapters: the adapter that they continue may be an older one
    resumed = re.search(rf"adapter (\d+), {frames} frames remembered from {re.escape(str(folder))}", again.log())
    assert resumed is not None, again.log()
    assert 1 <= int(resumed[1]) <= saved["version"]
    steps = lambda: int(bench.told("episodic_memory", "training").get("adapter_steps", 0))  # noqa: E731
    bench.wait("more steps", lambda: steps() > saved["steps"])
    bench.wait("the planner follows", lambda: version(bench, "planner", "long_term") > saved["version"])

    goal = bench.connected(bench.publisher(Image, "goal_image"))
    goal.publish(messages.image_message(np.zeros((64, 64, 3), np.uint8), 0.0, "camera"))
    bench.wait("a plan", lambda: bench.told("planner", "mission").get("plan_status") == "OK")
    bench.wait("a word on it", lambda: bench.said("planner", "long_term").startswith("adapter "))

    assert bench.call(Trigger, "episodic_memory/save").success
    assert bench.call(Trigger, "episodic_memory/reset").success
    bench.wait("a new count", lambda: version(bench, "planner", "long_term") < saved["version"])
    for process in (again, user):
        assert process.stop() == 0
        assert "Traceback" not in process.log()


def _turning() -> Twist:
    command = Twist()
    command.angular.z = 0.5
    return command
