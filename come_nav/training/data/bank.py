"""A bank of latents to draw training windows from: drives through built-in worlds, their branches, and recordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2
from come_nav.training.data.goals import Drives, Goals, GoalSettings, choose_goals, draw_uniforms
from come_nav.training.data.sharding import shard
from come_nav.training.data.windows import PAST_STRIDE, Encode, PastFrames, Rows, WindowBatch, step_generator

__all__ = ["Encode", "GoalSettings", "LatentBank", "WindowBatch", "WindowStream", "step_generator"]


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
        images: (F, 3, S, S) uint8 images of the frames, or None.
        branch_images: (F, Q, 3, S, S) uint8 images of the branches, or None.
        depth_m: (F, S, S) float16 z-depth of the frames in metres, NaN = unknown, or None.
        cameras: (D, 4) float32 fx, fy, cx, cy of D cameras as fractions of the image's width and height, NaN = unknown,
            or None.
        camera_index: (F,) camera of each frame, or None.
        memory: (F, 5, S, S) uint8 what a spatial memory of the time before shows at each frame, or None.
        branch_memory: (F, Q, 5, S, S) uint8 the same at the branches, or None.
        latent_memory: (F, C + 4, h, w) float16 what a memory of latents shows at each frame, or None.
        branch_latent_memory: (F, Q, C + 4, h, w) float16 the same at the branches, or None.
        frame_cameras: (F, 4) float32 each frame's own camera in place of ``cameras``, or None.
        T_base_camera: (F, 4, 4) float32 each frame's extrinsics, NaN = unknown, or None.
        measured: (F, S, S) uint8 where ``depth_m`` was measured and not estimated, or None.
        times: (F,) float32 times of the frames, in frames of the model's rate, or None: one frame apart.
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
    memory: torch.Tensor | None = None
    branch_memory: torch.Tensor | None = None
    latent_memory: torch.Tensor | None = None
    branch_latent_memory: torch.Tensor | None = None
    frame_cameras: torch.Tensor | None = None
    T_base_camera: torch.Tensor | None = None
    measured: torch.Tensor | None = None
    times: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.latents)

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

    @cached_property
    def _usable(self) -> dict[int, torch.Tensor]:
        return {}

    def usable(self, context_frames: int) -> torch.Tensor:
        """Return the frames (U,) that have a full context before them and a frame after them in their stretch.

        Raises:
            DataError: if there is none.
        """
        if context_frames not in self._usable:
            frames = torch.arange(len(self))
            enough = (frames - self.first >= context_frames - 1) & (self.last > frames)
            self._usable[context_frames] = frames[enough]
        usable = self._usable[context_frames]
        if len(usable) == 0:
            raise DataError(f"the drives are shorter than {context_frames + 1} frames: record longer ones")
        return usable

    def sample(
        self, sampling: GoalSettings, batch_size: int, generator: torch.Generator, rows: Rows = slice(None)
    ) -> WindowBatch:
        """Draw ``batch_size`` contexts with goals; the same generator state gives the same batch.

        Only ``rows`` of the batch are gathered and returned: the share of one process of several.
        """
        usable = self.usable(sampling.context_frames)
        newest = usable[torch.randint(len(usable), (batch_size,), generator=generator)]
        uniforms = draw_uniforms(batch_size, sampling, generator)
        return self.windows(newest[rows], sampling, uniforms[rows])

    def windows(self, newest: torch.Tensor, sampling: GoalSettings, uniforms: torch.Tensor) -> WindowBatch:
        """Return the windows whose contexts end at frames ``newest`` (B,); ``uniforms`` (B, G, 2) choose the goals."""
        bound = sampling.max_offset_frames
        branches, sampling = self.branch_latents.shape[1], sampling.of_frames(self._frame_time)
        drives = Drives(self.poses_xyyaw, self.first, self.last)
        goals = choose_goals(drives, newest, branches, sampling, uniforms)
        context = newest[:, None] + torch.arange(1 - sampling.context_frames, 1)
        base = self.poses_xyyaw[newest][:, None]
        actions = se2.relative(base, self.poses_xyyaw[goals.frame])
        rel_frames = goals.rel_frames
        if self.times is not None:
            rel_frames = self._since(newest, goals.frame).clamp(-bound, bound)
        if branches:
            row = newest[:, None]
            actions = torch.where(goals.use_branch[..., None], self.branch_actions_xyyaw[row, goals.branch], actions)
            rel_frames = torch.where(goals.use_branch, self.branch_rel_frames[row, goals.branch], rel_frames)
        device = self.latents.device
        goal_images = None
        if self.images is not None and (self.branch_images is not None or branches == 0):
            goal_images = _pick(self.images, self.branch_images, newest, goals)
        return WindowBatch(
            context_latents=_take(self.latents, context).float(),
            context_poses_xyyaw=se2.relative(base, self.poses_xyyaw[context]).to(device),
            frame_offsets=self._since(newest, context).to(device),
            goal_latents=_pick(self.latents, self.branch_latents, newest, goals).float(),
            actions_xyyaw=actions.to(device),
            rel_frames=rel_frames.float().to(device),
            context_images=None if self.images is None else _take(self.images, context),
            goal_images=goal_images,
            context_depth_m=None if self.depth_m is None else _take(self.depth_m, context).float(),
            camera=self._camera(newest),
            goal_memory=None if self.memory is None else _pick(self.memory, self.branch_memory, newest, goals),
            goal_latent_memory=None
            if self.latent_memory is None
            else _pick(self.latent_memory, self.branch_latent_memory, newest, goals).float(),
            T_base_camera=None if self.T_base_camera is None else _take(self.T_base_camera, context).to(device),
            context_measured=None if self.measured is None else _take(self.measured, context),
            older=self._past(newest, sampling) if sampling.older_frames else None,
        )

    @cached_property
    def _frame_time(self) -> float:
        """Time from one frame to the next, in frames of the model's rate: above 1 where images come more slowly."""
        if self.times is None or len(self) < 2:
            return 1.0
        steps = self.times.diff()[self.first[1:] == self.first[:-1]]
        return max(1.0, float(steps.median())) if len(steps) else 1.0

    def _since(self, newest: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return times (B, N) of frames ``index`` after ``newest`` (B,), in frames of the model's rate."""
        if self.times is None:
            return (index - newest[:, None]).float()
        return self.times[index] - self.times[newest][:, None]

    def _camera(self, newest: torch.Tensor) -> torch.Tensor | None:
        if self.frame_cameras is not None:
            return _take(self.frame_cameras, newest).to(self.latents.device)
        if self.cameras is None or self.camera_index is None:
            return None
        return self.cameras[self.camera_index[newest]].to(self.latents.device)

    def _past(self, newest: torch.Tensor, sampling: GoalSettings) -> PastFrames:
        """Return the frames before the contexts that end at ``newest`` (B,), fewer at the start of a drive."""
        device, count = self.latents.device, sampling.older_frames
        offsets = torch.arange(1 - sampling.context_frames - count, 1 - sampling.context_frames)
        index = newest[:, None] + offsets
        known = index >= self.first[newest][:, None]
        index = index.maximum(self.first[newest][:, None])
        pixels = {"images": self.images, "depth_m": self.depth_m, "measured": self.measured}
        some = slice(None, None, PAST_STRIDE)
        fields = {name: None if values is None else values[..., some, some] for name, values in pixels.items()}
        fields["T_base_camera"] = self.T_base_camera
        return PastFrames(
            latents=_take(self.latents, index),
            poses_xyyaw=se2.relative(self.poses_xyyaw[newest][:, None], self.poses_xyyaw[index]).to(device),
            frame_offsets=self._since(newest, index).to(device),
            known=known.to(device),
            **{name: None if values is None else _take(values, index) for name, values in fields.items()},
        )


def _take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values[index.to(values.device)]


def _pick(frames: torch.Tensor, branches: torch.Tensor | None, newest: torch.Tensor, goals: Goals) -> torch.Tensor:
    """Return (B, G, ...) of frames (F, ...), or of branches (F, Q, ...) of the newest context frame."""
    picked = _take(frames, goals.frame)
    if branches is not None and goals.use_branch.any():
        row, slot = goals.use_branch.nonzero(as_tuple=True)
        frame, branch = newest[row].to(branches.device), goals.branch[row, slot].to(branches.device)
        picked[row.to(picked.device), slot.to(picked.device)] = branches[frame, branch]
    return picked


class WindowStream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """Batches for steps ``start`` .. ``stop`` of a run; batch k depends only on (seed, k).

    ``batch_size`` is the total of ``world_size`` processes; process ``rank`` gets its share of the one draw.
    """

    def __init__(
        self,
        bank: LatentBank,
        sampling: GoalSettings,
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
