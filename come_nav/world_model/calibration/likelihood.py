"""A spatial memory as a likelihood of the clean latents: it joins the product of experts without any training.

At a noise level with a = sqrt(abar), b = sqrt(1 - abar) the composed experts predict clean latents x0_hat, whose error
has variance V_t. What the memory shows, rendered and encoded, is r = x_0 + error of variance R. The product of both has

    x0* = x0_hat + K (r - x0_hat),    eps* = eps - (a / b) K (r - x0_hat),    K = V_t / (V_t + R),  0 in holes.

In general the noise gains -b J^T (R + V_t)^-1 (r - x0_hat) with J = d x0_hat / d x_t; the second-order Tweedie formula
J = a V_t / b^2 gives the above without backpropagation (reconstruction guidance: arXiv 2204.03458, 2209.14687; its
covariance: 2310.06721). It is exact where the clean latents are Gaussian. The views of the context, a learned spatial
expert and an adapter have seen the same points, so that the evidence is correlated: the gain is therefore fitted as the
regression K = E[(x_0 - x0_hat)(r - x0_hat)] / E[(r - x0_hat)^2] on the very experts that it is composed with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.types import Context
from come_nav.world_model.sampling.schedule import NoiseSchedule

SHARES = (0.25, 0.5, 0.75, 1.0)  # a cell's known share up to each of these is one bin; nothing known has no gain
LEVELS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)  # fractions of the schedule, 1 = pure noise


@dataclass(frozen=True)
class LikelihoodSettings:
    """How much a rendered memory counts.

    Attributes:
        levels: L noise levels, fractions of the schedule, ascending; gains are interpolated between them.
        shares: B upper ends of the bins of a cell's known share, ascending, the last 1.
        gains: (L, B, C) of each channel, or (L, B, 1) of all, in [0, 1].
        temper: exponent of the likelihood, >= 0: below 1 where errors of neighbouring cells go together, as those of a
            misplaced view do; R becomes R / temper.
    """

    levels: tuple[float, ...] = (0.0, 1.0)
    shares: tuple[float, ...] = (1.0,)
    gains: tuple[tuple[tuple[float, ...], ...], ...] = (((0.0,),), ((0.0,),))
    temper: float = 1.0

    def __post_init__(self) -> None:
        check_range("likelihood.temper", self.temper, 0.0)
        for name in ("levels", "shares"):
            values = np.array(getattr(self, name))
            if not len(values) or (np.diff(values) <= 0).any() or values[0] < 0 or values[-1] > 1:
                raise ConfigError(f"likelihood.{name} must rise within [0, 1], got {list(values)}")
        gains = self._table()
        if gains.ndim != 3 or gains.shape[:2] != (len(self.levels), len(self.shares)):
            wanted = f"{len(self.levels)} levels x {len(self.shares)} shares x channels"
            raise ConfigError(f"likelihood.gains must have {wanted}, got {gains.shape}")
        if not ((gains >= 0) & (gains <= 1)).all():
            raise ConfigError("likelihood.gains must lie in [0, 1]")

    def _table(self) -> NDArray[np.float64]:
        try:
            return np.array(self.gains, np.float64)
        except ValueError as error:
            raise ConfigError("likelihood.gains must have as many numbers in each row") from error

    @property
    def table(self) -> Tensor:
        """Gains (L, B, C) with ``temper`` in them, float64."""
        gains = torch.from_numpy(self._table())
        return self.temper * gains / (1.0 - gains + self.temper * gains).clamp_min(1e-12)

    @property
    def pastes(self) -> bool:
        """Whether the memory's latents replace those of the experts where all is known: then it is a latent paste."""
        return bool(self.table[:, -1].mean() > 0.95)

    @classmethod
    def from_variances(
        cls,
        schedule: NoiseSchedule,
        clean_variance: float,
        render_variance: float,
        levels: tuple[float, ...] = LEVELS,
        shares: tuple[float, ...] = SHARES,
    ) -> LikelihoodSettings:
        """Return gains of a model that nothing was fitted for.

        Args:
            schedule: of the model.
            clean_variance: of the latents around what the experts expect of them at pure noise.
            render_variance: R where all of a cell is known; where a share s is known it is R / s.
            levels: see above.
            shares: see above; each bin has the gain of its middle.
        """
        check_range("likelihood clean_variance", clean_variance, 0.0, open_low=True)
        check_range("likelihood render_variance", render_variance, 0.0, open_low=True)
        middles = [0.5 * (low + high) for low, high in zip((0.0, *shares), shares, strict=False)]
        rows = []
        for level in levels:
            abar = float(schedule.alphas_cumprod[round(level * (len(schedule) - 1))])
            variance = residual_variance(clean_variance, abar)
            rows.append(tuple((variance / (variance + render_variance / share),) for share in middles))
        return cls(levels, shares, tuple(rows))


