"""The composed noise is the score of the product of densities."""

from __future__ import annotations

import pytest
import torch

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.world_model.composition import CompositionSettings, compose

SIGMA = 0.3
POINTS = torch.linspace(-2.0, 2.0, 12, dtype=torch.float64).reshape(3, 1, 2, 2)


def noise_of_gaussian(mean: float, std: float) -> torch.Tensor:
    """eps = -sigma * score of N(mean, std^2) at POINTS."""
    return SIGMA * (POINTS - mean) / std**2


def noise_of_product(exponents: list[float], means: list[float], stds: list[float]) -> torch.Tensor:
    """The same for the normalised product of powers of Gaussians, from its closed-form mean and variance."""
    precision = sum(e / s**2 for e, s in zip(exponents, stds, strict=True))
    mean = sum(e * m / s**2 for e, m, s in zip(exponents, means, stds, strict=True)) / precision
    return noise_of_gaussian(mean, precision**-0.5)


MEANS, STDS = [1.0, -0.5, 2.0], [0.5, 0.8, 0.6]
EPS = torch.stack([noise_of_gaussian(m, s) for m, s in zip(MEANS, STDS, strict=True)])
EPS_BAR = torch.stack([noise_of_gaussian(m, s) for m, s in zip([0.0, 0.3, 0.1], [1.0, 1.2, 1.5], strict=True)])
WEIGHTS = torch.tensor([2.0, 1.5, 1.0], dtype=torch.float64)


def test_literal_is_the_product_whose_exponents_sum_to_k() -> None:
    exponents = [2.0, 1.5, 1.0, -1.0, -0.5, 0.0]
    assert sum(exponents) == 3.0
    expected = noise_of_product(exponents, [*MEANS, 0.0, 0.3, 0.1], [*STDS, 1.0, 1.2, 1.5])
    torch.testing.assert_close(compose(EPS, EPS_BAR, WEIGHTS, "literal"), expected)


def test_normalised_is_the_product_whose_exponents_sum_to_one() -> None:
    exponents = [2.0, 1.5, 1.0, 1.0 - 2.0, -1.5, -1.0]
    assert sum(exponents) == 1.0
    expected = noise_of_product(exponents, [*MEANS, 0.0, 0.3, 0.1], [*STDS, 1.0, 1.2, 1.5])
    torch.testing.assert_close(compose(EPS, EPS_BAR, WEIGHTS, "normalised"), expected)
    free = noise_of_gaussian(0.7, 2.0)
    exponents = [2.0, 1.5, 1.0, -2.0, -1.5, -1.0, 1.0]
    expected = noise_of_product(exponents, [*MEANS, 0.0, 0.3, 0.1, 0.7], [*STDS, 1.0, 1.2, 1.5, 2.0])
    torch.testing.assert_close(compose(EPS, EPS_BAR, WEIGHTS, "normalised", free), expected)


def test_one_expert_is_classifier_free_guidance_in_both_modes() -> None:
    one = WEIGHTS[:1]
    guided = EPS_BAR[0] + 2.0 * (EPS[0] - EPS_BAR[0])
    for mode in ("literal", "normalised"):
        torch.testing.assert_close(compose(EPS[:1], EPS_BAR[:1], one, mode), guided)


def test_disagreeing_shapes_are_told() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        compose(EPS, EPS_BAR[:2], WEIGHTS)
    with pytest.raises(ShapeError, match=r"weights \(2,\)"):
        compose(EPS, EPS_BAR, WEIGHTS[:2])
    with pytest.raises(ConfigError, match=r"composition\.weights"):
        CompositionSettings(weights=())
