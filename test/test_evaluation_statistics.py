"""Bootstrap intervals: coverage on known distributions, clusters and pairs."""

from __future__ import annotations

import numpy as np
import pytest

from come_nav.core.errors import ShapeError
from come_nav.evaluation.metrics.statistics import bootstrap_mean, bootstrap_ratio, paired_difference


def test_the_mean_is_the_mean_and_the_seed_decides_the_interval():
    values = np.random.default_rng(0).exponential(size=50)
    first, again, other = (bootstrap_mean(values, seed) for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == pytest.approx(values.mean())
    assert first.low < first.value < first.high
    assert (first.n, first.clusters) == (50, 50)


def test_ninety_five_percent_of_intervals_hold_the_true_mean():
    rng = np.random.default_rng(3)
    held = 0
    for trial in range(200):
        interval = bootstrap_mean(rng.normal(2.0, 1.0, size=60), trial)
        held += interval.low <= 2.0 <= interval.high
    assert 0.90 <= held / 200 <= 0.98  # a percentile interval of 60 values covers slightly less than 95 %


def test_clusters_widen_the_interval_to_the_truth():
    rng = np.random.default_rng(4)
    held, widths = 0, []
    for trial in range(80):
        centres = rng.normal(size=25)
        labels = np.repeat(np.arange(25), 8)
        values = centres[labels] + 0.1 * rng.normal(size=200)
        clustered, naive = bootstrap_mean(values, trial, labels.tolist()), bootstrap_mean(values, trial)
        held += clustered.low <= 0.0 <= clustered.high
        widths.append((clustered.high - clustered.low) / (naive.high - naive.low))
    assert held / 80 >= 0.85
    assert np.median(widths) > 2.0
    assert clustered.clusters == 25


def test_pairs_are_resampled_together():
    rng = np.random.default_rng(5)
    windows = rng.exponential(5.0, size=80)  # how hard a window is; both rows suffer alike
    first, second = 0.8 * windows + 0.01 * rng.normal(size=80), windows
    difference = paired_difference(first, second, 0)
    assert difference.high < 0.0
    ratio = bootstrap_ratio(first, second, 0)
    assert ratio.value == pytest.approx(first.mean() / second.mean())
    assert ratio.high - ratio.low < 0.01
    alone = bootstrap_mean(first, 0)
    assert alone.high > bootstrap_mean(second, 0).low  # apart, the two could not be told from each other


def test_too_little_to_resample_gives_no_interval():
    single = bootstrap_mean(np.array([3.0]), 0)
    assert single.value == 3.0
    assert np.isnan(single.low)
    assert bootstrap_mean(np.zeros(0), 0).n == 0
    assert np.isnan(bootstrap_mean(np.arange(4.0), 0, ["a"] * 4).low)


def test_lengths_must_agree():
    with pytest.raises(ShapeError):
        paired_difference(np.zeros(3), np.zeros(4), 0)
    with pytest.raises(ShapeError):
        bootstrap_ratio(np.zeros(3), np.ones(3), 0, ["a"])
