"""The episodic memory: what it keeps, what it trains, and what its readers see while it does."""

from __future__ import annotations

import json
import math
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from come_nav.core.errors import DataError, MemoryStoreError
from come_nav.core.geometry import se2
from come_nav.memory.episodic.background import BackgroundTrainer
from come_nav.memory.episodic.episode import EpisodeBatch, EpisodeFrames
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.episodic.settings import BudgetSettings, EpisodicSettings

SMALL = EpisodicSettings(context_frames=2, reach=6, batch_size=4, round_steps=5, learning_rate=1e-2)


class Toy(nn.Module):
    """Predicts a target's latents from its absolute pose; ``frozen`` is not part of the adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.first = nn.Parameter(torch.linspace(-1.0, 1.0, 32).reshape(2, 16).clone())
        self.last = nn.Parameter(torch.zeros(16, 4))

    def forward(self, pose_xy: Tensor) -> Tensor:
        return (pose_xy * self.frozen @ self.first).sin() @ self.last


def toy_loss(network: nn.Module, batch: EpisodeBatch, generator: torch.Generator) -> Tensor:
    target = se2.compose(batch.context.absolute_pose_xyyaw, batch.actions_xyyaw)
    noise = 1e-3 * torch.randn(batch.target_latents.shape, generator=generator)
    return (network(target[:, :2]) - (batch.target_latents + noise).flatten(1)).square().mean()


def drive(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Latents (N, 1, 2, 2) that follow from poses (N, 3) on an arc."""
    poses = torch.stack([torch.tensor([0.2 * i, 0.05 * i, 0.1 * i]) for i in range(count)])
    latents = torch.stack([(poses[:, 0] * (k + 1) * 0.5 + seed).sin() for k in range(4)], dim=1)
    return latents.reshape(count, 1, 2, 2), poses


def fill(memory: EpisodicMemory, count: int, start: int = 0) -> None:
    latents, poses = drive(start + count)
    for index in range(start, start + count):
        memory.observe(latents[index], poses[index], 0.25 * index)


def a_memory(settings: EpisodicSettings = SMALL, loss=toy_loss, **options) -> EpisodicMemory:
    return EpisodicMemory(Toy(), loss, settings, **options)


# -- frames and windows ------------------------------------------------------------------------------------------------


