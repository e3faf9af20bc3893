"""Joining camera, depth and odometry by stamps; transforms; evaluating past plans. None of it needs rclpy."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame, Goal, Odometry, Plan, PlanStatus
from come_nav.data.timing.odometry_track import OdometryTrack
from come_nav.evaluation.metrics.trajectory_metrics import plan_errors
from come_nav.evaluation.running_accuracy import RunningAccuracy
from come_nav.memory.keyframes import Keyframes, KeyframesSettings
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.guide import Guide, GuideSettings, ahead_on, pursued, resampled
from come_nav.navigation.mission import ArrivalSettings, Mission, MissionState
from come_nav.navigation.places import Places
from come_nav.ros.obstacles import line_is_clear
from come_nav.ros.streams import Synchroniser, decode_frame
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
    return SimpleNamespace(stamp_s=1.0, image=image, depth=depth, info=None, odometry=odometry(1.0))


def test_frames_are_decoded_and_wrong_ones_name_the_cause():
    frame = decode_frame(matched(image()), None, [])
    assert frame.rgb.shape == (4, 6, 3)
    assert frame.frame_id == "cam"
    with pytest.raises(DataError, match="encoding 'banana' is not supported"):
        decode_frame(matched(image("banana")), None, [])
    with pytest.raises(DataError, match="depth is 8x4 but the image is 6x4"):
        decode_frame(matched(image(), image("16UC1", 4, 8, 2)), None, [])


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


def test_plans_that_are_not_ok_or_not_covered_are_not_evaluate():
    track, accuracy = OdometryTrack(), RunningAccuracy()
    accuracy.add(Plan(PlanStatus.STALE_SENSOR, 0.0, 0.25, np.zeros((0, 3)), np.zeros(3)))
    accuracy.add(Plan(PlanStatus.OK, 0.0, 0.25, np.zeros((8, 3)), np.zeros(3)))
    track.add(odometry(1.5))  # odometry began after the plan
    track.add(odometry(2.5))
    assert accuracy.update(track) == []
    assert accuracy.values() == {}


# -- missions ------------------------------------------------------------------------------------------------------


def ok_plan(stamp_s: float, length_m: float) -> Plan:
    return Plan(PlanStatus.OK, stamp_s, 0.25, np.array([[length_m, 0.0, 0.0]]), np.zeros(3))


def test_a_image_is_reached_when_view_and_plan_agree_often_enough():
    mission = Mission(ArrivalSettings(tolerance_m=0.2, confirmations=2, difference=0.3))
    mission.begin(Goal(image_rgb=np.zeros((2, 2, 3), np.uint8)))
    here = np.zeros(3)
    assert mission.evaluate(ok_plan(0.0, 0.1), here, 0.1) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(1.0, 0.9), here, 0.1) is MissionState.ACTIVE  # the count starts again
    assert mission.evaluate(ok_plan(2.0, 0.1), here, 0.1) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(3.0, 0.1), here, 0.9) is MissionState.ACTIVE  # a short path, but another view
    assert mission.evaluate(ok_plan(4.0, 0.1), here, 0.1) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(5.0, 0.1), here, 0.1) is MissionState.REACHED


def test_a_pose_is_reached_by_odometry():
    mission = Mission(ArrivalSettings(tolerance_m=0.2, tolerance_rad=0.3))
    mission.begin(Goal(pose_odom_xyyaw=np.array([1.0, 0.0, 0.0])))
    assert mission.evaluate(ok_plan(0.0, 0.1), np.array([0.5, 0.0, 0.0])) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(1.0, 0.1), np.array([0.9, 0.0, 0.6])) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(2.0, 0.1), np.array([0.9, 0.0, 0.1])) is MissionState.REACHED


def test_a_image_whose_place_was_found_is_reached_there():
    mission = Mission(ArrivalSettings(tolerance_m=0.2, tolerance_rad=0.3, difference=0.3))
    image = Goal(image_rgb=np.zeros((2, 2, 3), np.uint8))
    mission.begin(image)
    mission.search()
    assert "memory" in mission.message
    assert not mission.failing
    mission.found(replace(image, pose_odom_xyyaw=np.array([1.0, 0.0, 0.0])))
    assert mission.evaluate(ok_plan(0.0, 0.1), np.zeros(3), 0.1) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(1.0, 0.1), np.array([0.9, 0.0, 0.1]), 0.7) is MissionState.REACHED
    mission.found(image)
    assert mission.goal is not image  # too late


def test_a_image_that_seemed_reached_may_turn_out_to_be_elsewhere():
    mission = Mission(ArrivalSettings(0.25, 0.35, confirmations=1))
    mission.begin(Goal(image_rgb=grey(0)))
    here, place = np.zeros(3), np.array([1.0, 0.0, 0.0])
    assert mission.evaluate(ok_plan(1.0, 0.1), here, 0.5) is MissionState.REACHED
    assert not mission.at_goal(here, place) and mission.at_goal(place, place)
    mission.reopen(Goal(grey(0), place))
    assert mission.active and mission.message == "on the way"
    assert mission.evaluate(ok_plan(2.0, 0.1), here, 0.1) is MissionState.ACTIVE  # its place decides now
    assert mission.evaluate(ok_plan(3.0, 0.1), place, 0.9) is MissionState.REACHED
    mission.begin(Goal(image_rgb=grey(0)))
    mission.cancel()
    mission.reopen(Goal(grey(0), place))
    assert not mission.active


def test_failures_carry_the_code_of_the_plan_and_time_runs_out():
    mission = Mission(ArrivalSettings(max_failures=3, time_limit_s=10.0))
    mission.begin(Goal(pose_odom_xyyaw=np.ones(3)))
    blind = Plan(PlanStatus.ALL_IN_COLLISION, 0.0, 0.25, np.zeros((0, 3)), np.zeros(3), message="all rejected")
    for _ in range(3):
        state = mission.evaluate(blind, np.zeros(3))
    assert (state, mission.code) == (MissionState.FAILED, "ALL_IN_COLLISION")
    mission.begin(Goal(pose_odom_xyyaw=np.ones(3)))
    mission.evaluate(ok_plan(5.0, 1.0), np.zeros(3))
    assert mission.evaluate(ok_plan(15.1, 1.0), np.zeros(3)) is MissionState.FAILED
    assert mission.code == "TIME_LIMIT"
    mission.begin(Goal(pose_odom_xyyaw=np.zeros(3)))
    assert mission.evaluate(ok_plan(1.0, 1.0), np.ones(3), final=False) is MissionState.ACTIVE
    assert (
        mission.evaluate(ok_plan(11.1, 1.0), np.ones(3), final=False) is MissionState.FAILED
    )  # time runs on the way too
    mission.cancel()
    assert mission.state is MissionState.FAILED  # what has ended cannot be cancelled


def test_a_short_way_to_a_subgoal_is_no_arrival_but_being_there_is():
    mission = Mission(ArrivalSettings(tolerance_m=0.2, confirmations=1, difference=0.3))
    mission.begin(Goal(image_rgb=np.zeros((2, 2, 3), np.uint8)))
    assert mission.evaluate(ok_plan(1.0, 0.1), np.zeros(3), 0.1, final=False) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(2.0, 0.1), np.zeros(3), 0.1) is MissionState.REACHED
    mission.begin(Goal(pose_odom_xyyaw=np.zeros(3)))
    assert mission.evaluate(ok_plan(3.0, 0.1), np.zeros(3), final=False) is MissionState.REACHED


# -- places and the way through them -------------------------------------------------------------------------------


def drive(poses: list[tuple[float, float, float]], capacity: int = 100) -> Places:
    """Places whose image is a flat grey that tells their number; latents are a direction that tells that grey."""
    places = Places(Keyframes(KeyframesSettings(max_count=capacity, image_format="png")), encode_grey)
    for index, pose in enumerate(poses):
        frame = Frame(float(index), grey(10 * index))
        places.observe(frame, odometry(float(index), *pose))
    return places


def grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def encode_grey(images):
    import torch

    angles = torch.tensor([math.pi * float(image.mean()) / 255.0 for image in images])
    return torch.stack([angles.cos(), angles.sin()], dim=1)[:, :, None, None]


ROUND_THE_CORNER = [(x, 0.0, 0.0) for x in (0.0, 1.0, 2.0, 3.0)] + [(3.0, y, np.pi / 2) for y in (1.0, 2.0, 3.0)]


def test_the_most_similar_places_come_first_with_one_minus_the_cosine():
    places = drive(ROUND_THE_CORNER)
    poses, differences = places.most_similar(encode_grey([grey(58)])[0], 3)
    np.testing.assert_array_equal(poses, np.array(ROUND_THE_CORNER)[[6, 5, 4]])
    expected = [1.0 - math.cos(math.pi * away / 255.0) for away in (2, 8, 18)]
    np.testing.assert_allclose(differences, expected, atol=2e-3)  # kept as float16
    assert len(drive([]).most_similar(encode_grey([grey(58)])[0])[0]) == 0


def test_a_far_goal_is_led_to_along_the_way_that_was_driven():
    guide = Guide(drive(ROUND_THE_CORNER), GuideSettings(direct_m=1.0, lookahead_m=1.0))
    goal = Goal(image_rgb=grey(60), pose_odom_xyyaw=np.array([3.0, 3.0, np.pi / 2]))
    guide.begin(goal)
    target, final = guide.target(np.array([0.0, 0.0, 0.0]))
    assert not final
    assert target.image_rgb is None
    np.testing.assert_allclose(target.pose_odom_xyyaw, [1.0, 0.0, 0.0], atol=1e-9)
    target, final = guide.target(np.array([3.0, 1.0, np.pi / 2]))
    np.testing.assert_allclose(target.pose_odom_xyyaw, [3.0, 2.0, np.pi / 2], atol=1e-9)
    near = np.array([3.0, 2.5, np.pi / 2])
    target, final = guide.target(near)
    assert final and target.image_rgb is None
    assert target.pose_odom_xyyaw is goal.pose_odom_xyyaw
    nowhere = Guide(drive([]), GuideSettings())
    nowhere.begin(goal)
    target, final = nowhere.target(np.zeros(3))  # no way is known, but the place is
    assert final and target.image_rgb is None and target.pose_odom_xyyaw is goal.pose_odom_xyyaw
    guide.rules = GuideSettings(approach_by_view=True)
    target, final = guide.target(near)
    assert final and target.image_rgb is goal.image_rgb and target.pose_odom_xyyaw is goal.pose_odom_xyyaw


def test_a_way_that_was_begun_is_not_left_for_one_that_seems_as_good():
    there_and_back = [(x, 0.0, 0.0) for x in (0.0, 1.0, 2.0)] + [(x, 0.3, np.pi) for x in (2.0, 1.0, 0.0)]
    guide = Guide(drive(there_and_back), GuideSettings())
    guide.begin(Goal(pose_odom_xyyaw=np.array([4.0, 0.0, 0.0])))
    ahead = [
        guide.target(np.array([x, 0.2, yaw]))[0].pose_odom_xyyaw for x, yaw in ((0.0, 0.0), (0.3, 3.0), (0.6, 1.0))
    ]
    assert np.diff([pose[0] for pose in ahead]).min() > 0.1  # always onwards, whichever way the robot looks
    strayed = guide.target(np.array([0.6, 3.0, 0.0]))[0].pose_odom_xyyaw  # a new way from there
    assert strayed is not None and strayed[1] < 3.0


def test_subgoals_can_be_driven_to_straight_ahead():
    guide = Guide(drive(ROUND_THE_CORNER), GuideSettings(lookahead_m=1.5))
    guide.begin(Goal(pose_odom_xyyaw=np.array([3.0, 3.0, np.pi / 2])))

    def clear(start, end):  # something stands inside of the corner
        return line_is_clear(np.array([[2.6, 0.5]]), start, end, 0.2)

    free, _ = guide.target(np.array([2.0, 0.0, 0.0]))
    short, _ = guide.target(np.array([2.0, 0.0, 0.0]), clear)
    assert free.pose_odom_xyyaw is not None and free.pose_odom_xyyaw[1] > 0.5  # across the corner
    assert short.pose_odom_xyyaw is not None and clear(np.array([2.0, 0.0]), short.pose_odom_xyyaw[:2])
    assert 0.3 <= float(np.hypot(*(short.pose_odom_xyyaw[:2] - [2.0, 0.0]))) < 1.5


def test_a_goal_too_near_to_something_is_approached_all_the_same():
    guide = Guide(drive(ROUND_THE_CORNER), GuideSettings(direct_m=1.0))
    guide.begin(Goal(pose_odom_xyyaw=np.array([3.0, 3.0, 1.0])))

    def never(start, end):
        return False

    assert not guide.target(np.array([3.0, 2.5, np.pi / 2]), never)[1]
    target, final = guide.target(np.array([3.0, 2.8, np.pi / 2]), never)
    assert final
    np.testing.assert_array_equal(target.pose_odom_xyyaw, [3.0, 3.0, 1.0])  # its heading too, not the way's


def test_near_a_place_that_only_looks_similar_the_image_leads_alone():
    guide = Guide(drive(ROUND_THE_CORNER), GuideSettings(direct_m=1.0))
    goal = Goal(image_rgb=grey(58))
    guide.begin(goal, rough_xyyaw=np.array([3.0, 3.0, np.pi / 2]))
    assert guide.anchored
    assert not guide.target(np.zeros(3))[1]
    assert guide.target(np.array([3.0, 2.2, 0.0])) == (goal, True)
    assert guide.target(np.array([3.0, 1.5, 0.0])) == (goal, True)  # it may lead away again
    assert not guide.target(np.array([3.0, 0.5, 0.0]))[1]


def test_a_image_that_memory_does_not_know_is_approached_directly():
    guide = Guide(drive(ROUND_THE_CORNER), GuideSettings())
    goal = Goal(image_rgb=grey(90))
    guide.begin(goal)
    assert guide.target(np.zeros(3)) == (goal, True)
    assert not guide.anchored


def test_places_survive_a_restart_beside_what_others_saved(tmp_path):
    places, store = drive(ROUND_THE_CORNER), MemoryStore(tmp_path / "memory")
    empty = drive([])
    empty.load(store)  # nothing saved yet
    assert len(empty) == 0
    places.save(store)
    store.save(cloud={"points": np.zeros((3, 3))})  # another node
    again = drive([])
    again.load(store)
    assert len(again) == len(places)
    way = again.way(np.zeros(3), np.array([3.0, 3.0, np.pi / 2]))
    assert way is not None
    np.testing.assert_allclose(way, [pose[:2] for pose in ROUND_THE_CORNER])


CORNERS = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=6)


def distance_to_way(way: np.ndarray, point: np.ndarray) -> float:
    gaps = []
    for start, end in itertools.pairwise(way):
        length2 = max(float(((end - start) ** 2).sum()), 1e-12)
        share = np.clip(((point - start) @ (end - start)) / length2, 0, 1)
        gaps.append(float(np.linalg.norm(start + share * (end - start) - point)))
    return min(gaps)


@given(CORNERS, st.floats(0.3, 3.0))
def test_a_pursued_point_lies_on_the_way_and_no_further_than_asked(corners, lookahead_m):
    way = np.array(corners)
    pose = pursued(way, lookahead_m, lambda start, end: True)
    assert np.isfinite(pose).all()
    assert distance_to_way(resampled(way, 0.1), pose[:2]) < 1e-6
    assert np.hypot(*(pose[:2] - way[0])) <= lookahead_m + 0.1 + 1e-6


@given(CORNERS, st.tuples(st.floats(-6, 6), st.floats(-6, 6)))
def test_what_is_ahead_begins_at_the_nearest_point_and_keeps_the_end(corners, place):
    way, here = np.array(corners), np.array(place)
    rest = ahead_on(way, here)
    np.testing.assert_allclose(rest[-1], way[-1])
    assert len(rest) >= 2
    assert np.hypot(*(rest[0] - here)) == pytest.approx(distance_to_way(way, here), abs=1e-4)


def test_a_line_is_clear_of_points_except_those_that_the_robot_touches_already():
    start, end = np.zeros(2), np.array([2.0, 0.0])
    for point, free in (([1.0, 0.3], True), ([1.0, 0.1], False), ([2.15, 0.0], False), ([-0.1, 0.05], True)):
        assert line_is_clear(np.array([point]), start, end, 0.2) is free
    assert line_is_clear(np.zeros((0, 2)), start, end, 0.2)


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
