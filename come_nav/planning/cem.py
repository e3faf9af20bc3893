"""The cross-entropy method over candidate paths (Rubinstein 1999; as a planner: NWM, arXiv 2412.03572).

| here | symbol | meaning |
|---|---|---|
| ``parameters`` (S, P) | x_s | samples of the path shape |
| ``mean``, ``std`` (P,) | mu, sigma | distribution that is sampled |
| ``poses_xyyaw`` (S, T, 3) | tau(x_s) | path of each sample, within the robot's limits |
| ``costs`` (S,) | J(tau) | weighted sum of the objectives |
| ``elite`` (E,) | | indices of the E cheapest finite candidates of the pool |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.protocols import Imaginer, Objective
from come_nav.core.types import IterationTrace, Plan, PlanStatus, PlanTrace
from come_nav.planning.cost import Costs, WeightedSum
from come_nav.planning.parameterisations import Parameterisation, make_parameterisation
from come_nav.planning.settings import KinematicsSettings, PlannerSettings
from come_nav.planning.twists import shift_path


@dataclass(frozen=True)
class _Pool:
    """Candidates that compete in one iteration: new ones and, where kept, the elites of the one before."""

    parameters: torch.Tensor
    poses_xyyaw: torch.Tensor
    costs: Costs

    def take(self, index: torch.Tensor) -> _Pool:
        by_objective = {name: cost[index] for name, cost in self.costs.by_objective.items()}
        costs = Costs(self.costs.total[index], by_objective)
        return _Pool(self.parameters[index], self.poses_xyyaw[index], costs)

    def join(self, other: _Pool) -> _Pool:
        by_objective = {
            name: torch.cat([cost, other.costs.by_objective[name]]) for name, cost in self.costs.by_objective.items()
        }
        costs = Costs(torch.cat([self.costs.total, other.costs.total]), by_objective)
        return _Pool(
            torch.cat([self.parameters, other.parameters]), torch.cat([self.poses_xyyaw, other.poses_xyyaw]), costs
        )


class CemPlanner:
    """Searches the path whose imagined end is cheapest. Holds no state between plans."""

    def __init__(
        self,
        config: PlannerSettings,
        objectives: Sequence[Objective],
        weights: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        *,
        robot: KinematicsSettings | None = None,
    ) -> None:
        """Take the settings, the terms of the cost and their weights by name (1 where not given).

        ``clock`` (seconds) serves the time limit and the reported duration only. ``robot`` says how paths may go;
        without it they are those of a differential drive.
        """
        self.config, self._robot = config, robot or KinematicsSettings()
        self._cost = WeightedSum(objectives, weights)
        self._shape: Parameterisation = make_parameterisation(config, self._robot)
        self._clock = clock

    def plan(
        self,
        imaginer: Imaginer,
        generator: torch.Generator,
        *,
        stamp_s: float = 0.0,
        start_odom_xyyaw: NDArray[np.float64] | None = None,
        initial_twist: NDArray[np.float64] | torch.Tensor | None = None,
        warm_start: Plan | None = None,
        suggested_xyyaw: NDArray[np.float64] | None = None,
    ) -> Plan:
        """Search once.

        Args:
            imaginer: imagines the view at the end of candidate paths.
            generator: the only source of chance; its device is where candidates live.
            stamp_s: time of the observation that the plan starts from.
            start_odom_xyyaw: (3,) pose of the start frame in odom; zeros when not given.
            initial_twist: (3,) present (vx m/s, vy m/s, w rad/s), the centre of the prior and the start of the limits.
            warm_start: an earlier plan; where it is OK, its rest after the elapsed time is the centre instead.
            suggested_xyyaw: (G, T, 3) paths that the robot can drive and that are tried as they are in the first
                iteration; nothing else is tried with ``proposals_alone``.

        Returns:
            Plan with its trace. The status says why there is no path: ALL_IN_COLLISION when every candidate was
            rejected, NON_FINITE_COST when no cost was finite, TIMED_OUT after ``time_limit_s``.
        """
        started_s = self._clock()
        config, device = self.config, generator.device
        twist = None if initial_twist is None else torch.as_tensor(initial_twist, dtype=torch.float32, device=device)
        if twist is not None:
            check_shape("CemPlanner.initial_twist", twist, "3")
        lower, upper = self._shape.lower.to(device), self._shape.upper.to(device)
        trace = PlanTrace()
        elites: _Pool | None = None
        best: _Pool | None = None
        timed_out = False
        alone = config.proposals_alone and suggested_xyyaw is not None

        # 1. Centre the distribution: present twist, or what is left of the plan before.
        mean, std = self._start_distribution(twist, warm_start, stamp_s, device)
        for iteration in range(1 if alone else config.iterations):
            # 2. Sample; parameters out of bounds are pulled onto them.
            samples = self._sample(iteration, mean, std, elites, generator) if not alone else mean[None][:0]
            parameters = torch.minimum(torch.maximum(samples, lower), upper)
            # 3. Turn samples into paths within the limits, imagine their ends, add up the costs.
            given = suggested_xyyaw if iteration == 0 else None
            pool = self._evaluate(parameters, twist, imaginer, generator, given, config.imagined_share)
            if elites is not None and config.keep_elites:
                pool = elites.join(pool)
            # 4. The elites are the cheapest finite candidates.
            elite = _elite(pool.costs.total, config.elites)
            trace.iterations.append(_trace(pool, mean, std, elite))
            # 5. Fit the next distribution to them; its spread keeps a floor, so that one elite stays finite.
            if len(elite) > 0:
                elites = pool.take(elite)
                best = _cheaper(best, elites)
                mean, std = self._refit(elites.parameters, mean, std, upper - lower)
            timed_out = config.time_limit_s is not None and self._clock() - started_s > config.time_limit_s
            if timed_out:
                break
        # 6. Answer with the best path that was tried, the final mean, or the cheaper of both.
        if best is not None and config.result != "best" and not timed_out and not alone:
            final = self._evaluate(mean[None], twist, imaginer, generator)
            trace.iterations.append(_trace(final, mean, std, _elite(final.costs.total, 1)))
            if config.result == "cheaper":
                best = _cheaper(best, final)
            else:
                best = final if bool(torch.isfinite(final.costs.total[0])) else None
        start = np.zeros(3) if start_odom_xyyaw is None else np.asarray(start_odom_xyyaw, dtype=np.float64)
        return self._answer(best, trace, timed_out, stamp_s, start, self._clock() - started_s)

    def _start_distribution(
        self, twist: torch.Tensor | None, warm_start: Plan | None, stamp_s: float, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = self._shape.prior(twist)
        if warm_start is not None and warm_start.status is PlanStatus.OK:
            steps = max(0, round((stamp_s - warm_start.stamp_s) / self.config.dt_s))
            path = torch.as_tensor(warm_start.poses_xyyaw, dtype=torch.float32)
            same_grid = len(path) == self.config.horizon_steps and warm_start.dt_s == self.config.dt_s
            if same_grid and steps < len(path):
                rest = shift_path(path, steps, self.config.dt_s, self._robot.sideways)
                mean = self._shape.fit(rest, None if twist is None else twist.cpu())
                std = std * self.config.warm_start_std
        return mean.to(device), std.to(device)

    def _sample(
        self,
        iteration: int,
        mean: torch.Tensor,
        std: torch.Tensor,
        elites: _Pool | None,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Draw samples (S, P); the first of them is the mean where asked for."""
        config = self.config
        if iteration == 0:
            samples = self._first_samples(mean, std, generator)
        else:
            samples = self._around(mean, std, elites, generator)
        if config.include_mean:
            samples[0] = mean
        return samples

    def _first_samples(self, mean: torch.Tensor, std: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw samples (S, P) of the starting distribution, of the whole range, or half of each."""
        count, kind = self.config.first_samples, self.config.initial_sampling
        if kind == "gaussian":
            return mean + std * torch.randn(count, len(mean), generator=generator, device=mean.device)
        around = {"sobol": count, "mixed": count // 2, "uniform": 0}[kind]
        normal = _normal_from_uniform(_sobol(around, len(mean), generator)).to(mean)
        even = _sobol(count - around, len(mean), generator).to(mean)
        lower, upper = self._shape.lower.to(mean), self._shape.upper.to(mean)
        return torch.cat([mean + std * normal, lower + (upper - lower) * even])

    def _around(
        self, mean: torch.Tensor, std: torch.Tensor, elites: _Pool | None, generator: torch.Generator
    ) -> torch.Tensor:
        """Draw samples (S, P) around the mean, or around the elites with the covariance that the elites have.

        The step ``sum_e g_e (x_e - mean) / sqrt(E)`` with normal g has exactly the elites' covariance: along a narrow
        valley of the cost, whatever its direction, steps are long, and across it they are short.
        """
        config, size = self.config, (self.config.samples, len(mean))
        noise = torch.randn(size, generator=generator, device=mean.device)
        if elites is None or config.proposal == "gaussian":
            return mean + std * noise
        count = len(elites.parameters)
        chosen = torch.randint(count, size[:1], generator=generator, device=mean.device)
        shares = torch.randn(size[0], count, generator=generator, device=mean.device) / count**0.5
        steps = shares @ (elites.parameters - elites.parameters.mean(dim=0))
        floor = config.std_floor * 0.5 * (self._shape.upper - self._shape.lower).to(mean)
        samples: torch.Tensor = elites.parameters[chosen] + config.bandwidth * steps + floor * noise
        return samples

    def _evaluate(
        self,
        parameters: torch.Tensor,
        twist: torch.Tensor | None,
        imaginer: Imaginer,
        generator: torch.Generator,
        suggested_xyyaw: NDArray[np.float64] | None = None,
        share: float = 1.0,
    ) -> _Pool:
        poses_xyyaw = self._shape.poses(parameters, twist)
        if suggested_xyyaw is not None:
            paths = torch.as_tensor(suggested_xyyaw).to(poses_xyyaw)
            fitted = [self._shape.fit(path.cpu(), None if twist is None else twist.cpu()) for path in paths]
            parameters = torch.cat([parameters, torch.stack(fitted).to(parameters)])
            poses_xyyaw = torch.cat([poses_xyyaw, paths])
        costs = self._cost.evaluate(poses_xyyaw, imaginer, generator, self.config.repeats, share)
        return _Pool(parameters, poses_xyyaw, costs)

    def _refit(
        self, elite_parameters: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, width: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.config
        spread = elite_parameters.std(dim=0, correction=0)
        mean = config.smoothing * mean + (1.0 - config.smoothing) * elite_parameters.mean(dim=0)
        std = config.smoothing * std + (1.0 - config.smoothing) * spread
        return mean, torch.maximum(std, config.std_floor * 0.5 * width)

    def _answer(
        self,
        best: _Pool | None,
        trace: PlanTrace,
        timed_out: bool,
        stamp_s: float,
        start_odom_xyyaw: NDArray[np.float64],
        duration_s: float,
    ) -> Plan:
        status, message = _verdict(best, trace, timed_out)
        path, cost = np.zeros((0, 3)), float("nan")
        if best is not None and (status is PlanStatus.OK or self.config.keep_best_on_timeout):
            path = best.poses_xyyaw[0].detach().cpu().double().numpy()
            cost = float(best.costs.total[0])
        return Plan(
            status=status,
            stamp_s=stamp_s,
            dt_s=self.config.dt_s,
            poses_xyyaw=path,
            start_odom_xyyaw=start_odom_xyyaw,
            cost=cost,
            message=message,
            trace=trace,
            duration_s=duration_s,
        )


def _verdict(best: _Pool | None, trace: PlanTrace, timed_out: bool) -> tuple[PlanStatus, str]:
    if timed_out:
        return PlanStatus.TIMED_OUT, f"time limit reached after {len(trace.iterations)} iterations"
    if best is not None:
        return PlanStatus.OK, ""
    costs = torch.cat([iteration.costs for iteration in trace.iterations])
    if bool((costs == torch.inf).all()):
        return PlanStatus.ALL_IN_COLLISION, f"all {len(costs)} candidates were rejected"
    return PlanStatus.NON_FINITE_COST, f"none of {len(costs)} candidates has a finite cost"


def _elite(costs: torch.Tensor, count: int) -> torch.Tensor:
    """Return the indices (E,) of the cheapest finite candidates, cheapest first; E may be 0."""
    finite = torch.isfinite(costs)
    order = torch.argsort(torch.where(finite, costs, torch.inf), stable=True)
    return order[: min(count, int(finite.sum()))]


def _cheaper(best: _Pool | None, challengers: _Pool) -> _Pool:
    """Return the first of ``challengers`` (sorted by cost) if it is finite and cheaper than ``best``."""
    first = challengers.take(torch.zeros(1, dtype=torch.long, device=challengers.parameters.device))
    if best is None or bool(first.costs.total[0] < best.costs.total[0]):
        return first
    return best


def _trace(pool: _Pool, mean: torch.Tensor, std: torch.Tensor, elite: torch.Tensor) -> IterationTrace:
    return IterationTrace(
        pool.parameters, pool.poses_xyyaw, pool.costs.total, pool.costs.by_objective, mean.clone(), std.clone(), elite
    )


def _sobol(count: int, dimensions: int, generator: torch.Generator) -> torch.Tensor:
    """Return scrambled Sobol points (count, dimensions) in (0, 1) whose scrambling ``generator`` decides."""
    if count == 0:  # the engine cannot draw none
        return torch.zeros(0, dimensions, dtype=torch.float64)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=seed)
    points: torch.Tensor = engine.draw(count, dtype=torch.float64)
    return points.clamp(1e-6, 1.0 - 1e-6)


def _normal_from_uniform(points: torch.Tensor) -> torch.Tensor:
    normal: torch.Tensor = 2.0**0.5 * torch.erfinv(2.0 * points - 1.0)
    return normal
