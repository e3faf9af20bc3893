"""The ray-caster against brute force in float64, Open3D, closed forms and itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.building.atlas import build_atlas, sample_atlas
from come_nav.sim.building.surfaces import Box, Lights, SurfaceBuilder, level_row, pattern
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import World, generate_world

SQUARE = CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
SHIFTED = CameraIntrinsics(40, 30, 22.0, 25.0, 17.3, 12.5)  # off centre, not square, a row exactly on the horizon


def free_poses(world: World, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    poses: list[torch.Tensor] = []
    while len(poses) < count:
        point = torch.rand(2, generator=generator, dtype=torch.float64) * torch.tensor(world.bounds[2:]).double()
        if bool(world.free(point, 0.21)):
            yaw = (torch.rand(1, generator=generator, dtype=torch.float64) * 2 - 1) * math.pi
            poses.append(torch.cat([point, yaw]))
    return torch.stack(poses)


def brute_force_depth(world: World, camera: CameraIntrinsics, pose: np.ndarray, height: float) -> np.ndarray:
    """Depth (H, W) by testing every pixel's ray against every box in float64."""
    x, y, yaw = pose
    right, up = np.meshgrid(
        (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx,
        (camera.cy - np.arange(camera.height) - 0.5) / camera.fy,
    )
    up = np.where(up == 0, 1e-12, up)
    dx, dy = np.cos(yaw) + right * np.sin(yaw), np.sin(yaw) - right * np.cos(yaw)
    depth = np.where(up > 0, (world.ceiling_m - height) / up, -height / up)
    for cx, cy, half_x, half_y, turn, low, high in world.boxes.double().numpy():
        c, s = np.cos(turn), np.sin(turn)
        origin = np.array([c * (x - cx) + s * (y - cy), c * (y - cy) - s * (x - cx), height])
        with np.errstate(divide="ignore"):
            inverse = 1.0 / np.stack([c * dx + s * dy, c * dy - s * dx, up])
        first = (np.array([-half_x, -half_y, low]) - origin)[:, None, None] * inverse
        second = (np.array([half_x, half_y, high]) - origin)[:, None, None] * inverse
        near, far = np.minimum(first, second).max(0), np.maximum(first, second).min(0)
        depth = np.where((near < far) & (near > 0) & (near < depth), near, depth)
    return depth


@pytest.fixture(scope="module")
def two_worlds() -> list[World]:
    return [generate_world(3), generate_world(20003)]


@pytest.mark.parametrize("camera", [SQUARE, SHIFTED], ids=["square", "shifted"])
def test_depth_equals_brute_force(two_worlds, camera):
    raycaster = Raycaster(two_worlds, camera, camera_height_m=0.43)
    for index, world in enumerate(two_worlds):
        poses = free_poses(world, 6, seed=index)
        _, depth = raycaster.render(poses, torch.full((6,), index))
        for pose, mine in zip(poses.numpy(), depth.numpy(), strict=True):
            np.testing.assert_allclose(mine, brute_force_depth(world, camera, pose, 0.43), rtol=2e-5, atol=2e-5)


def test_depth_equals_open3d(two_worlds):
    o3d = pytest.importorskip("open3d")
    world = two_worlds[1]
    scene = o3d.t.geometry.RaycastingScene()
    x0, y0, x1, y1 = world.bounds
    shell = (0.5 * (x0 + x1), 0.5 * (y0 + y1), 20.0, 20.0, 0.0)
    boxes = [*world.boxes.tolist(), [*shell, -1.0, 0.0], [*shell, world.ceiling_m, world.ceiling_m + 1.0]]
    for x, y, half_x, half_y, yaw, low, high in boxes:
        mesh = o3d.t.geometry.TriangleMesh.create_box(2 * half_x, 2 * half_y, high - low, o3d.core.float64)
        mesh.translate(np.array([-half_x, -half_y, low]))
        mesh.rotate(np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]), np.zeros(3))
        mesh.translate(np.array([x, y, 0.0]))
        positions = o3d.core.Tensor(mesh.vertex.positions.numpy().astype(np.float32))
        scene.add_triangles(positions, o3d.core.Tensor(mesh.triangle.indices.numpy().astype(np.uint32)))
    poses = free_poses(world, 8, seed=5)
    _, depth = Raycaster([world], SQUARE).render(poses)
    right, up = np.meshgrid((np.arange(64) + 0.5 - 32) / 32, (32 - np.arange(64) - 0.5) / 32)
    for (x, y, yaw), mine in zip(poses.tolist(), depth.numpy(), strict=True):
        rays = np.empty((64, 64, 6), np.float32)
        rays[..., :3] = (x, y, 0.5)
        rays[..., 3] = math.cos(yaw) + right * math.sin(yaw)
        rays[..., 4] = math.sin(yaw) - right * math.cos(yaw)
        rays[..., 5] = up
        theirs = scene.cast_rays(o3d.core.Tensor(rays))["t_hit"].numpy()
        wrong = np.abs(mine - theirs) > 1e-3 * theirs
        assert wrong.mean() < 2e-3  # single rays may pass an edge on the other side


