"""The sequence denoiser: a transformer over frames, each with its own noise level, causal in time.

A frame with noise level -1 is one that was seen: clean. Frames are told their pose in the frame of the sequence's first
one, and the motion since the frame before, by AdaLN as the noise level is; the pose is added to their tokens as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from come_nav.core.checks import check_shape
from come_nav.experts.embeddings import PatchEmbedder, ScalarEmbedder, unpatchify
from come_nav.experts.layers import layer_norm
from come_nav.experts.sequence.mixers import Kept, local_mixer, memory_mixer
from come_nav.experts.sequence.settings import SequenceSettings

CLEAN = -1  # noise level of a frame that was seen
SUBLAYERS = 3  # memory, local attention, MLP
FIRST_POSE_SPREAD = 1.4  # of what a pose adds to a token, against about 0.7 of what is seen and 1 of the place in it
ACTION_GAIN = 4.0  # moves from frame to frame are fractions of a unit


@dataclass(frozen=True)
class SequenceState:
    """What is kept of the frames of a sequence that were seen.

    Attributes:
        layers: for each layer what its memory and its local attention keep.
        frames: how many were seen.
    """

    layers: tuple[tuple[Kept, Kept], ...]
    frames: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        tensors = [tensor for layer in self.layers for kept in layer for tensor in kept.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def expanded(self, batch: int) -> SequenceState:
        """Return the state of one sequence for a batch of so many continuations of it."""

        def rows(tensor: Tensor) -> Tensor:
            return tensor.unsqueeze(0).expand(batch, *tensor.shape).flatten(0, 1)

        def of_all(kept: Kept) -> Kept:
            return {name: rows(own) for name, own in kept.items()}

        layers = tuple((of_all(memory), of_all(local)) for memory, local in self.layers)
        return SequenceState(layers, self.frames)


class SequenceLayer(nn.Module):
    """Memory, local attention and MLP, each shifted, scaled and gated by the frame's condition (AdaLN)."""

    def __init__(self, settings: SequenceSettings, layer: int) -> None:
        super().__init__()
        width, inner = settings.hidden_size, int(settings.hidden_size * settings.mlp_ratio)
        self.memory = memory_mixer(settings, layer)
        self.local = local_mixer(settings)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.condition = nn.Linear(width, 3 * SUBLAYERS * width)
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        kept: tuple[Kept, Kept] | None,
        first_frame: int,
        places: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Kept, Kept]]:
        """Return tokens (B, T, L, width) under conditions (B, T, width), and what is kept."""
        parts = self.condition(condition)[:, :, None].chunk(3 * SUBLAYERS, -1)
        before = kept or (None, None)
        mixed, memory = self.memory(_modulated(tokens, parts[0:2]), before[0], first_frame, places)
        tokens = torch.addcmul(tokens, 1.0 + parts[2], mixed)
        mixed, local = self.local(_modulated(tokens, parts[3:5]), before[1], first_frame)
        tokens = torch.addcmul(tokens, 1.0 + parts[5], mixed)
        mixed = self.narrow(gelu(self.widen(_modulated(tokens, parts[6:8])), approximate="tanh"))
        return torch.addcmul(tokens, 1.0 + parts[8], mixed), (memory, local)

    def empty(self, batch: int, like: Tensor) -> tuple[Kept, Kept]:
        """Return what is kept before the first frame."""
        return self.memory.empty(batch, like), self.local.empty(batch, like)


