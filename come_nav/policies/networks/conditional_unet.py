"""The 1-D U-Net of Diffusion Policy (Chi et al. 2023, arXiv 2303.04137) that predicts the noise of NoMaD's actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

KERNEL, GROUPS, STEP_WIDTH = 3, 8, 256


class StepEmbedding(nn.Module):
    """Sines and cosines of the diffusion step."""

    def forward(self, step: Tensor) -> Tensor:
        """Return (B, 256) of steps (B,)."""
        half = STEP_WIDTH // 2
        frequency = torch.exp(torch.arange(half, device=step.device) * -(math.log(10000) / (half - 1)))
        angle = step[:, None] * frequency[None]
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ConvBlock(nn.Module):
    """Convolution, group normalisation, Mish."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        convolution = nn.Conv1d(channels_in, channels_out, KERNEL, padding=KERNEL // 2)
        self.block = nn.Sequential(convolution, nn.GroupNorm(GROUPS, channels_out), nn.Mish())

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', T) of (B, C, T)."""
        out: Tensor = self.block(x)
        return out


class ConditionalBlock(nn.Module):
    """Two convolution blocks with a skip; the condition shifts (or scales and shifts) what is between them."""

    def __init__(self, channels_in: int, channels_out: int, condition: int, scales: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ConvBlock(channels_in, channels_out), ConvBlock(channels_out, channels_out)])
        self.scales = scales
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, channels_out * (2 if scales else 1)))
        same = channels_in == channels_out
        self.residual_conv = nn.Identity() if same else nn.Conv1d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return (B, C', T) of (B, C, T) under a condition (B, D)."""
        out = self.blocks[0](x)
        embedded = self.cond_encoder(condition)[..., None]
        if self.scales:
            scale, shift = embedded.chunk(2, dim=1)
            out = scale * out + shift
        else:
            out = out + embedded
        result: Tensor = self.blocks[1](out) + self.residual_conv(x)
        return result


class Resampling(nn.Module):
    """Halves or doubles the number of steps."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.conv = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T / 2) or (B, C, 2 T) of (B, C, T)."""
        out: Tensor = self.conv(x)
        return out


class ConditionalUnet1D(nn.Module):
    """Predicts the noise in sequences of actions (B, T, 2); T must be a multiple of 4 for three widths."""

    def __init__(self, numbers: int, condition: int, widths: Sequence[int], scales: bool = False) -> None:
        super().__init__()
        condition += STEP_WIDTH
        pairs = list(zip([numbers, *widths[:-1]], widths, strict=True))

        def block(channels_in: int, channels_out: int) -> ConditionalBlock:
            return ConditionalBlock(channels_in, channels_out, condition, scales)

        wide = 4 * STEP_WIDTH
        self.diffusion_step_encoder = nn.Sequential(
            StepEmbedding(), nn.Linear(STEP_WIDTH, wide), nn.Mish(), nn.Linear(wide, STEP_WIDTH)
        )
        self.mid_modules = nn.ModuleList([block(widths[-1], widths[-1]) for _ in range(2)])
        self.down_modules = nn.ModuleList(
            nn.ModuleList([block(a, b), block(b, b), _halving(b) if index < len(pairs) - 1 else nn.Identity()])
            for index, (a, b) in enumerate(pairs)
        )
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * b, a), block(a, a), _doubling(a)]) for a, b in reversed(pairs[1:])
        )
        self.final_conv = nn.Sequential(ConvBlock(widths[0], widths[0]), nn.Conv1d(widths[0], numbers, 1))

    def forward(self, sample: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the noise (B, T, 2) in ``sample`` (B, T, 2) at diffusion steps (B,) under a condition (B, D)."""
        told = torch.cat([self.diffusion_step_encoder(step), condition], dim=-1)
        x = sample.transpose(1, 2)
        kept = []
        for down in self.down_modules:
            first, second, halve = cast(nn.ModuleList, down)
            x = second(first(x, told), told)
            kept.append(x)
            x = halve(x)
        for middle in self.mid_modules:
            x = middle(x, told)
        for up in self.up_modules:
            first, second, double = cast(nn.ModuleList, up)
            x = double(second(first(torch.cat([x, kept.pop()], dim=1), told), told))
        noise: Tensor = self.final_conv(x).transpose(1, 2)
        return noise


def _halving(channels: int) -> Resampling:
    return Resampling(nn.Conv1d(channels, channels, 3, 2, 1))


def _doubling(channels: int) -> Resampling:
    return Resampling(nn.ConvTranspose1d(channels, channels, 4, 2, 1))
