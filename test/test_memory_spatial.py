"""The spatial memory: which pixels are trusted, what is unlearnt, and what a view looks like from memory."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, DataError, ShapeError
from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.spatial.carving import nearest_depth
from come_nav.memory.spatial.cloud import InsertResult, SpatialMemory
from come_nav.memory.spatial.latent.features import LatentFeatures, sample_depth
from come_nav.memory.spatial.lifting import (
    ColourFeatures,
    FeatureGrid,
    centred_window,
    lift,
    model_camera,
)
from come_nav.memory.spatial.ply import export_ply
from come_nav.memory.spatial.settings import SpatialSettings

CAMERA = CameraIntrinsics.from_field_of_view(32, 32, math.pi / 2)
EXTRINSICS = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.0, 0.0, 0.5]))
ORIGIN = np.zeros(3)
RED, BLUE = (200, 10, 10), (10, 10, 200)


def frame(
    depth_m, rgb=RED, stamp_s: float = 0.0, camera: CameraIntrinsics | None = CAMERA, extrinsics=EXTRINSICS
) -> Frame:
    depth = np.broadcast_to(np.asarray(depth_m, np.float32), (32, 32)).copy()
    return Frame(stamp_s, np.broadcast_to(np.uint8(rgb), (32, 32, 3)).copy(), depth, camera, extrinsics)


def rays() -> tuple[np.ndarray, np.ndarray]:
    """Slopes right (W,) and down (H, 1) of the pixels' rays."""
    pixels = (np.arange(32) + 0.5 - 16) / 16
    return pixels, pixels[:, None]


def floor_depth(far_m: float = 50.0) -> np.ndarray:
    _, down = rays()
    return np.broadcast_to(np.where(down > 0.5 / far_m, 0.5 / np.maximum(down, 1e-6), np.nan), (32, 32))


def colour_of(memory_image: torch.Tensor) -> np.ndarray:
    return ((memory_image.numpy() + 1.0) * 127.5).round()


def lifted(depth, edge_ratio: float = 0.05, min_neighbours: int = 2, stride: int = 1, offset: int = 0):
    grid = ColourFeatures()(frame(depth), np.broadcast_to(np.float32(depth), (32, 32)), CAMERA)
    return lift(grid, stride, offset, (0.1, 100.0), edge_ratio, min_neighbours)


# --- which pixels are trusted ---------------------------------------------------------------------------------------


def test_a_slanted_plane_is_trusted_whole_and_its_normals_are_exact():
    right, down = rays()
    normal = np.array([0.3, -0.8, -0.52])
    normal /= np.linalg.norm(normal)
    inverse = -(normal[0] * right + normal[1] * down + normal[2]) / 2.0
    depth = np.where(inverse > 0.05, 1.0 / np.maximum(inverse, 0.05), np.nan)
    seen = lifted(depth)
    np.testing.assert_allclose(seen.points_xyz @ normal, -2.0, rtol=2e-4)
    assert len(seen.points_xyz) >= np.isfinite(depth).sum() - 64, "at most the rim of the plane is in doubt"
    assert np.quantile(np.abs(seen.normals @ normal - 1.0), 0.9) < 1e-3


def test_the_far_floor_is_trusted_although_its_rows_lie_metres_apart():
    seen = lifted(floor_depth())
    assert seen.untrusted == 0
    np.testing.assert_allclose(seen.points_xyz[:, 1], 0.5, rtol=1e-5)
    far = seen.points_xyz[:, 2] > 2.0
    assert (seen.patch_m[far] > 4 * seen.points_xyz[far, 2] / 16).all(), "a pixel shows a long strip of a slanted floor"


def test_flying_pixels_go_and_thin_things_stay():
    depth = np.full((32, 32), 3.0)
    depth[:, :10] = 1.0
    depth[:, 10] = 2.0  # mixes both surfaces
    depth[:, 20] = 1.5  # a thin leg in front
    seen = lifted(depth)
    assert seen.untrusted == 32 + 2, "the column, and the ends of the leg, which have one neighbour only"
    assert not np.isclose(seen.points_xyz[:, 2], 2.0).any()
    assert np.isclose(seen.points_xyz[:, 2], 1.5).sum() == 30


