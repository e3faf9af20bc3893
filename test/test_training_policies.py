"""Training of GNM, ViNT and NoMaD: labels against closed forms, losses against the published formulas, exact resume."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_samples import MACHINE

from come_nav.cli.main import main
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.settings import from_mapping
from come_nav.policies.model import LearnedPolicy, make_network
from come_nav.policies.sampling import sample_steps, steps_to_waypoints
from come_nav.policies.settings import published
from come_nav.training.config import OptimiserSettings
from come_nav.training.policies.frames import FrameBank, mean_spacing_m
from come_nav.training.policies.run import PolicyRun
from come_nav.training.policies.samples import PolicySamples
from come_nav.training.policies.settings import PolicyDataSettings, PolicyTrainSettings, default_values
from come_nav.training.policies.task import PolicyTask, mean_over

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
