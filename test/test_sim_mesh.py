"""Worlds from meshes: the same views as the built-in ray-caster, colours, drives, and bad files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.mesh_world import MeshRaycaster, load_mesh_world
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import World, generate_world

o3d = pytest.importorskip("open3d")
CAMERA = CameraIntrinsics(40, 30, 22.0, 25.0, 17.3, 14.1)


def box(x, y, half_x, half_y, yaw, low, high):
    mesh = o3d.geometry.TriangleMesh.create_box(2 * half_x, 2 * half_y, high - low)
    mesh.translate((-half_x, -half_y, low))
    mesh.rotate(np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]), (0, 0, 0))
    return mesh.translate((x, y, 0))


@pytest.fixture(scope="module")
def world() -> World:
    return generate_world(4)


@pytest.fixture(scope="module")
def mesh(world):
    """The boxes of a built-in world with floor and ceiling, red on one side of the building and blue on the other."""
    x0, y0, x1, y1 = world.bounds
    shell = (0.5 * (x0 + x1), 0.5 * (y0 + y1), 0.5 * (x1 - x0) + 0.1, 0.5 * (y1 - y0) + 0.1, 0.0)
    whole = box(*shell, -0.1, 0.0) + box(*shell, world.ceiling_m, world.ceiling_m + 0.1)
    for row in world.boxes.tolist():
        whole += box(*row)
    east = np.asarray(whole.vertices)[:, 0] > shell[0]
    whole.vertex_colors = o3d.utility.Vector3dVector(np.where(east[:, None], [0.9, 0.1, 0.1], [0.1, 0.1, 0.9]))
    return whole


@pytest.fixture(scope="module")
def ply(mesh, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mesh") / "place.ply"
    assert o3d.io.write_triangle_mesh(str(path), mesh)
    return path


@pytest.fixture(scope="module")
def poses(world) -> torch.Tensor:
    episode = simulate_episode(world, "tour", 30.0)
    return torch.from_numpy(episode.poses_world_xyyaw[::20])


def test_depth_equals_the_builtin_raycaster(world, ply, poses):
    place = load_mesh_world(ply, floor_height_m=0.0)
    _, depth = MeshRaycaster(place, CAMERA, 0.45).render(poses)
    _, expected = Raycaster([world], CAMERA, 0.45).render(poses)
    assert ((depth - expected).abs() > 2e-3 * expected).float().mean() < 3e-3


def test_colours_come_from_the_vertices(world, ply):
    place = load_mesh_world(ply, floor_height_m=0.0)
    y = float(world.bounds[3]) / 2
    images, depth = MeshRaycaster(place, CAMERA).render(torch.tensor([[-6.0, y, math.pi], [-6.0, y, 0.0]]))
    assert (depth[0] == 0).all() and (images[0] == -1).all()  # nothing there: black, unknown depth
    middle = images[1, :, 12:16, 17]
    assert (middle[2] > 0.3).all() and (middle[0] < -0.5).all()  # blue


def test_grey_without_colours_and_y_up(mesh, ply, poses, tmp_path):
    turned = o3d.geometry.TriangleMesh(mesh)
    turned.vertex_colors = o3d.utility.Vector3dVector()
    turned.rotate(np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), (0, 0, 0))  # z up to y up
    turned.translate((0, 3.0, 0))
    path = tmp_path / "place.obj"
    assert o3d.io.write_triangle_mesh(str(path), turned)
    place = load_mesh_world(path, up_axis="y", floor_height_m=3.0)
    images, depth = MeshRaycaster(place, CAMERA).render(poses)
    _, expected = MeshRaycaster(load_mesh_world(ply, floor_height_m=0.0), CAMERA).render(poses)
    torch.testing.assert_close(depth, expected, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(images[:, 0], images[:, 1])
    assert images.std() > 0.05
    lowest = load_mesh_world(path, up_axis="y")
    assert lowest.vertices[:, 2].min() == 0.0


def test_a_texture_colours_the_faces(tmp_path):
    import cv2

    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :4], image[:, 4:] = (0, 0, 255), (0, 255, 0)  # BGR: red left, green right
    cv2.imwrite(str(tmp_path / "wall.png"), image)
    (tmp_path / "wall.mtl").write_text("newmtl wall\nKd 1 1 1\nmap_Kd wall.png\n")
    (tmp_path / "wall.obj").write_text(
        "mtllib wall.mtl\nv 2 2 0\nv 2 -2 0\nv 2 -2 3\nv 2 2 3\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        "usemtl wall\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    )
    place = load_mesh_world(tmp_path / "wall.obj")
    camera = CameraIntrinsics.from_field_of_view(16, 16, math.pi / 2)
    images, depth = MeshRaycaster(place, camera, 1.0).render(torch.zeros(1, 3))
    np.testing.assert_allclose(depth[0, 4:8], 2.0, atol=1e-5)
    assert images[0, 0, 6, 2] > 0.5 and images[0, 1, 6, 2] < -0.5  # left half red
    assert images[0, 1, 6, 13] > 0.5 and images[0, 0, 6, 13] < -0.5


def test_drives_in_a_mesh(world, ply):
    place = load_mesh_world(ply, floor_height_m=0.0)
    episode = simulate_episode(place, "point_to_point", 30.0, seed=1)
    positions = torch.from_numpy(episode.poses_world_xyyaw[:, :2])
    assert episode.collisions == 0 and episode.path_length_m > 5.0
    assert (world.distance(positions) > 0.15).all()  # the grid knows walls to within a cell
    assert place.free(positions, 0.15).all() and not place.free(torch.tensor([-9.0, 0.0]), 0.1)
    recording = EpisodeRecording(episode, MeshRaycaster(place, CAMERA))
    assert recording.metadata["mesh"] == "place.ply" and "world" not in recording.metadata
    assert recording.frame(3).rgb.shape == (30, 40, 3) and len(place.polygons()) > 100


def test_bad_meshes(tmp_path, ply):
    with pytest.raises(DataError, match="no such file"):
        load_mesh_world(tmp_path / "missing.ply")
    (tmp_path / "house.txt").write_text("x")
    with pytest.raises(DataError, match=r"\.glb"):
        load_mesh_world(tmp_path / "house.txt")
    (tmp_path / "broken.ply").write_bytes(ply.read_bytes()[:60])
    with pytest.raises(DataError, match="no triangles"):
        load_mesh_world(tmp_path / "broken.ply")
    with pytest.raises(ConfigError, match="up_axis"):
        load_mesh_world(ply, up_axis="w")
    with pytest.raises(ConfigError, match="world_index"):
        MeshRaycaster(load_mesh_world(ply), CAMERA).render(torch.zeros(1, 3), torch.ones(1, dtype=torch.long))
