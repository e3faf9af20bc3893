"""Remembered frames found by what they show: overlap, occlusion, age, and joint coverage."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.retrieval import FrameRetrieval, RetrievalSettings, sampled_points

CAMERA = CameraIntrinsics(60, 60, 30.0, 30.0, 30.0, 30.0)  # 90 degrees
EXTRINSICS = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]])
HERE = np.zeros(3)


def frame(depth_m: float = 2.0, stamp_s: float = 0.0) -> Frame:
    depth = np.full((60, 60), depth_m, np.float32)
    return Frame(stamp_s, np.zeros((60, 60, 3), np.uint8), depth, CAMERA, EXTRINSICS)


def retrieval_of(*frames, **settings) -> FrameRetrieval:
    found = FrameRetrieval(RetrievalSettings(**settings))
    for seen, pose in frames:
        found.add(seen, np.array(pose, float))
    return found


def asked(found: FrameRetrieval, count: int = 3, pose=HERE, **told):
    return found.query(np.array(pose, float), CAMERA, EXTRINSICS, count, **told)


def test_points_lie_where_the_depth_says() -> None:
    points = sampled_points(frame(2.0), 3.0)
    assert points.shape == (36, 3)
    np.testing.assert_allclose(points[:, 0], 2.0, rtol=1e-6)
    np.testing.assert_allclose(np.unique(points[:, 1].round(5)), np.array([-5, -3, -1, 1, 3, 5]) / 3.0, rtol=1e-4)
    np.testing.assert_allclose(points[:, 2].mean(), 0.5, atol=1e-6)
    blind = dataclasses.replace(frame(), depth_m=None)
    np.testing.assert_allclose(sampled_points(blind, 3.0)[:, 0], 3.0, rtol=1e-6)


def test_the_frame_of_a_view_comes_first_and_what_shows_none_of_it_not_at_all() -> None:
    poses = [(0, 0, 0), (0, 0, np.pi), (0, 9, np.pi / 2)]
    found = retrieval_of(*((frame(), pose) for pose in poses))
    answer = asked(found, 4)
    assert answer.indices.tolist() == [0]
    assert answer.overlap[0] == 1.0
    assert answer.covered == 1.0
    behind = asked(found, 4, (0, 0, np.pi))
    assert behind.indices.tolist() == [1]
    assert asked(found, 0).indices.tolist() == []
    assert asked(FrameRetrieval()).indices.tolist() == []


def test_what_lies_behind_a_wall_is_not_shown() -> None:
    wall, beyond = (frame(2.0), (0, 0, 0)), (frame(2.0), (4, 0, 0))  # the latter's points lie at 6 m, in the frustum
    assert asked(retrieval_of(beyond)).indices.tolist() == [0]
    assert asked(retrieval_of(wall, beyond)).indices.tolist() == [0]
    assert asked(retrieval_of(beyond, wall)).indices.tolist() == [1]


def test_frames_are_chosen_for_what_they_add() -> None:
    left, right = (0, 0, 0.6), (0, 0, -0.6)
    found = retrieval_of((frame(), left), (frame(), left), (frame(), left), (frame(), right))
    answer = asked(found, 2)
    assert 3 in answer.indices
    assert answer.covered > answer.overlap.max()


def test_the_newer_of_two_equal_frames_comes_first_and_age_is_a_choice() -> None:
    found = retrieval_of((frame(stamp_s=0.0), HERE), (frame(stamp_s=100.0), HERE), (frame(stamp_s=50.0), HERE))
    assert asked(found).indices.tolist() == [1, 2, 0]
    wide, part = (frame(stamp_s=0.0), HERE), (frame(stamp_s=1000.0), (0, 0, 0.7))
    assert asked(retrieval_of(wide, part, forget_s=1e6), 1).indices.tolist() == [0]
    assert asked(retrieval_of(wide, part, forget_s=100.0), 1).indices.tolist() == [1]
    assert asked(retrieval_of(wide, part, forget_s=1e6), 1, now_s=1000.0).indices.tolist() == [0]


def test_frames_follow_their_corrected_poses() -> None:
    found = retrieval_of((frame(), (0, 0, np.pi)), (frame(), (0, 0, 0)))
    assert asked(found).indices.tolist() == [1]
    found.move(np.array([[0, 0, 0], [0, 0, np.pi]]))
    assert asked(found).indices.tolist() == [0]


def test_a_shortlist_keeps_the_frames_in_the_middle_of_the_view_and_many_frames_are_few_bytes() -> None:
    aside = (np.arange(60) + 0.5 - CAMERA.cx) / CAMERA.fx
    tower = np.tile(3.0 / np.hypot(1.0, aside), (60, 1)).astype(np.float32)  # a round wall, the same from every heading
    seen = [(dataclasses.replace(frame(), depth_m=tower), (0, 0, yaw)) for yaw in np.linspace(-0.7, 0.7, 301)]
    found, whole = retrieval_of(*seen, shortlist=20), retrieval_of(*seen, shortlist=1000)
    few, all_of_them = asked(found, 1), asked(whole, 1)
    assert 140 <= few.indices[0] <= 160
    assert few.overlap[0] == pytest.approx(all_of_them.overlap[0], abs=0.15)
    assert found.nbytes < 2 * len(found) * 36 * 16


def test_mistakes_are_told() -> None:
    with pytest.raises(DataError, match="needs intrinsics"):
        FrameRetrieval().add(dataclasses.replace(frame(), intrinsics=None), HERE)
    with pytest.raises(ConfigError, match=r"retrieval\.cells"):
        RetrievalSettings(cells=0)
