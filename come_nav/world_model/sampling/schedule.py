"""Noise schedules: NWM's linear 1000 steps, and shorter ones that keep some of its steps.

Notation (DDPM, arXiv 2006.11239; Improved DDPM, arXiv 2102.09672): betas = beta_t, alphas_cumprod = abar_t,
x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.experts.passes import schedule_digest


@dataclass(frozen=True)
class ScheduleSettings:
    """Linear schedule: ``steps`` betas from ``beta_start`` to ``beta_end``."""

    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        check_range("schedule.steps", self.steps, 1)
        check_range("schedule.beta_start", self.beta_start, 0.0, 1.0, open_low=True)
        check_range("schedule.beta_end", self.beta_end, self.beta_start, 0.9999)


class NoiseSchedule:
    """A discrete diffusion schedule in float64.

    Attributes:
        betas: (S,) noise added at each step.
        alphas_cumprod: (S,) abar_t, the signal's share of the variance.
        alphas_cumprod_previous: (S,) abar of the step before, 1 at the first.
        timestep_map: (S,) the step of the full schedule that each step stands for; the model is told this one.
        settings: of the full schedule, where it is a linear one.
    """

    def __init__(
        self,
        betas: NDArray[np.float64],
        timestep_map: NDArray[np.int64] | None = None,
        settings: ScheduleSettings | None = None,
    ) -> None:
        self.betas = np.asarray(betas, dtype=np.float64)
        self.timestep_map = np.arange(len(self.betas)) if timestep_map is None else np.asarray(timestep_map, np.int64)
        self.settings = settings
        self.alphas_cumprod = np.cumprod(1.0 - self.betas)
        self.alphas_cumprod_previous = np.append(1.0, self.alphas_cumprod[:-1])
        # q(x_{t-1} | x_t, x_0), DDPM equations 6 and 7; products before quotients, which is how published values round
        noise, noise_previous = 1.0 - self.alphas_cumprod, 1.0 - self.alphas_cumprod_previous
        self.posterior_variance = self.betas * noise_previous / noise
        self.posterior_mean_coef1 = self.betas * np.sqrt(self.alphas_cumprod_previous) / noise
        self.posterior_mean_coef2 = noise_previous * np.sqrt(1.0 - self.betas) / noise
        # the first step's variance is 0: take the second's, as the published samplers do
        second = self.posterior_variance[1] if len(self.betas) > 1 else self.betas[0]
        self.posterior_log_variance_clipped = np.log(np.append(second, self.posterior_variance[1:]))

    @classmethod
    def linear(cls, settings: ScheduleSettings | None = None) -> NoiseSchedule:
        """Return the linear schedule of ``settings`` (default NWM's)."""
        settings = settings or ScheduleSettings()
        betas = np.linspace(settings.beta_start, settings.beta_end, settings.steps, dtype=np.float64)
        return cls(betas, settings=settings)

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.betas)

    @property
    def digest(self) -> str:
        """Short name; experts of one product must agree in it."""
        return schedule_digest(self.alphas_cumprod)

    def __len__(self) -> int:
        return self.steps

    def keep(self, steps: Sequence[int]) -> NoiseSchedule:
        """Return the schedule that visits only ``steps`` (increasing); its betas follow from the kept abar_t."""
        kept = np.asarray(sorted(set(steps)), dtype=np.int64)
        if len(kept) == 0 or kept[0] < 0 or kept[-1] >= len(self):
            raise ConfigError(
                f"schedule steps must lie in [0, {len(self) - 1}] and not be empty, got {list(steps)[:5]}"
            )
        abar = self.alphas_cumprod[kept]
        betas = 1.0 - abar / np.append(1.0, abar[:-1])
        return NoiseSchedule(betas, self.timestep_map[kept], self.settings)

    def respaced(self, spec: str) -> NoiseSchedule:
        """Return a shorter schedule: 'N' or 'ddimN' as in NWM and ADM, 'trailingN' for few steps, '' for all."""
        return self if spec == "" else self.keep(respaced_steps(len(self), spec))

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return x_t of clean latents (B, ...) at steps ``t`` (B,) (DDPM equation 4)."""
        signal, sigma = self.signal_and_sigma(t, x_0)
        return signal * x_0 + sigma * noise

    def velocity(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return v = sqrt(abar) noise - sqrt(1 - abar) x_0 (arXiv 2202.00512), the target of v-prediction."""
        signal, sigma = self.signal_and_sigma(t, x_0)
        return signal * noise - sigma * x_0

    def epsilon_from_velocity(self, x_t: Tensor, velocity: Tensor, t: Tensor) -> Tensor:
        """Return the noise that a v-prediction implies."""
        signal, sigma = self.signal_and_sigma(t, x_t)
        return signal * velocity + sigma * x_t

    def predict_x0(self, x_t: Tensor, epsilon: Tensor, t: Tensor) -> Tensor:
        """Return the clean latents that a noise prediction implies."""
        signal, sigma = self.signal_and_sigma(t, x_t)
        return (x_t - sigma * epsilon) / signal

    def signal_and_sigma(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(abar_t) and sqrt(1 - abar_t) for steps ``t`` (B,), shaped to multiply ``like`` (B, ...)."""
        shape = (-1,) + (1,) * (like.ndim - 1)
        abar = torch.as_tensor(self.alphas_cumprod, device=t.device)[t]  # float64 until both roots are taken
        return abar.sqrt().to(like).reshape(shape), (1.0 - abar).sqrt().to(like).reshape(shape)


def respaced_steps(full_steps: int, spec: str) -> list[int]:
    """Return the kept steps of a schedule of ``full_steps``.

    'N': N steps spread over [0, full_steps - 1], both ends included, rounded half to even ('1' keeps step 0);
    'ddimN': every k-th step from 0 with the smallest whole stride k that gives N;
    'trailingN': N steps that end at the last one, evenly spaced (arXiv 2305.08891): best for few steps.

    Raises:
        ConfigError: for an unknown form or a count that cannot be met.
    """
    form = spec.rstrip("0123456789")
    digits = spec[len(form) :]
    if form not in ("", "ddim", "trailing") or not digits:
        raise ConfigError(f"sampler spacing must be 'N', 'ddimN' or 'trailingN' with a count N, got '{spec}'")
    count = int(digits)
    if not 1 <= count <= full_steps:
        raise ConfigError(f"sampler steps must be in [1, {full_steps}], got {count}")
    if form == "ddim":
        for stride in range(1, full_steps + 1):
            steps = list(range(0, full_steps, stride))
            if len(steps) == count:
                return steps
        raise ConfigError(f"no whole stride gives {count} of {full_steps} steps; use '{count}' or 'trailing{count}'")
    if form == "trailing":
        return sorted(round(full_steps - index * full_steps / count) - 1 for index in range(count))
    stride_exact = (full_steps - 1) / (count - 1) if count > 1 else 1.0
    steps, position = [], 0.0
    for _ in range(count):  # summed, not multiplied: the published maps depend on the rounding of the running sum
        steps.append(round(position))
        position += stride_exact
    return steps
