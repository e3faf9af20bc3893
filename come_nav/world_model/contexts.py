"""Contexts of batches: some rows of one, several as one, one for many particles, one that slides along a rollout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from come_nav.core.geometry import se2
from come_nav.core.types import Context
from come_nav.experts.passes import ABSOLUTE_POSE
from come_nav.world_model.reprojection import slide_points


def rows_of(context: Context, rows: slice) -> Context:
    """Return some candidates of a context; a shared context stays whole."""
    if context.latents.shape[0] == 1:
        return context
    extras = {name: value[rows] for name, value in context.extras.items()}
    return Context(context.latents[rows], context.poses_xyyaw[rows], context.frame_offsets[rows], extras)


def joined(contexts: Sequence[Context]) -> Context:
    """Return the contexts, all with the same extras, as one batch."""
    return Context(
        torch.cat([context.latents for context in contexts]),
        torch.cat([context.poses_xyyaw for context in contexts]),
        torch.cat([context.frame_offsets for context in contexts]),
        {name: torch.cat([context.extras[name] for context in contexts]) for name in contexts[0].extras},
    )


def repeat_for_particles(
    context: Context, actions: Tensor, times: Tensor, count: int
) -> tuple[Context, Tensor, Tensor]:
    """Repeat what each candidate is asked for its ``count`` particles, which lie side by side."""
    if count == 1:
        return context, actions, times
    if context.latents.shape[0] > 1:
        index = torch.arange(len(actions)).repeat_interleave(count)
        extras = {name: value[index] if len(value) > 1 else value for name, value in context.extras.items()}
        context = Context(context.latents[index], context.poses_xyyaw[index], context.frame_offsets[index], extras)
    return context, actions.repeat_interleave(count, 0), times.repeat_interleave(count, 0)


def slide(context: Context, latents: Tensor, action_xyyaw: Tensor, elapsed_frames: int) -> Context:
    """Drop the oldest frame, append imagined ones (S, C, h, w) at ``action_xyyaw`` (S, 3) and re-base on them."""
    context = context if context.latents.shape[0] == len(latents) else context.expand(len(latents))
    poses = torch.cat([context.poses_xyyaw[:, 1:], action_xyyaw[:, None]], dim=1)
    relative: Tensor = se2.relative(action_xyyaw[:, None], poses)
    offsets = torch.cat(
        [context.frame_offsets[:, 1:] - elapsed_frames, torch.zeros_like(context.frame_offsets[:, :1])], dim=1
    )
    extras = slide_points(context.extras, action_xyyaw)
    if ABSOLUTE_POSE in extras:
        extras = {**extras, ABSOLUTE_POSE: se2.compose(extras[ABSOLUTE_POSE], action_xyyaw)}
    return Context(torch.cat([context.latents[:, 1:], latents[:, None]], dim=1), relative, offsets, extras)
