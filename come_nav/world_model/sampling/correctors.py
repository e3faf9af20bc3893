"""Langevin corrections between sampling steps (Reduce, Reuse, Recycle, arXiv 2302.11552).

The sum of noised experts' scores is the score of a product of noised densities, not of the noised product; a sampler
that takes it for the latter drifts. Unadjusted Langevin steps at every noise level draw from that level's product
itself, and turn the levels into an annealing path whose last one is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from come_nav.world_model.sampling.settings import CorrectorSettings


def langevin(
    x_t: Tensor,
    noise_of: Callable[[Tensor], Tensor],
    beta: float,
    sigma: float,
    settings: CorrectorSettings,
    draw: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return x_t (B, C, h, w) after the steps x <- x + delta score(x) + sqrt(2 delta) z.

    Args:
        x_t: latents at one noise level.
        noise_of: predicts the noise in them; score = -noise / sigma.
        beta: of the visited step that leads to this level.
        sigma: sqrt(1 - abar) of the level.
        settings: number and size of the steps.
        draw: returns standard noise like a tensor.
    """
    delta = settings.scale * beta
    for _ in range(settings.steps):
        x_t = x_t - delta / sigma * noise_of(x_t) + math.sqrt(2.0 * delta) * draw(x_t)
    return x_t
