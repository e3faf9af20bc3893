"""Compiled rendering agrees with tensors, which hold the definition; what rounding may change is said here."""

from __future__ import annotations

import errno
import math
import threading
import unittest.mock
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.core import compiled
from come_nav.core.geometry.point_rendering import (
    camera_fractions,
    close_gaps,
    level_camera,
    render_points,
)
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.spatial.splatting import SpatialView, Splats, Viewpoint, render_splats

CAMERA = CameraIntrinsics.from_field_of_view(48, 32, math.pi / 2)
SIZE = (32, 48)
ROUNDING = 2e-4  # of features of size 1 and of metres
MOST_OTHERS = 0.01  # of the pixels: a point on a pixel's edge, or at a threshold, may fall to either side

pytestmark = pytest.mark.skipif(not compiled.available(), reason="numba is not installed")


def a_cloud(seed: int, count: int = 3000, channels: int = 3) -> Splats:
    """Points of walls and clutter on all sides, near ones with gaps between them, some seen from behind."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator) * torch.tensor([3.0, 3.0, 0.7])
    wall = torch.rand(count // 2, 3, generator=generator) * torch.tensor([0.05, 4.0, 2.0]) + torch.tensor([1.0, -2, -1])
    points[: count // 2] = wall
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    normals[: count // 2] = torch.tensor([-1.0, 0.0, 0.0])
    features = torch.rand(count, channels, generator=generator) * 2 - 1
    sizes, weights = (torch.rand(count, generator=generator) * scale + 0.02 for scale in (0.08, 4.0))
    return Splats(points, features, normals, sizes, weights)


def some_views(seed: int, count: int) -> Viewpoint:
    poses = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) * torch.tensor([0.5, 0.5, 2.0])
    return Viewpoint(poses, camera_fractions(CAMERA), level_camera(0.3))


def with_tensors(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the definition says."""
    with unittest.mock.patch.object(compiled, "available", lambda: False):
        return function(*arguments)


def others(found: tuple[torch.Tensor, ...], wanted: tuple[torch.Tensor, ...]) -> float:
    """Return the share of the pixels that are not the same: image (B, C, H, W), depth, visible (B, H, W)."""
    (image, depth, visible), (own_image, own_depth, own_visible) = found, wanted
    same = (visible == own_visible) & ((image - own_image).abs().amax(1) < ROUNDING)
    same &= torch.where(own_visible, (depth - own_depth).abs() < ROUNDING, depth.isnan() == own_depth.isnan())
    return 1.0 - float(same.float().mean())


def parts(view: SpatialView) -> tuple[torch.Tensor, ...]:
    return view.image, view.depth_m, view.visible


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.booleans())
def test_clouds_look_the_same(seed: int, channels: int, gaps: bool) -> None:
    splats, views = a_cloud(seed, channels=channels), some_views(seed, 3)
    found, wanted = render_splats(splats, views, SIZE, gaps), with_tensors(render_splats, splats, views, SIZE, gaps)
    assert wanted.coverage.mean() > 0.05
    assert others(parts(found), parts(wanted)) <= MOST_OTHERS


def test_on_the_middle_of_pixels_all_of_them_look_the_same() -> None:
    generator = torch.Generator().manual_seed(4)
    columns, rows = torch.randint(48, (4000,), generator=generator), torch.randint(32, (4000,), generator=generator)
    depth = 0.5 + 5.0 * torch.rand(4000, generator=generator)
    points = torch.stack(
        [depth, -(columns + 0.5 - 24.0) / CAMERA.fx * depth, -(rows + 0.5 - 16.0) / CAMERA.fy * depth], 1
    )
    cloud = a_cloud(0, 4000)
    splats = Splats(points, cloud.features, -torch.nn.functional.normalize(points, dim=1), cloud.sizes_m, cloud.weights)
    views = Viewpoint(torch.zeros(1, 3), camera_fractions(CAMERA), level_camera())
    assert (
        others(parts(render_splats(splats, views, SIZE)), parts(with_tensors(render_splats, splats, views, SIZE)))
        == 0.0
    )


