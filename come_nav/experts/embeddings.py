"""Embeddings of CDiT: patches, scalars by sinusoids, and the action (Navigation World Models, arXiv 2412.03572)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SINUSOID_WIDTH = 256
LONGEST_PERIOD = 10_000.0


def sinusoid(values: Tensor, width: int = SINUSOID_WIDTH) -> Tensor:
    """Return (B, width) features of scalars (B,): cosines first, then sines, frequencies 10000^(-k / (width/2))."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values.float()[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ScalarEmbedder(nn.Module):
    """Scalars (B,) to (B, width): sinusoid, then two linear layers with SiLU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(SINUSOID_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, values: Tensor) -> Tensor:
        """Embed ``values`` (B,) as they are; scaling is the caller's business."""
        features = sinusoid(values).to(next(self.parameters()).dtype)
        embedded: Tensor = self.mlp(features)
        return embedded


class ActionEmbedder(nn.Module):
    """Actions (B, 3) to (B, width): one scalar embedder each for dx, dy and dyaw, concatenated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        third = width // 3
        self.x_emb = ScalarEmbedder(third)
        self.y_emb = ScalarEmbedder(third)
        self.angle_emb = ScalarEmbedder(width - 2 * third)

    def forward(self, action: Tensor) -> Tensor:
        """Embed normalised actions (B, 3) = (dx, dy, dyaw)."""
        return torch.cat(
            [self.x_emb(action[:, 0]), self.y_emb(action[:, 1]), self.angle_emb(action[:, 2])],
            dim=-1,
        )


class PatchEmbedder(nn.Module):
    """Latent grids (B, C, h, w) to tokens (B, L, width), row by row, by one strided convolution."""

    def __init__(self, channels: int, width: int, patch_size: int, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch_size, stride=patch_size, bias=bias)

    def forward(self, grid: Tensor) -> Tensor:
        """Embed ``grid`` (B, C, h, w)."""
        cells: Tensor = self.proj(grid)
        return cells.flatten(2).transpose(1, 2)


def unpatchify(tokens: Tensor, grid: int, patch: int) -> Tensor:
    """Turn tokens (B, grid*grid, patch*patch*C) back into (B, C, grid*patch, grid*patch)."""
    batch = tokens.shape[0]
    cells = tokens.reshape(batch, grid, grid, patch, patch, -1)
    return cells.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, grid * patch, grid * patch)
