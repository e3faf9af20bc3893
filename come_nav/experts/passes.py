"""Forward passes that experts ask for, so that a world model computes equal ones once and like ones in one batch.

The four experts of CoME overlap: the long-term expert's untuned side is the base's conditional side, a spatial expert
without its memory is the base again. Each expert therefore says which passes of which network it stands on instead of
running them itself.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.types import Context

VIEW = "view"  # Context.extras: what the context shows from each target, for models with extra channels
LONG_VIEW = "long_view"  # the same of a longer context
MEMORY_VIEW = "memory_view"  # the same, and the spatial memory where nothing else is known
ABSOLUTE_POSE = "absolute_pose"  # Context.extras: (B or 1, 3) pose of the newest context frame in the episode's frame


@dataclass(frozen=True)
class Condition:
    """What a network is told in one pass.

    Attributes:
        context: the context frames and what they show; False is the null context.
        view: name in ``Context.extras`` of the image for the network's extra channels, where it has such channels.
    """

    context: bool = True
    view: str = VIEW


@dataclass(frozen=True)
class Query:
    """What all passes of one sampling step have in common; see :class:`come_nav.core.protocols.Expert`."""

    x_t: Tensor
    t: Tensor
    context: Context
    action: Tensor
    rel_time: Tensor


class Network(Protocol):
    """Answers several conditions in one batch. Compared by identity: the same object has the same weights."""

    def noises(self, conditions: Sequence[Condition], query: Query) -> Tensor:
        """Return the noise (P, B, C, h, w) under each of P conditions."""
        ...


@dataclass(frozen=True)
class Pass:
    """One density of a product: a network under a condition."""

    network: Network
    condition: Condition


@runtime_checkable
class SharingExpert(Protocol):
    """An expert whose two sides are passes, possibly of a network that other experts use as well."""

    def shared_passes(self) -> tuple[Pass, Pass]:
        """Return the passes of (eps, eps_bar)."""
        ...


class PassExpert(ABC):
    """An expert that is its two passes and nothing more (SharingExpert and Expert protocols)."""

    @abstractmethod
    def shared_passes(self) -> tuple[Pass, Pass]:
        """Return the passes of (eps, eps_bar)."""

    def scores(
        self, x_t: Tensor, t: Tensor, context: Context, action: Tensor, rel_time: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the noises of the two passes, both (B, C, h, w), one after the other (see Expert)."""
        query = Query(x_t, t, context, action, rel_time)
        eps, eps_bar = (own.network.noises([own.condition], query)[0] for own in self.shared_passes())
        return eps, eps_bar


@dataclass(frozen=True, eq=False)
class ScoresNetwork:
    """Any other expert as a network: with the context it answers ``eps``, without it ``eps_bar``."""

    expert: Any

    def noises(self, conditions: Sequence[Condition], query: Query) -> Tensor:
        """Return the asked sides of ``expert.scores`` (P, B, C, h, w)."""
        eps, eps_bar = self.expert.scores(query.x_t, query.t, query.context, query.action, query.rel_time)
        return torch.stack([eps if condition.context else eps_bar for condition in conditions])


def passes_of(expert: Any) -> tuple[Pass, Pass]:
    """Return the two passes of any expert."""
    if isinstance(expert, SharingExpert):
        return expert.shared_passes()
    network = ScoresNetwork(expert)
    return Pass(network, Condition()), Pass(network, Condition(context=False))


def batched(conditions: Sequence[Condition], query: Query, needs_view: bool) -> tuple[Query, Tensor | None]:
    """Lay P conditions of B rows behind one another: the query of P*B rows, and where (P*B,) to drop the context.

    A context of batch 1 stays one. Only those extras are carried along that networks read.
    """
    batch, count = len(query.x_t), len(conditions)
    context = query.context
    extras = {}
    if needs_view and all(condition.view in context.extras for condition in conditions):
        views = [context.extras[condition.view] for condition in conditions]
        extras[VIEW] = torch.cat([view.expand(batch, *view.shape[1:]) for view in views])
    if ABSOLUTE_POSE in context.extras:
        extras[ABSOLUTE_POSE] = repeated(context.extras[ABSOLUTE_POSE], count)
    context = Context(
        repeated(context.latents, count),
        repeated(context.poses_xyyaw, count),
        repeated(context.frame_offsets, count),
        extras,
    )
    x_t, t, action, rel_time = (
        torch.cat([tensor] * count) for tensor in (query.x_t, query.t, query.action, query.rel_time)
    )
    dropped = torch.tensor([not condition.context for condition in conditions], device=x_t.device)
    drop = None if all(condition.context for condition in conditions) else dropped.repeat_interleave(batch)
    return Query(x_t, t, context, action, rel_time), drop


def repeated(tensor: Tensor, count: int) -> Tensor:
    """Return ``count`` copies of a tensor (B, ...) behind one another; one row is shared by all and stays one."""
    return tensor if tensor.shape[0] == 1 or count == 1 else torch.cat([tensor] * count)


def schedule_digest(alphas_cumprod: NDArray[np.floating[Any]] | Tensor) -> str:
    """Return a short name (16 hexadecimal digits) of a noise schedule; equal for schedules equal to nine digits."""
    values = np.asarray(alphas_cumprod, dtype=np.float64).round(9) + 0.0
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]