def test_no_block_in_view_is_left_out() -> None:
    """Views from within, outside, above and far away show each point that the whole cloud shows."""
    splats = a_cloud(7, 6000)
    order = torch.randperm(6000, generator=torch.Generator().manual_seed(0))  # other blocks of the same points
    mixed = Splats(*(tensor[order] for tensor in splats.tensors))
    poses = torch.cat([some_views(3, 20).poses_xyyaw, torch.tensor([[-8.0, 0.0, 0.0], [5.0, 5.0, -2.4]])])
    for extrinsics in (level_camera(0.3), level_camera(3.0)):
        views = Viewpoint(poses, camera_fractions(CAMERA), extrinsics)
        assert others(parts(render_splats(mixed, views, SIZE)), parts(render_splats(splats, views, SIZE))) < 0.001


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
def test_points_look_the_same(seed: int, channels: int, shared: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = 1 if shared else 3
    points = torch.randn(rows, 2000, 3, generator=generator) * 3.0
    colours = torch.rand(rows, 2000, channels, generator=generator)
    view = some_views(seed, 3)
    given_ = points, colours, view.poses_xyyaw, view.camera, view.T_base_camera, SIZE
    assert others(render_points(*given_), with_tensors(render_points, *given_)) <= MOST_OTHERS


def test_of_points_at_the_same_depth_the_first_wins() -> None:
    points = torch.tensor([[[1.0, 0.001, 0.0], [1.0, 0.002, 0.0], [1.00001, 0.003, 0.0], [0.9998, 0.001, 0.0]]])
    colours = torch.arange(4.0)[None, :, None]
    for chosen, winner in ((slice(0, 3), 0.0), (slice(0, 4), 3.0), (slice(1, 3), 1.0)):
        cloud = points[:, chosen], colours[:, chosen], torch.zeros(1, 3), camera_fractions(CAMERA), level_camera(), SIZE
        for image, _, visible in (render_points(*cloud), with_tensors(render_points, *cloud)):
            assert image[0, 0][visible[0]].tolist() == [winner]


@given(st.integers(0, 10**6), st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_gaps_close_the_same(seed: int, least: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    visible = torch.rand(2, 9, 11, generator=generator) < 0.6
    image = torch.randn(2, 3, 9, 11, generator=generator)
    before = image.clone()
    found, wanted = close_gaps(image, visible, least), with_tensors(close_gaps, image, visible, least)
    torch.testing.assert_close(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])
    assert torch.equal(image, before)


def test_gradients_flow_where_they_are_asked_for() -> None:
    splats, views = a_cloud(1, 500), some_views(1, 1)
    features = splats.features.requires_grad_()
    coloured = Splats(splats.points_xyz, features, splats.normals, splats.sizes_m, splats.weights)
    render_splats(coloured, views, SIZE).image.sum().backward()
    assert features.grad is not None and features.grad.abs().sum() > 0
    with torch.no_grad():
        assert not render_splats(coloured, views, SIZE).image.requires_grad
    colours = torch.rand(1, 500, 3).requires_grad_()
    cloud = splats.points_xyz[None], colours, views.poses_xyyaw, views.camera, views.T_base_camera, SIZE
    render_points(*cloud)[0].sum().backward()
    assert colours.grad is not None and colours.grad.abs().sum() > 0
    image = torch.rand(1, 3, 8, 8).requires_grad_()
    close_gaps(image, torch.rand(1, 8, 8) < 0.7)[0].sum().backward()
    assert image.grad is not None


def test_without_numba_and_for_other_precisions_tensors_do_it(monkeypatch) -> None:
    splats, views = a_cloud(2, 500), some_views(2, 2)
    wanted = parts(with_tensors(render_splats, splats, views, SIZE))
    doubles = Splats(*(tensor.double() for tensor in splats.tensors))
    assert render_splats(doubles, Viewpoint(views.poses_xyyaw.double(), views.camera, views.T_base_camera), SIZE)
    monkeypatch.setattr(compiled, "available", lambda: False)
    for found, own in zip(parts(render_splats(splats, views, SIZE)), wanted, strict=True):
        assert torch.equal(torch.nan_to_num(found), torch.nan_to_num(own))


@pytest.mark.parametrize("problem", [RuntimeError("no locator available"), OSError(errno.ENOSPC, "no space")])
def test_an_installation_that_cannot_be_written_compiles_for_itself(monkeypatch, problem) -> None:
    import numba

    real, asked = numba.njit, []

    def njit(*args, cache=False, **options):
        if options.items() >= compiled.OPTIONS.items():  # numba's own parts are compiled with it, too, the first time
            asked.append(cache)
            if cache:
                raise problem
        return real(*args, **options)

    monkeypatch.setattr(numba, "njit", njit)

    @compiled.Compiled
    def fill(array):
        array[:] = 3.0

    array = np.zeros(4)
    fill(array)
    fill(array)
    assert asked == [True, False]
    assert array.tolist() == [3.0] * 4


def test_threads_share_the_views(monkeypatch) -> None:
    splats, views = a_cloud(3, 1000), some_views(3, 9)
    wanted = parts(render_splats(splats, views, SIZE))
    seen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    compiled.shared_out(lambda start, stop: seen.append(threading.get_ident()) or None, 8)
    assert len(seen) == 2
    for found, own in zip(parts(render_splats(splats, views, SIZE)), wanted, strict=True):
        assert torch.equal(torch.nan_to_num(found), torch.nan_to_num(own))


def test_what_a_wall_hides_is_left_out_and_nothing_else() -> None:
    """Blocks behind a closed wall are told by tiles; through its door one sees what lies behind."""
    generator = torch.Generator().manual_seed(7)
    wall = torch.rand(30_000, 3, generator=generator) * torch.tensor([0.03, 8.0, 5.0]) + torch.tensor([2.0, -4, -2.5])
    door = (wall[:, 1].abs() < 0.4) & (wall[:, 2] < 0.8)
    behind = torch.rand(30_000, 3, generator=generator) * torch.tensor([6.0, 12.0, 4.0]) + torch.tensor([3.0, -6, -2])
    points = torch.cat([wall[~door], behind])
    normals = torch.tensor([-1.0, 0.0, 0.0]).expand(len(points), 3).contiguous()
    features, ones = torch.rand(len(points), 3, generator=generator), torch.ones(len(points))
    splats = Splats(points, features, normals, 0.03 * ones, ones)
    poses = torch.randn(6, 3, generator=generator) * torch.tensor([0.3, 0.3, 0.2])
    view = Viewpoint(poses, camera_fractions(CAMERA), level_camera(0.3))
    found, wanted = render_splats(splats, view, SIZE), with_tensors(render_splats, splats, view, SIZE)
    assert (wanted.depth_m > 3.0).float().mean() > 0.01, "the door shows something"
    assert others(parts(found), parts(wanted)) < MOST_OTHERS
