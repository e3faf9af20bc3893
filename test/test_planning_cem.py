"""The search: known optima, refusals, repeatability, and that effort pays."""

import math

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, PlanningError
from come_nav.core.types import Imagination, PlanStatus
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import Clearance, GoalPose, Smoothness
from come_nav.planning.parameterisations import make_parameterisation
from come_nav.planning.settings import PlannerSettings, RobotLimits
from come_nav.planning.twists import twists_of_path


class Paths:
    """An imaginer that counts what it is asked for and shows the last pose as latents."""

    def __init__(self):
        self.asked = []

    def imagine(self, poses_xyyaw, generator):
        self.asked.append(len(poses_xyyaw))
        return Imagination(poses_xyyaw, latents=poses_xyyaw[:, -1, :, None, None])


class View:
    """Squared distance of the imagined 'latents' to a pose."""

    name = "view"
    needs_view = True

    def __init__(self, goal):
        self.goal = torch.tensor(goal)

    def __call__(self, imagination):
        return ((imagination.latents[..., 0, 0] - self.goal) ** 2).sum(-1)


class Constant:
    name = "constant"

    def __init__(self, value, needs_view=False):
        self.value, self.needs_view = value, needs_view

    def __call__(self, imagination):
        return torch.full((len(imagination.poses_xyyaw),), self.value)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def reachable(name, seed=3):
    """Return the last pose of a path of this shape."""
    form = make_parameterisation(PlannerSettings(parameterisation=name))
    mean, std = form.prior(None)
    noise = torch.randn(len(mean), generator=seeded(seed))
    return form.poses((mean + 0.7 * std * noise)[None], None)[0, -1]


@pytest.mark.parametrize("name", ["straight", "arc", "spline"])
@pytest.mark.parametrize("proposal", ["gaussian", "mixture"])
def test_reaches_the_optimum_of_a_quadratic_cost(name, proposal):
    goal = reachable(name)
    config = PlannerSettings(parameterisation=name, proposal=proposal, iterations=8, samples=100, std_floor=0.001)
    plan = CemPlanner(config, [GoalPose(goal, 1.0, 1.0)]).plan(Paths(), seeded())
    assert plan.status is PlanStatus.OK
    assert plan.cost < 1e-3
    np.testing.assert_allclose(plan.poses_xyyaw[-1, :2], goal[:2], atol=0.03)


def test_goes_around_an_obstacle():
    wall = torch.stack([torch.full((21,), 0.8), torch.linspace(-0.6, 0.2, 21)], dim=-1)
    config = PlannerSettings(
        parameterisation="spline", v_knots=2, w_knots=3, iterations=6, samples=200, initial_samples=400
    )
    objectives = [GoalPose(torch.tensor([1.5, 0.0, 0.0]), 1.0, 0.0), Clearance(wall, radius_m=0.2)]
    # At most 1.2 m can be driven, which just gets past; with more weight on keeping away it ends 1 mm before.
    plan = CemPlanner(config, objectives, {"clearance": 0.8}).plan(Paths(), seeded())
    assert plan.status is PlanStatus.OK
    gaps = np.linalg.norm(plan.poses_xyyaw[:, None, :2] - wall.numpy()[None], axis=-1).min()
    assert gaps >= 0.2
    assert plan.poses_xyyaw[:, 1].max() > 0.3  # around the open side
    assert plan.poses_xyyaw[-1, 0] > 1.0


def test_more_effort_helps_on_average():
    goals = [reachable("spline", seed) for seed in range(12)]

    def mean_cost(samples, iterations):
        config = PlannerSettings(
            parameterisation="spline", initial_samples=None, samples=samples, iterations=iterations, elites=4
        )
        costs = [
            CemPlanner(config, [GoalPose(goal, 1.0, 1.0)]).plan(Paths(), seeded(run)).cost
            for run, goal in enumerate(goals)
        ]
        return float(np.mean(costs))

    by_samples = [mean_cost(samples, 2) for samples in (8, 32, 128)]
    assert by_samples[0] > by_samples[1] > by_samples[2]
    by_iterations = [mean_cost(32, iterations) for iterations in (1, 3, 6)]
    assert by_iterations[0] > by_iterations[1] > by_iterations[2]


