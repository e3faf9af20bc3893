"""Relocalisation: where an image was taken, found by what is remembered; on a toy and on a built-in world."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.geometry import se2
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.image_difference import ImageDifference
from come_nav.localisation.relocalisation import poses_ahead, relocalise
from come_nav.localisation.relocalisation_settings import RelocalisationSettings
from come_nav.memory.spatial.building import remember
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.model import DiffusionWorldModel

CAMERA = CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
TRUTH = torch.tensor([1.0, -0.5, 0.4], dtype=torch.float64)


class Valley:
    """A difference that grows with the distance to its floor, and counts how many poses were asked for."""

    def __init__(self, steepness: float = 2.0, floor: torch.Tensor = TRUTH) -> None:
        self.steepness, self.floor, self.asked = steepness, floor, 0

    def __call__(self, poses: torch.Tensor) -> torch.Tensor:
        self.asked += len(poses)
        return 1.0 - torch.exp(-self.steepness * ((poses - self.floor) ** 2).sum(-1))


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    return DiffusionWorldModel.load(find_resource("models", "tiny"))


@pytest.fixture(scope="module")
def remembered() -> tuple[EpisodeRecording, RememberedViews]:
    world, memory = generate_world(10003), SpatialMemory()
    drive = EpisodeRecording(simulate_episode(world, "tour", 20.0), Raycaster([world], CAMERA), use_truth=True)
    remember(drive, [memory])
    return drive, RememberedViews(memory, CAMERA, drive.T_base_camera)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_search_comes_closer_than_any_start() -> None:
    starts = np.array([[0.0, 0.0, 0.0], [5.0, 5.0, 1.0], [0.4, -0.2, 0.0]])
    found = [relocalise(Valley(), Valley(), starts, seeded(seed)) for seed in range(5)]
    errors = [float(np.abs(sighting.pose_odom_xyyaw - TRUTH.numpy()).max()) for sighting in found if sighting]
    assert len(errors) == 5
    assert max(errors) < 0.1
    assert all(sighting.difference == pytest.approx(float(Valley()(torch.from_numpy(sighting.pose_odom_xyyaw)[None])))
               for sighting in found if sighting)  # fmt: skip


def test_a_wide_rough_valley_leads_into_a_narrow_exact_one() -> None:
    narrow, starts = Valley(40.0), np.array([[-0.2, -1.2, -0.4], [3.0, 3.0, 0.0]])
    assert float(narrow(torch.from_numpy(starts)).min()) > 0.999  # tells nothing where the search begins
    wide = Valley(0.5, TRUTH + torch.tensor([0.1, 0.1, -0.05]))  # and the rough floor lies a little beside
    found = [relocalise(wide, narrow, starts, seeded(seed)) for seed in range(5)]
    errors = [float(np.abs(sighting.pose_odom_xyyaw - TRUTH.numpy()).max()) for sighting in found if sighting]
    assert len(errors) == 5
    assert max(errors) < 0.1


def test_it_tries_again_only_while_nothing_is_good() -> None:
    settings = RelocalisationSettings(
        attempts=3, samples=10, rounds=2, elites=4, polish=1, polish_samples=5, polish_elites=2, good=0.3
    )
    near, far = np.array([[1.0, -0.5, 0.4], [40.0, 40.0, 0.0]]), np.array([[40.0, 40.0, 0.0], [-40.0, 40.0, 0.0]])
    for starts, attempts in ((near, 1), (far, 3)):
        rough, exact = Valley(), Valley()
        found = relocalise(rough, exact, starts, seeded(), settings)
        assert found is not None and (found.difference < 0.3) == (starts is near)
        assert (rough.asked, exact.asked) == (2 + attempts * 2 * 10, attempts * (4 + 5))


def test_a_search_that_is_stopped_answers_with_the_best_so_far() -> None:
    rough, exact, starts = Valley(), Valley(), np.array([[0.0, 0.0, 0.0], [0.9, -0.4, 0.4], [5.0, 5.0, 0.0]])
    found = relocalise(rough, exact, starts, seeded(), RelocalisationSettings(), stopped=lambda: True)
    assert found is not None
    np.testing.assert_array_equal(found.pose_odom_xyyaw, starts[1])
    assert (rough.asked, exact.asked) == (3, 3)


def test_same_generator_same_pose() -> None:
    starts = np.array([[0.5, 0.0, 0.0]])
    one, two = (relocalise(Valley(), Valley(), starts, seeded(3)) for _ in range(2))
    assert one is not None and two is not None
    np.testing.assert_array_equal(one.pose_odom_xyyaw, two.pose_odom_xyyaw)


def test_nothing_to_begin_with_and_nothing_finite() -> None:
    def unknown(poses: torch.Tensor) -> torch.Tensor:
        return torch.full((len(poses),), math.nan)

    assert relocalise(Valley(), Valley(), np.zeros((0, 3)), seeded()) is None
    assert relocalise(unknown, unknown, np.zeros((2, 3)), seeded()) is None
    with pytest.raises(ShapeError):
        relocalise(Valley(), Valley(), np.zeros((2, 2)), seeded())
    with pytest.raises(ConfigError, match=r"relocalisation\.samples"):
        RelocalisationSettings(samples=0)


def test_poses_ahead_lie_where_the_robot_looks() -> None:
    ahead = poses_ahead(np.array([1.0, 2.0, math.pi / 2]))
    np.testing.assert_allclose(ahead[:, 0], 1.0)
    np.testing.assert_allclose(ahead[:, 2], math.pi / 2)
    assert ahead[0, 1] == pytest.approx(2.0) and (np.diff(ahead[:, 1]) > 0.0).all()


def test_images_of_a_remembered_world_are_found(remembered, model) -> None:
    drive, views = remembered
    errors = []
    for index in (10, 40, 70):
        image = model.images_from_rgb([drive.frame(index).rgb])[0]
        exact = ImageDifference(views, model.encode, image, 0.3)
        rough = ImageDifference(views, model.encode, image, 0.3, rough_px=16, rough_m=0.15)
        # Starts are other frames of the drive, in the order in which they resemble the image.
        others = [frame for frame in range(0, len(drive), 6) if abs(frame - index) > 3]
        starts = np.stack([drive.poses_xyyaw[frame] for frame in others])
        found = relocalise(rough, exact, starts[exact(torch.from_numpy(starts)).argsort()], seeded(index))
        assert found is not None
        errors.append(se2.relative(drive.poses_xyyaw[index], found.pose_odom_xyyaw))
    away = np.abs(np.array(errors))
    assert np.hypot(away[:, 0], away[:, 1]).max() < 0.25
    assert away[:, 2].max() < 0.15


def test_a_rough_difference_falls_from_farther_away(remembered, model) -> None:
    """At the pose of an image both are small; 0.3 m and 0.15 rad off, only the rough one says: nearly."""
    drive, views = remembered
    found = []
    for index in range(10, 80, 10):
        image = model.images_from_rgb([drive.frame(index).rgb])[0]
        there = drive.poses_xyyaw[index]
        poses = torch.from_numpy(np.stack([there, se2.compose(there, np.array([0.3, 0.0, 0.15]))]))
        exact = ImageDifference(views, model.encode, image, 0.3)(poses)
        rough = ImageDifference(views, model.encode, image, 0.3, rough_px=16, rough_m=0.15)(poses)
        found.append(torch.stack([exact, rough]))
    exact_there, exact_off, rough_there, rough_off = torch.stack(found).flatten(1).mean(dim=0).tolist()
    assert exact_there < 0.25 and rough_there < 0.25
    assert rough_off - rough_there < 0.6 * (exact_off - exact_there)


def test_nothing_remembered_is_a_large_difference_and_pixels_must_fit(model) -> None:
    empty, image = RememberedViews(SpatialMemory(), CAMERA, np.eye(4)), torch.zeros(3, 64, 64)
    image[0, 20:40] = 0.8
    assert float(ImageDifference(empty, model.encode, image, 0.3)(torch.zeros(1, 3))) > 0.6
    with pytest.raises(ConfigError, match="24 px"):
        ImageDifference(empty, model.encode, image, 0.3, rough_px=24)
