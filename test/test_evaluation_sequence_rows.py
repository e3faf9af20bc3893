"""Memories of sequences as rows of the memory suites: what they are shown, and what they are asked for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_samples import sequence_model

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.protocols.memory_windows import MemoryDrive
from come_nav.evaluation.protocols.protocol import ProtocolSettings, make_window
from come_nav.evaluation.suites.memory.drive_memories import DriveMemories, MemoryCache
from come_nav.evaluation.suites.memory.sequence_rows import SequenceImaginer, SequenceMemories, load_sequences
from come_nav.experts.sequence.settings import SequenceSettings
from come_nav.navigation.settings import NavigationSettings
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sequence.model import SequenceModel

MEMORY, OLDER = 40, 6
SHAPE = SequenceSettings(
    input_size=4, in_channels=12, patch_size=2, hidden_size=16, depth=1, num_heads=2, state_size=4, block_sizes=(1,)
)
NAVIGATION = NavigationSettings(device="cpu")


def remembering(memory: str = "ssm", image_size: int = 64) -> SequenceModel:
    latents = AutoencoderSettings(
        image_size=image_size, latent_channels=12, kind="lapped", block_size=image_size // 4, scaling_factor=1.0
    )
    return sequence_model(replace(SHAPE, memory=memory), latents)


@pytest.fixture(scope="module")
def robot() -> DiffusionWorldModel:
    return DiffusionWorldModel.load(find_resource("models", "tiny"))


@pytest.fixture(scope="module")
def drive() -> MemoryDrive:
    world = generate_world(10002)
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    recording = EpisodeRecording(simulate_episode(world, "tour", 18.0, seed=2), Raycaster([world], camera), True)
    corrected = np.asarray(recording.poses_xyyaw[:MEMORY]) + np.array([0.3, 0.0, 0.0])
    return MemoryDrive("drive", recording, recording, range(MEMORY), corrected)


@pytest.fixture
def cache(drive, robot, tmp_path) -> MemoryCache:
    return MemoryCache(lambda _: DriveMemories(drive, robot, NAVIGATION, tmp_path, "tiny", long_term=False))


def window_of(drive: MemoryDrive, start: int, name: str = "drive"):
    return make_window(name, drive.recording, start, start + 8, ProtocolSettings(horizon_steps=8))


@pytest.mark.parametrize("kind", ["ssm", "full"])
def test_it_sees_the_phase_where_the_robot_believes_it_was_then_the_newest_frames(kind, drive, robot, cache):
    own, window = remembering(kind), window_of(drive, 52)
    memories = SequenceMemories(own, robot, cache, OLDER)
    memories.at(window_of(drive, 60))  # another window leaves no trace
    frames = [*range(MEMORY), *range(window.context[0] - OLDER, 53)]
    poses = np.concatenate([drive.remembered_xyyaw, np.asarray(drive.recording.poses_xyyaw)[frames[MEMORY:]]])
    assert memories.at(window).frames == len(frames)
    images = robot.images_from_rgb([drive.recording.frame(index).rgb for index in frames])
    places = torch.from_numpy(se2.relative(poses[:1], poses))[None]
    told = own.encode(images)[None], places.float(), se2.motions(torch.from_numpy(poses)[None]).float()
    state = own.network.all_observed(None, *told)
    target = torch.tensor([[1.0, 0.4, 0.3], [0.0, 0.0, 2.0]])
    pose = se2.compose(places[0, -1:].expand(2, 3), target.double()).float()
    wanted = own.decode(own.imagine(state.expanded(2), pose, target, torch.Generator().manual_seed(3)))
    got = memories.images(window, target, torch.Generator().manual_seed(3))
    torch.testing.assert_close(got, wanted, atol=2e-3, rtol=1e-3)


def test_candidates_are_shown_at_their_ends_in_the_latents_of_the_robot(drive, robot, cache):
    memories, window = SequenceMemories(remembering(), robot, cache, OLDER), window_of(drive, 52)
    paths = torch.zeros(3, 8, 3)
    paths[:, -1, 0] = torch.tensor([0.0, 0.5, 1.0])
    found = SequenceImaginer(memories, window, robot, True).imagine(paths, torch.Generator().manual_seed(0))
    wanted = memories.images(window, paths[:, -1], torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.images, wanted)
    torch.testing.assert_close(found.latents, robot.encode(wanted).to(paths))
    assert float((wanted[0] - wanted[2]).abs().max()) > 1e-3
    assert SequenceImaginer(memories, window, robot, False).imagine(paths, torch.Generator()).images is None


def test_damaged_images_are_passed_over_and_nothing_but_damage_is_told(drive, robot, tmp_path, monkeypatch):
    bad: set[int] = {3, 50}
    real = type(drive.recording).frame

    def frame(recording, index):
        if index in bad:
            raise DataError("broken image")
        return real(recording, index)

    monkeypatch.setattr(type(drive.recording), "frame", frame)
    cache = MemoryCache(lambda _: DriveMemories(drive, robot, NAVIGATION, tmp_path, "tiny", long_term=False))
    memories, window = SequenceMemories(remembering(), robot, cache, OLDER), window_of(drive, 52)
    assert memories.at(window).frames == MEMORY + OLDER + 4 - 2
    bad |= set(range(80))
    with pytest.raises(DataError, match="no frame before frame 53 can be read"):
        SequenceMemories(remembering(), robot, cache, OLDER).at(window_of(drive, 53))


def test_models_of_other_images_or_one_name_are_refused(robot, tmp_path):
    for folder, size in (("a/ours", 64), ("b/ours", 64), ("small", 32)):
        remembering(image_size=size).save(tmp_path / folder)
    first, second, small = (str(tmp_path / name) for name in ("a/ours", "b/ours", "small"))
    assert [title for title, _ in load_sequences([first], NAVIGATION, robot)] == ["state space: ours"]
    with pytest.raises(ConfigError, match="another row is named 'state space: ours'"):
        load_sequences([first, second], NAVIGATION, robot)
    with pytest.raises(ConfigError, match="images of 32 px, and the robot's model of 64"):
        load_sequences([small], NAVIGATION, robot)


def test_the_command_line_has_their_rows_in_recall_and_plans(tmp_path, capsys):
    for kind in ("ssm", "window"):
        remembering(kind).save(tmp_path / kind)
    words = ["evaluate", "--worlds", "10003", "--device", "cpu", "--memory-frames", "100", "--test-frames", "90"]
    words += ["--horizon", "6", "--windows", "2", "--no-report", "--json", "--contrast", "on"]
    models = [word for kind in ("ssm", "window") for word in ("--sequence-model", str(tmp_path / kind))]
    rows = {"recall": "copy,base", "memory-planning": "base"}
    least = ["planner.initial_samples=8", "planner.samples=4", "planner.iterations=1", "planner.elites=2"]
    least = [word for key in least for word in ("--set", key)]
    for suite, keys in rows.items():
        own = [*words, *models, *least, "--suite", suite, "--rows", keys, "--out", str(tmp_path / suite)]
        assert main(own) == 0
        result = json.loads(capsys.readouterr().out)
        named = {line["row"] for line in result["table"]["rows"]}
        assert {"state space: ssm", "sliding window: window"} <= named
        assert [own["name"] for own in result["settings"]["sequences"]] == ["ssm", "window"]
    assert main(["evaluate", "--worlds", "10003", *models]) == 1
    assert "--sequence-model is a memory" in capsys.readouterr().err
