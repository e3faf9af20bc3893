"""Endless built-in worlds: drives are rendered as their windows are consumed, and no window comes twice.

A pool holds one drive in each of P slots. Window number n of the stream is the next one of a slot; slots take turns, so
that a batch mixes P worlds. A drive whose windows are used up makes room for the next one, in a world that comes next
in a shuffled order of all training worlds. Slots start at staggered places of their first drive, so that new drives
are due at even distances and every step costs the same.

Everything is a function of (seed, n): a resumed run makes the same drives again and goes on with the same windows.
World and path of a drive are made in other processes (they need no device and take longest); the training process
renders and encodes them on its device, one drive of some hundred frames in a few large batches.
"""

from __future__ import annotations

import copy
import heapq
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from come_nav.core.errors import ConfigError
from come_nav.training.config import DataSettings
from come_nav.training.data.bank import LatentBank
from come_nav.training.data.goals import GoalSettings, draw_uniforms
from come_nav.training.data.mixture import Draw
from come_nav.training.data.sensing import DriveSenses, EstimatedDepth
from come_nav.training.data.sim_bank import (
    Drive,
    drive_frames,
    encode_drive,
    make_drive,
    training_camera,
    with_memory_made,
)
from come_nav.training.data.windows import Encode, WindowBatch, step_generator

_log = logging.getLogger(__name__)

WORLD_STREAM, WINDOW_STREAM = 50, 51  # numbers of the random streams
AHEAD_PER_WORKER = 2
PER_BANK = ("cameras",)


@dataclass(frozen=True)
class DriveMaker(Dataset[Drive]):
    """Makes drive number n of a stream: worlds come in a new shuffled order every time all have been used."""

    config: DataSettings
    rate_hz: float
    seed: int
    image_size: int = 64
    senses: DriveSenses | None = None

    def __getitem__(self, number: int) -> Drive:
        lap, place = divmod(number, self.config.worlds)
        order = torch.randperm(self.config.worlds, generator=step_generator(self.seed, WORLD_STREAM, lap))
        world = self.config.first_world + int(order[place])
        drive = make_drive(world, number, self.config, self.rate_hz, seed=self.seed * 1_000_003 + number)
        if self.senses is None or self.config.memory_features == "latent":  # latents are made where the encoder is
            return drive
        return with_memory_made(drive, training_camera(self.image_size), self.senses)


