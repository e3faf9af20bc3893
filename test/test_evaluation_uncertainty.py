"""Whether a number tells an error: rank correlation, what leaving out the uncertain leaves, intervals over drives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from come_nav.core.errors import ShapeError
from come_nav.evaluation.metrics.uncertainty import bootstrap_of, rank_correlation, sparsification_error

ERRORS = np.random.default_rng(0).exponential(size=400)


def test_the_rank_correlation_is_spearmans():
    rng = np.random.default_rng(1)
    told = np.round(ERRORS + rng.normal(size=400), 1)  # with ties
    assert rank_correlation(told, ERRORS) == pytest.approx(spearmanr(told, ERRORS).statistic, abs=1e-12)
    assert rank_correlation(np.exp(ERRORS), ERRORS) == pytest.approx(1.0)
    assert np.isnan(rank_correlation(np.ones(400), ERRORS))


def test_what_tells_the_error_leaves_nothing_over_and_what_tells_nothing_leaves_all():
    assert sparsification_error(ERRORS**3, ERRORS) == pytest.approx(0.0, abs=1e-12)
    # without any knowledge the mean that is left stays that of all; the best one is known from the errors themselves
    best = np.cumsum(np.sort(ERRORS)) / np.arange(1, 401)
    assert sparsification_error(np.zeros(400), ERRORS) == pytest.approx((1.0 - best / ERRORS.mean()).mean())
    noise = sparsification_error(np.random.default_rng(2).normal(size=400), ERRORS)
    assert noise == pytest.approx(sparsification_error(np.zeros(400), ERRORS), abs=0.15)
    assert sparsification_error(-ERRORS, ERRORS) > noise > sparsification_error(ERRORS + 0.5, ERRORS)
    assert sparsification_error(np.ones(3), np.zeros(3)) == 0.0
    with pytest.raises(ShapeError, match="3 and 400"):
        sparsification_error(np.ones(3), ERRORS)


def test_whole_drives_are_drawn():
    labels = np.repeat(["a", "b", "c", "d"], 100)
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 100)
    over_drives = bootstrap_of(lambda own: float(values[own].mean()), 400, 0, list(labels))
    over_windows = bootstrap_of(lambda own: float(values[own].mean()), 400, 0)
    assert over_drives.value == over_windows.value == 1.5
    assert (over_drives.clusters, over_windows.clusters) == (4, 400)
    # the standard error of four drives is sqrt(1.25 / 4), of 400 windows sqrt(1.25 / 400)
    assert over_drives.high - over_drives.low == pytest.approx(2 * 1.96 * np.sqrt(1.25 / 4), rel=0.15)
    assert over_windows.high - over_windows.low == pytest.approx(2 * 1.96 * np.sqrt(1.25 / 400), rel=0.15)
    alone = bootstrap_of(lambda own: float(values[own].mean()), 400, 0, ["one"] * 400)
    assert alone.value == 1.5
    assert np.isnan(alone.low)
