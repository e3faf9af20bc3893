"""Training of sequence denoisers: what is drawn, what the loss counts, exact resumption, the command line."""

from dataclasses import replace

import pytest
import torch

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.resources import find_resource
from come_nav.core.settings import from_mapping, read_yaml
from come_nav.experts.sequence.network import CLEAN
from come_nav.experts.sequence.settings import MEMORY_KINDS
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import CAMERA, generator_of
from come_nav.sim.sensors.mounting import draw_camera
from come_nav.sim.sensors.settings import sensor_settings
from come_nav.sim.worlds import generate_world
from come_nav.training.machine import Machine
from come_nav.training.pretrained import merged
from come_nav.training.sequence.run import SequenceRun
from come_nav.training.sequence.settings import SequenceDataSettings, SequenceTrainSettings, default_values
from come_nav.training.sequence.task import Levels, SequenceTask, draw_levels, shown_before
from come_nav.training.sequence.walks import SequenceSamples, WalkBank, make_walks, walks_name
from come_nav.world_model.images import images_from_rgb
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sequence.model import SequenceModel

TINY = {
    "frames": 12,
    "data": {"worlds": 2, "validation_worlds": 1, "walk_frames": 30},
    "autoencoder": {"kind": "lapped", "block_size": 16, "latent_channels": 6},
    "network": {
        "in_channels": 6,
        "patch_size": 2,
        "hidden_size": 8,
        "depth": 1,
        "num_heads": 2,
        "state_size": 4,
        "block_sizes": [2, 1],
    },
    "optimiser": {"steps": 6, "batch_size": 2, "validate_every": 3, "save_every": 2, "warmup_steps": 2},
}
CPU = Machine(accelerator="cpu", precision="32-true", progress=False)


def settings(**changes):
    return from_mapping(SequenceTrainSettings, merged(merged(default_values("ssm"), TINY), changes))


def bank(walks=3, frames=20):
    generator = torch.Generator().manual_seed(0)
    views = torch.arange(walks * frames).reshape(walks, frames)
    latents = torch.randn(walks * frames, 6, 4, 4, generator=generator).half()
    return WalkBank(latents, torch.randn(walks, frames, 3, generator=generator, dtype=torch.float64), views)


def test_a_cut_sequence_counts_poses_from_its_first_frame_and_motions_from_the_one_before():
    source = bank()
    batch = source.cut(torch.tensor([2, 0]), torch.tensor([[5], [0]]) + torch.arange(6))
    torch.testing.assert_close(batch.latents[0], source.latents[45:51].float(), rtol=0, atol=0)
    assert batch.views[1].tolist() == [0, 1, 2, 3, 4, 5]
    own = source.poses_xyyaw[2, 5:11]
    torch.testing.assert_close(batch.poses_xyyaw[0], se2.relative(own[:1], own).float())
    walked = [torch.zeros(3)]
    for action in batch.actions_xyyaw[0]:
        walked.append(se2.compose(walked[-1], action))
    torch.testing.assert_close(torch.stack(walked[1:])[:, :2], batch.poses_xyyaw[0][:, :2], rtol=1e-4, atol=1e-4)


def test_a_batch_depends_on_seed_and_step_alone_and_processes_share_it_out():
    source = bank()
    whole = list(SequenceSamples(source, 5, 4, 3, range(6)))
    later = list(SequenceSamples(source, 5, 4, 3, range(4, 6)))
    torch.testing.assert_close(later[0].latents, whole[4].latents, rtol=0, atol=0)
    assert not torch.equal(whole[0].views, whole[1].views)
    parts = [next(iter(SequenceSamples(source, 5, 4, 3, range(1), (rank, 2)))) for rank in range(2)]
    torch.testing.assert_close(torch.cat([part.views for part in parts]), whole[0].views)


