"""Sensor models against their closed forms: depth, colour, timing, odometry, drawn cameras; presets and the chain."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.builtin import BuiltInSimulator, default_camera
from come_nav.sim.capturing import poses_at
from come_nav.sim.episodes import EpisodeRecording, delivered, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import SensorChain, generator_of, mean_colour
from come_nav.sim.sensors.colour import ColourCamera, ColourSettings, Exposure, ExposureControl, linear
from come_nav.sim.sensors.depth import DepthCamera, DepthSettings, arccos
from come_nav.sim.sensors.mounting import CameraSettings, camera_in_base, draw_camera
from come_nav.sim.sensors.odometry import OdometrySettings, WheelOdometry
from come_nav.sim.sensors.settings import DEFAULT_SENSORS, PRESETS, REALISTIC, SensorSettings, sensor_settings
from come_nav.sim.sensors.timing import TimingSettings, draw_delivery
from come_nav.sim.worlds import World, generate_world

CAMERA = CameraIntrinsics.from_field_of_view(160, 120, math.pi / 2)
FRAMES = 8


@pytest.fixture(scope="module")
def world() -> World:
    return generate_world(3)


def generators(count: int = FRAMES, seed: int = 5) -> list[torch.Generator]:
    return [generator_of(seed, 1, index) for index in range(count)]


def wall(z_m: float, yaw_rad: float = 0.0, camera: CameraIntrinsics = CAMERA) -> torch.Tensor:
    """Depth (H, W) of a plane that the axis meets at ``z_m``, turned by ``yaw_rad``: z = z0 / (1 - x tan yaw)."""
    x = (torch.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    return (z_m / (1.0 - x * math.tan(yaw_rad)))[None].expand(camera.height, -1).contiguous()


def grey(level: float, camera: CameraIntrinsics = CAMERA) -> torch.Tensor:
    """An image (1, 3, H, W) in [-1, 1] of one linear level."""
    return torch.full((1, 3, camera.height, camera.width), 2.0 * math.sqrt(level) - 1.0)


def measured(settings: DepthSettings, depth: torch.Tensor, level: float = 0.5, seed: int = 5) -> np.ndarray:
    """Measured depth (FRAMES, H, W) of the same view."""
    many = depth.expand(FRAMES, -1, -1)
    images = grey(level).expand(FRAMES, -1, -1, -1)
    return DepthCamera(settings, CAMERA).measure(many, images, generators(seed=seed)).numpy()


# -- depth ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z_m", [0.6, 1.5, 3.0, 5.0])
def test_noise_along_the_axis_grows_as_nguyen_measured_it(z_m):
    settings = DepthSettings(noise_floor_m=0.0012, noise_per_m=0.0019)
    errors = measured(settings, wall(z_m)) - z_m
    expected = 0.0012 + 0.0019 * (z_m - 0.4) ** 2
    assert errors.std() == pytest.approx(expected, rel=0.02) and abs(errors.mean()) < 0.02 * expected


def test_noise_of_slanted_surfaces():
    settings = DepthSettings(noise_floor_m=0.001, noise_of_angle=0.0005)
    plane = wall(2.0, 1.2)
    x, y = (np.arange(160) + 0.5 - 80.0) / CAMERA.fx, ((np.arange(120) + 0.5 - 60.0) / CAMERA.fy)[:, None]
    theta = np.arccos(np.abs(1.0 - x * math.tan(1.2)) * math.cos(1.2) / np.sqrt(1.0 + x * x + y * y))
    expected = 0.001 + 0.0005 / np.sqrt(plane.numpy()) * (theta / (math.pi / 2 - theta)) ** 2
    errors = ((measured(settings, plane) - plane.numpy()) / expected)[:, :, 10:100]
    assert errors.std() == pytest.approx(1.0, rel=0.02) and expected[:, 10:100].max() > 5 * expected[:, 10:100].min()


def test_arccos_is_that_of_the_handbook():
    cosine = torch.linspace(0.0, 1.0, 1001)
    assert float((arccos(cosine) - torch.arccos(cosine)).abs().max()) < 7e-5


@pytest.mark.parametrize("z_m", [1.0, 2.7, 4.0])
def test_disparity_steps_grow_with_the_square_of_depth(z_m):
    settings = DepthSettings(disparity_step_px=0.125, baseline_m=0.075)
    plane = wall(z_m, 0.3)
    found = measured(settings, plane)[0]
    disparity = 580.0 * 0.075 / found.astype(np.float64) / 0.125
    np.testing.assert_allclose(disparity, disparity.round(), atol=2e-4)
    assert settings.step_m(z_m) == pytest.approx(z_m**2 * 0.125 / (580.0 * 0.075))
    in_steps = (found - plane.numpy()) / (plane.numpy() ** 2 * settings.step_m(1.0))
    assert np.abs(in_steps).max() <= 0.53
    assert in_steps.std() == pytest.approx(1.0 / math.sqrt(12.0), rel=0.1)  # a uniform error


def test_edges_fly_as_often_as_the_direction_of_a_pixel_crosses_them():
    spread_px = 0.5
    settings = DepthSettings(lateral_mrad=1e3 * spread_px / CAMERA.fx)
    depth = wall(1.0)
    depth[:, 80:] = 3.0
    at_edge = measured(settings, depth)[:, 5:-5, 79:81]
    flying = (at_edge > 1.2) & (at_edge < 2.8)  # 0.1 to 0.9 of the way, on one side of the edge
    share = 0.5 * (math.erf(0.9 / spread_px / math.sqrt(2)) - math.erf(0.1 / spread_px / math.sqrt(2)))
    assert flying.mean() == pytest.approx(share, abs=0.03)
    away = measured(settings, depth)[:, :, :78]
    np.testing.assert_allclose(away, 1.0, atol=1e-6)


def test_nothing_nearer_or_farther_than_the_range():
    settings = DepthSettings(near_m=0.3, far_m=6.0)
    for z_m, there in ((0.25, False), (0.35, True), (5.9, True), (6.1, False)):
        assert (measured(settings, wall(z_m)) > 0).all() == there
        assert (measured(settings, wall(z_m)) > 0).any() == there


def test_missing_at_grazing_angles():
    for yaw_deg, there in ((70.0, True), (84.0, False)):
        seen = measured(DepthSettings(grazing_deg=80.0), wall(2.0, math.radians(yaw_deg)))[0, 60, 78:82] > 0
        assert seen.all() == there and seen.any() == there


@pytest.mark.parametrize(("level", "z_m"), [(0.05, 3.0), (0.04, 2.0), (0.5, 9.0)])
def test_missing_where_too_little_light_comes_back(level, z_m):
    settings = DepthSettings(least_signal=0.006, signal_spread=0.6)
    many = [(measured(settings, wall(z_m), level, seed)[:, 56:64, 76:84] == 0).mean() for seed in range(6)]
    share = float(np.mean(many))
    shortfall = math.log(0.006 / (level / z_m**2)) / 0.6
    assert share == pytest.approx(0.5 * (1 + math.erf(shortfall / math.sqrt(2))), abs=0.05)


def test_missing_on_lamps_and_windows_and_never_invented():
    settings = DepthSettings(shiny_from=0.9)
    assert (measured(settings, wall(2.0), 0.95) == 0).all() and (measured(settings, wall(2.0), 0.5) > 0).all()
    nothing = torch.zeros(1, *wall(1.0).shape)
    nothing[:, :, :20] = float("nan")
    for preset in (settings, REALISTIC.depth):
        assert (DepthCamera(preset, CAMERA).measure(nothing, grey(0.5), generators(1)) == 0).all()


def test_what_one_of_two_cameras_alone_sees_is_missing():
    depth = wall(3.0)
    depth[:, 60:90] = 1.0  # the shadow is as wide as the difference of disparities: f b (1/1 - 1/3)
    seen = measured(DepthSettings(baseline_m=0.15), depth)[0] > 0
    width = CAMERA.fx * 0.15 * (1.0 - 1.0 / 3.0)
    assert (~seen[10]).sum() == pytest.approx(width, abs=1.1)
    assert (~seen[10, 52:60]).sum() == (~seen[10]).sum() and seen[10, 60:].all()


# -- colour ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_noise_is_poisson_and_gaussian(level, gain):
    settings = ColourSettings(full_well_e=6000.0, read_noise_e=10.0)
    taken = ColourCamera(settings, CAMERA).take(grey(level), [Exposure(gain=gain)], [0.0], generators(1))
    light = (taken[0] / 255.0) ** 2
    rounding = (2.0 * math.sqrt(level) / 255.0) ** 2 / 12.0
    assert light.var() == pytest.approx(settings.variance(level, gain) + rounding, rel=0.05)
    assert light.mean() == pytest.approx(level, rel=0.01)


def test_exposure_follows_a_step_of_light_with_its_lag():
    settings = ColourSettings(exposure_target=0.2, exposure_lag_s=0.5, exposure_s=0.01, highest_gain=100.0)
    control, stamps = ExposureControl(settings), np.arange(40) * 0.1
    levels = [control.next(float(t), np.full(3, 0.2 if t < 0.95 else 0.05)).level for t in stamps]
    np.testing.assert_allclose(levels[:11], 1.0)  # the frame in which light goes does not know yet
    after = np.arange(1, 30)
    expected = np.exp(np.log(4.0) * (1.0 - np.exp(-0.1 * after / 0.5)))
    np.testing.assert_allclose(levels[11:], expected, rtol=1e-9)


def test_long_exposures_end_in_gain():
    settings = ColourSettings(exposure_target=0.2, exposure_s=0.02, longest_exposure_s=0.03)
    first = ExposureControl(settings).next(0.0, np.full(3, 0.05))
    assert first.level == pytest.approx(4.0) and first.time_s == 0.03
    assert first.gain * first.time_s == pytest.approx(4.0 * 0.02)
    limited = ExposureControl(replace(settings, highest_gain=2.0)).next(0.0, np.full(3, 0.05))
    assert limited.level == pytest.approx(2.0)


def test_white_balance_is_a_share_of_grey_world():
    mean = np.array([0.4, 0.2, 0.1])
    full = ExposureControl(ColourSettings(white_balance=1.0)).next(0.0, mean)
    np.testing.assert_allclose(mean * full.white, 0.2)
    half = ExposureControl(ColourSettings(white_balance=0.5)).next(0.0, mean)
    np.testing.assert_allclose(half.white, np.sqrt([0.5, 1.0, 2.0]))


def test_vignetting_is_cos_to_the_fourth():
    taken = ColourCamera(ColourSettings(vignetting=1.0), CAMERA).take(grey(0.8), [Exposure()], [0.0], generators(1))
    x, y = (79.5 / 80.0, 59.5 / 80.0)
    assert (taken[0, 0, 0, 0] / 255.0) ** 2 == pytest.approx(0.8 / (1 + x * x + y * y) ** 2, rel=0.02)
    assert (taken[0, 60, 80, 0] / 255.0) ** 2 == pytest.approx(0.8, rel=0.01)


def test_blur_is_as_wide_as_the_turn_during_the_exposure():
    camera = CameraIntrinsics(101, 3, 500.0, 500.0, 50.5, 1.5)
    image = -torch.ones(1, 3, 3, 101)
    image[..., 50] = 1.0  # a bright column
    model = ColourCamera(ColourSettings(exposure_s=0.01), camera)
    taken = model.take(image, [Exposure(time_s=0.02)], [0.9], generators(1))
    light = (taken[0, 1, :, 0] / 255.0) ** 2
    assert (light > 0.01).sum() == 9  # 500 px/rad * 0.9 rad/s * 0.02 s
    assert light.sum() == pytest.approx(1.0, abs=0.03) and light[50] == pytest.approx(1.0 / 9.0, abs=0.01)
    still = model.take(image, [Exposure(time_s=0.02)], [0.0], generators(1))
    assert set(np.unique(still)) == {0, 255}


def test_jpeg_is_lossy_and_coarser_at_lower_quality():
    image = torch.rand(1, 3, 120, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = ColourCamera(ColourSettings(exposure_s=0.01), CAMERA).take(image, [Exposure()], [0.0], generators(1))
    errors = []
    for quality in (95, 40):
        taken = ColourCamera(ColourSettings(jpeg_quality=quality), CAMERA).take(
            image, [Exposure()], [0.0], generators(1)
        )
        errors.append(np.abs(taken.astype(float) - plain).mean())
    assert 0 < errors[0] < errors[1]


def test_meter_reads_the_mean_of_linear_light():
    assert mean_colour(grey(0.37)[0]) == pytest.approx([0.37] * 3, abs=1e-6)
    assert float(linear(torch.tensor([0.0])).item()) == pytest.approx(0.25)


# -- timing, camera, odometry ----------------------------------------------------------------------------------------


def test_delays_drops_and_stamps_have_the_stated_statistics():
    settings = TimingSettings(latency_s=0.05, latency_spread_s=0.02, drop_share=0.1, stamp_jitter_s=0.004)
    draws = [
        draw_delivery(settings, generator) for generator in [torch.Generator().manual_seed(1)] for _ in range(6000)
    ]
    delays = np.array([draw.latency_s for draw in draws])
    errors = np.array([draw.stamp_error_s for draw in draws])
    assert np.mean([draw.lost for draw in draws]) == pytest.approx(0.1, abs=0.015)
    assert delays.min() >= 0.05 and delays.mean() == pytest.approx(0.07, rel=0.02)
    assert (delays - 0.05).std() == pytest.approx(0.02, rel=0.06)
    assert errors.std() == pytest.approx(0.004, rel=0.05) and np.abs(errors).max() <= 0.012


def test_drawn_cameras_fill_their_ranges():
    settings, generator = REALISTIC.camera, torch.Generator().manual_seed(2)
    drawn = [draw_camera(settings, generator) for _ in range(400)]
    hfov = np.degrees([camera.intrinsics.horizontal_fov_rad for camera in drawn])
    assert hfov.min() >= 50.0 and hfov.max() <= 110.0 and hfov.mean() == pytest.approx(80.0, abs=3.0)
    heights = np.array([camera.height_m for camera in drawn])
    assert heights.min() >= 0.15 and heights.max() <= 1.5 and heights.mean() == pytest.approx(0.825, abs=0.06)
    pitches = np.degrees([camera.pitch_rad for camera in drawn])
    assert pitches.min() >= -20.0 and pitches.max() <= 15.0 and pitches.mean() == pytest.approx(-2.5, abs=1.6)
    sizes = {(camera.intrinsics.width, camera.intrinsics.height) for camera in drawn}
    assert all(height == 64 and 64 <= width <= 114 and width % 2 == 0 for width, height in sizes) and len(sizes) > 10
    fixed = draw_camera(CameraSettings(), generator, size_px=(320, 240))
    assert fixed.intrinsics == default_camera(320, 240)
    assert (fixed.height_m, fixed.pitch_rad) == (0.5, 0.0)


def straight(length_m: float, steps: int = 100) -> np.ndarray:
    way = np.zeros((steps + 1, 3))
    way[:, 0] = np.linspace(0.0, length_m, steps + 1)
    return way


def ends(settings: OdometrySettings, way: np.ndarray, runs: int = 1500) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return np.stack([WheelOdometry(settings, generator).advance(way)[-1] for _ in range(runs)])


def spread(sample: np.ndarray, expected: float) -> None:
    assert abs(sample.std() - expected) < 4 * expected / math.sqrt(2 * len(sample))


def test_unequal_wheels_bend_a_straight_way():
    found = ends(OdometrySettings(wheel_radius_percent=0.2, wheel_separation_m=0.4), straight(4.0))
    spread(found[:, 2], 4.0 * 0.002 * math.sqrt(2.0) / 0.4)  # difference of two radii over the distance of the wheels
    spread(found[:, 0] / 4.0, 0.002 / math.sqrt(2.0))  # their mean


def test_a_wrong_baseline_scales_turns_alone():
    turn = np.zeros((101, 3))
    turn[:, 2] = np.linspace(0.0, 2.0, 101)
    found = ends(OdometrySettings(baseline_percent=2.0), turn)
    spread(found[:, 2], 2.0 * 0.02)
    np.testing.assert_allclose(ends(OdometrySettings(baseline_percent=2.0), straight(3.0), 5)[:, 0], 3.0)


@pytest.mark.parametrize("steps", [40, 400])
def test_slip_is_white_whatever_the_step(steps):
    found = ends(OdometrySettings(slip_percent=1.0, wheel_separation_m=2.0), straight(4.0, steps))
    spread(found[:, 0], 0.01 * math.sqrt(4.0) / math.sqrt(2.0))
    spread(found[:, 2], 0.01 * math.sqrt(4.0) * math.sqrt(2.0) / 2.0)


def test_realistic_odometry_drifts_by_two_percent_of_the_way(world):
    """KITTI's measure at ten metres: where a stretch ends, seen from its start, against the truth."""
    shares = []
    for seed in range(24):
        drive = simulate_episode(world, "tour", 90.0, 4.0, seed, REALISTIC.odometry)
        way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(drive.poses_world_xyyaw[:, :2], axis=0).T))])
        for start in range(0, len(way), 20):
            stop = int(np.searchsorted(way, way[start] + 10.0))
            if stop >= len(way):
                break
            true = se2.relative(drive.poses_world_xyyaw[start], drive.poses_world_xyyaw[stop])
            told = se2.relative(drive.odometry_xyyaw[start], drive.odometry_xyyaw[stop])
            shares.append(np.hypot(*(told - true)[:2]) / 10.0)
    assert len(shares) > 100 and np.mean(shares) == pytest.approx(0.02, abs=0.004)


