"""Kernel distance and coverage of sets of images against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError
from come_nav.evaluation.metrics.image_sets import coverage, kernel_distance
from come_nav.world_model.depth import DepthEstimator, DepthSettings


def draw(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + shift


def test_kernel_distance_of_one_distribution_is_zero_and_grows_with_a_shift():
    generator = torch.Generator().manual_seed(0)
    same, near, far = (kernel_distance(draw(400, 1), draw(400, 2, shift), generator) for shift in (0.0, 0.5, 1.5))
    assert abs(same.value) < 0.02 < near.value < far.value
    assert same.low < same.value < same.high and same.subset == 200
    again = kernel_distance(draw(400, 1), draw(400, 2, 0.5), torch.Generator().manual_seed(5))
    assert again.value == pytest.approx(near.value, rel=0.1)


def test_kernel_distance_of_two_points_is_the_kernels():
    """One subset that holds all: the unbiased estimate, written out."""
    real, made = draw(5, 3), draw(4, 4)
    found = kernel_distance(real[:4], made, torch.Generator().manual_seed(0), subset=4, subsets=1)
    own = [(part.double() - real[:4].double().mean(0)) / real[:4].double().std(0) for part in (real[:4], made)]
    kernel = [[((a @ b.T) / 6 + 1) ** 3 for b in own] for a in own]
    within = sum(float(kernel[i][i].sum() - kernel[i][i].diagonal().sum()) / 12 for i in (0, 1))
    assert found.value == pytest.approx(within - 2 * float(kernel[0][1].mean()), rel=1e-5)


def test_coverage_of_exact_and_of_equal_samples():
    truths = draw(30, 6)
    others = draw(30 * 4, 7).view(30, 4, 6)
    exact = coverage(torch.cat([truths[:, None], others], 1), truths)
    np.testing.assert_allclose(exact.nearest, 0.0, atol=1e-9)
    assert exact.mean.mean() == pytest.approx(0.8, abs=0.1) and exact.spread.mean() == pytest.approx(1.0, abs=0.1)
    grey = coverage(truths.mean(0).expand(30, 5, 6), truths)
    assert grey.spread.max() == 0.0 and grey.nearest.mean() == pytest.approx(2**-0.5, abs=0.1)
    with pytest.raises(ConfigError, match="samples"):
        coverage(truths[:, None], truths)


def test_features_of_images_do_not_depend_on_the_batch_and_differ():
    estimator = DepthEstimator(DepthSettings(widths=(8, 16), inner_blocks=1))
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        features = estimator.features(images)
        one = estimator.features(images[1:2])
    assert features.shape == (3, 32)
    torch.testing.assert_close(features[1:2], one)
    assert not torch.allclose(features[0], features[1])
