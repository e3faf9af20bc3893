"""A robot whose odometry drifts: its memory stays right, its goals follow, and nothing is made worse."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from drift_samples import CAMERA, DRIFT_RAD, believed, drive, stack_of, turned_robot

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import Frame, Goal, Odometry
from come_nav.memory.map_frame import MapFrame
from come_nav.memory.short_term import Remembered
from come_nav.navigation.localising.anchors import Anchors
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.navigation.localising.worker import BoundedWorker
from come_nav.navigation.navigator import GoalRequest, Navigator
from come_nav.navigation.stack import NavStack


@pytest.fixture(scope="module")
def turned() -> tuple[np.ndarray, list[Frame]]:
    return turned_robot()


@pytest.fixture(scope="module")
def corrected(turned) -> tuple[NavStack, list[np.ndarray]]:
    """Return a stack that has driven with drift, and all that it told its followers; only to be looked at."""
    poses, frames = turned
    stack, told = stack_of(), list[np.ndarray]()
    stack.localisation.on_correction.append(lambda corrections, outside: told.append(corrections))
    drive(stack, frames, believed(poses, DRIFT_RAD))
    return stack, told


def test_drift_comes_out_as_map_to_odom(turned, corrected) -> None:
    poses, _ = turned
    stack, told = corrected
    odom = believed(poses, DRIFT_RAD)
    corrections = stack.localisation.corrections_xyyaw
    assert corrections.shape == (26, 3)
    np.testing.assert_array_equal(told[-1], corrections)
    off = se2.relative(poses, se2.compose(corrections, odom))
    assert np.abs(off[:, 2]).max() < 0.05  # odometry is off by 0.30
    assert np.hypot(*off[:, :2].T).max() < 0.05
    np.testing.assert_array_equal(stack.localisation.T_map_odom_xyyaw, corrections[-1])


def test_odometry_that_does_not_drift_is_never_touched(turned) -> None:
    poses, frames = turned
    stack = stack_of()
    drive(stack, frames, poses)
    assert len(stack.localisation) == 26
    assert stack.localisation.localiser.closures, "there was something to be wrong about"
    assert not stack.localisation.corrections_xyyaw.any()
    assert np.abs(stack.localisation.localiser.poses_map_xyyaw - poses)[:, :2].max() > 1e-4, "the graph has errors"


def test_narrow_images_are_not_localised_and_nothing_moves(turned) -> None:
    poses, frames = turned
    small = [
        replace(frame, rgb=frame.rgb[::4, ::4], intrinsics=CAMERA.scaled(80, 60), depth_m=None) for frame in frames
    ]
    stack = stack_of()
    drive(stack, small, believed(poses, DRIFT_RAD))
    assert len(stack.localisation) == 0
    assert not stack.localisation.corrections_xyyaw.any()


@pytest.mark.parametrize("drift_rad", [0.0, 0.003])
def test_two_equal_rooms_stay_two(turned, drift_rad: float) -> None:
    """The same images again, 9 m away, with a blank corridor between: closures say that it is one room."""
    poses, frames = turned
    poses, frames = poses[:13], frames[:13]
    count, length = len(frames), 9.0
    blank = replace(frames[0], rgb=np.full_like(frames[0].rgb, 127))
    corridor = [poses[-1] + np.array([0.45 * step, 0.0, 0.0]) for step in range(1, 20)]
    second = poses + np.array([length, 0.0, 0.0])
    second[:, 2] += poses[-1, 2] - poses[0, 2]
    way = believed(np.concatenate([poses, corridor, second]), drift_rad)
    images = [*frames, *[blank] * len(corridor), *frames]
    images = [replace(frame, stamp_s=0.25 * step) for step, frame in enumerate(images)]
    stack = stack_of(**{"memory.max_speed_mps": 100.0})
    drive(stack, images, way)
    localisation = stack.localisation
    wrong = [pair for pair in localisation.localiser.closures if pair[0] < count <= pair[1]]
    assert len(wrong) > 10, "the images do say so"
    corrected = se2.compose(localisation.corrections_xyyaw, way)
    apart = corrected[-count:, :2].mean(axis=0) - corrected[:count, :2].mean(axis=0)
    assert abs(float(np.hypot(*apart)) - length) < 0.5
    if drift_rad == 0.0:
        assert np.abs(localisation.corrections_xyyaw[:, :2]).max() < 0.05


def test_background_and_foreground_come_to_the_same(turned, corrected) -> None:
    poses, frames = turned
    stack = stack_of(background=True)
    worker = stack.localisation.worker
    assert worker is not None
    for frame, pose in zip(frames, believed(poses, DRIFT_RAD), strict=True):
        stack.observe(frame, Odometry(frame.stamp_s, se3.transform_from_xyyaw(pose)))
        worker.wait()
    stack.close()
    foreground = corrected[0].localisation.corrections_xyyaw
    np.testing.assert_allclose(stack.localisation.corrections_xyyaw, foreground, atol=1e-9)


def test_observing_does_not_wait_for_localisation_and_a_full_queue_refuses(turned) -> None:
    poses, frames = turned
    odom, stack = believed(poses, DRIFT_RAD), stack_of(background=True)
    localisation = stack.localisation
    with localisation._lock:  # the worker is in the midst of a long registration
        done = threading.Event()

        def observe() -> None:
            drive(stack, frames, odom)
            done.set()

        thread = threading.Thread(target=observe)
        thread.start()
        assert done.wait(20.0), "observe waited for the worker"
        assert not localisation.corrections_xyyaw.any()
    thread.join()
    worker = localisation.worker
    assert worker is not None
    worker.wait()
    assert worker.refused > 0
    assert worker.failure is None
    assert len(localisation) + worker.refused == 26
    assert len(localisation.corrections_xyyaw) == 26, "what has no key frame is anchored all the same"
    stack.close()


def test_a_reset_drops_what_is_still_waiting(turned) -> None:
    poses, frames = turned
    stack = stack_of(background=True)
    navigator = Navigator(stack)
    threads = [threading.Thread(target=drive, args=(navigator, frames, believed(poses, DRIFT_RAD)))]
    threads[0].start()
    for _ in range(5):
        navigator.forget(everything=True)
    threads[0].join()
    navigator.forget(everything=True)
    assert stack.localisation.worker is not None
    stack.localisation.worker.wait()
    assert len(stack.localisation) == 0
    assert stack.localisation.worker.failure is None
    drive(navigator, [replace(frame, stamp_s=frame.stamp_s + 100.0) for frame in frames[:3]], poses[:3])
    stack.close()
    assert len(stack.localisation) == 3
    np.testing.assert_allclose(navigator.places.keyframes.poses_xyyaw[0], poses[0], atol=1e-9)


def test_places_and_goals_stay_where_they_are_in_map(turned) -> None:
    poses, frames = turned
    odom, navigator = believed(poses, DRIFT_RAD), Navigator(stack_of())
    drive(navigator, frames[:3], odom[:3])
    goal = np.array([1.0, 2.0, 0.5])
    wanted = se2.compose(navigator.stack.localisation.T_map_odom_xyyaw, goal)
    navigator.begin(GoalRequest(pose_odom_xyyaw=goal))
    drive(navigator, frames[3:], odom[3:])
    navigator.step(frames[-1].stamp_s + 99.0)  # too late for a plan, but goals follow
    T_map_odom = navigator.stack.localisation.T_map_odom_xyyaw
    assert abs(T_map_odom[2]) > 0.2
    for found in (navigator.mission.goal, navigator.guide._goal):
        assert found is not None
        np.testing.assert_allclose(se2.compose(T_map_odom, found.pose_odom_xyyaw), wanted, atol=1e-9)
    rows = np.searchsorted([frame.stamp_s for frame in frames], navigator.places.keyframes.stamps_s)
    off = se2.relative(poses[rows], se2.compose(T_map_odom, navigator.places.keyframes.poses_xyyaw))
    assert np.abs(off[:, 2]).max() < 0.06
    first = navigator.places.keyframes.at_time(0.0)
    assert first is not None
    np.testing.assert_allclose(se2.compose(T_map_odom, first.pose_odom_xyyaw), poses[0], atol=1e-6)


def test_an_image_is_found_in_odom_as_it_is_now(turned, corrected) -> None:
    poses, frames = turned
    odom, found = believed(poses, DRIFT_RAD), []
    uncorrected = stack_of(**{"localisation.correct_drift": False})
    drive(uncorrected, frames, odom)
    assert not uncorrected.localisation.corrections_xyyaw.any()
    for stack in (corrected[0], uncorrected):
        sighting = stack.localisation.find(frames[2].rgb)
        assert sighting is not None
        found.append(sighting.pose_odom_xyyaw)
    T_map_odom = se2.compose(poses[-1], se2.inverse(odom[-1]))
    assert abs(se2.relative(poses[2], se2.compose(T_map_odom, found[0]))[2]) < 0.05
    assert abs(se2.relative(odom[2], found[1])[2]) < 0.05, "uncorrected, it is where odometry had it"


def test_all_goes_on_where_odometry_begins_anew(turned) -> None:
    """Features, anchors, places and corrections are those of a robot whose odometry never began anew."""
    poses, frames = turned
    T_before_after = np.array([0.7, -0.4, 2.5])  # where the new odom lies in the one before
    odom, steady, anew = believed(poses, DRIFT_RAD), Navigator(stack_of()), Navigator(stack_of())
    drive(steady, frames, odom)
    drive(anew, frames[:14], odom[:14])
    anew.begin(GoalRequest(pose_odom_xyyaw=np.array([1.0, 2.0, 0.5])))
    asked = frames[2].rgb
    assert anew.stack.goals.sighting(asked).certain
    anew.forget(T_before_after_xyyaw=T_before_after)
    moved = anew.stack.goals.sighting(asked)
    assert moved.certain and moved.keyframe == 2, "no search of the odom before is told again"
    drive(anew, frames[14:], se2.relative(T_before_after[None], odom[14:]))
    ours, theirs = anew.stack.localisation, steady.stack.localisation
    np.testing.assert_allclose(ours.corrections_xyyaw, theirs.corrections_xyyaw, atol=1e-6)
    T_map_odom = se2.compose(theirs.T_map_odom_xyyaw, T_before_after)
    for found in (ours.T_map_odom_xyyaw, anew.places.T_map_odom_xyyaw):
        assert np.abs(se2.relative(T_map_odom, found)).max() < 1e-6
    relative = se2.relative(T_before_after[None], steady.places.keyframes.poses_xyyaw)
    ours_kept = anew.places.keyframes.poses_xyyaw
    assert len(ours_kept) - len(relative) in {0, 1}, "another leg begins with the next frame"
    np.testing.assert_allclose(ours_kept[0], relative[0], atol=1e-6)
    np.testing.assert_allclose(ours_kept[-1], relative[-1], atol=1e-6)
    there, here = theirs.find(asked).pose_odom_xyyaw, ours.find(asked).pose_odom_xyyaw
    assert np.abs(se2.relative(se2.relative(T_before_after, there), here)).max() < 1e-6


# --- corrections from elsewhere -------------------------------------------------------------------------------------


def line(count: int) -> np.ndarray:
    return np.array([[0.5 * step, 0.0, 0.0] for step in range(count)])


def test_what_another_localiser_told_holds_on_where_odometry_begins_anew() -> None:
    localisation, told = RobotLocalisation(LocalisationSettings(use=False)), list[np.ndarray | None]()
    localisation.on_correction.append(lambda _, outside: told.append(outside))
    T_map_odom, T_before_after = np.array([5.0, 3.0, 1.0]), np.array([0.5, -2.0, 0.3])
    localisation.correct(T_map_odom)
    localisation.rebase(T_before_after)
    T_map_after = se2.compose(T_map_odom, T_before_after)
    np.testing.assert_allclose(localisation.outside_xyyaw, T_map_after, atol=1e-12)
    frame = MapFrame()
    frame.update(np.zeros((0, 3)), told[-1])
    frame.rebase(T_before_after)
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, T_map_after, atol=1e-12)
    better = T_map_after + np.array([0.3, 0.1, -0.1])
    localisation.correct(better)
    frame.update(np.zeros((0, 3)), told[-1])
    np.testing.assert_allclose(frame.T_map_odom_xyyaw, better, atol=1e-12)


def test_a_small_turn_moves_what_is_far_from_the_origin() -> None:
    anchors, x_m, turn_rad = Anchors(), np.array([0.0, 2.0, 10.0, 100.0]), 0.0029
    for x in x_m:
        anchors.link(anchors.add(np.array([x, 0.0, 0.0])), len(anchors) - 1)
    anchors.follow(np.tile([0.0, 0.0, turn_rad], (4, 1)), (0.01, 0.003))
    moved = se2.compose(anchors.corrections_xyyaw, np.stack([x_m, 0 * x_m, 0 * x_m], 1))
    np.testing.assert_allclose(moved[:, 1], np.where(x_m > 5.0, x_m * np.sin(turn_rad), 0.0), atol=1e-9)
    # far from the origin of odometry a turn that changes nothing at the anchor keeps its place
    about = se2.compose(
        se2.compose(np.array([100.0, 0.0, 0.0]), np.array([0.0, 0.0, 1e-4])), np.array([-100.0, 0.0, 0.0])
    )
    before = anchors.corrections_xyyaw[3].copy()
    anchors.follow(np.tile(se2.compose(before, about), (4, 1)), (0.01, 0.003))
    np.testing.assert_array_equal(anchors.corrections_xyyaw[3], before)


def test_another_localiser_says_first_where_its_map_lies() -> None:
    anchors, T_map_odom = Anchors(), np.array([5.0, 3.0, 1.0])
    for pose in line(5):
        anchors.add(pose)
    anchors.jump(T_map_odom)
    np.testing.assert_allclose(anchors.corrections_xyyaw, np.tile(T_map_odom, (5, 1)), atol=1e-12)


def test_a_later_jump_is_spread_over_the_way_since() -> None:
    anchors = Anchors()
    for pose in line(3):
        anchors.add(pose)
    anchors.jump(np.zeros(3))
    for pose in line(7)[3:]:
        anchors.add(pose)
    anchors.jump(np.array([0.0, 0.4, 0.0]))
    np.testing.assert_allclose(anchors.corrections_xyyaw[:, 1], [0, 0, 0, 0.1, 0.2, 0.3, 0.4], atol=1e-9)
    turn = np.array([0.0, 0.0, 0.2])
    anchors.add(line(8)[7])
    anchors.jump(turn)
    np.testing.assert_allclose(anchors.corrections_xyyaw[-1], turn, atol=1e-12)


def test_memory_moves_with_an_outside_correction_and_the_own_graph_is_silent(turned) -> None:
    poses, frames = turned
    odom, stack = believed(poses, DRIFT_RAD), stack_of()
    stack.correct(np.zeros(3))
    for step, (frame, pose) in enumerate(zip(frames, odom, strict=True)):
        stack.observe(frame, Odometry(frame.stamp_s, se3.transform_from_xyyaw(pose)))
        if step % 5 == 4:
            stack.correct(se2.compose(poses[step], se2.inverse(pose)))
    off = se2.relative(poses, se2.compose(stack.localisation.corrections_xyyaw, odom))
    np.testing.assert_allclose(off[:25], 0.0, atol=1e-6)  # it drifts evenly, and is corrected evenly
    with pytest.raises(DataError, match="finite"):
        stack.correct(np.array([0.0, np.nan, 0.0]))


def test_goals_follow_an_outside_localiser_but_not_the_place_of_its_map(turned) -> None:
    poses, frames = turned
    navigator, first, second = Navigator(stack_of()), np.array([40.0, -7.0, 2.0]), np.array([40.4, -7.1, 2.05])
    drive(navigator, frames[:3], poses[:3])
    goal = np.array([1.0, 2.0, 0.5])
    navigator.begin(GoalRequest(pose_odom_xyyaw=goal))
    place = navigator.places.keyframes.poses_xyyaw[0].copy()
    late_s = frames[-1].stamp_s + 99.0
    navigator.correct(first)
    navigator.step(late_s)
    for found in (navigator.mission.goal.pose_odom_xyyaw, navigator.guide._goal.pose_odom_xyyaw):
        np.testing.assert_allclose(found, goal, atol=1e-9)
    np.testing.assert_allclose(navigator.places.keyframes.poses_xyyaw[0], place, atol=1e-9)
    drive(navigator, frames[3:6], poses[3:6])
    navigator.correct(second)
    navigator.step(late_s)
    wanted = se2.compose(se2.inverse(second), se2.compose(first, goal))
    for found in (navigator.mission.goal.pose_odom_xyyaw, navigator.guide._goal.pose_odom_xyyaw):
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    np.testing.assert_allclose(navigator.places.T_map_odom_xyyaw, second, atol=1e-12)


@pytest.mark.parametrize("follows", [True, False])
def test_goals_of_another_frame_are_transformed_anew_at_each_step(turned, follows: bool) -> None:
    """Whether or not memory follows the localiser as well: never by twice the correction."""
    poses, frames = turned
    navigator, at = Navigator(stack_of()), {"T_map_odom": np.array([0.1, 0.0, 0.0])}
    goal_map = np.array([1.0, 2.0, 0.5])

    def in_odom() -> np.ndarray:
        return se2.compose(se2.inverse(at["T_map_odom"]), goal_map)

    drive(navigator, frames[:3], poses[:3])
    if follows:
        navigator.correct(at["T_map_odom"])
    navigator.begin(GoalRequest(pose_odom_xyyaw=in_odom(), pose_now=in_odom))
    for jump in (np.array([0.5, -0.2, 0.3]), np.array([0.9, 0.0, 0.1])):
        at["T_map_odom"] = jump
        if follows:
            navigator.correct(jump)
        navigator.step(frames[-1].stamp_s + 99.0)
        for found in (navigator.mission.goal.pose_odom_xyyaw, navigator.guide._goal.pose_odom_xyyaw):
            np.testing.assert_allclose(found, in_odom(), atol=1e-9)
    navigator.begin(GoalRequest(pose_odom_xyyaw=goal_map))
    navigator.step(frames[-1].stamp_s + 99.0)
    np.testing.assert_allclose(navigator.mission.goal.pose_odom_xyyaw, goal_map, err_msg="of odom itself")


def test_a_task_that_fails_does_not_end_the_worker() -> None:
    worker, done = BoundedWorker("test", 4), []
    worker.offer(lambda: 1 / 0)
    worker.wait()
    assert worker.failure == "ZeroDivisionError: division by zero"
    worker.offer(lambda: done.append(1))
    worker.stop()
    assert done == [1]
    assert worker.failure is None
    worker.offer(lambda: done.append(2))
    worker.stop()
    assert done == [1, 2]


def test_goals_without_a_pose_stay_the_same_object() -> None:
    from come_nav.navigation.goals.corrected import moved_goal

    goal = Goal(image_rgb=np.zeros((4, 4, 3), np.uint8))
    assert moved_goal(goal, np.ones(3)) is goal


def test_key_frames_of_one_moment_are_kept_once(turned) -> None:
    poses, frames = turned
    localisation = RobotLocalisation(LocalisationSettings())
    seen = Remembered(0.0, poses[0], frames[0], None)
    assert localisation.observe(seen)
    assert not localisation.observe(seen)
