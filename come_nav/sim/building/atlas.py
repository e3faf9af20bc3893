"""One image that holds every texture with its mip levels, sampled bilinearly with a single ``grid_sample``."""

from __future__ import annotations

import torch
import torch.nn.functional as nnf

from come_nav.sim.building.textures import TEXTURE_SIZE

TILE = TEXTURE_SIZE + 2  # one texel of wrapped border on each side
LEVELS = 6  # down to 2 x 2 texels


def level_offset(level: torch.Tensor) -> torch.Tensor:
    """Return the column where mip ``level`` starts: the sum of the widths (size + 2) of the levels before it."""
    return 2.0 * TEXTURE_SIZE * (1.0 - torch.exp2(-level)) + 2.0 * level


ATLAS_WIDTH = int(2 * TEXTURE_SIZE * (1 - 0.5**LEVELS) + 2 * LEVELS)


def build_atlas(textures: torch.Tensor) -> torch.Tensor:
    """Lay textures (M, 3, S, S) out as an atlas (1, 3, M * 66, 138): one strip each, mip levels side by side."""
    count = textures.shape[0]
    strips = torch.zeros(count, 3, TILE, ATLAS_WIDTH, device=textures.device)
    column, level = 0, textures
    for _ in range(LEVELS):
        size = level.shape[-1]
        strips[:, :, : size + 2, column : column + size + 2] = nnf.pad(level, (1, 1, 1, 1), mode="circular")
        column += size + 2
        level = nnf.avg_pool2d(level, 2)
    return strips.permute(1, 0, 2, 3).reshape(1, 3, count * TILE, ATLAS_WIDTH).contiguous()


def sample_atlas(
    atlas: torch.Tensor, texture: torch.Tensor, u: torch.Tensor, v: torch.Tensor, level: torch.Tensor
) -> torch.Tensor:
    """Return colours (B, 3, P) of textures (B, P) at (u, v) (B, P), repeating, at integer mip levels (B, P)."""
    size = torch.exp2(6.0 - level)  # 64 texels at level 0
    column = (u - torch.floor(u)).mul_(size).add_(level_offset(level)).add_(1.0)
    row = (v - torch.floor(v)).mul_(size).add_(texture, alpha=float(TILE)).add_(1.0)
    grid = torch.stack([column.mul_(2.0 / atlas.shape[3]).sub_(1.0), row.mul_(2.0 / atlas.shape[2]).sub_(1.0)], -1)
    expanded = atlas.expand(u.shape[0], -1, -1, -1)
    sampled = nnf.grid_sample(expanded, grid[:, None], mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[:, :, 0]
