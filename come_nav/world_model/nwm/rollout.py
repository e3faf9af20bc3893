"""Frame-by-frame imagination as NWM's planning does it, and two faster ways; counts the network calls of each.

| path | per rollout step and candidate | against the official loop |
|---|---|---|
| pixels | decode, clip, encode all context frames anew, sample their latents | the same |
| moments | decode, clip, encode the new frame once; sample latents from kept moments | the same in distribution |
| latents | nothing: imagined latents go on as they are; the context is sampled once | approximate |

Letters: S candidates, T steps, F context frames.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.types import Context, Imagination
from come_nav.world_model.codec import encode_moments
from come_nav.world_model.model import DiffusionWorldModel

RolloutPath = Literal["pixels", "moments", "latents"]
BYTES_PER_PIXEL_AND_CHANNEL = 24.0  # about six float32 feature maps of the widest image-sized layer live at once
MEMORY_SHARE = 0.4
LARGEST_MICRO_BATCH = 256


@dataclass
class Counts:
    """Network calls, in samples: a batch of 120 counts 120."""

    forwards: int = 0
    encodes: int = 0
    decodes: int = 0


@dataclass
class NwmImaginer:
    """Imaginer protocol over the frames of one window.

    Attributes:
        model: a world model without estimated depth ("latents" works with any).
        images: (F, 3, H, W) context frames in [-1, 1], oldest first.
        poses_xyyaw: (F, 3) their poses in any common frame (NWM models ignore them).
        path: pixels, moments or latents.
        decode: also return the last view as an image.
        sample_latents: draw latents from their posterior, as NWM does; else take the mode.
        counts: network calls so far.
        stride: protocol frames that one step of a rollout covers, as many as NWM's training knows (64 at most); with
            that of a whole path, its end is imagined in one jump. More than 1 is approximate.
    """

    model: DiffusionWorldModel
    images: Tensor
    poses_xyyaw: Tensor | NDArray[Any]
    path: RolloutPath = "latents"
    decode: bool = True
    sample_latents: bool = True
    counts: Counts = field(default_factory=Counts)
    stride: int = 1

    def __post_init__(self) -> None:
        check_choice("rollout path", self.path, get_args(RolloutPath))
        check_range("rollout stride", self.stride, 1)
        if self.path != "latents" and self.model.depth is not None:
            raise ConfigError(f"rollout path '{self.path}' is for models without estimated depth; use 'latents'")
        poses = torch.as_tensor(self.poses_xyyaw, dtype=torch.float64)
        self._context_poses = se2.relative(poses[-1:], poses).float().to(self.model.device)
        self._moments: tuple[Tensor, Tensor] | None = None
        self._context: Context | None = None
        self._steps = len(self.model.sampler.visited(self.model.schedule))

    def imagine(self, poses_xyyaw: Tensor, generator: torch.Generator) -> Imagination:
        """Imagine the view at the end of each candidate (S, T, 3); poses lie one protocol frame apart."""
        frames = check_shape("candidate poses_xyyaw", poses_xyyaw, "S T 3")["T"]
        self._check_stride(frames, self.stride)
        if self.path == "latents":
            latents = self._latent_rollout(poses_xyyaw, generator, self.stride)[:, -1]
            return Imagination(poses_xyyaw, latents, self._decode(latents) if self.decode else None)
        parts = torch.split(poses_xyyaw, self.model.inference.micro_batch)
        found = [self._frame_rollout(part, generator, self.stride, [-1]) for part in parts]
        latents, images = (torch.cat([part[side] for part in found])[:, 0] for side in (0, 1))
        return Imagination(poses_xyyaw, latents, images)

    def views(
        self, poses_xyyaw: Tensor, generator: torch.Generator, stride: int | None = None, keep: Sequence[int] = (-1,)
    ) -> Tensor:
        """Return the images (S, K, 3, H, W) after the steps ``keep`` of a rollout along poses (S, T, 3).

        One step covers ``stride`` poses (default: the imaginer's own); ``keep`` counts steps from 0.
        """
        stride = self.stride if stride is None else stride
        self._check_stride(poses_xyyaw.shape[1], stride)
        if self.path != "latents":
            return self._frame_rollout(poses_xyyaw, generator, stride, keep)[1]
        latents = self._latent_rollout(poses_xyyaw, generator, stride)[:, list(keep)]
        views: Tensor = self._decode(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        return views

    @staticmethod
    def _check_stride(frames: int, stride: int) -> None:
        """Refuse a stride that would leave the end of the path unseen."""
        if frames % stride:
            raise ConfigError(f"rollout stride must divide the {frames} frames of a path, got {stride}")

    # -- latents -----------------------------------------------------------------------------------------------------

    def _latent_rollout(self, poses_xyyaw: Tensor, generator: torch.Generator, stride: int) -> Tensor:
        if self._context is None:
            chance = generator if self.sample_latents else None
            self._context = self.model.context_from_images(self.images, self.poses_xyyaw, generator=chance)
            self.counts.encodes += len(self.images)
        self.counts.forwards += poses_xyyaw.shape[0] * (poses_xyyaw.shape[1] // stride) * self._steps
        return self.model.rollout(self._context, poses_xyyaw, generator, stride)

    # -- pixels and moments ------------------------------------------------------------------------------------------

    def _frame_rollout(
        self, poses_xyyaw: Tensor, generator: torch.Generator, stride: int, keep: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Return latents (S, K, C, h, w) and images (S, K, 3, H, W) of the steps ``keep`` of a rollout in pixels."""
        model, count = self.model, len(poses_xyyaw)
        targets = poses_xyyaw.to(model.device, torch.float32)[:, stride - 1 :: stride]
        wanted = [index % targets.shape[1] for index in keep]
        seen = self._context_poses.expand(count, *self._context_poses.shape)
        window = self._first_window(count)
        newest = torch.zeros_like(targets[:, 0])
        elapsed = torch.full((count,), float(stride), device=model.device)
        offsets = torch.arange(1 - seen.shape[1], 1, dtype=torch.float32, device=model.device).expand(count, -1)
        kept: dict[int, tuple[Tensor, Tensor]] = {}
        for step, target in enumerate(targets.unbind(1)):
            context = Context(self._draw(window, generator), se2.relative(newest[:, None], seen), offsets)
            latents = model.predict(context, se2.relative(newest, target), elapsed, generator)
            self.counts.forwards += count * self._steps
            image = self._decode(latents)
            if step in wanted:
                kept[step] = (latents, image)
            seen, newest = torch.cat([seen[:, 1:], target[:, None]], dim=1), target
            offsets = torch.cat([offsets[:, 1:] - stride, torch.zeros_like(offsets[:, :1])], dim=1)
            if step + 1 < targets.shape[1]:
                window = self._append(window, image)
        return tuple(torch.stack([kept[step][side] for step in wanted], dim=1) for side in (0, 1))  # type: ignore[return-value]

    def _first_window(self, count: int) -> tuple[Tensor, ...]:
        """Return what stands for the context frames: images (S, F, ...) or kept moments (S, F, ...)."""
        images = self.images.to(self.model.device)
        if self.path == "pixels":
            return (images.expand(count, *images.shape),)
        if self._moments is None:
            self._moments = self._encode_moments(images)
        mean, logvar = self._moments
        return mean.expand(count, *mean.shape), logvar.expand(count, *logvar.shape)

    def _draw(self, window: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Return scaled latents (S, F, C, h, w) of the window, drawn anew in every step."""
        if self.path == "pixels":
            flat = window[0].flatten(0, 1)
            mean, logvar = (part.unflatten(0, window[0].shape[:2]) for part in self._encode_moments(flat))
        else:
            mean, logvar = window
        if self.sample_latents:
            noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
            mean = mean + (0.5 * logvar).exp() * noise
        scaled: Tensor = mean * self.model.autoencoder.scaling_factor
        return scaled

    def _append(self, window: tuple[Tensor, ...], image: Tensor) -> tuple[Tensor, ...]:
        news = (image,) if self.path == "pixels" else self._encode_moments(image)
        return tuple(torch.cat([old[:, 1:], new[:, None]], dim=1) for old, new in zip(window, news, strict=True))

    @torch.no_grad()
    def _encode_moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.counts.encodes += len(images)
        mean, logvar = encode_moments(self.model, images)
        return mean, logvar

    def _decode(self, latents: Tensor) -> Tensor:
        self.counts.decodes += len(latents)
        return self.model.decode(latents)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on ``device``."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch uses these anew
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def micro_batch_for(model: DiffusionWorldModel, free: int | None = None) -> int:
    """Return how many candidates to compute at once, from the free memory (bytes) and the model's largest layers.

    The autoencoder's layers at image size need far more than the denoiser's, so they decide.
    """
    settings = model.autoencoder.settings
    channels = max(settings.block_out_channels[0], 3)
    network = model.base.model.settings
    tokens = (network.input_size // network.patch_size) ** 2 * (network.context_size + 4)
    image = BYTES_PER_PIXEL_AND_CHANNEL * channels * settings.image_size**2
    denoiser = 4.0 * tokens * network.hidden_size * (4.0 + network.mlp_ratio)
    available = MEMORY_SHARE * (free_bytes(model.device) if free is None else free)
    return int(min(max(available // max(image, denoiser), 1), LARGEST_MICRO_BATCH))
