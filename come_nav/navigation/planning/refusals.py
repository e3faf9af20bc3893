"""Why there is no plan, or no stack: sensors and goals that are missing, settings that do not fit the model."""

from __future__ import annotations

import numpy as np

from come_nav.core.errors import ConfigError
from come_nav.core.protocols import WorldModel
from come_nav.core.types import Goal, Plan, PlanStatus
from come_nav.memory.short_term import Remembered, ShortTermBuffer
from come_nav.navigation.settings import NavigationSettings


def refusal(
    goal: Goal | None, memory: ShortTermBuffer, context_frames: int, now_s: float | None, max_age_s: float
) -> Plan | None:
    """Return the plan that says why there is none, or None where one can be made.

    Args:
        goal: that is asked for.
        memory: the newest frames.
        context_frames: how many of them a goal image needs.
        now_s: present time on the clock of the stamps; None trusts the newest frame.
        max_age_s: a newest frame that is older is refused.
    """
    newest = memory.newest
    if goal is None:
        return no_plan(PlanStatus.GOAL_MISSING, "no goal was given", newest)
    if newest is None:
        return no_plan(PlanStatus.NO_CONTEXT, "no frame with odometry has come yet", newest)
    if now_s is not None and not now_s - newest.stamp_s <= max_age_s:
        age = f"the newest frame is {now_s - newest.stamp_s:.2f} s old, allowed are {max_age_s:g} s"
        return no_plan(PlanStatus.STALE_SENSOR, age, newest)
    if goal.image_rgb is not None and len(memory) < context_frames:
        return no_plan(PlanStatus.NO_CONTEXT, f"{len(memory)} of {context_frames} context frames so far", newest)
    return None


def no_plan(status: PlanStatus, message: str, newest: Remembered | None) -> Plan:
    """Return a plan without a path, at the newest frame where there is one."""
    stamp_s = 0.0 if newest is None else newest.stamp_s
    start = np.zeros(3) if newest is None else newest.pose_odom_xyyaw
    return Plan(status, stamp_s, 0.0, np.zeros((0, 3)), start, message=message)


def check_fits(settings: NavigationSettings, model: WorldModel) -> None:
    """Raise ConfigError for settings that do not fit the model's rate."""
    particles = 1 if settings.sampler is None else settings.sampler.resampling.particles
    if settings.experts.likelihood.use and particles > 1:
        raise ConfigError(
            f"experts.likelihood.use needs sampler.resampling.particles 1, got {particles}: weights of particles "
            "follow a product of experts alone"
        )
    dt_s, rate_hz = settings.planner.dt_s, settings.memory.rate_hz
    if settings.imagination == "rollout" and abs(dt_s * model.rate_hz - 1.0) > 1e-6:
        raise ConfigError(f"planner.dt_s must be {1 / model.rate_hz:g} for a rollout, got {dt_s:g}")
    if abs(rate_hz - model.rate_hz) > 1e-6:
        raise ConfigError(f"memory.rate_hz must be the model's {model.rate_hz:g}, got {rate_hz:g}")