def test_speckles_go_unless_they_are_asked_for():
    depth = np.full((32, 32), 3.0)
    depth[5, 5] = depth[20, 9] = 1.0
    assert lifted(depth).untrusted == 2
    assert lifted(depth, min_neighbours=0).untrusted == 0


def test_interleaved_grids_cover_every_pixel_once():
    taken = [lifted(2.0, stride=3, offset=offset).points_xyz for offset in range(9)]
    assert sum(map(len, taken)) == 32 * 32
    assert len(np.unique(np.concatenate(taken).round(4), axis=0)) == 32 * 32


def test_latents_lie_at_the_centres_of_their_cells_in_the_cropped_view():
    camera = CameraIntrinsics(80, 60, 40.0, 40.0, 40.0, 30.0)
    image = Frame(0.0, np.zeros((60, 80, 3), np.uint8), np.full((60, 80), 2.0, np.float32), camera, EXTRINSICS)
    source = LatentFeatures(lambda _: torch.arange(5 * 4 * 4, dtype=torch.float32).reshape(5, 4, 4), 5)
    grid = source(image, image.depth_m, camera)
    seen = lift(grid, 1, 0, (0.1, 10.0), 0.05, 2)
    assert seen.features[6].tolist() == [6.0, 22.0, 38.0, 54.0, 70.0]
    expected = [2.0 * ((37.5 + 10) - 40) / 40, 2.0 * (22.5 - 30) / 40, 2.0]  # second row, third column of 15 px cells
    np.testing.assert_allclose(seen.points_xyz[6], expected, rtol=1e-5)


def test_the_window_is_the_world_models():
    from come_nav.world_model.images import crop_window

    for width, height, aspect in [(80, 60, 1.0), (61, 100, 1.0), (320, 240, 4 / 3), (321, 239, 4 / 3), (7, 5, 1.7)]:
        left, top, columns, rows = centred_window(width, height, aspect)
        assert (top, left, rows, columns) == crop_window(height, width, aspect)
    camera = model_camera(CameraIntrinsics(320, 240, 285.0, 285.0, 160.0, 120.0), 64)
    assert (camera.width, camera.height, camera.cx, camera.cy) == (64, 64, 32.0, 32.0)
    assert camera.fx == pytest.approx(76.0)


def test_depth_is_sampled_and_never_averaged_over_an_edge_of_the_unknown():
    depth = np.arange(64, dtype=np.float32).reshape(8, 8) + 1.0
    assert sample_depth(depth, 4, 4)[1, 2] == pytest.approx(depth[2:4, 4:6].mean())
    depth[2, 4] = np.nan
    assert np.isnan(sample_depth(depth, 4, 4)[1, 2])


# --- what is rejected -----------------------------------------------------------------------------------------------

BAD_FRAMES = {
    "no_depth": (dataclasses.replace(frame(2.0), depth_m=None), ORIGIN),
    "no_intrinsics": (frame(2.0, camera=None), ORIGIN),
    "no_camera_extrinsics": (frame(2.0, extrinsics=None), ORIGIN),
    "wrong_size": (frame(2.0, camera=CAMERA.scaled(64, 64)), ORIGIN),
    "bad_pose": (frame(2.0), np.array([0.0, np.nan, 0.0])),
    "bad_stamp": (frame(2.0, stamp_s=math.nan), ORIGIN),
    "no_points": (frame(np.nan), ORIGIN),
}


@pytest.mark.parametrize("reason", BAD_FRAMES)
def test_faults_are_counted_and_never_an_exception(reason):
    memory = SpatialMemory()
    assert memory.observe(*BAD_FRAMES[reason]) is InsertResult(reason)
    assert dict(memory.rejected) == {reason: 1}
    assert len(memory) == 0


@pytest.mark.parametrize("depth", [0.0, -1.0, np.inf, 0.01, 99.0])
def test_depth_that_says_nothing_gives_no_points(depth):
    assert SpatialMemory().observe(frame(depth), ORIGIN) is InsertResult.NO_POINTS


