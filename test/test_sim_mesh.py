"""Worlds from meshes: the same views as the built-in ray-caster, colours, drives, and bad files."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.meshes.mesh_world import MeshRaycaster, load_mesh_world
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


# one wall at x = 2, 4 m wide and 3 m high; its image's quarters are red, green / blue, white
QUARTERS = np.array([[[0, 0, 255], [0, 255, 0]], [[255, 0, 0], [255, 255, 255]]], np.uint8).repeat(4, 0).repeat(4, 1)


def write_obj(path: Path) -> Path:
    import cv2

    cv2.imwrite(str(path / "wall.png"), QUARTERS)
    (path / "wall.mtl").write_text("newmtl wall\nKd 1 1 1\nmap_Kd wall.png\nnewmtl red\nKd 0.8 0.1 0.1\n")
    (path / "wall.obj").write_text(
        "mtllib wall.mtl\nv 2 2 0\nv 2 -2 0\nv 2 -2 3\nv 2 2 3\nv -2 -2 0\nv -2 2 0\nv -2 2 3\n"
        "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nusemtl wall\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\nusemtl red\nf 5/1 6/2 7/3\n"
    )
    return path / "wall.obj"


def write_glb(path: Path) -> Path:
    """Write a minimal binary glTF 2.0, y up, with an embedded image."""
    import cv2

    positions = np.array([[2, 0, -2], [2, 0, 2], [2, 3, 2], [2, 3, -2]], "<f4")
    uvs, triangles = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], "<f4"), np.array([0, 1, 2, 0, 2, 3], "<u2")
    pieces = [positions.tobytes(), uvs.tobytes(), triangles.tobytes(), cv2.imencode(".png", QUARTERS)[1].tobytes()]
    views, body = [], b""
    for piece in pieces:
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(piece)})
        body += piece + b"\0" * (-len(piece) % 4)
    low, high = positions.min(0).tolist(), positions.max(0).tolist()
    primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": low, "max": high},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }
    head = json.dumps(document).encode()
    head += b" " * (-len(head) % 4)
    header = struct.pack("<4sIIII", b"glTF", 2, 28 + len(head) + len(body), len(head), 0x4E4F534A)
    (path / "wall.glb").write_bytes(header + head + struct.pack("<II", len(body), 0x004E4942) + body)
    return path / "wall.glb"


@pytest.mark.parametrize("write", [write_obj, write_glb])
def test_textures_and_materials_colour_the_faces(tmp_path, write):
    place = load_mesh_world(write(tmp_path))
    camera = CameraIntrinsics.from_field_of_view(16, 16, math.pi / 2)
    images, depth = MeshRaycaster(place, camera, 1.5).render(torch.tensor([[0.0, 0, 0], [0, 0, math.pi]]))
    np.testing.assert_allclose(depth[0, 4:12], 2.0, atol=1e-5)
    seen = (images[0] > 0.5).int()  # red green / blue white, as on the image
    assert [seen[:, row, column].tolist() for row in (4, 11) for column in (2, 13)] == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [1, 1, 1],
    ]
    if write is write_obj:  # the second material has a colour and no image
        assert images[1, 0, 8, 14] > 0.3 and images[1, 1, 8, 14] < -0.7


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