def test_same_pixels_again_and_in_any_batch(two_worlds):
    raycaster = Raycaster(two_worlds, SQUARE)
    poses = torch.cat([free_poses(world, 12, seed=2) for world in two_worlds])
    index = torch.arange(2).repeat_interleave(12)
    images, depth = raycaster.render(poses, index)
    again, _ = Raycaster([generate_world(3), generate_world(20003)], SQUARE).render(poses, index)
    assert torch.equal(images, again)
    for which in (0, 7, 15, 23):  # alone, in a ray-caster of its own
        image, distance = Raycaster([two_worlds[int(index[which])]], SQUARE).render(poses[which : which + 1])
        assert torch.equal(depth[which], distance[0])
        torch.testing.assert_close(images[which], image[0], atol=2e-3, rtol=0)


def test_a_cropped_camera_sees_the_crop(two_worlds):
    poses = free_poses(two_worlds[0], 2, seed=8)
    full_images, full_depth = Raycaster(two_worlds, SQUARE).render(poses)
    images, depth = Raycaster(two_worlds, SQUARE.cropped(20, 6, 30, 40)).render(poses)
    torch.testing.assert_close(depth, full_depth[:, 6:46, 20:50], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(images, full_images[:, :, 6:46, 20:50], atol=1e-3, rtol=0)


def test_a_finer_camera_sees_the_same_scene(two_worlds):
    poses = free_poses(two_worlds[1], 4, seed=9)
    coarse, _ = Raycaster(two_worlds[1:], SQUARE).render(poses)
    fine, _ = Raycaster(two_worlds[1:], SQUARE.scaled(256, 256)).render(poses)
    averaged = torch.nn.functional.avg_pool2d(fine, 4)
    assert (coarse - averaged).abs().mean() < 0.06  # edges and texture detail remain


def test_far_textures_do_not_alias(two_worlds):
    """A small turn of the camera changes a view about as much as the same view at four times the resolution."""
    poses = free_poses(two_worlds[0], 16, seed=4)
    turned = poses + torch.tensor([0.0, 0.0, 1e-3], dtype=poses.dtype)
    raycaster = Raycaster(two_worlds, SQUARE)
    assert (raycaster.render(poses)[0] - raycaster.render(turned)[0]).abs().mean() < 0.01


def room_of_one_box(colour=(0.5, 0.25, 0.75)) -> World:
    """A box face at x = 3 in front of the origin, in an otherwise empty place; lit by nothing but ambient light."""
    builder = SurfaceBuilder()
    dark = Lights(np.array([[0.0, 0.0, 2.0]] * 2), np.zeros(2), np.ones(3))
    surface = pattern("plain", colour)
    builder.add_uniform(Box(3.5, 5.0, 0.5, 1.0, 0.0, 1.0), surface, dark)
    rows = torch.tensor([level_row(surface, dark, 0.0, True)], dtype=torch.float32)
    return World(
        seed=0,
        bounds=(0.0, 0.0, 10.0, 10.0),
        ceiling_m=2.5,
        boxes=torch.tensor(builder.boxes),
        faces=torch.tensor(builder.rows),
        floors=rows,
        ceilings=rows,
        rooms=torch.tensor([[0.0, 0.0, 10.0, 10.0]]),
        room_kinds=("hall",),
        doors=torch.zeros(0, 3),
        images=torch.zeros(10, 3, 64, 64),
    )


def test_closed_form_view_of_one_box():
    world = room_of_one_box()
    images, depth = Raycaster([world], SQUARE).render(torch.tensor([[1.0, 5.0, 0.0]]))
    slope = (32 - np.arange(64) - 0.5) / 32
    on_face = (0.5 + 2.0 * slope > 0) & (0.5 + 2.0 * slope < 1.0)
    column = depth[0, :, 32].numpy()
    np.testing.assert_allclose(column[on_face], 2.0, atol=1e-5)
    floor = 0.5 + 2.0 * slope <= 0
    np.testing.assert_allclose(column[floor], -0.5 / slope[floor], rtol=1e-5)
    half_width = int((depth[0, 31] < 2.001).sum())
    assert half_width == 32  # 2 m wide at 2 m distance: half of the 64 columns
    colour = (images[0, :, 31, 32] + 1) / 2
    expected = 0.42 * torch.tensor([0.5, 0.25, 0.75])  # ambient times tint, texture between 0.95 and 1
    assert ((colour / expected) > 0.93).all() and ((colour / expected) < 1.001).all()
    top_image, top_depth = Raycaster([world], SQUARE, camera_height_m=1.5).render(torch.tensor([[1.0, 5.0, 0.0]]))
    lower = 1.5 + 2.0 * slope < 1.0
    looks_at_top = lower & (0.5 / -np.minimum(slope, -1e-9) < 3.0) & (0.5 / -np.minimum(slope, -1e-9) > 2.0)
    np.testing.assert_allclose(top_depth[0, looks_at_top, 32], -0.5 / slope[looks_at_top], rtol=1e-5)
    assert torch.isfinite(top_image).all()


def test_images_are_within_range_at_any_size(two_worlds):
    poses = free_poses(two_worlds[0], 2, seed=1)
    for width, height in ((320, 240), (8, 8), (33, 17)):
        camera = CameraIntrinsics.from_field_of_view(width, height, 1.2)
        images, depth = Raycaster(two_worlds, camera).render(poses)
        assert images.shape == (2, 3, height, width) and depth.shape == (2, height, width)
        assert images.dtype == depth.dtype == torch.float32
        assert images.min() >= -1 and images.max() <= 1 and torch.isfinite(depth).all() and (depth > 0).all()


def test_places_can_be_told_apart(two_worlds):
    """Views from different rooms differ more than views from nearly the same pose."""
    world = two_worlds[1]
    poses = free_poses(world, 40, seed=3)
    raycaster = Raycaster([world], SQUARE)
    images, _ = raycaster.render(poses)
    near, _ = raycaster.render(poses + torch.tensor([0.02, 0.02, 0.02], dtype=poses.dtype))
    flat = images.flatten(1)
    apart = torch.cdist(flat, flat) + torch.eye(40) * 1e9
    assert ((flat - near.flatten(1)).norm(dim=1) < apart.amin(1)).float().mean() > 0.9


def test_empty_batch_and_views_from_outside(two_worlds):
    raycaster = Raycaster(two_worlds, SQUARE)
    images, depth = raycaster.render(torch.zeros(0, 3))
    assert images.shape == (0, 3, 64, 64) and depth.shape == (0, 64, 64)
    images, depth = raycaster.render(torch.tensor([[-3.0, -3.0, -2.3]]))
    assert torch.isfinite(images).all() and (depth > 0).all()


def test_atlas_returns_texels_and_wraps():
    textures = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    atlas = build_atlas(textures)
    texel = (torch.tensor([[0.0, 17.0, 63.0]]) + 0.5) / 64
    which = torch.tensor([[0.0, 1.0, 2.0]])
    level = torch.zeros(1, 3)
    expected = torch.stack([textures[0, :, 0, 0], textures[1, :, 17, 17], textures[2, :, 63, 63]], -1)
    torch.testing.assert_close(sample_atlas(atlas, which, texel, texel, level)[0], expected, atol=1e-3, rtol=0)
    wrapped = sample_atlas(atlas, which, texel - 3.0, texel + 5.0, level)[0]
    torch.testing.assert_close(wrapped, expected, atol=1e-3, rtol=0)
    seam = sample_atlas(atlas, which, torch.zeros(1, 3), texel, level)[0, :, 1]
    torch.testing.assert_close(seam, 0.5 * (textures[1, :, 17, 0] + textures[1, :, 17, 63]), atol=1e-3, rtol=0)
    coarse = sample_atlas(atlas, which, torch.full((1, 3), 0.25), torch.full((1, 3), 0.25), torch.full((1, 3), 5.0))
    blocks = torch.nn.functional.avg_pool2d(textures, 32)[:, :, 0, 0].T
    torch.testing.assert_close(coarse[0], blocks, atol=1e-3, rtol=0)


def test_bad_arguments(two_worlds):
    with pytest.raises(ConfigError, match="at least one world"):
        Raycaster([], SQUARE)
    with pytest.raises(ConfigError, match="camera_height_m"):
        Raycaster(two_worlds, SQUARE, camera_height_m=3.5)
    with pytest.raises(ShapeError, match="poses_world_xyyaw"):
        Raycaster(two_worlds, SQUARE).render(torch.zeros(3))
    with pytest.raises(ShapeError, match="world_index"):
        Raycaster(two_worlds, SQUARE).render(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_renders_the_same(two_worlds):
    poses = torch.cat([free_poses(world, 20, seed=2) for world in two_worlds])
    index = torch.arange(2).repeat_interleave(20)
    images, depth = Raycaster(two_worlds, SQUARE).render(poses, index)
    images_cuda, depth_cuda = Raycaster(two_worlds, SQUARE, device="cuda").render(poses, index)
    assert ((depth_cuda.cpu() - depth).abs() > 1e-3).float().mean() < 1e-3
    assert ((images_cuda.cpu() - images).abs() > 0.02).float().mean() < 5e-3
