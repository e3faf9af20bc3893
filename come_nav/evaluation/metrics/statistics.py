"""Means with bootstrap intervals, and paired comparisons of two rows on the same windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ShapeError

RESAMPLES = 2000
MIN_CLUSTERS = 5  # the bootstrap of fewer groups gives intervals that are far too narrow


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval.

    Attributes:
        value: the estimate from all windows.
        low, high: ends of the interval; NaN when there are fewer than 2 clusters to resample.
        n: number of windows.
        clusters: number of independent groups that were resampled (worlds of a suite; else the windows).
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int


def enough_clusters(clusters: Sequence[object] | None) -> Sequence[object] | None:
    """Return the groups to resample, or None where fewer than MIN_CLUSTERS are there: windows then count as single."""
    return clusters if clusters is not None and len(set(clusters)) >= MIN_CLUSTERS else None


def bootstrap_mean(
    values: NDArray[np.float64],
    seed: int,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of values (N,) with a percentile bootstrap interval.

    Windows of one world or recording are not independent of each other: with ``clusters`` (one label per value) whole
    clusters are resampled (Davison and Hinkley 1997, section 3.8), and the interval is as wide as that makes it.
    """
    ones = np.ones(len(values))
    return _bootstrap_ratio(np.asarray(values, float), ones, seed, clusters, confidence)


def bootstrap_ratio(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    seed: int,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return mean(numerators) / mean(denominators) of paired values (N,) with a percentile bootstrap interval."""
    return _bootstrap_ratio(np.asarray(numerators, float), np.asarray(denominators, float), seed, clusters, confidence)


def paired_difference(
    values: NDArray[np.float64],
    baseline: NDArray[np.float64],
    seed: int,
    clusters: Sequence[object] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Return mean(values - baseline) of paired values (N,) with a percentile bootstrap interval."""
    if len(values) != len(baseline):
        raise ShapeError(f"paired values must have equal length, got {len(values)} and {len(baseline)}")
    return bootstrap_mean(np.asarray(values, float) - np.asarray(baseline, float), seed, clusters, confidence)


def _bootstrap_ratio(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    seed: int,
    clusters: Sequence[object] | None,
    confidence: float,
) -> Interval:
    count = len(numerators)
    if len(denominators) != count or (clusters is not None and len(clusters) != count):
        raise ShapeError(f"bootstrap needs {count} denominators and cluster labels, got {len(denominators)}")
    if count == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0, 0)
    labels = np.arange(count) if clusters is None else cluster_labels(clusters)
    groups = int(labels.max()) + 1
    sums = np.stack([np.bincount(labels, weights, groups) for weights in (numerators, denominators)])
    value = _divide(sums[:, None].sum(axis=2))[0]
    if groups < 2:
        return Interval(float(value), float("nan"), float("nan"), count, groups)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(groups, size=(RESAMPLES, groups))
    replicates = _divide(sums[:, drawn].sum(axis=2))
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(replicates, [tail, 100.0 - tail])
    return Interval(float(value), float(low), float(high), count, groups)


def _divide(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums[0] / sums[1]; 0 / 0 is NaN without a warning."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[0] / sums[1])


def cluster_labels(clusters: Sequence[object]) -> NDArray[np.int64]:
    """Number the clusters in order of first appearance, so that the draw does not depend on how they are named."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in clusters], dtype=np.int64)


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share (Wilson 1927), 95 % for z = 1.96; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    middle = share + z * z / (2 * trials)
    spread = z * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5
    scale = 1 + z * z / trials
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
