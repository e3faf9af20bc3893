"""The likelihood of a rendered memory, against Gaussians in closed form, and its refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from come_nav.core.context import ContextViews
from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.types import Context
from come_nav.world_model.calibration.likelihood import (
    GainFit,
    LikelihoodSettings,
    SpatialLikelihood,
    bin_of,
    corrected_noise,
    residual_variance,
)
from come_nav.world_model.sampling.sampler import sample
from come_nav.world_model.sampling.schedule import NoiseSchedule, ScheduleSettings
from come_nav.world_model.sampling.settings import SamplerSettings

MEAN, VARIANCE, NOISE = 0.4, 0.8, 0.3  # of the clean latents, and of what the memory shows of them
SCHEDULE = NoiseSchedule.linear(ScheduleSettings())


def context(shown: torch.Tensor, known: torch.Tensor) -> Context:
    """Return a context whose evidence is latents (S, C, h, w) with known shares (S, h, w)."""
    evidence = torch.cat([shown, known[:, None].to(shown)], 1)
    empty = torch.zeros(1, 1, *shown.shape[1:])
    return Context(empty, torch.zeros(1, 1, 3), torch.zeros(1, 1), views=ContextViews(evidence=evidence))


def gaussian_noise(x_t: torch.Tensor, step: int) -> torch.Tensor:
    """Return the exact noise of latents drawn from N(MEAN, VARIANCE)."""
    abar = float(SCHEDULE.alphas_cumprod[step])
    return math.sqrt(1.0 - abar) * (x_t - math.sqrt(abar) * MEAN) / (abar * VARIANCE + 1.0 - abar)


def exact(levels: int = 400) -> SpatialLikelihood:
    """Return the likelihood with the exact gains of many levels."""
    fractions = tuple(np.linspace(0.0, 1.0, levels))
    settings = LikelihoodSettings.from_variances(SCHEDULE, VARIANCE, NOISE * 0.5, fractions, (1.0,))  # s = 1/2 of a bin
    return SpatialLikelihood(settings, len(SCHEDULE))


@pytest.mark.parametrize("step", [0, 10, 200, 500, 900, 999])
def test_the_corrected_noise_is_that_of_the_gaussian_posterior(step: int):
    generator = torch.Generator().manual_seed(step)
    shown = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    x_t = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    abar = float(SCHEDULE.alphas_cumprod[step])
    likelihood = exact(1000)
    known = torch.ones(4, 3, 3)
    corrected = corrected_noise(gaussian_noise(x_t, step), x_t, abar, likelihood, step, context(shown, known))
    # x_0 given r is Gaussian, too: its noise in closed form
    precision = 1.0 / VARIANCE + 1.0 / NOISE
    mean, variance = (MEAN / VARIANCE + shown / NOISE) / precision, 1.0 / precision
    wanted = math.sqrt(1.0 - abar) * (x_t - math.sqrt(abar) * mean) / (abar * variance + 1.0 - abar)
    torch.testing.assert_close(corrected, wanted, rtol=1e-6, atol=1e-6)


def test_samples_have_the_mean_and_the_variance_of_the_posterior():
    count, likelihood = 4000, exact()
    shown = torch.full((count, 1, 1, 1), 1.2, dtype=torch.float64)
    told = context(shown, torch.ones(count, 1, 1))

    def noise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        step = int(t[0])
        abar = float(SCHEDULE.alphas_cumprod[step])
        return corrected_noise(gaussian_noise(x_t, step), x_t, abar, likelihood, step, told)

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(count, 1, 1, 1, generator=generator, dtype=torch.float64)
    drawn = sample(noise, start, SamplerSettings(name="ddpm", steps=200), SCHEDULE, generator)
    precision = 1.0 / VARIANCE + 1.0 / NOISE
    assert float(drawn.mean()) == pytest.approx((MEAN / VARIANCE + 1.2 / NOISE) / precision, abs=0.03)
    assert float(drawn.var()) == pytest.approx(1.0 / precision, rel=0.08)


def test_holes_stay_as_the_experts_have_them():
    settings = LikelihoodSettings((0.0, 1.0), (0.5, 1.0), (((0.2,), (0.9,)), ((0.4,), (1.0,))))
    likelihood = SpatialLikelihood(settings, 1000)
    known = torch.tensor([[[0.0, 0.3], [0.5, 0.8]]])
    gains = likelihood.gain(999, known)[0, 0]
    torch.testing.assert_close(gains, torch.tensor([[0.0, 0.4], [0.4, 1.0]]))
    torch.testing.assert_close(likelihood.gain(0, known)[0, 0], torch.tensor([[0.0, 0.2], [0.2, 0.9]]))
    middle = likelihood.gain(500, known)[0, 0, 1, 1]
    assert float(middle) == pytest.approx(0.9 + 0.1 * 500 / 999, abs=1e-6)
    x0_hat = torch.zeros(1, 2, 2, 2)
    corrected = likelihood.correct(x0_hat, 999, context(torch.ones(1, 2, 2, 2), known))
    assert float(corrected[0, 0, 0, 0]) == 0.0
    assert float(corrected[0, 1, 1, 1]) == 1.0


def test_tempering_divides_the_precision():
    variance, noise, temper = 0.7, 0.2, 0.25
    whole = variance / (variance + noise)
    settings = LikelihoodSettings((0.0,), (1.0,), (((whole,),),), temper=temper)
    assert float(settings.table[0, 0, 0]) == pytest.approx(variance / (variance + noise / temper))
    assert float(LikelihoodSettings(gains=(((1.0,),), ((1.0,),)), temper=0.0).table.max()) == 0.0


def test_gains_are_fitted_as_the_regression_that_they_are():
    generator = torch.Generator().manual_seed(0)
    fit = GainFit(2, (0.0, 1.0), (0.5, 1.0))
    clean = torch.randn(60, 2, 8, 8, generator=generator)
    predicted = clean + math.sqrt(0.5) * torch.randn(clean.shape, generator=generator)
    known = torch.rand(60, 8, 8, generator=generator)
    spread = torch.where(known > 0.5, 0.1, 0.9)[:, None].sqrt()
    shown = clean + spread * torch.randn(clean.shape, generator=generator)
    fit.add(1, clean, predicted, shown, known)
    settings = fit.settings()
    assert settings.gains[1][0] == pytest.approx((0.5 / 1.4,) * 2, abs=0.03)
    assert settings.gains[1][1] == pytest.approx((0.5 / 0.6,) * 2, abs=0.03)
    assert settings.gains[0][0] == (0.0, 0.0)  # nothing was seen at that level
    again = GainFit(2, (0.0, 1.0), (0.5, 1.0))
    again.add(1, clean, predicted, predicted + 5.0 * (predicted - clean), known)  # it shows the opposite
    assert max(again.settings().gains[1][1]) == 0.0


def test_a_bin_with_few_cells_has_the_gains_of_the_one_below():
    fit = GainFit(1, (1.0,), (0.5, 1.0))
    clean, predicted = torch.ones(1, 1, 20, 20), torch.zeros(1, 1, 20, 20)
    known = torch.full((1, 20, 20), 0.4)
    known[0, 0, :5] = 0.9
    shown = torch.where(known[:, None] > 0.5, 1.0, 2.0)
    fit.add(0, clean, predicted, shown, known)
    assert fit.settings().gains == (((0.5,), (0.5,)),)
    assert fit.settings(least_cells=5).gains == (((0.5,), (1.0,)),)


def test_residual_variance_at_the_ends():
    assert residual_variance(0.7, 0.0) == pytest.approx(0.7)
    assert residual_variance(0.7, 1.0) == 0.0


def test_bins():
    known = torch.tensor([0.0, 0.1, 0.25, 0.26, 1.0, 1.0001])
    assert bin_of(known, (0.25, 0.5, 1.0)).tolist() == [-1, 0, 0, 1, 2, 2]


def test_a_likelihood_that_replaces_everything_is_called_a_paste():
    assert LikelihoodSettings(gains=(((1.0,),), ((1.0,),))).pastes
    assert not LikelihoodSettings(gains=(((0.3,),), ((1.0,),))).pastes


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"levels": (1.0, 0.0)}, "levels must rise"),
        ({"shares": (0.5, 1.5)}, "shares must rise"),
        ({"gains": (((0.5,),),)}, "2 levels x 1 shares"),
        ({"gains": (((1.5,),), ((0.0,),))}, r"in \[0, 1\]"),
        ({"gains": (((0.5,),), ((0.5, 0.5),))}, "as many numbers"),
        ({"temper": -1.0}, "temper"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said):
        LikelihoodSettings(**values)


def test_a_context_without_evidence_is_refused():
    plain = Context(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 3), torch.zeros(1, 1))
    with pytest.raises(ShapeError, match="evidence"):
        exact(2).correct(torch.zeros(1, 2, 2, 2), 0, plain)