@dataclass
class GainFit:
    """Sums from which the gains are fitted; K of each level, bin and channel by regression through zero.

    Attributes:
        levels, shares: of the table.
        channels: of the latents.
    """

    channels: int
    levels: tuple[float, ...] = LEVELS
    shares: tuple[float, ...] = SHARES
    _products: Tensor = field(init=False)
    _squares: Tensor = field(init=False)
    _cells: Tensor = field(init=False)

    def __post_init__(self) -> None:
        shape = (len(self.levels), len(self.shares), self.channels)
        self._products, self._squares = torch.zeros(shape).double(), torch.zeros(shape).double()
        self._cells = torch.zeros(shape[:2]).double()

    def add(self, level: int, clean: Tensor, predicted: Tensor, shown: Tensor, known: Tensor) -> None:
        """Take true latents x_0, predicted ones x0_hat and shown ones r (all (B, C, h, w)), and known share (B, h, w).

        ``level`` is the index of the noise level that the prediction was made at.
        """
        check_shape("clean", clean, f"B {self.channels} h w")
        left, evidence = (clean - predicted).double().movedim(1, -1), (shown - predicted).double().movedim(1, -1)
        bins = bin_of(known, self.shares)
        for number in range(len(self.shares)):
            chosen = bins == number
            self._products[level, number] += (left * evidence)[chosen].sum(0)
            self._squares[level, number] += (evidence**2)[chosen].sum(0)
            self._cells[level, number] += chosen.sum()

    def settings(self, least_cells: int = 50) -> LikelihoodSettings:
        """Return the fitted gains; a bin with fewer cells has those of the bin below it, the lowest none."""
        gains = (self._products / self._squares.clamp_min(1e-12)).clamp(0.0, 1.0)
        for number in range(len(self.shares)):
            few = self._cells[:, number] < least_cells
            gains[few, number] = gains[few, number - 1] if number else 0.0
        rows = tuple(tuple(tuple(round(v, 4) for v in cells) for cells in bins) for bins in gains.tolist())
        return LikelihoodSettings(self.levels, self.shares, rows)


class SpatialLikelihood:
    """What a spatial memory says of the clean latents (Likelihood protocol).

    Args:
        settings: fitted gains.
        steps: length of the full noise schedule.
    """

    def __init__(self, settings: LikelihoodSettings, steps: int) -> None:
        self.settings, self._steps = settings, steps
        self._table = settings.table

    def correct(self, x0_hat: Tensor, step: int, context: Context) -> Tensor:
        """Return clean latents (S, C, h, w) drawn to what the memory shows, at a step of the full schedule.

        Raises:
            ShapeError: for a context without evidence.
        """
        evidence = context.views.evidence
        if evidence is None:
            raise ShapeError("the likelihood of the spatial memory needs a context with views.evidence")
        shown, known = evidence[:, :-1].to(x0_hat), evidence[:, -1]
        gain: Tensor = self.gain(step, known).to(x0_hat)
        return x0_hat + gain * (shown - x0_hat)

    def gain(self, step: int, known: Tensor) -> Tensor:
        """Return K (S, C or 1, h, w) for cells of which a share (S, h, w) is known; zero in holes."""
        level, levels = step / max(self._steps - 1, 1), np.array(self.settings.levels)
        after = int(np.searchsorted(levels, level).clip(1, len(levels) - 1)) if len(levels) > 1 else 0
        before = max(after - 1, 0)
        span = levels[after] - levels[before]
        share = float(np.clip((level - levels[before]) / span, 0.0, 1.0)) if span > 0 else 0.0
        row = torch.lerp(self._table[before], self._table[after], share).to(known)
        gains = row[bin_of(known, self.settings.shares).clamp_min(0)].movedim(-1, 1)
        return torch.where(known[:, None] > 0, gains, 0.0)


def corrected_noise(
    eps: Tensor, x_t: Tensor, abar: float, likelihood: SpatialLikelihood, step: int, context: Context
) -> Tensor:
    """Return the noise (S, C, h, w) of the experts' product and the likelihood, from that of the experts alone."""
    signal, sigma = math.sqrt(abar), math.sqrt(1.0 - abar)
    x0_hat = (x_t - sigma * eps) / signal
    return eps - signal / sigma * (likelihood.correct(x0_hat, step, context) - x0_hat)


def residual_variance(clean_variance: float, abar: float) -> float:
    """Return the variance V_t that is left of Gaussian latents of ``clean_variance`` when x_t is known."""
    return clean_variance * (1.0 - abar) / (abar * clean_variance + 1.0 - abar)


def bin_of(known: Tensor, shares: tuple[float, ...]) -> Tensor:
    """Return the bin of each known share, -1 where nothing is known."""
    ends = torch.tensor(shares, dtype=torch.float64, device=known.device)
    bins = torch.bucketize(known.double().clamp(max=1.0), ends)
    return torch.where(known > 0, bins.clamp(max=len(shares) - 1), -1)
