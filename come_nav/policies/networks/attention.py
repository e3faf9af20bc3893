"""Self-attention over image tokens, as ViNT and NoMaD have it: pre-norm, GELU, sinusoidal positions."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (256, 128, 64, 32)


class PositionalEncoding(nn.Module):
    """Adds sines and cosines of the token's position."""

    pos_enc: Tensor

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        position = torch.arange(tokens, dtype=torch.float)[:, None]
        frequency = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
        table = torch.zeros(1, tokens, width)
        table[0, :, 0::2] = torch.sin(position * frequency)
        table[0, :, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pos_enc", table)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (B, N, C) with their positions."""
        return x + self.pos_enc[:, : x.shape[1]]


def attention_layer(width: int, heads: int, ff_factor: int) -> nn.TransformerEncoderLayer:
    """Return one layer. The networks keep the layer that their stack is copied from: its tensors are in the files."""
    return nn.TransformerEncoderLayer(
        width, heads, ff_factor * width, activation="gelu", batch_first=True, norm_first=True
    )


class TokenDecoder(nn.Module):
    """ViNT's head: attention over all tokens, then a chain of linear layers with ReLU to 32 numbers."""

    def __init__(self, width: int, tokens: int, heads: int, layers: int, ff_factor: int) -> None:
        super().__init__()
        self.positional_encoding = PositionalEncoding(width, tokens)
        self.sa_layer = attention_layer(width, heads, ff_factor)
        self.sa_decoder = nn.TransformerEncoder(self.sa_layer, layers, enable_nested_tensor=False)
        sizes = (tokens * width, width, *WIDTHS)
        self.output_layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, 32) of tokens (B, N, C)."""
        x: Tensor = self.sa_decoder(self.positional_encoding(tokens)).flatten(start_dim=1)
        for layer in self.output_layers:
            x = functional.relu(layer(x))
        return x
