"""The composed noise is the score of the product of densities."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.types import Context
from come_nav.experts.passes import Condition, Pass, Query
from come_nav.world_model.composition import (
    CompositionSettings,
    ExpertProduct,
    check_schedules,
    compose,
    exponents_of,
)
from come_nav.world_model.sampling.schedule import NoiseSchedule, ScheduleSettings

SIGMA = 0.3
POINTS = torch.linspace(-2.0, 2.0, 12, dtype=torch.float64).reshape(3, 1, 2, 2)


def noise_of_gaussian(mean: float, std: float) -> torch.Tensor:
    """eps = -sigma * score of N(mean, std^2) at POINTS."""
    return SIGMA * (POINTS - mean) / std**2


def noise_of_product(exponents: list[float], means: list[float], stds: list[float]) -> torch.Tensor:
    """The same for the normalised product of powers of Gaussians, from its closed-form mean and variance."""
    precision = sum(e / s**2 for e, s in zip(exponents, stds, strict=True))
    mean = sum(e * m / s**2 for e, m, s in zip(exponents, means, stds, strict=True)) / precision
    return noise_of_gaussian(mean, precision**-0.5)


MEANS, STDS = [1.0, -0.5, 2.0], [0.5, 0.8, 0.6]
EPS = torch.stack([noise_of_gaussian(m, s) for m, s in zip(MEANS, STDS, strict=True)])
EPS_BAR = torch.stack([noise_of_gaussian(m, s) for m, s in zip([0.0, 0.3, 0.1], [1.0, 1.2, 1.5], strict=True)])
WEIGHTS = torch.tensor([2.0, 1.5, 1.0], dtype=torch.float64)


def test_literal_is_the_product_whose_exponents_sum_to_k() -> None:
    exponents = [2.0, 1.5, 1.0, -1.0, -0.5, 0.0]
    assert sum(exponents) == 3.0
    expected = noise_of_product(exponents, [*MEANS, 0.0, 0.3, 0.1], [*STDS, 1.0, 1.2, 1.5])
    torch.testing.assert_close(compose(EPS, EPS_BAR, WEIGHTS, "literal"), expected)


def test_normalised_is_the_product_whose_exponents_sum_to_one() -> None:
    exponents = [2.0, 1.5, 1.0, 1.0 - 2.0, -1.5, -1.0]
    assert sum(exponents) == 1.0
    expected = noise_of_product(exponents, [*MEANS, 0.0, 0.3, 0.1], [*STDS, 1.0, 1.2, 1.5])
    torch.testing.assert_close(compose(EPS, EPS_BAR, WEIGHTS, "normalised"), expected)
    free = noise_of_gaussian(0.7, 2.0)
    exponents = [2.0, 1.5, 1.0, -2.0, -1.5, -1.0, 1.0]
    expected = noise_of_product(exponents, [*MEANS, 0.0, 0.3, 0.1, 0.7], [*STDS, 1.0, 1.2, 1.5, 2.0])
    torch.testing.assert_close(compose(EPS, EPS_BAR, WEIGHTS, "normalised", free), expected)


def test_an_average_is_the_weighted_geometric_mean_of_what_the_experts_predict_with_their_memories() -> None:
    shares = (WEIGHTS / WEIGHTS.sum()).tolist()
    torch.testing.assert_close(compose(EPS, EPS_BAR, WEIGHTS, "average"), noise_of_product(shares, MEANS, STDS))
    with pytest.raises(ConfigError, match=r"average must have a sum above 0"):
        CompositionSettings("average", (0.0, 0.0))


def test_one_expert_is_classifier_free_guidance_in_both_modes() -> None:
    one = WEIGHTS[:1]
    guided = EPS_BAR[0] + 2.0 * (EPS[0] - EPS_BAR[0])
    for mode in ("literal", "normalised"):
        torch.testing.assert_close(compose(EPS[:1], EPS_BAR[:1], one, mode), guided)


def test_disagreeing_shapes_are_told() -> None:
    with pytest.raises(ShapeError, match="one shape"):
        compose(EPS, EPS_BAR[:2], WEIGHTS)
    with pytest.raises(ShapeError, match=r"weights \(2,\)"):
        compose(EPS, EPS_BAR, WEIGHTS[:2])
    with pytest.raises(ConfigError, match=r"composition\.weights"):
        CompositionSettings(weights=())


# -- experts that share passes -----------------------------------------------------------------------------------------


class CountingNetwork:
    """Answers each condition with a noise of its own, and counts batches and passes."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.answers = {context: torch.randn(2, 1, 2, 2, generator=generator) for context in (True, False)}
        self.batches: list[int] = []

    def noises(self, conditions: Sequence[Condition], query: Query) -> torch.Tensor:
        self.batches.append(len(conditions))
        return torch.stack([self.answers[condition.context] for condition in conditions])


class PairExpert:
    """An expert made of two passes."""

    def __init__(self, eps: Pass, eps_bar: Pass) -> None:
        self.pair = (eps, eps_bar)

    def shared_passes(self) -> tuple[Pass, Pass]:
        return self.pair

    def scores(self, x_t, t, context, action, rel_time):
        query = Query(x_t, t, context, action, rel_time)
        return tuple(own.network.noises([own.condition], query)[0] for own in self.pair)


def a_query() -> Query:
    context = Context(torch.zeros(1, 2, 1, 2, 2), torch.zeros(1, 2, 3), torch.zeros(1, 2))
    return Query(torch.zeros(2, 1, 2, 2), torch.zeros(2), context, torch.zeros(2, 3), torch.ones(2))