# -- presets and the chain -------------------------------------------------------------------------------------------


def test_presets_and_single_settings():
    assert sensor_settings() == PRESETS[DEFAULT_SENSORS] and sensor_settings("ideal") == SensorSettings()
    changed = sensor_settings("realistic", {"depth": {"far_m": 4.0}, "camera": {"hfov_deg": [60, 70]}})
    assert changed.depth == replace(REALISTIC.depth, far_m=4.0) and changed.colour == REALISTIC.colour
    assert changed.camera.hfov_deg == (60.0, 70.0)
    for preset, overrides, words in (
        ("real", None, "realistic"),
        ("realistic", {"depth": {"far": 4.0}}, "sensors.depth.far"),
        ("realistic", {"colour": {"jpeg_quality": 101}}, "jpeg_quality"),
        ("realistic", {"camera": {"pitch_deg": [5, -5]}}, "pitch_deg"),
        ("ideal", {"depth": {"disparity_step_px": 0.1}}, "baseline_m"),
    ):
        with pytest.raises(ConfigError, match=words):
            sensor_settings(preset, overrides)


def test_ideal_sensors_change_no_bit(world):
    plain = EpisodeRecording(simulate_episode(world, "wander", 3.0, 8.0, 1), Raycaster([world], CAMERA))
    ideal = EpisodeRecording(
        delivered(simulate_episode(world, "wander", 3.0, 8.0, 1, SensorSettings().odometry), TimingSettings()),
        Raycaster([world], CAMERA),
        sensors=SensorSettings(),
    )
    for one, two in zip(plain.frames(0, 10), ideal.frames(0, 10), strict=True):
        np.testing.assert_array_equal(one.rgb, two.rgb)
        np.testing.assert_array_equal(one.depth_m, two.depth_m)
    np.testing.assert_array_equal(plain.poses_xyyaw, ideal.poses_xyyaw)


