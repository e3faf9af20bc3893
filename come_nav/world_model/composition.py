"""Contrastive product of experts over noise predictions (CoME, arXiv 2605.18813; composable diffusion, 2206.01714).

Letters: K experts, P passes. An expert's prediction with its memory is eps_k, without it eps_bar_k; -sqrt(1 - abar)
times a score is a noise, so products of densities are sums of noises with the exponents as weights. Experts may share
passes: their exponents then add up, and what is left with exponent zero is never computed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, get_args

import torch
from torch import Tensor

from come_nav.core.checks import check_choice, check_range
from come_nav.core.device.transfer import to_device
from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.experts import CompositionMode
from come_nav.core.protocols import Expert
from come_nav.core.types import ViewSource
from come_nav.experts.passes import Condition, Network, Pass, Query, passes_of

Density = TypeVar("Density", bound=Hashable)  # what tells passes apart
NEGLIGIBLE = 1e-9  # exponents that cancel up to rounding


@dataclass(frozen=True)
class LevelWeights:
    """Weights at one noise level.

    Attributes:
        level: fraction of the schedule; 0 is the clean end, 1 pure noise.
        weights: one for each expert.
    """

    level: float
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        check_range("composition.levels level", self.level, 0.0, 1.0)


@dataclass(frozen=True)
class CompositionSettings:
    """How experts are weighed; one weight for each expert.

    "literal" is CoME equation 4, whose exponents sum to K; with a deterministic sampler and K > 1 it seeks modes and
    loses its spread. "normalised" keeps the sum at 1. For one expert both are classifier-free guidance. "average" has
    no contrast: the weighted geometric mean of what the experts predict with their memories.

    Attributes:
        mode: which of the sums.
        weights: alpha_k (literal) or w_k (normalised, average), one for each expert.
        interval: noise levels at which the experts count, as fractions of the schedule: 0 is the clean end, 1 pure
            noise (arXiv 2404.07724). Elsewhere the first expert predicts alone, with weight 1.
        levels: weights that depend on the noise level, in place of ``weights``: those of the nearest level count.
        least_exponent: passes whose exponent is nearer to 0 than this are not computed, and the largest exponent takes
            theirs over, so that the sum stays; 0 computes all.
    """

    mode: CompositionMode = "normalised"
    weights: tuple[float, ...] = (1.0,)
    interval: tuple[float, float] = (0.0, 1.0)
    levels: tuple[LevelWeights, ...] = ()
    least_exponent: float = 0.0

    def __post_init__(self) -> None:
        check_choice("composition.mode", self.mode, get_args(CompositionMode))
        check_range("composition.least_exponent", self.least_exponent, 0.0, 0.5)
        if not self.weights:
            raise ConfigError("composition.weights must hold one weight for each expert, got none")
        if self.mode == "average" and sum(self.weights) <= 0.0:
            raise ConfigError(f"composition.weights of an average must have a sum above 0, got {list(self.weights)}")
        for own in self.levels:
            if len(own.weights) != len(self.weights):
                wanted, got = len(self.weights), len(own.weights)
                raise ConfigError(f"composition.levels must hold {wanted} weights each, got {got} at {own.level}")
        low, high = self.interval
        if not 0.0 <= low <= high <= 1.0:
            raise ConfigError(f"composition.interval must satisfy 0 <= low <= high <= 1, got {list(self.interval)}")

    @property
    def everywhere(self) -> bool:
        """Whether the experts count at all noise levels."""
        return self.interval == (0.0, 1.0)

    def of_first(self) -> CompositionSettings:
        """Return the same with the first expert's weights alone."""
        levels = tuple(replace(own, weights=own.weights[:1]) for own in self.levels)
        return replace(self, weights=self.weights[:1], levels=levels)

    def at(self, level: float) -> LevelWeights:
        """Return the weights that count at a noise level, a fraction of the schedule: those of the nearest level."""
        if not self.levels:
            return LevelWeights(1.0, self.weights)
        return min(self.levels, key=lambda own: abs(own.level - level))


@dataclass(frozen=True)
class ProductNoise:
    """The parts of a composed prediction.

    Attributes:
        noises: (P, B, C, h, w) one for each density of the product.
        exponents: (P,) of the densities.
    """

    noises: Tensor
    exponents: Tensor

    def composed(self) -> Tensor:
        """Return the noise (B, C, h, w) of the product."""
        return _weighted_sum(self.exponents, self.noises)