@pytest.mark.parametrize(
    "pose", [np.zeros((4, 4)), np.diag([1.0, 1.0, -1.0, 1.0]), 2 * np.eye(4), np.zeros(2), np.full((4, 4), np.inf)]
)
def test_what_is_no_rigid_pose_is_refused(pose):
    assert SpatialMemory().observe(frame(2.0), pose) is InsertResult.BAD_POSE


@pytest.mark.parametrize(
    "wrong", [{"voxel_m": 0.0}, {"max_voxels": 0}, {"max_range_m": 0.05}, {"edge_ratio": 0.0}, {"min_neighbours": 9}]
)
def test_impossible_settings_name_the_field(wrong):
    with pytest.raises(ConfigError, match=f"spatial.{next(iter(wrong))}"):
        SpatialSettings(**wrong)


# --- what is unlearnt -----------------------------------------------------------------------------------------------


def test_a_person_who_left_is_forgotten_and_the_wall_stays():
    wall = np.full((32, 32), 3.0)
    person = wall.copy()
    person[8:28, 12:20] = 1.2
    memory = SpatialMemory()
    for _ in range(8):
        memory.observe(frame(person), ORIGIN)
    assert (memory.points_xyz[:, 0] < 2.0).sum() > 50
    looks = 0
    while (memory.points_xyz[:, 0] < 2.0).any() and looks < 30:
        memory.observe(frame(wall), ORIGIN)
        looks += 1
    assert 1 < looks <= 12, "unlearnt soon, but not by a single look"
    assert (memory.points_xyz[:, 0] > 2.9).sum() > 500
    kept = SpatialMemory(SpatialSettings(carve_looks=0.0))
    for image in [person] * 8 + [wall] * 30:
        kept.observe(frame(image), ORIGIN)
    assert (kept.points_xyz[:, 0] < 2.0).any(), "without carving the ghost stays"


def test_what_is_told_to_move_is_never_remembered_and_the_rest_is_as_ever():
    depth = np.full((32, 32), 3.0)
    depth[8:28, 12:20] = 1.2
    told = dataclasses.replace(frame(depth), moving=depth < 2.0)
    plain, masked = SpatialMemory(), SpatialMemory()
    plain.observe(frame(depth), ORIGIN)
    assert masked.observe(told, ORIGIN) is InsertResult.KEPT
    wall = plain.points_xyz[:, 0] > 2.0
    assert (~wall).sum() > 50
    assert (masked.points_xyz[:, 0] > 2.0).all()
    assert {*map(tuple, plain.points_xyz[wall].round(4))} <= {*map(tuple, masked.points_xyz.round(4))}
    nothing = dataclasses.replace(told, moving=np.ones((32, 32), bool))
    assert SpatialMemory().observe(nothing, ORIGIN) is InsertResult.NO_POINTS
    with pytest.raises(ShapeError, match=r"Frame\.moving must be of rgb's size"):
        dataclasses.replace(told, moving=np.ones((16, 32), bool))


def test_the_room_up_to_who_moves_is_seen_to_be_free_and_what_they_hide_stays():
    near, far = np.full((32, 32), 3.0), np.full((32, 32), 3.0)
    near[8:28, 12:20], far[8:28, 12:20] = 1.0, 2.0
    person = far < 3.0
    gone, hidden = SpatialMemory(), SpatialMemory()
    for _ in range(3):
        gone.observe(frame(near), ORIGIN)
        hidden.observe(frame(np.full((32, 32), 2.5)), ORIGIN)
    assert (gone.points_xyz[:, 0] < 1.5).sum() > 50
    known = len(hidden)
    for _ in range(30):
        told = dataclasses.replace(frame(far), moving=person)
        gone.observe(told, ORIGIN)
        hidden.observe(dataclasses.replace(frame(np.where(person, 2.0, 2.5)), moving=person), ORIGIN)
    assert not (gone.points_xyz[:, 0] < 2.5).any(), "where something stood, a person stands behind now"
    assert len(hidden) == known


