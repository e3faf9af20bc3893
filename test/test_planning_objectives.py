"""Terms of the cost against values computed by hand."""

import math

import pytest
import torch

from come_nav.core.errors import ConfigError, PlanningError, ShapeError
from come_nav.core.types import Imagination
from come_nav.planning.cost import WeightedSum
from come_nav.planning.objectives import (
    Clearance,
    Doubt,
    GoalPose,
    ImageDistance,
    LatentDistance,
    Smoothness,
    with_spread,
)
from come_nav.planning.twists import path_from_twists

ANY_PATHS = torch.zeros(2, 8, 3)


def test_latent_distance_is_the_mean_square():
    goal = torch.zeros(4, 2, 2)
    latents = torch.stack([goal, goal + 3.0])
    assert LatentDistance(goal)(Imagination(ANY_PATHS, latents)).tolist() == [0.0, 9.0]


def test_latent_cosine_ignores_the_length():
    goal = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = torch.stack([5.0 * goal, -goal])
    costs = LatentDistance(goal[None], "cosine")(Imagination(ANY_PATHS, latents))
    torch.testing.assert_close(costs, torch.tensor([0.0, 2.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "expected"), [("l1", 0.5), ("l2", 0.25)])
def test_image_distance_of_a_constant_difference(kind, expected):
    goal = torch.zeros(3, 16, 16)
    images = torch.stack([goal, goal + 0.5])
    costs = ImageDistance(goal, kind)(Imagination(ANY_PATHS, images=images))
    torch.testing.assert_close(costs, torch.tensor([0.0, expected]))


def test_blurred_levels_see_a_shift_that_pixels_do_not():
    """A thin line that moves further away costs the same at pixel level, but more at a coarse level."""

    def line(column):
        image = torch.zeros(3, 32, 32)
        image[:, :, column] = 1.0
        return image

    images = torch.stack([line(17), line(23)])
    sharp = ImageDistance(line(16), "l2", (1,))(Imagination(ANY_PATHS, images=images))
    blurred = ImageDistance(line(16), "l2", (1, 4, 8))(Imagination(ANY_PATHS, images=images))
    assert float(sharp[0]) == pytest.approx(float(sharp[1]))
    assert float(blurred[0]) < 0.9 * float(blurred[1])


def test_goal_pose_wraps_the_yaw():
    paths = torch.zeros(1, 8, 3)
    paths[0, -1] = torch.tensor([3.0, 4.0, math.pi - 0.1])
    cost = GoalPose(torch.tensor([0.0, 0.0, -math.pi + 0.1]), 2.0, 10.0)(Imagination(paths))
    assert float(cost) == pytest.approx(2.0 * 25.0 + 10.0 * 0.04, rel=1e-5)


def test_path_cost_fraction_prefers_the_path_that_gets_there_sooner():
    paths = torch.zeros(2, 8, 3)
    paths[0, :, 0] = torch.linspace(0.125, 1.0, 8)
    paths[1, :, 0] = torch.linspace(0.25, 2.0, 8).clamp(max=1.0)
    goal = torch.tensor([1.0, 0.0, 0.0])
    assert GoalPose(goal)(Imagination(paths)).tolist() == [0.0, 0.0]
    slow, fast = GoalPose(goal, path_cost_fraction=0.5)(Imagination(paths)).tolist()
    assert slow == pytest.approx(0.5 * float(((1.0 - paths[0, :, 0]) ** 2).mean()))
    assert 0.0 < fast < slow


def straight_path(y):
    path = torch.zeros(1, 8, 3)
    path[0, :, 0] = torch.arange(1, 9) * 0.25
    path[0, :, 1] = y
    return path


def test_clearance_rejects_touching_and_warns_near():
    points = torch.tensor([[1.0, 0.0], [math.nan, 0.0]])
    paths = torch.cat([straight_path(0.1), straight_path(0.3), straight_path(2.0)])
    costs = Clearance(points, radius_m=0.2, margin_m=0.2)(Imagination(paths))
    assert math.isinf(costs[0])
    # At one of the positions, 0.125 m apart, it is 0.1 m from touching: ((0.2 - 0.1) / 0.2)^2; its neighbours add less.
    assert 0.25 * 0.125 <= float(costs[1]) < 3 * 0.25 * 0.125
    assert float(costs[2]) == 0.0


def test_who_touches_something_is_rejected_whatever_the_weight():
    paths = torch.cat([straight_path(0.1), straight_path(0.3), straight_path(2.0)])
    terms = [Clearance(torch.tensor([[1.0, 0.0]]), radius_m=0.2, margin_m=0.2), Smoothness(0.25)]
    for weight in (0.0, 0.001, 10.0):
        costs = WeightedSum(terms, {"clearance": weight, "smoothness": 0.0}).evaluate(
            paths, None, torch.Generator().manual_seed(0)
        )
        assert torch.isfinite(costs.total).tolist() == [False, True, True]
        assert (float(costs.total[1]) > 0.0) == (weight > 0.0)


def test_clearance_counts_metres_beside_a_wall_and_no_time():
    beside_wall = Clearance(lambda positions: 0.3 - positions[:, 1], radius_m=0.2, margin_m=0.2)
    steady, waits, stands = straight_path(0.0), straight_path(0.0), torch.zeros(1, 8, 3)
    waits[0, :, 0] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 2.0])
    costs = beside_wall(Imagination(torch.cat([steady, waits, stands])))
    torch.testing.assert_close(costs, torch.tensor([2.0 * 0.25, 2.0 * 0.25, 0.0]))