@dataclass(frozen=True)
class Slots:
    """Which drive and which window of it is window number n of the stream.

    Attributes:
        count: P drives in the pool.
        turn: windows that a slot gives before the next slot's turn.
        windows: of one drive.
        passes: how often each is used.
    """

    count: int
    turn: int
    windows: int
    passes: int

    @classmethod
    def fit(cls, pool_drives: int, batch_size: int, windows: int, passes: int) -> Slots:
        """Choose the slots so that, where possible, every batch takes equally many windows of each.

        Then a process that has only some rows of the batch needs only the slots of those.
        """
        fitting = [count for count in range(pool_drives // 2 + 1, pool_drives + 1) if batch_size % count == 0]
        count = fitting[-1] if fitting else pool_drives
        return cls(count, max(1, batch_size // count), windows, passes)

    def locate(self, number: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return slot, generation of its drive and use of that drive, each (R,), of windows ``number`` (R,)."""
        lap, place = number // (self.count * self.turn), number % (self.count * self.turn)
        slot = place // self.turn
        use = lap * self.turn + place % self.turn + self.head_start(slot)
        return slot, use // self.uses, use % self.uses

    def head_start(self, slot: Any) -> Any:
        """Return how many windows of its first drive a slot skips."""
        return slot * self.uses // self.count

    @property
    def uses(self) -> int:
        """Windows that a drive gives in all."""
        return self.windows * self.passes


@dataclass(frozen=True)
class DriveEncoder:
    """Renders and encodes drives.

    Attributes:
        image_size: of the square images.
        encode: images to latents, on ``device``.
        device: where views are rendered, encoded and kept.
        finish: last touch to each drive's bank, e.g. estimated depth.
        senses: what a robot makes of what it sees; None = as rendered.
    """

    image_size: int
    encode: Encode
    device: str
    finish: Callable[[LatentBank], LatentBank] = lambda bank: bank
    senses: DriveSenses | None = None

    def __call__(self, drive: Drive, config: DataSettings) -> LatentBank:
        """Return the drive's bank, latents and images on ``device``."""
        camera = training_camera(self.image_size)
        bank = encode_drive(drive, camera, config, self.encode, self.device, self.device, self.senses)
        return self.finish(bank)


class EndlessWorlds:
    """A WindowSource of built-in worlds without end.

    Args:
        config: of the data; ``pool_drives``, ``passes`` and ``workers`` say how the pool works.
        context_frames: of the windows.
        rate_hz: of the drives.
        encoder: renders and encodes them.
        batch_size: of all processes and sources together.
        seed: of everything.
        sampling: how windows are drawn; as ``config`` says by default.

    Raises:
        ConfigError: drives too short for a window.
    """

    def __init__(
        self,
        config: DataSettings,
        context_frames: int,
        rate_hz: float,
        encoder: DriveEncoder,
        batch_size: int,
        seed: int,
        sampling: GoalSettings | None = None,
    ) -> None:
        self.config, self.context_frames = config, context_frames
        self.sampling = sampling or config.sampling(context_frames)
        self.encoder = encoder
        self.frames = drive_frames(config, rate_hz)
        windows = self.frames - context_frames
        if windows < 1:
            raise ConfigError(f"data.episode_s {config.episode_s} is too short for a window: make it longer")
        self.slots = Slots.fit(config.pool_drives, batch_size, windows, config.passes)
        self.maker = DriveMaker(config, rate_hz, seed, encoder.image_size, _on_cpu(encoder.senses))
        self.seed, self.batch_size = seed, batch_size
        self._taken = 0
        self._pool: LatentBank | None = None
        self._place: dict[int, int] = {}  # slot -> place in the pool
        self._drives: Iterator[tuple[int, Drive]] | None = None
        self._early: dict[int, Drive] = {}
        self._alone = False  # without processes that make drives
        self._holds: dict[int, int] = {}  # slot -> generation of the drive in it

    def draw(self, draw: Draw, generator: torch.Generator) -> WindowBatch:
        """Return the windows of ``draw``, rendering the drives that are due."""
        if draw.taken < self._taken:  # begun again from an earlier step
            self.close()
        self._taken = draw.taken
        slot, generation, use = self.slots.locate(draw.taken + draw.rows)
        uniforms = draw_uniforms(draw.count, self.sampling, generator)[draw.rows]
        batches, places = [], []
        # a slot may change its drive within a batch: what the old drive owes comes first
        for part in _by_generation(slot, generation):
            for one in torch.unique(slot[part]).tolist():
                wanted = int(generation[part][slot[part] == one][0])
                if self._holds.get(one) != wanted:
                    self._fill(one, wanted, draw)
            batches.append(self._windows(slot[part], generation[part], use[part], uniforms[part]))
            places.append(part)
        return batches[0] if len(batches) == 1 else WindowBatch.joined(batches, torch.cat(places).argsort())

    def close(self) -> None:
        """Stop the processes that make drives."""
        self._drives = None
        self._early.clear()

    def _windows(
        self, slot: torch.Tensor, generation: torch.Tensor, use: torch.Tensor, uniforms: torch.Tensor
    ) -> WindowBatch:
        if self._pool is None:
            raise ConfigError("the pool is empty")
        newest = []
        for one, age, number in zip(slot.tolist(), generation.tolist(), use.tolist(), strict=True):
            order = self._order(self.slots.count * age + one, number // self.slots.windows)
            start = self._place[one] * self.frames + self.context_frames - 1
            newest.append(start + int(order[number % self.slots.windows]))
        return self._pool.windows(torch.tensor(newest), self.sampling, uniforms)

    def _order(self, drive: int, lap: int) -> torch.Tensor:
        stream = step_generator(self.seed, WINDOW_STREAM + lap, drive)
        return torch.randperm(self.slots.windows, generator=stream)

    def _fill(self, slot: int, generation: int, draw: Draw) -> None:
        """Render and encode drive ``generation`` of ``slot`` into its place of the pool."""
        drive = self._drive(self.slots.count * generation + slot, draw)
        bank = self.encoder(drive, self.config)
        if self._pool is None:
            self._pool = _empty_pool(bank, len(self._place))
        rows = slice(self._place[slot] * self.frames, (self._place[slot] + 1) * self.frames)
        for name in LatentBank.__dataclass_fields__:
            values, kept = getattr(bank, name), getattr(self._pool, name)
            if kept is not None and name not in PER_BANK:
                kept[rows] = values + rows.start if name in ("first", "last") else values.to(kept.device)
        self._holds[slot] = generation

    def _drive(self, number: int, draw: Draw) -> Drive:
        """Return a drive; it depends on its number alone, so it does not matter which process makes it."""
        if self._drives is None and not self._alone:
            self._drives = self._make_drives(draw)
        while self._drives is not None and number not in self._early:
            try:
                made, drive = next(self._drives)
            except RuntimeError as error:  # a signal to all processes, as Ctrl-C is, ends those that make drives
                if not self.config.workers:
                    raise
                _log.info("drives are made in this process from now on: %s", str(error).splitlines()[0])
                self._drives, self._alone = None, True
            else:
                self._early[made] = drive
        return self._early.pop(number) if number in self._early else self.maker[number]

    def _make_drives(self, draw: Draw) -> Iterator[tuple[int, Drive]]:
        """Yield drives in the order in which the windows from ``draw`` on need them."""
        mine = range(self.slots.count)
        if draw.count == self.batch_size == self.slots.count * self.slots.turn:  # the rows, and so the slots, stay
            mine = sorted(set(self.slots.locate(draw.taken + draw.rows)[0].tolist()))  # type: ignore[assignment]
        if not self._place:
            self._place = {slot: place for place, slot in enumerate(mine)}
        position = draw.taken // (self.slots.count * self.slots.turn) * self.slots.turn
        workers = self.config.workers
        loader: DataLoader[Drive] = DataLoader(
            self.maker,
            batch_size=None,
            sampler=_Numbers(self._due(position)),
            num_workers=workers,
            prefetch_factor=AHEAD_PER_WORKER if workers else None,
            multiprocessing_context="forkserver" if workers else None,  # a fork would copy threads and CUDA's state
            generator=torch.Generator(),
        )
        return zip(self._due(position), loader, strict=False)

    def _due(self, position: int) -> Iterator[int]:
        """Yield the numbers of drives without end, by the position in its slot at which each is first needed."""
        due: list[tuple[int, int, int]] = []
        for slot in self._place:
            generation = (position + self.slots.head_start(slot)) // self.slots.uses
            heapq.heappush(due, (-1, slot, generation))
        while True:
            _, slot, generation = heapq.heappop(due)
            yield self.slots.count * generation + slot
            start = (generation + 1) * self.slots.uses - self.slots.head_start(slot)
            heapq.heappush(due, (start, slot, generation + 1))


def _on_cpu(senses: DriveSenses | None) -> DriveSenses | None:
    """Return what another process can have: with a copy of the estimator on the CPU."""
    if senses is None or not isinstance(senses.estimate, EstimatedDepth):
        return senses
    return replace(senses, estimate=EstimatedDepth(copy.deepcopy(senses.estimate.estimator).cpu()))


@dataclass(frozen=True)
class _Numbers:
    """Numbers as a sampler of a DataLoader."""

    numbers: Iterator[int]

    def __iter__(self) -> Iterator[int]:
        return self.numbers


def _by_generation(slot: torch.Tensor, generation: torch.Tensor) -> list[torch.Tensor]:
    """Return groups of rows, in the order to draw them, in each of which a slot has one generation only."""
    first = torch.full((int(slot.max()) + 1,), torch.iinfo(torch.int64).max)
    first = first.scatter_reduce(0, slot, generation, "amin")
    age = generation - first[slot]
    return [(age == value).nonzero()[:, 0] for value in range(int(age.max()) + 1)]


def _empty_pool(bank: LatentBank, places: int) -> LatentBank:
    """Return a bank with room for as many drives like ``bank``, on the devices of its tensors."""
    fields: dict[str, torch.Tensor | None] = {}
    for name in LatentBank.__dataclass_fields__:
        value = getattr(bank, name)
        if value is None or name in PER_BANK:
            fields[name] = value
        else:
            fields[name] = torch.zeros(places * len(value), *value.shape[1:], dtype=value.dtype, device=value.device)
    return LatentBank(**fields)  # type: ignore[arg-type]
