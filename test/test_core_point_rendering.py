"""Rendering of points: closed forms, round trips, and agreement with the simulator's own images."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import (
    camera_fractions,
    close_gaps,
    fill_unseen,
    level_camera,
    lift_depth,
    project_points,
    render_points,
    transform_points,
)
from come_nav.core.types import CameraIntrinsics
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world

CAMERA = CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
HERE = torch.zeros(1, 3)


def test_a_point_straight_ahead_is_in_the_middle() -> None:
    points = torch.tensor([[[2.0, 0.0, 0.5], [2.0, 1.0, 0.5], [2.0, 0.0, 1.5]]])
    u, v, depth = project_points(points, HERE, camera_fractions(CAMERA), level_camera(0.5))
    assert torch.allclose(depth, torch.full((1, 3), 2.0))
    assert torch.allclose(u, torch.tensor([[0.5, 0.25, 0.5]]))  # 1 m left at 2 m: f / 64 * 1/2 = 0.25 of the width
    assert torch.allclose(v, torch.tensor([[0.5, 0.5, 0.25]]))


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-3, 3), st.integers(0, 1000))
def test_lifting_then_projecting_returns_the_pixel(x: float, y: float, yaw: float, seed: int) -> None:
    depth = 0.5 + 5.0 * torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(seed))
    camera = torch.tensor([[0.7, 0.9, 0.45, 0.55]])
    extrinsics = level_camera(0.4)
    pose = torch.tensor([[x, y, yaw], [0.0, 0.0, 0.0]])
    points = transform_points(
        pose, lift_depth(depth, camera, extrinsics)
    )  # seen from pose, told in the reference frame
    u, v, back = project_points(points, pose, camera, extrinsics)
    columns = ((torch.arange(8) + 0.5) / 8).expand(2, 6, 8).reshape(2, -1)
    rows = ((torch.arange(6) + 0.5) / 6)[:, None].expand(2, 6, 8).reshape(2, -1)
    assert torch.allclose(u, columns, atol=1e-4)
    assert torch.allclose(v, rows, atol=1e-4)
    assert torch.allclose(back, depth.reshape(2, -1), atol=1e-4)


def test_the_nearest_point_wins_whatever_the_order() -> None:
    points = torch.tensor([[[3.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]])
    colours = torch.tensor([[[1.0], [2.0], [3.0]]])
    image, depth, visible = render_points(points, colours, HERE, camera_fractions(CAMERA), level_camera(), (64, 64))
    assert visible.sum() == 1
    assert float(image[0, 0, 32, 32]) == 2.0
    assert float(depth[0, 32, 32]) == pytest.approx(1.0, abs=1e-3)
    assert torch.isnan(depth[0, 0, 0])


def test_unknown_depth_is_never_seen() -> None:
    depth = torch.full((1, 4, 4), math.nan)
    depth[0, 1, 1] = 0.0
    points = lift_depth(depth, camera_fractions(CAMERA), level_camera())
    _, _, visible = render_points(points, points, HERE, camera_fractions(CAMERA), level_camera(), (4, 4))
    assert not visible.any()


def test_the_same_view_comes_back_and_a_new_view_matches_the_simulator() -> None:
    raycaster = Raycaster([generate_world(7)], CAMERA)
    start = _free_pose()
    poses = torch.stack([start, se2.compose(start, torch.tensor([0.3, 0.05, 0.2]))])
    images, depth = raycaster.render(poses)
    points = lift_depth(depth[:1], camera_fractions(CAMERA), level_camera(0.5))
    colours = images[:1].flatten(2).transpose(1, 2)
    targets = torch.stack([torch.zeros(3), se2.relative(poses[0], poses[1])])
    view, seen_m, visible = render_points(
        points, colours, targets, camera_fractions(CAMERA), level_camera(0.5), (64, 64)
    )
    assert visible[0].float().mean() > 0.98  # rounding may push border pixels out
    assert torch.equal(view[0][:, visible[0]], images[0][:, visible[0]])
    agree = (seen_m[1] - depth[1]).abs()[visible[1]] < 0.05 * depth[1][visible[1]] + 0.05
    assert agree.float().mean() > 0.9
    error = (view[1] - images[1]).abs().mean(0)[visible[1]].mean()
    copied = (images[0] - images[1]).abs().mean(0)[visible[1]].mean()
    assert error < 0.5 * copied


def test_gaps_close_from_neighbours_and_the_rest_is_filled_smoothly() -> None:
    image = torch.full((1, 1, 8, 8), 5.0)
    visible = torch.ones(1, 8, 8, dtype=torch.bool)
    visible[0, 3, 3] = False
    image[0, 0, 3, 3] = 0.0
    closed, seen = close_gaps(image, visible)
    assert bool(seen.all())
    assert torch.allclose(closed, torch.full_like(closed, 5.0), atol=1e-5)
    half = torch.zeros(1, 8, 8, dtype=torch.bool)
    half[:, :, :4] = True
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    filled = fill_unseen(ramp, half)
    assert torch.equal(filled[..., :4], ramp[..., :4])
    assert float(filled[..., 4:].min()) >= 0.0
    assert float(filled[..., 4:].max()) <= 3.0
    assert torch.equal(fill_unseen(ramp, torch.zeros_like(half)), torch.zeros_like(ramp))


def _free_pose() -> torch.Tensor:
    world = generate_world(7)
    low, high = torch.as_tensor(world.bounds, dtype=torch.float32).reshape(2, 2)
    generator = torch.Generator().manual_seed(3)
    points = low + (high - low) * torch.rand(64, 2, generator=generator)
    return torch.cat([points[world.free(points, 0.5)][0], torch.tensor([0.3])])