def test_frames_of_some_sequences_are_drawn_from_a_whole_walk_in_order():
    source = bank()
    plain = list(SequenceSamples(source, 5, 8, 3, range(40)))
    drawn = list(SequenceSamples(source, 5, 8, 3, range(40), scattered=0.5))
    gaps = torch.cat([batch.views.diff(dim=1) for batch in drawn])
    assert bool((gaps > 0).all())  # numbers of views rise along a walk, and no frame comes twice
    neighbours = (gaps == 1).all(1)
    assert abs(float(neighbours.float().mean()) - 0.5) < 0.1
    same = torch.cat([batch.views for batch in plain])[neighbours]
    assert torch.equal(same, torch.cat([batch.views for batch in drawn])[neighbours])
    others = torch.cat([batch.views for batch in drawn])[~neighbours] % 20  # frames of the walk
    assert set(others[:, 0].tolist()) >= set(range(8)) and set(others[:, -1].tolist()) >= set(range(12, 20))


def test_a_curriculum_lengthens_sequences_and_each_step_knows_its_own():
    config = settings(frames=14, curriculum_frames=4, curriculum_share=0.5, optimiser={"steps": 20})
    lengths = [config.frames_at(step) for step in range(20)]
    assert lengths == [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, *[14] * 10]
    assert {settings(frames=14).frames_at(step) for step in range(20)} == {14}
    batches = list(SequenceSamples(bank(), 14, 3, 0, range(20), scattered=0.5, frames_at=config.frames_at))
    assert [batch.views.shape[1] for batch in batches] == lengths
    later = next(iter(SequenceSamples(bank(), 14, 3, 0, range(7, 8), scattered=0.5, frames_at=config.frames_at)))
    assert torch.equal(later.views, batches[7].views)


def test_walks_are_seen_by_the_sensors_that_are_asked_for():
    plain = SequenceDataSettings(set_of_worlds="built-in", walk_frames=6)
    real = replace(plain, sensors="realistic")
    banks = [make_walks([3], data, 4.0, lambda images: images[:, :, ::8, ::8], "cpu", False) for data in (plain, real)]
    assert torch.equal(banks[0].poses_xyyaw, banks[1].poses_xyyaw)  # the same drive
    world, sensors = generate_world(3), sensor_settings("realistic")
    drawn = draw_camera(sensors.camera, generator_of(3, CAMERA, 3))
    camera = Raycaster([world], drawn.intrinsics, drawn.height_m, pitch_rad=drawn.pitch_rad)
    episode = simulate_episode(world, "wander", 1.25, 4.0, 3)
    recording = EpisodeRecording(episode, camera, sensors=sensors)
    seen = images_from_rgb([recording.frame(index).rgb for index in range(6)], 64)
    assert torch.equal(banks[1].latents[banks[1].views[0]], seen[:, :, ::8, ::8].half())
    assert float((banks[1].latents - banks[0].latents[banks[0].views[0]]).abs().mean()) > 0.01
    assert walks_name("train", [3], plain, 4.0, "") != walks_name("train", [3], real, 4.0, "")


def test_half_of_the_sequences_begin_clean_for_more_than_half_of_their_length():
    config, frames = settings(frames=12, context_dropout=0.0, prefix_share=0.5), 12
    drawn = draw_levels(4000, frames, config, 1000, torch.Generator().manual_seed(0))
    clean = drawn.t == CLEAN
    length = clean.sum(1)
    assert abs(float((length > 0).float().mean()) - 0.5) < 0.03
    assert set(length[length > 0].tolist()) == {7, 8, 9, 10, 11}  # more than half, and something is left to learn from
    assert (clean == (torch.arange(frames) < length[:, None])).all()
    noisy = drawn.t[~clean].float()
    assert abs(float(noisy.mean()) - 499.5) < 5 and float(noisy.min()) == 0 and float(noisy.max()) == 999
    shifted = draw_levels(4000, frames, replace(config, noise_shift=3.0), 1000, torch.Generator().manual_seed(0))
    assert float(shifted.t[shifted.t != CLEAN].float().mean()) > 600
    assert not (draw_levels(50, 12, replace(config, prefix_share=0.0), 1000, torch.Generator()).t == CLEAN).any()
    alone = draw_levels(50, 12, replace(config, context_dropout=0.9), 1000, torch.Generator().manual_seed(1))
    assert alone.alone and not (alone.t == CLEAN).any()


