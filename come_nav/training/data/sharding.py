"""One draw for all processes: each takes its rows of the batch that a single process would draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from come_nav.core.errors import ConfigError


def shard(batch_size: int, rank: int, world_size: int) -> slice:
    """Return the rows of a total batch that process ``rank`` of ``world_size`` works on: equal shares, in order.

    Raises:
        ConfigError: the batch cannot be shared equally; the mean over processes would then not be that of the batch.
    """
    if batch_size % world_size:
        raise ConfigError(f"batch_size {batch_size} is the total of all processes: make it a multiple of {world_size}")
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def row_noise(batch_size: int, shape: Sequence[int], generator: torch.Generator, rows: slice) -> torch.Tensor:
    """Return the ``rows`` of a batch of Gaussian noise (batch_size, *shape), drawing only those.

    Every row has a generator of its own, seeded from ``generator``, so that a process of many does not pay for all.
    """
    seeds = torch.randint(2**62, (batch_size,), generator=generator)[rows]
    own = torch.Generator()
    return torch.stack([torch.randn(*shape, generator=own.manual_seed(int(seed))) for seed in seeds])
