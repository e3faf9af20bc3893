"""Forward passes that experts ask for, so that a world model computes equal ones once and like ones in one batch.

The four experts of CoME overlap: the long-term expert's untuned side is the base's conditional side, a spatial expert
without its memory is the base again. Each expert therefore says which passes of which network it stands on instead of
running them itself.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.device.transfer import to_device
from come_nav.core.types import Context, ContextViews, ViewSource


@dataclass(frozen=True)
class Condition:
    """What a network is told in one pass.

    Attributes:
        context: the context frames and what they show; False is the null context.
        view: which of ``Context.views`` the network's extra channels take, where it has such channels.
    """

    context: bool = True
    view: ViewSource = ViewSource.CONTEXT


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


@runtime_checkable
class AnyViewExpert(Protocol):
    """An expert whose contrast can be had on top of what another view shows."""

    def through(self, view: ViewSource) -> PassExpert:
        """Return the expert, both of whose sides look at ``view``."""
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


def looks_at(expert: Any, view: ViewSource) -> bool:
    """Return whether one of the expert's two passes looks at ``view``."""
    return any(own.condition.view is view for own in passes_of(expert))


def batched(
    conditions: Sequence[Condition], query: Query, needs_view: bool, apart: bool = False
) -> tuple[Query, Tensor | None]:
    """Lay P conditions of B rows behind one another: the query of P*B rows, and where (P*B,) to drop the context.

    A context of batch 1 stays one. Of its views each row keeps the one that it is to look at; a network whose views
    come ``apart`` is told which of them each row looks at, and frames before the context only where the view says so.
    """
    if apart:
        return _batched_apart(conditions, query)
    batch, count = len(query.x_t), len(conditions)
    views = [query.context.views.of(condition.view) for condition in conditions] if needs_view else []
    shown = [view.expand(batch, *view.shape[1:]) for view in views if view is not None]
    latent = _latent_memory(conditions, query)
    context = query.context.with_views(ContextViews()).tiled(count)
    if len(shown) == count:
        context = context.with_views(ContextViews(torch.cat(shown)))
    return _wide(conditions, query, replace(context, views=replace(context.views, latent_memory=latent)))


def _batched_apart(conditions: Sequence[Condition], query: Query) -> tuple[Query, Tensor | None]:
    batch, count, device = len(query.x_t), len(conditions), query.x_t.device
    views, order = query.context.views, list(ViewSource)
    given = [view is not None for view in (views.context, views.longer, views.memory)]
    looks = [[own and place <= order.index(one.view) for place, own in enumerate(given)] for one in conditions]
    shown = _constant(looks, device).repeat_interleave(batch, 0)
    context = query.context.with_views(replace(views, shown=None, evidence=None, latent_memory=None))
    older = context.older
    if older is not None:
        further = _constant([one.view is not ViewSource.CONTEXT for one in conditions], device)
        known = older.known.expand(batch, -1).repeat(count, 1) & further.repeat_interleave(batch)[:, None]
        older = replace(context.tiled(count).older or older, known=known)
    context = context.tiled(count)
    seen = replace(context.views, shown=shown, latent_memory=_latent_memory(conditions, query))
    return _wide(conditions, query, replace(context, older=older, views=seen))


def _latent_memory(conditions: Sequence[Condition], query: Query) -> Tensor | None:
    """Return the read-out of a memory of latents for P passes of B rows: zero in those that look at no memory."""
    latent, batch = query.context.views.latent_memory, len(query.x_t)
    if latent is None or all(one.view is not ViewSource.MEMORY for one in conditions):
        return None
    rows = latent.expand(batch, *latent.shape[1:])
    return torch.cat([rows if one.view is ViewSource.MEMORY else torch.zeros_like(rows) for one in conditions])


def _wide(conditions: Sequence[Condition], query: Query, context: Context) -> tuple[Query, Tensor | None]:
    batch, count = len(query.x_t), len(conditions)
    x_t, t, action, rel_time = (
        torch.cat([tensor] * count) for tensor in (query.x_t, query.t, query.action, query.rel_time)
    )
    dropped = _constant([not condition.context for condition in conditions], x_t.device)
    drop = None if all(condition.context for condition in conditions) else dropped.repeat_interleave(batch)
    return Query(x_t, t, context, action, rel_time), drop


def _constant(values: Any, device: torch.device) -> Tensor:
    """Return a tensor of few numbers, to a GPU without waiting for what it is at."""
    return to_device(torch.tensor(values), device)


def schedule_digest(alphas_cumprod: NDArray[np.floating[Any]] | Tensor) -> str:
    """Return a short name (16 hexadecimal digits) of a noise schedule; equal for schedules equal to nine digits."""
    values = np.asarray(alphas_cumprod, dtype=np.float64).round(9) + 0.0
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]