def test_what_does_not_move_is_not_carved_by_turning_and_driving():
    memory = SpatialMemory()
    for step in range(40):  # towards a wall at x = 5, over a floor, with a wobble in the pose that odometry has
        wall_m = 5.0 - 0.08 * step
        depth = np.minimum(np.nan_to_num(floor_depth(), nan=99.0), wall_m)
        memory.observe(frame(depth), np.array([0.08 * step, 0.005 * (-1) ** step, 0.01 * (-1) ** step]))
    assert memory.carved < 0.01 * len(memory)


def test_the_nearest_depth_around_a_cell_ignores_the_unknown():
    depth = np.full((4, 6), 5.0, np.float32)
    depth[0, 0], depth[3, 5] = np.nan, 1.0
    near = nearest_depth(depth, 2)
    assert near.shape == (2, 3)
    assert near.tolist() == [[5.0, 1.0, 1.0], [5.0, 1.0, 1.0]]
    depth[:2, :2] = 0.0
    assert np.isnan(nearest_depth(depth, 2)[0, 0]), "where nothing was measured nothing is seen through"


# --- what it looks like ---------------------------------------------------------------------------------------------


def test_nothing_is_known_before_anything_was_seen():
    view = SpatialMemory().render(torch.zeros(2, 3), CAMERA, EXTRINSICS)
    assert view.image.shape == (2, 3, 32, 32)
    assert view.depth_m.isnan().all()
    assert not view.visible.any()
    assert view.coverage.tolist() == [0.0, 0.0]


def test_a_view_that_was_seen_looks_as_it_did():
    right, _ = rays()
    depth = np.minimum(np.nan_to_num(floor_depth(), nan=99.0), 2.5)
    colours = np.zeros((32, 32, 3), np.uint8)
    colours[..., 0] = np.where(depth < 2.5, 40, 180)
    colours[..., 1] = np.where(right > 0, 220, 30)
    memory = SpatialMemory()
    pose = np.array([3.0, -2.0, 2.0])
    memory.observe(frame(depth, colours), pose)
    view = memory.render(torch.tensor(pose[None]), CAMERA, EXTRINSICS)
    assert float(view.coverage) > 0.97
    known = view.visible[0].numpy()
    assert np.abs(view.depth_m[0].numpy() - depth)[known].max() < 0.15
    error = np.abs(colour_of(view.image[0]).transpose(1, 2, 0) - colours)[known]
    assert np.mean(error < 2) > 0.93, "colours may only mix where surfaces meet"


def test_planar_and_free_poses_agree_and_batches_equal_single_views():
    memory = SpatialMemory()
    memory.observe(frame(2.0), ORIGIN)
    poses = np.array([[0.0, 0.0, 0.0], [0.3, 0.2, 0.1], [0.5, -0.3, -0.2]])
    planar = memory.render(poses, CAMERA, EXTRINSICS)
    free = memory.render(se3.transform_from_xyyaw(poses), CAMERA, EXTRINSICS)
    torch.testing.assert_close(planar.depth_m, free.depth_m, equal_nan=True, rtol=1e-4, atol=1e-3)
    for index in range(3):
        single = memory.render(poses[index : index + 1], CAMERA, EXTRINSICS)
        torch.testing.assert_close(single.image[0], planar.image[index])
    with pytest.raises(ShapeError):
        memory.render(np.zeros(3), CAMERA, EXTRINSICS)


def test_nothing_shines_through_a_near_wall():
    depth = np.full((32, 32), 4.0)
    depth[:, :16] = 2.0
    colours = np.where((depth < 3.0)[..., None], np.uint8(RED), np.uint8(BLUE))
    memory = SpatialMemory()
    memory.observe(frame(4.0, BLUE), ORIGIN)  # the far wall, before something was put in front
    for _ in range(3):
        memory.observe(frame(depth, colours), ORIGIN)
    ahead = memory.render(np.array([[1.4, 0.0, 0.0]]), CAMERA, EXTRINSICS)  # 0.6 m away: a voxel is 1.3 px wide
    left = colour_of(ahead.image[0])[:, 4:28, 2:12]
    assert (left[0] == RED[0]).mean() > 0.98
    assert ahead.visible[0, 4:28, 2:12].all()
    right = colour_of(ahead.image[0])[:, 4:28, 20:]
    assert (right[2] > 150).mean() > 0.95, "and the outline stays where it is"


