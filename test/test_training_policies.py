"""Training of GNM, ViNT and NoMaD: labels against closed forms, losses against the published formulas, exact resume."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_samples import SampleRecording
from safetensors.torch import load_file
from training_samples import MACHINE

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.settings import from_mapping
from come_nav.data.bags.writer import write_bag
from come_nav.policies.model import LearnedPolicy, make_network
from come_nav.policies.sampling import sample_steps, steps_to_waypoints
from come_nav.policies.settings import published
from come_nav.training.config import OptimiserSettings
from come_nav.training.policies.frames import FrameBank, mean_spacing_m, recording_frames
from come_nav.training.policies.run import PolicyRun
from come_nav.training.policies.samples import PolicySamples
from come_nav.training.policies.settings import PolicyDataSettings, PolicyTrainSettings, default_values
from come_nav.training.policies.task import PolicyTask, goal_pose_error, mean_over

TINY = {
    "gnm": published("gnm", context_size=1, encoding_size=8, image_width=32, image_height=32),
    "vint": published(
        "vint", context_size=1, encoding_size=8, heads=2, layers=1, ff_factor=1, image_width=32, image_height=32
    ),
    "nomad": published(
        "nomad",
        context_size=1,
        encoding_size=16,
        heads=2,
        layers=1,
        ff_factor=1,
        down_dims=(8, 16),
        image_width=32,
        image_height=32,
    ),
}
STAGE = OptimiserSettings(
    steps=4, batch_size=2, learning_rate=1e-3, warmup_steps=1, log_every=1, validate_every=2, save_every=2
)
DATA = PolicyDataSettings(worlds=1, validation_worlds=1, episode_s=10.0)


def circle(frames=60, radius_m=2.0, step_m=0.1, size=32):
    """Return frames of a drive on a circle to the left; frame k is of grey k."""
    turn = step_m / radius_m
    angle = turn * torch.arange(frames)
    poses = torch.stack([radius_m * torch.sin(angle), radius_m * (1.0 - torch.cos(angle)), angle], dim=1)
    images = torch.arange(frames, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, size, size).contiguous()
    ends = torch.zeros(frames, dtype=torch.int64), torch.full((frames,), frames - 1)
    return FrameBank(images, poses, *ends, torch.full((frames,), step_m))


@pytest.mark.parametrize("kind", TINY)
def test_labels_are_those_of_the_drive(kind):
    settings, bank = TINY[kind], circle()
    batch = PolicySamples([bank], [1.0], settings, 200, 3, range(1)).batch(0)
    turn = torch.arange(1, settings.waypoints + 1) * 0.05
    wanted = torch.stack([2.0 * torch.sin(turn), 2.0 * (1.0 - torch.cos(turn))], dim=1) / 0.1
    torch.testing.assert_close(batch.waypoints[:, :, :2], wanted.expand(200, -1, -1), atol=1e-4, rtol=1e-4)
    if settings.learn_angle:
        headings = torch.stack([torch.cos(turn), torch.sin(turn)], dim=1).expand(200, -1, -1)
        torch.testing.assert_close(batch.waypoints[:, :, 2:], headings, atol=1e-5, rtol=1e-5)
    oldest, newest, goal = (
        part[:, 0, 0].long() for part in (batch.images[:, :3, 0], batch.images[:, -3:, 0], batch.goals[:, :, 0])
    )
    assert (newest - oldest == settings.context_size).all()
    ahead = goal - newest
    positive = batch.distance == ahead
    assert ((batch.distance == settings.max_distance) | positive).all()
    assert 0 < int((~positive).sum()) < 40  # views from anywhere in place of distance 0: 1 of 21
    known = torch.isfinite(batch.goal_poses).all(dim=1)
    assert bool(positive[known].all())
    assert 0 < int((~known).sum()) < 40
    turned = 0.05 * ahead[known]
    there = torch.stack([20.0 * torch.sin(turned), 20.0 * (1.0 - torch.cos(turned)), turned], dim=1)
    torch.testing.assert_close(batch.goal_poses[known], there, atol=1e-3, rtol=1e-4)
    low, high = {"gnm": (2, 10), "vint": (0, 10), "nomad": (3, 20)}[kind]
    inside = (batch.distance > low) & (batch.distance < high)
    assert torch.equal(batch.teaches, inside)


def test_batches_depend_on_seed_and_step_alone_and_processes_share_them():
    bank = circle()
    make = lambda **own: PolicySamples([bank, bank], [1.0, 2.0], TINY["nomad"], 8, 5, range(9), **own)  # noqa: E731
    whole = make().batch(7)
    assert torch.equal(whole.images, make().batch(7).images)
    assert not torch.equal(whole.images, make().batch(6).images)
    halves = [make(share=(rank, 2)).batch(7).images for rank in range(2)]
    assert torch.equal(torch.cat(halves), whole.images)


def test_a_recording_slower_than_the_policy_counts_is_refused(monkeypatch):
    """Its distances, in frames, would mean other times."""
    settings = TINY["vint"]
    for rate_hz, refused in ((settings.rate_hz, False), (1.49, True)):
        recording = SampleRecording(40, rate_hz)
        monkeypatch.setattr("come_nav.data.open_recording", lambda path, recording=recording, **flags: recording)
        if refused:
            with pytest.raises(DataError, match=r"come at 1\.49 Hz.*--set policy\.rate_hz=1\.49"):
                recording_frames("bag", (0.0, 1.0), DATA, settings, progress=False)
        else:
            frames = recording_frames("bag", (0.0, 1.0), DATA, settings, progress=False)
    recording = SampleRecording(40, settings.rate_hz)
    recording.poses_xyyaw = recording.poses_xyyaw + np.array([5.4e6, 5e5, 0.0])
    monkeypatch.setattr("come_nav.data.open_recording", lambda path, **flags: recording)
    far = recording_frames("bag", (0.0, 1.0), DATA, settings, progress=False)
    torch.testing.assert_close(far.poses_xyyaw, frames.poses_xyyaw, atol=1e-5, rtol=0)


def test_samples_never_reach_over_a_gap():
    bank = circle()
    bank.first[30:], bank.last[:30] = 30, 29
    samples = PolicySamples([bank], [1.0], TINY["vint"], 300, 0, range(1), negatives=False).batch(0)
    newest, goal = samples.images[:, -1, 0, 0].long(), samples.goals[:, 0, 0, 0].long()
    assert ((newest < 30) == (goal < 30)).all()
    assert (goal > newest).all()
    short = circle(frames=6)
    with pytest.raises(DataError, match="no stretch of 7"):
        PolicySamples([short], [1.0], TINY["vint"], 3, 0, range(1))


def test_spacing_is_the_mean_step_and_standing_still_is_refused():
    assert mean_spacing_m(circle()) == pytest.approx(2.0 * 2.0 * math.sin(0.025), rel=1e-4)
    bank = circle()
    bank.poses_xyyaw[:] = 0.0
    with pytest.raises(DataError, match="nothing is to be learned"):
        mean_spacing_m(bank)


def task_of(kind, settings=None, **own):
    policy = settings or TINY[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PolicyTask(make_network(policy), PolicyTrainSettings(policy=policy, optimiser=STAGE, **own))


@pytest.mark.parametrize("kind", ["gnm", "vint"])
def test_loss_of_gnm_and_vint_is_the_published_one(kind):
    task, batch = task_of(kind).eval(), PolicySamples([circle()], [1.0], TINY[kind], 16, 0, range(1)).batch(0)
    mean, spread = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        found = task.losses(batch, torch.Generator())
        images = ((batch.images.unflatten(1, (-1, 3)) / 255.0 - mean) / spread).flatten(1, 2)
        distance, waypoints = task.network(images, (batch.goals / 255.0 - mean) / spread)
    of_distance = ((distance[:, 0] - batch.distance) ** 2).mean()
    each = ((waypoints - batch.waypoints) ** 2).mean(dim=(1, 2))
    of_action = (each * batch.teaches).mean() / (batch.teaches.float().mean() + 1e-2)
    wanted = 0.5 * 1e-2 * of_distance + 0.5 * of_action
    torch.testing.assert_close(found["loss"], wanted)


def test_masked_goals_teach_no_distance_and_goals_do_not_matter_where_all_are_masked():
    batch = PolicySamples([circle()], [1.0], TINY["nomad"], 16, 0, range(1)).batch(0)
    other = replace(batch, goals=255 - batch.goals)
    task = task_of("nomad", goal_mask_prob=0.999).eval()
    with torch.no_grad():
        first, second = (task.losses(own, torch.Generator().manual_seed(1)) for own in (batch, other))
        assert float(first["distance"]) == 0.0
        torch.testing.assert_close(first["noise"], second["noise"])
        shown = task_of("nomad", goal_mask_prob=0.0).eval()
        pair = [shown.losses(own, torch.Generator().manual_seed(1)) for own in (batch, other)]
    assert float(pair[0]["distance"]) > 0.0
    assert float(pair[0]["noise"]) != float(pair[1]["noise"])


def test_channels_last_gives_the_losses_and_gradients_that_the_usual_layout_gives():
    for kind, settings in TINY.items():
        task = task_of(kind)
        batch = PolicySamples([circle()], [1.0], settings, 8, 0, range(1)).batch(0)
        found = {}
        for layout in (torch.channels_last, torch.contiguous_format):
            network = task.network.to(memory_format=layout).eval()
            four = next(p for p in network.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1)
            assert four.is_contiguous(memory_format=layout)
            network.zero_grad()
            losses = task.losses(batch, torch.Generator().manual_seed(0))
            losses["loss"].backward()
            found[layout] = losses["loss"].detach(), [p.grad for p in network.parameters() if p.grad is not None]
        (one, gradients), (other, others) = found.values()
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        for own, wanted in zip(gradients, others, strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-3, atol=1e-4)
    assert all(
        p.is_contiguous(memory_format=torch.channels_last) for p in task_of("nomad").parameters() if p.dim() == 4
    )


def test_several_goals_of_a_context_cost_as_if_each_had_its_own():
    settings = TINY["nomad"]
    several = PolicySamples([circle()], [1.0], settings, 4, 0, range(1), goals=3).batch(0)
    assert len(several.images) == 4
    assert len(several.goals) == len(several.distance) == len(several.teaches) == 12
    apart = replace(
        several,
        images=several.images.repeat_interleave(3, dim=0),
        waypoints=several.waypoints.repeat_interleave(3, dim=0),
    )
    task = task_of("nomad", dropout=False)
    found = []
    for batch in (several, apart):
        task.zero_grad()
        losses = task.losses(batch, torch.Generator().manual_seed(0))
        losses["loss"].backward()
        found.append((losses, task.network.vision_encoder.obs_encoder._conv_stem.weight.grad.clone()))
    for name in ("loss", "distance", "noise"):
        torch.testing.assert_close(found[0][0][name], found[1][0][name])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)
    newest = several.images[:, -1, 0, 0].long().repeat_interleave(3)
    positive = several.distance == several.goals[:, 0, 0, 0].long() - newest
    assert (positive | (several.distance == settings.max_distance)).all()


def test_masked_goals_are_not_encoded_and_every_weight_has_a_gradient_all_the_same():
    network = task_of("nomad").network.eval()
    encoder, seen = network.vision_encoder, []
    encoder.goal_encoder.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    images, goals = torch.randn(4, 6, 32, 32), torch.randn(4, 3, 32, 32)
    masked = torch.tensor([True, False, True, False])
    alone = torch.cat([encoder(images[k : k + 1], goals[k : k + 1], masked[k : k + 1]) for k in range(4)])
    seen.clear()
    torch.testing.assert_close(encoder(images, goals, masked), alone, rtol=1e-4, atol=1e-5)
    assert seen == [2]
    encoder(images, goals, torch.ones(4, dtype=torch.bool)).sum().backward()
    assert encoder.goal_encoder._conv_stem.weight.grad is not None
    assert not encoder.goal_encoder._conv_stem.weight.grad.any()


def test_more_noise_draws_estimate_the_same_loss_and_dropout_can_be_left_out():
    batch = PolicySamples([circle()], [1.0], TINY["nomad"], 16, 0, range(1)).batch(0)
    spreads = []
    for draws in (1, 16):
        task = task_of("nomad", noise_draws=draws, goal_mask_prob=0.0).eval()
        with torch.no_grad():
            values = [float(task.losses(batch, torch.Generator().manual_seed(s))["noise"]) for s in range(12)]
        spreads.append((np.mean(values), np.std(values)))
    assert spreads[1][0] == pytest.approx(spreads[0][0], rel=0.1)
    assert spreads[1][1] < 0.6 * spreads[0][1]
    same, other = (task_of("nomad", dropout=dropout).train() for dropout in (False, True))
    with torch.no_grad():
        twice = [
            [float(own.losses(batch, torch.Generator().manual_seed(0))["loss"]) for _ in range(2)]
            for own in (same, other)
        ]
    assert twice[0][0] == twice[0][1]
    assert twice[1][0] != twice[1][1]


def test_the_goal_pose_that_is_told_costs_what_it_is_off_where_it_is_known():
    poses = torch.tensor([[10.0, -5.0, 0.5], [torch.nan] * 3, [20.0, 0.0, -1.0]])
    wanted = [[1.0, -0.5, math.cos(0.5), math.sin(0.5)], [9.0] * 4, [2.0, 0.0, math.cos(1.0), -math.sin(1.0)]]
    shown = torch.ones(3)
    assert float(goal_pose_error(torch.tensor(wanted), poses, shown)) == pytest.approx(0.0, abs=1e-9)
    off = torch.tensor(wanted) + torch.tensor([[0.2], [5.0], [0.2]])
    assert float(goal_pose_error(off, poses, shown)) == pytest.approx(0.04 * (2 / 3) / (2 / 3 + 0.01), rel=1e-5)
    assert float(goal_pose_error(off, poses, torch.tensor([0.0, 1.0, 0.0]))) == 0.0
    batch = PolicySamples([circle()], [1.0], TINY["nomad"], 8, 0, range(1)).batch(0)
    plain, telling = (task_of("nomad", regression_weight=weight, dropout=False) for weight in (0.0, 2.0))
    first, second = (task.losses(batch, torch.Generator().manual_seed(0)) for task in (plain, telling))
    assert "goal_pose" not in first
    torch.testing.assert_close(second["loss"], first["loss"] + 2.0 * (second["goal_pose"] + second["path"]))
    assert float(second["path"]) > 0.0
    assert set(telling.network.state_dict()) == set(plain.network.state_dict())


def test_training_may_begin_with_another_policy(tmp_path):
    first = LearnedPolicy(make_network(TINY["gnm"]), "first")
    config = PolicyTrainSettings("gnm", policy=TINY["gnm"], optimiser=replace(STAGE, steps=1), data=DATA)
    begun = PolicyRun(config, tmp_path / "run", MACHINE, first)._task().network.state_dict()
    assert all(torch.equal(begun[name], tensor) for name, tensor in first.network.state_dict().items())
    with pytest.raises(ConfigError, match=r"policy\.encoding_size must be 8 as in --init 'first', got 16"):
        other = replace(config, policy=replace(TINY["gnm"], encoding_size=16))
        PolicyRun(other, tmp_path / "other", MACHINE, first)


def test_narrow_encoders_have_the_published_depth_and_fewer_channels():
    narrow = make_network(replace(published("nomad"), encoder_width=0.5)).vision_encoder.obs_encoder
    whole = make_network(published("nomad")).vision_encoder.obs_encoder
    assert len(narrow._blocks) == len(whole._blocks) == 16
    assert narrow._conv_head.out_channels == 640
    assert all(block._project_conv.out_channels % 16 == 0 for block in narrow._blocks)
    count = [sum(p.numel() for name, p in own.named_parameters() if "_fc" not in name) for own in (narrow, whole)]
    assert 0.2 < count[0] / count[1] < 0.35


def test_a_policy_learns_from_a_bag(tmp_path, capsys):
    path = write_bag(tmp_path / "drive", SampleRecording(80))
    flags = ["policy.encoding_size=8", "policy.image_width=32", "policy.image_height=32", "optimiser.batch_size=2"]
    flags += ["optimiser.steps=2", "optimiser.validate_every=1", "policy.context_size=1"]
    sets = [word for flag in flags for word in ("--set", flag)]
    words = ["train", "--policy", "gnm", "--data", str(path), "--out", str(tmp_path / "run"), "--no-progress", *sets]
    assert main(words) == 0
    learned = LearnedPolicy.load(Path(capsys.readouterr().out.strip().splitlines()[-1]))
    poses = SampleRecording(80).poses_xyyaw
    assert learned.settings.spacing_m == pytest.approx(
        float(np.hypot(*np.diff(poses[:72, :2], axis=0).T).mean()), rel=1e-4
    )
    bank = FrameBank(**load_file(tmp_path / "run" / "frames" / "recording0_train.safetensors"))
    assert len(bank) == 72  # the last tenth is validated on
    np.testing.assert_allclose(bank.poses_xyyaw[:, :2].numpy(), poses[:72, :2], atol=1e-4)
    np.testing.assert_allclose(np.cos(bank.poses_xyyaw[:, 2].numpy() - poses[:72, 2]), 1.0, atol=1e-6)
    assert main([*words[:-1], "optimiser.steps=3"]) == 1
    assert "another configuration" in capsys.readouterr().err


def test_mean_over_counts_only_what_counts():
    values, counted = torch.tensor([1.0, 100.0, 3.0]), torch.tensor([1.0, 0.0, 1.0])
    assert float(mean_over(values, counted)) == pytest.approx((4.0 / 3.0) / (2.0 / 3.0 + 0.01))
    assert float(mean_over(values, torch.zeros(3))) == 0.0


def test_the_noise_predictor_learns_the_one_motion_there_is():
    """On a circle every sample has the same waypoints, so that what is drawn in the end must be the circle."""
    wide = replace(TINY["nomad"], down_dims=(32, 64))  # group normalisation of narrow layers forgets amplitudes
    untrained, task = (task_of("nomad", wide).eval() for _ in range(2))
    samples = PolicySamples([circle()], [1.0], wide, 32, 0, range(1))
    waypoints, condition = samples.batch(0).waypoints, torch.zeros(32, 16)
    optimiser = torch.optim.Adam(task.network.noise_pred_net.parameters(), 3e-3)
    for step in range(150):
        loss = task._noise_error(waypoints, condition, torch.Generator().manual_seed(step)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    drawn, far = (
        steps_to_waypoints(sample_steps(own.network, condition[:8], torch.Generator().manual_seed(0)))
        for own in (task, untrained)
    )
    assert float((drawn - waypoints[:8]).abs().mean()) < 1.0  # spacings, of paths that are 8 long
    assert float((far - waypoints[:8]).abs().mean()) > 3.0


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    kind = "nomad"
    config = PolicyTrainSettings(kind, policy=TINY[kind], optimiser=STAGE, data=DATA)
    whole = PolicyRun(config, tmp_path / "whole", MACHINE).finish()
    original = PolicyTask.training_step

    def dies(self, batch, batch_idx):
        if self.global_step == 3:
            raise RuntimeError("killed")
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(PolicyTask, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            PolicyRun(config, tmp_path / "killed", MACHINE).finish()
    newest = PolicyRun(config, tmp_path / "killed", MACHINE).export_newest()
    assert LearnedPolicy.load(newest).name == kind
    resumed = PolicyRun(config, tmp_path / "killed", MACHINE).finish()
    policies = [LearnedPolicy.load(folder) for folder in (whole, resumed)]
    for name, tensor in policies[0].network.state_dict().items():
        assert torch.equal(tensor, policies[1].network.state_dict()[name]), name
    assert policies[0].settings.spacing_m == pytest.approx(0.1, abs=0.06)  # the drivers go at about 0.4 m/s
    assert f"--policy {kind}" in (whole / "card.md").read_text()
    with pytest.raises(ConfigError, match="another configuration"):
        PolicyRun(replace(config, seed=1), tmp_path / "whole", MACHINE)


def test_a_smoke_run_of_the_command_line(tmp_path, capsys):
    flags = ["data.worlds=1", "data.validation_worlds=1", "data.episode_s=8", "optimiser.steps=1"]
    flags += ["optimiser.batch_size=2", "policy.encoding_size=8", "policy.image_width=32", "policy.image_height=32"]
    sets = [word for flag in flags for word in ("--set", flag)]
    assert main(["train", "--policy", "gnm", "--out", str(tmp_path), "--no-progress", *sets]) == 0
    assert capsys.readouterr().out.strip().endswith("gnm")
    grey = np.full((48, 64, 3), 128, np.uint8)
    found = LearnedPolicy.load(tmp_path / "gnm").propose([grey], grey, 3, torch.Generator())
    assert found.poses_xyyaw.shape == (1, 5, 3)


def test_defaults_are_the_published_shapes_and_mistakes_name_the_key():
    for kind in TINY:
        config = from_mapping(PolicyTrainSettings, default_values(kind))
        assert config.policy == published(kind)
        assert config.name == kind
    with pytest.raises(ConfigError, match=r"data\.worlds"):
        PolicyDataSettings(worlds=0)
    with pytest.raises(ConfigError, match="recording_spacing_m"):
        PolicyDataSettings(recordings=("a", "b"), recording_spacing_m=(0.1,))
    with pytest.raises(ConfigError, match="--policy"):
        default_values("nomda")
