"""Reprojected views: what a camera-only model knows of perspective, checked against the simulator."""

from __future__ import annotations

import math

import pytest
import torch

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.geometry.point_rendering import camera_fractions, level_camera
from come_nav.core.types import CameraIntrinsics, Context, PointSet
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.autoencoders.lapped import LappedTransform
from come_nav.world_model.depth import LOG_DEPTH_RANGE, MEAN_LOG_DEPTH, DepthEstimator, DepthSettings
from come_nav.world_model.reprojection import (
    VIEW_FACTS,
    RenderedView,
    ReprojectionSettings,
    context_points,
    context_view,
    points_view,
    slid_points,
)

CAMERA = CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
STEP = torch.tensor([0.15, 0.0, 0.1])
SETTINGS = ReprojectionSettings()
ALL_OLDER = ReprojectionSettings(older_points=64 * 64)


@pytest.fixture(scope="module")
def drive() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (5, 3, 64, 64), depth (5, 64, 64) and poses (5, 3) along an arc in a built-in world."""
    world = generate_world(11)
    low, high = torch.as_tensor(world.bounds, dtype=torch.float32).reshape(2, 2)
    points = low + (high - low) * torch.rand(256, 2, generator=torch.Generator().manual_seed(2))
    pose = torch.cat([points[world.free(points, 0.9)][0], torch.zeros(1)])
    poses = [pose]
    for _ in range(4):
        poses.append(se2.compose(poses[-1], STEP))
    images, depth = Raycaster([world], CAMERA).render(torch.stack(poses))
    return images, depth, torch.stack(poses)


EYE = (camera_fractions(CAMERA), level_camera(0.5))


def points_of(drive: tuple[torch.Tensor, torch.Tensor, torch.Tensor], frames: slice) -> PointSet:
    images, depth, poses = (part[frames] for part in drive)
    relative = se2.relative(poses[-1:], poses)[None]
    return context_points(images[None], depth[None], relative, *EYE, SETTINGS)


def view_of(points: PointSet, target: torch.Tensor) -> RenderedView:
    return points_view(points, *EYE, target, 64, SETTINGS)


def test_a_view_with_true_depth_is_far_closer_than_the_last_frame(drive) -> None:
    images, _, poses = drive
    target = se2.relative(poses[3:4], poses[4:5])
    view = view_of(points_of(drive, slice(0, 4)), target)
    mask = view.known.expand(3, -1, -1)
    error = (view.filled[0] - images[4]).square()[mask].mean()
    copied = (images[3] - images[4]).square()[mask].mean()
    assert view.known.float().mean() > 0.7
    assert error < 0.25 * copied
    assert torch.isfinite(view.filled).all()
    assert (view.inverse_depth >= 0).all()


def test_older_frames_show_what_the_newest_does_not(drive) -> None:
    _, _, poses = drive
    back = se2.relative(poses[3:4], poses[0:1])  # look again to where the robot looked first
    together = view_of(points_of(drive, slice(0, 4)), back).known.float().mean()
    alone = view_of(points_of(drive, slice(3, 4)), back).known.float().mean()
    assert together > alone + 0.05


def test_what_is_seen_from_a_later_base_is_that_much_older() -> None:
    facts = torch.tensor([[[0.0, 1.0], [2.5, 0.5]]])  # age in s, trust
    points = PointSet(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), facts)
    slid = slid_points(points, torch.zeros(3, 3), 0.75)
    assert slid.facts is not None
    torch.testing.assert_close(slid.facts, torch.tensor([[[0.75, 1.0], [3.25, 0.5]]]).expand(3, -1, -1))


def test_sliding_the_base_leaves_views_where_they_were(drive) -> None:
    points, step, target = points_of(drive, slice(0, 4)), STEP[None], torch.tensor([[0.4, 0.1, 0.3]])
    direct, moved = view_of(points, target), view_of(slid_points(points, step), se2.relative(step, target))
    same = direct.known == moved.known
    assert same.float().mean() > 0.99  # rounding moves a few points to the neighbouring pixel
    assert (direct.filled - moved.filled).abs().mean() < 0.02


@torch.no_grad()
def test_an_encoded_layer_is_latents_seen_share_and_inverse_depth(drive) -> None:
    transform = LappedTransform(6, 8)
    view = view_of(points_of(drive, slice(0, 4)), torch.zeros(3, 3)).encoded(transform.encode)
    assert view.shape == (3, 6 + VIEW_FACTS, 8, 8)
    assert float(view[:, 6].min()) >= 0.0
    assert float(view[:, 6].max()) <= 1.0
    assert float(view[0, 6].mean()) > 0.95  # from the newest frame's own pose nearly all is seen
    blind = Context(torch.zeros(1, 1, 6, 8, 8), torch.zeros(1, 1, 3), torch.zeros(1, 1))
    with pytest.raises(ShapeError, match="the context lacks"):
        context_view(blind, STEP[None], 64, SETTINGS)


def test_lapped_transform_starts_as_the_best_linear_block_code_and_training_improves_it(drive) -> None:
    images = drive[0]
    full = LappedTransform(3 * 4 * 4, 4)
    full.start_from_components(images)
    torch.testing.assert_close(full.decode(full.encode(images)), images, atol=1e-3, rtol=0)  # nothing left out
    few = LappedTransform(6, 4)
    few.start_from_components(images, flattening=0.5)
    start = (few.decode(few.encode(images)) - images).square().mean()
    blocks = torch.nn.functional.unfold(images, 4, stride=4).transpose(1, 2).flatten(0, 1)
    centred = blocks.double() - blocks.double().unflatten(1, (3, -1)).mean((0, 2)).repeat_interleave(16)
    left_out = torch.linalg.eigvalsh(centred.T @ centred / len(centred))[:-6].sum() / 48
    assert float(start) == pytest.approx(float(left_out), rel=1e-3)  # the eigenvalues left out
    optimiser = torch.optim.Adam(few.parameters(), 1e-3)
    for _ in range(60):
        loss = (few.decode(few.encode(images)) - images).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.9 * float(start)
    with pytest.raises(ConfigError, match="even block_size"):
        LappedTransform(4, 3)


def test_depth_estimator_learns_the_depth_of_a_view(drive) -> None:
    images, depth, _ = drive
    with torch.random.fork_rng():
        torch.manual_seed(0)
        estimator = DepthEstimator(DepthSettings(widths=(16, 16, 16), inner_blocks=1))
    start = estimator(images[:2])
    assert torch.equal(start, torch.full_like(start, MEAN_LOG_DEPTH))
    optimiser = torch.optim.Adam(estimator.parameters(), 5e-3)
    for _ in range(60):
        loss = (estimator(images[:2]) - depth[:2].log()).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * float((start - depth[:2].log()).abs().mean())
    metres = estimator.depth_m(images[:1])
    assert math.exp(LOG_DEPTH_RANGE[0]) <= float(metres.min()) <= float(metres.max()) <= math.exp(LOG_DEPTH_RANGE[1])


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiples of 16"):
        DepthEstimator()(torch.zeros(1, 3, 24, 24))
    with pytest.raises(ConfigError, match=r"depth\.widths"):
        DepthSettings(widths=(12,))
    with pytest.raises(ConfigError, match=r"reprojection\.gap_passes"):
        ReprojectionSettings(gap_passes=-1)


def turned_view(image: torch.Tensor, depth_m: torch.Tensor, R_level_turned: torch.Tensor) -> tuple:
    """Return image and z-depth of a camera that is turned in place, from those of the level one; 0 where unseen."""
    rays = torch.stack(torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="xy"), -1)
    rays = torch.cat([(rays - 32.0) / 32.0, torch.ones(64, 64, 1)], -1)  # 90 degrees: focal length 32 px
    level = rays @ R_level_turned.T
    column, row = (((level[..., axis] / level[..., 2]) * 32.0 + 32.0).floor().long() for axis in (0, 1))
    inside = (level[..., 2] > 0.1) & (column >= 0) & (column < 64) & (row >= 0) & (row < 64)
    row, column = row.clamp(0, 63), column.clamp(0, 63)
    return image[:, row, column] * inside, depth_m[row, column] / level[..., 2] * inside


def test_a_camera_that_pitches_shows_the_same_world_when_its_extrinsics_are_told(drive) -> None:
    """A frame behind the newest that looks 20 degrees up, shown level: right with its own extrinsics, else wrong."""
    image, depth = drive[0][0], drive[1][0]
    level, angle = level_camera(0.5), math.radians(-20.0)
    cosine, sine = math.cos(angle), math.sin(angle)
    R_turn = torch.tensor([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])  # about y, to the left: nose up
    up, R_level = level.clone(), level[0, :3, :3]
    up[0, :3, :3] = R_turn @ R_level
    turned, turned_depth = turned_view(image, depth, R_level.T @ R_turn @ R_level)
    frames = torch.stack([turned, image])[None], torch.stack([turned_depth, torch.zeros(64, 64)])[None]
    behind, errors = torch.tensor([[0.0, 0.0, math.pi]]), {}
    poses = torch.cat([behind, torch.zeros(1, 3)])[None]
    for name, extrinsics in (("own", torch.stack([up[0], level[0]])[None]), ("level", level)):
        points = context_points(*frames, poses, camera_fractions(CAMERA), extrinsics, ALL_OLDER)
        layer = points_view(points, camera_fractions(CAMERA), level, behind, 64, ALL_OLDER)
        seen = layer.known[0].expand(3, -1, -1)
        assert layer.known.float().mean() > 0.4
        errors[name] = float((layer.image[0] - image).abs()[seen].mean())
    assert errors["own"] < 0.3 * errors["level"]
