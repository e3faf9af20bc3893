"""Checks and repairs of recorded time: unsorted and doubled stamps, clock jumps, and the choice of frames at a rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from come_nav.data.timing.association import nearest_index

MAX_CLOCK_STEP_BACK_S = 2.0
MAX_CLOCK_STEP_AHEAD_S = 86_400.0  # no recording pauses for a day; a clock that is set from 1970 does
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Gap:
    """A hole in a recording, or a jump of the pose: ``duration_s`` from frame ``index`` to the next."""

    index: int
    duration_s: float


@dataclass(frozen=True)
class Resampling:
    """Chosen frames and what the choice says about the recording.

    Attributes:
        index: (N,) chosen frames, increasing.
        rate_hz: the asked rate, or the true median rate where the recording is slower.
        slower: the recording is slower than the asked rate, so that every frame was kept.
        missed_ticks: ticks of the asked rate without a frame within half a tick.
    """

    index: NDArray[np.int64]
    rate_hz: float
    slower: bool
    missed_ticks: int


@dataclass(frozen=True)
class Recorded:
    """When messages were recorded, to cut all topics of a bag in one place where its clock was set.

    Attributes:
        log_ns: (N,) by the recorder's clock.
        beside_ns: first and last such time of the images that are used; None where this topic decides.
    """

    log_ns: NDArray[np.int64]
    beside_ns: tuple[int, int] | None = None

    def beside(self, first: int, last: int) -> int:
        """Return how long messages ``first`` to ``last`` - 1 were recorded beside the images, in ns."""
        if self.beside_ns is None:
            return 0
        own = self.log_ns[first:last]
        return max(0, min(int(own.max()), self.beside_ns[1]) - max(int(own.min()), self.beside_ns[0]))


def clean_order(
    stamps_ns: NDArray[np.int64], what: str, warnings: list[str], recorded: Recorded | None = None
) -> NDArray[np.int64]:
    """Return the indices (M <= N) that make ``stamps_ns`` (N,) strictly increasing; appends counts to ``warnings``.

    Small disorder is sorted, doubles keep the first. A stamp that lies far from both its neighbours, such as the first
    one of simulated time, is dropped. A clock that steps breaks the recording in parts: the one that was recorded
    beside the images is used, else the longest.

    Args:
        stamps_ns: in the order of recording.
        what: the topic, for the notes.
        warnings: takes one line for each repair.
        recorded: when they were recorded, if that is known.
    """
    kept = _without_lone_stamps(stamps_ns, what, warnings)
    if recorded is not None:
        recorded = Recorded(recorded.log_ns[kept], recorded.beside_ns)
    kept = kept[_used_part(stamps_ns[kept], what, warnings, recorded)]
    stamps_ns = stamps_ns[kept]
    unsorted = int((np.diff(stamps_ns) < 0).sum())
    if unsorted:
        warnings.append(f"{what}: {unsorted} of {len(stamps_ns)} stamps were out of order and have been sorted")
    order = np.argsort(stamps_ns, kind="stable")
    fresh = np.append([True], np.diff(stamps_ns[order]) > 0) if len(order) else np.zeros(0, bool)
    doubled = int((~fresh).sum())
    if doubled:
        warnings.append(f"{what}: {doubled} of {len(stamps_ns)} stamps were duplicates and have been dropped")
    return np.asarray(kept[order[fresh]], np.int64)


def _without_lone_stamps(stamps_ns: NDArray[np.int64], what: str, warnings: list[str]) -> NDArray[np.int64]:
    """Return the indices without stamps that stand alone on the far side of a step of the clock."""
    lone = []
    for index in np.flatnonzero(_clock_steps(stamps_ns)):  # the step from index to index + 1
        if index in lone:
            continue
        before, after = int(index), int(index) + 1
        if (before == 0 and len(stamps_ns) > 2) or (before > 0 and _joined(stamps_ns, before - 1, after)):
            lone.append(before)
        elif (after + 1 == len(stamps_ns) and before > 0) or _joined(stamps_ns, before, after + 1):
            lone.append(after)
    if lone:
        warnings.append(
            f"{what}: {len(lone)} of {len(stamps_ns)} stamps lie far from those before and after (none was set, or "
            "another clock) and have been dropped"
        )
    return np.delete(np.arange(len(stamps_ns)), lone)


def _used_part(stamps_ns: NDArray[np.int64], what: str, warnings: list[str], recorded: Recorded | None = None) -> slice:
    """Return the part between two steps of the clock that was recorded beside the images, else the longest."""
    cuts = np.flatnonzero(_clock_steps(stamps_ns)) + 1
    if not len(cuts):
        return slice(0, len(stamps_ns))
    bounds = [0, *(int(cut) for cut in cuts), len(stamps_ns)]
    parts = list(pairwise(bounds))
    beside = [0 if recorded is None else recorded.beside(*part) for part in parts]
    first, last = max(
        zip(parts, beside, strict=True), key=lambda found: (found[1], int(np.ptp(stamps_ns[slice(*found[0])])))
    )[0]
    step_s = (int(stamps_ns[cuts[0]]) - int(stamps_ns[cuts[0] - 1])) * 1e-9
    warnings.append(
        f"{what}: the clock steps {'back' if step_s < 0 else 'ahead'} by {abs(step_s):.3f} s at message {cuts[0]}"
        f"{'' if len(cuts) == 1 else f' and {len(cuts) - 1} times more'}; used are the {last - first} of "
        f"{len(stamps_ns)} messages of the {'part recorded beside the images' if any(beside) else 'longest part'}"
    )
    return slice(first, last)


def _clock_steps(stamps_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell for each step (N - 1,) whether the clock was set: back by more than disorder, or ahead by days."""
    steps_s = np.diff(stamps_ns) * 1e-9
    return np.asarray((steps_s < -MAX_CLOCK_STEP_BACK_S) | (steps_s > MAX_CLOCK_STEP_AHEAD_S))


