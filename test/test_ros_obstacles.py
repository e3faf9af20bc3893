"""The topic of obstacles: clouds in odom are taken, others are refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from come_nav.navigation.goals.obstacles import ObstacleMap
from come_nav.navigation.goals.settings import ObstacleSettings
from come_nav.navigation.settings import NavigatorSettings
from come_nav.ros import messages
from come_nav.ros.obstacles import OBSTACLE_PARAMETERS, ObstacleInput, obstacle_settings
from come_nav.ros.planner.navigator_parameters import NAVIGATOR_PARAMETERS, navigator_settings

DEFAULTS = {parameter.name: parameter.default for parameter in NAVIGATOR_PARAMETERS}


class FakeNode:
    """As much of a node as obstacles ask for."""

    topic = "/obstacles"

    def __init__(self) -> None:
        self.values = {"odom_frame": "odom"}
        self.now_s = lambda: 1.0
        self.refused: list[str] = []
        self.taken = 0

    def watch(self, *facts, **more):
        return self

    def failed(self, steady_s: float, reason: str) -> None:
        self.refused.append(reason)

    def received(self, steady_s: float) -> None:
        self.taken += 1


def test_a_cloud_in_odom_is_taken_and_one_in_another_frame_is_not():
    node, obstacles = FakeNode(), ObstacleMap()
    entry = ObstacleInput(node, obstacles)
    cloud = np.array([[1.0, 2.0, 0.5], [3.0, 0.0, 0.02]], np.float32)
    entry.take(messages.cloud_message(cloud, None, 0.0, "odom"))
    np.testing.assert_allclose(obstacles.points_odom_xy, [[1.0, 2.0]])
    entry.take(messages.cloud_message(cloud[:0], None, 0.0, "map"))
    assert node.refused == ["obstacles are in frame 'map', must be 'odom'"]
    assert node.taken == 1
    assert entry.reports()[0].values["points"] == 1


def test_a_source_that_is_missing_or_frozen_is_an_error_that_says_what_to_do():
    node, obstacles = FakeNode(), ObstacleMap(ObstacleSettings(max_age_s=2.0))
    entry = ObstacleInput(node, obstacles)
    assert "no cloud of obstacles has come yet on /obstacles; start spatial_memory" in entry.reports()[0].message
    entry.take(messages.cloud_message(np.zeros((0, 3), np.float32), None, 0.5, "odom"))  # an empty one is one
    assert entry.reports()[0].level == 0
    node.now_s = lambda: 3.0
    assert entry.reports()[0].level == 2
    assert "the newest obstacles are of 2.5 s ago, allowed are 2 s" in entry.reports()[0].message


def test_clouds_too_far_away_for_their_numbers_are_refused():
    """At UTM's coordinates float32 counts half metres: the robot would keep away from where nothing is."""
    node, obstacles = FakeNode(), ObstacleMap()
    entry = ObstacleInput(node, obstacles)
    for far, taken in ((60_000.0, 1), (5_400_000.0, 1)):
        entry.take(messages.cloud_message(np.array([[1.0, far, 0.5]], np.float32), None, 0.0, "odom"))
        assert node.taken == taken
    assert "5400 km from the origin of 'odom', where float32 counts in steps of 0.5 m" in node.refused[0]


def test_parameters_and_settings_have_the_same_defaults():
    live = ObstacleSettings(max_age_s=2.0)  # of a topic, which may fall silent
    assert obstacle_settings({own.name: own.default for own in OBSTACLE_PARAMETERS}) == live
    assert navigator_settings(DEFAULTS) == NavigatorSettings(obstacles=live)


def test_parameters_reach_the_settings_they_are_named_for():
    changed = {"recognised": 0.3, "use_route": False, "goal_tolerance_m": 0.5, "lookahead_m": 2.0}
    found = navigator_settings({**DEFAULTS, **changed, "keyframes.spacing_m": 1.5, "robot_radius_m": 0.4})
    assert (found.recognition.recognised, found.arrival.tolerance_m, found.guide.lookahead_m) == (0.3, 0.5, 2.0)
    assert (found.keyframes.spacing_m, found.obstacles.radius_m) == (1.5, 0.4)
    assert not found.guiding.use_ways
