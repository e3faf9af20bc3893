"""Weights fitted to what came true, against regressions in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError
from come_nav.world_model.calibration.weight_fit import FitSums, fitted_on, fitted_weights

TRUE = np.array([0.8, 0.0, 0.5])


def frames(count: int = 40, noise: float = 0.1, weights: np.ndarray = TRUE, seed: int = 0) -> FitSums:
    """Return sums of frames whose clean latents are the composition with ``weights``, and noise."""
    generator = torch.Generator().manual_seed(seed)
    contrasts = torch.randn(3, count, 4, 8, 8, generator=generator)
    free = torch.randn(count, 4, 8, 8, generator=generator)
    clean = free + torch.einsum("k,kbchw->bchw", torch.tensor(weights).float(), contrasts)
    return FitSums.of(clean + noise * torch.randn(clean.shape, generator=generator), free, contrasts)


def test_true_weights_are_found_and_the_error_is_the_noise():
    weights = fitted_weights(frames(), np.ones(3))
    np.testing.assert_allclose(weights, TRUE, atol=0.005)
    assert frames(seed=1).error(weights) == pytest.approx(0.01, rel=0.05)


def test_the_error_is_the_mean_square_that_it_says():
    generator = torch.Generator().manual_seed(3)
    contrasts, free, clean = (torch.randn(*shape, 5, 2, 3, 3, generator=generator) for shape in ((2,), (), ()))
    weights = np.array([0.3, -0.2])
    predicted = free + 0.3 * contrasts[0] - 0.2 * contrasts[1]
    sums = FitSums.of(clean, free, contrasts)
    assert sums.error(weights) == pytest.approx(float(((clean - predicted) ** 2).mean()), rel=1e-5)
    assert np.isnan(FitSums.none(2).error(weights))


def test_sums_of_parts_add_up():
    whole, left = frames(), FitSums.none(3)
    for count in range(2):
        left = left + frames(seed=count)
    assert left.frames == 80
    both = frames(seed=0) + frames(seed=1)
    np.testing.assert_allclose(left.contrasts, both.contrasts)
    assert left.error(TRUE) == pytest.approx(0.5 * (whole.error(TRUE) + frames(seed=1).error(TRUE)))
    assert both.faded(0.5).frames == 40
    assert both.faded(0.5).error(TRUE) == pytest.approx(both.error(TRUE))


def test_the_prior_counts_as_so_many_frames():
    sums, prior = frames(40, noise=0.0), np.full(3, 0.2)
    assert fitted_weights(sums, prior, 0.0) == pytest.approx(TRUE, abs=0.01)
    assert fitted_weights(sums, prior, 40.0) == pytest.approx(0.5 * (TRUE + prior), abs=0.03)  # half and half
    assert fitted_weights(sums, prior, 1e9) == pytest.approx(prior, abs=1e-3)
    assert fitted_weights(FitSums.none(3), prior, 5.0) == pytest.approx(prior, abs=1e-6)  # nothing seen: as shipped


def test_weights_are_not_negative_unless_they_may_be():
    true = np.array([0.8, -0.4, 0.5])
    sums = frames(weights=true)
    clipped = fitted_weights(sums, np.ones(3))
    assert clipped[1] == 0.0
    assert clipped[[0, 2]] == pytest.approx(true[[0, 2]], abs=0.05)
    np.testing.assert_allclose(fitted_weights(sums, np.ones(3), signed=True), true, atol=0.01)


def test_an_expert_is_worth_what_its_absence_costs():
    sums, held_out, rises = frames(seed=0), frames(seed=1), []
    whole = held_out.error(fitted_weights(sums, np.zeros(3)))
    for left_out in range(3):
        rest = fitted_on(sums, [number for number in range(3) if number != left_out], np.zeros(3))
        assert rest[left_out] == 0.0
        rises.append(held_out.error(rest) / whole - 1.0)
    assert rises[1] == pytest.approx(0.0, abs=0.01)
    # without it, its share of the variance is left: w^2 over the noise
    assert rises[0] == pytest.approx(0.8**2 / 0.01, rel=0.1)
    assert rises[2] == pytest.approx(0.5**2 / 0.01, rel=0.1)


def test_bad_priors_are_refused():
    with pytest.raises(ConfigError, match="3 weights, got 2"):
        fitted_weights(frames(), np.ones(2))
    with pytest.raises(ConfigError, match="prior_frames"):
        fitted_weights(frames(), np.ones(3), -1.0)
