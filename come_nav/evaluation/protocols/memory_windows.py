"""Windows that only memory can answer: the goal is hardly visible from the context, but was seen long before.

A drive has a memory phase, from which memories are built, and a test phase, in which windows start.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Recording
from come_nav.evaluation.protocols.memory_visibility import GRID, depth_views, longest_unseen, union_share
from come_nav.evaluation.protocols.protocol import ProtocolSettings, make_window, segments_of_recording, shares_of
from come_nav.evaluation.protocols.quality import QualityWindow

OFFSET_BINS = (8, 16)  # frames; windows are spread over offsets up to 8, up to 16 and beyond
GOLDEN = 0.6180339887498949
SEEN_SHARE = 0.25  # a frame that shows more than this share of a view has seen it
MIN_KNOWN = 0.5  # a target with less depth than this share of its pixels is no target


@dataclass(frozen=True)
class RevisitLimits:
    """Which targets only memory can answer.

    Attributes:
        max_context_share: less than this share of the target's pixels is visible from the context.
        min_memory_share: at least this share was seen in the memory phase.
        min_age_frames: no frame of the last so many before the target saw more than SEEN_SHARE of it, those after the
            start excepted, which are the future.
        max_age_frames: a frame so long ago, or later, did; None where it may be any time ago, or never.
    """

    max_context_share: float = 0.25
    min_memory_share: float = 0.5
    min_age_frames: int = 60
    max_age_frames: int | None = None

    @classmethod
    def of_age(cls, low_s: float, high_s: float, rate_hz: float) -> RevisitLimits:
        """Return the limits of targets last seen from ``low_s`` up to ``high_s`` ago, by the context or not."""
        check_range("age", low_s, 0.0)
        if not high_s > low_s:
            raise ConfigError(f"an age must end after it begins, got {low_s:g} to {high_s:g} s")
        most = None if math.isinf(high_s) else math.ceil(high_s * rate_hz) - 1
        return cls(max_context_share=2.0, min_age_frames=math.ceil(low_s * rate_hz), max_age_frames=most)

    def __post_init__(self) -> None:
        check_range("max_context_share", self.max_context_share, 0.0, 2.0, open_low=True)
        check_range("min_memory_share", self.min_memory_share, 0.0, 1.0)
        check_range("min_age_frames", self.min_age_frames, 0)
        if self.max_age_frames is not None:
            check_range("max_age_frames", self.max_age_frames, self.min_age_frames)

    def describe(self) -> str:
        """Return the limits in words."""
        hidden = f"less than {self.max_context_share:.0%} visible from the context"
        shown = hidden if self.max_context_share <= 1.0 else "visible from the context or not"
        seen = f"at least {self.min_memory_share:.0%} seen in the memory phase"
        at_least = f"{shown}, {seen}, last seen at least {self.min_age_frames} frames ago"
        return at_least if self.max_age_frames is None else f"{at_least} and at most {self.max_age_frames}"


# What short recordings are evaluated by where they hold no windows of the strict kind, in this order.
RELAXED = (
    RevisitLimits(),
    RevisitLimits(min_age_frames=40),
    RevisitLimits(min_age_frames=20),
    RevisitLimits(min_age_frames=8),
    RevisitLimits(0.5, 0.5, 8),
    RevisitLimits(0.5, 0.3, 0),
    RevisitLimits(0.8, 0.2, 0),
    RevisitLimits(1.5, 0.0, 0),
)


@dataclass(frozen=True)
class MemoryDrive:
    """A drive with a memory phase.

    Attributes:
        name: unique in the evaluation.
        recording: frames and the poses that the robot believes.
        truth: the same frames with true poses; the recording itself where it has no better.
        memory: frames of the memory phase.
        remembered_xyyaw: poses (M, 3) of the memory phase as the robot has them at its end, where it corrects them.
    """

    name: str
    recording: Recording = field(repr=False)
    truth: Recording = field(repr=False)
    memory: range
    remembered_xyyaw: NDArray[np.float64] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class MemoryWindow(QualityWindow):
    """One start and one target that the robot has seen before.

    Attributes:
        memory: frames of the memory phase.
        share_visible: share of the target's pixels visible from the context.
        share_remembered: share of them seen in the memory phase.
        age_frames: how many frames before the target more than SEEN_SHARE of it was seen last; a target that no single
            frame ever saw so much of has the frames since the beginning.
    """

    memory: range
    share_visible: float
    share_remembered: float
    age_frames: int

    @property
    def offset_frames(self) -> int:
        """Protocol frames from the start to the target."""
        return self.steps[0]


@dataclass(frozen=True)
class Revisits:
    """All (target, offset) of one drive that could be windows.

    Attributes:
        drive: they belong to.
        targets: (T,) frames.
        offsets: (K,) frames from the start to the target.
        share_remembered: (T,) share of the target seen in the memory phase.
        share_visible: (T, K) share of it visible from the context, NaN where no window fits.
        age_frames: (T, K) how long before the target it was seen last, before or at the start.
    """

    drive: MemoryDrive
    targets: NDArray[np.int64]
    offsets: NDArray[np.int64]
    share_remembered: NDArray[np.float64]
    share_visible: NDArray[np.float64]
    age_frames: NDArray[np.int64]

    def qualifying(self, limits: RevisitLimits) -> NDArray[np.bool_]:
        """Return (T, K): which fulfil ``limits``."""
        with np.errstate(invalid="ignore"):
            hidden = self.share_visible < limits.max_context_share
        remembered = self.share_remembered >= limits.min_memory_share
        old = self.age_frames >= limits.min_age_frames
        if limits.max_age_frames is not None:
            old &= self.age_frames <= limits.max_age_frames
        return np.asarray(hidden & remembered[:, None] & old)

    def starting_at(self, taken: Collection[tuple[str, int]]) -> NDArray[np.bool_]:
        """Return (T, K): which begin at a start of this drive that is ``taken``."""
        own = [start for name, start in taken if name == self.drive.name]
        return np.isin(self.targets[:, None] - self.offsets, own)


def find_revisits(
    drive: MemoryDrive,
    offsets: Sequence[int],
    context_frames: int = 4,
    most_visible: float = RevisitLimits.max_context_share,
    stride: int = 1,
) -> Revisits:
    """Look at every frame of the test phase: how much of it was seen when.

    Args:
        drive: with depth.
        offsets: frames from a start to its target, increasing.
        context_frames: of a window, the newest at the start; all lie in the test phase.
        most_visible: targets of which every context shows so much are not looked at further.
        stride: look at every so many frames of the test phase.

    Raises:
        DataError: for a drive without depth.
    """
    views = depth_views(drive.truth, drive.truth.T_odom_base)
    first = drive.memory.stop
    targets = np.arange(first + context_frames, len(views), stride)
    found = np.asarray(offsets, np.int64)
    remembered = np.zeros(len(targets))
    visible = np.full((len(targets), len(found)), np.nan)
    age = np.zeros((len(targets), len(found)), np.int64)
    whole = _starts(drive.recording, first + context_frames - 1, targets, found, context_frames)
    for row, target in enumerate(targets):
        points = views.points(int(target))
        columns = np.flatnonzero(whole[row])
        if len(points) < MIN_KNOWN * GRID * GRID or not len(columns):
            continue
        starts = target - found[columns]
        oldest = int(starts.min()) - context_frames + 1
        shown = union_share(views.see(points, range(oldest, int(starts.max()) + 1)), context_frames)[starts - oldest]
        visible[row, columns] = shown
        if shown.min() >= most_visible:  # no window: when it was seen before does not matter
            continue
        seen = views.see(points, range(int(target)))
        remembered[row] = float(seen[drive.memory.start : drive.memory.stop].any(axis=0).mean())
        age[row, columns] = np.minimum(longest_unseen(seen, SEEN_SHARE)[starts] + found[columns], target)
    return Revisits(drive, targets, found, remembered, visible, age)


def choose_memory_windows(
    revisits: Sequence[Revisits],
    limits: RevisitLimits,
    config: ProtocolSettings,
    count: int | None,
    taken: Collection[tuple[str, int]] = (),
) -> list[MemoryWindow]:
    """Choose ``count`` windows, as evenly as possible over the drives and, within each, over offsets and starts.

    Fewer come back where the drives hold fewer; every start is used once, and none of those that are ``taken`` (names
    of drives and starts).
    """
    if count is not None:
        check_range("windows", count, 1)
    per_drive = [each.qualifying(limits) & ~each.starting_at(taken) for each in revisits]
    available = [len(_starts_of(each, mask)) for each, mask in zip(revisits, per_drive, strict=True)]
    windows = []
    for each, mask, share in zip(revisits, per_drive, shares_of(available, count), strict=True):
        windows += [_window(each, row, column, config) for row, column in _pick(each, mask, share)]
    return windows


def choose_of_each(
    revisits: Sequence[Revisits], kinds: Sequence[RevisitLimits], config: ProtocolSettings, count: int
) -> list[MemoryWindow]:
    """Choose ``count`` windows in all, as many of each kind (see :func:`choose_memory_windows`), drive by drive.

    No start is used twice; kinds that the drives hold fewer of come short.
    """
    windows: list[MemoryWindow] = []
    for number, limits in enumerate(kinds):
        share = (number + 1) * count // len(kinds) - number * count // len(kinds)
        taken = {(item.window.recording_id, item.window.start) for item in windows}
        windows += choose_memory_windows(revisits, limits, config, share, taken) if share else []
    order = {each.drive.name: number for number, each in enumerate(revisits)}
    return sorted(windows, key=lambda item: (order[item.window.recording_id], item.window.start))


def choose_limits(revisits: Sequence[Revisits], wanted: int) -> RevisitLimits:
    """Return the strictest of RELAXED with at least ``wanted`` windows, the last of them where none has so many.

    Raises:
        DataError: when not one window fits at all.
    """
    counts = [sum(len(_starts_of(each, each.qualifying(limits))) for each in revisits) for limits in RELAXED]
    if not counts[-1]:
        names = ", ".join(each.drive.name for each in revisits)
        raise DataError(
            f"{names}: no window fits in the test phase; record longer, or lower --memory-part or --horizon"
        )
    return next((limits for limits, found in zip(RELAXED, counts, strict=True) if found >= wanted), RELAXED[-1])


def _starts(
    recording: Recording, first: int, targets: NDArray[np.int64], offsets: NDArray[np.int64], context_frames: int
) -> NDArray[np.bool_]:
    """Return (T, K): where a window fits in the test phase and crosses no gap."""
    segment = segments_of_recording(recording)
    starts = targets[:, None] - offsets
    oldest = np.clip(starts - context_frames + 1, 0, None)
    return np.asarray((starts >= first) & (segment[oldest] == segment[targets][:, None]))


def _starts_of(revisits: Revisits, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the different starts of qualifying windows."""
    row, column = np.nonzero(mask)
    return np.asarray(np.unique(revisits.targets[row] - revisits.offsets[column]), np.int64)