def test_a_robot_that_touches_something_may_leave_it_but_not_come_nearer():
    touched = Clearance(torch.tensor([[0.15, 0.0], [1.0, 0.6]]), radius_m=0.2, margin_m=0.2)
    turning, backwards = torch.zeros(1, 8, 3), -0.4 * straight_path(0.0)
    costs = touched(Imagination(torch.cat([turning, backwards, straight_path(0.0)])))
    assert torch.isfinite(costs).tolist() == [True, True, False]
    sideways = torch.zeros(1, 8, 3)
    sideways[0, :, 1] = -backwards[0, :, 0]
    assert costs[1] < touched(Imagination(sideways))[0]


def test_clearance_looks_between_poses():
    costs = Clearance(torch.tensor([[0.625, 0.0]]), radius_m=0.1)(Imagination(straight_path(0.0)))
    assert math.isinf(costs[0])


def test_clearance_of_nothing_and_of_a_function():
    assert float(Clearance(torch.zeros(0, 2))(Imagination(straight_path(0.0)))) == 0.0
    to_wall = Clearance(lambda positions: 1.5 - positions[:, 0], radius_m=0.2)
    assert math.isinf(to_wall(Imagination(straight_path(0.0)))[0])
    assert float(to_wall(Imagination(0.4 * straight_path(0.0)))[0]) == 0.0


def test_smoothness_is_zero_on_an_arc_and_counts_changes():
    arc = path_from_twists(torch.tensor([[0.6, 0.0, 0.4]]).repeat(8, 1), 0.25)
    jump = path_from_twists(torch.tensor([[0.6, 0.0, 0.0]] * 4 + [[0.2, 0.0, 1.0]] * 4), 0.25)
    costs = Smoothness()(Imagination(torch.stack([arc, jump])))
    torch.testing.assert_close(costs, torch.tensor([0.0, (0.4**2 + 1.0) / 8]), atol=1e-4, rtol=0)
    started = Smoothness(initial_twist=torch.tensor([0.0, 0.0, 0.4]))(Imagination(arc[None]))
    assert float(started) == pytest.approx(0.36 / 8, abs=1e-4)


def test_mistakes_are_named():
    with pytest.raises(PlanningError, match="no latents"):
        LatentDistance(torch.zeros(4, 2, 2))(Imagination(ANY_PATHS))
    with pytest.raises(PlanningError, match="no images"):
        ImageDistance(torch.zeros(3, 8, 8))(Imagination(ANY_PATHS))
    with pytest.raises(ShapeError, match="imagined latents"):
        LatentDistance(torch.zeros(4, 2, 2))(Imagination(ANY_PATHS, torch.zeros(2, 4, 3, 3)))
    with pytest.raises(ConfigError, match="kind"):
        ImageDistance(torch.zeros(3, 8, 8), "l3")
    with pytest.raises(ConfigError, match="radius_m"):
        Clearance(torch.zeros(1, 2), radius_m=-1.0)


class Unsure:
    """Imagines zeros and, for the second candidate, noise of standard deviation 2 around them."""

    def __init__(self) -> None:
        self.asked = 0

    def imagine(self, poses_xyyaw, generator):
        self.asked += 1
        noise = torch.randn(len(poses_xyyaw), 4, 16, 16, generator=generator)
        return Imagination(poses_xyyaw, noise * torch.tensor([0.0, 2.0])[:, None, None, None])


def test_the_spread_is_the_variance_over_noises():
    generator, unsure = torch.Generator().manual_seed(0), Unsure()
    drawn = with_spread([unsure.imagine(ANY_PATHS, generator) for _ in range(3)])
    assert len(drawn) == 3
    for imagination in drawn:
        assert imagination.spread.tolist() == pytest.approx([0.0, 4.0], rel=0.1)
    for few in ([Imagination(ANY_PATHS, torch.zeros(2, 4, 2, 2))], [Imagination(ANY_PATHS)] * 2):
        with pytest.raises(PlanningError, match="twice"):
            with_spread(few)


def test_an_end_that_varies_is_doubted():
    unsure, goal = Unsure(), torch.zeros(4, 16, 16)
    terms = [LatentDistance(goal), Doubt()]
    costs = WeightedSum(terms, {"doubt": 0.5}).evaluate(ANY_PATHS, unsure, torch.Generator().manual_seed(0))
    assert unsure.asked == Doubt.draws == 2
    assert costs.by_objective["doubt"].tolist() == pytest.approx([0.0, 0.5 * 4.0], rel=0.1)
    assert costs.by_objective["latent_distance"].tolist() == pytest.approx([0.0, 4.0], rel=0.1)
    assert costs.total.tolist() == pytest.approx([0.0, 6.0], rel=0.1)
    trusted = WeightedSum(terms, {"doubt": 0.0})
    trusted.evaluate(ANY_PATHS, unsure, torch.Generator())
    assert unsure.asked == 3  # once: nobody doubts
    assert Doubt()(Imagination(ANY_PATHS)).tolist() == [0.0, 0.0]  # a rough view comes from no noise
