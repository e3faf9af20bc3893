"""The controller by itself, without DDS between: what it takes for a robot that is blocked."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
import rclpy
from nav_msgs.msg import Path as PathMessage

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
