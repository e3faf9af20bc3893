"""How well a number that is known beforehand tells how large an error will be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import ShapeError
from come_nav.evaluation.metrics.statistics import RESAMPLES, Interval, cluster_labels

Values = NDArray[np.float64]


def rank_correlation(told: Values, errors: Values) -> float:
    """Return Spearman's rank correlation of two (N,), ties at their mean rank; NaN where one of them is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) - 0.5 * (len(values) + 1) for values in (told, errors)]
    scale = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / scale if scale > 0 else float("nan")


def sparsification_error(told: Values, errors: Values) -> float:
    """Return the area between two curves of the mean error that is left, in units of the mean of all errors.

    One leaves out the windows with the largest numbers (N,) first, the other those with the largest errors (N,), which
    no number can do better: AUSE (Ilg et al. 2018, arXiv 1802.07095). Equal numbers count as their mean error.
    """
    if len(told) != len(errors):
        raise ShapeError(f"every error needs one number, got {len(told)} and {len(errors)}")
    mean = float(errors.mean())
    if mean <= 0.0:
        return 0.0
    left = np.cumsum(np.sort(errors)) / np.arange(1, len(errors) + 1)
    return float((np.cumsum(_in_order_of(told, errors)) / np.arange(1, len(errors) + 1) - left).mean()) / mean


def _in_order_of(told: Values, errors: Values) -> Values:
    """Return the errors from the smallest number to the largest, those of equal numbers as their mean."""
    _, groups = np.unique(told, return_inverse=True)
    means = np.bincount(groups, errors) / np.bincount(groups)
    return np.asarray(means[np.sort(groups)])


def bootstrap_of(
    statistic: Callable[[NDArray[np.int64]], float],
    count: int,
    seed: int,
    clusters: Sequence[object] | None = None,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return any statistic of windows with a 95 % percentile bootstrap interval.

    Args:
        statistic: of the numbers (M,) of the windows that were drawn; NaN draws are left out of the interval.
        count: of windows.
        seed: of the draws.
        clusters: (count,) labels; whole clusters are drawn. None draws windows.
        resamples: how many draws.
    """
    check_range("windows", count, 1)
    everything = np.arange(count)
    labels = everything if clusters is None else cluster_labels(clusters)
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    value = statistic(everything)
    if len(members) < 2:
        return Interval(value, float("nan"), float("nan"), count, len(members))
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(members), size=(resamples, len(members)))
    found = np.array([statistic(np.concatenate([members[number] for number in row])) for row in drawn])
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Interval(value, float(low), float(high), count, len(members))