@pytest.mark.parametrize("sampling", ["gaussian", "sobol", "uniform", "mixed"])
def test_first_samples_cover_the_prior_or_the_range(sampling):
    config = PlannerSettings(
        parameterisation="arc",
        initial_samples=400,
        iterations=1,
        initial_sampling=sampling,
        prior_v_std_mps=0.05,
        limits=RobotLimits(v_max_mps=1.0),
    )
    plan = CemPlanner(config, [GoalPose(torch.zeros(3))]).plan(
        Paths(), seeded(), initial_twist=np.array([0.5, 0.0, 0.0])
    )
    speeds = plan.trace.iterations[0].parameters[:, 0]
    near = float(((speeds - 0.5).abs() < 0.1).float().mean())  # 2 sigma: 0.954; uniform over 0 to 1: 0.2
    expected = {"gaussian": 0.954, "sobol": 0.954, "uniform": 0.2, "mixed": 0.577}[sampling]
    assert near == pytest.approx(expected, abs=0.05 if sampling == "gaussian" else 0.015)


@pytest.mark.parametrize("proposal", ["gaussian", "mixture"])
def test_one_elite_stays_finite(proposal):
    config = PlannerSettings(elites=1, iterations=5, samples=20, initial_samples=20, proposal=proposal)
    plan = CemPlanner(config, [GoalPose(reachable("arc"))]).plan(Paths(), seeded())
    assert plan.status is PlanStatus.OK
    for iteration in plan.trace.iterations:
        assert torch.isfinite(iteration.mean).all()
        assert (iteration.std > 0).all()


def test_same_generator_same_plan():
    planner = CemPlanner(PlannerSettings(parameterisation="spline"), [GoalPose(reachable("spline"))])
    first, again, other = (planner.plan(Paths(), seeded(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.poses_xyyaw, again.poses_xyyaw)
    assert not np.array_equal(first.poses_xyyaw, other.poses_xyyaw)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (math.nan, PlanStatus.NON_FINITE_COST),
        (-math.inf, PlanStatus.NON_FINITE_COST),
        (math.inf, PlanStatus.ALL_IN_COLLISION),
    ],
)
@pytest.mark.parametrize("needs_view", [False, True])
def test_costs_that_are_no_numbers(value, status, needs_view):
    plan = CemPlanner(PlannerSettings(), [Constant(value, needs_view)]).plan(Paths(), seeded())
    assert plan.status is status
    assert plan.poses_xyyaw.shape == (0, 3)
    assert math.isnan(plan.cost)
    assert "candidates" in plan.message


def test_single_nan_costs_never_win():
    class Sometimes:
        name, needs_view = "sometimes", False

        def __call__(self, imagination):
            cost = imagination.poses_xyyaw[:, -1, 0].clone()
            cost[::2] = torch.nan
            return cost

    plan = CemPlanner(PlannerSettings(), [Sometimes()]).plan(Paths(), seeded())
    assert plan.status is PlanStatus.OK
    assert math.isfinite(plan.cost)
    for iteration in plan.trace.iterations:
        assert torch.isfinite(iteration.costs[iteration.elite]).all()


def test_rejected_paths_are_not_imagined():
    imaginer = Paths()
    ahead = Clearance(torch.tensor([[0.8, 0.0]]), radius_m=0.3)
    planner = CemPlanner(PlannerSettings(iterations=1, result="best"), [View([1.0, 0.0, 0.0]), ahead])
    plan = planner.plan(imaginer, seeded())
    trace = plan.trace.iterations[0]
    rejected = torch.isinf(trace.costs_by_objective["clearance"])
    assert 0 < int(rejected.sum()) < len(rejected)
    assert imaginer.asked == [int((~rejected).sum())]
    assert torch.isnan(trace.costs_by_objective["view"][rejected]).all()