def _pick(revisits: Revisits, mask: NDArray[np.bool_], share: int) -> list[tuple[int, int]]:
    """Choose ``share`` (row, column) with different starts, offsets spread over the bins, in order of the starts."""
    row, column = np.nonzero(mask)
    pairs = Pairs(row, column, revisits.targets[row] - revisits.offsets[column], revisits.offsets[column])
    where = np.digitize(pairs.offset, OFFSET_BINS, right=True)
    bins = [np.flatnonzero(where == index) for index in range(len(OFFSET_BINS) + 1)]
    bins = sorted((found for found in bins if len(found)), key=lambda found: len(np.unique(pairs.start[found])))
    chosen: dict[int, int] = {}  # start -> index of the pair
    for position, candidates in enumerate(bins):
        _take(chosen, candidates, pairs, (share - len(chosen)) // (len(bins) - position))
    _take(chosen, np.arange(len(row)), pairs, share - len(chosen))
    return [(int(row[index]), int(column[index])) for _, index in sorted(chosen.items())]


@dataclass(frozen=True)
class Pairs:
    """Qualifying (target, offset), each (M,): their rows and columns, starts and offsets in frames."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    start: NDArray[np.int64]
    offset: NDArray[np.int64]


def _take(chosen: dict[int, int], candidates: NDArray[np.int64], pairs: Pairs, quota: int) -> None:
    """Add ``quota`` further starts, as far apart as possible, each with one offset; least used targets first."""
    free = candidates[~np.isin(pairs.start[candidates], list(chosen))]
    starts = np.unique(pairs.start[free])
    quota = min(quota, len(starts))
    for part in range(quota):
        own = free[pairs.start[free] == starts[(2 * part + 1) * len(starts) // (2 * quota)]]
        used = [int(pairs.row[index]) for index in chosen.values()]
        times = np.array([used.count(int(pairs.row[index])) for index in own])
        own = own[times == times.min()]
        own = own[np.argsort(pairs.offset[own], kind="stable")]
        chosen[int(pairs.start[own[0]])] = int(own[int(len(own) * ((0.5 + part * GOLDEN) % 1.0))])


def _window(revisits: Revisits, row: int, column: int, config: ProtocolSettings) -> MemoryWindow:
    drive, goal, steps = revisits.drive, int(revisits.targets[row]), int(revisits.offsets[column])
    own = replace(config, horizon_steps=steps)
    window = make_window(drive.name, drive.recording, goal - steps, goal, own)
    poses = np.asarray(drive.recording.poses_xyyaw, float)
    if (
        drive.truth is not drive.recording
    ):  # a plan is evaluated by what was really driven; all else is what was believed
        true = make_window(drive.name, drive.truth, goal - steps, goal, own)
        window = replace(window, driven_xyyaw=true.driven_xyyaw)
    return MemoryWindow(
        window=window,
        steps=(steps,),
        targets=(goal,),
        rel_frames=np.array([window.rel_frames]),
        poses_xyyaw=se2.relative(poses[window.start], poses[goal])[None],
        memory=drive.memory,
        share_visible=float(revisits.share_visible[row, column]),
        share_remembered=float(revisits.share_remembered[row]),
        age_frames=int(revisits.age_frames[row, column]),
    )