def _joined(stamps_ns: NDArray[np.int64], first: int, last: int) -> bool:
    """Tell whether two messages follow each other in one clock."""
    if not 0 <= first < last < len(stamps_ns):
        return False
    step_s = (int(stamps_ns[last]) - int(stamps_ns[first])) * 1e-9
    return -MAX_CLOCK_STEP_BACK_S <= step_s <= MAX_CLOCK_STEP_AHEAD_S


def seconds_after(stamps_ns: NDArray[np.int64], start_ns: int) -> NDArray[np.float64]:
    """Return float64 seconds after ``start_ns``, exact to the nanosecond (seconds since 1970 are not)."""
    return np.asarray((stamps_ns - start_ns) * 1e-9, np.float64)


def seconds_from_ns(stamps_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return float64 seconds nearest to ``stamps_ns``; dividing the whole number would round it twice."""
    whole, rest = np.divmod(stamps_ns, NANOSECONDS)
    return np.asarray(whole + rest / NANOSECONDS, np.float64)


def ns_from_seconds(stamp_s: float) -> int:
    """Return whole nanoseconds; :func:`seconds_from_ns` gives the same double back."""
    whole = math.floor(stamp_s)
    return whole * NANOSECONDS + round((stamp_s - whole) * NANOSECONDS)


def median_rate_hz(stamps_s: NDArray[np.float64]) -> float:
    """Return the rate of the median step; 0 for fewer than two stamps."""
    return float(1.0 / np.median(np.diff(stamps_s))) if len(stamps_s) > 1 else 0.0


def resample(stamps_s: NDArray[np.float64], rate_hz: float | None, *, slower_than: float = 0.9) -> Resampling:
    """Choose the frame nearest to each tick of ``rate_hz``, at most half a tick away, each frame once; None keeps all.

    A recording whose median rate is below ``slower_than * rate_hz`` cannot reach the rate: then every frame is kept and
    the true median rate is reported.
    """
    true_rate_hz = median_rate_hz(stamps_s)
    if len(stamps_s) < 2 or rate_hz is None:
        return Resampling(np.arange(len(stamps_s)), rate_hz or true_rate_hz or 1.0, False, 0)
    if true_rate_hz < slower_than * rate_hz:
        return Resampling(np.arange(len(stamps_s)), true_rate_hz, True, 0)
    period_s = 1.0 / rate_hz
    ticks = stamps_s[0] + np.arange(int(np.floor((stamps_s[-1] - stamps_s[0]) * rate_hz + 0.5)) + 1) * period_s
    nearest = nearest_index(stamps_s, ticks)
    close = np.abs(stamps_s[nearest] - ticks) <= 0.5 * period_s
    chosen = np.unique(nearest[close])
    return Resampling(chosen, rate_hz, False, len(ticks) - len(chosen))


def find_gaps(stamps_s: NDArray[np.float64], max_gap_s: float) -> tuple[Gap, ...]:
    """Return where consecutive stamps are more than ``max_gap_s`` apart."""
    steps = np.diff(stamps_s)
    return tuple(Gap(int(index), float(steps[index])) for index in np.flatnonzero(steps > max_gap_s))


def with_cuts(gaps: Sequence[Gap], stamps_s: NDArray[np.float64], cuts: Iterable[int]) -> tuple[Gap, ...]:
    """Return ``gaps`` and one more behind each frame of ``cuts`` that has one behind it, in order."""
    found = {gap.index: gap for gap in gaps}
    for index in cuts:
        if 0 <= index < len(stamps_s) - 1:
            found.setdefault(int(index), Gap(int(index), float(stamps_s[index + 1] - stamps_s[index])))
    return tuple(found[index] for index in sorted(found))
