"""Units of actions and the base expert's two predictions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_experts_cdit import randomised

from come_nav.core.errors import ConfigError
from come_nav.core.protocols import Expert
from come_nav.core.settings import from_mapping, to_mapping
from come_nav.core.types import Context
from come_nav.experts.base import BaseExpert
from come_nav.experts.normalizer import Normalizer
from come_nav.world_model.sampling.schedule import NoiseSchedule

SHAPE = {"input_size": 4, "context_size": 2, "hidden_size": 24, "depth": 2, "num_heads": 3}


def a_context(batch: int) -> Context:
    generator = torch.Generator().manual_seed(5)
    poses = torch.randn(batch, 2, 3, generator=generator) * torch.tensor([[1.0], [0.0]])
    return Context(torch.randn(batch, 2, 4, 4, 4, generator=generator), poses, torch.tensor([[-1.0, 0.0]] * batch))


def a_query(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(6)
    x_t = torch.randn(batch, 4, 4, 4, generator=generator)
    t = torch.randint(1000, (batch,), generator=generator)
    return x_t, t, torch.randn(batch, 3, generator=generator), torch.arange(1.0, batch + 1.0)


# -- normalizer --------------------------------------------------------------------------------------------------------


def test_nwm_units() -> None:
    """Standing still is dx = -1/3, and zero is 1.25 spacings ahead; both are known traps of NWM's units."""
    normalizer = Normalizer.nwm(spacing_m=0.25)
    still = normalizer.action(torch.zeros(3))
    torch.testing.assert_close(still, torch.tensor([-1.0 / 3.0, 0.0, 0.0]))
    torch.testing.assert_close(normalizer.action(torch.tensor([1.25 * 0.25, 0.0, 0.5])), torch.tensor([0.0, 0.0, 0.5]))
    torch.testing.assert_close(normalizer.action(torch.tensor([1.25, -1.0, 0.0])), torch.tensor([1.0, -1.0, 0.0]))
    assert normalizer.relative_time(torch.tensor(8.0)).item() == 8.0 / 128.0


def test_metric_units_stand_still_at_zero_and_wrap_yaw() -> None:
    normalizer = Normalizer.metric(2.0)
    action = normalizer.action(torch.tensor([3.0, -1.0, math.pi + 0.5]))
    torch.testing.assert_close(action, torch.tensor([1.5, -0.5, 0.5 - math.pi]))
    assert torch.equal(normalizer.action(torch.zeros(3)), torch.zeros(3))


@given(st.tuples(*[st.floats(-3.0, 3.0)] * 3), st.sampled_from(["scale", "range"]), st.floats(0.05, 3.0))
def test_actions_survive_a_round_trip(action: tuple[float, float, float], kind: str, unit: float) -> None:
    normalizer = Normalizer(kind=kind, scale_m=unit, spacing_m=unit)  # type: ignore[arg-type]
    metres = torch.tensor(action, dtype=torch.float64)
    torch.testing.assert_close(normalizer.action_from_normalized(normalizer.action(metres)), metres)
    assert from_mapping(Normalizer, to_mapping(normalizer)) == normalizer


def test_context_pose_values() -> None:
    poses = torch.tensor([[[-2.0, 1.0, math.pi / 2], [0.0, 0.0, 0.0]]])
    values = Normalizer.metric(2.0).context_pose(poses, torch.tensor([[-4, 0]]))
    expected = torch.tensor([[[-1.0, 0.5, 1.0, 0.0, -0.5], [0.0, 0.0, 0.0, 1.0, 0.0]]])
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=0)


def test_empty_range_is_told() -> None:
    with pytest.raises(ConfigError, match=r"normalizer\.max_xy must exceed min_xy"):
        Normalizer(kind="range", max_xy=(-3.0, 4.0))


# -- base expert -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("null_token", [True, False])
@pytest.mark.parametrize("context_batch", [1, 3])
def test_one_batch_gives_both_predictions(null_token: bool, context_batch: int) -> None:
    model = randomised(**SHAPE, context_dropout=null_token, context_pose=True)
    expert: Expert = BaseExpert(model, Normalizer()).eval()
    query = x_t, t, action, rel_time = a_query(3)
    context = a_context(context_batch)
    eps, eps_bar = expert.scores(x_t, t, context, action, rel_time)
    assert eps.shape == eps_bar.shape == x_t.shape
    torch.testing.assert_close(eps, expert.eps(x_t, t, context, action, rel_time), rtol=1e-4, atol=1e-5)
    other = Context(context.latents + 1.0, context.poses_xyyaw, context.frame_offsets)
    _, eps_bar_other = expert.scores(query[0], query[1], other, query[2], query[3])
    torch.testing.assert_close(eps_bar, eps_bar_other, rtol=1e-4, atol=1e-5)
    assert (eps - eps_bar).abs().max() > 1e-3


def test_variance_values_follow_the_noise() -> None:
    expert = BaseExpert(randomised(**SHAPE), Normalizer())
    x_t, t, action, rel_time = a_query(2)
    both = expert.eps_with_variance(x_t, t, a_context(1), action, rel_time)
    raw = expert.network_output(x_t, t, a_context(1), action, rel_time)
    assert both.shape == (2, 8, 4, 4)
    assert torch.equal(both, raw)


def test_velocity_is_turned_into_noise() -> None:
    """x_0 from the expert's noise equals sqrt(abar) x_t - sqrt(1 - abar) v, the definition of v."""
    schedule = NoiseSchedule.linear()
    expert = BaseExpert(randomised(**SHAPE, learn_sigma=False), Normalizer(), schedule, "v").double()
    x_t, _, action, rel_time = a_query(3)
    t = torch.tensor([0, 400, 999])
    context = a_context(1)
    context = Context(context.latents.double(), context.poses_xyyaw.double(), context.frame_offsets.double())
    x_t = x_t.double()
    velocity = expert.network_output(x_t, t, context, action.double(), rel_time.double()).double()
    x_0 = schedule.predict_x0(x_t, expert.eps(x_t, t, context, action.double(), rel_time.double()), t)
    abar = torch.as_tensor(schedule.alphas_cumprod)[t][:, None, None, None]
    torch.testing.assert_close(x_0, abar.sqrt() * x_t - (1 - abar).sqrt() * velocity, rtol=1e-6, atol=1e-6)


def test_actions_reach_the_network_in_its_units() -> None:
    model = randomised(**SHAPE)
    x_t, t, action, rel_time = a_query(2)
    context = a_context(2)
    normalizer = Normalizer.nwm(0.5)
    expected = model(x_t, t, normalizer.action(action), context.latents, rel_time / 128.0)
    assert torch.equal(BaseExpert(model, normalizer).network_output(x_t, t, context, action, rel_time), expected)


def test_velocity_needs_a_schedule() -> None:
    with pytest.raises(ConfigError, match="'v' needs the noise schedule"):
        BaseExpert(randomised(**SHAPE), Normalizer(), prediction="v")
    with pytest.raises(ConfigError, match=r"expert\.prediction must be one of eps, v, got 'x'"):
        BaseExpert(randomised(**SHAPE), Normalizer(), prediction="x")  # type: ignore[arg-type]
