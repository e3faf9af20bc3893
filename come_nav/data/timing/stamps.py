"""Checks and repairs of recorded time: unsorted and doubled stamps, clock jumps, and the choice of frames at a rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError
from come_nav.data.timing.association import nearest_index

MAX_CLOCK_STEP_BACK_S = 2.0
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Gap:
    """A hole in a recording: ``duration_s`` without a frame after frame ``index``."""

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


def clean_order(stamps_ns: NDArray[np.int64], what: str, warnings: list[str]) -> NDArray[np.int64]:
    """Return the indices (M <= N) that make ``stamps_ns`` (N,) strictly increasing; appends counts to ``warnings``.

    Small disorder is sorted, doubles keep the first. A clock that steps back further breaks the recording in two.

    Raises:
        DataError: when the clock steps back by more than two seconds.
    """
    if len(stamps_ns) > 1:
        behind_s = (np.maximum.accumulate(stamps_ns)[:-1] - stamps_ns[1:]) * 1e-9
        worst = int(np.argmax(behind_s))
        if behind_s[worst] > MAX_CLOCK_STEP_BACK_S:
            raise DataError(
                f"{what}: the clock steps back by {behind_s[worst]:.3f} s at message {worst + 1}; "
                "cut the recording there (--start, --stop)"
            )
        unsorted = int((np.diff(stamps_ns) < 0).sum())
        if unsorted:
            warnings.append(f"{what}: {unsorted} of {len(stamps_ns)} stamps were out of order and have been sorted")
    order = np.argsort(stamps_ns, kind="stable")
    fresh = np.append([True], np.diff(stamps_ns[order]) > 0) if len(order) else np.zeros(0, bool)
    doubled = int((~fresh).sum())
    if doubled:
        warnings.append(f"{what}: {doubled} of {len(stamps_ns)} stamps were duplicates and have been dropped")
    return np.asarray(order[fresh], np.int64)


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
