"""A recorded bag through the nodes over DDS: everything arrives, and published ATE and RPE are those of the bag."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from ros_harness import Bench
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from come_nav.ros.qos import SENSOR

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
from ros_replay import Replay, paired

pytestmark = pytest.mark.slow
SEARCH = {"initial_samples": 10, "samples": 10, "iterations": 1, "elites": 4}


def test_plans_that_start_at_one_frame_are_each_compared_with_a_path_of_their_own():
    published = [
        {"plan_stamp_s": stamp, "ate_m": ate} for stamp, ate in ((1.0, 0.5), (1.0, 0.2), (1.0, 0.4), (2.0, 1.0))
    ]
    offline = {1.0: [{"ate_m": 0.2}, {"ate_m": 0.5}], 3.0: [{"ate_m": 9.0}]}
    pairs = paired(published, offline)
    assert [(own["ate_m"], other["ate_m"]) for own, other in pairs] == [(0.5, 0.5), (0.2, 0.2)]
    assert paired([{"plan_stamp_s": 1.0, "ate_m": 0.45}], offline)[0][1] == {"ate_m": 0.5}  # a difference stays one


@pytest.mark.shared_data
def test_published_errors_of_plans_are_those_of_the_recording(shared_data: Path, tmp_path: Path):
    bench = Bench(tmp_path)
    try:
        replay = Replay(bench, shared_data / "bags" / "kitchen", SEARCH)
        # As fast as life: played faster, images are too old for plans on a machine with other work.
        found = replay.run(rate=1.0, goal_period_s=5.0, ahead=30)
    finally:
        bench.close()
    recorded = found["recorded"]
    assert recorded == {"images": 250, "odometry": 250, "depth": 250}
    assert found["sent"] == 4 * 250  # images, depth, calibration, odometry
    for node in ("planner", "spatial_memory"):
        received = found[f"{node}_received"]
        assert 0.9 * 250 <= received["images"] <= 250
        assert 0.9 * 250 <= received["odometry"] <= 250
        assert found[f"{node}_frames"]["frames kept"] > 0
        assert set(found[f"{node}_image_to_memory_s"]) == {"p50", "p95", "p99"}
    assert found["goals"] >= 2
    assert 0.0 < found["goal_to_plan_s"]["p50"] <= found["goal_to_plan_s"]["p95"]
    accuracy = found["accuracy"]
    assert accuracy["windows"] >= 2
    assert accuracy["ate_m_published"] > 0.01  # a robot that somebody drove does not follow the plans
    lost = 250 - found["planner_received"]["odometry"]  # a lost message is interpolated over
    assert accuracy["largest_difference_m"] < (1e-6 if lost == 0 else 0.05)
    for process in bench.processes:
        assert "Traceback" not in process.log()


@pytest.mark.parametrize("other_clock_ns", [0, -1_700_000_000_000_000_000])
def test_the_clock_of_a_replay_never_jumps(tmp_path: Path, other_clock_ns: int):
    """Messages without a header: read as one, their bytes would be a time, some of them in another century."""
    from data_samples import BagMaker

    second_ns, maker = 1_000_000_000, BagMaker()
    begin_ns = 1_700_000_000 * second_ns
    for index in range(40):
        log_ns = begin_ns + index * second_ns // 20
        maker.odometry(log_ns + other_clock_ns - second_ns // 100, 0.1 * index, log_ns=log_ns)
        text = b"\x00\x01\x00\x00" + (30).to_bytes(4, "little") + b"a sentence without any header" + b"\0"
        maker.add(log_ns - second_ns // 50, "/words", "std_msgs/msg/String", text)
    bag = maker.write(tmp_path / "bag")
    bench = Bench(tmp_path)
    try:
        clock, words = bench.listen(Clock, "/clock", SENSOR), bench.listen(String, "/words")
        bench.start("bag_player", {"bag": str(bag), "wait_for_topic": "/words"})
        bench.wait("the end", lambda: bench.said("bag_player", "playback") == "finished")
        bench.wait("the words", lambda: len(words) >= 35)
        times_s = [message.clock.sec + 1e-9 * message.clock.nanosec for message in clock]
    finally:
        bench.close()
    assert len(times_s) >= 60
    assert all(later >= earlier for earlier, later in pairwise(times_s))
    begin_s = (begin_ns + other_clock_ns) * 1e-9
    assert begin_s - 0.1 <= times_s[0] and times_s[-1] <= begin_s + 2.1