class SequenceDenoiser(nn.Module):
    """Noisy frames to what is asked of them (noise or velocity), with a memory of the frames before."""

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        self.settings, width = settings, settings.hidden_size
        features = 4 * settings.pose_octaves + 2 * settings.yaw_harmonics  # x and y by octave; yaw
        self.x_embedder = PatchEmbedder(settings.in_channels, width, settings.patch_size)
        nn.init.orthogonal_(self.x_embedder.proj.weight.flatten(1))  # nothing of what is seen is lost at first
        self.place = nn.Parameter(torch.empty(settings.tokens, width))
        nn.init.normal_(self.place)
        self.noise_embedder = ScalarEmbedder(width)
        self.pose_in_tokens = nn.Linear(features, width, bias=False)
        nn.init.normal_(self.pose_in_tokens.weight, std=math.sqrt(2.0 / features) * FIRST_POSE_SPREAD)
        self.place_waves: Tensor | None
        self.register_buffer("place_waves", _place_waves(settings))
        self.motion_embedder = nn.Sequential(nn.Linear(features + 4, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(SequenceLayer(settings, layer) for layer in range(settings.depth))
        self.final_condition = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, settings.patch_size**2 * settings.in_channels)
        for layer in (self.final_condition, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, t: Tensor, poses: Tensor, actions: Tensor, state: SequenceState | None = None
    ) -> tuple[Tensor, SequenceState]:
        """Denoise frames that follow those of ``state``.

        Args:
            x: (B, T, C, h, w) latents, each noisy at its own level.
            t: (B, T) steps of the noise schedule; CLEAN for frames that were seen.
            poses: (B, T, 3) x, y, yaw in the frame of the sequence's first frame, in the normaliser's units.
            actions: (B, T, 3) motion since the frame before, in its base, in the same units; zero for the first.
            state: of the frames before; None = there are none.

        Returns:
            (B, T, C, h, w), and the state with these frames as they are in ``x``.
        """
        size, channels = self.settings.input_size, self.settings.in_channels
        batch, frames = check_shape("x", x, f"B T {channels} {size} {size}").values()
        features = self._pose_features(poses)
        tokens = self.x_embedder(x.flatten(0, 1)).unflatten(0, (batch, frames))
        tokens = tokens + self.place + self.pose_in_tokens(features)[:, :, None]
        condition, places = self._condition(t, features, actions), self._places(poses)
        first = 0 if state is None else state.frames
        kept: list[tuple[Kept, Kept]] = []
        for index, layer in enumerate(self.layers):
            tokens, own = layer(tokens, condition, None if state is None else state.layers[index], first, places)
            kept.append(own)
        shift_scale = self.final_condition(condition)[:, :, None].chunk(2, -1)
        grid = self.head(_modulated(tokens, shift_scale)).flatten(0, 1)
        out = unpatchify(grid, self.settings.grid, self.settings.patch_size)
        return out.unflatten(0, (batch, frames)), SequenceState(tuple(kept), first + frames)

    def start(self, batch: int = 1) -> SequenceState:
        """Return the state before the first frame."""
        like = self.place
        kept = [layer.empty(batch, like) for layer in self.layers if isinstance(layer, SequenceLayer)]
        return SequenceState(tuple(kept), 0)

    def _condition(self, t: Tensor, features: Tensor, actions: Tensor) -> Tensor:
        """Return what each frame is told (B, T, width), behind SiLU."""
        noise = self.noise_embedder(t.flatten() + 1).unflatten(0, t.shape)
        yaw = actions[..., 2:]
        motion = torch.cat([ACTION_GAIN * actions[..., :2], yaw.sin(), yaw.cos() - 1.0], -1).to(features)
        told: Tensor = nn.functional.silu(noise + self.motion_embedder(torch.cat([features, motion], -1)))
        return told

    def _places(self, poses: Tensor) -> Tensor | None:
        """Return cosines and sines (B, T, 2 waves) of poses (B, T, 3) along all waves; None without any."""
        if self.place_waves is None:
            return None
        angles = poses.to(self.place) @ self.place_waves
        return torch.cat([angles.cos(), angles.sin()], -1)

    def _pose_features(self, poses: Tensor) -> Tensor:
        """Return sines and cosines (B, T, 4 octaves + 2 harmonics) of poses (B, T, 3)."""
        settings, poses = self.settings, poses.to(self.place)
        turns = 2.0 * math.pi / settings.pose_wave * 2.0 ** torch.arange(settings.pose_octaves, device=poses.device)
        places = (poses[..., :2, None] * turns.to(poses)).flatten(-2)
        harmonics = torch.arange(1, settings.yaw_harmonics + 1, device=poses.device).to(poses)
        angles = torch.cat([places, poses[..., 2:] * harmonics], -1)
        return torch.cat([angles.sin(), angles.cos()], -1)


def _place_waves(settings: SequenceSettings) -> Tensor | None:
    """Draw waves (3, waves) through x, y [1 / unit] and yaw, whole numbers of turns; None where there are none."""
    if settings.memory != "ssm" or not settings.place_waves:
        return None
    waves = nn.init.normal_(torch.empty(3, settings.place_waves))
    waves[:2] /= settings.place_length
    waves[2] = (settings.place_turns * waves[2]).round()
    return waves


def _modulated(tokens: Tensor, shift_scale: tuple[Tensor, ...]) -> Tensor:
    shift, scale = shift_scale
    return torch.addcmul(shift, layer_norm(tokens), 1.0 + scale)
