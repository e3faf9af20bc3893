"""A cloud that one process fills and another looks at, through a memory store."""

from __future__ import annotations

import numpy as np
import pytest

from come_nav.core.geometry import se2
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.spatial.cloud import SpatialMemory, SpatialSettings
from come_nav.memory.spatial.shared_cloud import SharedCloud
from come_nav.memory.store.store import MemoryStore

CAMERA = CameraIntrinsics.from_field_of_view(32, 24, 1.2)
T_BASE_CAMERA = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])


def wall(stamp_s: float, distance_m: float = 2.0) -> Frame:
    rgb = np.full((24, 32, 3), 90, np.uint8)
    return Frame(stamp_s, rgb, np.full((24, 32), distance_m, np.float32), CAMERA, T_BASE_CAMERA)


@pytest.fixture
def owner() -> SpatialMemory:
    memory = SpatialMemory()
    memory.observe(wall(0.0), np.zeros(3))
    return memory


def test_a_follower_sees_what_the_owner_saved_and_each_newer_cloud(owner, tmp_path):
    store, follower = MemoryStore(tmp_path), SpatialMemory()
    shared = SharedCloud(store, follower)
    assert not shared.poll()
    assert len(follower) == 0
    store.save(cloud=owner.state())
    assert shared.poll()
    np.testing.assert_array_equal(follower.points_xyz, owner.points_xyz)
    assert not shared.poll(), "nothing new"
    owner.observe(wall(1.0), np.array([0.0, 0.0, 1.5]))
    store.save(cloud=owner.state())
    assert shared.poll()
    np.testing.assert_array_equal(follower.points_xyz, owner.points_xyz)


def test_versions_that_change_another_part_are_not_read_again(owner, tmp_path, monkeypatch):
    store, follower = MemoryStore(tmp_path), SpatialMemory()
    shared = SharedCloud(store, follower)
    store.save(cloud=owner.state())
    assert shared.poll()
    store.save(about={"note": "the cloud is carried over"})
    monkeypatch.setattr(store, "load", None)  # reading the cloud would fail
    assert not shared.poll()
    assert shared.diagnosis is None


def test_a_cloud_that_does_not_fit_leaves_the_one_before_and_says_why(owner, tmp_path):
    store, follower = MemoryStore(tmp_path), SpatialMemory()
    shared = SharedCloud(store, follower)
    store.save(cloud=owner.state())
    shared.poll()
    coarse = SpatialMemory(SpatialSettings(voxel_m=0.2))
    coarse.observe(wall(2.0), np.zeros(3))
    store.save(cloud=coarse.state())
    assert not shared.poll()
    assert "spatial.voxel_m" in shared.diagnosis
    np.testing.assert_array_equal(follower.points_xyz, owner.points_xyz)


def test_a_followed_cloud_lies_where_the_localiser_says_now_not_where_it_was_saved(owner, tmp_path):
    store, follower = MemoryStore(tmp_path), SpatialMemory()
    then, now = np.array([0.5, 0.0, 0.1]), np.array([0.8, -0.2, 0.3])
    owner.move(then[None], then)
    owner.observe(wall(1.0), np.zeros(3))
    shared = SharedCloud(store, follower)
    store.save(cloud=owner.state())
    assert shared.poll()
    np.testing.assert_allclose(follower.map_frame.T_map_odom_xyyaw, then)
    shared.locate(now)
    xy_map = follower.voxels.xyz[:, :2].astype(float)
    np.testing.assert_allclose(follower.points_xyz[:, :2], se2.transform_points(se2.inverse(now), xy_map), atol=1e-5)
    owner.observe(wall(2.0), np.array([0.0, 0.0, 1.0]))
    store.save(cloud=owner.state())
    assert shared.poll()
    np.testing.assert_allclose(follower.map_frame.T_map_odom_xyyaw, now, err_msg="the owner hears of it later")