class RoughPaths(Paths):
    """One that tells roughly what it shows: its poses to half a metre."""

    def rough(self, poses_xyyaw):
        return Imagination(poses_xyyaw, latents=(2 * poses_xyyaw[:, -1, :, None, None]).round() / 2)


def test_candidates_without_hope_are_not_imagined():
    goal = reachable("spline").tolist()
    plans, asked = [], []
    for share in (1.0, 0.25):
        imaginer = RoughPaths()
        config = PlannerSettings(samples=40, initial_samples=100, iterations=3, imagined_share=share, result="best")
        plans.append(CemPlanner(config, [View(goal)]).plan(imaginer, seeded()))
        asked.append(imaginer.asked)
    assert asked == [[100, 40, 40], [25, 10, 10]]
    everybody, hopeful = (plan.trace.iterations[0].costs for plan in plans)
    imagined = torch.isfinite(hopeful)
    assert int(imagined.sum()) == 25
    assert torch.equal(hopeful[imagined], everybody[imagined])
    assert int(everybody.argmin()) == int(hopeful.argmin())  # the best one had hope
    assert plans[1].cost < 0.05


def test_who_cannot_tell_roughly_imagines_all():
    imaginer = Paths()
    config = PlannerSettings(samples=10, initial_samples=None, iterations=1, elites=2, imagined_share=0.5)
    CemPlanner(config, [View([1.0, 0.0, 0.0])]).plan(imaginer, seeded())
    assert imaginer.asked[0] == 10
    with pytest.raises(ConfigError, match=r"planner\.imagined_share"):
        PlannerSettings(imagined_share=0.0)


def test_limits_hold_on_every_candidate_of_the_trace():
    limits = RobotLimits(0.0, 0.6, 0.8, a_max_mps2=1.0, alpha_max_radps2=2.0)
    config = PlannerSettings(parameterisation="spline", limits=limits)
    plan = CemPlanner(config, [GoalPose(torch.tensor([5.0, 5.0, 3.0]))]).plan(
        Paths(), seeded(), initial_twist=np.array([0.5, 0.0, 0.0])
    )
    for iteration in plan.trace.iterations:
        twists = twists_of_path(iteration.poses_xyyaw.double(), config.dt_s)
        assert (twists[..., 0] >= -1e-4).all()
        assert (twists[..., 0] <= 0.6 + 1e-4).all()
        assert (twists[..., 2].abs() <= 0.8 + 1e-4).all()
        assert ((twists[:, 0, 0] - 0.5).abs() <= 0.25 + 1e-4).all()


def test_never_worse_than_the_best_that_was_tried():
    for result in ("best", "cheaper"):
        config = PlannerSettings(parameterisation="spline", result=result)
        plan = CemPlanner(config, [GoalPose(reachable("spline"))]).plan(Paths(), seeded())
        tried = min(float(iteration.costs.min()) for iteration in plan.trace.iterations)
        assert plan.cost == pytest.approx(tried)


def test_result_mean_is_the_mean_of_the_last_elites():
    config = PlannerSettings(result="mean", iterations=1)
    plan = CemPlanner(config, [GoalPose(reachable("arc"))]).plan(Paths(), seeded())
    first = plan.trace.iterations[0]
    mean = first.parameters[first.elite].mean(dim=0, keepdim=True)
    path = make_parameterisation(config).poses(mean, None)[0]
    np.testing.assert_allclose(plan.poses_xyyaw, path, atol=1e-6)


def test_warm_start_helps_a_short_search():
    long = PlannerSettings(parameterisation="spline", iterations=8, samples=200)
    short = PlannerSettings(parameterisation="spline", iterations=1, samples=16, initial_samples=16, elites=4)
    cold, warm = [], []
    for seed in range(10):
        objective = GoalPose(reachable("spline", seed), 1.0, 1.0)
        before = CemPlanner(long, [objective]).plan(Paths(), seeded(seed))
        planner = CemPlanner(short, [objective])
        cold.append(planner.plan(Paths(), seeded(seed)).cost)
        warm.append(planner.plan(Paths(), seeded(seed), warm_start=before).cost)
    assert np.mean(warm) < 0.5 * np.mean(cold)


