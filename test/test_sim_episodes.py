"""Scripted drivers and the drives they make; drives as recordings; the simulator protocol."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2, se3
from come_nav.core.protocols import Recording
from come_nav.sim.builtin import BuiltInSimulator, ideal_camera
from come_nav.sim.driving.drivers import DRIVERS
from come_nav.sim.driving.grid_planner import GridPlanner
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.robot import RobotSettings
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.worlds import World, generate_world

WORLD_SEEDS = (2, 5, 10004)


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [generate_world(seed) for seed in WORLD_SEEDS]


@pytest.mark.parametrize("driver", DRIVERS)
def test_drives_are_smooth_and_touch_nothing(worlds, driver):
    for world in worlds:
        episode = simulate_episode(world, driver, 90.0, seed=3)
        assert episode.collisions == 0
        assert (world.distance(torch.from_numpy(episode.poses_world_xyyaw[:, :2])) > 0.2).all()
        assert 0.2 < episode.path_length_m / 90.0 < 0.6
        v, w = episode.twists.T
        assert v.max() <= 0.6 + 1e-9 and np.abs(w).max() <= 1.5 + 1e-9
        assert np.abs(np.diff(v)).max() <= 1.0 * 0.25 + 1e-9 and np.abs(np.diff(w)).max() <= 3.0 * 0.25 + 1e-9
        steps = np.diff(episode.poses_world_xyyaw[:, :2], axis=0)
        assert np.hypot(*steps.T).max() <= 0.6 * 0.25 + 1e-6


@pytest.mark.parametrize("driver", DRIVERS)
def test_turns_go_both_ways(worlds, driver):
    turns = np.concatenate([simulate_episode(world, driver, 60.0, seed=0).twists[:, 1] for world in worlds])
    assert (turns > 0.2).mean() > 0.05 and (turns < -0.2).mean() > 0.05


def test_tours_visit_rooms_and_come_back(worlds):
    for world in worlds:
        episode = simulate_episode(world, "tour", 180.0, seed=1)
        positions = episode.poses_world_xyyaw[:, :2]
        rooms = world.room_of(torch.from_numpy(positions)).numpy()
        assert len(set(rooms)) >= 0.7 * len(world.rooms)
        changes = rooms[np.flatnonzero(np.diff(rooms)) + 1]
        assert len(changes) > len(set(changes))  # some room is entered again
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        apart = np.abs(np.subtract.outer(np.arange(len(positions)), np.arange(len(positions)))) > 4 * 20
        revisited = ((distance < 0.5) & apart).any(1)
        assert revisited.mean() > 0.2


def test_same_seed_same_drive(worlds):
    noise = OdometrySettings.from_percent(2.0)
    for driver in DRIVERS:
        one = simulate_episode(worlds[0], driver, 20.0, seed=4, odometry_noise=noise)
        two = simulate_episode(generate_world(WORLD_SEEDS[0]), driver, 20.0, seed=4, odometry_noise=noise)
        other = simulate_episode(worlds[0], driver, 20.0, seed=5, odometry_noise=noise)
        np.testing.assert_array_equal(one.poses_world_xyyaw, two.poses_world_xyyaw)
        np.testing.assert_array_equal(one.odometry_xyyaw, two.odometry_xyyaw)
        assert np.abs(one.poses_world_xyyaw - other.poses_world_xyyaw).max() > 0.1


@pytest.mark.parametrize("rate_hz", [4.0, 7.5, 30.0])
def test_times_and_odometry(worlds, rate_hz):
    episode = simulate_episode(worlds[1], "wander", 10.0, rate_hz, seed=2)
    assert len(episode.stamps_s) == int(10 * rate_hz) + 1 and episode.stamps_s[0] == 0.0
    np.testing.assert_allclose(np.diff(episode.stamps_s), 1 / rate_hz, rtol=1e-9)
    truth = se2.relative(episode.poses_world_xyyaw[:1], episode.poses_world_xyyaw)
    np.testing.assert_allclose(episode.odometry_xyyaw, truth, atol=1e-9)
    noisy = simulate_episode(
        worlds[1], "wander", 10.0, rate_hz, seed=2, odometry_noise=OdometrySettings(scale_percent=5.0)
    )
    np.testing.assert_array_equal(noisy.poses_world_xyyaw, episode.poses_world_xyyaw)  # noise moves no robot
    assert np.abs(noisy.odometry_xyyaw - truth).max() > 1e-3


def test_a_slower_robot_obeys_its_own_limits(worlds):
    robot = RobotSettings(v_max_mps=0.2, w_max_radps=0.4, radius_m=0.15)
    episode = simulate_episode(worlds[0], "tour", 20.0, robot=robot)
    assert np.abs(episode.twists[:, 0]).max() <= 0.2 + 1e-9 and np.abs(episode.twists[:, 1]).max() <= 0.4 + 1e-9


def test_planner_paths_keep_clear(worlds):
    planner = GridPlanner(worlds[2], 0.2)
    rng = np.random.default_rng(0)
    for _ in range(8):
        start, goal = planner.random_point(rng, 0.4), planner.random_point(rng, 0.4)
        path = planner.plan(start, goal)
        assert path is not None
        np.testing.assert_allclose(path[0], start)
        np.testing.assert_allclose(path[-1], goal, atol=1e-9)
        assert np.hypot(*np.diff(path, axis=0).T).max() < 0.3
        assert (worlds[2].distance(torch.from_numpy(path)) > 0.2).all()


def test_bad_drives(worlds):
    with pytest.raises(ConfigError, match="did you mean 'wander'"):
        simulate_episode(worlds[0], "wonder")
    with pytest.raises(ConfigError, match="rate_hz"):
        simulate_episode(worlds[0], "tour", rate_hz=0.0)
    with pytest.raises(ConfigError, match="duration_s"):
        simulate_episode(worlds[0], "tour", duration_s=0.01)


def test_recording(worlds):
    noise = OdometrySettings.from_percent(3.0)
    episode = simulate_episode(worlds[0], "tour", 20.0, seed=1, odometry_noise=noise)
    raycaster = Raycaster(worlds, ideal_camera(), camera_height_m=0.6)
    recording = EpisodeRecording(episode, raycaster)
    assert isinstance(recording, Recording)
    assert len(recording) == 81 and recording.rate_hz == pytest.approx(4.0)
    assert recording.metadata["world"] == 2 and recording.metadata["driver"] == "tour"
    np.testing.assert_allclose(recording.metadata["pose_world_start"], episode.poses_world_xyyaw[0])
    np.testing.assert_allclose(recording.T_odom_base[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(se3.xyyaw_from_transform(recording.T_odom_base), recording.poses_xyyaw, atol=1e-12)
    truth = EpisodeRecording(episode, raycaster, use_truth=True)
    np.testing.assert_allclose(
        se2.compose(episode.poses_world_xyyaw[:1], truth.poses_xyyaw)[:, :2], episode.poses_world_xyyaw[:, :2]
    )
    assert np.abs(truth.poses_xyyaw - recording.poses_xyyaw).max() > 1e-3
    for index in (0, 1, 2, 40, 41, 5, 80):  # in order (rendered in batches) and out of order
        frame = recording.frame(index)
        pose = torch.from_numpy(episode.poses_world_xyyaw[index : index + 1])
        images, depth = raycaster.render(pose, torch.tensor([0]))
        assert frame.stamp_s == episode.stamps_s[index] and frame.rgb.dtype == np.uint8
        assert np.abs(frame.rgb.astype(int) - to_uint8(images)[0].astype(int)).max() <= 1
        np.testing.assert_allclose(frame.depth_m, depth[0].numpy(), rtol=1e-5)
    with pytest.raises(DataError, match="frame 81"):
        recording.frame(81)


def test_depth_and_camera_pose_of_a_recording_agree(worlds):
    """Points seen from two poses, lifted with depth, intrinsics and poses, lie on the same surfaces."""
    episode = simulate_episode(worlds[1], "tour", 12.0, seed=0)
    recording = EpisodeRecording(episode, Raycaster(worlds, ideal_camera()), use_truth=True)
    first, second = recording.frame(20), recording.frame(24)
    camera = recording.intrinsics
    u, v = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    depth = first.depth_m.astype(float)
    points = np.stack([(u - camera.cx) / camera.fx * depth, (v - camera.cy) / camera.fy * depth, depth], -1)
    T_odom = recording.T_odom_base @ recording.T_base_camera
    moved = se3.transform_points(se3.inverse(T_odom[24]) @ T_odom[20], points.reshape(-1, 3))
    column = camera.fx * moved[:, 0] / moved[:, 2] + camera.cx
    row = camera.fy * moved[:, 1] / moved[:, 2] + camera.cy
    seen = (moved[:, 2] > 0.1) & (column > 0) & (column < 64) & (row > 0) & (row < 64)
    measured = second.depth_m[row[seen].astype(int), column[seen].astype(int)]
    assert seen.sum() > 500
    assert np.median(np.abs(measured - moved[seen, 2]) / moved[seen, 2]) < 0.02


def test_recording_needs_the_right_world(worlds):
    episode = simulate_episode(worlds[0], "wander", 2.0)
    with pytest.raises(ConfigError, match="world 2"):
        EpisodeRecording(episode, Raycaster(worlds[1:], ideal_camera()))


def test_simulator_drives_and_observes(worlds):
    simulator = BuiltInSimulator.in_world(worlds[0], ideal_camera(), seed=7)
    start = simulator.pose_world_xyyaw
    assert bool(worlds[0].free(torch.from_numpy(start[:2]), 0.35))
    assert simulator.step(0.0, 0.8, 1.03) in (False, True)
    assert simulator.time_s == pytest.approx(1.03)
    frame, odometry = simulator.observe()
    assert frame.stamp_s == odometry.stamp_s == simulator.time_s
    turned = se2.wrap_angle(simulator.pose_world_xyyaw[2] - start[2])
    assert odometry.pose_xyyaw[2] == pytest.approx(turned) and 0.4 < turned < 0.8
    expected, _ = simulator.renderer.render(torch.from_numpy(simulator.pose_world_xyyaw[None]))
    np.testing.assert_array_equal(frame.rgb, to_uint8(expected)[0])


def test_simulator_reports_collisions_and_stands_still(worlds):
    simulator = BuiltInSimulator.in_world(worlds[0], ideal_camera(), seed=1)
    collided = [simulator.step(0.6, 0.0, 0.25) for _ in range(120)]
    assert any(collided) and simulator.collisions >= sum(collided)
    stuck = simulator.pose_world_xyyaw
    simulator.step(0.6, 0.0, 0.5)
    assert np.abs(simulator.pose_world_xyyaw - stuck).max() < 0.03
    assert float(worlds[0].distance(torch.from_numpy(stuck[:2]))) > 0.2


def test_simulator_reset(worlds):
    simulator = BuiltInSimulator.in_world(
        worlds[0], ideal_camera(), odometry_noise=OdometrySettings.from_percent(4.0), seed=3
    )
    first = simulator.pose_world_xyyaw
    simulator.step(0.5, 0.3, 1.0)
    simulator.reset(first)
    np.testing.assert_allclose(simulator.pose_world_xyyaw, first)
    assert simulator.time_s == 0.0 and np.abs(simulator.observe()[1].pose_xyyaw).max() == 0.0
    simulator.reset()
    assert np.abs(simulator.pose_world_xyyaw - first).max() > 1e-6
    wall = np.array([*worlds[0].solid[0, :2], 0.0])
    with pytest.raises(ConfigError, match="must be free"):
        simulator.reset(wall)
    with pytest.raises(ConfigError, match="duration_s"):
        simulator.step(0.1, 0.0, -1.0)
    with pytest.raises(ConfigError, match="finite"):
        simulator.step(math.nan, 0.0, 1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        simulator.config.radius_m = 1.0  # type: ignore[misc]
