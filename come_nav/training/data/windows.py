"""Training batches: contexts, goals, and where asked the images, depth and camera that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

Encode = Callable[[torch.Tensor], torch.Tensor]  # images (B, 3, H, W) in [-1, 1] -> latents (B, C, h, w)
PAST_STRIDE = 2  # of the pixels that are kept of frames before the context
Rows = slice | torch.Tensor  # which rows of a batch: a range, or indices (R,)


@dataclass(frozen=True)
class PastFrames:
    """N frames before each of B contexts, oldest first; those that are not there repeat the drive's first.

    Of their pixels every second one of every second row is kept: thirty frames show more than enough points.

    Attributes:
        latents: (B, N, C, h, w) float16.
        poses_xyyaw: (B, N, 3) in the newest context frame's base.
        frame_offsets: (B, N) in frames before the newest context frame, < 0.
        known: (B, N) bool.
        images: (B, N, 3, S / 2, S / 2) uint8, or None.
        depth_m: (B, N, S / 2, S / 2) float16 z-depth in metres, NaN = unknown, or None.
        measured: (B, N, S / 2, S / 2) uint8 where it was measured, or None.
        T_base_camera: (B, N, 4, 4), or None.
    """

    latents: torch.Tensor
    poses_xyyaw: torch.Tensor
    frame_offsets: torch.Tensor
    known: torch.Tensor
    images: torch.Tensor | None = None
    depth_m: torch.Tensor | None = None
    measured: torch.Tensor | None = None
    T_base_camera: torch.Tensor | None = None

    def newest(self, count: int) -> PastFrames:
        """Return the newest ``count`` frames."""
        return self.mapped(lambda own: own[:, own.shape[1] - count :])

    def mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> PastFrames:
        """Return the frames with ``function`` of every tensor."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return PastFrames(**{name: function(value) for name, value in own.items() if value is not None})

    @classmethod
    def joined(cls, parts: Sequence[PastFrames], order: torch.Tensor) -> PastFrames:
        """Return the rows of all ``parts`` in ``order``; what one part lacks, the whole lacks."""
        names = [name for name in cls.__dataclass_fields__ if all(getattr(part, name) is not None for part in parts)]
        device = parts[0].latents.device
        return cls(**{name: torch.cat([getattr(part, name).to(device) for part in parts])[order] for name in names})


@dataclass
class WindowBatch:
    """One training batch. B contexts with G goals each, T context frames.

    Attributes:
        context_latents: (B, T, C, h, w).
        context_poses_xyyaw: (B, T, 3) in the newest context frame's base.
        frame_offsets: (B, T) in frames, 0 for the newest.
        goal_latents: (B, G, C, h, w).
        actions_xyyaw: (B, G, 3) goal poses in the newest context frame's base.
        rel_frames: (B, G) time of the goal in frames.
        context_images: (B, T, 3, S, S) uint8, None where the bank keeps no images.
        goal_images: (B, G, 3, S, S) uint8 likewise.
        context_depth_m: (B, T, S, S) z-depth in metres, NaN = unknown; None where the bank keeps no depth.
        camera: (B, 4) fx, fy, cx, cy as fractions of the image's width and height, NaN = unknown; None where the bank
            keeps none.
        goal_memory: (B, G, 5 or 7, S, S) uint8 what a spatial memory shows at the goals (a packed
            world_model.reprojection.RenderedView); None where there is none.
        goal_latent_memory: (B, G, C + 4, h, w) what a memory of latents shows at the goals; None where there is none.
        T_base_camera: (B, T, 4, 4) extrinsics of the context frames, NaN = unknown; None where the bank keeps none.
        context_measured: (B, T, S, S) uint8 where ``context_depth_m`` was measured; None where the bank keeps none.
        older: frames before the context; None where not asked for.
    """

    context_latents: torch.Tensor
    context_poses_xyyaw: torch.Tensor
    frame_offsets: torch.Tensor
    goal_latents: torch.Tensor
    actions_xyyaw: torch.Tensor
    rel_frames: torch.Tensor
    context_images: torch.Tensor | None = None
    goal_images: torch.Tensor | None = None
    context_depth_m: torch.Tensor | None = None
    camera: torch.Tensor | None = None
    goal_memory: torch.Tensor | None = None
    goal_latent_memory: torch.Tensor | None = None
    T_base_camera: torch.Tensor | None = None
    context_measured: torch.Tensor | None = None
    older: PastFrames | None = None

    def __len__(self) -> int:
        return len(self.context_latents)

    def to(self, device: torch.device | str) -> WindowBatch:
        """Return the batch on ``device``."""
        return self.mapped(lambda own: own.to(device))

    def pin_memory(self) -> WindowBatch:
        """Return the batch in page-locked memory, for fast copies to a GPU."""
        return self.mapped(lambda own: own.pin_memory())

    def mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> WindowBatch:
        """Return the batch with ``function`` of every tensor."""
        older = None if self.older is None else self.older.mapped(function)
        return WindowBatch(**{name: function(value) for name, value in self._tensors().items()}, older=older)

    @classmethod
    def joined(cls, parts: Sequence[WindowBatch], order: torch.Tensor) -> WindowBatch:
        """Return the contexts of all ``parts`` in ``order`` (B,) indices; what one part lacks, the batch lacks.

        Extrinsics of a part that has none are unknown, not lost to the others.
        """
        parts = _with_extrinsics(parts)
        common = set.intersection(*(set(part._tensors()) for part in parts))
        device = parts[0].context_latents.device
        fields = {name: torch.cat([getattr(p, name).to(device) for p in parts])[order] for name in common}
        older = [part.older for part in parts if part.older is not None]
        return cls(**fields, older=PastFrames.joined(older, order) if len(older) == len(parts) else None)

    def _tensors(self) -> dict[str, torch.Tensor]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "older"}
        return {name: value for name, value in fields.items() if value is not None}


def _with_extrinsics(parts: Sequence[WindowBatch]) -> Sequence[WindowBatch]:
    """Return the parts with extrinsics of NaN where they have none, if any part has them."""
    if all(part.T_base_camera is None for part in parts):
        return parts
    return [
        replace(part, T_base_camera=part.context_latents.new_full((*part.context_latents.shape[:2], 4, 4), torch.nan))
        if part.T_base_camera is None
        else part
        for part in parts
    ]


def step_generator(seed: int, stream: int, step: int) -> torch.Generator:
    """Return a CPU generator that depends only on its arguments, so that a resumed run draws the same numbers."""
    generator = torch.Generator()
    generator.manual_seed((seed * 1_000_003 + stream * 7_919 + step * 104_729 + 12_345) % (2**63 - 1))
    return generator
