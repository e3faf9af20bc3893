"""ROS 2 Kilted beside Jazzy: the nodes start and drive there as well, and the action is compiled and served.

What runs in Kilted is in ros_kilted_checks.py. Without a network, or without the tools, the tests say so and skip.
"""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from ros_distros import KILTED, Environment, skipping

pytestmark = pytest.mark.slow
CHECKS = "test/ros_kilted_checks.py"


@pytest.fixture(scope="module")
def kilted() -> Environment:
    with skipping():
        made = Environment(KILTED)
        made.prepare()
    return made


def test_the_nodes_run_in_kilted(kilted: Environment):
    kilted.passes(CHECKS, "not action", 400.0)


def test_the_action_is_compiled_and_drives_to_an_image(kilted: Environment):
    with skipping():
        kilted.build_interfaces()
    kilted.passes(CHECKS, "action", 400.0)
