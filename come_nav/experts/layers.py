"""Layers of CDiT: modulated self-attention, cross-attention with one learned key, MLP (NWM, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, pad, scaled_dot_product_attention

LAYER_NORM_EPS = 1e-6
BLOCK_CHUNKS = 11  # shift, scale, gate of self-attention; shift, scale of context; shift, scale, gate of query; MLP's 3


def layer_norm(tokens: Tensor) -> Tensor:
    """Normalise the last axis without learned scale and shift."""
    return torch.layer_norm(tokens, list(tokens.shape[-1:]), eps=LAYER_NORM_EPS)


def modulate(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return ``tokens * (1 + scale) + shift`` for tokens (B or 1, L, width) and shift, scale (B, width)."""
    return torch.addcmul(shift[:, None], tokens, 1.0 + scale[:, None])


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """(B, L, width) -> (B, heads, L, width / heads)."""
    return tokens.reshape(*tokens.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """(B, heads, L, head width) -> (B, L, width)."""
    return tokens.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor, known: Tensor | None = None) -> Tensor:
    """Return scaled dot-product attention (B, heads, L, width) of queries to the keys that are ``known``, if given.

    Where a CPU trains in bfloat16 it is computed in float32: torch's bfloat16 backward takes 35 ms there for 512 small
    matrices that take 2 ms in float32, more than half of a training step.
    """
    lowered = query.dtype if query.dtype == torch.bfloat16 and query.device.type == "cpu" else None
    if lowered is None or not torch.is_grad_enabled():
        return scaled_dot_product_attention(query, key, value, attn_mask=known)
    with torch.autocast("cpu", enabled=False):
        exact = scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=known)
        return exact.to(lowered)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection to queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend among ``tokens`` (B, L, width)."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(tokens).chunk(3, dim=-1))
        attended: Tensor = self.proj(merge_heads(attend(query, key, value)))
        return attended


class CrossAttention(nn.Module):
    """Multi-head attention to the context and to one learned key and value.

    Parameters have the names and shapes of ``torch.nn.MultiheadAttention(width, heads, add_bias_kv=True)``: the
    learned ``bias_k`` and ``bias_v`` follow the projected keys and values as one more position.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.bias_k = nn.Parameter(torch.empty(1, 1, width))
        self.bias_v = nn.Parameter(torch.empty(1, 1, width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_normal_(self.bias_k)
        nn.init.xavier_normal_(self.bias_v)

    def forward(
        self, tokens: Tensor, context: Tensor, shift: Tensor, scale: Tensor, known: Tensor | None = None
    ) -> Tensor:
        """Attend from ``tokens`` (B, L, width) to the context, modulated by ``shift`` and ``scale`` (B, width).

        ``context`` is (B or 1, N, width); to those ``known`` (B or 1, N), if given.
        """
        if len(context) == 1 and known is None and self._is_cheaper_shared(tokens.shape[1], context.shape[1]):
            return self._shared(tokens, context[0], shift, scale)
        return self._apart(tokens, modulate(context, shift, scale), known)

    def _is_cheaper_shared(self, queries: int, keys: int) -> bool:
        """Say whether :meth:`_shared` multiplies less than :meth:`_apart`, for each candidate."""
        width = self.out_proj.in_features
        apart = 2 * keys * width * width + 2 * queries * keys * width
        return 2 * queries * width * width + 2 * queries * keys * self.heads * width < apart

    def _shared(self, tokens: Tensor, context: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Attend to one context (N, width) for all candidates, without keys and values of their own for each.

        A key is ``W_k ((1 + scale) c + shift) + b``. So its product with a query q is c's with ``(1 + scale) W_k^T q``,
        and what is left is the same for all of the context; likewise the mean of values is that of c, projected.
        """
        batch, length, width = tokens.shape
        heads, size, keys = self.heads, width // self.heads, len(context)
        query = linear(tokens, self.in_proj_weight[:width], self.in_proj_bias[:width])
        query = query.view(batch * length, heads, size).transpose(0, 1) * size**-0.5
        to_key, to_value = (part.view(heads, size, width) for part in self.in_proj_weight[width:].chunk(2))
        constant = linear(shift, self.in_proj_weight[width:], self.in_proj_bias[width:]).view(batch, 1, 2, heads, size)
        key_left, value_left = constant.permute(2, 3, 0, 1, 4).unbind(0)  # each (heads, B, 1, size)
        factor = (1.0 + scale)[:, None]
        towards = torch.bmm(query, to_key).view(heads, batch, length, width) * factor
        scores = towards.flatten(0, 2) @ context.transpose(0, 1)
        learned = self.bias_k.view(heads, 1, 1, size) - key_left
        alone = (query.view(heads, batch, length, size) * learned).sum(-1)  # the score of the learned key
        weights = torch.cat([scores, alone.reshape(-1, 1).to(scores.dtype)], 1).softmax(-1)
        mean = (weights[:, :keys].to(context.dtype) @ context).view(heads, batch, length, width) * factor
        values = torch.bmm(mean.flatten(1, 2), to_value.transpose(1, 2)).view(heads, batch, length, size)
        share = weights[:, keys:].view(heads, batch, length, 1)
        values = values + value_left + share * (self.bias_v.view(heads, 1, 1, size) - value_left)
        attended: Tensor = self.out_proj(values.permute(1, 2, 0, 3).flatten(2))
        return attended

    def _apart(self, tokens: Tensor, context: Tensor, known: Tensor | None) -> Tensor:
        """Attend to ``context`` (B, N, width), modulated for each candidate."""
        width = tokens.shape[-1]
        query = linear(tokens, self.in_proj_weight[:width], self.in_proj_bias[:width])
        key_value = linear(context, self.in_proj_weight[width:], self.in_proj_bias[width:])
        learned = torch.cat([self.bias_k, self.bias_v], dim=-1).to(key_value.dtype)
        key, value = torch.cat([key_value, learned.expand(len(context), 1, -1)], dim=1).chunk(2, dim=-1)
        query, key, value = (split_heads(part, self.heads) for part in (query, key, value))
        mask = None if known is None else pad(known, (0, 1), value=True)[:, None, None]  # the learned key is known
        attended: Tensor = self.out_proj(merge_heads(attend(query, key, value, mask)))
        return attended


