"""Samplers that turn noise into latents, for any number of steps from one upwards.

Notation (arXiv 2006.11239, 2010.02502, 2211.01095):
    a_t = sqrt(abar_t), sigma_t = sqrt(1 - abar_t), lambda_t = log(a_t / sigma_t), x_t = a_t x_0 + sigma_t eps
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from come_nav.core.device.transfer import to_device
from come_nav.world_model.composition import ProductNoise
from come_nav.world_model.sampling.correctors import langevin
from come_nav.world_model.sampling.resampling import Population, step_duration
from come_nav.world_model.sampling.schedule import NoiseSchedule
from come_nav.world_model.sampling.settings import SamplerSettings

EpsilonFunction = Callable[[Tensor, Tensor], Tensor | ProductNoise]
NoiseFunction = Callable[[Tensor], Tensor]
StepFunction = Callable[["_State"], Tensor]


@dataclass
class _State:
    """One moment of a sampling run: everything that a step formula may use."""

    schedule: NoiseSchedule
    index: int
    x_t: Tensor
    epsilon: Tensor
    x_0: Tensor
    variance_values: Tensor | None
    settings: SamplerSettings
    draw: NoiseFunction
    x_0_previous: Tensor | None


def sample(
    eps_fn: EpsilonFunction,
    shape_or_noise: Sequence[int] | Tensor,
    settings: SamplerSettings,
    schedule: NoiseSchedule,
    generator: torch.Generator | None = None,
    *,
    draw: NoiseFunction | None = None,
    device: torch.device | str = "cpu",
    exponent_sum: float = 1.0,
) -> Tensor:
    """Return clean latents (B, C, h, w).

    Args:
        eps_fn: maps x_t (B, C, h, w) and full-schedule steps (B,) to noise (B, C, h, w), or to (B, 2C, h, w) with
            variance values behind it, which "ddpm" then uses (Improved DDPM's learned range), or to the parts of a
            product of experts, which resampling needs. With M particles it is called with B*M rows, the particles of
            one answer side by side.
        shape_or_noise: (B, C, h, w) to draw the initial noise from ``generator``, or that noise (the first particle's).
        settings: sampler, number of steps and options.
        schedule: the full schedule of the denoiser.
        generator: source of all randomness; needed for a shape and for stochastic samplers.
        draw: takes a tensor and returns noise like it, in place of ``generator`` for the steps.
        device: of the latents when a shape is given.
        exponent_sum: of the product at the noisiest step; particles start from its N(0, 1 / exponent_sum).
    """
    draw = draw or noise_source(generator)
    x_t = shape_or_noise if isinstance(shape_or_noise, Tensor) else draw(torch.empty(*shape_or_noise, device=device))
    visited = settings.visited(schedule)
    step = _STEPS[settings.name]
    particles = _Particles(x_t, settings, visited, generator)
    x_t = particles.start(x_t, draw, exponent_sum)
    x_0_previous: Tensor | None = None
    for index in reversed(range(len(visited))):
        t = torch.full((len(x_t),), int(visited.timestep_map[index]), dtype=torch.long, device=x_t.device)
        x_t = _correct(x_t, t, index, eps_fn, visited, settings, draw)
        prediction = eps_fn(x_t, t)
        x_t, prediction, x_0_previous = particles.advance(index, x_t, prediction, x_0_previous)
        values = prediction.composed() if isinstance(prediction, ProductNoise) else prediction
        state = _denoise(visited, index, x_t, values, settings, draw, x_0_previous)
        x_t, x_0_previous = step(state), state.x_0
    return particles.finish(x_t)


def _correct(
    x_t: Tensor,
    t: Tensor,
    index: int,
    eps_fn: EpsilonFunction,
    visited: NoiseSchedule,
    settings: SamplerSettings,
    draw: NoiseFunction,
) -> Tensor:
    """Return x_t after the Langevin steps of one level."""
    if settings.corrector.steps == 0:
        return x_t

    def noise_of(latents: Tensor) -> Tensor:
        prediction = eps_fn(latents, t)
        values = prediction.composed() if isinstance(prediction, ProductNoise) else prediction
        return values[:, : latents.shape[1]].to(latents.dtype)

    sigma = _signal_sigma(float(visited.alphas_cumprod[index]))[1]
    return langevin(x_t, noise_of, float(visited.betas[index]), sigma, settings.corrector, draw)


class _Particles:
    """The population of a sampling run, or nothing at all where each answer has one particle."""

    def __init__(
        self, noise: Tensor, settings: SamplerSettings, visited: NoiseSchedule, generator: torch.Generator | None
    ) -> None:
        self._count = settings.resampling.particles
        self._durations = [step_duration(float(beta)) for beta in visited.betas]
        self._visited = visited
        self._population = Population(len(noise) * self._count, settings.resampling, generator)

    def start(self, noise: Tensor, draw: NoiseFunction, exponent_sum: float) -> Tensor:
        """Return (B*M, C, h, w): each given noise and M - 1 new ones, of variance 1 / exponent_sum."""
        if self._count == 1:
            return noise
        others = draw(noise.new_empty(len(noise), self._count - 1, *noise.shape[1:]))
        return torch.cat([noise[:, None], others], dim=1).flatten(0, 1) / math.sqrt(exponent_sum)

    def advance(
        self, index: int, x_t: Tensor, prediction: Tensor | ProductNoise, x_0_previous: Tensor | None
    ) -> tuple[Tensor, Tensor | ProductNoise, Tensor | None]:
        """Weigh the particles at a level; return them with what was predicted for them, drawn anew where need be."""
        if self._count == 1 or not isinstance(prediction, ProductNoise):
            return x_t, prediction, x_0_previous
        top = len(self._durations) - 1
        sigma = _signal_sigma(float(self._visited.alphas_cumprod[index]))[1]
        before = 0.0 if index == top else 0.5 * self._durations[index + 1]
        after = self._durations[0] if index == 0 else 0.5 * self._durations[index]
        self._population.weigh(prediction, sigma, before, after)
        rows = self._population.resample()
        if rows is None:
            return x_t, prediction, x_0_previous
        rows = rows.to(x_t.device)
        prediction = ProductNoise(prediction.noises[:, rows], prediction.exponents)
        return x_t[rows], prediction, None if x_0_previous is None else x_0_previous[rows]

    def finish(self, latents: Tensor) -> Tensor:
        """Return one particle (B, C, h, w) for each answer."""
        return latents if self._count == 1 else latents[self._population.draw_one().to(latents.device)]


def noise_source(generator: torch.Generator | None) -> NoiseFunction:
    """Return a function that draws noise like a tensor from ``generator``, which may live on another device."""

    def draw(like: Tensor) -> Tensor:
        device = like.device if generator is None else generator.device
        noise = torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype)
        return to_device(noise, like.device)

    return draw


def _denoise(
    visited: NoiseSchedule,
    index: int,
    x_t: Tensor,
    prediction: Tensor,
    settings: SamplerSettings,
    draw: NoiseFunction,
    x_0_previous: Tensor | None,
) -> _State:
    """Split the prediction and derive the clean latents (and the noise anew, where they were clipped)."""
    channels = x_t.shape[1]
    epsilon = prediction[:, :channels].to(x_t.dtype)
    values = prediction[:, channels:].to(x_t.dtype) if prediction.shape[1] > channels else None
    signal, sigma = _signal_sigma(float(visited.alphas_cumprod[index]))
    x_0 = (x_t - sigma * epsilon) / signal
    if settings.clip_x0 > 0:
        x_0 = x_0.clamp(-settings.clip_x0, settings.clip_x0)
        epsilon = (x_t - signal * x_0) / sigma
    return _State(visited, index, x_t, epsilon, x_0, values, settings, draw, x_0_previous)


def _ddpm_step(state: _State) -> Tensor:
    """Ancestral step (DDPM equation 7; variance by Improved DDPM equation 15 where the model learned it)."""
    schedule, index = state.schedule, state.index
    mean = (
        float(schedule.posterior_mean_coef1[index]) * state.x_0
        + float(schedule.posterior_mean_coef2[index]) * state.x_t
    )
    if index == 0:
        return mean
    smallest = float(schedule.posterior_log_variance_clipped[index])
    if state.variance_values is None:
        return mean + math.exp(0.5 * smallest) * state.draw(mean)
    share = (state.variance_values + 1.0) / 2.0
    log_variance = share * math.log(schedule.betas[index]) + (1.0 - share) * smallest
    return mean + (0.5 * log_variance).exp() * state.draw(mean)


def _ddim_step(state: _State) -> Tensor:
    """DDIM step (equations 12 and 16)."""
    abar = float(state.schedule.alphas_cumprod[state.index])
    abar_next = float(state.schedule.alphas_cumprod_previous[state.index])
    noise_std = state.settings.eta * math.sqrt((1 - abar_next) / (1 - abar) * (1 - abar / abar_next))
    direction = math.sqrt(max(1.0 - abar_next - noise_std**2, 0.0))
    mean = math.sqrt(abar_next) * state.x_0 + direction * state.epsilon
    if state.index == 0 or noise_std == 0.0:
        return mean
    return mean + noise_std * state.draw(mean)


def _dpm_solver_step(state: _State) -> Tensor:
    """DPM-Solver++(2M) step (algorithm 2): first order at the first and the last step."""
    if state.index == 0:
        return state.x_0  # sigma = 0 is infinitely far in lambda: the first-order step lands on x_0
    schedule, index = state.schedule, state.index
    signal_next, sigma_next = _signal_sigma(float(schedule.alphas_cumprod[index - 1]))
    signal, sigma = _signal_sigma(float(schedule.alphas_cumprod[index]))
    step = math.log(signal_next / sigma_next) - math.log(signal / sigma)  # h = lambda_next - lambda
    estimate = state.x_0
    if state.x_0_previous is not None:
        signal_past, sigma_past = _signal_sigma(float(schedule.alphas_cumprod[index + 1]))
        ratio = (math.log(signal / sigma) - math.log(signal_past / sigma_past)) / step
        estimate = state.x_0 + (state.x_0 - state.x_0_previous) / (2.0 * ratio)
    return sigma_next / sigma * state.x_t - signal_next * math.expm1(-step) * estimate


def _signal_sigma(abar: float) -> tuple[float, float]:
    return math.sqrt(abar), math.sqrt(1.0 - abar)


_STEPS: dict[str, StepFunction] = {"ddpm": _ddpm_step, "ddim": _ddim_step, "dpm++": _dpm_solver_step}
