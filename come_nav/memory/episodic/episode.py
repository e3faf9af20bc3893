"""What the episodic memory keeps of a running episode: latents and poses of its frames, and windows drawn from them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2
from come_nav.core.types import Context

STORED = torch.float16


@dataclass(frozen=True)
class EpisodeBatch:
    """B windows of one episode: a context and one target each.

    Attributes:
        context: (B, T, ...) frames, with their absolute poses (B, 3) in the episode's frame.
        target_latents: (B, C, h, w).
        actions_xyyaw: (B, 3) target poses in the newest context frame's base.
        rel_frames: (B,) times of the targets after that frame, negative for earlier ones.
        frames: what was kept of each context frame besides its latents, by name, (B, T, ...).
        targets: the same of each target, by name, (B, ...).
    """

    context: Context
    target_latents: Tensor
    actions_xyyaw: Tensor
    rel_frames: Tensor
    frames: dict[str, Tensor]
    targets: dict[str, Tensor] = field(default_factory=dict)


class EpisodeFrames:
    """The newest ``capacity`` frames of an episode, in half precision. Several threads may use it at once.

    Attributes:
        seen: frames added since the episode began, those included that have made room.
    """

    seen: int
    _values: dict[str, Tensor]
    _poses: Tensor
    _segments: Tensor
    _segment: int
    _newest_s: float | None

    def __init__(self, capacity: int, max_gap_s: float) -> None:
        """Take the bound, and the hole between stamps after which frames no longer form one window."""
        self.capacity, self.max_gap_s = capacity, max_gap_s
        self._lock = threading.Lock()
        self._clear()

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._clear()

    def add(self, latents: Tensor, pose_odom_xyyaw: Tensor, stamp_s: float, frame: Mapping[str, Tensor]) -> None:
        """Keep a frame; the oldest one makes room.

        Raises:
            DataError: for values that are not finite, or a frame of another kind than those before.
        """
        pose = torch.as_tensor(pose_odom_xyyaw, dtype=torch.float64).reshape(3)
        if not (torch.isfinite(latents).all() and torch.isfinite(pose).all()):
            raise DataError(f"frame at {stamp_s:.3f} s has latents or a pose that are not finite; drop it")
        values = {"latents": latents.detach().to("cpu", STORED), **{key: item.cpu() for key, item in frame.items()}}
        with self._lock:
            self._check(values, stamp_s)
            if self._newest_s is not None and not 0.0 < stamp_s - self._newest_s <= self.max_gap_s:
                self._segment += 1
            self._newest_s = stamp_s
            slot = self.seen % self.capacity
            if self.seen < self.capacity:
                self._grow(values)
            for name, value in values.items():
                self._values[name][slot] = value
            self._poses[slot], self._segments[slot] = pose, self._segment
            self.seen += 1

    def sample(
        self, context_frames: int, reach: int, batch_size: int, generator: torch.Generator, recent: int = 0
    ) -> EpisodeBatch:
        """Draw windows: a random newest frame, its context, and a random target up to ``reach`` frames before or after.

        Args:
            context_frames: T.
            reach: largest distance of the target, frames.
            batch_size: B.
            generator: of the choice.
            recent: only the newest so many frames; 0 = all.

        Raises:
            DataError: while no stretch without a gap is long enough.
        """
        with self._lock:
            order = self._order()[-recent:] if recent else self._order()
            newest, target = self._choose(self._segments[order], context_frames, reach, batch_size, generator)
            rows = newest[:, None] + torch.arange(1 - context_frames, 1)
            context = {name: value[order[rows]] for name, value in self._values.items()}
            targets = {name: value[order[target]] for name, value in self._values.items()}
            poses = self._poses[order]
        base = poses[newest][:, None]
        offsets = torch.arange(1.0 - context_frames, 1.0).expand(batch_size, -1)
        return EpisodeBatch(
            Context(
                context.pop("latents").float(),
                se2.relative(base, poses[rows]).float(),
                offsets,
                absolute_pose_xyyaw=poses[newest].float(),
            ),
            targets.pop("latents").float(),
            se2.relative(poses[newest], poses[target]).float(),
            (target - newest).float(),
            context,
            targets,
        )

    def usable(self, context_frames: int) -> bool:
        """Whether windows can be drawn."""
        with self._lock:
            return bool(len(_newest_rows(self._segments[self._order()], context_frames)))

    def tensors(self) -> dict[str, Tensor]:
        """Return copies of all frames, oldest first, for the disk."""
        with self._lock:
            order = self._order()
            kept = {name: value[order].clone() for name, value in self._values.items()}
            newest_s = float("nan") if self._newest_s is None else self._newest_s
            return {
                **{f"frame.{name}": value for name, value in kept.items()},
                "poses": self._poses[order].clone(),
                "segments": self._segments[order].clone(),
                "newest_s": torch.tensor([newest_s], dtype=torch.float64),
            }

    def load(self, tensors: Mapping[str, Tensor], seen: int) -> None:
        """Take frames over that :meth:`tensors` returned; those beyond the capacity are the oldest and stay out."""
        poses, segments = tensors["poses"], tensors["segments"]
        with self._lock:
            self._clear()
            for index in range(max(0, len(poses) - self.capacity), len(poses)):
                values = {name[6:]: value[index] for name, value in tensors.items() if name.startswith("frame.")}
                self._grow(values)
                slot = len(self)
                for name, value in values.items():
                    self._values[name][slot] = value
                self._poses[slot], self._segments[slot] = poses[index], segments[index]
                self.seen += 1
            if len(poses):
                self._segment, self._newest_s = int(segments[-1]), float(tensors["newest_s"])
            if len(self) == self.capacity:  # a full ring continues where the number of frames seen says
                shift = seen % self.capacity
                self._values = {name: value.roll(shift, 0) for name, value in self._values.items()}
                self._poses, self._segments = self._poses.roll(shift, 0), self._segments.roll(shift, 0)
                self.seen = seen

    def _clear(self) -> None:
        self.seen = 0
        self._values = {}
        self._poses = torch.empty(0, 3, dtype=torch.float64)
        self._segments = torch.empty(0, dtype=torch.int64)
        self._segment = 0
        self._newest_s = None

    def _order(self) -> Tensor:
        """Return the slots of the frames, oldest first."""
        count = len(self)
        return (torch.arange(count) + (self.seen if self.seen > self.capacity else 0)) % max(count, 1)

    def _check(self, values: Mapping[str, Tensor], stamp_s: float) -> None:
        expected = {name: value.shape[1:] for name, value in self._values.items()}
        found = {name: value.shape for name, value in values.items()}
        if expected and expected != found:
            raise DataError(f"frame at {stamp_s:.3f} s has {found}, the episode's frames have {expected}")

    def _grow(self, values: Mapping[str, Tensor]) -> None:
        """Make room for one more row, by doubling up to the capacity."""
        count = len(self)
        if count < len(self._poses):
            return
        rows = min(self.capacity, max(64, 2 * count))
        for name, value in values.items():
            old = self._values.get(name, torch.empty(0, *value.shape, dtype=value.dtype))
            self._values[name] = torch.cat([old, old.new_zeros(rows - count, *value.shape)])
        self._poses = torch.cat([self._poses, self._poses.new_zeros(rows - count, 3)])
        self._segments = torch.cat([self._segments, self._segments.new_zeros(rows - count)])

    @staticmethod
    def _choose(
        segments: Tensor, context_frames: int, reach: int, batch_size: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        usable = _newest_rows(segments, context_frames)
        if len(usable) == 0:
            raise DataError(f"the episode has no {context_frames + 1} frames without a gap yet")
        newest = usable[torch.randint(len(usable), (batch_size,), generator=generator)]
        low, high = (newest - reach).clamp(min=0), (newest + reach).clamp(max=len(segments) - 1)
        first = torch.searchsorted(segments, segments[newest])  # of the newest frame's own stretch
        last = torch.searchsorted(segments, segments[newest], right=True) - 1
        low, high = torch.maximum(low, first), torch.minimum(high, last)
        target = low + (torch.rand(batch_size, generator=generator, dtype=torch.float64) * (high - low + 1)).long()
        return newest, target.clamp(max=high)


def _newest_rows(segments: Tensor, context_frames: int) -> Tensor:
    """Return the rows (M,) that end a context without a gap."""
    rows = torch.arange(context_frames - 1, max(len(segments), context_frames - 1))
    return rows[segments[rows] == segments[rows - context_frames + 1]]