def test_windows_hold_what_was_seen_where() -> None:
    frames = EpisodeFrames(100, 1.0)
    latents, poses = drive(30)
    for index in range(30):
        frames.add(latents[index], poses[index], 0.25 * index, {"rgb": torch.full((3,), index, dtype=torch.uint8)})
    batch = frames.sample(3, 5, 64, torch.Generator().manual_seed(0))
    newest = batch.frames["rgb"][:, -1, 0].long()
    target = newest + batch.rel_frames.long()
    assert batch.context.latents.shape == (64, 3, 1, 2, 2)
    assert batch.frames["rgb"].shape == (64, 3, 3)
    assert (batch.frames["rgb"][:, 0, 0].long() == newest - 2).all()
    torch.testing.assert_close(batch.context.latents[:, -1], latents[newest].half().float())
    torch.testing.assert_close(batch.target_latents, latents[target].half().float())
    torch.testing.assert_close(batch.actions_xyyaw, se2.relative(poses[newest], poses[target]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(batch.context.absolute_pose_xyyaw, poses[newest])
    torch.testing.assert_close(batch.context.poses_xyyaw[:, -1], torch.zeros(64, 3), atol=1e-6, rtol=0)
    assert batch.rel_frames.abs().max() == 5
    assert batch.context.frame_offsets[0].tolist() == [-2.0, -1.0, 0.0]


def test_the_oldest_frames_make_room() -> None:
    frames = EpisodeFrames(10, 1.0)
    latents, poses = drive(37)
    for index in range(37):
        frames.add(latents[index], poses[index], 0.25 * index, {})
    kept = frames.tensors()
    assert (len(frames), frames.seen) == (10, 37)
    torch.testing.assert_close(kept["poses"], poses[27:].double())
    recent = frames.sample(2, 3, 50, torch.Generator().manual_seed(0), recent=4)
    assert recent.context.absolute_pose_xyyaw[:, 0].min() >= 0.2 * 34 - 1e-5


def test_windows_do_not_reach_across_a_gap() -> None:
    frames = EpisodeFrames(100, 1.0)
    latents, poses = drive(20)
    for index in range(20):
        frames.add(latents[index], poses[index], 0.25 * index + (100.0 if index >= 8 else 0.0), {})
    batch = frames.sample(4, 30, 400, torch.Generator().manual_seed(0))
    x = batch.context.absolute_pose_xyyaw[:, 0] / 0.2
    newest = x.round().long()
    target = newest + batch.rel_frames.long()
    assert ((newest < 8) == (target < 8)).all()
    assert not set(newest.tolist()) & {0, 1, 2, 8, 9, 10}
    assert set(target.tolist()) == set(range(20))


def test_frames_that_cannot_be_used_are_told() -> None:
    frames = EpisodeFrames(10, 1.0)
    with pytest.raises(DataError, match=r"frame at 1\.500 s has latents or a pose that are not finite"):
        frames.add(torch.full((1, 2, 2), math.nan), torch.zeros(3), 1.5, {})
    frames.add(torch.zeros(1, 2, 2), torch.zeros(3), 1.5, {})
    with pytest.raises(DataError, match="the episode's frames have"):
        frames.add(torch.zeros(1, 3, 3), torch.zeros(3), 1.75, {})
    with pytest.raises(DataError, match="no 3 frames without a gap"):
        frames.sample(2, 3, 1, torch.Generator())


# -- training ----------------------------------------------------------------------------------------------------------


def test_an_episode_is_learned() -> None:
    memory = a_memory()
    fill(memory, 40)
    before = float(
        toy_loss(Toy(), memory.frames.sample(2, 6, 200, torch.Generator().manual_seed(1)), torch.Generator())
    )
    assert memory.train_steps(400) == 400
    assert memory.last_loss is not None
    assert memory.last_loss < 0.4 * before


def test_rounds_publish_copies_that_training_does_not_touch() -> None:
    published: list[Adapter | None] = []
    memory = a_memory(on_publish=published.append, metadata={"rank": 4})
    fill(memory, 20)
    memory.train_steps(12)
    assert [adapter.metadata["steps"] for adapter in published if adapter] == [5, 10, 12]
    assert published[0] is not None
    assert published[0].metadata | {"loss": 0.0} == {
        "rank": 4, "version": 1, "steps": 5, "frames": 20, "loss": 0.0,
    }  # fmt: skip
    kept = {name: value.clone() for name, value in published[0].tensors.items()}
    memory.train_steps(20)
    assert all(torch.equal(kept[name], value) for name, value in published[0].tensors.items())
    assert "frozen" not in kept
    json.dumps(published[0].metadata)


def test_same_seed_same_adapter() -> None:
    memories = [a_memory(), a_memory(), a_memory(EpisodicSettings(**{**vars(SMALL), "seed": 1}))]
    for memory in memories:
        fill(memory, 20)
        memory.train_steps(15)
    first, second, other = (memory.newest.tensors for memory in memories if memory.newest)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_reset_restores_the_start_bit_for_bit() -> None:
    published: list[Adapter | None] = []
    network = Toy()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    memory = EpisodicMemory(network, toy_loss, SMALL, on_publish=published.append)
    fill(memory, 20)
    memory.train_steps(10)
    first = memory.newest
    memory.reset()
    assert all(torch.equal(start[name], value) for name, value in network.state_dict().items())
    assert (memory.newest, published[-1], len(memory.frames), memory.steps, memory.steps_due) == (None, None, 0, 0, 0)
    fill(memory, 20)
    memory.train_steps(10)
    assert first is not None
    assert memory.newest is not None
    assert all(torch.equal(first.tensors[name], value) for name, value in memory.newest.tensors.items())


def test_steps_are_due_for_frames_and_not_before_a_window_is_whole() -> None:
    memory = a_memory()
    fill(memory, 1)
    assert (memory.steps_due, memory.train_steps(5)) == (0, 0)
    fill(memory, 9, start=1)
    assert memory.steps_due == 25
    memory.train_steps(7)
    assert memory.steps_due == 18


def test_a_loss_that_is_not_finite_keeps_the_last_good_adapter() -> None:
    broken = threading.Event()

    def loss(network: nn.Module, batch: EpisodeBatch, generator: torch.Generator) -> Tensor:
        value = toy_loss(network, batch, generator)
        return value * math.nan if broken.is_set() else value

    memory = a_memory(loss=loss)
    fill(memory, 20)
    memory.train_steps(10)
    good = memory.newest
    assert good is not None
    broken.set()
    assert memory.train_steps(2) == 0
    assert memory.newest is good
    assert memory.stopped is None
    broken.clear()
    assert memory.train_steps(1) == 1  # goes on from the last good values
    broken.set()
    memory.train_steps(10)
    assert memory.stopped == "3 steps in a row had a loss or gradient that is not finite"
    assert memory.rejected == 5
    assert memory.steps_due == 0
    broken.clear()
    assert memory.train_steps(5) == 0
    assert memory.newest is not None
    assert all(torch.isfinite(tensor).all() for tensor in memory.newest.tensors.values())
    memory.reset()
    fill(memory, 20)
    assert memory.train_steps(2) == 2


# -- disk --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [20, 75])
def test_a_loaded_state_goes_on_as_if_nothing_had_happened(count: int) -> None:
    """75 frames are more than the capacity of 64."""
    settings = EpisodicSettings(**{**vars(SMALL), "capacity": 64})
    memory = a_memory(settings, metadata={"rank": 4})
    fill(memory, count)
    memory.train_steps(13)
    tensors, metadata = memory.state()
    restored = a_memory(settings, metadata={"rank": 4})
    restored.load_state(load(save(tensors)), json.loads(json.dumps(metadata)))
    assert restored.newest is not None
    assert memory.newest is not None
    assert restored.newest.metadata == memory.newest.metadata
    for each in (memory, restored):
        fill(each, 9, start=count)
        each.train_steps(11)
    assert all(torch.equal(value, restored.newest.tensors[name]) for name, value in memory.newest.tensors.items())
    assert torch.equal(memory.frames.tensors()["poses"], restored.frames.tensors()["poses"])
    assert restored.steps == memory.steps == 24


def test_states_of_others_are_refused_and_change_nothing() -> None:
    memory = a_memory(metadata={"rank": 4})
    fill(memory, 20)
    memory.train_steps(5)
    tensors, metadata = memory.state()
    before = memory.newest
    with pytest.raises(MemoryStoreError, match="rank must be 4 as the network's, got 8"):
        memory.load_state(tensors, {**metadata, "network": {"rank": 8}})
    with pytest.raises(MemoryStoreError, match="format must be"):
        memory.load_state(tensors, {})
    with pytest.raises(MemoryStoreError, match="parameter 'last' is missing, misshapen or not finite"):
        memory.load_state({**tensors, "parameter.last": torch.zeros(3)}, metadata)
    assert memory.newest is before


# -- background --------------------------------------------------------------------------------------------------------


def test_readers_see_whole_adapters_while_the_thread_trains() -> None:
    """Every published adapter is consistent: here all its values are one number, the step."""

    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ParameterList([nn.Parameter(torch.zeros(50)) for _ in range(20)])

    def loss(network: nn.Module, batch: EpisodeBatch, generator: torch.Generator) -> Tensor:
        return -torch.cat(list(network.parameters())).sum()

    settings = EpisodicSettings(**{**vars(SMALL), "round_steps": 1, "weight_decay": 0, "steps_per_frame": 1e6})
    memory = EpisodicMemory(Counter(), loss, settings)
    fill(memory, 10)
    versions = set()
    with BackgroundTrainer(memory, BudgetSettings(1e6)):
        deadline_s = time.monotonic() + 60.0
        while len(versions) < 25 and time.monotonic() < deadline_s:
            adapter = memory.newest
            if adapter is not None:
                values = torch.cat(list(adapter.tensors.values()))
                assert (values == values[0]).all()
                versions.add(adapter.metadata["version"])
            time.sleep(0.001)
    assert len(versions) >= 25


def test_the_thread_trains_what_is_due_and_stops() -> None:
    memory = a_memory()
    fill(memory, 20)
    trainer = BackgroundTrainer(memory, BudgetSettings(1e6, idle_s=0.001))
    with trainer:
        wait_for(lambda: memory.steps_due == 0 and memory.newest is not None)
        assert memory.steps == 50
        fill(memory, 2, start=20)
        wait_for(lambda: memory.steps == 55)
    assert not trainer.running
    assert trainer.failure is None
    assert memory.newest is not None
    assert memory.newest.metadata["steps"] == 55


def test_the_budget_is_kept() -> None:
    """The thread reads its clock at the start and at the end of each step."""
    readings_s: list[float] = []

    def clock_s() -> float:
        readings_s.append(time.monotonic())
        return readings_s[-1]

    memory = a_memory()
    fill(memory, 20)
    with BackgroundTrainer(memory, BudgetSettings(steps_per_s=50.0, idle_s=0.001), clock_s):
        wait_for(lambda: len(readings_s) >= 24)
    assert np.diff(readings_s[:24:2]).min() > 0.95 * 0.02


def test_a_defect_of_the_loss_ends_the_thread_and_keeps_the_adapter() -> None:
    def loss(network: nn.Module, batch: EpisodeBatch, generator: torch.Generator) -> Tensor:
        if memory.steps >= 10:
            raise ValueError("defect")
        return toy_loss(network, batch, generator)

    memory = a_memory(loss=loss)
    fill(memory, 20)
    trainer = BackgroundTrainer(memory, BudgetSettings(1e6))
    trainer.start()
    wait_for(lambda: not trainer.running)
    assert isinstance(trainer.failure, ValueError)
    assert memory.newest is not None
    trainer.stop()


def wait_for(condition, limit_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited too long"
        time.sleep(0.002)


# -- with a real denoiser ----------------------------------------------------------------------------------------------


def test_an_adapter_overfits_the_episode_of_a_small_denoiser() -> None:
    pytest.importorskip("peft")
    from test_experts_cdit import randomised

    from come_nav.experts.base import BaseExpert
    from come_nav.experts.lora import LongTermExpert, adapted, adapter_metadata, diffusion_loss
    from come_nav.experts.lora_settings import LoraSettings
    from come_nav.experts.normalizer import Normalizer
    from come_nav.world_model.sampling.schedule import NoiseSchedule

    network = randomised(input_size=4, context_size=2, hidden_size=24, depth=2, num_heads=3, learn_sigma=False)
    base = BaseExpert(network, Normalizer.metric(1.0), NoiseSchedule.linear(), "v").eval()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    lora = LoraSettings(rank=8, alpha=8)
    expert = LongTermExpert(base, lora)

    def loss(module: nn.Module, batch: EpisodeBatch, generator: torch.Generator) -> Tensor:
        levels = torch.tensor([999, 500])
        assert isinstance(module, BaseExpert)
        return diffusion_loss(
            module, batch.target_latents, batch.context, batch.actions_xyyaw, batch.rel_frames, generator, levels=levels
        )

    memory = EpisodicMemory(
        adapted(base, lora, torch.Generator().manual_seed(0)),
        loss,
        EpisodicSettings(context_frames=2, reach=6, learning_rate=5e-3, batch_size=8),
        on_publish=lambda adapter: expert.swap(None if adapter is None else adapter.tensors),
        metadata=adapter_metadata(base, lora),
    )
    generator = torch.Generator().manual_seed(3)
    here, elsewhere = torch.randn(2, 24, 4, 4, 4, generator=generator)
    for index in range(24):
        memory.observe(here[index], torch.tensor([0.2 * index, 0.0, 0.1 * index]), 0.25 * index)
    other = EpisodeFrames(100, 1.0)
    for index in range(24):
        other.add(elsewhere[index], torch.tensor([0.2 * index, 0.0, 0.1 * index]), 0.25 * index, {})
    assert memory.train_steps(80) == 80

    def measured(module: nn.Module, frames: EpisodeFrames) -> float:
        with torch.no_grad():
            batch = frames.sample(2, 6, 128, torch.Generator().manual_seed(9))
            return float(loss(module, batch, torch.Generator().manual_seed(1)))

    tuned = expert.shared_passes()[0].network
    assert isinstance(tuned, BaseExpert)
    gains = {
        name: measured(tuned, own) / measured(base, own) for name, own in (("here", memory.frames), ("else", other))
    }
    assert gains["here"] < 0.4
    assert gains["here"] < gains["else"]  # latents of the other episode are independent noise: nothing carries over
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())
    memory.reset()
    assert not expert.has_adapter
