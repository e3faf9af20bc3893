"""How imagined images compare with real ones as sets, in the features of a network: kernel distance and coverage.

Where nothing tells what stands behind a corner, the mean image has the best PSNR and is no image that a camera sees.
These figures ask instead whether imagined images are like real ones (kernel distance, Binkowski et al. 2018), and
whether one of several samples is near what is there (coverage).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_range, check_shape

SUBSETS = 100


@dataclass(frozen=True)
class KernelDistance:
    """Squared kernel distance of two sets: mean over subsets, and the middle 95 % of them."""

    value: float
    low: float
    high: float
    subset: int


@dataclass(frozen=True)
class Coverage:
    """How samples of places lie around the truth, each (P,), in units of the distance between two real images.

    Attributes:
        nearest: distance of the best sample to the truth.
        mean: distance of a sample to the truth.
        spread: distance between two samples; 0 = all are the same.
    """

    nearest: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]


def kernel_distance(
    real: Tensor, made: Tensor, generator: torch.Generator, subset: int | None = None, subsets: int = SUBSETS
) -> KernelDistance:
    """Return the unbiased squared distance of features (N, D) and (M, D) under the cubic kernel of KID.

    Args:
        real: features; all are scaled by their mean and deviation, so that no feature outweighs others.
        made: features of what is compared with them.
        generator: draws the subsets.
        subset: features in each; half of the smaller set where None.
        subsets: how many.
    """
    from torchmetrics.image.kid import poly_mmd

    check_shape("real", real, "N D")
    check_shape("made", made, f"M {real.shape[1]}")
    most = min(len(real), len(made))
    size = max(2, most // 2) if subset is None else int(check_range("subset", subset, 2, most))
    real, made = (_scaled(features, real) for features in (real, made))
    values = []
    for _ in range(subsets):
        one, two = (features[torch.randperm(len(features), generator=generator)[:size]] for features in (real, made))
        values.append(float(poly_mmd(one, two)))
    low, high = np.quantile(values, [0.025, 0.975])
    return KernelDistance(float(np.mean(values)), float(low), float(high), size)


def coverage(samples: Tensor, truths: Tensor) -> Coverage:
    """Return how S samples of each of P places (P, S, D) lie around the truths (P, D), at least two of each."""
    sizes = check_shape("samples", samples, "P S D")
    check_shape("truths", truths, f"{sizes['P']} {sizes['D']}")
    check_range("places", sizes["P"], 2)
    check_range("samples", sizes["S"], 2)
    samples, scaled = _scaled(samples, truths), _scaled(truths, truths)
    apart = torch.pdist(scaled).mean()
    away = (samples - scaled[:, None]).norm(dim=-1) / apart
    spread = torch.stack([torch.pdist(own).mean() for own in samples]) / apart
    return Coverage(*(values.numpy().astype(np.float64) for values in (away.amin(1), away.mean(1), spread)))


def _scaled(features: Tensor, like: Tensor) -> Tensor:
    """Return features, as deviations from the mean of ``like`` in units of its own; double."""
    like = like.double()
    return (features.double() - like.mean(0)) / like.std(0).clamp_min(1e-6)
