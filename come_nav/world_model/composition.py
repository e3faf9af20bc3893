"""Contrastive product of experts over noise predictions (CoME, arXiv 2605.18813; composable diffusion, 2206.01714).

Letters: K experts. An expert's prediction with its memory is eps_k, without it eps_bar_k; -sqrt(1 - abar) times a
score is a noise, so products of densities are sums of noises with the exponents as weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from come_nav.core.errors import ConfigError, ShapeError

CompositionMode = Literal["literal", "normalised"]


@dataclass(frozen=True)
class CompositionSettings:
    """How experts are weighed; one weight for each expert.

    "literal" is CoME equation 4, whose exponents sum to K; with a deterministic sampler and K > 1 it seeks modes and
    loses its spread. "normalised" keeps the sum at 1. For one expert both are classifier-free guidance.
    """

    mode: CompositionMode = "normalised"
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigError("composition.weights must hold one weight for each expert, got none")

    @property
    def needs_unconditional(self) -> bool:
        """Whether eps_bar enters the sum at all; where not, the experts need only half the work."""
        plain = all(weight == 1.0 for weight in self.weights)
        return not (plain and (self.mode == "literal" or len(self.weights) == 1))


def compose(
    eps: Tensor, eps_bar: Tensor, weights: Tensor, mode: CompositionMode = "normalised", eps_free: Tensor | None = None
) -> Tensor:
    """Return the noise (B, C, h, w) of the product of K experts.

    literal:     sum_k  w_k eps_k + (1 - w_k) eps_bar_k          (exponents sum to K)
    normalised:  eps_free + sum_k  w_k (eps_k - eps_bar_k)       (exponents sum to 1)

    Args:
        eps: (K, B, C, h, w) predictions with each expert's memory.
        eps_bar: (K, B, C, h, w) predictions without it.
        weights: (K,) alpha_k or w_k.
        mode: which of the two sums.
        eps_free: (B, C, h, w) prediction without any memory; the first expert's ``eps_bar`` where not given.

    Raises:
        ShapeError: when the shapes do not agree.
    """
    if eps.shape != eps_bar.shape or weights.shape != eps.shape[:1]:
        shapes = f"eps {tuple(eps.shape)}, eps_bar {tuple(eps_bar.shape)}, weights {tuple(weights.shape)}"
        raise ShapeError(f"compose needs eps and eps_bar of one shape (K, ...) and weights (K,), got {shapes}")
    weights = weights.to(eps)
    if mode == "literal":
        return _weighted_sum(weights, eps) + _weighted_sum(1.0 - weights, eps_bar)
    free = eps_bar[0] if eps_free is None else eps_free
    return free + _weighted_sum(weights, eps - eps_bar)


def _weighted_sum(weights: Tensor, terms: Tensor) -> Tensor:
    """Sum ``terms`` (K, ...) over K with ``weights`` (K,)."""
    return torch.einsum("k,k...->...", weights, terms)
