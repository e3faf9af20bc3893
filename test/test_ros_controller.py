"""The controller by itself, without DDS between: what it takes for a robot that is blocked."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
import rclpy
from nav_msgs.msg import Path as PathMessage
from rclpy.parameter import Parameter

from come_nav.core.geometry import se3
from come_nav.core.types import Odometry
from come_nav.ros import messages
from come_nav.ros.nodes.controller_node import ControllerNode

TICK_S, V_MPS = 0.05, 0.4


@pytest.fixture
def controller():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = ControllerNode(context=context)
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.close()
    node.destroy_node()
    rclpy.shutdown(context=context)


class Base:
    """A base on a straight way, and a clock."""

    def __init__(self, controller: ControllerNode) -> None:
        self.controller, self.now_s, self.x_m = controller, 100.0, 0.0
        controller.now_s = lambda: self.now_s

    def plan(self) -> None:
        """Give a path straight ahead."""
        times_s = 0.25 * np.arange(1, 41)
        poses = np.column_stack([self.x_m + V_MPS * times_s, np.zeros(40), np.zeros(40)])
        path = PathMessage(header=messages.header(self.now_s, "odom"))
        path.poses = messages.pose_list(poses, list(self.now_s + times_s), "odom")
        self.controller._take_plan(path)

    def pass_s(self, seconds: float, v_mps: float, told: bool = True) -> None:
        """Let time pass; the base drives, and tells its odometry or not."""
        for _ in range(round(seconds / TICK_S)):
            self.now_s += TICK_S
            self.x_m += v_mps * TICK_S
            if told:
                T = se3.transform_from_xyyaw(np.array([self.x_m, 0.0, 0.0]))
                odometry = Odometry(self.now_s, T, v_mps, 0.0)
                self.controller._take_odometry(messages.odometry_message(odometry, ("odom", "base_link")))
            self.controller._tick()


def test_a_robot_that_was_told_to_stand_is_not_blocked(controller) -> None:
    base = Base(controller)
    base.pass_s(0.2, 0.0)
    base.plan()
    base.pass_s(1.0, V_MPS)
    assert controller._state == "driving"
    base.pass_s(0.9, 0.0, told=False)  # old odometry: it is told to stand, and does
    assert controller._state.startswith("odometry is 0.9 s old")
    base.pass_s(0.5, 0.5 * V_MPS)
    assert (controller._state, controller._stalls) == ("driving", 0)


def test_a_robot_that_is_told_to_drive_and_stands_is_blocked(controller) -> None:
    base = Base(controller)
    base.pass_s(0.2, 0.0)
    base.plan()
    base.pass_s(2.0, 0.0)
    assert controller._stalls == 1 and controller._state.startswith("blocked")


def limits(controller, a_max_mps2: float) -> None:
    values = {"follower.limits.a_max_mps2": a_max_mps2, "follower.limits.v_max_mps": 0.6}
    found = controller.set_parameters([Parameter(name, value=value) for name, value in values.items()])
    assert all(each.successful for each in found)


def test_every_start_is_as_soft_as_the_limit_says(controller) -> None:
    """Also the first one of all, and those after a short and after a long stand."""
    base, sent = Base(controller), []
    controller._commands = SimpleNamespace(publish=lambda message: sent.append(message.linear.x), topic_name="cmd_vel")
    limits(controller, 1.0)
    for stand_s in (0.0, 0.1, 3.0):
        controller._drop_plan("a stand")
        base.pass_s(stand_s, 0.0)
        base.plan()
        sent.clear()
        base.pass_s(0.5, V_MPS)
        steps = np.diff([0.0, *sent])
        assert len(sent) == 10 and steps.max() <= 1.0 * TICK_S + 1e-9 and sent[-1] > 0.3


def test_a_robot_that_is_blocked_backs_off_and_pushes_no_further(controller) -> None:
    base, sent = Base(controller), []
    controller._commands = SimpleNamespace(publish=lambda message: sent.append(message.linear.x), topic_name="cmd_vel")
    limits(controller, 1.0)
    base.pass_s(0.2, 0.0)
    base.plan()
    while not controller._stalls:
        base.pass_s(TICK_S, 0.0)
    assert max(sent) > 0.3
    base.pass_s(0.1, 0.0)
    sent.clear()
    poses = np.column_stack([base.x_m - 0.03 * np.arange(1, 9), np.zeros(8), np.zeros(8)])
    path = PathMessage(header=messages.header(base.now_s + 0.01, "odom"))
    path.poses = messages.pose_list(poses, list(base.now_s + 0.25 * np.arange(1, 9)), "odom")
    controller._take_plan(path)
    base.pass_s(0.3, 0.0)
    assert len(sent) >= 5 and max(sent) <= 0.0 and min(sent) < -0.05


def test_the_watchdogs_follow_their_parameters_while_the_robot_drives(controller) -> None:
    values = {"max_silence_s": 0.3, "max_odometry_age_s": 0.2}
    found = controller.set_parameters([Parameter(name, value=value) for name, value in values.items()])
    assert all(each.successful for each in found)
    assert (controller._plan_stream.limit_s, controller._odometry_stream.limit_s) == (0.3, 0.2)
