"""The denoiser's loss: weights over noise levels in closed form, and views that reach the network."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from come_nav.core.types import Context, ContextViews
from come_nav.experts.base import BaseExpert, Prediction
from come_nav.experts.cdit import CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.training.config import OptimiserSettings
from come_nav.training.data.bank import WindowBatch, step_generator
from come_nav.training.tasks.denoiser import MIN_SNR_GAMMA, DenoiserTask, LossWeighting
from come_nav.world_model.sampling.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()


def task(
    prediction: Prediction,
    weighting: Literal["uniform", "min_snr"],
    views: Any = None,
    extra: int = 0,
    shift: float = 1.0,
) -> DenoiserTask:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CDiT(4, 2, 2, 3, 24, 1, 2, 2.0, False, context_dropout=True, extra_channels=extra)
    expert = BaseExpert(network, Normalizer.metric(1.0), SCHEDULE, prediction)
    return DenoiserTask(expert, SCHEDULE, OptimiserSettings(), 0.0, 0, views, LossWeighting(weighting, shift))


def batch() -> WindowBatch:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return WindowBatch(
        normal(2, 2, 3, 4, 4),
        normal(2, 2, 3),
        torch.tensor([[-1.0, 0.0]]).expand(2, -1),
        normal(2, 3, 3, 4, 4),
        normal(2, 3, 3),
        torch.full((2, 3), 4.0),
    )


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_min_snr_weighs_errors_of_the_clean_latents_by_the_clipped_ratio(prediction: Prediction) -> None:
    weights = task(prediction, "min_snr")._weights(torch.tensor([0, 200, 500, 999]))
    abar = torch.tensor(SCHEDULE.alphas_cumprod[[0, 200, 500, 999]])
    # An error e of x_0 is an error e sqrt(abar / (1 - abar)) of eps and e / sqrt(1 - abar) of v.
    per_clean_error = weights * (abar / (1 - abar) if prediction == "eps" else 1 / (1 - abar))
    torch.testing.assert_close(per_clean_error, (abar / (1 - abar)).clamp(max=MIN_SNR_GAMMA), rtol=1e-5, atol=0)


def test_an_untrained_network_has_the_loss_of_its_target() -> None:
    made = task("eps", "uniform")
    loss = made.diffusion_loss(batch(), step_generator(0, 0, 0), 0.0)
    assert float(loss.detach()) == pytest.approx(1.0, abs=0.25)  # it answers zero, and noise has variance one


def test_views_reach_the_network_and_learn() -> None:
    seen = torch.randn(6, 5, 4, 4, generator=torch.Generator().manual_seed(5))
    made = task("v", "uniform", lambda *_: seen, extra=5)
    made.diffusion_loss(batch(), step_generator(0, 0, 0), 0.0).backward()
    gradient = made.expert.model.final_layer.linear.weight.grad
    assert gradient is not None
    assert float(gradient.abs().sum()) > 0.0
    with torch.no_grad():
        made.expert.model.final_layer.linear.weight.normal_(generator=torch.Generator().manual_seed(2))
        made.expert.model.extra_embedder.proj.weight.normal_(generator=torch.Generator().manual_seed(3))
        one = made.diffusion_loss(batch(), step_generator(0, 0, 0), 0.0)
        seen.neg_()
        other = made.diffusion_loss(batch(), step_generator(0, 0, 0), 0.0)
    assert float(one) != float(other)


def test_an_untrained_velocity_network_answers_the_view_in_one_step() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = CDiT(4, 2, 2, 3, 24, 1, 2, 2.0, False, extra_channels=5, extra_skip=True)
    expert = BaseExpert(network, Normalizer.metric(1.0), SCHEDULE, "v")
    expert.start_from_view()
    generator = torch.Generator().manual_seed(4)
    view, x_t = (torch.randn(2, channels, 4, 4, generator=generator) for channels in (5, 3))
    context = Context(torch.zeros(1, 2, 3, 4, 4), torch.zeros(1, 2, 3), torch.zeros(1, 2), views=ContextViews(view))
    last = torch.full((2,), len(SCHEDULE) - 1)
    with torch.no_grad():
        eps = expert.eps(x_t, last, context, torch.zeros(2, 3), torch.zeros(2))
    torch.testing.assert_close(SCHEDULE.predict_x0(x_t, eps, last), view[:, :3], atol=0.05, rtol=0)
    assert not CDiT(4, 2, 2, 3, 24, 1, 2, 2.0, False, extra_channels=5, extra_skip=True).skip_layer.linear.bias.any()


def test_shifted_noise_levels_follow_their_distribution_in_training_alone() -> None:
    shifted, steps = task("v", "uniform", shift=6.0), len(SCHEDULE)
    even = torch.randint(steps, (4000, 4), generator=torch.Generator().manual_seed(1))
    levels = shifted.train()._noise_levels((4000, 4), torch.Generator().manual_seed(1))
    # P(t' <= u') = u'/(6 - 5 u') for even u: the inverse of u' = 6 u/(1 + 5 u)
    for share in (0.25, 0.5, 0.75, 0.9):
        expected = share / (6.0 - 5.0 * share)
        assert ((levels + 0.5) / steps <= share).float().mean().item() == pytest.approx(expected, abs=0.012)
    assert levels.min() >= 0 and levels.max() < steps
    assert torch.equal(shifted.eval()._noise_levels((4000, 4), torch.Generator().manual_seed(1)), even)