def test_warm_start_shifts_by_the_elapsed_steps():
    config = PlannerSettings(parameterisation="arc", iterations=1, initial_samples=8, samples=8, elites=2)
    planner = CemPlanner(config, [GoalPose(torch.tensor([1.0, 0.4, 0.5]))])
    before = planner.plan(Paths(), seeded(), stamp_s=10.0)
    after = planner.plan(Paths(), seeded(1), stamp_s=10.5, warm_start=before)
    v, _, w = twists_of_path(torch.from_numpy(before.poses_xyyaw), config.dt_s)[0].tolist()
    np.testing.assert_allclose(after.trace.iterations[0].mean, [v, w], atol=1e-4)


def test_time_limit_stops_the_search():
    ticks = iter(range(100))
    config = PlannerSettings(iterations=50, time_limit_s=2.5)
    planner = CemPlanner(config, [GoalPose(reachable("arc"))], clock=lambda: float(next(ticks)))
    plan = planner.plan(Paths(), seeded())
    assert plan.status is PlanStatus.TIMED_OUT
    assert len(plan.trace.iterations) == 3
    assert plan.poses_xyyaw.shape == (0, 3)
    ticks = iter(range(100))
    keeping = PlannerSettings(iterations=50, time_limit_s=2.5, keep_best_on_timeout=True)
    kept = CemPlanner(keeping, [GoalPose(reachable("arc"))], clock=lambda: float(next(ticks))).plan(Paths(), seeded())
    assert kept.status is PlanStatus.TIMED_OUT
    assert kept.poses_xyyaw.shape == (8, 3)


def test_weights_scale_their_terms():
    goal = reachable("arc")
    plain = CemPlanner(PlannerSettings(), [GoalPose(goal)]).plan(Paths(), seeded())
    double = CemPlanner(PlannerSettings(), [GoalPose(goal), Smoothness()], {"goal_pose": 2.0, "smoothness": 0.0})
    twice = double.plan(Paths(), seeded())
    assert twice.cost == pytest.approx(2.0 * plain.cost, rel=1e-5)
    assert "smoothness" not in twice.trace.iterations[0].costs_by_objective


def test_repeats_average_noisy_costs():
    class Noisy:
        def __init__(self):
            self.calls = 0

        def imagine(self, poses_xyyaw, generator):
            self.calls += 1
            noise = torch.randn(1, 3, 1, 1, generator=generator)
            return Imagination(poses_xyyaw, latents=poses_xyyaw[:, -1, :, None, None] + noise)

    imaginer = Noisy()
    config = PlannerSettings(iterations=1, result="best", repeats=3)
    CemPlanner(config, [View([1.0, 0.0, 0.0])]).plan(imaginer, seeded())
    assert imaginer.calls == 3


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: CemPlanner(PlannerSettings(), []), "at least one objective"),
        (lambda: CemPlanner(PlannerSettings(), [Smoothness(), Smoothness()]), "different names"),
        (lambda: CemPlanner(PlannerSettings(), [Smoothness()], {"smothness": 1.0}), "did you mean 'smoothness'"),
        (lambda: CemPlanner(PlannerSettings(), [Smoothness()], {"smoothness": -1.0}), "must be >= 0"),
        (lambda: PlannerSettings(elites=100), "planner.elites"),
        (lambda: PlannerSettings(samples=0), "planner.samples"),
        (lambda: PlannerSettings(parameterisation="arcs"), "did you mean 'arc'"),
        (lambda: RobotLimits(v_min_mps=2.0), "v_min_mps must be below"),
    ],
)
def test_mistakes_are_named(build, words):
    with pytest.raises((ConfigError, PlanningError), match=words):
        build()
