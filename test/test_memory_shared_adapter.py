"""One process trains and saves an adapter, another takes the newest that fits; a kill loses little."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from come_nav.core.errors import CheckpointError, MemoryStoreError
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.episodic.settings import EpisodicSettings
from come_nav.memory.episodic.shared_adapter import EPISODE, SharedAdapter, forget_episode, load_episode, save_episode
from come_nav.memory.progress import TrainingProgress
from come_nav.memory.store.store import MemoryStore

SETTINGS = EpisodicSettings(context_frames=2, reach=3, batch_size=2, steps_per_frame=1.0, round_steps=2)
FACTS = {"kind": "toy", "rank": 2}


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def toy_loss(network, batch, generator):
    return (network.weight - batch.target_latents.mean()).square().mean()


def memory_of(frames: int = 0, **facts) -> EpisodicMemory:
    memory = EpisodicMemory(Toy(), toy_loss, SETTINGS, metadata={**FACTS, **facts})
    see(memory, frames)
    return memory


def see(memory: EpisodicMemory, frames: int, start: int = 0) -> None:
    for index in range(start, start + frames):
        memory.observe(torch.full((1, 2, 2), 1.0 + index), torch.tensor([0.1 * index, 0.0, 0.0]), 0.25 * index)


@pytest.fixture
def store(tmp_path) -> MemoryStore:
    return MemoryStore(tmp_path / "memory")


def test_training_goes_on_where_it_was_saved(store):
    before = memory_of(10)
    assert save_episode(store, before) is None  # nothing is published yet, but the frames are kept
    before.train_steps(6)
    saved = save_episode(store, before)
    assert saved is not None
    assert saved.metadata["steps"] == 6
    after = memory_of()
    assert load_episode(store, after)
    assert (after.steps, after.steps_due, after.frames.seen) == (6, 4, 10)
    assert torch.equal(after.newest.tensors["weight"], before.newest.tensors["weight"])
    before.train_steps(2)
    after.train_steps(2)
    assert torch.equal(after.newest.tensors["weight"], before.newest.tensors["weight"])
    assert after.newest.metadata == before.newest.metadata


def test_an_adapter_saved_after_the_frames_is_not_lost(store):
    before = memory_of(10)
    before.train_steps(4)
    save_episode(store, before)
    before.train_steps(4)
    save_episode(store, before, training=False)
    after = memory_of()
    assert load_episode(store, after)
    assert (after.steps, after.frames.seen) == (8, 10)
    assert after.newest.metadata["version"] == before.newest.metadata["version"]
    assert torch.equal(after._parameters["weight"], before.newest.tensors["weight"])
    assert after.steps_due == 2


def test_an_adapter_without_its_frames_owes_no_steps(store):
    before = memory_of(10)
    before.train_steps(8)
    save_episode(store, before, training=False)
    after = memory_of()
    assert load_episode(store, after)
    assert (after.steps, after.frames.seen, after.steps_due) == (8, 0, 0)
    see(after, 4, start=100)
    assert after.steps_due == 4
    after.train_steps(4)
    assert after.newest.metadata["version"] == before.newest.metadata["version"] + 2


def test_an_episode_of_another_network_is_refused(store):
    before = memory_of(10)
    before.train_steps(2)
    for training in (True, False):
        save_episode(store, before, training)
        with pytest.raises(MemoryStoreError, match="rank must be 4 as the network's, got 2"):
            load_episode(store, memory_of(rank=4))
    assert not load_episode(MemoryStore(store.path / "none"), before)


class User:
    def __init__(self, store: MemoryStore, expected=FACTS) -> None:
        self.got: list[Adapter | None] = []
        self.shared = SharedAdapter(store, expected, self.got.append)


def test_a_user_takes_each_new_adapter_once_and_forgets_with_the_owner(store):
    user = User(store)
    assert not user.shared.poll()
    owner = memory_of(10)
    owner.train_steps(2)
    save_episode(store, owner, training=False)
    assert user.shared.poll()
    assert torch.equal(user.got[-1].tensors["weight"], owner.newest.tensors["weight"])
    assert user.shared.adapter.metadata["version"] == 1
    assert not user.shared.poll()
    store.save(keyframes={})  # another process writes its part: nothing new for this one
    assert not user.shared.poll()
    save_episode(store, owner, training=True)  # the same adapter with its frames
    assert not user.shared.poll()
    owner.train_steps(2)
    save_episode(store, owner, training=False)
    assert user.shared.poll()
    assert user.shared.adapter.metadata["version"] == 2
    forget_episode(store)
    assert user.shared.poll()
    assert user.got[-1] is None
    assert len(user.got) == 3
    assert not load_episode(store, memory_of())


def test_an_adapter_that_does_not_fit_leaves_the_one_before_in_use(store):
    owner = memory_of(10)
    owner.train_steps(2)
    save_episode(store, owner, training=False)
    user = User(store)
    assert user.shared.poll()
    other = memory_of(10, rank=4)
    other.train_steps(4)
    save_episode(store, other, training=False)
    assert not user.shared.poll()
    assert "the adapter does not fit: rank must be 2 as the network's, got 4" in user.shared.diagnosis
    assert user.shared.adapter.metadata["version"] == 1
    owner.train_steps(2)
    save_episode(store, owner, training=False)
    assert user.shared.poll()
    assert user.shared.diagnosis is None


def test_a_damaged_adapter_and_one_that_its_user_refuses_are_named(store):
    owner = memory_of(10)
    owner.train_steps(2)
    save_episode(store, owner, training=False)

    def refuse(adapter):
        raise CheckpointError("no such layer")

    shared = SharedAdapter(store, FACTS, refuse)
    assert not shared.poll()
    assert (shared.diagnosis, shared.adapter) == ("no such layer", None)
    file = next(store.path.glob(f"v*/adapter-{EPISODE}.safetensors"))
    file.write_bytes(bytes(len(file.read_bytes())))
    user = User(store)
    assert not user.shared.poll()
    assert "SHA-256" in user.shared.diagnosis


def test_only_the_adapter_that_is_asked_for_is_read(store):
    store.save(adapters={"a": {"x": torch.ones(1)}, "b": {"x": torch.zeros(1)}})
    assert set(store.load().adapters) == {"a", "b"}
    assert set(store.load(adapters=("b",)).adapters) == {"b"}
    assert store.load(adapters=()).adapters == {}
    assert store.mark("adapter", 1, "c") is None
    with pytest.raises(MemoryStoreError, match="version 7 cannot be read"):
        store.mark("adapter", 7, "a")


def test_progress_counts_steps_and_how_long_frames_wait():
    progress = TrainingProgress()
    assert progress.steps_per_s() == 0.0
    for index in range(4):
        progress.observed(steps=0, steps_due=index + 1, steady_s=float(index))
        progress.trained(2 * index, float(index))
    assert progress.steps_per_s() == pytest.approx(2.0)
    assert progress.usable(0, 4.0) == []
    assert progress.usable(2, 5.0) == [5.0, 4.0]
    assert progress.usable(2, 6.0) == []
    assert progress.usable(9, 7.0) == [5.0, 4.0]
    progress.trained(0, 5.0)  # a new episode
    progress.trained(3, 6.0)
    assert progress.steps_per_s() == pytest.approx(3.0)
    progress.trained(3, 100.0)
    assert progress.steps_per_s() == 0.0
