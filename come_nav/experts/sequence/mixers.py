"""What carries from frame to frame: a state-space scan per spatial block, or attention to a band of frames.

Tokens are (B, T, L, width): T frames of L tokens, row by row. A mixer is given what it kept of the frames before, and
returns what it keeps of them and of these; nothing of a later frame reaches an earlier one.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from come_nav.experts.layers import attend
from come_nav.experts.sequence.scan import scan_chunks, scan_steps
from come_nav.experts.sequence.settings import SequenceSettings

Kept = dict[str, Tensor]
Band = Literal["window", "chunks", "full"]
STEPS_BELOW = 8  # tokens of a scan that are taken one by one
FIRST_STEP_SIZE = 0.1
FIRST_LOOKS = 0.1  # of what a token looks like in the gate, and in what writes and reads beside where it stands
OPEN_GATE = 1.2784645  # where SiLU is 1
FIRST_GAIN = 2.0  # of keys and of queries: among hundreds of tokens one that is alike gets most of the attention
FULL_QUERY_FRAMES = 16  # frames whose queries are answered at once; a shorter band than that decides itself


class SsmMixer(nn.Module):
    """Mamba-2 layer that scans each block of tokens through time by itself, and keeps a state for each block.

    What writes to the state and reads from it (b, c) is normalised, as keys and queries of the attention here are, and
    has no SiLU, which would make all of it alike; what is written (x) has none either, and is read as it was. With
    ``place_waves`` the layer is told where each frame stands as well.
    """

    def __init__(self, settings: SequenceSettings, layer: int) -> None:
        super().__init__()
        width, heads = settings.hidden_size, settings.num_heads
        self.grid, self.block = settings.grid, settings.block_size(layer)
        self.heads, self.state_size, self.chunk = heads, settings.state_size, settings.scan_chunk
        self.conv_width = settings.conv_width
        self.sizes = [width, width, self.state_size, self.state_size, heads]  # gate, x, b, c, dt
        self.inner = width + 2 * self.state_size
        self.in_proj = nn.Linear(width, sum(self.sizes), bias=False)
        self.gate_bias = nn.Parameter(torch.full((width,), OPEN_GATE))
        self.out_proj = nn.Linear(width, width, bias=False)
        with torch.no_grad():  # at first a token reads what was written by those that are like it, and adds it as it is
            gate, passed, written, read, _ = self.in_proj.weight.split(self.sizes)
            gate.mul_(FIRST_LOOKS)
            self.out_proj.weight.copy_(nn.init.orthogonal_(passed).T)
            if settings.place_waves:  # and those that stand where it stands, whatever they look like
                written.mul_(FIRST_LOOKS)
            read.copy_(written)
        self.writes_at = self.reads_at = None
        if settings.place_waves:
            self.writes_at, self.reads_at = (
                nn.Linear(2 * settings.place_waves, self.state_size, bias=False) for _ in range(2)
            )
            with torch.no_grad():
                nn.init.orthogonal_(self.writes_at.weight)
                self.reads_at.weight.copy_(self.writes_at.weight)
        if self.conv_width:
            weight = torch.zeros(self.conv_width, self.inner)
            weight[-1] = 1.0  # at first every token is passed on as it is
            self.conv_weight = nn.Parameter(weight)
            self.conv_bias = nn.Parameter(torch.zeros(self.inner))
        rates = torch.logspace(math.log10(settings.fastest_decay), math.log10(settings.slowest_decay), heads)
        self.log_rate = nn.Parameter(rates.log())
        self.dt_bias = nn.Parameter(torch.full((heads,), math.log(math.expm1(FIRST_STEP_SIZE))))
        self.skip = nn.Parameter(torch.ones(heads))
        self.norm_b, self.norm_c = nn.RMSNorm(self.state_size), nn.RMSNorm(self.state_size)
        self.norm = nn.RMSNorm(width)

    def forward(
        self, tokens: Tensor, kept: Kept | None, first_frame: int, places: Tensor | None = None
    ) -> tuple[Tensor, Kept]:
        """Return tokens (B, T, L, width) and what is kept: each block's state and last inputs.

        ``places`` (B, T, 2 waves) tell where each frame stands; nothing where there are no waves.
        """
        batch, frames = tokens.shape[:2]
        gate, x, b, c, dt = self._in_blocks(self.in_proj(tokens)).split(self.sizes, -1)
        mixed = torch.cat([x, b, c], -1)
        kept = kept or {}
        keep: Kept = {}
        if self.conv_width:
            mixed, keep["conv"] = self._convolved(mixed, kept.get("conv"))
        x, b, c = mixed.split(self.sizes[1:4], -1)
        x, step = x.unflatten(-1, (self.heads, -1)), softplus(dt + self.dt_bias)
        if self.writes_at is not None and self.reads_at is not None and places is not None:
            b, c = b + self._of_tokens(self.writes_at(places)), c + self._of_tokens(self.reads_at(places))
        b, c, rate = self.norm_b(b), self.norm_c(c), -self.log_rate.exp()
        if x.shape[1] < STEPS_BELOW:
            y, keep["state"] = scan_steps(x, step, rate, b, c, kept.get("state"))
        else:
            y, keep["state"] = scan_chunks(x, step, rate, b, c, kept.get("state"), self.chunk)
        y = (y + self.skip[:, None] * x).flatten(2)
        return self._in_frames(self.out_proj(self.norm(y * silu(gate + self.gate_bias))), batch, frames), keep

    def empty(self, batch: int, like: Tensor) -> Kept:
        """Return what is kept before the first frame."""
        blocks = batch * (self.grid // self.block) ** 2
        width = self.sizes[0]
        keep = {"state": like.new_zeros(blocks, self.heads, width // self.heads, self.state_size)}
        if self.conv_width:
            keep["conv"] = like.new_zeros(blocks, self.conv_width - 1, self.inner)
        return keep

    def _convolved(self, mixed: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the causal convolution of (B', L', inner) and its last inputs."""
        reach, length = self.conv_width - 1, mixed.shape[1]
        if before is None:
            before = mixed.new_zeros(len(mixed), reach, self.inner)
        whole = torch.cat([before, mixed], 1)
        total = self.conv_bias.expand_as(mixed)
        for index in range(self.conv_width):
            total = torch.addcmul(total, whole[:, index : index + length], self.conv_weight[index])
        return total, whole[:, length:]

    def _of_tokens(self, frames: Tensor) -> Tensor:
        """(B, T, N) of frames -> (B * blocks, T * tokens of a block, N)."""
        own = frames.repeat_interleave(self.block**2, 1)
        return own.repeat_interleave((self.grid // self.block) ** 2, 0)

    def _in_blocks(self, tokens: Tensor) -> Tensor:
        """(B, T, L, width) -> (B * blocks, T * tokens of a block, width), in time, then row by row in the block."""
        batch, frames, _, width = tokens.shape
        side = self.grid // self.block
        cells = tokens.reshape(batch, frames, side, self.block, side, self.block, width)
        return cells.permute(0, 2, 4, 1, 3, 5, 6).reshape(batch * side * side, -1, width)

    def _in_frames(self, scanned: Tensor, batch: int, frames: int) -> Tensor:
        """Undo :meth:`_in_blocks`."""
        side, width = self.grid // self.block, scanned.shape[-1]
        cells = scanned.reshape(batch, side, side, frames, self.block, self.block, width)
        return cells.permute(0, 3, 1, 4, 2, 5, 6).reshape(batch, frames, -1, width)


class BandAttention(nn.Module):
    """Attention of every token to those of its own frame and of a band of frames before it; nothing tells their age.

    Bands: "window": the newest ``reach`` frames, its own among them; "chunks": its own chunk of ``reach`` frames up to
    itself, and the chunk before; "full": all. Keys and queries are normalised (QK norm), each head with its own gains.
    """

    def __init__(self, settings: SequenceSettings, band: Band, reach: int = 1) -> None:
        super().__init__()
        width = settings.hidden_size
        self.heads, self.tokens, self.band, self.reach = settings.num_heads, settings.tokens, band, reach
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q, self.norm_k = nn.RMSNorm(width // self.heads), nn.RMSNorm(width // self.heads)
        with torch.no_grad():  # at first a token looks at those that are like it
            query, key, _ = self.qkv.weight.chunk(3)
            query.copy_(key)
            for norm in (self.norm_q, self.norm_k):
                norm.weight.fill_(FIRST_GAIN)
        self.out_proj = nn.Linear(width, width, bias=False)
        with torch.no_grad():  # at first what is looked at is added as it is
            value = nn.init.orthogonal_(self.qkv.weight.chunk(3)[2])
            self.out_proj.weight.copy_(value.T)

    @property
    def kept_frames(self) -> int | None:
        """Frames whose keys and values are kept; None = all."""
        return None if self.band == "full" else self.reach - 1 if self.band == "window" else 2 * self.reach - 1

    def forward(
        self, tokens: Tensor, kept: Kept | None, first_frame: int, places: Tensor | None = None
    ) -> tuple[Tensor, Kept]:
        """Return tokens (B, T, L, width) and the keys and values that later frames may look at."""
        batch, frames, count, _ = tokens.shape
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5)
        query, key = self.norm_q(query), self.norm_k(key)  # (B, heads, T, L, d)
        start = first_frame
        if kept is not None:
            key, value = torch.cat([kept["key"], key], 2), torch.cat([kept["value"], value], 2)
            start -= kept["key"].shape[2]
        step = max(self.reach, FULL_QUERY_FRAMES)
        answers = [
            self._attended(query[:, :, low : low + step], key, value, first_frame + low, start)
            for low in range(0, frames, step)
        ]
        attended = torch.cat(answers, 2).permute(0, 2, 3, 1, 4).reshape(batch, frames, count, -1)
        mixed: Tensor = self.out_proj(attended)
        return mixed, {"key": self._newest(key), "value": self._newest(value)}

    def empty(self, batch: int, like: Tensor) -> Kept:
        """Return what is kept before the first frame: places for all frames of the band, which are never looked at."""
        width = self.out_proj.in_features
        shape = (batch, self.heads, self.kept_frames or 0, self.tokens, width // self.heads)
        return {"key": like.new_zeros(shape), "value": like.new_zeros(shape)}

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, first: int, start: int) -> Tensor:
        """Answer queries (B, heads, t, L, d) of frames from ``first`` on; the first key is of frame ``start``."""
        frames, count = query.shape[2:4]
        lowest = max(self._lowest(first), start, 0)
        part = slice(lowest - start, first + frames - start)
        keys, values = key[:, :, part].flatten(2, 3), value[:, :, part].flatten(2, 3)
        mask = self._allowed(first, frames, lowest, query.device).repeat_interleave(count, 0)
        mask = mask.repeat_interleave(count, 1)
        answer: Tensor = attend(query.flatten(2, 3), keys, values, mask)
        apart: Tensor = answer.unflatten(2, (frames, count))
        return apart

    def _lowest(self, frame: int) -> int:
        """Return the first frame that ``frame`` may look at."""
        if self.band == "full":
            return 0
        return frame - self.reach + 1 if self.band == "window" else (frame // self.reach - 1) * self.reach

    def _allowed(self, first: int, frames: int, lowest: int, device: torch.device) -> Tensor:
        """Return which frames (t,) look at which frames from ``lowest`` on (s,): bool (t, s)."""
        own = torch.arange(first, first + frames, device=device)[:, None]
        other = torch.arange(lowest, first + frames, device=device)[None]
        if self.band == "full":
            return other <= own
        if self.band == "window":
            return (other <= own) & (own - other < self.reach)
        return (other <= own) & (own // self.reach - other // self.reach <= 1)

    def _newest(self, kept: Tensor) -> Tensor:
        """Return the keys or values (B, heads, s, L, d) of the frames that are kept; as many as there are places."""
        most = self.kept_frames
        if most is None:
            return kept
        missing = most - kept.shape[2]
        if missing > 0:
            kept = torch.cat([kept.new_zeros(*kept.shape[:2], missing, *kept.shape[3:]), kept], 2)
        return kept[:, :, kept.shape[2] - most :]


def memory_mixer(settings: SequenceSettings, layer: int) -> SsmMixer | BandAttention:
    """Return what a layer remembers with."""
    if settings.memory == "ssm":
        return SsmMixer(settings, layer)
    if settings.memory == "full":
        return BandAttention(settings, "full")
    return BandAttention(settings, "window", settings.window_frames if settings.memory == "window" else 1)


def local_mixer(settings: SequenceSettings) -> BandAttention:
    """Return the local attention that follows what a layer remembers with."""
    if settings.local_frames == 0:
        return BandAttention(settings, "window", 1)
    return BandAttention(settings, "chunks", settings.local_frames // 2)
