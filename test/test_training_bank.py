"""Windows drawn from a latent bank: right pairs, right actions, repeatable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.training.config import DataSettings, TrainSettings
from come_nav.training.data.bank import GoalSettings, LatentBank, WindowStream, step_generator
from come_nav.training.data.bank_file import open_bank, write_bank

FRAMES = 40


def numbered_bank(branches: int = 2) -> LatentBank:
    """A bank whose latents are the frame's own number, so that a sample tells where it came from."""
    number = torch.arange(FRAMES, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    poses = torch.stack([0.1 * number, 0.05 * number, torch.remainder(0.2 * number, 6.0) - 3.0], dim=1)
    first = torch.where(number < 25, 0, 25).long()
    last = torch.where(number < 25, 24, FRAMES - 1).long()
    return LatentBank(
        latents=number[:, None, None, None].expand(-1, 1, 2, 2).half(),
        poses_xyyaw=poses,
        first=first,
        last=last,
        branch_latents=(100 + number)[:, None, None, None, None].expand(-1, branches, 1, 2, 2).half(),
        branch_actions_xyyaw=torch.randn(FRAMES, branches, 3, generator=generator),
        branch_rel_frames=torch.randint(1, 16, (FRAMES, branches), generator=generator),
    )


def test_drive_goals_carry_the_pose_and_time_between_their_frames() -> None:
    bank = numbered_bank()
    batch = bank.sample(GoalSettings(branch_fraction=0.0), 64, torch.Generator().manual_seed(1))
    newest = batch.context_latents[:, -1, 0, 0, 0].long()
    goal = batch.goal_latents[:, :, 0, 0, 0].long()
    expected = se2.relative(bank.poses_xyyaw[newest][:, None], bank.poses_xyyaw[goal])
    torch.testing.assert_close(batch.actions_xyyaw, expected)
    assert torch.equal(batch.rel_frames.long(), goal - newest[:, None])
    assert torch.equal(bank.first[goal], bank.first[newest][:, None].expand_as(goal)), "a goal left its own drive"
    assert (goal < newest[:, None]).any(), "goals in the past are part of the protocol"
    assert (goal > newest[:, None]).any()


def test_context_is_the_four_frames_up_to_the_newest() -> None:
    batch = numbered_bank().sample(GoalSettings(), 32, torch.Generator().manual_seed(2))
    numbers = batch.context_latents[:, :, 0, 0, 0]
    assert torch.equal(numbers.diff(dim=1), torch.ones(32, 3))
    torch.testing.assert_close(batch.context_poses_xyyaw[:, -1], torch.zeros(32, 3), atol=1e-6, rtol=0)
    assert torch.equal(batch.frame_offsets, torch.tensor([-3.0, -2.0, -1.0, 0.0]).expand(32, 4))


def test_branch_goals_keep_their_own_action_and_time() -> None:
    bank = numbered_bank()
    batch = bank.sample(GoalSettings(branch_fraction=1.0), 16, torch.Generator().manual_seed(3))
    newest = batch.context_latents[:, -1, 0, 0, 0].long()
    assert torch.equal(batch.goal_latents[:, :, 0, 0, 0].long(), (newest + 100)[:, None].expand(16, 4))
    matches = (batch.actions_xyyaw[:, :, None] == bank.branch_actions_xyyaw[newest][:, None]).all(-1)
    assert matches.any(-1).all()


def test_a_batch_depends_only_on_seed_and_step() -> None:
    bank = numbered_bank()
    whole = list(WindowStream(bank, GoalSettings(), 4, seed=7, start=0, stop=6))
    resumed = list(WindowStream(bank, GoalSettings(), 4, seed=7, start=3, stop=6))
    other = next(iter(WindowStream(bank, GoalSettings(), 4, seed=8, start=3, stop=4)))
    assert torch.equal(whole[3].goal_latents, resumed[0].goal_latents)
    assert not torch.equal(whole[3].goal_latents, other.goal_latents)
    assert step_generator(1, 2, 3).initial_seed() != step_generator(1, 3, 2).initial_seed()


def test_round_trip_and_concatenation(tmp_path: Path) -> None:
    bank = numbered_bank()
    write_bank(tmp_path / "bank.safetensors", len(bank), [bank])
    again = open_bank(tmp_path / "bank.safetensors")
    joined = LatentBank.concatenate([bank, again])
    for field in dataclasses.fields(LatentBank):
        before, after = getattr(bank, field.name), getattr(again, field.name)
        assert (before is None and after is None) or torch.equal(before, after), field.name
    assert len(joined) == 2 * FRAMES
    assert joined.first[-1] == FRAMES + 25
    assert joined.last[FRAMES] == FRAMES + 24


def test_damaged_bank_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    write_bank(path, len(numbered_bank()), [numbered_bank()])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="delete it to have it made again"):
        open_bank(path)


def test_drives_too_short_for_a_window_are_refused() -> None:
    with pytest.raises(DataError, match="shorter than 41 frames"):
        numbered_bank().sample(GoalSettings(context_frames=40), 2, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first_world": 9990, "worlds": 20}, "training seeds 0-9999"),
        ({"worlds": 0}, "nothing to learn from"),
        ({"recording_use": (0.6, 0.5)}, "recording_use"),
        ({"max_offset_frames": 65}, "max_offset_frames"),
    ],
)
def test_data_config_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataSettings(**values)  # type: ignore[arg-type]


def test_shapes_of_the_two_networks_must_agree() -> None:
    config = TrainSettings()
    with pytest.raises(ConfigError, match="latent size"):
        dataclasses.replace(config, denoiser_model=dataclasses.replace(config.denoiser_model, input_size=16))
    assert np.isclose(config.rate_hz, 4.0)
