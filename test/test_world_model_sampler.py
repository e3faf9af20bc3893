"""Samplers against recorded runs, against diffusers, and on denoisers whose answer is known in closed form."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from come_nav.core.errors import ConfigError
from come_nav.experts.cdit import CDiT
from come_nav.world_model.composition import compose
from come_nav.world_model.sampling.sampler import noise_source, sample
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sampling.settings import SamplerSettings

SCHEDULE = NoiseSchedule.linear()


def gaussian_epsilon(mean: float, std: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact noise prediction for latents distributed as N(mean, std^2)."""

    def epsilon(x_t: Tensor, t: Tensor) -> Tensor:
        abar = torch.as_tensor(SCHEDULE.alphas_cumprod)[t].to(x_t).reshape(-1, 1, 1, 1)
        return (1 - abar).sqrt() * (x_t - abar.sqrt() * mean) / (abar * std**2 + 1 - abar)

    return epsilon


def bent_epsilon(x_t: Tensor, t: Tensor) -> Tensor:
    """Some smooth function of both arguments."""
    level = t.reshape(-1, 1, 1, 1).to(x_t) / 1000.0
    return 0.7 * torch.sin(1.3 * x_t + level) + 0.4 * level * x_t


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- recorded runs -----------------------------------------------------------------------------------------------------

RUNS = {
    "ddpm10": SamplerSettings("ddpm", 10, spacing="even"),
    "ddim5": SamplerSettings("ddim", 5, spacing="ddim"),
    "ddim5_eta1": SamplerSettings("ddim", 5, eta=1.0, spacing="ddim"),
    "ddim_on_respaced10": SamplerSettings("ddim", 10, spacing="even"),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("run", RUNS)
def test_runs_equal_the_published_sampler(shared_data: Path, run: str) -> None:
    folder = shared_data / "nwm_parity"
    model = CDiT(**json.loads((folder / "configs.json").read_text())["configs"]["small"]["ctor"]).eval()
    with torch.serialization.safe_globals([argparse.Namespace]):
        model.load_state_dict(torch.load(folder / "cdit_small.pth.tar", weights_only=True)["ema"])
    with np.load(folder / "sampler_small.npz") as archive:
        z, y, x_cond, rel_t = (torch.from_numpy(archive[name]) for name in ("z", "y", "x_cond", "rel_t"))
        noise, final = iter(torch.from_numpy(archive[f"{run}_noise"])), archive[f"{run}_final"]
        between, asked = archive[f"{run}_x"], archive[f"{run}_timestep_map"][::-1]
    seen: list[tuple[Tensor, Tensor]] = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((x_t, t))
        return model(x_t, t, y, x_cond, rel_t)

    with torch.no_grad():
        found = sample(network, z, RUNS[run], SCHEDULE, draw=lambda like: next(noise))
    scale = np.abs(final).max()
    assert np.abs(found.numpy() - final).max() < 1e-5 * scale
    assert [int(t[0]) for _, t in seen] == asked.tolist()
    for (x_t, _), recorded in zip(seen[1:], between, strict=False):  # the state after every step but the last
        assert np.abs(x_t.numpy() - recorded).max() < 1e-5 * scale


# -- diffusers ---------------------------------------------------------------------------------------------------------

BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def run_diffusers(scheduler, x_t: Tensor, steps: int, epsilon, **options) -> Tensor:
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        model_output = epsilon(x_t, torch.full((len(x_t),), int(t)))
        x_t = scheduler.step(model_output, int(t), x_t, **options).prev_sample
    return x_t


@pytest.mark.parametrize("eta", [0.0, 0.6])
@pytest.mark.parametrize(("spacing", "theirs"), [("trailing", "trailing"), ("ddim", "leading")])
@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_ddim_equals_diffusers(steps: int, spacing: str, theirs: str, eta: float) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    scheduler = DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing=theirs)
    x_t = torch.randn(2, 4, 3, 3, generator=seeded(), dtype=torch.float64)
    expected = run_diffusers(scheduler, x_t, steps, bent_epsilon, eta=eta, generator=seeded(1))
    settings = SamplerSettings("ddim", steps, eta, spacing=spacing)  # type: ignore[arg-type]
    found = sample(bent_epsilon, x_t, settings, SCHEDULE, seeded(1))
    # diffusers keeps its betas in float32
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4 * expected.abs().max().item())


