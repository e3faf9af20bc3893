"""A bank of latents to draw training windows from: drives through built-in worlds, their branches, and recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2

Encode = Callable[[torch.Tensor], torch.Tensor]  # images (B, 3, H, W) in [-1, 1] -> latents (B, C, h, w)


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
    """

    context_latents: torch.Tensor
    context_poses_xyyaw: torch.Tensor
    frame_offsets: torch.Tensor
    goal_latents: torch.Tensor
    actions_xyyaw: torch.Tensor
    rel_frames: torch.Tensor

    def to(self, device: torch.device | str) -> WindowBatch:
        """Return the batch on ``device``."""
        return WindowBatch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass
class LatentBank:
    """Latents of F frames in E drives, and of Q branches per frame.

    Attributes:
        latents: (F, C, h, w) float16.
        poses_xyyaw: (F, 3) float32 in each drive's own fixed frame.
        first: (F,) index of the first frame of the drive that each frame belongs to.
        last: (F,) index of its last frame.
        branch_latents: (F, Q, C, h, w) float16; Q may be 0.
        branch_actions_xyyaw: (F, Q, 3) branch poses in the frame's base.
        branch_rel_frames: (F, Q) time that the branch would have taken.
    """

    latents: torch.Tensor
    poses_xyyaw: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    branch_latents: torch.Tensor
    branch_actions_xyyaw: torch.Tensor
    branch_rel_frames: torch.Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def save(self, path: Path) -> None:
        """Write the bank as one safetensors file, atomically."""
        with atomic_path(path) as temporary:
            save_file({name: getattr(self, name).contiguous() for name in self.__dataclass_fields__}, temporary)

    @classmethod
    def load(cls, path: Path) -> LatentBank:
        """Read a bank; a damaged file is a DataError that says to delete it."""
        try:
            return cls(**load_file(path))
        except Exception as error:  # safetensors raises its own and TypeErrors for missing keys
            raise DataError(f"{path}: not a readable latent bank ({error}); delete it to have it made again") from error

    @classmethod
    def concatenate(cls, banks: list[LatentBank]) -> LatentBank:
        """Join banks of equal latent shape and branch count."""
        starts = [0]
        for bank in banks[:-1]:
            starts.append(starts[-1] + len(bank))
        joined = {
            name: torch.cat([getattr(bank, name) for bank in banks])
            for name in cls.__dataclass_fields__
            if name not in ("first", "last")
        }
        first = torch.cat([bank.first + start for bank, start in zip(banks, starts, strict=True)])
        last = torch.cat([bank.last + start for bank, start in zip(banks, starts, strict=True)])
        return cls(first=first, last=last, **joined)

    def sample(self, sampling: Sampling, batch_size: int, generator: torch.Generator) -> WindowBatch:
        """Draw ``batch_size`` contexts with goals; the same generator state gives the same batch."""
        frames = torch.arange(len(self))
        usable = frames[(frames - self.first >= sampling.context_frames - 1) & (self.last > frames)]
        if len(usable) == 0:
            raise DataError(f"the drives are shorter than {sampling.context_frames + 1} frames: record longer ones")
        newest = usable[torch.randint(len(usable), (batch_size,), generator=generator)]
        offsets = torch.arange(1 - sampling.context_frames, 1)
        context = newest[:, None] + offsets
        base = self.poses_xyyaw[newest][:, None]
        goal_latents, actions, rel_frames = self._goals(newest, sampling, generator)
        return WindowBatch(
            self.latents[context].float(),
            se2.relative(base, self.poses_xyyaw[context]),
            offsets.float().expand(batch_size, -1),
            goal_latents.float(),
            actions,
            rel_frames.float(),
        )

    def _goals(
        self, newest: torch.Tensor, sampling: Sampling, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = (len(newest), sampling.goals_per_context)
        reach = sampling.max_offset_frames
        offset = torch.randint(-reach, reach + 1, shape, generator=generator)
        goal = torch.minimum(
            torch.maximum(newest[:, None] + offset, self.first[newest][:, None]), self.last[newest][:, None]
        )
        latents = self.latents[goal]
        actions = se2.relative(self.poses_xyyaw[newest][:, None], self.poses_xyyaw[goal])
        rel_frames = goal - newest[:, None]
        branches = self.branch_latents.shape[1]
        if branches == 0:
            return latents, actions, rel_frames
        use_branch = torch.rand(shape, generator=generator) < sampling.branch_fraction
        branch = torch.randint(branches, shape, generator=generator)
        rows = newest[:, None].expand(shape)
        latents = torch.where(use_branch[..., None, None, None], self.branch_latents[rows, branch], latents)
        actions = torch.where(use_branch[..., None], self.branch_actions_xyyaw[rows, branch], actions)
        rel_frames = torch.where(use_branch, self.branch_rel_frames[rows, branch], rel_frames)
        return latents, actions, rel_frames


@dataclass(frozen=True)
class Sampling:
    """How windows are drawn from a bank (see DataConfig for the meaning of each)."""

    context_frames: int = 4
    goals_per_context: int = 4
    max_offset_frames: int = 32
    branch_fraction: float = 0.5


def step_generator(seed: int, stream: int, step: int) -> torch.Generator:
    """Return a CPU generator that depends only on its arguments, so that a resumed run draws the same numbers."""
    generator = torch.Generator()
    generator.manual_seed((seed * 1_000_003 + stream * 7_919 + step * 104_729 + 12_345) % (2**63 - 1))
    return generator


class WindowStream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Batches for steps ``start`` .. ``stop`` of a run; batch k depends only on (seed, rank, k)."""

    def __init__(
        self, bank: LatentBank, sampling: Sampling, batch_size: int, seed: int, start: int, stop: int, rank: int = 0
    ) -> None:
        super().__init__()
        self.bank, self.sampling, self.batch_size = bank, sampling, batch_size
        self.seed, self.start, self.stop, self.rank = seed, start, stop, rank

    def __iter__(self) -> Iterator[WindowBatch]:
        for step in range(self.start, self.stop):
            yield self.bank.sample(self.sampling, self.batch_size, step_generator(self.seed, 1 + self.rank, step))