def compose(
    eps: Tensor, eps_bar: Tensor, weights: Tensor, mode: CompositionMode = "normalised", eps_free: Tensor | None = None
) -> Tensor:
    """Return the noise (B, C, h, w) of the product of K experts.

    literal:     sum_k  w_k eps_k + (1 - w_k) eps_bar_k          (exponents sum to K)
    normalised:  eps_free + sum_k  w_k (eps_k - eps_bar_k)       (exponents sum to 1)
    average:     sum_k  w_k eps_k / sum_k  w_k                   (exponents sum to 1, no contrast)

    Args:
        eps: (K, B, C, h, w) predictions with each expert's memory.
        eps_bar: (K, B, C, h, w) predictions without it.
        weights: (K,) alpha_k or w_k.
        mode: which of the sums.
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
    if mode == "average":
        return _weighted_sum(weights / weights.sum(), eps)
    free = eps_bar[0] if eps_free is None else eps_free
    return free + _weighted_sum(weights, eps - eps_bar)


def exponents_of(
    pairs: Sequence[tuple[Density, Density]], settings: CompositionSettings, level: float = 1.0
) -> dict[Density, float]:
    """Return the exponent of every pass that is left in the product of experts with (eps, eps_bar) ``pairs``.

    ``level`` is the noise level, a fraction of the schedule. Equal passes are one density: the sum of the returned
    noises, weighted, is that of :func:`compose`, but for what ``least_exponent`` leaves out.
    """
    exponents: dict[Density, float] = {}
    weights = settings.at(level).weights
    total = sum(weights)
    for (eps, eps_bar), weight in zip(pairs, weights, strict=True):
        if settings.mode == "average":
            exponents[eps] = exponents.get(eps, 0.0) + weight / total
            continue
        without = 1.0 - weight if settings.mode == "literal" else -weight
        exponents[eps] = exponents.get(eps, 0.0) + weight
        exponents[eps_bar] = exponents.get(eps_bar, 0.0) + without
    if settings.mode == "normalised":
        exponents[pairs[0][1]] += 1.0
    least = max(settings.least_exponent, NEGLIGIBLE)
    left = {own: exponent for own, exponent in exponents.items() if abs(exponent) > least}
    if left and settings.least_exponent > 0.0:
        left[max(left, key=lambda own: left[own])] += sum(exponents.values()) - sum(left.values())
    return left


class ExpertProduct:
    """The product of experts as it stood when it was made: an adapter swapped later does not change it.

    Args:
        experts: the first one is the base.
        settings: weights, mode and interval.
        steps: length of the full noise schedule.

    Raises:
        ConfigError: for another number of weights than of experts.
    """

    def __init__(self, experts: Sequence[Expert], settings: CompositionSettings, steps: int) -> None:
        if len(settings.weights) != len(experts):
            raise ConfigError(
                f"composition.weights must hold one weight for each of {len(experts)} experts, "
                f"got {list(settings.weights)}"
            )
        pairs = [passes_of(expert) for expert in experts]
        self._last, self._settings = max(steps - 1, 1), settings
        levels = settings.levels or (settings.at(1.0),)
        self._inside = {own.level: exponents_of(pairs, settings, own.level) for own in levels}
        self._outside = {} if settings.everywhere else {pairs[0][0]: 1.0}
        self._low, self._high = (fraction * (steps - 1) for fraction in settings.interval)

    def exponents(self, step: int) -> dict[Pass, float]:
        """Return the passes that count at a step of the full schedule, and their exponents."""
        if not self._low <= step <= self._high:
            return self._outside
        return self._inside[self._settings.at(step / self._last).level]

    @property
    def views(self) -> frozenset[ViewSource]:
        """Views that the passes look at."""
        inside = [own for exponents in self._inside.values() for own in exponents]
        return frozenset(own.condition.view for own in (*inside, *self._outside))

    def single(self, step: int) -> Pass | None:
        """Return the one pass of exponent 1 that is the whole product at ``step``, if it is."""
        exponents = self.exponents(step)
        (own, exponent), *others = exponents.items()
        return own if not others and exponent == 1.0 else None

    def __call__(self, query: Query, step: int) -> ProductNoise:
        """Predict; passes of one network run as one batch. All rows of ``query`` are at ``step``."""
        exponents = self.exponents(step)
        noises = noises_of(list(exponents), query)
        values = torch.stack(list(noises.values()))
        weights = [exponents[own] for own in noises]
        return ProductNoise(values, to_device(torch.tensor(weights), values.device, values.dtype))


def noises_of(passes: Sequence[Pass], query: Query) -> dict[Pass, Tensor]:
    """Return the noise (B, C, h, w) of each pass, network by network; passes of one network run as one batch."""
    by_network: dict[int, tuple[Network, list[Condition]]] = {}
    for own in dict.fromkeys(passes):
        by_network.setdefault(id(own.network), (own.network, []))[1].append(own.condition)
    found: dict[Pass, Tensor] = {}
    for network, conditions in by_network.values():
        noises = network.noises(conditions, query)
        noises = noises.float() if query.x_t.dtype == torch.float32 else noises
        found |= {Pass(network, condition): noise for condition, noise in zip(conditions, noises, strict=True)}
    return found


def check_schedules(experts: Mapping[str, Expert], digest: str) -> None:
    """Refuse to compose experts of different noise schedules: their product may not be a density at all.

    With negative exponents and unequal schedules the product can be non-normalisable between the ends (2512.10339).

    Raises:
        ConfigError: naming the expert whose schedule is unknown or another one.
    """
    for name, expert in experts.items():
        own = getattr(expert, "schedule_digest", None)
        if own is None and len(experts) > 1:
            raise ConfigError(
                f"expert '{name}' does not tell its noise schedule, so it cannot be composed; give it a schedule"
            )
        if own is not None and own != digest:
            raise ConfigError(
                f"expert '{name}' was trained on the noise schedule {own}, the model has {digest}: products across "
                "schedules may have no density; train the expert on the model's schedule"
            )


def _weighted_sum(weights: Tensor, terms: Tensor) -> Tensor:
    """Sum ``terms`` (K, ...) over K with ``weights`` (K,)."""
    shape = (-1, *[1] * (terms.ndim - 1))
    return (weights.reshape(shape) * terms).sum(0)  # a product of matrices would be one of TF32 or bfloat16
