"""Inputs of a CDiT that may be absent, each with its own null: views by source, frames before the context, the camera.

A network that learned with every one of them dropped at random answers any subset; what is absent is not a picture of
zeros but a token, a mask or nothing at all, so that "not given" and "given, and black" differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from come_nav.experts.embeddings import PatchEmbedder

CAMERA_VALUES = 7  # see :func:`camera_values`


@dataclass(frozen=True)
class OptionalInputs:
    """What a network may be told beside context, action and time; a row of None or of "unknown" is told nothing.

    Attributes:
        views: (B, G, E, h, w) views by source (see :class:`come_nav.core.context.ContextViews`).
        shown: (B, G) bool, which of them each row looks at.
        latent_memory: (B, M, h, w) latents that a memory of latents shows, and facts of them; None is all zero.
        older: (B or 1, N, C, h, w) frames before the context, oldest first.
        older_pose: (B or 1, N, P) what ``context_pose`` is for the context.
        older_known: (B or 1, N) bool, which of them are there.
        camera: (B or 1, 7) of :func:`camera_values`, NaN in rows that are not told.
        rays: (B or 1, T * L, 6) of the context's tokens (see :mod:`come_nav.experts.rays`); zero where not told.
        older_rays: (B or 1, N * l, 6) of the tokens of older frames.
        target_rays: (B, L, 6) of the target's tokens.
    """

    views: Tensor | None = None
    shown: Tensor | None = None
    latent_memory: Tensor | None = None
    older: Tensor | None = None
    older_pose: Tensor | None = None
    older_known: Tensor | None = None
    camera: Tensor | None = None
    rays: Tensor | None = None
    older_rays: Tensor | None = None
    target_rays: Tensor | None = None


class ViewGroups(nn.Module):
    """Views of several sources (B, G, E, h, w) to one sum of tokens; an absent one counts as its source's null token.

    All of it starts at zero, so that an untrained network of several sources is the one without any.
    """

    def __init__(self, groups: int, channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.embedders = nn.ModuleList(PatchEmbedder(channels, width, patch_size, bias=False) for _ in range(groups))
        self.null = nn.Parameter(torch.zeros(groups, width))

    def forward(self, views: Tensor, shown: Tensor) -> Tensor:
        """Return tokens (B, L, width) of ``views`` where ``shown`` (B, G)."""
        tokens = [
            torch.where(shown[:, index, None, None], embedder(views[:, index]), self.null[index])
            for index, embedder in enumerate(self.embedders)
        ]
        return torch.stack(tokens).sum(0)

    def absent(self) -> Tensor:
        """Return the token (width,) that stands for no view at all."""
        return self.null.sum(0)


def layer_weights(views: Tensor, shown: Tensor, channels: int) -> Tensor:
    """Return how much each of views (B, G, E, h, w) counts where they lie over one another, (B, G, 1, h, w), sum 1.

    Channel ``channels`` of a view is the share of each cell that it knows: the first source counts as far as it knows
    the cell, the next as far as it knows what is left. What nobody knows is the first shown one's smooth filling.
    """
    known = views[:, :, channels : channels + 1] * shown[:, :, None, None, None]
    left = torch.cumprod(1.0 - known, dim=1)
    weights = known * torch.cat([torch.ones_like(left[:, :1]), left[:, :-1]], dim=1)
    first = shown & (shown.long().cumsum(1) == 1)
    return weights + first[:, :, None, None, None] * left[:, -1:]


class OlderFrames(nn.Module):
    """Frames before the context to tokens: larger patches than the context's, so that many frames stay affordable."""

    def __init__(self, channels: int, width: int, patch_size: int, grid: int) -> None:
        super().__init__()
        self.embedder = PatchEmbedder(channels, width, patch_size)
        self.pos_embed = nn.Parameter(torch.empty((grid // patch_size) ** 2, width))

    def forward(self, latents: Tensor, pose_tokens: Tensor) -> Tensor:
        """Return tokens (B, N * L, width) of latents (B, N, C, h, w) with ``pose_tokens`` (B, N, width) added."""
        tokens: Tensor = self.embedder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        return (tokens + self.pos_embed + pose_tokens[:, :, None]).flatten(1, 2)

    def known(self, frames: Tensor) -> Tensor:
        """Return which tokens (B, N * L) are there, of which frames (B, N) are."""
        return frames.repeat_interleave(len(self.pos_embed), dim=1)


class CameraEmbedder(nn.Module):
    """Camera values (B, 7) to (B, width); a row with NaN gets the learned null. Both start at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(CAMERA_VALUES, width), nn.SiLU(), nn.Linear(width, width))
        self.null = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        """Embed ``values`` (B, 7)."""
        known = torch.isfinite(values).all(dim=1, keepdim=True)
        embedded: Tensor = self.mlp(torch.where(known, values, torch.zeros_like(values)).to(self.null.dtype))
        return torch.where(known, embedded, self.null)


def camera_values(camera: Tensor, T_base_camera: Tensor) -> Tensor:
    """Return (B, 7): half fields of view x, y, offsets of the centre, height, pitch (up > 0), roll (clockwise > 0).

    Args:
        camera: (B or 1, 4) fx, fy, cx, cy as fractions of width and height; NaN = unknown.
        T_base_camera: (B or 1, 4, 4) extrinsics; NaN = unknown.
    """
    rows = max(len(camera), len(T_base_camera))
    camera, T_base_camera = camera.expand(rows, -1), T_base_camera.expand(rows, -1, -1).to(camera)
    half_x, half_y = (torch.atan(0.5 / camera[:, index]) for index in (0, 1))
    pitch = torch.asin(T_base_camera[:, 2, 2].clamp(-1.0, 1.0))  # how far the optical axis rises
    roll = torch.atan2(-T_base_camera[:, 2, 0], -T_base_camera[:, 2, 1])  # zero where the image's right is level
    offsets = camera[:, 2:] - 0.5
    return torch.stack([half_x, half_y, offsets[:, 0], offsets[:, 1], T_base_camera[:, 2, 3], pitch, roll], dim=1)
