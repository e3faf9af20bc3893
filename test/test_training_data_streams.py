"""Mixtures and endless worlds: shares by counting, nothing twice, exact resume, one draw for all processes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from come_nav.core.errors import ConfigError, DataError
from come_nav.sim.episodes import simulate_episode
from come_nav.sim.splits import TRAIN_SEEDS
from come_nav.training.config import DataSettings
from come_nav.training.data.bank import GoalSettings, LatentBank
from come_nav.training.data.endless import DriveEncoder, DriveMaker, EndlessWorlds, Slots
from come_nav.training.data.mixture import BankSource, Draw, MixtureStream, take_turns
from come_nav.training.data.prefetch import Prefetched
from come_nav.training.data.windows import WindowBatch

SIZE = 8


def constant_bank(value: float, frames: int = 30, images: bool = False) -> LatentBank:
    """A bank whose latents tell which one it is."""
    return LatentBank(
        latents=torch.full((frames, 1, 2, 2), value).half(),
        poses_xyyaw=torch.arange(frames)[:, None] * torch.tensor([[0.1, 0.0, 0.0]]),
        first=torch.zeros(frames, dtype=torch.int64),
        last=torch.full((frames,), frames - 1),
        branch_latents=torch.zeros(frames, 0, 1, 2, 2).half(),
        branch_actions_xyyaw=torch.zeros(frames, 0, 3),
        branch_rel_frames=torch.zeros(frames, 0, dtype=torch.int64),
        images=torch.zeros(frames, 3, 4, 4, dtype=torch.uint8) if images else None,
    )


def mixture(
    weights: list[float], batch: int = 8, steps: range = range(50), rank: int = 0, of: int = 1
) -> MixtureStream:
    sources = [BankSource(constant_bank(float(index)), GoalSettings()) for index in range(len(weights))]
    return MixtureStream(sources, weights, batch, 3, steps.start, steps.stop, rank, of)


def source_of(batch: WindowBatch) -> torch.Tensor:
    return batch.context_latents[:, -1, 0, 0, 0].long()


def assert_same(left: WindowBatch, right: WindowBatch) -> None:
    for field in fields(WindowBatch):
        one, other = getattr(left, field.name), getattr(right, field.name)
        assert (one is None and other is None) or torch.equal(one, other), field.name


def rows_of(batches: list[WindowBatch]) -> WindowBatch:
    total = sum(len(batch) for batch in batches)
    return WindowBatch.joined(batches, torch.arange(total))


# -- mixtures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[0.5, 0.5], [0.9, 0.07, 0.03], [3.0, 1.0, 0.0], [1 / 3, 2 / 3]])
def test_sources_are_drawn_by_weight(weights: list[float]) -> None:
    """After any number of batches every source has had its share to within one window."""
    counts = torch.zeros(len(weights))
    for step, batch in enumerate(mixture(weights), start=1):
        counts += torch.bincount(source_of(batch), minlength=len(weights))
        expected = 8 * step * torch.tensor(weights) / sum(weights)
        assert float((counts - expected).abs().max()) <= 1.0
        assert len(batch) == 8


def test_processes_share_one_draw_and_each_gets_its_share_of_every_source() -> None:
    whole = list(mixture([0.5, 0.25, 0.25], steps=range(6)))
    parts = [list(mixture([0.5, 0.25, 0.25], steps=range(6), rank=rank, of=2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert_same(batch, rows_of([parts[0][step], parts[1][step]]))
        assert torch.bincount(source_of(parts[0][step])).tolist() == [2, 1, 1]


def test_a_resumed_mixture_goes_on_with_the_same_batches() -> None:
    whole, late = list(mixture([0.6, 0.4])), list(mixture([0.6, 0.4], steps=range(31, 50)))
    for left, right in zip(whole[31:], late, strict=True):
        assert_same(left, right)


def test_what_one_source_lacks_the_batch_lacks() -> None:
    sources = [
        BankSource(constant_bank(0.0, images=True), GoalSettings()),
        BankSource(constant_bank(1.0), GoalSettings()),
    ]
    batch = MixtureStream(sources, [1.0, 1.0], 4, 0, 0, 1).batch(0)
    assert batch.context_images is None
    alone = MixtureStream(sources[:1], [1.0], 4, 0, 0, 1).batch(0)
    assert alone.context_images is not None
    assert alone.goal_images is not None


def test_turns_are_spread_evenly() -> None:
    assert take_turns([4, 2]).tolist() == [0, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [-1.0, 2.0], [float("nan"), 1.0]])
def test_weights_that_mean_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError):
        mixture(weights)


# -- slots of the endless pool ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(1, 7), st.integers(1, 3))
def test_every_window_is_used_as_often_as_asked(pool: int, batch: int, windows: int, passes: int) -> None:
    """Window numbers map one to one to uses of drives, and drives follow each other in each slot."""
    slots = Slots.fit(pool, batch, windows, passes)
    total = slots.count * slots.turn * 4 * slots.uses
    slot, generation, use = slots.locate(torch.arange(total))
    assert int(use.max()) < slots.uses
    seen = Counter(zip(slot.tolist(), generation.tolist(), use.tolist(), strict=True))
    assert max(seen.values()) == 1
    for one in range(slots.count):
        mine = generation[slot == one] * slots.uses + use[slot == one]
        assert torch.equal(mine.diff(), torch.ones(len(mine) - 1, dtype=torch.int64)), "in order, without a gap"


def test_slots_split_over_processes_where_they_can() -> None:
    slots = Slots.fit(32, 256, 100, 1)
    assert (slots.count, slots.turn) == (32, 8)
    slot, _, _ = slots.locate(5 * 256 + torch.arange(64))
    assert slot.unique().tolist() == list(range(8)), "a quarter of the rows needs a quarter of the drives"


def test_new_drives_are_due_at_even_distances() -> None:
    slots = Slots.fit(8, 8, 40, 1)
    _, generation, _ = slots.locate(torch.arange(8 * 400))
    changes = (generation.view(400, 8).diff(dim=0) > 0).sum(1)
    assert int(changes.max()) == 1
    assert int(changes.sum()) == pytest.approx(400 / 5, abs=2)


# -- endless worlds --------------------------------------------------------------------------------------------------


def shrink(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(images, 4)


DATA = DataSettings(worlds=50, episode_s=5.0, drivers=("tour",), branches=1, endless=True, pool_drives=2, workers=0)


def endless(steps: range, data: DataSettings = DATA, rank: int = 0, of: int = 1, seed: int = 0) -> MixtureStream:
    source = EndlessWorlds(data, 4, 4.0, DriveEncoder(SIZE, shrink, "cpu"), 4, seed)
    return MixtureStream([source], [1.0], 4, seed, steps.start, steps.stop, rank, of)


@pytest.fixture(scope="module")
def whole() -> list[WindowBatch]:
    """20 batches of 4: each drive has 17 windows, so the two slots change their drives four times and more."""
    return list(endless(range(20)))


def test_no_window_comes_twice(whole: list[WindowBatch]) -> None:
    contexts = rows_of(whole).context_latents.flatten(1)
    assert len(contexts.unique(dim=0)) == 80


def test_windows_come_twice_when_asked_with_other_goals() -> None:
    batches = rows_of(list(endless(range(18), replace(DATA, passes=2))))
    both = torch.cat([batches.context_latents.flatten(1), batches.context_poses_xyyaw.flatten(1)], 1)
    _, where, counts = both.unique(dim=0, return_inverse=True, return_counts=True)
    assert int(counts.max()) == 2
    twice = int((counts == 2).nonzero()[0])
    first, second = batches.goal_latents[where == twice]
    assert not torch.equal(first, second)


def test_a_killed_stream_goes_on_with_the_same_windows(whole: list[WindowBatch]) -> None:
    for left, right in zip(whole[13:16], endless(range(13, 16)), strict=True):
        assert_same(left, right)


def test_processes_render_their_own_drives_and_share_one_draw(whole: list[WindowBatch]) -> None:
    made: list[list[int]] = [[], []]
    for rank in range(2):
        stream = endless(range(11), rank=rank, of=2)
        source = stream.sources[0]
        assert isinstance(source, EndlessWorlds)
        original = source.encoder

        def count(drive, data, rank=rank, original=original):  # type: ignore[no-untyped-def]
            made[rank].append(drive.world.seed)
            return original(drive, data)

        source.encoder = count  # type: ignore[assignment]
        for step, batch in enumerate(stream):
            expected = WindowBatch.joined([whole[step]], torch.arange(2) + 2 * rank)
            assert_same(expected, batch)
    assert 2 <= len(made[0]) <= 3, "the first drive and at most two more, not those of the other process"
    assert not set(made[0]) & set(made[1])


def test_other_seeds_drive_through_other_worlds(whole: list[WindowBatch]) -> None:
    other = next(iter(endless(range(1), seed=1)))
    assert not torch.equal(other.context_latents, whole[0].context_latents)


def test_worlds_are_all_training_worlds_once_a_lap_and_drives_never_repeat() -> None:
    maker = DriveMaker(replace(DATA, first_world=7, worlds=3), 4.0, 0)
    drives = [maker[number] for number in range(6)]
    assert sorted(drive.world.seed for drive in drives[:3]) == [7, 8, 9]
    assert sorted(drive.world.seed for drive in drives[3:]) == [7, 8, 9]
    assert all(drive.world.seed in TRAIN_SEEDS for drive in drives)
    assert len({drive.poses_world_xyyaw[0, 0].item() for drive in drives}) == 6
    episode = simulate_episode(drives[0].world, "tour", 5.0, 4.0, seed=0)
    assert len(episode.stamps_s) == len(drives[0].poses_world_xyyaw)


def test_a_mixture_with_an_endless_source_keeps_both_exact() -> None:
    def stream(steps: range) -> MixtureStream:
        bank = constant_bank(5.0)
        bank.latents = bank.latents.expand(-1, 3, 2, 2)
        bank.branch_latents = torch.zeros(len(bank), 0, 3, 2, 2).half()
        sources = [
            EndlessWorlds(DATA, 4, 4.0, DriveEncoder(SIZE, shrink, "cpu"), 4, 0),
            BankSource(bank, GoalSettings()),
        ]
        return MixtureStream(sources, [0.7, 0.3], 4, 0, steps.start, steps.stop)

    batches = list(stream(range(16)))
    rendered = rows_of(batches).context_latents.flatten(1)
    rendered = rendered[(rendered != 5.0).any(1)]
    assert len(rendered) == 45
    assert len(rendered.unique(dim=0)) == 45
    for left, right in zip(batches[12:], stream(range(12, 16)), strict=True):
        assert_same(left, right)


@pytest.mark.slow
def test_drives_made_in_another_process_are_the_same(whole: list[WindowBatch]) -> None:
    for left, right in zip(whole[:6], endless(range(6), replace(DATA, workers=1)), strict=True):
        assert_same(left, right)


def test_drives_are_made_here_once_their_processes_are_gone(
    whole: list[WindowBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends the processes that make drives as well; what the run still needs until it has saved goes on."""
    made = EndlessWorlds._make_drives

    def dies(self: EndlessWorlds, draw: Draw) -> Iterator[tuple[int, object]]:
        drives = made(self, draw)
        yield next(drives)
        yield next(drives)
        raise RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly")

    monkeypatch.setattr(EndlessWorlds, "_make_drives", dies)
    monkeypatch.setattr(DataLoader, "__iter__", lambda self: map(self.dataset.__getitem__, self.sampler))
    for left, right in zip(whole, endless(range(20), replace(DATA, workers=1)), strict=True):
        assert_same(left, right)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):  # an error of this process's own
        list(endless(range(20)))


def test_drives_too_short_for_a_window_are_refused() -> None:
    with pytest.raises(ConfigError, match="too short"):
        EndlessWorlds(DATA, 30, 4.0, DriveEncoder(SIZE, shrink, "cpu"), 4, 0)


# -- prefetching -----------------------------------------------------------------------------------------------------


def test_prefetched_batches_are_the_streams_own_in_order() -> None:
    plain, ahead = list(mixture([0.5, 0.5])), list(Prefetched(mixture([0.5, 0.5])))
    for left, right in zip(plain, ahead, strict=True):
        assert_same(left, right)


def test_an_error_of_the_stream_reaches_its_reader() -> None:
    def breaks() -> Iterator[int]:
        yield 1
        raise DataError("the disk is gone")

    read = iter(Prefetched(breaks()))
    assert next(read) == 1
    with pytest.raises(DataError, match="the disk is gone"):
        next(read)


def test_a_reader_that_stops_early_stops_the_thread() -> None:
    closed = threading.Event()

    def forever() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    read = iter(Prefetched(forever()))
    next(read)
    read.close()  # type: ignore[attr-defined]
    assert closed.is_set()
