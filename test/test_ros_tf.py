"""With tf2_msgs and nav2_msgs, which no package index has: tf is heard, and Nav2 gets its paths.

What runs is in ros_tf_checks.py. The interfaces are compiled once from definitions, into the user's cache; without a
network, or without the tools, the tests say so and skip.
"""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from ros_distros import JAZZY, Environment, NotHereError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jazzy() -> Environment:
    try:
        made = Environment(JAZZY)
        made.prepare()
        made.build_interfaces(("tf2_msgs", "nav2_msgs"))
    except NotHereError as error:
        pytest.skip(str(error))
    return made


@pytest.mark.parametrize("tests", ["namespaced", "nav2"])
def test_nodes_with_tf(jazzy: Environment, tests: str):
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-rs", "test/ros_tf_checks.py", "-k", tests]
    done = jazzy.run(words, 600.0)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