def test_the_back_of_a_surface_hides_but_is_not_known():
    memory = SpatialMemory()
    memory.observe(frame(2.0), ORIGIN)
    behind = memory.render(np.array([[4.0, 0.0, math.pi]]), CAMERA, EXTRINSICS)
    assert float(behind.coverage) == 0.0
    front = memory.render(np.array([[0.5, 0.0, 0.0]]), CAMERA, EXTRINSICS)
    assert float(front.coverage) > 0.95


def test_latents_are_remembered_and_rendered_on_their_grid():
    latents = torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(0))
    memory = SpatialMemory(SpatialSettings(voxel_m=0.02), LatentFeatures(lambda _: latents, 6))
    assert memory.observe(frame(2.0), ORIGIN) is InsertResult.KEPT
    view = memory.render(torch.zeros(1, 3), model_camera(CAMERA, 4), EXTRINSICS)
    assert view.visible.all()
    torch.testing.assert_close(view.image[0], latents)
    with pytest.raises(DataError, match="6 features"):
        export_ply(memory, "x.ply")


def test_a_drive_through_a_world_is_remembered_better_than_its_nearest_frame():
    from come_nav.sim.episodes import EpisodeRecording, simulate_episode
    from come_nav.sim.raycaster import Raycaster
    from come_nav.sim.worlds import generate_world

    world = generate_world(10007)
    camera = CameraIntrinsics.from_field_of_view(48, 48, math.pi / 2)
    caster = Raycaster([world], camera)
    drive = EpisodeRecording(simulate_episode(world, "tour", 20.0, seed=3), caster, use_truth=True)
    memory = SpatialMemory()
    for index in range(0, 80, 2):
        memory.observe(drive.frame(index), drive.poses_xyyaw[index])
    wanted = np.arange(11, 71, 6)
    truth, _ = caster.render(torch.tensor(drive.episode.poses_world_xyyaw[wanted]))
    nearest, _ = caster.render(torch.tensor(drive.episode.poses_world_xyyaw[wanted - 1]))
    view = memory.render(drive.poses_xyyaw[wanted], camera, drive.T_base_camera)
    known = view.visible[:, None].expand_as(truth)

    def psnr(image: torch.Tensor) -> float:
        return float(-10.0 * torch.log10((((image - truth) / 2.0)[known] ** 2).mean()))

    assert float(view.coverage.mean()) > 0.9
    assert psnr(view.image) > max(20.0, psnr(nearest) + 2.0)


# --- obstacles, state, bounds ----------------------------------------------------------------------------------------


def test_obstacles_are_what_the_robot_could_touch_in_its_own_frame():
    memory = SpatialMemory()
    pose = np.array([1.0, 2.0, 0.7])
    depth = np.minimum(np.nan_to_num(floor_depth(), nan=99.0), 1.5)
    for _ in range(2):
        memory.observe(frame(depth), pose)
    standing = se2.compose(pose, np.array([0.5, 0.0, 0.2]))
    near = memory.points_near(standing, 1.3)
    assert len(near) > 10
    wall = se2.transform_points(np.array([0.5, 0.0, 0.2]), near[:, :2].astype(float))
    np.testing.assert_allclose(wall[:, 0], 1.5, atol=0.02)
    assert (near[:, 2] >= 0.1).all()
    assert np.hypot(near[:, 0], near[:, 1]).max() <= 1.3
    assert len(memory.points_near(standing, 0.3)) == 0
    assert len(memory.points_near(standing, 1.3, min_hits=3)) == 0


def test_state_round_trip_goes_on_as_before():
    memory = SpatialMemory()
    for step in range(3):
        memory.observe(frame(2.0 + 0.3 * step), np.array([0.1 * step, 0.0, 0.1]))
    again = SpatialMemory.from_state(memory.state())
    poses = np.array([[0.2, 0.1, 0.0]])
    torch.testing.assert_close(
        again.render(poses, CAMERA, EXTRINSICS).image, memory.render(poses, CAMERA, EXTRINSICS).image, rtol=0, atol=0
    )
    for one in (memory, again):
        one.observe(frame(2.2), ORIGIN)
    assert len(again) == len(memory)
    with pytest.raises(ShapeError, match=r"set spatial\.voxel_m"):
        SpatialMemory(SpatialSettings(voxel_m=0.1)).load_state(memory.state())


