"""A cloud anchored to key frames: a corrected key frame takes its points along."""

from __future__ import annotations

import math

import numpy as np
import pytest

from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.map_frame import MapFrame
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.moving import move_voxels
from come_nav.memory.spatial.settings import SpatialSettings
from come_nav.memory.spatial.splat_cache import EXTRA
from come_nav.memory.spatial.voxels import VoxelMap, cell_keys

CAMERA = CameraIntrinsics.from_field_of_view(32, 32, math.pi / 2)
EXTRINSICS = se3.make_transform(se3.R_BODY_OPTICAL, np.array([0.0, 0.0, 0.5]))
DRIFT = np.array([0.31, -0.17, 0.12])
LEFT, RIGHT = np.array([0.0, 0.0, 1.2]), np.array([0.0, 0.0, -1.2])
SETTINGS = SpatialSettings(carve_looks=0.0)
NORMALS = slice(-EXTRA, -1)


def frame(seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    return Frame(
        float(seed), rng.integers(0, 255, (32, 32, 3), np.uint8), np.full((32, 32), 2.0, np.float32), CAMERA, EXTRINSICS
    )


def voxels_of(points: np.ndarray, anchors: np.ndarray, voxel_m: float = 0.1) -> VoxelMap:
    cells = VoxelMap(voxel_m, 1000, 3 + EXTRA)
    rng = np.random.default_rng(0)
    for anchor in np.unique(anchors):
        own = points[anchors == anchor]
        values = rng.normal(size=(len(own), 3 + EXTRA))
        cells.add(own, values, np.ones(len(own)), float(anchor), np.zeros(3), int(anchor))
    return cells


def test_points_and_normals_move_rigidly_with_their_key_frame() -> None:
    grid = np.stack(np.meshgrid(np.arange(4.0), np.arange(4.0), [0.3], indexing="ij"), axis=-1).reshape(-1, 3) + 0.05
    anchors = np.arange(len(grid)) % 3 - 1
    cells = voxels_of(grid, anchors)
    before = cells.state()
    origin = np.array([10.0, -20.0])
    assert move_voxels(cells, np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.4]]), origin, NORMALS) == (anchors == 1).sum()
    after = cells.state()
    for row, anchor in enumerate(before["anchor"]):
        xyz, normal = before["xyz"][row].astype(float), before["features"][row, NORMALS].astype(float)
        if anchor == 1:
            turn = np.array([[math.cos(0.4), -math.sin(0.4)], [math.sin(0.4), math.cos(0.4)]])
            xyz[:2] = turn @ (xyz[:2] + origin) - origin
            normal[:2] = turn @ normal[:2]
        found = np.argmin(np.abs(after["xyz"] - xyz).sum(axis=1))
        np.testing.assert_allclose(after["xyz"][found], xyz, atol=1e-5)
        np.testing.assert_allclose(after["features"][found, NORMALS], normal, atol=1e-5)
        assert after["key"][found] == cell_keys(after["xyz"][found][None], 0.1)[0]
    add = cells.add(after["xyz"][:1], after["features"][:1], np.ones(1), 9.0, np.zeros(3), 2)
    assert add == (0, 1), "the index finds moved cells"


