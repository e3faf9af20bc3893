"""Batches mixed from several sources with weights: built-in worlds, an endless stream of them, recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Protocol

import torch

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.training.data.bank import LatentBank
from come_nav.training.data.goals import GoalSettings
from come_nav.training.data.sharding import shard
from come_nav.training.data.windows import WindowBatch, step_generator

FIRST_STREAM = 100  # number of the first source's random stream


class WindowSource(Protocol):
    """Something to draw windows from."""

    def draw(self, draw: Draw, generator: torch.Generator) -> WindowBatch:
        """Return the windows of ``draw``; the same draw and generator state give the same windows."""
        ...

    def close(self) -> None:
        """Stop whatever runs in the background."""
        ...


@dataclass(frozen=True)
class Draw:
    """Which windows are wanted of a source.

    Attributes:
        taken: windows of the source that all processes together have drawn in the steps before.
        count: windows of the source in this step, of all processes together.
        rows: (R,) which of those this process wants, consecutive.
    """

    taken: int
    count: int
    rows: torch.Tensor


class BankSource:
    """Windows drawn at random from a bank."""

    def __init__(self, bank: LatentBank, sampling: GoalSettings) -> None:
        self.bank, self.sampling = bank, sampling
        bank.usable(sampling.context_frames)  # too short a recording is told now

    def draw(self, draw: Draw, generator: torch.Generator) -> WindowBatch:
        """Return the windows of ``draw``."""
        return self.bank.sample(self.sampling, draw.count, generator, draw.rows)

    def close(self) -> None:
        """Do nothing."""


class MixtureStream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Batches for steps ``start`` .. ``stop`` of a run; batch k depends only on (seed, k).

    The sources take turns in every batch according to their weights. Where a weight is no whole number of windows per
    batch, some batches hold one more: after any number of steps a source has had its share to within a window.
    ``batch_size`` is the total of ``world_size`` processes; process ``rank`` gets its rows of the one draw.
    """

    def __init__(
        self,
        sources: Sequence[WindowSource],
        weights: Sequence[float],
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        if not sources or len(sources) != len(weights):
            raise ConfigError(f"a mixture needs one weight for each source, got {len(sources)} and {len(weights)}")
        for weight in weights:
            check_range("weight of a source", weight, 0.0)
        check_range("sum of the weights", sum(weights), 0.0, open_low=True)
        self.sources = list(sources)
        self.weights = [Fraction(weight) for weight in weights]
        self.batch_size, self.seed, self.start, self.stop = batch_size, seed, start, stop
        self.rows = shard(batch_size, rank, world_size)

    def __iter__(self) -> Iterator[WindowBatch]:
        try:
            for step in range(self.start, self.stop):
                yield self.batch(step)
        finally:
            for source in self.sources:
                source.close()

    def batch(self, step: int) -> WindowBatch:
        """Return this process's rows of the batch of ``step``."""
        before, after = self.taken(step), self.taken(step + 1)
        counts = [high - low for low, high in zip(before, after, strict=True)]
        source_of_row = take_turns(counts)
        mine = source_of_row[self.rows]
        parts, places = [], []
        for number, source in enumerate(self.sources):
            place = (mine == number).nonzero()[:, 0]
            if len(place) == 0:
                continue
            rows = ((source_of_row == number).cumsum(0) - 1)[self.rows][place]
            generator = step_generator(self.seed, FIRST_STREAM + number, step)
            parts.append(source.draw(Draw(before[number], counts[number], rows), generator))
            places.append(place)
        return parts[0] if len(parts) == 1 else WindowBatch.joined(parts, torch.cat(places).argsort())

    def taken(self, step: int) -> list[int]:
        """Return how many windows of each source the steps before ``step`` have drawn.

        Each source takes its share, rounded, of what those before it left: so no count ever falls.
        """
        left, weight_left = step * self.batch_size, sum(self.weights)
        taken = []
        for weight in self.weights:
            taken.append(floor(left * weight / weight_left + Fraction(1, 2)) if weight_left else 0)
            left, weight_left = left - taken[-1], weight_left - weight
        return taken


def take_turns(counts: Sequence[int]) -> torch.Tensor:
    """Return a source (sum of counts,) for each row, the rows of every source spread evenly."""
    moments = torch.cat([(torch.arange(count) + 0.5) / max(count, 1) for count in counts])
    source = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return source[moments.argsort(stable=True)]
