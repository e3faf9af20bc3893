"""Key frames as places, the way through them, and the subgoals on it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from come_nav.core.geometry import se3
from come_nav.core.types import Frame, Goal, Odometry
from come_nav.memory.keyframes import Keyframes, KeyframesSettings
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.goals.guide import Guide, ahead_on, pursued, resampled
from come_nav.navigation.goals.obstacles import line_is_clear
from come_nav.navigation.goals.places import Places
from come_nav.navigation.goals.settings import GuideSettings


def drive(poses: list[tuple[float, float, float]], capacity: int = 100) -> Places:
    """Places whose image is a flat grey that tells their number; latents are a direction that tells that grey."""
    places = Places(Keyframes(KeyframesSettings(max_count=capacity, image_format="png")), encode_grey)
    for index, pose in enumerate(poses):
        frame = Frame(float(index), grey(10 * index))
        places.observe(frame, Odometry(float(index), se3.transform_from_xyyaw(np.array(pose))))
    return places


def grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def encode_grey(images):
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


def test_frames_of_another_leg_may_have_the_same_times():
    """A simulator or a bag that begins anew: each frame is asked for by its own image."""
    places, latents = drive([(0.0, 0.0, 0.0), (5.0, 0.0, 0.0)]), encode_grey([grey(0), grey(10), grey(100), grey(110)])
    places.most_similar(latents[0])
    places.begin_leg()
    for index, level in enumerate((100, 110)):
        pose = np.array([100.0 + 5.0 * index, 0.0, 0.0])
        frame = Frame(float(index), grey(level))
        kept = places.observe(frame, Odometry(float(index), se3.transform_from_xyyaw(pose)), latents[2 + index])
        assert kept
    for number, x_m in enumerate((0.0, 5.0, 100.0, 105.0)):
        poses, differences = places.most_similar(latents[number], 4)
        assert poses[0, 0] == x_m and differences[0] < 1e-3 < differences[1]


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


def test_an_image_that_memory_does_not_know_is_approached_directly():
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


def test_without_ways_the_place_itself_is_headed_for():
    guide = Guide(drive(ROUND_THE_CORNER), GuideSettings(use_ways=False))
    goal = Goal(pose_odom_xyyaw=np.array([3.0, 3.0, np.pi / 2]))
    guide.begin(goal)
    target, final = guide.target(np.zeros(3))
    assert final and guide.way_xy is None
    np.testing.assert_array_equal(target.pose_odom_xyyaw, goal.pose_odom_xyyaw)
    guide.rules = GuideSettings()
    assert not guide.target(np.zeros(3))[1]
    guide.rules = GuideSettings(use_ways=False)  # while one is followed
    assert guide.target(np.zeros(3))[1]
