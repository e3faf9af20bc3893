"""The state-space scan of Mamba-2 (SSD, arXiv 2405.21060): one recurrence, in chunks for training, in steps for use.

Notation: B batch, L tokens, H heads, P channels of a head, N numbers of state per channel. With a_t = A dt_t <= 0

    S_t = exp(a_t) S_{t-1} + dt_t x_t b_t^T        (B, H, P, N)
    y_t = S_t c_t                                  (B, H, P)

b and c are shared by all heads (one group).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def scan_steps(
    x: Tensor, dt: Tensor, rate: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scan token by token: exact, in constant memory, and slow in Python for long sequences.

    Args:
        x: (B, L, H, P) inputs.
        dt: (B, L, H) step sizes, > 0.
        rate: (H,) A, < 0.
        b: (B, L, N) what is written to the state.
        c: (B, L, N) what is read from it.
        state: (B, H, P, N) before the first token; zero where None.

    Returns:
        y (B, L, H, P) and the state after the last token (B, H, P, N).
    """
    if state is None:
        state = x.new_zeros(x.shape[0], *x.shape[2:], b.shape[-1])
    decay = (dt * rate).exp()
    outputs = []
    for index in range(x.shape[1]):
        written = (dt[:, index, :, None] * x[:, index])[..., None] * b[:, index, None, None, :]
        state = decay[:, index, :, None, None] * state + written
        outputs.append((state * c[:, index, None, None, :]).sum(-1))
    return torch.stack(outputs, 1), state


def scan_chunks(
    x: Tensor, dt: Tensor, rate: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Scan in chunks of ``chunk`` tokens by matrix products; arguments and result are those of :func:`scan_steps`.

    Within a chunk y_i = sum_{j <= i} exp(a_{j+1} + ... + a_i) (c_i . b_j) dt_j x_j, and each chunk starts from the
    state that the one before leaves. What is padded to the last chunk has dt = 0: it writes nothing and lets nothing
    decay.
    """
    batch, length, heads, channels = x.shape
    missing = -length % chunk
    if missing:
        x, dt = pad(x, (0, 0, 0, 0, 0, missing)), pad(dt, (0, 0, 0, missing))
        b, c = pad(b, (0, 0, 0, missing)), pad(c, (0, 0, 0, missing))
    count = (length + missing) // chunk
    shape = (batch, count, chunk)
    written = (dt[..., None] * x).reshape(*shape, heads, channels).permute(0, 1, 3, 2, 4)  # (B, K, H, Q, P)
    b, c = b.reshape(*shape, -1), c.reshape(*shape, -1)
    total = (dt * rate).reshape(*shape, heads).cumsum(2).transpose(2, 3)  # log decay in the chunk, (B, K, H, Q)
    # 1. inside the chunks; later tokens are left out before the exponential, where they would overflow
    ahead = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).triu(1)
    decay = (total[..., :, None] - total[..., None, :]).masked_fill(ahead, -torch.inf).exp()
    inside = (decay * (c @ b.transpose(-1, -2))[:, :, None]) @ written
    # 2. what each chunk adds to the state by its end
    left = (total[..., -1:] - total).exp()
    added = (written * left[..., None]).transpose(-1, -2) @ b[:, :, None]  # (B, K, H, P, N)
    # 3. the state at the start of each chunk
    if state is None:
        state = x.new_zeros(batch, heads, channels, b.shape[-1])
    through = total[..., -1].exp()[..., None, None]
    starts = []
    for index in range(count):
        starts.append(state)
        state = through[:, index] * state + added[:, index]
    # 4. what was there at the start, decayed to each token
    carried = (c[:, :, None] @ torch.stack(starts, 1).transpose(-1, -2)) * total.exp()[..., None]
    y = (inside + carried).permute(0, 1, 3, 2, 4).reshape(batch, count * chunk, heads, channels)
    return y[:, :length], state
