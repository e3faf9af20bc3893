"""The short-term memory: the newest frames at the protocol spacing, with the poses where they were taken.

Sensors stutter, repeat themselves, and restart; the buffer keeps what can serve as context, and counts what it drops.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.types import Frame, Odometry

if TYPE_CHECKING:
    import torch


class FrameStatus(str, Enum):
    """What the buffer did with a frame. Everything but KEPT is counted in :attr:`ShortTermBuffer.dropped`."""

    KEPT = "kept"
    BETWEEN = "between"  # too early for the protocol spacing
    DUPLICATE = "duplicate"
    OUT_OF_ORDER = "out_of_order"
    NON_FINITE = "non_finite"
    NO_POSE = "no_pose"  # the nearest odometry is too far away in time


@dataclass(frozen=True)
class ShortTermSettings:
    """What is remembered for a short time.

    Attributes:
        rate_hz: frames kept per second, > 0.
        capacity: most frames kept, >= 1.
        tolerance: a frame may come early by this fraction of the spacing, in [0, 0.5].
        max_gap_s: a longer hole between frames makes the older ones useless as context, s, > 0.
        max_pose_age_s: largest difference between the stamps of a frame and its odometry, s, >= 0.
        clock_jump_s: a stamp this much older than the newest means that the clock was set back (a bag that starts
            again), s, > 0; the memory then starts anew. Smaller steps back are frames out of order.
        max_speed_mps: faster motion between two kept frames means that odometry was reset, m/s, > 0.
    """

    rate_hz: float = 4.0
    capacity: int = 33
    tolerance: float = 0.25
    max_gap_s: float = 1.0
    max_pose_age_s: float = 0.1
    clock_jump_s: float = 1.0
    max_speed_mps: float = 10.0

    def __post_init__(self) -> None:
        check_range("memory.rate_hz", self.rate_hz, 0.0, open_low=True)
        check_range("memory.capacity", self.capacity, 1)
        check_range("memory.tolerance", self.tolerance, 0.0, 0.5)
        check_range("memory.max_gap_s", self.max_gap_s, 0.0, open_low=True)
        check_range("memory.max_pose_age_s", self.max_pose_age_s, 0.0)
        check_range("memory.clock_jump_s", self.clock_jump_s, 0.0, open_low=True)
        check_range("memory.max_speed_mps", self.max_speed_mps, 0.0, open_low=True)


@dataclass(frozen=True)
class Remembered:
    """One kept frame.

    Attributes:
        stamp_s: of the frame.
        pose_odom_xyyaw: (3,) where base_link stood.
        frame: as the camera gave it.
        features: what ``encode`` made of the frame (an image or latents), or None without ``encode``.
    """

    stamp_s: float
    pose_odom_xyyaw: NDArray[np.float64]
    frame: Frame
    features: torch.Tensor | None


class ShortTermBuffer:
    """Ring of kept frames, oldest first. Bounded by ``capacity``."""

    def __init__(
        self, config: ShortTermSettings | None = None, encode: Callable[[Frame], torch.Tensor] | None = None
    ) -> None:
        """Take the settings and a function that is called once for each kept frame, e.g. the autoencoder."""
        self.config = config or ShortTermSettings()
        self._encode = encode
        self._ring: deque[Remembered] = deque(maxlen=self.config.capacity)
        self._newest_stamp_s: float | None = None
        self._due_s = 0.0
        self.dropped: Counter[str] = Counter()
        self.resets: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def newest(self) -> Remembered | None:
        """The newest kept frame."""
        return self._ring[-1] if self._ring else None

    @property
    def newest_stamp_s(self) -> float | None:
        """Stamp of the newest frame that came in order, kept or not; None before the first."""
        return self._newest_stamp_s

    def clear(self) -> None:
        """Forget all frames; the counters stay."""
        self._ring.clear()
        self._newest_stamp_s = None

    def observe(self, frame: Frame, odometry: Odometry) -> FrameStatus:
        """Take a frame and the odometry nearest to it; return what became of it."""
        verdict = self._evaluate(frame.stamp_s, odometry)
        if verdict is FrameStatus.KEPT:
            features = None if self._encode is None else self._encode(frame)
            self._ring.append(Remembered(frame.stamp_s, odometry.pose_xyyaw, frame, features))
        else:
            self.dropped[verdict.value] += 1
        return verdict

    def context_frames(self, count: int) -> list[Remembered]:
        """Return the newest ``count`` frames, oldest first, or an empty list while there are fewer."""
        frames = self.newest_frames(count)
        return frames if len(frames) == count else []

    def newest_frames(self, count: int) -> list[Remembered]:
        """Return up to ``count`` of the newest frames, oldest first."""
        return list(self._ring)[-count:] if count > 0 else []

    def _evaluate(self, stamp_s: float, odometry: Odometry) -> FrameStatus:
        if not (np.isfinite(stamp_s) and np.isfinite(odometry.T_odom_base).all()):
            return FrameStatus.NON_FINITE
        if not abs(stamp_s - odometry.stamp_s) <= self.config.max_pose_age_s:
            return FrameStatus.NO_POSE
        if self._newest_stamp_s is not None and stamp_s <= self._newest_stamp_s:
            if self._newest_stamp_s - stamp_s < self.config.clock_jump_s:
                return FrameStatus.DUPLICATE if stamp_s == self._newest_stamp_s else FrameStatus.OUT_OF_ORDER
            self._reset("clock_jump")
        self._newest_stamp_s = stamp_s
        return self._place(stamp_s, odometry)

    def _place(self, stamp_s: float, odometry: Odometry) -> FrameStatus:
        """Decide whether a frame in order is due. Due times lie on a grid, so that spacing errors do not add up."""
        period_s = 1.0 / self.config.rate_hz
        newest = self.newest
        if newest is not None and stamp_s - newest.stamp_s > self.config.max_gap_s:
            self._reset("gap")
        elif newest is not None and stamp_s < self._due_s - self.config.tolerance * period_s:
            return FrameStatus.BETWEEN
        elif newest is not None:
            moved_m = float(np.linalg.norm(odometry.pose_xyyaw[:2] - newest.pose_odom_xyyaw[:2]))
            if moved_m > self.config.max_speed_mps * (stamp_s - newest.stamp_s):
                self._reset("pose_jump")
        on_grid = len(self._ring) > 0 and stamp_s < self._due_s + 0.5 * period_s
        self._due_s = (self._due_s if on_grid else stamp_s) + period_s
        return FrameStatus.KEPT

    def _reset(self, reason: str) -> None:
        newest_stamp_s = self._newest_stamp_s
        self.clear()
        self._newest_stamp_s = None if reason == "clock_jump" else newest_stamp_s
        self.resets[reason] += 1