class Mlp(nn.Module):
    """Two linear layers with the tanh form of GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform ``tokens`` (..., width) one by one."""
        transformed: Tensor = self.fc2(gelu(self.fc1(tokens), approximate="tanh"))
        return transformed


class CDiTBlock(nn.Module):
    """Self-attention, cross-attention to the context and MLP, each modulated and gated by the condition.

    With ``older_attention``, a cross-attention of its own to frames before the context follows that to the context.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, older_attention: bool = False) -> None:
        super().__init__()
        self.attn = SelfAttention(width, heads)
        self.cttn = CrossAttention(width, heads)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, BLOCK_CHUNKS * width))
        self.mlp = Mlp(width, int(width * mlp_ratio))
        if older_attention:
            self.older_cttn = CrossAttention(width, heads)

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        context_normed: Tensor,
        context_known: Tensor | None = None,
        older: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Update ``tokens`` (B, L, width) for ``condition`` (B, width).

        ``context_normed`` (B or 1, N, width) is the layer-normed context: the same for all blocks; of it, those
        ``context_known`` (B or 1, N) are attended to. ``older`` are layer-normed tokens of frames before it
        (B or 1, M, width) and which of them are there (B or 1, M), for blocks with ``older_attention``.
        """
        chunks = self.adaLN_modulation(condition).chunk(BLOCK_CHUNKS, dim=-1)
        shift_self, scale_self, gate_self, shift_context, scale_context = chunks[:5]
        shift_query, scale_query, gate_cross, shift_mlp, scale_mlp, gate_mlp = chunks[5:]
        tokens = tokens + gate_self[:, None] * self.attn(modulate(layer_norm(tokens), shift_self, scale_self))
        query = modulate(layer_norm(tokens), shift_query, scale_query)
        attended = self.cttn(query, context_normed, shift_context, scale_context, context_known)
        tokens = tokens + gate_cross[:, None] * attended
        if older is not None:
            tokens = tokens + self.older_cttn(query, older[0], shift_context, scale_context, older[1])
        tokens = tokens + gate_mlp[:, None] * self.mlp(modulate(layer_norm(tokens), shift_mlp, scale_mlp))
        return tokens


class FinalLayer(nn.Module):
    """Modulated projection of tokens to the values of their patches."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Project ``tokens`` (B, L, width) to (B, L, values)."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        values: Tensor = self.linear(modulate(layer_norm(tokens), shift, scale))
        return values
