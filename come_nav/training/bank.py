"""A bank of latents to draw training windows from: drives through built-in worlds, their branches, and recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from come_nav.core.errors import DataError
from come_nav.core.files import atomic_path
from come_nav.core.geometry import se2
from come_nav.training.sharding import shard

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
        context_images: (B, T, 3, S, S) uint8, None where the bank keeps no images.
        goal_images: (B, G, 3, S, S) uint8 likewise.
        context_depth_m: (B, T, S, S) z-depth in metres, NaN = unknown; None where the bank keeps no depth.
        camera: (B, 4) fx, fy, cx, cy as fractions of the image's width and height, NaN = unknown; None where the bank
            keeps none.
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

    def to(self, device: torch.device | str) -> WindowBatch:
        """Return the batch on ``device``."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return WindowBatch(**{name: value.to(device) for name, value in fields.items() if value is not None})


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
        images: (F, 3, S, S) uint8 pictures of the frames, or None.
        branch_images: (F, Q, 3, S, S) uint8 pictures of the branches, or None.
        depth_m: (F, S, S) float16 z-depth of the frames in metres, NaN = unknown, or None.
        cameras: (D, 4) float32 fx, fy, cx, cy of D cameras as fractions of the image's width and height, NaN = unknown,
            or None.
        camera_index: (F,) camera of each frame, or None.
    """

    latents: torch.Tensor
    poses_xyyaw: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    branch_latents: torch.Tensor
    branch_actions_xyyaw: torch.Tensor
    branch_rel_frames: torch.Tensor
    images: torch.Tensor | None = None
    branch_images: torch.Tensor | None = None
    depth_m: torch.Tensor | None = None
    cameras: torch.Tensor | None = None
    camera_index: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def save(self, path: Path) -> None:
        """Write the bank as one safetensors file, atomically."""
        with atomic_path(path) as temporary:
            fields = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
            save_file({name: value.contiguous() for name, value in fields if value is not None}, temporary)

    @classmethod
    def load(cls, path: Path) -> LatentBank:
        """Read a bank; a damaged file is a DataError that says to delete it."""
        try:
            return cls(**load_file(path))
        except Exception as error:  # safetensors raises its own and TypeErrors for missing keys
            raise DataError(f"{path}: not a readable latent bank ({error}); delete it to have it made again") from error

    @classmethod
    def concatenate(cls, banks: list[LatentBank]) -> LatentBank:
        """Join banks of equal latent shape and branch count; what one of them lacks, the result lacks."""
        sizes = [0, *(len(bank) for bank in banks)]
        starts = {"first": sizes, "last": sizes}
        if all(bank.cameras is not None for bank in banks):
            starts["camera_index"] = [0, *(len(bank.cameras) for bank in banks)]  # type: ignore[arg-type]
        joined: dict[str, torch.Tensor] = {}
        for name in cls.__dataclass_fields__:
            parts = [getattr(bank, name) for bank in banks]
            if any(part is None for part in parts):
                continue
            shifts = accumulate(starts.get(name, [0] * len(sizes)))
            joined[name] = torch.cat(
                [part + shift if shift else part for part, shift in zip(parts, shifts, strict=False)]
            )
        return cls(**joined)

    def sample(
        self, sampling: Sampling, batch_size: int, generator: torch.Generator, rows: slice = slice(None)
    ) -> WindowBatch:
        """Draw ``batch_size`` contexts with goals; the same generator state gives the same batch.

        Only ``rows`` of the batch are gathered and returned: the share of one process of several.
        """
        frames = torch.arange(len(self))
        usable = frames[(frames - self.first >= sampling.context_frames - 1) & (self.last > frames)]
        if len(usable) == 0:
            raise DataError(f"the drives are shorter than {sampling.context_frames + 1} frames: record longer ones")
        newest = usable[torch.randint(len(usable), (batch_size,), generator=generator)]
        goals = self._goals(newest, sampling, generator)[rows]
        newest = newest[rows]
        offsets = torch.arange(1 - sampling.context_frames, 1)
        context = newest[:, None] + offsets
        base = self.poses_xyyaw[newest][:, None]
        actions, rel_frames = self._goal_poses(newest, goals)
        return WindowBatch(
            self.latents[context].float(),
            se2.relative(base, self.poses_xyyaw[context]),
            offsets.float().expand(len(newest), -1),
            _pick(self.latents, self.branch_latents, newest, goals).float(),
            actions,
            rel_frames.float(),
            None if self.images is None else self.images[context],
            None
            if self.images is None or self.branch_images is None
            else _pick(self.images, self.branch_images, newest, goals),
            None if self.depth_m is None else self.depth_m[context].float(),
            None if self.cameras is None or self.camera_index is None else self.cameras[self.camera_index[newest]],
        )

    def _goals(self, newest: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> Goals:
        shape = (len(newest), sampling.goals_per_context)
        reach = sampling.max_offset_frames
        offset = torch.randint(-reach, reach + 1, shape, generator=generator)
        first, last = self.first[newest][:, None], self.last[newest][:, None]
        frame = torch.minimum(torch.maximum(newest[:, None] + offset, first), last)
        branches = self.branch_latents.shape[1]
        if branches == 0:
            return Goals(frame, torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool))
        use_branch = torch.rand(shape, generator=generator) < sampling.branch_fraction
        return Goals(frame, torch.randint(branches, shape, generator=generator), use_branch)

    def _goal_poses(self, newest: torch.Tensor, goals: Goals) -> tuple[torch.Tensor, torch.Tensor]:
        actions = se2.relative(self.poses_xyyaw[newest][:, None], self.poses_xyyaw[goals.frame])
        rel_frames = goals.frame - newest[:, None]
        if self.branch_latents.shape[1] == 0:
            return actions, rel_frames
        rows = newest[:, None]
        return (
            torch.where(goals.use_branch[..., None], self.branch_actions_xyyaw[rows, goals.branch], actions),
            torch.where(goals.use_branch, self.branch_rel_frames[rows, goals.branch], rel_frames),
        )


@dataclass(frozen=True)
class Goals:
    """Goals (B, G): ``frame`` of the bank, or where ``use_branch`` that ``branch`` of the newest context frame."""

    frame: torch.Tensor
    branch: torch.Tensor
    use_branch: torch.Tensor

    def __getitem__(self, rows: slice) -> Goals:
        return Goals(self.frame[rows], self.branch[rows], self.use_branch[rows])


def _pick(frames: torch.Tensor, branches: torch.Tensor, newest: torch.Tensor, goals: Goals) -> torch.Tensor:
    """Return (B, G, ...) of frames (F, ...) or of branches (F, Q, ...) at the newest context frame."""
    picked = frames[goals.frame]
    if goals.use_branch.any():
        row, slot = goals.use_branch.nonzero(as_tuple=True)
        picked[row, slot] = branches[newest[row], goals.branch[row, slot]]
    return picked


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Return images in [-1, 1] as uint8, as the bank keeps them."""
    return images.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def from_uint8(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images of a bank as float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


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
    """Batches for steps ``start`` .. ``stop`` of a run; batch k depends only on (seed, k).

    ``batch_size`` is the total of ``world_size`` processes; process ``rank`` gets its share of the one draw.
    """

    def __init__(
        self,
        bank: LatentBank,
        sampling: Sampling,
        batch_size: int,
        seed: int,
        start: int,
        stop: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.bank, self.sampling, self.batch_size = bank, sampling, batch_size
        self.seed, self.start, self.stop = seed, start, stop
        self.rows = shard(batch_size, rank, world_size)

    def __iter__(self) -> Iterator[WindowBatch]:
        for step in range(self.start, self.stop):
            yield self.bank.sample(self.sampling, self.batch_size, step_generator(self.seed, 1, step), self.rows)
