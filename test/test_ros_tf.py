"""With tf2_msgs and nav2_msgs, which no package index has: tf is heard, and Nav2 gets its paths.

What runs is in ros_tf_checks.py. The interfaces are compiled once from definitions, into the user's cache; without a
network, or without the tools, the tests say so and skip.
"""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from ros_distros import JAZZY, Environment, skipping

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jazzy() -> Environment:
    with skipping():
        made = Environment(JAZZY)
        made.prepare()
        made.build_interfaces(("tf2_msgs", "nav2_msgs"))
    return made


@pytest.mark.parametrize("tests", ["namespaced", "nav2"])
def test_nodes_with_tf(jazzy: Environment, tests: str):
    jazzy.passes("test/ros_tf_checks.py", tests, 600.0)