@pytest.mark.parametrize("learned", [False, True])
def test_ddpm_equals_diffusers(learned: bool) -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    def epsilon(x_t: Tensor, t: Tensor) -> Tensor:
        values = [torch.tanh(x_t)] if learned else []
        return torch.cat([bent_epsilon(x_t, t), *values], 1)

    scheduler = DDPMScheduler(
        **BETAS,
        clip_sample=False,
        timestep_spacing="leading",
        variance_type="learned_range" if learned else "fixed_small_log",
    )
    x_t = torch.randn(2, 4, 3, 3, generator=seeded(), dtype=torch.float64)
    expected = run_diffusers(scheduler, x_t, 20, epsilon, generator=seeded(1))
    found = sample(epsilon, x_t, SamplerSettings("ddpm", 20, spacing="ddim"), SCHEDULE, seeded(1))
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4 * expected.abs().max().item())


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10, 25])
def test_dpm_solver_equals_diffusers(steps: int) -> None:
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        **BETAS, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing", final_sigmas_type="zero"
    )
    x_t = torch.randn(2, 4, 3, 3, generator=seeded(), dtype=torch.float64)
    expected = run_diffusers(scheduler, x_t, steps, bent_epsilon)
    found = sample(bent_epsilon, x_t, SamplerSettings("dpm++", steps), SCHEDULE)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (SamplerSettings("ddim", 250), 0.02),
        (SamplerSettings("ddim", 250, eta=1.0, spacing="even"), 0.02),
        (SamplerSettings("ddpm", 250, spacing="even"), 0.03),
        (SamplerSettings("dpm++", 100), 0.02),
    ],
    ids=["ddim", "ddim eta 1", "ddpm", "dpm++"],
)
def test_samplers_recover_a_gaussian(settings: SamplerSettings, tolerance: float) -> None:
    mean, std = 1.5, 0.4
    found = sample(gaussian_epsilon(mean, std), (20_000, 1, 1, 1), settings, SCHEDULE, seeded())
    assert found.mean().item() == pytest.approx(mean, abs=tolerance)
    assert found.std().item() == pytest.approx(std, abs=tolerance)


