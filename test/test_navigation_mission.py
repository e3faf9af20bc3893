"""What counts as reached, missed and given up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from come_nav.core.types import Goal, Plan, PlanStatus
from come_nav.navigation.goals.mission import SEARCHING, ArrivalSettings, Mission, MissionState


def grey(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def ok_plan(stamp_s: float, length_m: float) -> Plan:
    return Plan(PlanStatus.OK, stamp_s, 0.25, np.array([[length_m, 0.0, 0.0]]), np.zeros(3))


def test_an_image_is_reached_when_view_and_plan_agree_often_enough():
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


def test_an_image_whose_place_was_found_is_reached_there():
    mission = Mission(ArrivalSettings(tolerance_m=0.2, tolerance_rad=0.3, difference=0.3))
    image = Goal(image_rgb=np.zeros((2, 2, 3), np.uint8))
    mission.begin(image)
    mission.doing(SEARCHING)
    assert "memory" in mission.message
    assert not mission.failing
    mission.found(replace(image, pose_odom_xyyaw=np.array([1.0, 0.0, 0.0])))
    assert mission.evaluate(ok_plan(0.0, 0.1), np.zeros(3), 0.1) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(1.0, 0.1), np.array([0.9, 0.0, 0.1]), 0.7) is MissionState.REACHED
    mission.found(image)
    assert mission.goal is not image  # too late


def test_an_image_that_seemed_reached_may_turn_out_to_be_elsewhere():
    mission = Mission(ArrivalSettings(0.25, 0.35, confirmations=1))
    mission.begin(Goal(image_rgb=grey(0)))
    here, place = np.zeros(3), np.array([1.0, 0.0, 0.0])
    assert mission.evaluate(ok_plan(1.0, 0.1), here, 0.5) is MissionState.REACHED
    assert not mission.at_goal(here, place) and mission.at_goal(place, place)
    mission.reopen(Goal(grey(0), place), 1)
    assert mission.active and mission.message == "on the way"
    assert mission.evaluate(ok_plan(2.0, 0.1), here, 0.1) is MissionState.ACTIVE  # its place decides now
    assert mission.evaluate(ok_plan(3.0, 0.1), place, 0.9) is MissionState.REACHED
    mission.begin(Goal(image_rgb=grey(0)))
    mission.cancel()
    mission.reopen(Goal(grey(0), place), 1)
    assert not mission.active


def test_an_arrival_that_is_doubted_too_often_is_a_failure():
    mission = Mission(ArrivalSettings(0.25, 0.35, confirmations=2))
    mission.begin(Goal(image_rgb=grey(0)))
    mission.reopen(None, 2)
    assert mission.active and mission.reopened == 0  # nothing to doubt yet
    for stamp_s, state in ((1.0, MissionState.ACTIVE), (2.0, MissionState.FAILED)):
        assert mission.evaluate(ok_plan(stamp_s, 0.1), np.zeros(3), 0.5) is MissionState.ACTIVE
        assert mission.evaluate(ok_plan(stamp_s + 0.5, 0.1), np.zeros(3), 0.5) is MissionState.REACHED
        mission.reopen(None, 2)
        assert mission.state is state
    assert mission.code == "NOT_CONFIRMED" and "memory" in mission.message


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


def test_plans_without_any_frame_do_not_use_up_the_time():
    mission = Mission(ArrivalSettings(time_limit_s=10.0))
    mission.begin(Goal(pose_odom_xyyaw=np.ones(3)))
    nothing = Plan(PlanStatus.NO_CONTEXT, 0.0, 0.25, np.zeros((0, 3)), np.zeros(3), message="no frame yet")
    assert mission.evaluate(nothing, np.zeros(3)) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(1.7e9, 1.0), np.zeros(3)) is MissionState.ACTIVE
    assert (
        mission.evaluate(nothing, np.zeros(3)) is MissionState.ACTIVE
    )  # odometry began anew: the frames are forgotten
    assert mission.evaluate(ok_plan(1.7e9 + 9.0, 1.0), np.zeros(3)) is MissionState.ACTIVE
    assert mission.evaluate(ok_plan(1.7e9 + 11.0, 1.0), np.zeros(3)) is MissionState.FAILED
    assert mission.code == "TIME_LIMIT"