def test_memory_and_points_stay_within_the_budget():
    rng = np.random.default_rng(0)
    memory = SpatialMemory(SpatialSettings(max_voxels=2000, max_points_per_frame=300))
    sizes = []
    for step in range(80):
        memory.observe(frame(rng.uniform(1.0, 6.0), stamp_s=step), np.array([0.7 * step, 0.0, 0.3 * step]))
        assert len(memory) <= 2000
        sizes.append(memory.nbytes)
    assert memory.voxels.evicted > 0
    assert max(sizes[40:]) <= max(sizes[:40])
    assert np.abs(memory.points_xyz[:, 0] - 0.7 * 79).max() < 40.0, "what is far away and old went first"


def test_ply_round_trip(tmp_path):
    open3d = pytest.importorskip("open3d")
    memory = SpatialMemory()
    memory.observe(frame(2.0, RED), ORIGIN)
    assert export_ply(memory, tmp_path / "cloud.ply") == len(memory)
    assert [item.name for item in tmp_path.iterdir()] == ["cloud.ply"]
    cloud = open3d.io.read_point_cloud(str(tmp_path / "cloud.ply"))
    np.testing.assert_allclose(np.sort(np.asarray(cloud.points), axis=0), np.sort(memory.points_xyz, axis=0), atol=1e-5)
    np.testing.assert_allclose(np.asarray(cloud.colors), np.tile(np.array(RED) / 255, (len(memory), 1)), atol=0.005)


def test_a_grid_of_floats_is_taken_as_it_is():
    grid = FeatureGrid(np.full((32, 32, 1), 7.5, np.float32), np.full((32, 32), 2.0, np.float32), CAMERA)
    assert (lift(grid, 4, 0, (0.1, 9.0), 0.05, 2).features == 7.5).all()


def test_a_cloud_far_from_the_origin_is_the_same_cloud():
    """Poses in UTM lie farther away than float32 or the voxels' keys reach."""
    offset = np.array([500000.0, 5400000.0, 0.0])
    clouds = []
    for shift in (np.zeros(3), offset):
        memory = SpatialMemory()
        for index in range(3):
            T_odom_base = se3.transform_from_xyyaw(np.array([0.1 * index, 0.05 * index, 0.02 * index]))
            T_odom_base[:3, 3] += shift
            assert memory.observe(frame(2.0, stamp_s=float(index)), T_odom_base) is InsertResult.KEPT
        clouds.append(memory)
    near, far = clouds
    assert len(near) == len(far) > 100
    np.testing.assert_allclose(np.sort(far.points_xyz - offset, axis=0), np.sort(near.points_xyz, axis=0), atol=1e-4)
    again = SpatialMemory.from_state(far.state())
    np.testing.assert_array_equal(again.points_xyz, far.points_xyz)
    pose = np.array([0.2, 0.1, 0.04])
    camera, extrinsics = frame(2.0).intrinsics, frame(2.0).T_base_camera
    view, moved = near.render(pose[None], camera, extrinsics), again.render((pose + offset)[None], camera, extrinsics)
    np.testing.assert_allclose(moved.depth_m.numpy(), view.depth_m.numpy(), atol=1e-3)
    found, expected = far.points_near(pose + offset, 5.0, (-5.0, 5.0)), near.points_near(pose, 5.0, (-5.0, 5.0))
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-3)


def test_a_frame_beyond_the_reach_of_the_cells_is_told():
    memory = SpatialMemory()
    memory.observe(frame(2.0), se3.transform_from_xyyaw(np.zeros(3)))
    count = len(memory)
    verdict = memory.observe(frame(2.0), se3.transform_from_xyyaw(np.array([60000.0, 0.0, 0.0])))
    assert verdict is InsertResult.TOO_FAR
    assert len(memory) == count
    assert memory.rejected["too_far"] == 1