def test_frames_of_the_other_sequences_are_clean_one_by_one():
    config = settings(frames=12, context_dropout=0.0, prefix_share=0.25, clean_share=0.6)
    clean = draw_levels(4000, 12, config, 1000, torch.Generator().manual_seed(0)).t == CLEAN
    length = clean.long().cumprod(1).sum(1)
    ordered = (clean == (torch.arange(12) < length[:, None])).all(1)
    assert abs(float((ordered & (length > 6)).float().mean()) - 0.25) < 0.03
    assert abs(float(clean[~ordered].float().mean()) - 0.6) < 0.02


class Guess(torch.nn.Module):
    """Answers zero and notes what it was given."""

    def velocity(self, x, t, poses, actions, state=None):
        self.given = x, t, poses, actions
        return torch.zeros_like(x), None


@pytest.mark.parametrize("weighting", ["uniform", "x_0"])
def test_the_loss_counts_noisy_frames_alone(weighting):
    config, schedule = settings(weighting=weighting), NoiseSchedule.linear()
    task = SequenceTask(Guess(), schedule, config)
    batch = bank().cut(torch.tensor([0]), torch.arange(4)[None])
    t = torch.tensor([[CLEAN, CLEAN, 900, 30]])
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))
    loss = task.loss(batch, Levels(t, False), noise)
    abar = torch.as_tensor(schedule.alphas_cumprod)[[900, 30]].float()[:, None, None, None]
    velocity = abar.sqrt() * noise[0, 2:] - (1 - abar).sqrt() * batch.latents[0, 2:]
    error = velocity.square().mean((1, 2, 3))
    # an error of v is one of x_0 times sqrt(1 - abar)
    wanted = error if weighting == "uniform" else error * (1 - abar).flatten()
    torch.testing.assert_close(loss, wanted.mean())
    given = task.network.given[0]
    torch.testing.assert_close(given[0, :2], batch.latents[0, :2], rtol=0, atol=0)
    torch.testing.assert_close(given[0, 2:], abar.sqrt() * batch.latents[0, 2:] + (1 - abar).sqrt() * noise[0, 2:])
    task.loss(batch, Levels(t.clamp(min=0), True), noise)
    assert task.network.given[0].shape[:2] == (4, 1)  # every frame alone


def test_an_encoded_walk_holds_each_view_once():
    seen = []

    def encode(images):
        seen.append(len(images))
        return images.mean((2, 3), keepdim=True)

    made = make_walks([3, 4], settings().data, 4.0, encode, "cpu", progress=False)
    assert made.views.shape == (2, 30) and made.poses_xyyaw.shape == (2, 30, 3)
    assert sum(seen) == len(made.latents) < 60
    for row in range(2):
        for first in range(30):
            for other in range(first):
                same_pose = bool(torch.isclose(made.poses_xyyaw[row, first], made.poses_xyyaw[row, other]).all())
                assert same_pose == bool(made.views[row, first] == made.views[row, other])


