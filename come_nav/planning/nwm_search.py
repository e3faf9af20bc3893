"""The search of NWM's planning evaluation: cross-entropy over straight lines in NWM's own units (arXiv 2412.03572).

A candidate is s = (dx, dy, turn): dx and dy in NWM's range, the same step repeated, and a last turn in units of pi.
Letters: S candidates, T steps. Two habits of the released code can be switched on to reproduce it:

- ``repeat_steps``: every step is told as (dx, dy) in the newest frame's base, although the first one also turns to the
  path's heading, so what is imagined is no straight line. Off, each step is told where the straight line goes.
- ``turn_pi_twice``: the distribution is refitted to turns in radians, and samples of it are multiplied by pi again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from come_nav.core.checks import check_range, check_shape
from come_nav.core.geometry import se2
from come_nav.core.geometry.waypoint_units import spacings_from_normalised
from come_nav.core.protocols import Imaginer, Objective
from come_nav.core.types import IterationTrace, Plan, PlanStatus, PlanTrace

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class NwmSearchSettings:
    """Settings of the search; the defaults are the published command for recon.

    Attributes:
        prior_mean: of s before the first samples.
        prior_std: the published file calls it a variance; the code multiplies normal numbers by it.
        spacing_m: metres per waypoint spacing.
        samples: candidates per iteration, >= 2.
        elites: cheapest candidates that the distribution is refitted to, in [2, samples].
        iterations: >= 1.
        repeats: times that each candidate is imagined; costs are averaged, >= 1.
        steps: of a path, >= 1.
        repeat_steps: see the module.
        turn_pi_twice: see the module.
    """

    prior_mean: Vector = (-0.1, 0.0, 0.0)
    prior_std: Vector = (0.02, 0.1, 0.1)
    spacing_m: float = 0.25
    samples: int = 120
    elites: int = 5
    iterations: int = 1
    repeats: int = 3
    steps: int = 8
    repeat_steps: bool = False
    turn_pi_twice: bool = False

    def __post_init__(self) -> None:
        check_range("nwm.spacing_m", self.spacing_m, 0.0, open_low=True)
        check_range("nwm.samples", self.samples, 2)
        check_range("nwm.elites", self.elites, 2, self.samples)
        for field in ("iterations", "repeats", "steps"):
            check_range(f"nwm.{field}", getattr(self, field), 1)


@dataclass(frozen=True)
class Lines:
    """Candidates in metres.

    Attributes:
        told_xyyaw: (S, T, 3) poses that the world model is told to imagine.
        poses_xyyaw: (S, T, 3) straight paths that are evaluated.
        last_turn_rad: (S,) yaw of the last step.
    """

    told_xyyaw: Tensor
    poses_xyyaw: Tensor
    last_turn_rad: Tensor


def straight_lines(parameters: Tensor, config: NwmSearchSettings) -> Lines:
    """Return the paths of parameters (S, 3).

    The first step turns to the heading atan2(dy, dx), taken in spacings, and the last one by ``pi`` times the third
    parameter; positions are multiples of (dx, dy) in the start frame.
    """
    check_shape("parameters", parameters, "S 3")
    step = spacings_from_normalised(parameters)[:, :2] * config.spacing_m
    yaw_steps = parameters.new_zeros(len(parameters), config.steps)
    yaw_steps[:, 0] = torch.atan2(step[:, 1], step[:, 0])
    yaw_steps[:, -1] += math.pi * parameters[:, 2]
    count = torch.arange(1, config.steps + 1, dtype=step.dtype, device=step.device)
    yaw = se2.wrap_angle(yaw_steps.cumsum(dim=1))
    poses = torch.cat([count[None, :, None] * step[:, None], yaw[..., None]], dim=-1)
    told = poses
    if config.repeat_steps:
        actions = torch.cat([step[:, None].expand(-1, config.steps, 2), yaw_steps[..., None]], dim=-1)
        pose, reached = torch.zeros_like(actions[:, 0]), []
        for action in actions.unbind(1):
            pose = se2.compose(pose, action)
            reached.append(pose)
        told = torch.stack(reached, dim=1)
    return Lines(told, poses, yaw_steps[:, -1])


class NwmPlanner:
    """Plans as NWM's evaluation does: no limits, no floor of the spread, the answer is the mean of the elites."""

    def __init__(self, config: NwmSearchSettings, clock: Callable[[], float] = time.perf_counter) -> None:
        """Take the settings; ``clock`` (seconds) serves the reported duration only."""
        self.config = config
        self._clock = clock

    def plan(
        self,
        imaginer: Imaginer,
        objective: Objective,
        generator: torch.Generator,
        *,
        stamp_s: float = 0.0,
        dt_s: float = 0.25,
        start_odom_xyyaw: NDArray[np.float64] | None = None,
    ) -> Plan:
        """Search once.

        Args:
            imaginer: imagines the view at the end of the told paths.
            objective: distance of that view to the goal's.
            generator: the only source of chance; its device is where candidates live.
            stamp_s: time of the observation that the plan starts from.
            dt_s: time of one step.
            start_odom_xyyaw: (3,) pose of the start frame in odom.

        Returns:
            Plan whose path is the mean of the last elites and whose cost is that of one more imagination of it;
            NON_FINITE_COST where fewer than two candidates had a finite cost.
        """
        started_s, config = self._clock(), self.config
        mean = torch.tensor(config.prior_mean, device=generator.device)
        std = torch.tensor(config.prior_std, device=generator.device)
        trace = PlanTrace()
        status, path, cost = PlanStatus.OK, np.zeros((0, 3)), float("nan")
        for _ in range(config.iterations):
            noise = torch.randn(config.samples, 3, generator=generator, device=generator.device)
            parameters = mean + std * noise
            lines = straight_lines(parameters, config)
            costs = self._costs(lines, imaginer, objective, generator, config.repeats)
            order = torch.argsort(torch.where(torch.isfinite(costs), costs, torch.inf), stable=True)
            elite = order[: min(config.elites, int(torch.isfinite(costs).sum()))]
            by_name = {objective.name: costs}
            trace.iterations.append(IterationTrace(parameters, lines.poses_xyyaw, costs, by_name, mean, std, elite))
            if len(elite) < 2:
                status = PlanStatus.NON_FINITE_COST
                break
            best = parameters[elite].clone()
            if config.turn_pi_twice:
                best[:, 2] = lines.last_turn_rad[elite]
            mean, std = best.mean(dim=0), best.std(dim=0)
        if status is PlanStatus.OK:
            final = straight_lines(mean[None], config)
            cost = float(self._costs(final, imaginer, objective, generator, 1)[0])
            path = final.poses_xyyaw[0].double().cpu().numpy()
        return Plan(
            status=status,
            stamp_s=stamp_s,
            dt_s=dt_s,
            poses_xyyaw=path,
            start_odom_xyyaw=np.zeros(3) if start_odom_xyyaw is None else np.asarray(start_odom_xyyaw, np.float64),
            cost=cost,
            message="" if status is PlanStatus.OK else f"fewer than 2 of {config.samples} costs are finite",
            trace=trace,
            duration_s=self._clock() - started_s,
        )

    @staticmethod
    def _costs(
        lines: Lines, imaginer: Imaginer, objective: Objective, generator: torch.Generator, repeats: int
    ) -> Tensor:
        total = lines.poses_xyyaw.new_zeros(len(lines.poses_xyyaw))
        for _ in range(repeats):
            imagination = imaginer.imagine(lines.told_xyyaw, generator)
            total = total + objective(imagination).to(total) / repeats
        return total
