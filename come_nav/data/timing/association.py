"""Which stamp of one stream belongs to which of another.

Two rules live here. :func:`associate` is one-to-one: the closest pairs are matched first and each stamp is used at most
once, which is what a recording needs. :func:`associate_nearest` is the rule of evo and of the TUM RGB-D tools: each
stamp of the shorter stream takes its nearest neighbour in the longer one, which may serve several times; figures that
shall agree with evo use it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import AssociationError

Stamps = NDArray[np.float64]
_Words = tuple[tuple[str, str], str, float | None]  # names, flag and known offset, for messages

MAX_OFFSETS = 20_000  # tried per anchor stamp when an offset is searched for
EQUAL_OFFSETS = 100  # steps to either side of the best offset that are compared with it
MAX_SAMPLE = 60  # stamps that vote for an offset


@dataclass(frozen=True)
class AssociationReport:
    """How well two streams fit: ``matched`` of ``count_a`` and ``count_b`` stamps, and how far apart.

    Attributes:
        largest_gap_s: longest time between consecutive matched stamps of a.
        largest_difference_s, median_difference_s: of the matched pairs, after ``offset_s`` was added to b.
        best_offset_s: constant that, added to b, brings the matched pairs closest (median residual added to offset_s).
    """

    matched: int
    count_a: int
    count_b: int
    max_difference_s: float
    offset_s: float
    largest_gap_s: float
    largest_difference_s: float
    median_difference_s: float
    best_offset_s: float

    def to_mapping(self) -> dict[str, Any]:
        """Return the plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"matched {self.matched} of {self.count_a} (other stream: {self.count_b}), largest gap "
            f"{self.largest_gap_s:.3f} s, median difference {1e3 * self.median_difference_s:.1f} ms, "
            f"best offset {self.best_offset_s:+.3f} s"
        )


@dataclass(frozen=True)
class Association:
    """Matched pairs: ``a[index_a[i]]`` belongs to ``b[index_b[i]]``, in the order of a."""

    index_a: NDArray[np.int64]
    index_b: NDArray[np.int64]
    report: AssociationReport

    def __len__(self) -> int:
        return len(self.index_a)


def associate(
    stamps_a_s: Stamps,
    stamps_b_s: Stamps,
    max_difference_s: float = 0.02,
    offset_s: float = 0.0,
    *,
    names: tuple[str, str] = ("first stream", "second stream"),
    flag: str = "offset_s",
    known_offset_s: float | None = None,
) -> Association:
    """Match each stamp of a (N,) with at most one of b (M,) and the other way round, closest pairs first.

    Args:
        stamps_a_s: increasing stamps, seconds.
        stamps_b_s: the other stream's.
        max_difference_s: pairs further apart are not matched.
        offset_s: added to b before matching.
        names: how the message calls the streams.
        flag: how the message calls the setting that shifts b.
        known_offset_s: what another source, such as the recorder's clock, says must be added to b.

    Raises:
        AssociationError: when nothing matches; it tells both time spans and the offset that would match best.
    """
    shifted = np.asarray(stamps_b_s, float) + offset_s
    a = np.asarray(stamps_a_s, float)
    index_a, index_b = _mutually_nearest(a, shifted, max_difference_s)
    return _finish(a, shifted, index_a, index_b, max_difference_s, offset_s, (names, flag, known_offset_s))


def associate_nearest(
    stamps_a_s: Stamps,
    stamps_b_s: Stamps,
    max_difference_s: float = 0.01,
    offset_s: float = 0.0,
    *,
    names: tuple[str, str] = ("first stream", "second stream"),
    flag: str = "offset_s",
) -> Association:
    """Match as evo 1.38 does: each stamp of the shorter stream takes the nearest of the longer; that may be reused.

    A stamp of the longer stream can therefore serve twice; with :func:`associate` it cannot. Same arguments and errors.
    """
    a, shifted = np.asarray(stamps_a_s, float), np.asarray(stamps_b_s, float) + offset_s
    swap = len(shifted) <= len(a)  # equal lengths: evo calls the second one the shorter
    short, long = (shifted, a) if swap else (a, shifted)
    nearest = nearest_index(long, short) if len(long) else np.zeros(0, np.int64)
    within = np.abs(long[nearest] - short[: len(nearest)]) <= max_difference_s
    index_short, index_long = np.flatnonzero(within), nearest[within]
    index_a, index_b = (index_long, index_short) if swap else (index_short, index_long)
    return _finish(a, shifted, index_a, index_b, max_difference_s, offset_s, (names, flag, None))


def nearest_index(stamps_s: Stamps, at_s: Stamps) -> NDArray[np.int64]:
    """Return for each time ``at_s`` (M,) the index of the nearest of sorted ``stamps_s`` (N >= 1); the earlier wins."""
    right = np.clip(np.searchsorted(stamps_s, at_s), 0, len(stamps_s) - 1)
    left = np.maximum(right - 1, 0)
    take_left = np.abs(at_s - stamps_s[left]) <= np.abs(stamps_s[right] - at_s)
    return np.where(take_left, left, right).astype(np.int64)


