"""Feynman-Kac correction of composed sampling: weighted particles, resampled where their weights differ (2503.02819).

A sampler that follows the composed score sum_i b_i s_i does not carry the product prod_i q_i^{b_i} of one noise level
to that of the next. The difference is a weight for each particle, whose logarithm grows with the rate

    g_t = (sum_i b_i - 1) d a_t + sigma_t^2 / 2 (|sum_i b_i s_i|^2 - sum_i b_i |s_i|^2).

The first term is the same for all particles and drops out. The rate does not depend on how much noise the sampler adds,
so that it holds for DDPM as well as for DDIM of any eta; but without noise, copies of one particle stay copies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from come_nav.world_model.composition import ProductNoise
from come_nav.world_model.sampling.settings import ResamplingSettings


class Population:
    """Log weights (S, M) of M particles for each of S answers; particles of one answer lie side by side."""

    def __init__(self, rows: int, settings: ResamplingSettings, generator: torch.Generator | None) -> None:
        """Take ``rows`` = S*M particles of equal weight."""
        self.settings, self._generator = settings, generator
        self.log_weights = torch.zeros(rows // settings.particles, settings.particles, dtype=torch.float64)
        self._pending = torch.zeros_like(self.log_weights)

    def weigh(self, noise: ProductNoise, sigma: float, before: float, after: float) -> None:
        """Add one level's share of the integral of the rate.

        Args:
            noise: the parts of the product at the particles (S*M rows).
            sigma: sqrt(1 - abar) of the level.
            before: share of the step that led to this level, in integrals of sigma_t^2 dt.
            after: share of the step that follows, added once :meth:`resample` has been called.
        """
        rate = log_weight_rate(noise, sigma).reshape(self.log_weights.shape).to("cpu", torch.float64)
        self._add(before * rate)
        self._pending = after * rate

    def resample(self) -> Tensor | None:
        """Return the rows (S*M,) to go on with where some answer has too few effective particles, else None."""
        chosen = self._choose()
        if chosen is not None:
            self._pending = self._pending.flatten()[chosen].reshape(self.log_weights.shape)
        self._add(self._pending)
        return chosen

    def draw_one(self) -> Tensor:
        """Return one row (S,) for each answer, drawn with its weight."""
        answers, count = self.log_weights.shape
        cumulated = self.log_weights.softmax(1).cumsum(1)
        chosen = torch.searchsorted(cumulated, self._uniform(answers)[:, None]).clamp(max=count - 1)[:, 0]
        return chosen + torch.arange(answers) * count

    def _choose(self) -> Tensor | None:
        answers, count = self.log_weights.shape
        weights = self.log_weights.softmax(1)
        poor = effective_number(weights) < self.settings.threshold * count
        if not poor.any():
            return None
        rows = torch.where(poor[:, None], systematic(weights, self._uniform(answers)), torch.arange(count))
        self.log_weights = torch.where(poor[:, None], 0.0, self.log_weights)
        return (rows + torch.arange(answers)[:, None] * count).flatten()

    def _uniform(self, count: int) -> Tensor:
        device = "cpu" if self._generator is None else self._generator.device
        return torch.rand(count, generator=self._generator, dtype=torch.float64, device=device).cpu()

    def _add(self, change: Tensor) -> None:
        relative = change - change.mean(-1, keepdim=True)
        self.log_weights = self.log_weights + relative.clamp(-self.settings.clip, self.settings.clip)


def log_weight_rate(noise: ProductNoise, sigma: float) -> Tensor:
    """Return g_t / sigma_t^2 (B,) without the term that all particles share, with scores = -noise / sigma."""
    squares = noise.noises.double().flatten(2).square().sum(2)
    composed = noise.composed().double().flatten(1).square().sum(1)
    return (composed - noise.exponents.double() @ squares) / (2.0 * sigma**2)


def step_duration(beta: float) -> float:
    """Return the integral of sigma_t^2 dt = beta(t) dt over a step with the discrete ``beta``: -log(1 - beta)."""
    return -math.log1p(-beta)


def effective_number(weights: Tensor) -> Tensor:
    """Return 1 / sum w^2 (...,) of normalised weights (..., M): how many equal particles are worth as much."""
    return 1.0 / weights.square().sum(-1)


def systematic(weights: Tensor, start: Tensor) -> Tensor:
    """Return indices (S, M): each particle as often as its weight times M, rounded up or down (systematic resampling).

    Args:
        weights: (S, M) summing to 1 over M.
        start: (S,) uniform in [0, 1).
    """
    count = weights.shape[1]
    positions = (start[:, None] + torch.arange(count, dtype=weights.dtype)) / count
    return torch.searchsorted(weights.cumsum(1), positions).clamp(max=count - 1)
