"""Image quality in batched torch: PSNR, SSIM and sharpness of images (B, C, H, W)."""

from __future__ import annotations

import torch
from torch.nn import functional

from come_nav.core.checks import check_shape
from come_nav.core.errors import ShapeError

UNIT_RANGE = (-1.0, 1.0)
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def psnr(images: torch.Tensor, references: torch.Tensor, value_range: tuple[float, float] = UNIT_RANGE) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB (B,) of each image; +inf for equal images.

    ``value_range`` holds the values of black and white: (-1, 1) inside come_nav, (0, 255) for uint8 values.
    """
    _check_pair(images, references)
    mean_squared_error = ((images.float() - references.float()) ** 2).flatten(1).mean(1)
    return 10.0 * torch.log10((value_range[1] - value_range[0]) ** 2 / mean_squared_error)


def ssim(images: torch.Tensor, references: torch.Tensor, value_range: tuple[float, float] = UNIT_RANGE) -> torch.Tensor:
    """Return the structural similarity (B,) of each image: 1 for equal images.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004: Gaussian window of
    11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03; at the border the image is mirrored, as torchmetrics does.
    Brightness counts from black: SSIM of values below zero, as in [-1, 1], would praise inverted images.

    Raises:
        ShapeError: for images smaller than the window.
    """
    _check_pair(images, references)
    height, width = images.shape[2:]
    if min(height, width) < _SSIM_WINDOW:
        raise ShapeError(f"SSIM needs images of at least 11 x 11 pixels, got {height} x {width}")
    border = [_SSIM_WINDOW // 2] * 4
    black, data_range = value_range[0], value_range[1] - value_range[0]
    # Variances are differences of squares: float64 keeps their digits.
    first = functional.pad(images.double() - black, border, mode="reflect")
    second = functional.pad(references.double() - black, border, mode="reflect")
    products = [first, second, first * first, second * second, first * second]
    down, across = (_gaussian_means(size).to(first.device) for size in (height, width))
    means = (down @ torch.cat(products) @ across.T).chunk(len(products))
    mean_1, mean_2 = means[0], means[1]
    variance_1 = (means[2] - mean_1**2).clamp_min(0.0)
    variance_2 = (means[3] - mean_2**2).clamp_min(0.0)
    covariance = means[4] - mean_1 * mean_2
    c1, c2 = (_SSIM_K1 * data_range) ** 2, (_SSIM_K2 * data_range) ** 2
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    structure = (2 * covariance + c2) / (variance_1 + variance_2 + c2)
    return (luminance * structure).flatten(1).mean(1).float()


def sharpness_ratio(images: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Return the gradient energy of each image over that of its reference (B,): below 1 is blurred, above 1 noisy."""
    _check_pair(images, references)
    return gradient_energy(images) / gradient_energy(references).clamp_min(1e-12)


def gradient_energy(images: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference between neighbouring pixels (B,) of images (B, C, H, W): what blur lowers."""
    values = images.float()
    across = (values[..., :, 1:] - values[..., :, :-1]) ** 2
    down = (values[..., 1:, :] - values[..., :-1, :]) ** 2
    return across.flatten(1).mean(1) + down.flatten(1).mean(1)


def _gaussian_means(size: int) -> torch.Tensor:
    """Return the matrix (size, size + 10) of means under the window; on a CPU far faster than a convolution."""
    offsets = torch.arange(_SSIM_WINDOW, dtype=torch.float64) - (_SSIM_WINDOW - 1) / 2
    profile = torch.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    profile = profile / profile.sum()
    apart = torch.arange(size + _SSIM_WINDOW - 1) - torch.arange(size)[:, None]
    inside = (apart >= 0) & (apart < _SSIM_WINDOW)
    return torch.where(inside, profile[apart.clamp(0, _SSIM_WINDOW - 1)], 0.0)


def _check_pair(images: torch.Tensor, references: torch.Tensor) -> None:
    sizes = check_shape("images", images, "B C H W")
    check_shape("references", references, " ".join(str(sizes[letter]) for letter in "BCHW"))
