"""Weights of the experts that calibrate themselves: the composition is linear in them, so the best have a closed form.

In the normalised composition the clean latents are x0_u + sum_k w_k (x0_k - x0_k,bar). For latents that came true, the
weights that would have predicted them best solve a linear regression of x_0 - x0_u on the contrasts. A frame counts
once, however many numbers its latents have; a ridge draws the weights to those that ship, never to zero, and is worth
so many frames. Weights are not negative unless they may be.

Least squares fits the posterior mean on forward-noised truth. Whether more than that (guidance) makes better images or
plans is chosen on validation, not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ConfigError

TINY = 1e-12


@dataclass(frozen=True)
class FitSums:
    """Sums over frames, each the mean over the numbers of its latents; sums of several sets of frames add up.

    Attributes:
        contrasts: (K, K) of products of contrasts.
        targets: (K,) of contrasts times x_0 - x0_u.
        square: of (x_0 - x0_u)^2.
        frames: how many; a share of one where frames have been forgotten in part.
    """

    contrasts: NDArray[np.float64]
    targets: NDArray[np.float64]
    square: float = 0.0
    frames: float = 0.0

    @classmethod
    def none(cls, experts: int) -> FitSums:
        """Return the sums of no frame."""
        return cls(np.zeros((experts, experts)), np.zeros(experts))

    @classmethod
    def of(cls, clean: Tensor, free: Tensor, contrasts: Tensor) -> FitSums:
        """Return the sums of B frames.

        Args:
            clean: (B, C, h, w) latents x_0 that came true.
            free: (B, C, h, w) what is expected of them without any memory, x0_u.
            contrasts: (K, B, C, h, w) x0_k - x0_k,bar of each expert.
        """
        check_shape("contrasts", contrasts, f"K {len(clean)} C h w")
        left = (clean - free).double().flatten(1)
        rows = contrasts.double().flatten(2)
        size = left.shape[1]
        products = (rows[:, None] * rows[None]).sum(dim=(2, 3)) / size
        targets = (rows * left).sum(dim=(1, 2)) / size
        return cls(products.cpu().numpy(), targets.cpu().numpy(), float((left**2).sum()) / size, float(len(clean)))

    def __add__(self, other: FitSums) -> FitSums:
        return FitSums(
            self.contrasts + other.contrasts,
            self.targets + other.targets,
            self.square + other.square,
            self.frames + other.frames,
        )

    def faded(self, share: float) -> FitSums:
        """Return the sums with all frames counting less."""
        return FitSums(self.contrasts * share, self.targets * share, self.square * share, self.frames * share)

    def only(self, experts: list[int]) -> FitSums:
        """Return the sums of some of the experts."""
        return replace(self, contrasts=self.contrasts[np.ix_(experts, experts)], targets=self.targets[experts])

    def error(self, weights: NDArray[np.float64]) -> float:
        """Return the mean squared error of the clean latents with these weights (K,); NaN without frames."""
        if self.frames <= 0.0:
            return float("nan")
        total = self.square - 2.0 * weights @ self.targets + weights @ self.contrasts @ weights
        return float(total / self.frames)


def fitted_weights(
    sums: FitSums,
    prior: NDArray[np.float64],
    prior_frames: float = 0.0,
    scale: NDArray[np.float64] | None = None,
    signed: bool = False,
) -> NDArray[np.float64]:
    """Return the weights (K,) that fit best.

    Args:
        sums: of the frames.
        prior: (K,) weights that the ridge draws to.
        prior_frames: how many frames the prior is worth.
        scale: (K,) mean square of each contrast in a frame, which the ridge weighs by; that of ``sums`` where None.
        signed: weights may be negative.

    Raises:
        ConfigError: for a negative number of frames, or a prior of another length.
    """
    check_range("prior_frames", prior_frames, 0.0)
    if prior.shape != sums.targets.shape:
        raise ConfigError(f"the prior must have {len(sums.targets)} weights, got {len(prior)}")
    own = np.diag(sums.contrasts) / max(sums.frames, TINY) if scale is None else scale
    ridge = prior_frames * np.maximum(own, TINY) + TINY
    matrix = sums.contrasts + np.diag(ridge)
    right = sums.targets + ridge * prior
    if signed:
        return np.asarray(np.linalg.solve(matrix, right))
    from scipy.optimize import nnls  # 20 MB, and few weights are fitted

    factor = np.linalg.cholesky(matrix)
    weights, _ = nnls(factor.T, np.linalg.solve(factor, right))
    return np.asarray(weights)


def fitted_on(
    sums: FitSums, chosen: list[int], prior: NDArray[np.float64], prior_frames: float = 0.0
) -> NDArray[np.float64]:
    """Return the weights (K,) that are fitted for the ``chosen`` experts alone; those of the others are 0."""
    weights = np.zeros(len(prior))
    weights[chosen] = fitted_weights(sums.only(chosen), prior[chosen], prior_frames)
    return weights
