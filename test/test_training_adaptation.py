"""Learning from recordings: extrinsics and depth are the recording's own, as plans see them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.data.bags.writer import write_bag
from come_nav.data.opening import open_recording
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.training.config import DataSettings, TrainSettings
from come_nav.training.data.bank import GoalSettings, LatentBank
from come_nav.training.data.sources import TrainingData
from come_nav.training.data.windows import WindowBatch
from come_nav.training.tasks.views import ViewMaker, with_estimated_depth
from come_nav.world_model.depth_of_frames import measured_depth
from come_nav.world_model.model import DiffusionWorldModel

HEIGHT_M, PITCH_RAD = 1.1, -0.2
WORLD = 4


class HolesRecording(EpisodeRecording):
    """A drive whose depth camera sees nothing beyond 2 m; odd frames lack depth altogether."""

    def frame(self, index: int) -> Frame:
        frame = super().frame(index)
        near = np.where(frame.depth_m < 2.0, frame.depth_m, 0.0).astype(np.float32)
        return replace(frame, depth_m=near)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = generate_world(WORLD)
    camera = CameraIntrinsics.from_field_of_view(80, 60, math.radians(75.0))
    raycaster = Raycaster([world], camera, HEIGHT_M, pitch_rad=PITCH_RAD)
    path = tmp_path_factory.mktemp("bags") / "drive"
    write_bag(path, HolesRecording(simulate_episode(world, "wander", 6.0, 4.0, 1), raycaster))
    return path


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    return DiffusionWorldModel.load(find_resource("models", "tiny"))


@pytest.fixture(scope="module")
def bank(bag: Path, model: DiffusionWorldModel, tmp_path_factory: pytest.TempPathFactory) -> LatentBank:
    data = DataSettings(worlds=0, recordings=(str(bag),))
    config = TrainSettings(data=data, image_size=model.image_size, rate_hz=4.0)
    folder = tmp_path_factory.mktemp("run")
    made = TrainingData(config, folder, "cpu", model.autoencoder, model.depth, model.images, progress=False)
    return made.recording_bank(str(bag), (0.0, 0.6))


def test_what_is_held_out_is_learned_from_by_no_stage(bag: Path, model: DiffusionWorldModel, tmp_path: Path) -> None:
    data = DataSettings(worlds=0, recordings=(str(bag),))
    config = TrainSettings(data=data, image_size=model.image_size, rate_hz=4.0)
    made = TrainingData(config, tmp_path, "cpu", model.autoencoder, None, model.images, progress=False)
    count = len(open_recording(bag, 4.0, quiet=True))
    assert len(made.recording_bank(str(bag), estimated_depth=False)) == round(0.9 * count)


def test_windows_of_a_recording_have_its_own_extrinsics(bank: LatentBank, bag: Path) -> None:
    recording = open_recording(bag, 4.0, quiet=True)
    assert len(bank) == round(0.6 * len(recording))
    batch = bank.sample(GoalSettings(), 4, torch.Generator().manual_seed(0))
    assert batch.T_base_camera is not None
    assert batch.T_base_camera.shape == (4, GoalSettings().context_frames, 4, 4)
    expected = torch.from_numpy(np.asarray(recording.frame(0).T_base_camera)).float()
    torch.testing.assert_close(batch.T_base_camera[1, 2], expected)
    assert float(batch.T_base_camera[0, 0, 2, 3]) == pytest.approx(HEIGHT_M)
    assert float(batch.T_base_camera[0, 0, 2, 2]) == pytest.approx(math.sin(PITCH_RAD), abs=1e-6)


def test_depth_is_what_was_measured_and_elsewhere_an_estimate_to_its_scale(
    bank: LatentBank, bag: Path, model: DiffusionWorldModel
) -> None:
    recording = open_recording(bag, 4.0, quiet=True)
    frames = [recording.frame(index) for index in range(4)]
    measured = measured_depth(frames, model.image_size, model.images.aspect)
    known = measured > 0.0
    assert bank.depth_m is not None and bank.measured is not None and bank.images is not None
    assert 0.1 < float(known.float().mean()) < 0.95
    assert torch.equal(bank.measured[:4] > 0, known)
    torch.testing.assert_close(bank.depth_m[:4].float()[known], measured[known], rtol=2e-3, atol=0)
    assert bool(torch.isfinite(bank.depth_m[:4][~known]).all())
    blind = with_estimated_depth(replace(bank, measured=None), model.depth, "cpu", False, model.images)
    assert blind.depth_m is not None
    estimated = blind.depth_m[:4].float()
    ratio = (measured[known] / estimated[known]).median()
    torch.testing.assert_close(bank.depth_m[:4].float()[~known], (ratio * estimated)[~known], rtol=5e-3, atol=0)


def test_views_that_are_trained_on_move_as_the_recordings_camera_does(
    bank: LatentBank, model: DiffusionWorldModel
) -> None:
    """A camera that looks down shows other views than one that is thought to be level."""
    batch = bank.sample(GoalSettings(), 3, torch.Generator().manual_seed(1))
    views = ViewMaker(model.encode, model.reprojection, model.images, 4.0)
    own = views(batch)
    level = views(replace(batch, T_base_camera=None))
    assert own.shape == level.shape and not torch.allclose(own, level, atol=1e-2)
    known = views(replace(batch, T_base_camera=batch.T_base_camera.clone()))
    torch.testing.assert_close(own, known)


def test_extrinsics_outlive_a_mixture_with_what_has_none(bank: LatentBank) -> None:
    batch = bank.sample(GoalSettings(), 2, torch.Generator().manual_seed(0))
    joined = WindowBatch.joined([batch, replace(batch, T_base_camera=None)], torch.tensor([2, 0, 3, 1]))
    assert joined.T_base_camera is not None and batch.T_base_camera is not None
    assert torch.isnan(joined.T_base_camera[[0, 2]]).all()
    torch.testing.assert_close(joined.T_base_camera[[1, 3]], batch.T_base_camera)
