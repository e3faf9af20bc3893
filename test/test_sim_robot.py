"""Robot limits, collisions, and the statistics of wheel odometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.sim.robot import CollisionMap, Robot, RobotSettings
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry
from come_nav.sim.worlds import World, generate_world


@pytest.fixture(scope="module")
def world() -> World:
    return generate_world(1)


def open_pose(world: World) -> tuple[float, float, float]:
    column, row = np.unravel_index(world.distance_grid.argmax(), world.distance_grid.shape)
    return (column + 0.5) * 0.05, (row + 0.5) * 0.05, 0.3


def test_speed_and_acceleration_limits(world):
    robot = Robot(world, RobotSettings(), open_pose(world))
    speeds = [(0.0, 0.0)]
    for _ in range(16):
        robot.step(5.0, -9.0)
        speeds.append((robot.v_mps, robot.w_radps))
    for _ in range(10):
        robot.step(-5.0, 9.0)
        speeds.append((robot.v_mps, robot.w_radps))
    speeds = np.array(speeds)
    assert speeds[:, 0].max() == pytest.approx(0.6) and speeds[:, 1].min() == pytest.approx(-1.5)
    change = np.abs(np.diff(speeds, axis=0)) / 0.05
    assert change[:, 0].max() <= 1.0 + 1e-9 and change[:, 1].max() <= 3.0 + 1e-9


@settings(max_examples=30, deadline=None)
@given(v=st.floats(0.0, 0.6), w=st.floats(-1.5, 1.5))
def test_constant_twist_is_an_exact_arc(world, v, w):
    robot = Robot(world, RobotSettings(v_acceleration=20.0, w_acceleration=50.0), open_pose(world))
    start = np.array([robot.x, robot.y, robot.yaw])
    for _ in range(12):
        assert not robot.step(v, w)
    expected = se2.compose(start, se2.integrate_twist(np.float64(v), np.float64(w), 0.6))
    np.testing.assert_allclose([robot.x, robot.y, robot.yaw], expected, atol=1e-9)


def test_collision_stops_the_robot_before_the_obstacle(world):
    x, y, _ = open_pose(world)
    for yaw in np.linspace(-3, 3, 7):
        robot = Robot(world, RobotSettings(), (x, y, float(yaw)))
        hits = [robot.step(0.6, 0.0) for _ in range(600)]
        assert any(hits) and robot.collisions == sum(hits)
        first = hits.index(True)
        distance = float(world.distance(torch.tensor([robot.x, robot.y], dtype=torch.float64)))
        assert 0.2 < distance < 0.2 + 0.04
        assert robot.v_mps <= 0.05 + 1e-9 and first > 5
        for _ in range(20):  # it may still turn away
            robot.step(0.0, 1.0)
        assert abs(se2.wrap_angle(np.float64(robot.yaw - yaw))) > 0.3


def test_collision_map_is_exact(world):
    grid = CollisionMap(world)
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(400, 2, generator=generator, dtype=torch.float64) * torch.tensor(world.bounds[2:])
    for radius in (0.0, 0.2, 0.35):
        free = world.free(points, radius).tolist()
        assert [not grid.touches(x, y, radius) for x, y in points.tolist()] == free
    assert grid.touches(-0.5, 3.0, 0.1) and grid.touches(3.0, 99.0, 0.1)


def drive(length_m: float, turn_rad: float, steps: int) -> np.ndarray:
    """Poses (steps + 1, 3) of an arc."""
    fraction = np.linspace(0.0, 1.0, steps + 1)
    return se2.integrate_twist(length_m * fraction, turn_rad * fraction, 1.0)


def final_poses(noise: OdometrySettings, path: np.ndarray, runs: int = 3000) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return np.stack([WheelOdometry(noise, generator).advance(path)[-1] for _ in range(runs)])


def within(sample: np.ndarray, expected: float) -> bool:
    """Whether a standard deviation fits: its own deviation is sigma / sqrt(2 n); allow four of them."""
    return abs(sample.std() - expected) < 4 * expected / math.sqrt(2 * len(sample))


@pytest.mark.parametrize("steps", [40, 400])
def test_white_distance_noise_has_the_stated_percent(steps):
    poses = final_poses(OdometrySettings(distance_percent=3.0), drive(4.0, 0.0, steps), 1000)
    assert within(poses[:, 0], 0.03 * math.sqrt(4.0)) and abs(poses[:, 0].mean() - 4.0) < 0.008
    assert np.abs(poses[:, 1:]).max() < 1e-9


@pytest.mark.parametrize("steps", [40, 400])
def test_white_rotation_noise_has_the_stated_percent(steps):
    poses = final_poses(OdometrySettings(rotation_percent=2.0), drive(0.0, 3.0, steps), 1000)
    assert within(poses[:, 2], 0.02 * math.sqrt(3.0))


def test_heading_noise_while_driving_straight():
    poses = final_poses(OdometrySettings(heading_percent=1.0), drive(9.0, 0.0, 90), 2000)
    assert within(poses[:, 2], 0.01 * math.sqrt(9.0))


def test_scale_drift_is_systematic():
    noise = OdometrySettings(scale_percent=2.0)
    poses = final_poses(noise, drive(10.0, 0.0, 50), 2000)
    assert within(poses[:, 0], 0.02 * 10.0)  # grows with the distance, not with its root
    odometry = WheelOdometry(noise, torch.Generator().manual_seed(3))
    first = odometry.advance(drive(1.0, 0.0, 5))[-1, 0]
    second = odometry.advance(drive(1.0, 0.0, 5))[-1, 0]
    assert second == pytest.approx(2 * first) and first != 1.0


def test_without_noise_odometry_is_the_truth():
    path = se2.compose(np.array([2.0, -1.0, 2.5]), drive(3.0, 5.0, 60))
    odometry = WheelOdometry(None, torch.Generator())
    poses = np.concatenate([odometry.advance(path[:20]), odometry.advance(path[19:])])
    np.testing.assert_allclose(poses, se2.relative(path[:1], path[1:]), atol=1e-9)


def test_noise_is_a_matter_of_the_generator():
    noise, path = OdometrySettings.from_percent(5.0), drive(3.0, 1.0, 60)
    one, two, other = (WheelOdometry(noise, torch.Generator().manual_seed(seed)).advance(path) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (RobotSettings, "v_max_mps", 0.0),
        (RobotSettings, "radius_m", 3.0),
        (RobotSettings, "step_s", math.nan),
        (OdometrySettings, "distance_percent", -1.0),
        (OdometrySettings, "scale_percent", 99.0),
    ],
)
def test_bad_settings_name_the_field(kind, field, value):
    with pytest.raises(ConfigError, match=field):
        kind(**{field: value})
