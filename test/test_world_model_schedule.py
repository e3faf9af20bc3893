"""Noise schedules against recorded ones and closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError
from come_nav.world_model.sampling.schedule import NoiseSchedule, ScheduleSettings, respaced_steps

SPECS = ["1000", "250", "50", "25", "10", "6", "ddim50", "ddim25", "ddim10", "ddim5"]


@pytest.mark.shared_data
@pytest.mark.parametrize("spec", SPECS)
def test_respacings_equal_the_published_ones(shared_data: Path, spec: str) -> None:
    schedule = NoiseSchedule.linear().respaced(spec)
    with np.load(shared_data / "nwm_parity" / "schedules.npz") as recorded:
        assert np.array_equal(schedule.timestep_map, recorded[f"{spec}_map"])
        for name in ("betas", "alphas_cumprod", "posterior_mean_coef1", "posterior_mean_coef2"):
            assert np.array_equal(getattr(schedule, name), recorded[f"{spec}_{name}"]), name
        name = "posterior_log_variance_clipped"  # logarithms of different processors may differ in the last bit
        np.testing.assert_array_max_ulp(getattr(schedule, name), recorded[f"{spec}_{name}"], maxulp=1)


def test_respaced_steps_of_every_form() -> None:
    assert respaced_steps(1000, "10") == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    assert respaced_steps(1000, "6")[3] == 599  # 3 * 199.8 = 599.4
    assert respaced_steps(6, "3") == [0, 2, 5]  # 2.5 is rounded to the even 2
    assert respaced_steps(1000, "ddim5") == [0, 200, 400, 600, 800]
    assert respaced_steps(1000, "trailing4") == [249, 499, 749, 999]
    assert respaced_steps(1000, "trailing1") == [999]
    assert respaced_steps(1000, "1") == [0]


@pytest.mark.parametrize("spec", ["2", "7", "100", "ddim10", "trailing3", "trailing7"])
def test_kept_steps_keep_their_abar(spec: str) -> None:
    full = NoiseSchedule.linear()
    short = full.respaced(spec)
    np.testing.assert_allclose(short.alphas_cumprod, full.alphas_cumprod[short.timestep_map], rtol=1e-12)
    assert (np.diff(short.timestep_map) > 0).all()
    again = short.respaced("2")  # a respacing of a respacing still names steps of the full schedule
    assert again.timestep_map.tolist() == [short.timestep_map[0], short.timestep_map[-1]]


def test_closed_forms_of_the_linear_schedule() -> None:
    schedule = NoiseSchedule.linear()
    assert schedule.betas[0] == 1e-4
    assert schedule.betas[-1] == 0.02
    assert schedule.steps == len(schedule) == 1000
    t = 321
    assert schedule.alphas_cumprod[t] == pytest.approx(np.exp(np.log1p(-schedule.betas[: t + 1]).sum()), rel=1e-12)
    # the posterior of two Gaussians: 1 / variance = alpha / beta + 1 / (1 - abar_previous)
    beta, previous = schedule.betas[t], schedule.alphas_cumprod[t - 1]
    variance = 1.0 / ((1.0 - beta) / beta + 1.0 / (1.0 - previous))
    assert schedule.posterior_variance[t] == pytest.approx(variance, rel=1e-12)
    assert schedule.posterior_mean_coef1[t] == pytest.approx(variance * np.sqrt(previous) / (1 - previous), rel=1e-12)
    assert schedule.posterior_mean_coef2[t] == pytest.approx(variance * np.sqrt(1 - beta) / beta, rel=1e-12)


def test_noise_velocity_and_back() -> None:
    schedule = NoiseSchedule.linear()
    generator = torch.Generator().manual_seed(0)
    x_0, noise = (torch.randn(3, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0, 500, 999])
    x_t = schedule.add_noise(x_0, noise, t)
    abar = schedule.alphas_cumprod[500]
    torch.testing.assert_close(x_t[1], np.sqrt(abar) * x_0[1] + np.sqrt(1 - abar) * noise[1])
    torch.testing.assert_close(schedule.predict_x0(x_t, noise, t), x_0, rtol=1e-9, atol=1e-9)
    epsilon = schedule.epsilon_from_velocity(x_t, schedule.velocity(x_0, noise, t), t)
    torch.testing.assert_close(epsilon, noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("0", r"must be in \[1, 1000\], got 0"),
        ("1001", r"must be in \[1, 1000\], got 1001"),
        ("ddim300", "no whole stride gives 300 of 1000 steps; use '300' or 'trailing300'"),
        ("fast10", "must be 'N', 'ddimN' or 'trailingN'"),
        ("ddim", "must be 'N', 'ddimN' or 'trailingN'"),
    ],
)
def test_impossible_spacings_are_told(spec: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NoiseSchedule.linear().respaced(spec)


def test_impossible_schedules_are_told() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.beta_end"):
        ScheduleSettings(beta_start=0.02, beta_end=0.01)
    with pytest.raises(ConfigError, match="schedule steps must lie in"):
        NoiseSchedule.linear().keep([1000])
