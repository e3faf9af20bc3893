"""A robot that gets no further: it says so, backs off, looks around, takes another way, and gives up with a reason."""

from __future__ import annotations

import numpy as np
import pytest
from test_navigation_navigator import WALL, Robot

from come_nav.core.geometry import se2
from come_nav.core.types import PlanStatus
from come_nav.navigation.goals.mission import ArrivalSettings, MissionState
from come_nav.navigation.goals.recovery import Activity, Recovery, RecoverySettings
from come_nav.navigation.navigator import GoalRequest
from come_nav.navigation.settings import NavigatorSettings

HERE = np.zeros(3)


def to(*pose: float) -> GoalRequest:
    return GoalRequest(pose_odom_xyyaw=np.array(pose))


def drive(robot: Robot, most: int = 300) -> list[Activity]:
    """Step until the mission is over; return what the robot said that it did, each once in a row."""
    said: list[Activity] = []
    for _ in range(most):
        activity = robot.navigator.progress().activity
        if not said or activity is not said[-1]:
            said.append(activity)
        if not robot.navigator.mission.active:
            break
        robot.step()
    return said


def test_a_goal_behind_a_wall_that_nothing_remembers_a_way_round_is_reached_by_another_way():
    robot = Robot()
    robot.navigator.obstacles.see(WALL)
    robot.navigator.begin(to(0.0, 2.0, np.pi / 2))
    said = drive(robot)
    assert robot.navigator.mission.state is MissionState.REACHED, robot.navigator.mission.message
    assert Activity.OTHER_WAY in said
    gaps_m = np.linalg.norm(np.array(robot.driven)[:, None, :2] - WALL[None, :, :2], axis=-1)
    assert gaps_m.min() > 0.2


def test_a_closed_room_ends_the_mission_without_a_route():
    robot = Robot()
    side = np.arange(-1.5, 1.51, 0.05)
    walls = [np.column_stack([side, np.full(len(side), y)]) for y in (-1.5, 1.5)]
    walls += [wall[:, ::-1] for wall in walls]
    robot.navigator.obstacles.see(np.column_stack([np.vstack(walls), np.full(4 * len(side), 0.5)]))
    began_s = robot.time_s
    robot.navigator.begin(to(4.0, 0.0, 0.0))
    said = drive(robot)
    assert (robot.navigator.mission.state, robot.navigator.mission.code) == (MissionState.FAILED, "NO_ROUTE")
    assert Activity.TURNING in said  # it looked around before it gave up
    assert robot.time_s - began_s < 60.0


def test_a_goal_where_something_stands_is_given_up_as_occupied():
    robot = Robot()
    blob = np.stack(np.meshgrid(np.arange(1.4, 2.61, 0.05), np.arange(-0.6, 0.61, 0.05)), -1).reshape(-1, 2)
    robot.navigator.obstacles.see(np.column_stack([blob, np.full(len(blob), 0.5)]))
    robot.navigator.begin(to(2.0, 0.0, 0.0))
    drive(robot)
    assert robot.navigator.mission.code == "GOAL_OCCUPIED"
    assert robot.time_s < 20.0


def test_a_robot_that_cannot_move_tries_everything_and_gives_up():
    robot = Robot()
    robot.navigator.begin(to(4.0, 0.0, 0.0))
    said = []
    for _ in range(400):
        step = robot.navigator.step(robot.time_s, robot.pose)
        said.append(robot.navigator.progress().activity)
        if not robot.navigator.mission.active:
            break
        assert step.drive is None or step.drive.status is PlanStatus.OK
        robot.look()
    order = [activity for at, activity in enumerate(said) if at == 0 or activity is not said[at - 1]]
    assert order == [
        Activity.DRIVING,
        Activity.BACKING_OFF,
        Activity.TURNING,
        Activity.OTHER_WAY,
        Activity.IDLE,
    ]
    assert robot.navigator.mission.code == "NO_PROGRESS"


def test_memory_obstacles_and_goal_stay_in_the_world_where_odometry_begins_anew():
    robot = Robot()
    robot.explore((3.0, 0.0, 0.0), (0.0, 0.0, np.pi))
    robot.navigator.obstacles.see(WALL)
    robot.navigator.begin(to(2.0, 0.5, 0.0))
    robot.step()
    places, points = robot.navigator.places.keyframes.poses_xyyaw, robot.navigator.obstacles.points_odom_xy
    origin = np.array([0.5, -0.3, 2.0])  # where the new odom lies in the one before
    robot.navigator.forget(T_before_after_xyyaw=origin)
    robot.pose = se2.relative(origin, robot.pose)
    back = se2.inverse(origin)
    np.testing.assert_allclose(
        robot.navigator.places.keyframes.poses_xyyaw[:, :2], se2.compose(back, places)[:, :2], atol=1e-9
    )
    np.testing.assert_allclose(robot.navigator.obstacles.points_odom_xy, se2.transform_points(back, points), atol=1e-9)
    for _ in range(5):
        robot.look()
    kept = len(robot.navigator.places)
    drive(robot)
    assert robot.navigator.mission.state is MissionState.REACHED, robot.navigator.mission.message
    goal_now = se2.compose(back, np.array([2.0, 0.5, 0.0]))
    assert np.hypot(*(robot.pose - goal_now)[:2]) < 0.35
    assert len(robot.navigator.places) >= kept


