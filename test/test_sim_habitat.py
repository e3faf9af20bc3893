"""Habitat's adapter against a recorded stand-in for habitat_sim that runs in the real worker process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.habitat.simulator import HabitatSimulator, habitat_from_ros, ros_from_habitat

# What habitat-sim 0.3 offers of its interface, with a room of 4 x 4 m around the origin: colour tells the heading,
# depth the distance to the wall ahead, both from the agent's state in Habitat's axes.
STUB = """
import math
import numpy as np


class Bag:
    pass


class SensorType:
    COLOR, DEPTH = 1, 2


SimulatorConfiguration = CameraSensorSpec = AgentState = Bag


class agent:
    AgentConfiguration = Bag


class Configuration:
    def __init__(self, scene, agents):
        self.scene, self.agents = scene, agents


class PathFinder:
    is_loaded = True

    def get_random_navigable_point(self):
        return np.array([0.5, 0.1, -0.5], np.float32)

    def snap_point(self, point):
        inside = abs(point[0]) < 1.8 and abs(point[2]) < 1.8
        return np.array([point[0], 0.1, point[2]], np.float32) if inside else np.full(3, np.nan, np.float32)

    def try_step_no_sliding(self, start, end):
        return np.clip(end, [-1.8, 0.1, -1.8], [1.8, 0.1, 1.8]).astype(np.float32)


class Agent:
    def set_state(self, state):
        self.state = state


class Simulator:
    def __init__(self, configuration):
        print("habitat-sim logs to standard output")
        if not configuration.scene.scene_id.endswith(".glb"):
            raise RuntimeError("cannot load the scene")
        self.pathfinder, self._agent = PathFinder(), Agent()
        self.sensors = {spec.uuid: spec for spec in configuration.agents[0].sensor_specifications}
        assert abs(self.sensors["color"].hfov - 90.0) < 1e-3

    def seed(self, seed):
        pass

    def get_agent(self, index):
        return self._agent

    def get_sensor_observations(self):
        x, y, z, w = self._agent.state.rotation
        yaw = 2.0 * math.atan2(y, w)
        ahead = np.array([-math.sin(yaw), 0.0, -math.cos(yaw)])  # Habitat looks along -z
        position = np.asarray(self._agent.state.position, float)
        with np.errstate(divide="ignore"):
            walls = (np.where(ahead > 0, 2.0, -2.0) - position) / ahead
        depth = min(walls[0], walls[2])
        height, width = self.sensors["color"].resolution
        colour = np.zeros((height, width, 4), np.uint8)
        colour[..., 0] = round(127 + 127 * ahead[0])
        colour[..., 1] = round(127 + 127 * ahead[2])
        colour[..., 3] = 255
        return {"color": colour, "depth": np.full((height, width), depth, np.float32)}
"""


@pytest.fixture
def habitat(tmp_path: Path, monkeypatch) -> HabitatSimulator:
    (tmp_path / "habitat_sim.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    camera = CameraIntrinsics.from_field_of_view(8, 6, np.pi / 2)
    simulator = HabitatSimulator("room.glb", camera, python=sys.executable)
    assert os.getsid(simulator._process.pid) != os.getsid(0)  # Ctrl-C in the terminal does not end it before us
    yield simulator
    simulator.close()


def test_axes_are_those_of_rep_103():
    ahead, left, up = np.eye(3)
    np.testing.assert_array_equal(habitat_from_ros(ahead), [0, 0, -1])
    np.testing.assert_array_equal(habitat_from_ros(left), [-1, 0, 0])
    np.testing.assert_array_equal(habitat_from_ros(up), [0, 1, 0])
    points = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(ros_from_habitat(habitat_from_ros(points)), points)


@pytest.mark.parametrize(("yaw", "depth_m"), [(0.0, 1.0), (np.pi / 2, 2.5), (np.pi, 3.0), (-np.pi / 2, 1.5)])
def test_views_turn_with_the_robot(habitat, yaw, depth_m):
    habitat.reset(np.array([1.0, -0.5, yaw]))  # walls stand at +-2 m
    frame, odometry = habitat.observe()
    assert frame.rgb.shape == (6, 8, 3)
    np.testing.assert_allclose(frame.depth_m, depth_m, rtol=1e-5)
    ahead = (frame.rgb[0, 0, :2].astype(float) - 127) / 127  # Habitat's x and z of the viewing direction
    np.testing.assert_allclose([-ahead[1], -ahead[0]], [np.cos(yaw), np.sin(yaw)], atol=0.01)
    np.testing.assert_array_equal(odometry.pose_xyyaw, 0.0)


def test_driving_moves_until_a_wall(habitat):
    habitat.reset(np.array([0.0, 0.0, np.pi / 2]))
    assert not any(habitat.step(0.4, 0.0, 0.25) for _ in range(8))
    x, y, yaw = habitat.pose_world_xyyaw
    assert x == pytest.approx(0.0, abs=1e-5)
    assert 0.6 < y < 0.81
    assert yaw == pytest.approx(np.pi / 2)
    assert habitat.time_s == pytest.approx(2.0)
    np.testing.assert_allclose(habitat.odometry().pose_xyyaw[:2], [y, 0.0], atol=1e-5)
    assert any(habitat.step(0.6, 0.0, 0.25) for _ in range(20))
    assert habitat.pose_world_xyyaw[1] <= 1.8
    assert habitat.collisions > 0


def test_random_starts_are_where_the_scene_allows(habitat):
    habitat.reset()
    np.testing.assert_allclose(habitat.pose_world_xyyaw[:2], [0.5, -0.5], atol=1e-6)
    with pytest.raises(ConfigError, match="nobody can stand at"):
        habitat.reset(np.array([5.0, 0.0, 0.0]))


def test_faults_are_told_in_one_line(tmp_path, monkeypatch, habitat):
    camera = CameraIntrinsics.from_field_of_view(8, 6, np.pi / 2)
    with pytest.raises(ConfigError, match="scene is empty"):
        HabitatSimulator("", camera)
    with pytest.raises(ConfigError, match="cannot be started"):
        HabitatSimulator("room.glb", camera, python="/no/such/python")
    with pytest.raises(ConfigError, match=r"Habitat: RuntimeError: cannot load the scene"):
        HabitatSimulator("room.txt", camera, python=sys.executable)
    habitat._process.kill()
    habitat._process.wait()
    with pytest.raises(DataError, match="the Habitat process ended"):
        habitat.observe()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="No module named 'habitat_sim'"):
        HabitatSimulator("room.glb", camera, python=sys.executable)