def test_cells_that_meet_are_merged_by_weight_and_keep_the_newest_look() -> None:
    cells = voxels_of(np.array([[0.02, 0.05, 0.05], [1.06, 0.05, 0.05], [3.0, 3.0, 0.0]]), np.array([0, 1, 1]))
    state = cells.state()
    state["weight"][:], state["hits"][:] = [1.0, 3.0, 1.0], [7.0, 2.0, 1.0]
    cells.load_state(state)
    move_voxels(cells, np.array([[0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]), np.zeros(2), NORMALS)
    assert len(cells) == 2
    row = int(np.argmin(np.abs(cells.xyz[:, 0])))
    np.testing.assert_allclose(cells.xyz[row], [0.25 * 0.02 + 0.75 * 0.06, 0.05, 0.05], atol=1e-6)
    np.testing.assert_allclose(
        cells.features[row], 0.25 * state["features"][0] + 0.75 * state["features"][1], atol=1e-6
    )
    assert (cells.weight[row], cells.hits[row], cells.stamp_s[row], cells.anchor[row]) == (4.0, 7.0, 1.0, 1)


def test_what_leaves_the_reach_of_the_cells_is_forgotten() -> None:
    cells = voxels_of(np.array([[0.05, 0.05, 0.05], [2.05, 0.05, 0.05]]), np.array([0, 1]))
    move_voxels(cells, np.array([[0.0, 0.0, 0.0], [1e7, 0.0, 0.0]]), np.zeros(2), NORMALS)
    np.testing.assert_allclose(cells.xyz, [[0.05, 0.05, 0.05]])


@pytest.mark.parametrize("origin", [np.zeros(3), np.array([500000.0, 5400000.0, 0.0])])
def test_a_corrected_cloud_is_the_cloud_of_corrected_poses(origin: np.ndarray) -> None:
    """Odometry drifts between two looks; the correction puts the second where it truly was taken."""
    start = se2.compose(origin, LEFT)
    truth = se2.compose(origin, np.array([0.5, 0.2, RIGHT[2]]))
    drifted = se2.compose(truth, DRIFT)
    correction = se2.compose(truth, se2.inverse(drifted))
    ideal, robot = SpatialMemory(SETTINGS), SpatialMemory(SETTINGS)
    for memory, second in ((ideal, truth), (robot, drifted)):
        memory.move(np.zeros((1, 3)))
        memory.observe(frame(0), start)
        memory.move(np.zeros((2, 3)))
        memory.observe(frame(1), second)
    assert robot.move(np.stack([np.zeros(3), correction])) > 100
    seen, wanted = (
        memory.render(pose[None], CAMERA, EXTRINSICS) for memory, pose in ((robot, drifted), (ideal, truth))
    )
    both = seen.visible & wanted.visible
    assert both.float().mean() > 0.6
    apart = (seen.image - wanted.image).abs().mean(dim=1)[both]
    assert float((apart < 0.1).float().mean()) > 0.85
    near = [memory.points_near(pose, 4.0, min_hits=0.0) for memory, pose in ((robot, drifted), (ideal, truth))]
    away = np.abs(near[0][:, None] - near[1][None]).max(axis=2).min(axis=1)
    assert np.quantile(away, 0.95) < 0.08
    np.testing.assert_allclose(
        np.sort(robot.points_xyz[:, 2])[::50], np.sort(robot.voxels.xyz[:, 2])[::50], atol=1e-6
    )  # the plane of motion is the same in odom and map


def test_new_looks_are_stored_at_the_corrected_pose() -> None:
    robot, ideal = SpatialMemory(SETTINGS), SpatialMemory(SETTINGS)
    robot.move(DRIFT[None])
    robot.observe(frame(), LEFT)
    ideal.observe(frame(), se2.compose(DRIFT, LEFT))
    np.testing.assert_allclose(robot.voxels.xyz, ideal.voxels.xyz, atol=1e-6)
    np.testing.assert_allclose(robot.voxels.anchor, 0)
    np.testing.assert_allclose(ideal.voxels.anchor, -1)
    back = robot.points_xyz
    np.testing.assert_allclose(
        back[:, :2], se2.transform_points(se2.inverse(DRIFT), ideal.voxels.xyz[:, :2].astype(float)), atol=1e-5
    )


def test_without_corrections_every_array_is_as_before() -> None:
    told, untold = SpatialMemory(), SpatialMemory()
    for number in range(3):
        told.move(np.zeros((number + 1, 3)))
        for memory in (told, untold):
            memory.observe(frame(number), np.array([0.1 * number, 0.0, 0.3 * number]))
    for name, column in untold.voxels.state().items():
        if name != "anchor":
            np.testing.assert_array_equal(told.voxels.state()[name], column)
    views = [memory.render(LEFT[None], CAMERA, EXTRINSICS).image for memory in (told, untold)]
    assert bool((views[0] == views[1]).all())
    assert told.points_xyz.base is not None or told.points_xyz is told.voxels.xyz


def test_a_saved_cloud_keeps_its_anchors_and_where_odom_lies() -> None:
    robot = SpatialMemory(SETTINGS)
    robot.move(np.zeros((1, 3)))
    robot.observe(frame(0), LEFT)
    robot.move(np.stack([np.zeros(3), DRIFT]))
    robot.observe(frame(1), RIGHT)
    follower = SpatialMemory.from_state(robot.state())
    np.testing.assert_array_equal(follower.voxels.anchor, robot.voxels.anchor)
    pair = [memory.render(RIGHT[None], CAMERA, EXTRINSICS).image for memory in (robot, follower)]
    assert bool((pair[0] == pair[1]).all())
    before = follower.voxels.xyz.copy()
    follower.move(np.zeros((1, 3)))
    assert follower.move(DRIFT[None]) == 0, "its key frames belong to who saved it"
    np.testing.assert_array_equal(follower.voxels.xyz, before)
    np.testing.assert_allclose(follower.map_frame.T_map_odom_xyyaw, se2.compose(DRIFT, DRIFT))


def test_a_store_without_anchors_opens() -> None:
    robot = SpatialMemory(SETTINGS)
    robot.observe(frame(0), LEFT)
    old = {name: value for name, value in robot.state().items() if name not in ("anchor", "T_map_odom_xyyaw")}
    again = SpatialMemory(SETTINGS)
    again.load_state(old)
    np.testing.assert_array_equal(again.voxels.xyz, robot.voxels.xyz)
    assert (again.voxels.anchor == -1).all()
    assert again.map_frame.is_odom
    assert isinstance(again.map_frame, MapFrame)
