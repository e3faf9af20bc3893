"""Views of a camera that leans this way and that, imagined with the tilt of the start and with the target's own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_samples import SampleRecording
from model_samples import small_model

from come_nav.core.errors import DataError
from come_nav.core.geometry import se3
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.evaluation.metrics.image_metrics import psnr
from come_nav.evaluation.protocols.memory_windows import MemoryDrive, MemoryWindow
from come_nav.evaluation.protocols.protocol import ProtocolSettings
from come_nav.evaluation.protocols.quality import (
    TILTED_JUMP,
    Batch,
    QualityRow,
    QualityWindow,
    camera_tilts,
    quality_windows,
    read_batch,
    target_extrinsics,
)
from come_nav.evaluation.suites.inputs import Input, SourceSettings
from come_nav.evaluation.suites.memory.compositions import find_weights
from come_nav.evaluation.suites.memory.drive_memories import DriveMemories, MemoryCache
from come_nav.evaluation.suites.memory.optional_rows import RETRIEVED_TITLE, optional_rows
from come_nav.evaluation.suites.memory.recall import set_up_recall
from come_nav.evaluation.suites.memory.rows import recall_rows
from come_nav.evaluation.suites.memory.settings import MemorySuiteSettings
from come_nav.evaluation.suites.progress import silent
from come_nav.evaluation.suites.quality import possible_rows
from come_nav.evaluation.suites.quality_rows import images_of, quality_rows
from come_nav.navigation.settings import ExpertsSettings, NavigationSettings
from come_nav.sim.episodes import simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.mounting import MountedCamera, camera_in_base
from come_nav.sim.worlds import generate_world
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel

HEIGHT_M, OLDER = 0.5, 4
SETTINGS = NavigationSettings(device="cpu")


class NoddingRecording:
    """A drive ahead through a built-in world with a camera that nods and rolls, in colour and depth."""

    name, rate_hz = "nodding", 4.0

    def __init__(self, count: int = 40) -> None:
        steps = np.arange(count)
        self.stamps_s = steps / self.rate_hz
        self.pitch_rad = np.radians(9.0) * np.sin(1.1 * steps)
        self.roll_rad = np.radians(6.0) * np.cos(0.7 * steps)
        self.intrinsics = CameraIntrinsics.from_field_of_view(64, 64, math.pi / 2)
        self.T_base_camera = camera_in_base(0.0)  # base_link has the camera's axes, as in a recording by hand
        self.metadata: dict = {}
        world = generate_world(10002)
        driven = simulate_episode(world, "tour", (count + 1) / self.rate_hz, seed=2).poses_world_xyyaw[:count]
        self.poses_xyyaw = np.asarray(driven, float)
        leaning = np.stack([camera_in_base(HEIGHT_M, *own) for own in zip(self.pitch_rad, self.roll_rad, strict=True)])
        self.T_odom_base = se3.transform_from_xyyaw(self.poses_xyyaw) @ leaning @ np.linalg.inv(self.T_base_camera)
        level = Raycaster([world], self.intrinsics, HEIGHT_M)
        self._seen = [
            level.through(MountedCamera(self.intrinsics, HEIGHT_M, pitch, roll)).render(torch.from_numpy(pose)[None])
            for pose, pitch, roll in zip(
                self.poses_xyyaw.astype(np.float32), self.pitch_rad, self.roll_rad, strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self.stamps_s)

    def frame(self, index: int) -> Frame:
        image, depth_m = self._seen[index]
        rgb = ((image[0].permute(1, 2, 0) + 1.0) * 127.5).round().to(torch.uint8).numpy()
        return Frame(self.stamps_s[index], rgb, depth_m[0].numpy(), self.intrinsics, self.T_base_camera)


@pytest.fixture(scope="module")
def recording() -> NoddingRecording:
    return NoddingRecording()


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    loaded = DiffusionWorldModel.load(find_resource("models", "tiny"))
    loaded.inference = InferenceSettings(precision="float32")
    return loaded


def windows_of(recording, count=8):
    return quality_windows([("nodding", recording)], ProtocolSettings(horizon_steps=5), [2, 5], count)


def input_of(recording) -> Input:
    return Input("a drive", [("drive", recording)], {}, {}, 8)


def last_target(window: QualityWindow) -> MemoryWindow:
    return MemoryWindow(
        window=window.window,
        steps=window.steps[-1:],
        targets=window.targets[-1:],
        rel_frames=window.rel_frames[-1:],
        poses_xyyaw=window.poses_xyyaw[-1:],
        memory=range(16),
        share_visible=0.0,
        share_remembered=1.0,
        age_frames=20,
    )


def mean_psnr_db(row: QualityRow, batch: Batch) -> float:
    return float(psnr(row.imagine(batch).flatten(0, 1), batch.truth.flatten(0, 1)).mean())


def test_the_largest_tilt_is_that_of_the_vertical_and_no_turn_counts():
    yaw = np.linspace(0.0, 3.0, 5)
    turning = se3.transform_from_xyyaw(np.stack([yaw, yaw, yaw], axis=1))
    assert se3.largest_tilt_deg(turning) == pytest.approx(0.0, abs=1e-5)
    angles = np.radians([4.0, -4.0, 0.0, 4.0, -4.0])
    nodding = np.stack([camera_in_base(0.5, angle) for angle in angles]) @ np.linalg.inv(camera_in_base(0.5))
    assert se3.largest_tilt_deg(turning @ nodding) == pytest.approx(4.0, abs=1e-6)
    assert not camera_tilts([("level", SampleRecording())])


def test_targets_are_told_where_their_cameras_were(recording):
    window = windows_of(recording)[3]
    wanted = [camera_in_base(HEIGHT_M, recording.pitch_rad[own], recording.roll_rad[own]) for own in window.targets]
    np.testing.assert_allclose(target_extrinsics([window]).numpy(), np.stack(wanted), atol=1e-6)


def test_a_view_is_imagined_better_where_the_tilt_is_told(recording, model):
    rows = {row.name: row for row in quality_rows(["jump", "tilted"], model, SETTINGS)}
    batch = read_batch(windows_of(recording), images_of(model))
    gains = {name: mean_psnr_db(row, batch) for name, row in rows.items()}
    assert gains[TILTED_JUMP] > gains["world model, jump"] + 2.0
    assert gains[TILTED_JUMP] > gains["copy the last frame"] + 3.0


def test_the_row_is_there_where_a_camera_leans_and_refused_by_name_elsewhere(recording, model):
    assert "tilted" in possible_rows(None, input_of(recording), model)
    level = input_of(SampleRecording())
    assert "tilted" not in possible_rows(None, level, model)
    with pytest.raises(DataError, match=r"keeps its tilt.*'tilted' out of --rows"):
        possible_rows(("jump", "tilted"), level, model)


def test_a_model_of_frames_alone_has_no_such_row(recording, tmp_path):
    """It would be the jump by another name."""
    plain = DiffusionWorldModel.load(small_model(tmp_path / "model"))
    assert "tilted" not in possible_rows(None, input_of(recording), plain)
    with pytest.raises(DataError, match=r"renders no views.*'tilted' out of --rows"):
        possible_rows(("tilted",), input_of(recording), plain)


def test_no_tilt_is_told_of_a_camera_that_keeps_it(tmp_path):
    """Not in the choice of weights either, which sets recall up by itself."""
    source = SourceSettings("recall", worlds=range(10000, 10001), windows=2)
    settings = MemorySuiteSettings(
        source, find_weights(None, "tiny"), tilt_told=True, memory_frames=120, test_frames=160
    )
    config = replace(SETTINGS, model=str(find_resource("models", "tiny")))
    with pytest.raises(DataError, match=r"keeps its tilt.*leave --tilt-told out"):
        set_up_recall(settings, config, tmp_path, silent)


def test_memories_are_seen_with_the_tilt_that_is_told(recording, model, tmp_path):
    drive = MemoryDrive("nodding", recording, recording, range(16))
    memories = DriveMemories(drive, model, SETTINGS, tmp_path, "tiny", long_term=False)
    windows = [last_target(own) for own in windows_of(recording, 30) if own.window.start > 18][:6]
    batch, found = read_batch(windows, images_of(model)), {}
    for told in (False, True):
        cache = MemoryCache(lambda name: memories, tilt_told=told)
        rows, _ = recall_rows(["geometry", "sltm"], "on", find_weights(None, "tiny"), model, cache, OLDER)
        rows += optional_rows(["retrieved"], cache, ExpertsSettings(use=()), ExpertsSettings(use=()))
        found[told] = {row.name: mean_psnr_db(row, batch) for row in rows}
    for name in ("geometry only", "base", "SLTM", RETRIEVED_TITLE):
        assert found[True][name] > found[False][name] + 0.5
    assert found[True]["copy the last frame"] == found[False]["copy the last frame"]
