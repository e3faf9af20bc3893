"""Relocalisation: where a picture was taken, found by what is remembered; on a toy and on a built-in world."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from come_nav.config import find_resource
from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.types import CameraIntrinsics
from come_nav.memory.building import remember
from come_nav.memory.recall import PictureDifference, RememberedViews
from come_nav.memory.relocalisation import RelocalisationConfig, relocalise
from come_nav.memory.spatial import SpatialMemory
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.model import DiffusionWorldModel

CAMERA = CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
TRUTH = torch.tensor([1.0, -0.5, 0.4], dtype=torch.float64)


class Valley:
    """A difference that grows with the distance to TRUTH, and counts how many poses were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, poses: torch.Tensor) -> torch.Tensor:
        self.asked += len(poses)
        away = poses - TRUTH
        return 1.0 - torch.exp(-2.0 * (away**2).sum(-1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_search_comes_closer_than_any_start() -> None:
    starts = np.array([[0.0, 0.0, 0.0], [5.0, 5.0, 1.0], [0.4, -0.2, 0.0]])
    found = [relocalise(Valley(), starts, seeded(seed)) for seed in range(5)]
    errors = [float(np.abs(sighting.pose_odom_xyyaw - TRUTH.numpy()).max()) for sighting in found if sighting]
    assert len(errors) == 5
    assert max(errors) < 0.15
    assert all(sighting.difference == pytest.approx(float(Valley()(torch.from_numpy(sighting.pose_odom_xyyaw)[None])))
               for sighting in found if sighting)  # fmt: skip


def test_it_goes_on_to_later_starts_only_while_nothing_is_good() -> None:
    settings = RelocalisationConfig(starts=2, attempts=3, samples=10, rounds=2, polish=1, good=0.3)
    near, far = [1.0, -0.5, 0.4], [40.0, 40.0, 0.0]
    early, late = Valley(), Valley()
    assert relocalise(early, np.array([near, far, far, far, far, far]), seeded(), settings) is not None
    found = relocalise(late, np.array([far, far, far, far, near, far]), seeded(), settings)
    assert found is not None and found.difference < 0.3
    assert (early.asked, late.asked) == (2 + 2 * 10 + 10, 3 * (2 + 2 * 10) + 10)


def test_a_search_that_is_stopped_answers_with_the_best_so_far() -> None:
    valley, starts = Valley(), np.array([[0.0, 0.0, 0.0], [0.9, -0.4, 0.4], [5.0, 5.0, 0.0]])
    found = relocalise(valley, starts, seeded(), RelocalisationConfig(), stopped=lambda: True)
    assert found is not None
    np.testing.assert_array_equal(found.pose_odom_xyyaw, starts[1])
    assert valley.asked == 3


def test_same_generator_same_pose() -> None:
    starts = np.array([[0.5, 0.0, 0.0]])
    one, two = (relocalise(Valley(), starts, seeded(3)) for _ in range(2))
    assert one is not None and two is not None
    np.testing.assert_array_equal(one.pose_odom_xyyaw, two.pose_odom_xyyaw)


def test_nothing_to_begin_with_and_nothing_finite() -> None:
    assert relocalise(Valley(), np.zeros((0, 3)), seeded()) is None
    assert relocalise(lambda poses: torch.full((len(poses),), math.nan), np.zeros((2, 3)), seeded()) is None
    with pytest.raises(ShapeError):
        relocalise(Valley(), np.zeros((2, 2)), seeded())
    with pytest.raises(ConfigError, match=r"relocalisation\.samples"):
        RelocalisationConfig(samples=0)


def test_pictures_of_a_remembered_world_are_found() -> None:
    world, model = generate_world(10003), DiffusionWorldModel.load(find_resource("models", "tiny"))
    drive = EpisodeRecording(simulate_episode(world, "tour", 20.0), Raycaster([world], CAMERA), use_truth=True)
    memory = SpatialMemory()
    remember(drive, [memory])
    views, errors = RememberedViews(memory, CAMERA, drive.T_base_camera), []
    for index in (10, 40, 70):
        latents = model.encode(model.images_from_rgb([drive.frame(index).rgb]))[0]
        difference = PictureDifference(views, model.encode, latents, model.image_size, 0.3)
        # Starts are other frames of the drive, in the order in which they resemble the picture.
        others = [frame for frame in range(0, len(drive), 6) if abs(frame - index) > 3]
        start_poses = np.stack([drive.poses_xyyaw[frame] for frame in others])
        found = relocalise(difference, start_poses[difference(torch.from_numpy(start_poses)).argsort()], seeded(index))
        assert found is not None
        errors.append(se2.relative(drive.poses_xyyaw[index], found.pose_odom_xyyaw))
    away = np.abs(np.array(errors))
    assert np.hypot(away[:, 0], away[:, 1]).max() < 0.25
    assert away[:, 2].max() < 0.15
    empty = RememberedViews(SpatialMemory(), CAMERA, drive.T_base_camera)
    assert float(PictureDifference(empty, model.encode, latents, model.image_size, 0.3)(torch.zeros(1, 3))) > 0.6
