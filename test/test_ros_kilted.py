"""ROS 2 Kilted beside Jazzy: the nodes start and drive there as well, and the action is compiled and served.

What runs in Kilted is in ros_kilted_checks.py. Without a network, or without the tools, the tests say so and skip.
"""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from ros_distros import KILTED, Environment, NotHereError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kilted() -> Environment:
    try:
        made = Environment(KILTED)
        made.prepare()
    except NotHereError as error:
        pytest.skip(str(error))
    return made


def passes(kilted: Environment, tests: str, patience_s: float) -> None:
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-rs", "test/ros_kilted_checks.py", "-k", tests]
    done = kilted.run(words, patience_s)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_the_nodes_run_in_kilted(kilted: Environment):
    passes(kilted, "not action", 400.0)


def test_the_action_is_compiled_and_drives_to_an_image(kilted: Environment):
    try:
        kilted.build_interfaces()
    except NotHereError as error:
        pytest.skip(str(error))
    passes(kilted, "action", 400.0)
