"""The topic of obstacles: clouds in odom are taken, others are refused with the reason."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from come_nav.core.types import CameraIntrinsics, Frame, Odometry
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.navigation.goals.obstacles import ObstacleMap
from come_nav.navigation.goals.settings import ObstacleSettings
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.navigation.settings import NavigatorSettings
from come_nav.ros import messages
from come_nav.ros.nodes.spatial_memory_node import SpatialMemoryNode
from come_nav.ros.obstacles import OBSTACLE_PARAMETERS, ObstacleInput, obstacle_settings
from come_nav.ros.planner.navigator_parameters import NAVIGATOR_PARAMETERS, navigator_settings
from come_nav.ros.transforms import camera_pose

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


class Wall:
    """A spatial memory node, its own methods alone, before a wall 1 m ahead; and the planner's map of obstacles."""

    def __init__(self) -> None:
        cloud, self.told = SpatialMemory(SpatialSettings()), ObstacleMap(ObstacleSettings(max_age_s=2.0))
        self.node = SpatialMemoryNode.__new__(SpatialMemoryNode)
        self.node.__dict__.update(
            values={parameter.name: parameter.default for parameter in SpatialMemoryNode.PARAMETERS},
            _surfaces=cloud,
            _memory=cloud,
            _clouds={cloud: None},
            _obstacles=SimpleNamespace(publish=self.see),
            _localisation=RobotLocalisation(LocalisationSettings(use=False)),
            _latency=SimpleNamespace(add=lambda seconds: None),
            _map_odom=SimpleNamespace(on=False),
            _verdicts={},
            _last_stamp_s=float("-inf"),
            _pose_odom_xyyaw=None,
            _looks=0,
            _failure=None,
        )

    def see(self, cloud) -> None:
        self.told.see(messages.points_from_cloud(cloud), messages.seconds_from_stamp(cloud.header.stamp))

    def frame(self, stamp_s: float) -> None:
        camera, depth_m = CameraIntrinsics.from_field_of_view(64, 48, 1.5), np.full((48, 64), 1.0, np.float32)
        extrinsics = camera_pose((0.0, 0.0, 0.5, 0.0, 0.0, 0.0))
        frame = Frame(stamp_s, np.zeros((48, 64, 3), np.uint8), depth_m, camera, extrinsics, "camera")
        matched = SimpleNamespace(stamp_s=stamp_s, odometry=Odometry(stamp_s, np.eye(4)))
        self.node._camera = SimpleNamespace(frames=lambda due: [(frame, matched, 0.0)])
        self.node._remember()
        self.node._publish_obstacles()

    @property
    def way_is_clear(self) -> bool:
        return self.told.clear(np.zeros(2), np.array([1.5, 0.0]))


def test_a_memory_that_was_emptied_says_nothing_until_it_has_seen_what_stands_in_the_way():
    wall = Wall()
    for step in range(4):
        wall.frame(100.0 + 0.25 * step)
    assert not wall.way_is_clear
    wall.told = ObstacleMap(ObstacleSettings(max_age_s=2.0))
    wall.node._obey("reset")
    wall.node._publish_obstacles()
    assert wall.told.blindness(101.0)  # whoever plans stands
    wall.frame(101.25)
    assert wall.told.blindness(101.25)
    wall.frame(101.5)
    assert not wall.told.blindness(101.5) and not wall.way_is_clear
