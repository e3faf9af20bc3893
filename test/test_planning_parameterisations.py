"""Path shapes: closed forms, inverses, and limits that hold for any parameters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from come_nav.planning.parameterisations import (
    Spline,
    knot_basis,
    make_parameterisation,
)
from come_nav.planning.settings import PlannerSettings, RobotLimits
from come_nav.planning.twists import path_from_twists, shift_path, twists_of_path

NAMES = ("straight", "arc", "spline")


def shape(name, **changes):
    changes.setdefault("limits", RobotLimits(v_max_mps=1.0, w_max_radps=1.2))
    return make_parameterisation(PlannerSettings(parameterisation=name, **changes))


def test_straight_repeats_one_step_and_turns_at_the_end():
    path = shape("straight").poses(torch.tensor([[0.2, 0.05, 0.4]]), None)[0]
    heading = math.atan2(0.05, 0.2)
    steps = np.arange(1, 9)[:, None]
    np.testing.assert_allclose(path[:, :2], steps * np.array([0.2, 0.05]), atol=1e-6)
    np.testing.assert_allclose(path[:-1, 2], heading, atol=1e-6)
    assert float(path[-1, 2]) == pytest.approx(heading + 0.4, abs=1e-6)


def test_straight_backwards_looks_ahead():
    limits = RobotLimits(v_min_mps=-0.5)
    path = shape("straight", limits=limits).poses(torch.tensor([[-0.1, 0.0, 0.0]]), None)[0]
    np.testing.assert_allclose(path[-1], [-0.8, 0.0, 0.0], atol=1e-6)


def test_arc_is_a_circle():
    v, w = 0.8, 0.6
    path = shape("arc").poses(torch.tensor([[v, w]]), None)[0].double().numpy()
    angle = w * 0.25 * np.arange(1, 9)
    radius = v / w
    expected = np.stack([radius * np.sin(angle), radius * (1 - np.cos(angle)), angle], axis=-1)
    np.testing.assert_allclose(path, expected, atol=1e-5)


def test_path_from_twists_agrees_with_small_euler_steps():
    generator = torch.Generator().manual_seed(0)
    twists = torch.rand(8, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1.5, 2.0]) - 0.5
    path = path_from_twists(twists, 0.25)
    x = y = yaw = 0.0
    for vx, vy, w in twists.tolist():
        for _ in range(20000):
            x += (vx * math.cos(yaw) - vy * math.sin(yaw)) * 0.25 / 20000
            y += (vx * math.sin(yaw) + vy * math.cos(yaw)) * 0.25 / 20000
            yaw += w * 0.25 / 20000
    np.testing.assert_allclose(path[-1], [x, y, yaw], atol=1e-4)
    np.testing.assert_allclose(twists_of_path(path, 0.25), twists, atol=1e-9)


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_knot_basis_reproduces_lines(interpolation):
    basis = knot_basis(8, 4, interpolation).double()
    np.testing.assert_allclose(basis.sum(dim=1), 1.0, atol=1e-6)
    line = basis @ torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
    np.testing.assert_allclose(line, (np.arange(8) + 0.5) / 8, atol=1e-6)


def test_cubic_basis_is_the_natural_spline():
    scipy_interpolate = pytest.importorskip("scipy.interpolate")
    knots = np.array([0.3, -0.2, 0.9, 0.1, 0.5])
    reference = scipy_interpolate.CubicSpline(np.linspace(0, 1, 5), knots, bc_type="natural")
    ours = knot_basis(12, 5, "cubic").double() @ torch.from_numpy(knots)
    np.testing.assert_allclose(ours, reference((np.arange(12) + 0.5) / 12), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_fit_inverts_poses(name):
    form = shape(name)
    generator = torch.Generator().manual_seed(1)
    inside = form.lower + (form.upper - form.lower) * (
        0.25 + 0.5 * torch.rand(20, len(form.lower), generator=generator)
    )
    if name == "straight":
        inside[:, 1:] *= 0.2
    for parameters, path in zip(inside, form.poses(inside, None), strict=True):
        np.testing.assert_allclose(form.poses(form.fit(path)[None], None)[0], path, atol=2e-4)
        np.testing.assert_allclose(form.fit(path), parameters, atol=2e-3)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    seed=st.integers(0, 10**6),
    scale=st.floats(0.1, 100.0),
    v_min=st.floats(-0.5, 0.2),
    w_max=st.floats(0.3, 3.0),
)
def test_speed_limits_hold_for_any_parameters(name, seed, scale, v_min, w_max):
    limits = RobotLimits(v_min_mps=v_min, v_max_mps=0.9, w_max_radps=w_max)
    form = shape(name, limits=limits)
    parameters = scale * torch.randn(50, len(form.lower), generator=torch.Generator().manual_seed(seed))
    path = form.poses(parameters, None).double()
    assert torch.isfinite(path).all()
    assert (path[..., 2].abs() <= math.pi + 1e-6).all()
    before = torch.cat([torch.zeros_like(path[:, :1]), path[:, :-1]], dim=1)
    speed = torch.linalg.vector_norm((path - before)[..., :2], dim=-1) / 0.25
    assert (speed <= max(0.9, -v_min) + 1e-4).all()
    if name == "straight":
        assert (path[:, -1, 2].abs() <= w_max * 2.0 + 1e-5).all()
        assert (speed >= v_min - 1e-4).all()
        assert ((path - before)[..., 0] / 0.25 >= min(v_min, 0.0) - 1e-4).all()
    else:
        twists = twists_of_path(path, 0.25)
        assert (twists[..., 0] <= 0.9 + 1e-4).all()
        assert (twists[..., 0] >= v_min - 1e-4).all()
        assert (twists[..., 2].abs() <= w_max + 1e-4).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), v=st.floats(0.0, 0.9), w=st.floats(-1.0, 1.0))
def test_acceleration_limits_hold_from_the_present_twist(seed, v, w):
    limits = RobotLimits(v_max_mps=0.9, w_max_radps=1.0, a_max_mps2=0.5, alpha_max_radps2=1.0)
    form = shape("spline", limits=limits)
    assert isinstance(form, Spline)
    parameters = 3.0 * torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    start = torch.tensor([v, 0.0, w])
    twists = form.twists(parameters, start)
    change = torch.cat([start.expand(40, 1, 3), twists], dim=1).diff(dim=1).abs()
    assert (change[..., 0] <= 0.5 * 0.25 + 1e-5).all()
    assert (change[..., 2] <= 1.0 * 0.25 + 1e-5).all()


@pytest.mark.parametrize("name", NAMES)
def test_prior_keeps_moving_as_now(name):
    form = shape(name)
    mean, std = form.prior(torch.tensor([0.6, 0.0, 0.3]))
    end = form.poses(mean[None], None)[0, -1]
    expected = path_from_twists(torch.tensor([[0.6, 0.0, 0.3]]).repeat(8, 1), 0.25)[-1]
    np.testing.assert_allclose(end, expected, atol=0.05)
    assert (std > 0).all()


def test_shift_path_goes_on_from_the_later_pose():
    twists = torch.tensor([[0.5, 0.0, 0.1 * step] for step in range(8)])
    rest = shift_path(path_from_twists(twists, 0.25), 3, 0.25)
    expected = torch.cat([twists[3:], twists[-1:].repeat(3, 1)])
    np.testing.assert_allclose(twists_of_path(rest, 0.25), expected, atol=1e-5)
