"""What a memory shows a world model, and that merging far points changes no image that matters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from come_nav.core import compiled
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.building import remember
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.remembered_views import MANY_VIEWS, RememberedViews
from come_nav.memory.spatial.splatting import Splats, Viewpoint, coarsened, thinned
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world

CAMERA = CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)


@pytest.fixture(scope="module")
def remembered() -> tuple[EpisodeRecording, SpatialMemory]:
    world = generate_world(10003)
    drive = EpisodeRecording(simulate_episode(world, "tour", 20.0), Raycaster([world], CAMERA), use_truth=True)
    memory = SpatialMemory()
    remember(drive, [memory])
    return drive, memory


def test_views_are_those_of_the_models_camera(remembered) -> None:
    drive, memory = remembered
    source = RememberedViews(memory, CAMERA, drive.T_base_camera)
    poses = torch.from_numpy(drive.poses_xyyaw[:3]).float()
    image, known, inverse_depth = source.views(poses, 64)
    assert image.shape == (3, 3, 64, 64)
    assert known.shape == inverse_depth.shape == (3, 64, 64)
    assert known.float().mean() > 0.95  # all of it was seen from these very poses
    frame = drive.frame(1)
    error = (1.0 / inverse_depth[1] - torch.from_numpy(frame.depth_m))[known[1]].abs()
    assert float(error.median()) < 0.03


def test_an_empty_memory_shows_nothing() -> None:
    _, known, inverse_depth = RememberedViews(SpatialMemory(), CAMERA, np.eye(4)).views(torch.zeros(2, 3), 16)
    assert not known.any()
    assert not inverse_depth.any()


@pytest.mark.parametrize("numba", [True, False])
def test_many_views_from_one_place_look_as_single_ones(remembered, monkeypatch, numba) -> None:
    if not numba:
        monkeypatch.setattr(compiled, "available", lambda: False)
    drive, memory = remembered
    source = RememberedViews(memory, CAMERA, drive.T_base_camera)
    poses = torch.zeros(MANY_VIEWS, 3)
    poses[:, 2] = torch.linspace(-1.0, 1.0, MANY_VIEWS)
    many, known, _ = source.views(poses, 64)
    singles = [source.views(pose[None], 64) for pose in poses]
    single, known_single = (torch.cat([views[part] for views in singles]) for part in range(2))
    both = known & known_single
    assert (known == known_single).float().mean() > 0.99
    assert float((many - single).abs().mean(dim=1)[both].mean()) < 0.04  # of a range of 2


def test_merged_points_are_weighted_means_and_near_ones_stay() -> None:
    points = torch.tensor([[0.5, 0.0, 0.0], [8.01, 0.01, 0.01], [8.06, 0.01, 0.01]])
    features = torch.tensor([[0.0], [1.0], [4.0]])
    normals = torch.tensor([[-1.0, 0.0, 0.0]]).expand(3, -1)
    splats = Splats(points, features, normals, torch.full((3,), 0.05), torch.tensor([1.0, 2.0, 1.0]))
    merged = thinned(splats, torch.zeros(3), 0.0, 1.0 / 32.0, 0.05)
    assert len(merged.points_xyz) == 2
    torch.testing.assert_close(merged.features, torch.tensor([[0.0], [2.0]]))
    torch.testing.assert_close(merged.weights, torch.tensor([1.0, 3.0]))
    assert merged.sizes_m.tolist() == pytest.approx([0.05, 0.2])  # a pixel at 8 m is 0.25 m wide


def test_a_coarse_cloud_has_one_point_for_each_cell() -> None:
    points = torch.tensor([[0.01, 0.01, 0.01], [0.14, 0.14, 0.14], [0.16, 0.01, 0.01], [-0.01, 0.01, 0.01]])
    features = torch.tensor([[0.0], [4.0], [1.0], [2.0]])
    normals = torch.tensor([[-1.0, 0.0, 0.0]]).expand(4, -1)
    splats = Splats(points, features, normals, torch.full((4,), 0.05), torch.tensor([3.0, 1.0, 1.0, 1.0]))
    coarse = coarsened(splats, 0.15)
    order = coarse.points_xyz[:, 0].argsort()
    torch.testing.assert_close(coarse.features[order], torch.tensor([[2.0], [1.0], [1.0]]))
    torch.testing.assert_close(coarse.sizes_m, torch.full((3,), 0.15))
    assert len(coarsened(splats.part(torch.zeros(4, dtype=torch.bool)), 0.15).points_xyz) == 0


def test_small_images_of_a_coarse_cloud_follow_the_cloud(remembered) -> None:
    drive, memory = remembered[0], SpatialMemory()
    source = RememberedViews(memory, CAMERA, drive.T_base_camera)
    pose = torch.from_numpy(drive.poses_xyyaw[:1]).float()
    assert not bool(source.views(pose, 16, cell_m=0.15)[1].any())
    remember(drive, [memory])
    image, known, _ = source.views(pose, 16, cell_m=0.15)
    fine = torch.nn.functional.interpolate(source.views(pose, 64)[0], (16, 16), mode="area")
    assert known.float().mean() > 0.8
    assert float((image - fine).abs().mean(dim=1)[known].mean()) < 0.15  # of a range of 2


def test_one_matrix_projects_as_the_pinhole_camera_does() -> None:
    from come_nav.core.geometry.point_rendering import camera_fractions, level_camera, project_points

    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 3, generator=generator) * 3.0
    view = Viewpoint(torch.tensor([[0.3, -1.0, 0.7], [0.0, 0.2, -2.0]]), camera_fractions(CAMERA), level_camera(0.5))
    projected = view.projection @ torch.cat([points, torch.ones(50, 1)], dim=1).T
    u, v, depth = project_points(points[None], view.poses_xyyaw, view.camera, view.T_base_camera)
    ahead = depth > 0.2
    torch.testing.assert_close(projected[:, 2], depth, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((projected[:, 0] / projected[:, 2])[ahead], u[ahead], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close((projected[:, 1] / projected[:, 2])[ahead], v[ahead], atol=1e-4, rtol=1e-4)