@pytest.mark.parametrize("changes", [{}, {"curriculum_frames": 4, "recall_weight": 2.0}])
def test_training_goes_on_where_it_stopped_bit_for_bit_and_its_model_can_be_loaded(tmp_path, monkeypatch, changes):
    whole = SequenceRun(settings(**changes), tmp_path / "whole", CPU).finish()
    assert whole is not None

    original = SequenceTask.training_step

    def dies(self, batch, batch_idx):
        if self.global_step == 4:
            raise RuntimeError("killed")
        return original(self, batch, batch_idx)

    cut = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(SequenceTask, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            SequenceRun(settings(**changes), cut, CPU).finish()
    assert SequenceRun(settings(**changes), cut, CPU).export_newest() == cut / "sequence_ssm"
    resumed = SequenceRun(settings(**changes), cut, CPU).finish()
    assert resumed is not None
    first, second = SequenceModel.load(whole), SequenceModel.load(resumed)
    for (name, own), other in zip(
        first.network.state_dict().items(), second.network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(own, other, rtol=0, atol=0, msg=name)
    with pytest.raises(ConfigError, match="another configuration"):
        SequenceRun(settings(frames=11, **changes), cut, CPU)


@pytest.mark.parametrize("file", ["train_sequence.yaml", "train_sequence_rooms.yaml"])
@pytest.mark.parametrize("kind", MEMORY_KINDS)
def test_one_file_configures_every_kind(kind, file):
    path = find_resource("config", file)
    config = from_mapping(SequenceTrainSettings, merged(default_values(kind), read_yaml(path)))
    assert config.network.memory == kind and config.name == f"sequence_{kind}"
    assert config.data.first_world + config.data.worlds <= 10000


def test_the_command_line_trains_and_refuses_what_does_not_go_together(tmp_path, capsys):
    words = ["train", "--sequence", "window", "--out", str(tmp_path / "run"), "--accelerator", "cpu", "--no-progress"]
    words += ["--set", "data.worlds=1", "--set", "data.validation_worlds=1", "--set", "data.walk_frames=20"]
    words += ["--set", "frames=8", "--set", "network.depth=1", "--set", "network.hidden_size=8"]
    words += ["--set", "network.patch_size=2", "--set", "network.block_sizes=[1]", "--set", "optimiser.steps=2"]
    words += ["--set", "optimiser.validate_every=2", "--set", "optimiser.batch_size=1"]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "sequence_window")
    card = (tmp_path / "run" / "sequence_window" / "card.md").read_text()
    assert "maze, seeds 0-0" in card and "memory | window" in card
    for wrong in (
        ["--sequence", "gru"],
        ["--sequence", "ssm", "--policy", "gnm"],
        ["--sequence", "ssm", "--data", "x"],
    ):
        assert main(["train", *wrong, "--out", str(tmp_path / "other")]) == 1
        assert "--sequence" in capsys.readouterr().err


def test_what_was_shown_clean_long_ago_and_not_since_can_be_remembered_from_afar():
    views = torch.tensor([[7, 3, 7, 4, 3, 5, 7, 9]])
    clean = torch.tensor([[True, True, False, True, True, True, True, False]])
    #                      7     3     7      4     3     5     7     9
    assert shown_before(views, clean, 1).tolist() == [[False, False, True, False, True, False, True, False]]
    assert shown_before(views, clean, 2).tolist() == [[False, False, False, False, True, False, True, False]]
    assert shown_before(views, clean, 5).tolist() == [[False, False, False, False, False, False, True, False]]
    assert not shown_before(views, torch.zeros_like(clean), 1).any()  # what was never shown is nothing to remember
    again = torch.tensor([[7, 7, 5, 7]])
    assert shown_before(again, torch.ones_like(again, dtype=torch.bool), 2).tolist() == [[False, False, False, False]]


def test_the_loss_of_what_can_be_remembered_counts_more():
    task = SequenceTask(Guess(), NoiseSchedule.linear(), settings(recall_weight=3.0))
    batch = bank().cut(torch.tensor([0]), torch.arange(4)[None])
    levels = Levels(torch.tensor([[CLEAN, 500, 900, 30]]), False)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(5))
    one_by_one = []
    for frame in (1, 2, 3):
        only = torch.full((1, 4), CLEAN)
        only[0, frame] = levels.t[0, frame]
        one_by_one.append(task.loss(batch, Levels(only, False), noise))
    a, b, c = one_by_one
    torch.testing.assert_close(task.loss(batch, levels, noise), (a + b + c) / 3)
    weights = torch.tensor([[1.0, 1.0, 4.0, 1.0]])
    torch.testing.assert_close(task.loss(batch, levels, noise, weights), (a + 4 * b + c) / 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 31}, "frames must be in"),
        ({"prefix_share": 1.5}, "prefix_share"),
        ({"weighting": "snr"}, "weighting must be one of"),
        ({"curriculum_frames": 1}, "curriculum_frames must be 0"),
        ({"curriculum_frames": 99}, "curriculum_frames must be in"),
        ({"recall_weight": -1.0}, "recall_weight"),
        ({"recall_weight": 1.0, "data": {"set_of_worlds": "built-in"}}, "recall_weight needs walks that come back"),
        ({"autoencoder": {"kind": "kl"}}, r"autoencoder\.kind must be lapped"),
        ({"data": {"worlds": 0}}, "data.worlds"),
        ({"data": {"first_world": 9999, "worlds": 2}}, "data.worlds"),
        ({"data": {"set_of_worlds": "mazes"}}, "set of worlds must be one of .*maze"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_a_network_of_other_latents_than_the_autoencoders_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"network\.in_channels must be 6"):
        SequenceRun(settings(network={"in_channels": 4}), tmp_path, CPU)
