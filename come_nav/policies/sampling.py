"""NoMaD's diffusion over steps between waypoints: ten steps of DDPM, as its authors deploy it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from come_nav.policies.networks.nomad import NoMaD
from come_nav.policies.settings import STEP_HIGH, STEP_LOW

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler


def noise_schedule(steps: int) -> DDPMScheduler:
    """Return the schedule that NoMaD is trained and sampled with."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # seconds, which no other policy pays

    schedule: DDPMScheduler = DDPMScheduler(
        num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2", clip_sample=True, prediction_type="epsilon"
    )
    return schedule


@torch.no_grad()
def sample_steps(network: NoMaD, condition: Tensor, generator: torch.Generator) -> Tensor:
    """Return normalised steps (B, T, 2) in [-1, 1] drawn under conditions (B, C).

    Noise is drawn where ``generator`` lives and then moved to the device of ``condition``.
    """
    schedule = noise_schedule(network.settings.diffusion_steps)
    schedule.set_timesteps(network.settings.diffusion_steps)
    shape = (len(condition), network.settings.waypoints, 2)
    sample = torch.randn(shape, generator=generator, device=generator.device).to(condition)
    for step in schedule.timesteps:
        noise = network.noise_pred_net(sample, step.to(condition.device).expand(len(sample)), condition)
        sample = schedule.step(noise, int(step), sample, generator=generator, return_dict=False)[0]
    return sample


def steps_to_waypoints(steps: Tensor) -> Tensor:
    """Return waypoints (B, T, 2) in spacings, x forward and y left, of normalised steps (B, T, 2)."""
    low, high = steps.new_tensor(STEP_LOW), steps.new_tensor(STEP_HIGH)
    return torch.cumsum((steps + 1.0) / 2.0 * (high - low) + low, dim=1)


def waypoints_to_steps(waypoints: Tensor) -> Tensor:
    """Return normalised steps (B, T, 2) of waypoints (B, T, 2) in spacings: what :func:`steps_to_waypoints` undoes."""
    low, high = waypoints.new_tensor(STEP_LOW), waypoints.new_tensor(STEP_HIGH)
    steps = torch.diff(waypoints, dim=1, prepend=torch.zeros_like(waypoints[:, :1]))
    return 2.0 * (steps - low) / (high - low) - 1.0