def test_frames_do_not_depend_on_the_order_they_are_read_in(world):
    episode = simulate_episode(world, "wander", 5.0, 4.0, 1, REALISTIC.odometry)

    def recording() -> EpisodeRecording:
        return EpisodeRecording(episode, Raycaster([world], CAMERA), sensors=REALISTIC)

    forward = recording().frames(0, len(episode.stamps_s))
    alone = recording().frame(13)
    np.testing.assert_array_equal(forward[13].rgb, alone.rgb)
    np.testing.assert_array_equal(forward[13].depth_m, alone.depth_m)
    assert forward[13].rgb.tobytes() != EpisodeRecording(episode, Raycaster([world], CAMERA)).frame(13).rgb.tobytes()


def test_simulator_delivers_frames_late_and_holds_the_one_before_a_lost_one(world):
    timing = TimingSettings(latency_s=0.1, drop_share=0.4)
    simulator = BuiltInSimulator.in_world(world, seed=4, sensors=SensorSettings(timing=timing))
    way, fresh, last_s = [(0.0, simulator.pose_world_xyyaw)], 0, -1.0
    for _ in range(60):
        simulator.step(0.2, 0.3, 0.1)
        way.append((simulator.time_s, simulator.pose_world_xyyaw))
        frame, odometry = simulator.observe()
        assert odometry.stamp_s == frame.stamp_s
        if frame.stamp_s > last_s:
            fresh, last_s = fresh + 1, frame.stamp_s
            assert simulator.time_s - frame.stamp_s == pytest.approx(0.1)
            then = poses_at(np.array([t for t, _ in way]), np.stack([p for _, p in way]), np.array([frame.stamp_s]))
            _, depth = simulator.renderer.render(torch.from_numpy(then))
            np.testing.assert_allclose(frame.depth_m, depth[0].numpy(), atol=1e-3)
            start = se2.relative(way[0][1], then[0])
            np.testing.assert_allclose(odometry.pose_xyyaw, start, atol=2e-3)
    assert 20 < fresh < 50


