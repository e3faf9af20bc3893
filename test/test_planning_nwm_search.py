"""NWM's search: its lines, its refit, and its two habits both ways."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from come_nav.core.errors import ConfigError, PlanningError
from come_nav.core.geometry import se2
from come_nav.core.types import Imagination, PlanStatus
from come_nav.planning.nwm_search import NwmPlanner, NwmSearchSettings, straight_lines
from come_nav.planning.view_distance import ViewDistance


class PoseImaginer:
    """Imagines the last told pose itself, and counts."""

    def __init__(self) -> None:
        self.told: list[Tensor] = []

    def imagine(self, poses_xyyaw: Tensor, generator: torch.Generator) -> Imagination:
        self.told.append(poses_xyyaw)
        return Imagination(poses_xyyaw, latents=poses_xyyaw[:, -1, :, None, None])


class ToPose:
    """Squared distance of the told end to a pose."""

    name = "pose"
    needs_view = True

    def __init__(self, goal: tuple[float, float, float]) -> None:
        self.goal = torch.tensor(goal)

    def __call__(self, imagination: Imagination) -> Tensor:
        return ((imagination.poses_xyyaw[:, -1] - self.goal) ** 2).sum(-1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_line_repeats_its_step_and_turns_first_to_its_heading() -> None:
    config = NwmSearchSettings(spacing_m=0.5)
    # dx = 3, dy = 1 spacings: ((3 + 2.5) / 7.5) * 2 - 1 and 1 / 4
    parameters = torch.tensor([[2 * 5.5 / 7.5 - 1, 0.25, 0.1]])
    lines = straight_lines(parameters, config)
    steps = torch.arange(1, 9.0)[:, None] * torch.tensor([1.5, 0.5])
    torch.testing.assert_close(lines.poses_xyyaw[0, :, :2], steps)
    heading = math.atan2(1, 3)
    torch.testing.assert_close(lines.poses_xyyaw[0, :7, 2], torch.full((7,), heading))
    assert lines.poses_xyyaw[0, 7, 2].item() == pytest.approx(heading + 0.1 * math.pi)
    assert lines.last_turn_rad.item() == pytest.approx(0.1 * math.pi)
    assert torch.equal(lines.told_xyyaw, lines.poses_xyyaw)


def test_repeated_steps_are_told_in_each_new_base() -> None:
    parameters = torch.tensor([[0.3, 0.4, -0.2]])
    lines = straight_lines(parameters, NwmSearchSettings(repeat_steps=True))
    torch.testing.assert_close(lines.poses_xyyaw, straight_lines(parameters, NwmSearchSettings()).poses_xyyaw)
    before = torch.cat([torch.zeros(1, 1, 3), lines.told_xyyaw[:, :-1]], dim=1)
    actions = se2.relative(before, lines.told_xyyaw)[0]
    step = lines.poses_xyyaw[0, 0, :2]
    torch.testing.assert_close(actions[:, :2], step.expand(8, 2), atol=1e-5, rtol=0)
    heading = math.atan2(step[1], step[0])
    expected = torch.tensor([heading, 0, 0, 0, 0, 0, 0, -0.2 * math.pi])
    torch.testing.assert_close(actions[:, 2], expected, atol=1e-5, rtol=0)
    assert (lines.told_xyyaw[0, -1, :2] - lines.poses_xyyaw[0, -1, :2]).norm() > 0.5  # the path bends


def test_one_iteration_is_the_mean_of_the_five_cheapest_of_120() -> None:
    imaginer, config = PoseImaginer(), NwmSearchSettings()
    plan = NwmPlanner(config).plan(imaginer, ToPose((1.8, 0.5, 0.3)), seeded())
    noise = torch.randn(120, 3, generator=seeded())
    parameters = torch.tensor(config.prior_mean) + torch.tensor(config.prior_std) * noise
    ends = straight_lines(parameters, config).poses_xyyaw[:, -1]
    best = ((ends - torch.tensor([1.8, 0.5, 0.3])) ** 2).sum(-1).argsort()[:5]
    expected = straight_lines(parameters[best].mean(0, keepdim=True), config).poses_xyyaw[0]
    assert plan.status is PlanStatus.OK
    np.testing.assert_allclose(plan.poses_xyyaw, expected.numpy(), atol=1e-6)
    assert [len(told) for told in imaginer.told] == [120, 120, 120, 1]  # three repeats and the answer
    assert plan.trace is not None
    assert plan.trace.iterations[0].elite.tolist() == best.tolist()


@pytest.mark.parametrize("twice", [False, True])
def test_pi_once_or_twice_on_the_turn(twice: bool) -> None:
    config = NwmSearchSettings(turn_pi_twice=twice)
    plan = NwmPlanner(config).plan(PoseImaginer(), ToPose((1.8, 0.0, 0.4)), seeded())
    assert plan.trace is not None
    first = plan.trace.iterations[0]
    turn = first.parameters[first.elite, 2].mean().item() * math.pi
    heading = math.atan2(plan.poses_xyyaw[0, 1], plan.poses_xyyaw[0, 0])
    added = plan.poses_xyyaw[-1, 2] - heading
    assert added == pytest.approx(turn * (math.pi if twice else 1.0), abs=1e-5)
    again = NwmPlanner(NwmSearchSettings(turn_pi_twice=not twice)).plan(
        PoseImaginer(), ToPose((1.8, 0.0, 0.4)), seeded()
    )
    np.testing.assert_allclose(again.poses_xyyaw[:, :2], plan.poses_xyyaw[:, :2])  # positions do not feel it


def test_further_iterations_refit_with_the_unbiased_spread_and_come_closer() -> None:
    goal = (1.9, 0.6, 0.5)
    plans = {
        n: NwmPlanner(NwmSearchSettings(iterations=n)).plan(PoseImaginer(), ToPose(goal), seeded()) for n in (1, 4)
    }
    assert plans[4].cost < plans[1].cost
    trace = plans[4].trace
    assert trace is not None
    first, second = trace.iterations[:2]
    best = first.parameters[first.elite]
    torch.testing.assert_close(second.mean, best.mean(0))
    torch.testing.assert_close(second.std, best.std(0, correction=1))


def test_same_seed_same_plan_and_costs_that_are_not_finite() -> None:
    first, second = (NwmPlanner(NwmSearchSettings()).plan(PoseImaginer(), ToPose((2, 0, 0)), seeded(3)) for _ in (0, 1))
    np.testing.assert_array_equal(first.poses_xyyaw, second.poses_xyyaw)
    lost = NwmPlanner(NwmSearchSettings()).plan(PoseImaginer(), ToPose((math.nan, 0, 0)), seeded())
    assert lost.status is PlanStatus.NON_FINITE_COST
    assert lost.poses_xyyaw.shape == (0, 3)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"nwm.elites must be in \[2, 120\], got 1"):
        NwmSearchSettings(elites=1)


def test_view_distance_compares_in_batches() -> None:
    seen = []

    def distance(images: Tensor, references: Tensor) -> Tensor:
        seen.append(len(images))
        return (images - references).abs().mean(dim=(1, 2, 3))

    goal = torch.full((3, 4, 4), 0.5)
    term = ViewDistance("lpips", goal, distance, batch=4)
    images = torch.linspace(0, 1, 10)[:, None, None, None].expand(10, 3, 4, 4)
    found = term(Imagination(torch.zeros(10, 8, 3), images=images))
    torch.testing.assert_close(found, (torch.linspace(0, 1, 10) - 0.5).abs())
    assert seen == [4, 4, 2]
    with pytest.raises(PlanningError, match="returns no images"):
        term(Imagination(torch.zeros(1, 8, 3)))
