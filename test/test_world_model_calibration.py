"""Level weights, contrasts of noised truth, and the likelihood inside the sampler, on the shipped model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_world_model_memory import ACTIONS, Oracle, context_of, drive, model, predicted

from come_nav.core.errors import ConfigError
from come_nav.evaluation.suites.memory.calibration import composed, halves, reduced
from come_nav.experts.passes import Query
from come_nav.world_model.calibration.contrasts import contrasts_at
from come_nav.world_model.calibration.likelihood import LikelihoodSettings
from come_nav.world_model.composition import CompositionSettings, LevelWeights
from come_nav.world_model.model import with_levels, with_likelihood
from come_nav.world_model.prediction import product_of
from come_nav.world_model.sampling.settings import SamplerSettings
from come_nav.world_model.views import memory_view, seen_from

__all__ = ["drive", "model"]  # fixtures
PASTE = LikelihoodSettings(gains=(((1.0,),), ((1.0,),)))
NOTHING = LikelihoodSettings()


def test_the_nearest_level_has_its_weights(model, drive) -> None:
    levels = (LevelWeights(0.2, (1.0, 0.0, 0.0)), LevelWeights(1.0, (0.5, 0.0, 2.0)))
    remembering = model.with_memory(Oracle(drive))
    assert list(remembering.experts) == ["base", "short_term", "spatial"]
    remembering.composition = replace(remembering.composition, levels=levels)
    product, steps = product_of(remembering), len(model.schedule)
    assert len(product.exponents(0)) == 1  # the base alone
    noisy = sorted(product.exponents(steps - 1).values())
    assert noisy == pytest.approx([-1.5, 0.5, 2.0])  # base - 2 base, no context, memory
    assert product.exponents(round(0.59 * steps)) == product.exponents(0)
    assert product.exponents(round(0.61 * steps)) == product.exponents(steps - 1)
    told = with_levels(remembering, {1.0: {"base": 1.04, "short_term": 0.3, "spatial": 0.97}}, 0.1)
    # base 1.04 - 0.97, no context 1 - 1.04 - 0.3: the first is left out, and the memory takes it over
    assert sorted(product_of(told).exponents(steps - 1).values()) == pytest.approx([-0.34, 0.3, 1.04])
    with pytest.raises(ConfigError, match="levels must hold 1 weights each, got 2"):
        CompositionSettings(weights=(1.0,), levels=(LevelWeights(1.0, (1.0, 1.0)),))


@pytest.mark.parametrize("step", [300, 999])
def test_composed_contrasts_are_what_the_product_predicts(model, drive, step: int) -> None:
    remembering = model.with_memory(Oracle(drive))
    weights = np.array([0.9, 0.2, 0.6])
    remembering.composition = replace(remembering.composition, weights=tuple(weights))
    context, times = context_of(model, drive, older=6), torch.full((3,), 8.0)
    clean = torch.randn(3, *context.latents.shape[2:], generator=torch.Generator().manual_seed(1))
    own = contrasts_at(remembering, context, ACTIONS, times, clean, step, torch.Generator().manual_seed(2))
    abar = float(model.schedule.alphas_cumprod[step])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    x_t = math.sqrt(abar) * clean + math.sqrt(1.0 - abar) * noise
    product = product_of(remembering)
    seen = seen_from(remembering, context, ACTIONS, product.views)
    with torch.inference_mode():
        query = Query(x_t, torch.full((3,), step), seen, ACTIONS, times)
        eps = product(query, step).composed()
    wanted = (x_t - math.sqrt(1.0 - abar) * eps) / math.sqrt(abar)
    torch.testing.assert_close(composed(own, weights), wanted, atol=5e-3, rtol=1e-3)
    assert own.names == ("base", "short_term", "spatial")
    assert own.evidence is None
    assert own.passes[0] == (own.passes[2][1], own.passes[1][1])  # the base is the spatial expert's other side
    every, count = reduced(own, weights, 0.0)
    torch.testing.assert_close(every, composed(own, weights), atol=5e-4, rtol=1e-3)
    assert count == len(product.exponents(step)) == 4
    few, left = reduced(own, weights, 0.25)
    remembering.composition = replace(remembering.composition, least_exponent=0.25)
    assert left == len(product_of(remembering).exponents(step)) == 2
    # memory 0.6, base 0.9 - 0.6, longer past 0.2, no context 1 - 0.9 - 0.2: the last two go to the first
    assert sorted(product_of(remembering).exponents(step).values()) == pytest.approx(sorted([0.3, 0.7]))
    torch.testing.assert_close(few, 0.3 * own.with_memory[0] + 0.7 * own.with_memory[2], atol=5e-4, rtol=1e-3)


def test_a_likelihood_of_gain_one_is_a_paste_and_of_gain_zero_nothing(model, drive) -> None:
    oracle, context = Oracle(drive), context_of(model, drive)
    pasted = with_likelihood(model, PASTE, oracle)
    shown = model.encode(memory_view(pasted, context, ACTIONS).filled)
    torch.testing.assert_close(predicted(pasted, context), shown, atol=2e-3, rtol=1e-3)
    nothing = with_likelihood(model, NOTHING, oracle)
    torch.testing.assert_close(predicted(nothing, context), predicted(model, context), atol=1e-4, rtol=1e-4)
    off = with_likelihood(pasted, None, oracle)
    torch.testing.assert_close(predicted(off, context), predicted(model, context))


def test_a_training_free_memory_brings_the_base_nearer_to_the_truth(model, drive) -> None:
    oracle, context = Oracle(drive), context_of(model, drive)
    half = LikelihoodSettings(gains=(((0.5,),), ((0.5,),)))
    remembering = with_likelihood(model, half, oracle)
    remembering.sampler = SamplerSettings(name="ddim", steps=4)
    truth = model.encode(memory_view(remembering, context, ACTIONS).filled)
    without = (predicted(model, context) - truth).square().mean()
    assert (predicted(remembering, context) - truth).square().mean() < 0.5 * without


def test_gains_must_fit_the_latents_and_particles_refuse_them(model, drive) -> None:
    with pytest.raises(ConfigError, match="1 or 32 channels, got 2"):
        with_likelihood(model, LikelihoodSettings(gains=(((0.5, 0.5),), ((0.5, 0.5),))), Oracle(drive))
    particles = with_likelihood(model, PASTE, Oracle(drive))
    resampling = replace(model.sampler.resampling, particles=2)
    particles.sampler = replace(model.sampler, resampling=resampling)
    with pytest.raises(ConfigError, match="without the likelihood"):
        predicted(particles, context_of(model, drive))
    levels = model.with_memory(Oracle(drive))
    levels.sampler = particles.sampler
    levels.composition = replace(levels.composition, levels=(LevelWeights(1.0, (1.0, 0.0, 1.0)),))
    with pytest.raises(ConfigError, match=r"composition\.levels"):
        predicted(levels, context_of(model, drive))


def test_halves_are_whole_drives_where_there_are_several() -> None:
    fit, _ = halves(["a", "a", "b", "b", "c"])
    assert fit.tolist() == [True, True, False, False, True]
    fit, _ = halves(["a"] * 5)
    assert fit.tolist() == [True, True, False, False, False]