def test_lost_frames_are_missing_from_a_recorded_drive(world):
    episode = simulate_episode(world, "wander", 30.0, 8.0, 1)
    left = delivered(episode, TimingSettings(drop_share=0.2))
    assert len(left.stamps_s) == pytest.approx(0.8 * len(episode.stamps_s), rel=0.1)
    assert left.stamps_s[0] == 0.0 and set(left.stamps_s) <= set(episode.stamps_s)
    assert EpisodeRecording(left, Raycaster([world], CAMERA)).rate_hz == pytest.approx(8.0)


@pytest.mark.parametrize("pitch_deg", [-20.0, 7.0, 15.0])
def test_pitched_cameras_see_what_a_ray_for_every_pixel_meets(world, pitch_deg):
    """Every measured point, moved into the world, lies where the level camera's ray through it ends."""
    camera = CameraIntrinsics.from_field_of_view(96, 72, math.radians(80.0))
    pitched = Raycaster([world], camera, 0.9, pitch_rad=math.radians(pitch_deg))
    room = world.rooms[0]
    pose = torch.tensor([[(room[0] + room[2]) / 2, (room[1] + room[3]) / 2, 0.4]])
    images, depth = pitched.render(pose)
    x = (np.arange(96) + 0.5 - camera.cx) / camera.fx
    y = (np.arange(72) + 0.5 - camera.cy) / camera.fy
    optical = np.stack(np.broadcast_arrays(x[None], y[:, None], 1.0), -1) * depth[0].numpy()[..., None]
    T_base_camera = camera_in_base(0.9, math.radians(pitch_deg))
    points = se3.transform_points(T_base_camera, optical.reshape(-1, 3))
    ahead = points[points[:, 0] > 0.1]
    # a level camera of one row and one column for each of some points
    chosen = ahead[:: len(ahead) // 60]
    errors = []
    for forward, left, up in chosen:
        one = CameraIntrinsics(1, 1, 1.0, 1.0, 0.5 + left / forward, 0.5 + (up - 0.9) / forward)
        errors.append(abs(float(Raycaster([world], one, 0.9).render(pose)[1]) - forward) / forward)
    assert np.median(errors) < 1e-3 and np.mean(np.array(errors) < 0.02) > 0.9
    assert images.shape == (1, 3, 72, 96)


def test_pitch_zero_is_the_level_camera_and_too_much_is_told(world):
    np.testing.assert_allclose(camera_in_base(0.5, 0.0), camera_in_base(0.5))
    tall = CameraIntrinsics.from_field_of_view(64, 64, math.radians(110.0))
    Raycaster([world], tall, pitch_rad=math.radians(-20.0))
    with pytest.raises(ConfigError, match="pitch_rad"):
        Raycaster([world], tall, pitch_rad=math.radians(-30.0))


def test_extrinsics_and_intrinsics_reach_the_frames(world):
    simulator = BuiltInSimulator.in_world(world, seed=7, sensors=REALISTIC)
    frame, _ = simulator.observe()
    assert frame.intrinsics is not None and frame.T_base_camera is not None
    assert frame.rgb.shape[:2] == (frame.intrinsics.height, frame.intrinsics.width)
    assert 0.15 <= frame.T_base_camera[2, 3] <= 1.5
    pitch = math.degrees(math.asin(frame.T_base_camera[2, 2]))
    assert -20.0 <= pitch <= 15.0 and pitch == pytest.approx(math.degrees(simulator.renderer.pitch_rad))


def test_chain_takes_batches_as_it_takes_single_frames(world):
    raycaster = Raycaster([world], CAMERA)
    episode = simulate_episode(world, "wander", 2.0, 4.0, 1)
    images, depth = raycaster.render(torch.from_numpy(episode.poses_world_xyyaw[:4]))
    chain, exposures = SensorChain(REALISTIC, CAMERA), [Exposure(1.3, 0.01, 1.2)] * 4
    rgb, metres = chain.capture(images, depth, exposures, [0.5] * 4, generators(4))
    for index in range(4):
        part = slice(index, index + 1)
        one, alone = chain.capture(images[part], depth[part], exposures[:1], [0.5], generators(4)[part])
        np.testing.assert_array_equal(one[0], rgb[index])
        np.testing.assert_array_equal(alone[0], metres[index])