def test_dpm_solver_needs_fewer_steps_than_ddim() -> None:
    x_t = torch.randn(64, 1, 1, 1, generator=seeded(), dtype=torch.float64)
    exact = sample(bent_epsilon, x_t, SamplerSettings("ddim", 1000), SCHEDULE)

    def error(name: str) -> float:
        settings = SamplerSettings(name, 20)  # type: ignore[arg-type]
        return float((sample(bent_epsilon, x_t, settings, SCHEDULE) - exact).abs().mean())

    assert error("dpm++") < 0.5 * error("ddim")


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm++"])
def test_one_step_predicts_the_clean_latents(name: str) -> None:
    noise = torch.randn(3, 1, 2, 2, generator=seeded(), dtype=torch.float64)
    seen: list[int] = []

    def epsilon(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return bent_epsilon(x_t, t)

    found = sample(epsilon, noise, SamplerSettings(name, 1), SCHEDULE)  # type: ignore[arg-type]
    t = torch.full((3,), 999)
    torch.testing.assert_close(found, SCHEDULE.predict_x0(noise, bent_epsilon(noise, t), t), rtol=1e-9, atol=1e-9)
    assert seen == [999]


@pytest.mark.parametrize("spacing", ["trailing", "even", "ddim"])
def test_the_model_is_told_steps_of_the_full_schedule(spacing: str) -> None:
    seen: list[int] = []

    def epsilon(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return torch.zeros_like(x_t)

    sample(epsilon, (1, 1, 1, 1), SamplerSettings("ddim", 4, spacing=spacing), SCHEDULE, seeded())  # type: ignore[arg-type]
    assert seen == {"trailing": [999, 749, 499, 249], "even": [999, 666, 333, 0], "ddim": [750, 500, 250, 0]}[spacing]


def test_clipped_predictions_stay_in_their_limits() -> None:
    settings = SamplerSettings("ddim", 3, clip_x0=2.0)
    found = sample(lambda x_t, t: -x_t, (4, 1, 2, 2), settings, SCHEDULE, seeded())
    assert found.abs().max() == 2.0
    loose = sample(bent_epsilon, (4, 1, 2, 2), SamplerSettings("ddim", 3, clip_x0=1e6), SCHEDULE, seeded())
    free = sample(bent_epsilon, (4, 1, 2, 2), SamplerSettings("ddim", 3), SCHEDULE, seeded())
    torch.testing.assert_close(loose, free, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [*RUNS.values(), SamplerSettings("dpm++", 4)])
def test_same_generator_same_latents(settings: SamplerSettings) -> None:
    first, second, other = (sample(bent_epsilon, (2, 4, 2, 2), settings, SCHEDULE, seeded(s)) for s in (7, 7, 8))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_noise_source_draws_like_its_argument() -> None:
    like = torch.zeros(2, 3, dtype=torch.float64)
    drawn = noise_source(seeded())(like)
    assert drawn.dtype == torch.float64
    assert torch.equal(drawn, torch.randn(2, 3, generator=seeded(), dtype=torch.float64))


def test_impossible_settings_are_told() -> None:
    with pytest.raises(ConfigError, match=r"sampler\.steps must be >= 1, got 0"):
        SamplerSettings(steps=0)
    with pytest.raises(ConfigError, match=r"sampler.eta must be in \[0, 1\], got 2.0"):
        SamplerSettings(eta=2.0)
    with pytest.raises(ConfigError, match=r"sampler steps must be in \[1, 1000\], got 2000"):
        SamplerSettings(steps=2000).visited(SCHEDULE)


# -- products of experts -----------------------------------------------------------------------------------------------


def gaussian_product(exponents: list[float]) -> tuple[float, float]:
    """Mean and std of N(0, 1)^e_0 N(1, .25)^e_1 N(1, .25)^e_2 ..."""
    precision = exponents[0] + sum(exponents[1:]) / 0.25
    mean = sum(exponents[1:]) / 0.25 / precision
    return mean, precision**-0.5


def test_exact_products() -> None:
    assert gaussian_product([-1, 1, 1]) == pytest.approx((1.143, 0.378), abs=5e-4)
    assert gaussian_product([-2, 2, 2]) == pytest.approx((1.143, 0.267), abs=5e-4)


@pytest.mark.parametrize(
    ("mode", "weights", "sampler", "mean", "std"),
    [
        # two experts N(1, .25) against N(0, 1); the literal product with a deterministic sampler loses its spread
        ("normalised", (1.0, 1.0), SamplerSettings("ddim", 50), 1.378, 0.237),
        ("normalised", (2.0, 2.0), SamplerSettings("ddim", 50), 1.504, 0.055),
        ("literal", (2.0, 2.0), SamplerSettings("ddim", 50), 1.245, 0.001),
        ("literal", (1.0, 1.0), SamplerSettings("ddim", 50), 1.000, 0.007),
        # and a stochastic one keeps most of it (exact: 1.143 / 0.378, 1.231 / 0.277, 1.143 / 0.267)
        ("normalised", (2.0,), SamplerSettings("ddpm", 1000), 1.252, 0.329),
        ("normalised", (4.0,), SamplerSettings("ddpm", 1000), 1.327, 0.221),
        ("literal", (2.0, 2.0), SamplerSettings("ddpm", 1000), 1.186, 0.207),
    ],
)
def test_products_of_gaussians_as_simulated(
    mode: str, weights: tuple[float, ...], sampler: SamplerSettings, mean: float, std: float
) -> None:
    conditional, free = gaussian_epsilon(1.0, 0.5), gaussian_epsilon(0.0, 1.0)

    def epsilon(x_t: Tensor, t: Tensor) -> Tensor:
        eps = torch.stack([conditional(x_t, t)] * len(weights))
        eps_bar = torch.stack([free(x_t, t)] * len(weights))
        return compose(eps, eps_bar, torch.tensor(weights), mode)  # type: ignore[arg-type]

    found = sample(epsilon, (8_000, 1, 1, 1), sampler, SCHEDULE, seeded())
    assert found.mean().item() == pytest.approx(mean, abs=0.025)
    assert found.std().item() == pytest.approx(std, abs=0.02)


def test_literal_collapse_follows_its_formula() -> None:
    """K unit Gaussians under deterministic DDIM shrink the noise by abar_T^((K - 1) / 2)."""
    unit = gaussian_epsilon(0.0, 1.0)

    def epsilon(x_t: Tensor, t: Tensor) -> Tensor:
        eps = torch.stack([unit(x_t, t)] * 2)
        return compose(eps, eps, torch.tensor([2.0, 2.0]), "literal")

    noise = torch.randn(10, 1, 1, 1, generator=seeded(), dtype=torch.float64)
    found = sample(epsilon, noise, SamplerSettings("ddim", 1000), SCHEDULE)
    shrink = math.sqrt(SCHEDULE.alphas_cumprod[-1])
    torch.testing.assert_close(found, noise * shrink, rtol=0.1, atol=1e-4)