def test_recovery_can_be_switched_off():
    robot = Robot(NavigatorSettings(recovery=RecoverySettings(use=False)))
    robot.navigator.obstacles.see(WALL)
    robot.navigator.begin(to(0.0, 2.0, np.pi / 2))
    assert drive(robot, most=60) == [Activity.DRIVING]
    assert robot.navigator.mission.active


@pytest.mark.parametrize("moves", [True, False])
def test_a_robot_is_stuck_when_it_neither_moves_nor_gets_nearer(moves):
    recovery, stuck_s = Recovery(RecoverySettings(patience_s=5.0, nearer_s=20.0)), None
    for tick in range(100):
        pose = np.array([0.8 * (tick // 4 % 2), 0.0, 0.0]) if moves else HERE
        if recovery.stuck(0.5 * tick, pose, 3.0):
            stuck_s = 0.5 * tick
            break
    assert stuck_s == pytest.approx(20.5 if moves else 5.5)
    assert recovery.next(HERE) is Activity.BACKING_OFF
    assert not recovery.stuck(stuck_s + 1.0, HERE, 3.0)


def test_all_may_be_tried_again_once_the_robot_got_free():
    recovery = Recovery()
    assert not recovery.stuck(0.0, HERE, 5.0)
    assert [recovery.next(HERE) for _ in range(2)] == [Activity.BACKING_OFF, Activity.TURNING]
    assert not recovery.stuck(2.0, HERE, 4.5)
    assert recovery.next(HERE) is Activity.OTHER_WAY
    assert recovery.next(HERE) is None
    assert not recovery.stuck(4.0, HERE, 3.0)
    assert recovery.activity is Activity.OTHER_WAY  # which it still follows
    assert recovery.next(HERE) is Activity.BACKING_OFF


def test_a_robot_that_gets_nearer_or_waits_for_its_search_is_not_stuck():
    recovery = Recovery(RecoverySettings(patience_s=5.0))
    assert not any(recovery.stuck(0.5 * tick, HERE, 10.0 - 0.1 * tick) for tick in range(90))
    slow = Recovery(RecoverySettings(patience_s=5.0))
    assert not any(slow.stuck(8.0 * tick, HERE, 3.0) for tick in range(5))


@pytest.mark.parametrize("jump_s", [-50.0, 30.0, 3600.0])
def test_time_in_which_nobody_looked_does_not_make_a_robot_stuck(jump_s):
    """A clock that jumped, or sensors that were silent for long."""
    recovery = Recovery(RecoverySettings(patience_s=5.0, nearer_s=20.0))
    assert not any(recovery.stuck(0.25 * tick, HERE, 9.0) for tick in range(12))
    begun_s = 2.75 + jump_s
    assert not any(recovery.stuck(begun_s + 0.25 * tick, HERE, 9.0) for tick in range(4))
    assert any(recovery.stuck(begun_s + 1.0 + 0.25 * tick, HERE, 9.0) for tick in range(12))


@pytest.mark.parametrize("forgets", [False, True])
def test_a_robot_whose_camera_is_silent_is_blind_and_not_stuck(forgets):
    """Also where odometry has begun anew just before, so that it has no frame at all."""
    robot = Robot()
    robot.navigator.begin(to(4.0, 0.0, 0.0))
    robot.step()
    if forgets:
        robot.navigator.forget(T_before_after_xyyaw=HERE)
    robot.navigator.settings = NavigatorSettings(arrival=ArrivalSettings(max_failures=1000))
    expected = PlanStatus.NO_CONTEXT if forgets else PlanStatus.STALE_SENSOR
    for tick in range(400):
        step = robot.navigator.step(robot.time_s + 5.0 + 0.25 * tick, robot.pose)
        assert step.plan is not None and step.plan.status is expected
    assert robot.navigator.progress().activity is Activity.DRIVING
    assert robot.navigator.mission.active
    robot.time_s += 105.0
    robot.look()
    drive(robot)
    assert robot.navigator.mission.state is MissionState.REACHED, robot.navigator.mission.message
