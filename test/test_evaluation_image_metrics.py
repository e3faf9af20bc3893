"""PSNR, SSIM and sharpness against torchmetrics and closed forms."""

from __future__ import annotations

import pytest
import torch

from come_nav.core.errors import ShapeError
from come_nav.evaluation.metrics.image_metrics import psnr, sharpness_ratio, ssim


def images(seed: int = 0, shape=(4, 3, 48, 33)) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noisy(clean: torch.Tensor, level: float = 0.2) -> torch.Tensor:
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    return (clean + level * noise).clamp(-1, 1)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 255.0)])
def test_both_agree_with_torchmetrics(value_range):
    reference = pytest.importorskip("torchmetrics.functional.image")
    black, data_range = value_range[0], value_range[1] - value_range[0]
    first, second = ((image + 1) / 2 * data_range + black for image in (images(), noisy(images())))
    expected = reference.structural_similarity_index_measure(
        second - black, first - black, data_range=data_range, reduction="none"
    )
    torch.testing.assert_close(ssim(second, first, value_range), expected, atol=1e-5, rtol=1e-5)
    for index in range(len(first)):
        one = reference.peak_signal_noise_ratio(second[index], first[index], data_range=data_range)
        torch.testing.assert_close(psnr(second, first, value_range)[index], one, atol=1e-4, rtol=1e-5)


def test_psnr_of_a_constant_difference():
    clean = torch.zeros(2, 3, 8, 8)
    torch.testing.assert_close(psnr(clean + 0.2, clean), torch.full((2,), 20.0))
    assert torch.isinf(psnr(clean, clean)).all()


def test_ssim_of_equal_flat_and_opposite_images():
    clean = images()
    torch.testing.assert_close(ssim(clean, clean), torch.ones(4))
    assert (ssim(-clean, clean) < 0.0).all()
    # Flat images of brightness a and b have no structure: (2 a b + c1) / (a^2 + b^2 + c1).
    a, b, c1 = 0.5, 0.25, (0.01 * 2) ** 2
    flat = torch.ones(1, 1, 16, 16)
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    torch.testing.assert_close(ssim(a * flat - 1, b * flat - 1), torch.tensor([expected]), atol=1e-5, rtol=0)


def test_each_image_is_evaluated_alone():
    first, second = images(), noisy(images())
    for metric in (psnr, ssim, sharpness_ratio):
        torch.testing.assert_close(metric(first, second)[2:3], metric(first[2:3], second[2:3]))


def test_sharpness_falls_with_blur_and_rises_with_noise():
    clean = images()
    blurred = torch.nn.functional.avg_pool2d(clean, 3, stride=1, padding=1)
    assert (sharpness_ratio(blurred, clean) < 0.5).all()
    assert (sharpness_ratio(noisy(clean, 0.5), clean) > 1.05).all()
    torch.testing.assert_close(sharpness_ratio(0.5 * clean, clean), torch.full((4,), 0.25))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="references"):
        psnr(images(), images(shape=(4, 3, 48, 34)))
    with pytest.raises(ShapeError, match="11 x 11"):
        ssim(torch.zeros(1, 3, 8, 40), torch.zeros(1, 3, 8, 40))
