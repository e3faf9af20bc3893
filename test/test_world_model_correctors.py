"""Langevin steps and resampled particles on products of Gaussians, whose answers are known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from come_nav.core.errors import ConfigError
from come_nav.world_model.composition import ProductNoise
from come_nav.world_model.sampling.correctors import langevin
from come_nav.world_model.sampling.resampling import (
    Population,
    effective_number,
    log_weight_rate,
    step_duration,
    systematic,
)
from come_nav.world_model.sampling.sampler import noise_source, sample
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sampling.settings import CorrectorSettings, ResamplingSettings, SamplerSettings

SCHEDULE = NoiseSchedule.linear()
ULA = CorrectorSettings(steps=5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_noise(x_t: Tensor, t: Tensor, mean: float, variance: float) -> Tensor:
    """The exact noise in samples of N(mean, variance)."""
    abar = float(SCHEDULE.alphas_cumprod[int(t[0])])
    return math.sqrt(1 - abar) * (x_t - math.sqrt(abar) * mean) / (abar * variance + 1 - abar)


def product(free: float, conditional: float) -> Callable[[Tensor, Tensor], ProductNoise]:
    """N(0, 1)^free N(1, 0.25)^conditional: two identical conditional experts have half the exponent each."""

    def predict(x_t: Tensor, t: Tensor) -> ProductNoise:
        noises = torch.stack([gaussian_noise(x_t, t, 0.0, 1.0), gaussian_noise(x_t, t, 1.0, 0.25)])
        return ProductNoise(noises, torch.tensor([free, conditional], dtype=x_t.dtype))

    return predict


def exact(free: float, conditional: float) -> tuple[float, float]:
    """Mean and standard deviation of that product."""
    precision = free + 4.0 * conditional
    return 4.0 * conditional / precision, precision**-0.5


def moments(exponents: tuple[float, float], how: SamplerSettings, count: int = 4000) -> tuple[float, float]:
    found = sample(product(*exponents), (count, 1, 1, 1), how, SCHEDULE, seeded())
    return float(found.mean()), float(found.std())


# -- the table of products: exact answer, what a deterministic sampler makes of it, and what mends it ------------------

PRODUCTS = {
    "guidance 1 each": ((-1.0, 2.0), (1.143, 0.378)),
    "guidance 2 each": ((-3.0, 4.0), (1.231, 0.277)),
    "literal, alpha 2": ((-2.0, 4.0), (1.143, 0.267)),
    "plain product": ((0.0, 2.0), (1.000, 0.354)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_exact_products(name: str) -> None:
    exponents, answer = PRODUCTS[name]
    assert exact(*exponents) == pytest.approx(answer, abs=5e-4)


@pytest.mark.parametrize("exponents", [(-2.0, 4.0), (0.0, 2.0)], ids=["alpha 2", "plain"])
def test_exponents_that_sum_to_two_collapse_under_deterministic_ddim(exponents: tuple[float, float]) -> None:
    assert moments(exponents, SamplerSettings("ddim", 50))[1] < 0.01
    stochastic = moments(exponents, SamplerSettings("ddpm", 250))[1]
    assert 0.65 * exact(*exponents)[1] < stochastic < exact(*exponents)[1]


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_five_langevin_steps_a_level_repair_every_product(name: str, sampler: str) -> None:
    exponents, (mean, std) = PRODUCTS[name]
    how = SamplerSettings(sampler, 100, corrector=ULA)  # type: ignore[arg-type]
    found = moments(exponents, how)
    assert found == pytest.approx((mean, std), abs=0.03)
    assert abs(found[1] - std) < 0.4 * abs(moments(exponents, SamplerSettings(sampler, 100))[1] - std)  # type: ignore[arg-type]


def test_resampled_particles_are_within_a_hundredth_of_the_exact_product() -> None:
    particles = ResamplingSettings(particles=20_000)
    how = SamplerSettings("ddpm", 1000, resampling=particles)
    mean, std = moments_of_particles((-1.0, 2.0), how)
    assert (mean, std) == pytest.approx(exact(-1.0, 2.0), abs=0.01)
    plain = moments((-1.0, 2.0), SamplerSettings("ddpm", 1000))
    assert abs(plain[0] - exact(-1.0, 2.0)[0]) > 0.08


@pytest.mark.parametrize("exponents", [(-3.0, 4.0), (-2.0, 4.0)], ids=["guidance 2 each", "literal, alpha 2"])
def test_resampling_and_one_langevin_step_are_within_two_hundredths(exponents: tuple[float, float]) -> None:
    """Strong contrasts leave few effective particles; one Langevin step a level tells copies apart again."""
    particles = ResamplingSettings(particles=10_000)
    how = SamplerSettings("ddpm", 250, resampling=particles, corrector=CorrectorSettings(1))
    assert moments_of_particles(exponents, how) == pytest.approx(exact(*exponents), abs=0.02)


def moments_of_particles(exponents: tuple[float, float], how: SamplerSettings) -> tuple[float, float]:
    """Moments of the weighted population of one answer, not of the single particle that is drawn from it."""
    seen: list[Tensor] = []
    count = how.resampling.particles
    original = Population.draw_one

    def draw_all(self: Population) -> Tensor:
        weights = self.log_weights.softmax(1)
        chosen = systematic(weights, torch.full((1,), 0.5, dtype=weights.dtype))[0]
        seen.append(chosen)
        return chosen

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Population, "draw_one", draw_all)
        scale = sum(exponents)
        found = sample(product(*exponents), (1, 1, 1, 1), how, SCHEDULE, seeded(), exponent_sum=scale)
    assert original is Population.draw_one
    assert len(seen) == 1
    assert len(found) == count
    return float(found.mean()), float(found.std())


# -- Langevin ----------------------------------------------------------------------------------------------------------


def test_langevin_draws_from_the_level_that_it_stands_at() -> None:
    """Stationary at N(m, s^2) up to the known bias of the step size: variance s^2 / (1 - delta / (2 s^2))."""
    mean, std, sigma, beta = 0.7, 0.5, 0.8, 0.02
    start = torch.full((20_000, 1, 1, 1), 3.0, dtype=torch.float64)
    found = langevin(
        start,
        lambda x: sigma * (x - mean) / std**2,
        beta,
        sigma,
        CorrectorSettings(150, 2.0),
        noise_source(seeded()),
    )
    assert found.mean().item() == pytest.approx(mean, abs=0.02)
    assert found.var().item() == pytest.approx(std**2 / (1 - 2.0 * beta / (2 * std**2)), rel=0.03)


def test_no_corrector_and_one_particle_change_nothing() -> None:
    plain = SamplerSettings("ddpm", 5)
    off = SamplerSettings("ddpm", 5, corrector=CorrectorSettings(0), resampling=ResamplingSettings(1))
    first, second = (sample(product(-1.0, 2.0), (3, 1, 2, 2), how, SCHEDULE, seeded()) for how in (plain, off))
    assert torch.equal(first, second)


# -- resampling --------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.01, 10.0), min_size=2, max_size=12), st.floats(0.0, 0.999))
@settings(deadline=None, max_examples=50)
def test_systematic_resampling_keeps_each_particle_as_often_as_its_weight(raw: list[float], start: float) -> None:
    weights = torch.tensor([raw], dtype=torch.float64)
    weights = weights / weights.sum()
    rows = systematic(weights, torch.tensor([start], dtype=torch.float64))[0]
    counts = torch.bincount(rows, minlength=len(raw)).double()
    assert counts.sum() == len(raw)
    assert ((counts - weights[0] * len(raw)).abs() < 1.0 + 1e-6).all()


def test_effective_number() -> None:
    weights = torch.tensor([[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    assert effective_number(weights).tolist() == pytest.approx([4.0, 1.0, 2.0])


def test_rate_equals_its_definition() -> None:
    noises, exponents, sigma = torch.randn(3, 5, 2, 2, 2, generator=seeded()), torch.tensor([2.0, -1.5, 0.5]), 0.6
    scores = -noises / sigma
    composed = (exponents[:, None, None, None, None] * scores).sum(0).flatten(1).square().sum(1)
    expected = 0.5 * (composed - sum(b * s.flatten(1).square().sum(1) for b, s in zip(exponents, scores, strict=True)))
    found = log_weight_rate(ProductNoise(noises, exponents), sigma)
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-4)
    one = ProductNoise(noises[:1], torch.ones(1))
    assert log_weight_rate(one, sigma).abs().max() < 1e-6  # a plain density needs no weights


def test_durations_of_a_shorter_schedule_add_up() -> None:
    whole = sum(step_duration(float(beta)) for beta in SCHEDULE.betas)
    visited = SCHEDULE.respaced("trailing20")
    assert sum(step_duration(float(beta)) for beta in visited.betas) == pytest.approx(whole)


def test_only_poor_populations_are_drawn_anew() -> None:
    population = Population(8, ResamplingSettings(particles=4), seeded())
    population.log_weights[1] = torch.tensor([0.0, -40.0, -40.0, -40.0])
    rows = population.resample()
    assert rows is not None
    assert rows.tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert population.log_weights.abs().max() == 0.0
    assert population.resample() is None


def test_each_answer_gets_a_particle_of_its_own() -> None:
    """Answers differ by their mean; their particles must not be exchanged."""
    means = torch.tensor([-4.0, 0.0, 4.0]).repeat_interleave(16).reshape(-1, 1, 1, 1)

    def predict(x_t: Tensor, t: Tensor) -> ProductNoise:
        abar = float(SCHEDULE.alphas_cumprod[int(t[0])])
        narrow = math.sqrt(1 - abar) * (x_t - math.sqrt(abar) * means) / (abar * 0.04 + 1 - abar)
        wide = math.sqrt(1 - abar) * (x_t - math.sqrt(abar) * means) / (abar * 0.25 + 1 - abar)
        return ProductNoise(torch.stack([narrow, wide]), torch.tensor([2.0, -1.0]))

    how = SamplerSettings("ddpm", 50, resampling=ResamplingSettings(particles=16))
    found = sample(predict, (3, 1, 1, 1), how, SCHEDULE, seeded())
    assert found.shape == (3, 1, 1, 1)
    torch.testing.assert_close(found.flatten(), torch.tensor([-4.0, 0.0, 4.0]), atol=0.8, rtol=0)
    again = sample(predict, (3, 1, 1, 1), how, SCHEDULE, seeded())
    assert torch.equal(found, again)


def test_impossible_settings_are_told() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.corrector\.steps must be >= 0, got -1"):
        CorrectorSettings(-1)
    with pytest.raises(ConfigError, match=r"sampler\.resampling\.threshold must be in \[0, 1\], got 2"):
        ResamplingSettings(threshold=2)
    with pytest.raises(ConfigError, match=r"sampler\.resampling\.particles must be >= 1"):
        ResamplingSettings(particles=0)