def estimate_offset(stamps_a_s: Stamps, stamps_b_s: Stamps, tolerance_s: float = 0.02) -> tuple[float, int]:
    """Return the constant to add to b so that most stamps of the shorter stream find a partner, and how many do.

    Tries every offset that puts the first, middle or last stamp of the shorter stream onto one of the longer. Ties go
    to the smaller residual, then to the smaller offset; a dense periodic stream fits many offsets equally well.
    """
    a, b = np.asarray(stamps_a_s, float), np.asarray(stamps_b_s, float)
    if not len(a) or not len(b):
        return 0.0, 0
    if len(b) < len(a):
        offset_s, matched = estimate_offset(b, a, tolerance_s)
        return -offset_s, matched
    anchors = _thinned(len(a), 3)
    offsets = np.unique(a[anchors][:, None] - b[_thinned(len(b), MAX_OFFSETS)][None])
    sample = a[_thinned(len(a), MAX_SAMPLE)]
    shifted = sample[None] - offsets[:, None]  # a in the clock of b, (offsets, sample)
    residual = shifted - b[nearest_index(b, shifted.ravel())].reshape(shifted.shape)
    close = np.abs(residual) <= tolerance_s
    counts = close.sum(axis=1)
    spread = np.where(close, np.abs(residual), 0.0).sum(axis=1) / np.maximum(counts, 1)
    best = np.lexsort((np.abs(offsets), np.round(spread, 9), -counts))[0]
    offset_s = float(offsets[best] + np.median(residual[best][close[best]]))
    matched = int((np.abs(b[nearest_index(b, a - offset_s)] + offset_s - a) <= tolerance_s).sum())
    return offset_s, matched


def _thinned(count: int, limit: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(np.int64))


def _mutually_nearest(a: Stamps, b: Stamps, limit_s: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match closest pairs first: whoever are each other's nearest are matched and leave, until nobody is near enough.

    The closest pair of all is always mutual, so every round makes progress, and recorded streams need only a few.
    """
    free_a, free_b = np.arange(len(a)), np.arange(len(b))
    matched: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    while len(free_a) and len(free_b):
        to_b = nearest_index(b[free_b], a[free_a])
        near = np.abs(b[free_b][to_b] - a[free_a]) <= limit_s
        free_a, to_b = free_a[near], to_b[near]  # the others will not find anybody later either
        if not len(free_a):
            break
        to_a = nearest_index(a[free_a], b[free_b])
        mutual = to_a[to_b] == np.arange(len(free_a))
        matched.append((free_a[mutual], free_b[to_b[mutual]]))
        free_b = np.delete(free_b, to_b[mutual])
        free_a = free_a[~mutual]
    if not matched:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    index_a, index_b = (np.concatenate(part) for part in zip(*matched, strict=True))
    order = np.argsort(index_a)
    return index_a[order], index_b[order]


def _finish(
    a: Stamps,
    b_shifted: Stamps,
    index_a: NDArray[np.int64],
    index_b: NDArray[np.int64],
    limit_s: float,
    offset_s: float,
    words: _Words,
) -> Association:
    if not len(index_a):
        raise AssociationError(_no_match(a, b_shifted, limit_s, offset_s, words))
    residual = a[index_a] - b_shifted[index_b]
    matched_stamps = np.unique(a[index_a])
    report = AssociationReport(
        matched=len(index_a),
        count_a=len(a),
        count_b=len(b_shifted),
        max_difference_s=limit_s,
        offset_s=offset_s,
        largest_gap_s=float(np.diff(matched_stamps).max()) if len(matched_stamps) > 1 else 0.0,
        largest_difference_s=float(np.abs(residual).max()),
        median_difference_s=float(np.median(np.abs(residual))),
        best_offset_s=offset_s + float(np.median(residual)),
    )
    return Association(index_a, index_b, report)


def _no_match(
    a: Stamps,
    b: Stamps,
    limit_s: float,
    offset_s: float,
    words: _Words,
) -> str:
    names, flag, known_offset_s = words
    if not len(a) or not len(b):
        empty = names[0] if not len(a) else names[1]
        return f"nothing to match: the {empty} has no stamps"
    told = (
        f"no stamps within {limit_s:g} s: matched 0 of {len(a)}; {names[0]} spans {a[0]:.3f} to {a[-1]:.3f} s, "
        f"{names[1]} {b[0]:.3f} to {b[-1]:.3f} s"
    )
    if known_offset_s is not None and abs(known_offset_s - offset_s) > limit_s:
        return (
            f"{told}; by the times of recording the clocks are {known_offset_s:+.3f} s apart: set {flag} "
            f"{known_offset_s:.3f}"
        )
    extra, matched = estimate_offset(a, b, limit_s)
    lowest, highest = _equal_offsets(a, b, limit_s, extra)
    best = f"{told}; an offset of {offset_s + extra:+.3f} s would match {matched}"
    if highest - lowest > 2 * limit_s:
        return (
            f"{best}, but stamps so regular fit others from {offset_s + lowest:+.3f} to {offset_s + highest:+.3f} s as "
            f"well: find out how far the clocks are apart and set {flag}"
        )
    return f"{best}: set {flag} {offset_s + extra:.3f} if that is right"


def _equal_offsets(a: Stamps, b: Stamps, tolerance_s: float, best_s: float) -> tuple[float, float]:
    """Return the lowest and highest offset that matches as many stamps as ``best_s`` does, of those like it."""
    step_s = float(np.median(np.diff(b))) if len(b) > 1 else 0.0
    if step_s <= 2 * tolerance_s:
        step_s = 2.0 * tolerance_s
    offsets = best_s + step_s * np.arange(-EQUAL_OFFSETS, EQUAL_OFFSETS + 1)
    short, long, sign = (a, b, -1.0) if len(a) <= len(b) else (b, a, 1.0)
    short = short[_thinned(len(short), MAX_SAMPLE)]
    shifted = short[None] + sign * offsets[:, None]
    missed = np.abs(shifted - long[nearest_index(long, shifted.ravel())].reshape(shifted.shape)) > tolerance_s
    counts = (~missed).sum(axis=1)
    equal = offsets[counts >= counts[EQUAL_OFFSETS]]
    return float(equal.min()), float(equal.max())
