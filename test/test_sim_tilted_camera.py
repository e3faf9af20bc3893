"""Cameras of any pitch and roll: what they show agrees with the level ray-caster's geometry."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import grid_sample

from come_nav.core.errors import ConfigError
from come_nav.core.geometry.point_rendering import camera_fractions, lift_depth, project_points
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.mounting import CameraRanges, MountedCamera
from come_nav.sim.worlds import World, generate_world

INTRINSICS = CameraIntrinsics.from_field_of_view(48, 48, math.radians(70.0))
POSES = torch.tensor([[0.0, 0.0, 0.0]])


@pytest.fixture(scope="module")
def raycaster() -> Raycaster:
    return Raycaster([generate_world(3)], INTRINSICS)


def free_pose(world: World) -> torch.Tensor:
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(world.bounds[2:])
    return torch.cat([points[world.free(points, 0.5)][:1], torch.tensor([[0.4]])], 1)


def test_level_is_the_level_raycaster_bit_for_bit(raycaster: Raycaster) -> None:
    pose = free_pose(raycaster.worlds[0])
    images, depth = raycaster.through(MountedCamera(INTRINSICS)).render(pose)
    own_images, own_depth = raycaster.render(pose)
    assert torch.equal(images, own_images)
    assert torch.equal(depth, own_depth)


@pytest.mark.parametrize(("pitch_deg", "roll_deg"), [(-20.0, 0.0), (15.0, 3.0), (0.0, -5.0)])
def test_tilted_depth_lifts_to_where_the_level_camera_sees_it(
    raycaster: Raycaster, pitch_deg: float, roll_deg: float
) -> None:
    """Each surface point of the tilted view, seen by the level camera, lies at the depth that the latter reports."""
    pose = free_pose(raycaster.worlds[0])
    camera = MountedCamera(INTRINSICS, 0.5, math.radians(pitch_deg), math.radians(roll_deg))
    images, depth = raycaster.through(camera).render(pose)
    extrinsics = torch.from_numpy(camera.T_base_camera)[None].float()
    points = lift_depth(depth, camera_fractions(INTRINSICS), extrinsics)
    level = torch.from_numpy(MountedCamera(INTRINSICS).T_base_camera)[None].float()
    u, v, z = project_points(points, torch.zeros(1, 3), camera_fractions(INTRINSICS), level)
    level_images, level_depth = raycaster.render(pose)
    inside = (u > 0.05) & (u < 0.95) & (v > 0.05) & (v < 0.95) & (z > 0.1)
    assert float(inside.float().mean()) > 0.4
    column, row = (u * 48).long().clamp(0, 47), (v * 48).long().clamp(0, 47)
    grid = torch.stack([u, v], -1)[:, None] * 2.0 - 1.0
    seen = 1.0 / grid_sample(1.0 / level_depth[:, None], grid, align_corners=False)[0, 0, 0]
    relative = ((z[0] - seen) / seen).abs()[inside[0]]
    assert float(relative.median()) < 1e-4
    assert float((relative > 0.1).float().mean()) < 0.08  # only outlines
    colours = (images[0].flatten(1) - level_images[0][:, row[0], column[0]]).abs().mean(0)[inside[0]]
    assert float(colours.median()) < 0.05


def test_up_is_up_and_clockwise_is_clockwise() -> None:
    up = MountedCamera(INTRINSICS, pitch_rad=0.2).T_base_camera
    assert up[2, 2] == pytest.approx(math.sin(0.2))  # the optical axis rises
    clockwise = MountedCamera(INTRINSICS, roll_rad=0.1).T_base_camera
    assert clockwise[2, 0] == pytest.approx(-math.sin(0.1))  # the image's right points down


def test_drawn_cameras_keep_to_their_ranges_and_follow_the_generator() -> None:
    ranges = CameraRanges()
    generator = torch.Generator().manual_seed(1)
    cameras = [ranges.draw(64, generator) for _ in range(200)]
    again = ranges.draw(64, torch.Generator().manual_seed(1))
    assert again == cameras[0]
    heights = [camera.height_m for camera in cameras]
    pitches = [math.degrees(camera.pitch_rad) for camera in cameras]
    views = [2 * math.degrees(math.atan(32 / camera.intrinsics.fx)) for camera in cameras]
    assert 0.15 <= min(heights) < 0.25
    assert 1.4 < max(heights) <= 1.5
    assert -20.0 <= min(pitches) < -17.0
    assert 12.0 < max(pitches) <= 15.0
    # the centred square of a 16:9 image of 50 degrees is 29 degrees wide, that of a square one of 110 all of it
    assert 28.0 < min(views) < 40.0
    assert 95.0 < max(views) <= 112.0


def test_what_cannot_be_shown_is_refused(raycaster: Raycaster) -> None:
    wide = CameraIntrinsics.from_field_of_view(48, 48, math.radians(120.0))
    with pytest.raises(ConfigError, match="sees straight down"):
        raycaster.through(MountedCamera(wide, pitch_rad=math.radians(-30.0)))
    with pytest.raises(ConfigError, match=r"cameras\.pitch_deg must be low, high"):
        replace(CameraRanges(), pitch_deg=(5.0, -5.0))
