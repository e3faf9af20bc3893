"""Joining camera, depth and odometry by stamps; transforms; evaluating past plans. None of it needs rclpy."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Odometry, Plan, PlanStatus
from come_nav.data.timing.odometry_track import OdometryTrack
from come_nav.evaluation.metrics.trajectory_metrics import plan_errors
from come_nav.evaluation.running_accuracy import RunningAccuracy
from come_nav.ros.decoding import LiveCamera
from come_nav.ros.streams import Synchroniser
from come_nav.ros.transforms import TransformBuffer, camera_pose
from come_nav.ros.worker import Worker


def odometry(stamp_s: float, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> Odometry:
    return Odometry(stamp_s, se3.transform_from_xyyaw(np.array([x, y, yaw])), 0.5, 0.0)


# -- odometry ------------------------------------------------------------------------------------------------------


def test_odometry_is_interpolated_between_messages():
    track = OdometryTrack()
    track.add(odometry(1.0, 0.0))
    track.add(odometry(1.2, 0.1, 0.0, 0.4))
    found = track.at(1.1)
    assert found is not None
    np.testing.assert_allclose(found.pose_xyyaw, [0.05, 0.0, 0.2], atol=1e-12)
    assert track.at(0.9) is None
    assert track.at(1.3) is None


def test_a_gap_in_odometry_is_not_bridged():
    track = OdometryTrack(max_gap_s=0.5)
    track.add(odometry(1.0))
    track.add(odometry(2.0))
    assert track.at(1.5) is None
    assert track.at(2.0) is not None


def test_a_clock_that_jumps_back_forgets_and_says_so():
    track = OdometryTrack()
    track.add(odometry(100.0))
    assert not track.add(odometry(99.9))  # late by a little: ignored
    assert track.newest is not None
    assert track.newest.stamp_s == 100.0
    assert track.add(odometry(5.0))
    assert track.newest.stamp_s == 5.0


# -- synchronisation -----------------------------------------------------------------------------------------------


@given(st.permutations(range(12)))
def test_images_are_matched_whatever_the_order_of_arrival(order):
    sync = Synchroniser("required", slop_s=0.03, patience_s=5.0)
    events = []
    for index in range(4):
        stamp_s = 1.0 + 0.1 * index
        events.append(lambda s=stamp_s, i=index: sync.add_image(s, f"image {i}"))
        events.append(lambda s=stamp_s, i=index: sync.add_depth(s + 0.01, f"depth {i}"))
        events.append(lambda s=stamp_s, i=index: sync.add_odometry(odometry(s, 0.1 * i)))
    # each topic keeps its own order, as DDS delivers it
    queues = {kind: [event for number, event in enumerate(events) if number % 3 == kind] for kind in range(3)}
    matched = []
    for number in order:
        queues[number % 3].pop(0)()
        matched += list(sync.ready())
    assert [(item.image, item.depth) for item in matched] == [(f"image {i}", f"depth {i}") for i in range(4)]
    np.testing.assert_allclose([item.odometry.pose_xyyaw[0] for item in matched], [0.0, 0.1, 0.2, 0.3], atol=1e-9)


def test_an_image_waits_for_odometry_that_is_on_its_way_and_not_forever():
    sync = Synchroniser(capacity=2)
    sync.add_odometry(odometry(1.0))
    sync.add_image(1.05, "waits")
    assert list(sync.ready()) == [] and not sync.due
    sync.add_odometry(odometry(1.1))
    assert sync.due
    assert [item.image for item in sync.ready()] == ["waits"]
    assert not sync.due
    sync.add_image(0.5, "before all odometry")
    assert list(sync.ready()) == []
    assert sync.dropped["no odometry"] == 1
    for index in range(5):
        sync.add_image(2.0 + index, "nobody moves")
    assert sync.dropped["queue full"] == 3


@pytest.mark.parametrize(("mode", "kept"), [("optional", 1), ("required", 0)])
def test_missing_depth_delays_only_so_long(mode, kept):
    sync = Synchroniser(mode, patience_s=0.5)
    sync.add_odometry(odometry(1.0))
    sync.add_image(1.0, "image")
    assert list(sync.ready()) == []
    sync.add_odometry(odometry(1.6))
    assert len(list(sync.ready())) == kept
    assert sync.dropped["no depth"] == 1 - kept


def test_images_of_a_camera_without_depth_wait_for_it_only_once():
    sync = Synchroniser("optional", patience_s=0.5)
    sync.add_odometry(odometry(1.0))
    sync.add_image(1.0, "first")
    assert list(sync.ready()) == []
    sync.add_odometry(odometry(1.6))
    sync.add_image(1.6, "second")
    assert [found.image for found in sync.ready()] == ["first", "second"]
    sync.add_depth(1.7, "depth")
    sync.add_odometry(odometry(1.9))
    sync.add_image(1.9, "third")
    assert list(sync.ready()) == []


@pytest.mark.parametrize("late", [False, True])
def test_an_image_waits_for_the_mask_of_its_time_as_long_as_masks_come(late):
    sync = Synchroniser("optional", patience_s=0.5, masks="optional")
    sync.add_depth(1.0, "depth")
    sync.add_odometry(odometry(1.0))
    sync.add_image(1.0, "first")
    assert list(sync.ready()) == []
    if late:
        sync.add_odometry(odometry(1.6))
    else:
        sync.add_mask(1.01, "mask")
    (found,) = sync.ready()
    assert (found.image, found.depth, found.mask) == ("first", "depth", None if late else "mask")
    sync.add_odometry(odometry(1.7))
    sync.add_image(1.7, "second")
    sync.add_depth(1.7, "depth")
    assert len(list(sync.ready())) == int(late), "who publishes none is not waited for again"


def image(encoding: str = "rgb8", height: int = 4, width: int = 6, channels: int = 3) -> SimpleNamespace:
    return SimpleNamespace(
        header=SimpleNamespace(frame_id="cam"),
        encoding=encoding,
        height=height,
        width=width,
        step=width * channels,
        is_bigendian=0,
        data=np.zeros(height * width * channels, np.uint8),
    )


def matched(image: SimpleNamespace, depth: SimpleNamespace | None = None) -> SimpleNamespace:
    own = odometry(1.0)
    return SimpleNamespace(stamp_s=1.0, image=image, depth=depth, info=None, depth_info=None, odometry=own, mask=None)


def test_frames_are_decoded_and_wrong_ones_name_the_cause():
    frame = LiveCamera().decode(matched(image()), None, [])
    assert frame.rgb.shape == (4, 6, 3)
    assert frame.frame_id == "cam"
    with pytest.raises(DataError, match="encoding 'banana' is not supported"):
        LiveCamera().decode(matched(image("banana")), None, [])
    with pytest.raises(DataError, match="depth is 8x4 but the image is 6x4"):
        LiveCamera().decode(matched(image(), image("16UC1", 4, 8, 2)), None, [])


def test_a_mask_is_brought_to_the_size_of_the_image():
    half = image("mono8", 2, 3, 1)
    half.data[4] = 1  # the middle of the second row: a label, not a grey value
    found = matched(image())
    found.mask = half
    moving = LiveCamera().decode(found, None, []).moving
    assert moving.dtype == bool
    np.testing.assert_array_equal(np.argwhere(moving), [[2, 2], [2, 3], [3, 2], [3, 3]])
    assert LiveCamera().decode(matched(image()), None, []).moving is None
    found.mask = image("mono8", 4, 4, 1)
    with pytest.raises(DataError, match=r"has 4 x 4 pixels, and its image 6 x 4; publish it in the"):
        LiveCamera().decode(found, None, [])
    _, png = cv2.imencode(".png", np.ones((4, 6), np.uint16))
    found.mask = SimpleNamespace(header=SimpleNamespace(frame_id="cam"), format="png", data=png.tobytes())
    with pytest.raises(DataError, match=r"encoding 16-bit png; publish one of 8 bits"):
        LiveCamera().decode(found, None, [])
    found.mask = image("mono16", 4, 6, 2)
    with pytest.raises(DataError, match=r"encoding mono16; publish one of 8 bits \(mono8\)"):
        LiveCamera().decode(found, None, [])


# -- transforms ----------------------------------------------------------------------------------------------------


def test_transforms_are_chained_and_interpolated():
    buffer = TransformBuffer()
    T_base_camera = camera_pose((0.1, 0.0, 0.5, 0.0, 0.0, 0.0))
    buffer.add("base_link", "camera", 0.0, T_base_camera, static=True)
    for stamp_s, x in ((1.0, 0.0), (2.0, 1.0)):
        buffer.add("odom", "base_link", stamp_s, se3.transform_from_xyyaw(np.array([x, 0.0, 0.0])))
    T = buffer.lookup("odom", "camera", 1.5)
    assert T is not None
    np.testing.assert_allclose(T[:3, 3], [0.6, 0.0, 0.5])
    newest = buffer.lookup("odom", "camera")
    assert newest is not None
    assert newest[0, 3] == pytest.approx(1.1)
    back = buffer.lookup("camera", "odom", 1.5)
    assert back is not None
    np.testing.assert_allclose(back @ T, np.eye(4), atol=1e-12)
    assert buffer.lookup("odom", "camera", 3.0) is None
    assert buffer.lookup("odom", "nowhere") is None


def test_transforms_in_a_loop_end():
    buffer = TransformBuffer()
    buffer.add("a", "b", 0.0, np.eye(4), static=True)
    buffer.add("b", "a", 0.0, np.eye(4), static=True)
    assert buffer.lookup("a", "c") is None


def test_a_clock_set_back_starts_the_edge_anew():
    buffer = TransformBuffer(keep_s=10.0)
    buffer.add("odom", "base_link", 100.0, np.eye(4))
    buffer.add("odom", "base_link", 5.0, se3.transform_from_xyyaw(np.array([2.0, 0.0, 0.0])))
    T = buffer.lookup("odom", "base_link", 5.0)
    assert T is not None
    assert T[0, 3] == 2.0


def test_camera_pitched_down_looks_down():
    T = camera_pose((0.0, 0.0, 1.0, 0.0, np.pi / 6, 0.0))
    ahead = T[:3, :3] @ np.array([0.0, 0.0, 1.0])  # the optical axis in base_link
    np.testing.assert_allclose(ahead, [np.cos(np.pi / 6), 0.0, -0.5], atol=1e-12)


# -- evaluating past plans --------------------------------------------------------------------------------------------


def test_running_errors_are_those_of_the_evaluation():
    rng = np.random.default_rng(3)
    track, accuracy = OdometryTrack(keep_s=60.0), RunningAccuracy()
    path = np.cumsum(rng.normal(0.05, 0.02, (81, 3)), axis=0)
    plans = [
        Plan(PlanStatus.OK, start * 0.25, 0.25, rng.normal(0.3, 0.2, (8, 3)), path[start * 5]) for start in (0, 2, 6)
    ]
    for plan in plans:
        accuracy.add(plan)
    evaluated = []
    for index, pose in enumerate(path):  # odometry at 20 Hz
        track.add(Odometry(index * 0.05, se3.transform_from_xyyaw(pose)))
        evaluated += accuracy.update(track)
    assert [item.plan for item in evaluated] == plans
    for item, plan in zip(evaluated, plans, strict=True):
        at = round(plan.stamp_s / 0.05) + 5 * np.arange(1, 9)
        offline = plan_errors(plan.poses_xyyaw, se2.relative(plan.start_odom_xyyaw[None], path[at]))
        assert item.errors.ate_m == pytest.approx(offline.ate_m, abs=1e-9)
        assert item.errors.rpe_m == pytest.approx(offline.rpe_m, abs=1e-9)
    assert accuracy.values()["ate_m"] == pytest.approx(np.mean([item.errors.ate_m for item in evaluated]))


def test_plans_that_are_not_ok_or_not_covered_are_not_evaluated():
    track, accuracy = OdometryTrack(), RunningAccuracy()
    accuracy.add(Plan(PlanStatus.STALE_SENSOR, 0.0, 0.25, np.zeros((0, 3)), np.zeros(3)))
    accuracy.add(Plan(PlanStatus.OK, 0.0, 0.25, np.zeros((8, 3)), np.zeros(3)))
    track.add(odometry(1.5))  # odometry began after the plan
    track.add(odometry(2.5))
    assert accuracy.update(track) == []
    assert accuracy.values() == {}


# -- worker --------------------------------------------------------------------------------------------------------


def test_a_worker_survives_errors_and_ends():
    seen, errors = [], []

    def step():
        seen.append(1)
        if len(seen) == 1:
            raise ValueError("once")
        return 0.01

    worker = Worker("test", step, errors.append)
    worker.start()
    worker.wake()
    deadline = 500
    while len(seen) < 3 and deadline:
        worker.wake()
        deadline -= 1
        import time

        time.sleep(0.01)
    assert worker.stop()
    assert len(seen) >= 3
    assert [str(error) for error in errors] == ["once"]


def test_a_worker_whose_step_hung_is_not_revived_by_the_next_start():
    """A search that outlasts the end of a node ends when it can, and does not go on beside its successor."""
    free, began, steps = threading.Event(), threading.Event(), []

    def step() -> float:
        steps.append(threading.get_ident())
        began.set()
        free.wait(10.0)
        return 0.001

    worker = Worker("test", step, pytest.fail)
    worker.start()
    assert began.wait(5.0)
    assert not worker.stop(timeout_s=0.05)
    began.clear()
    worker.start()
    assert began.wait(5.0)
    free.set()
    time.sleep(0.1)
    old = steps.count(steps[0])
    assert worker.stop()
    assert old == 1 and len(set(steps)) == 2