def come_experts() -> tuple[CountingNetwork, CountingNetwork, list[PairExpert]]:
    """Base (c against nothing) and long-term (adapted c against untuned c), which share a network."""
    network, adapted = CountingNetwork(0), CountingNetwork(1)
    with_context, without = Pass(network, Condition()), Pass(network, Condition(context=False))
    return network, adapted, [PairExpert(with_context, without), PairExpert(Pass(adapted, Condition()), with_context)]


@pytest.mark.parametrize("mode", ["literal", "normalised"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 1.5), (1.0, 2.5), (1.7, 0.0)])
def test_shared_passes_give_the_same_sum(mode: str, weights: tuple[float, ...]) -> None:
    experts = come_experts()[2]
    settings = CompositionSettings(mode, weights)  # type: ignore[arg-type]
    answer = ExpertProduct(experts, settings, 1000)(a_query(), 500)
    pairs = [expert.scores(*[None] * 5) for expert in experts]
    eps, eps_bar = (torch.stack([pair[side] for pair in pairs]) for side in (0, 1))
    expected = compose(eps, eps_bar, torch.tensor(weights), mode)  # type: ignore[arg-type]
    torch.testing.assert_close(answer.composed(), expected)
    total = float(len(experts)) if mode == "literal" else 1.0
    assert float(answer.exponents.sum()) == pytest.approx(total)


def test_one_batch_for_each_network_and_nothing_that_cancels() -> None:
    network, adapted, experts = come_experts()
    ExpertProduct(experts, CompositionSettings("normalised", (2.0, 1.5)), 1000)(a_query(), 500)
    assert (network.batches, adapted.batches) == ([2], [1])
    # weight 1 for the base: its unconditional side cancels; two passes are left of four
    ExpertProduct(experts, CompositionSettings("normalised", (1.0, 1.5)), 1000)(a_query(), 500)
    assert (network.batches, adapted.batches) == ([2, 1], [1, 1])
    # and an adapter of weight 1 replaces the base altogether
    ExpertProduct(experts, CompositionSettings("normalised", (1.0, 1.0)), 1000)(a_query(), 500)
    assert (network.batches, adapted.batches) == ([2, 1], [1, 1, 1])


def test_experts_without_passes_are_asked_for_their_scores() -> None:
    network = CountingNetwork(0)

    class Plain:
        def scores(self, *query):
            return network.answers[True], network.answers[False]

    product = ExpertProduct([Plain()], CompositionSettings("normalised", (3.0,)), 1000)
    expected = network.answers[False] + 3.0 * (network.answers[True] - network.answers[False])
    torch.testing.assert_close(product(a_query(), 500).composed(), expected)


def test_outside_the_interval_the_base_predicts_alone() -> None:
    network, _, experts = come_experts()
    product = ExpertProduct(experts, CompositionSettings("literal", (2.0, 2.0), (0.25, 0.75)), 1001)
    for step, inside in ((0, False), (249, False), (250, True), (750, True), (751, False), (1000, False)):
        answer = product(a_query(), step)
        assert (len(answer.exponents) > 1) is inside
        if not inside:
            assert torch.equal(answer.composed(), network.answers[True])
            assert product.single(step) == Pass(network, Condition())
    with pytest.raises(ConfigError, match=r"composition\.interval must satisfy 0 <= low <= high <= 1"):
        CompositionSettings(interval=(0.8, 0.2))


def test_a_product_keeps_the_passes_that_it_was_made_of() -> None:
    experts = come_experts()[2]
    product = ExpertProduct(experts, CompositionSettings("normalised", (1.0, 2.0)), 1000)
    before = product(a_query(), 0).composed()
    experts[1].pair = experts[0].pair
    assert torch.equal(product(a_query(), 0).composed(), before)


def test_wrong_number_of_weights_is_told() -> None:
    with pytest.raises(ConfigError, match=r"one weight for each of 2 experts, got \[1\.0\]"):
        ExpertProduct(come_experts()[2], CompositionSettings(), 1000)


def test_mixed_schedules_are_refused_with_the_reason() -> None:
    own, other = NoiseSchedule.linear(), NoiseSchedule.linear(ScheduleSettings(beta_end=0.03))
    assert own.digest == NoiseSchedule.linear().digest != other.digest
    experts = come_experts()[2]
    experts[0].schedule_digest = own.digest  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="expert 'long' does not tell its noise schedule"):
        check_schedules({"base": experts[0], "long": experts[1]}, own.digest)
    experts[1].schedule_digest = other.digest  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"expert 'long' was trained on the noise schedule .*no density"):
        check_schedules({"base": experts[0], "long": experts[1]}, own.digest)
    experts[1].schedule_digest = own.digest  # type: ignore[attr-defined]
    check_schedules({"base": experts[0], "long": experts[1]}, own.digest)


def test_passes_that_hardly_count_go_to_the_one_that_counts_most() -> None:
    pairs = [("base", "free"), ("cloud", "base"), ("adapted", "cloud")]
    settings = CompositionSettings("normalised", (1.04, 1.05, 0.3), least_exponent=0.1)
    whole = exponents_of(pairs, CompositionSettings("normalised", (1.04, 1.05, 0.3)))
    assert whole == pytest.approx({"base": -0.01, "free": -0.04, "cloud": 0.75, "adapted": 0.3})
    left = exponents_of(pairs, settings)
    assert left == pytest.approx({"cloud": 0.7, "adapted": 0.3})
    assert sum(left.values()) == pytest.approx(sum(whole.values()))
    literal = CompositionSettings("literal", (1.04, 1.05, 0.3), least_exponent=0.1)
    assert sum(exponents_of(pairs, literal).values()) == pytest.approx(3.0)
    with pytest.raises(ConfigError, match="least_exponent"):
        CompositionSettings(least_exponent=0.7)
