"""Shapes of candidate paths: a few numbers become the poses at the end of each step, within the robot's limits.

Letters: S candidates, P parameters, T steps of ``dt_s``. Poses are in the start frame (base_link when planning starts).
A twist is (v m/s, w rad/s); ``initial_twist`` (2,) is the robot's present one, where known: a robot keeps moving.
"""

from __future__ import annotations

from typing import Protocol

import torch

from come_nav.core.checks import check_choice
from come_nav.core.geometry import se2
from come_nav.planning.settings import PARAMETERISATIONS, PlannerSettings, RobotLimits


class Parameterisation(Protocol):
    """What the planner needs of a path shape."""

    @property
    def lower(self) -> torch.Tensor:
        """Smallest parameters (P,)."""
        ...

    @property
    def upper(self) -> torch.Tensor:
        """Largest parameters (P,)."""
        ...

    def prior(self, initial_twist: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean (P,) and standard deviation (P,) before anything was tried."""
        ...

    def poses(self, parameters: torch.Tensor, initial_twist: torch.Tensor | None) -> torch.Tensor:
        """Map parameters (S, P) to poses (S, T, 3) at the end of each step; the limits hold for any parameters."""
        ...

    def fit(self, poses_xyyaw: torch.Tensor, initial_twist: torch.Tensor | None = None) -> torch.Tensor:
        """Return the parameters (P,) whose path is near ``poses_xyyaw`` (T, 3); exact for paths of this shape."""
        ...


def make_parameterisation(config: PlannerSettings) -> Parameterisation:
    """Return the path shape that ``config.parameterisation`` names."""
    name = check_choice("planner.parameterisation", config.parameterisation, PARAMETERISATIONS)
    if name == "straight":
        return Straight(config)
    steps, kind = config.horizon_steps, config.interpolation
    if name == "arc":
        constant = torch.cat([torch.zeros(steps, 1), torch.ones(steps, 1)], dim=1)
        return Spline(config, constant, constant)
    return Spline(config, knot_basis(steps, config.v_knots + 1, kind), knot_basis(steps, config.w_knots + 1, kind))


class Straight:
    """NWM's shape: one step (dx m, dy m) repeated, looking along the path, plus a last turn (P = 3).

    The poses are (k dx, k dy, heading) with heading = atan2(dy, dx), and the last yaw is heading + turn. It is an
    idealisation that ignores how the robot gets to its heading: speed and total turn are limited, the yaw rate of
    the first step is not.
    """

    def __init__(self, config: PlannerSettings) -> None:
        self._config = config
        limits, dt_s = config.limits, config.dt_s
        self._turn = min(limits.w_max_radps * config.horizon_steps * dt_s, torch.pi)
        reach = max(limits.v_max_mps, -limits.v_min_mps) * dt_s
        self.lower = torch.tensor([limits.v_min_mps * dt_s, -reach, -self._turn])
        self.upper = torch.tensor([limits.v_max_mps * dt_s, reach, self._turn])

    def prior(self, initial_twist: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean: the chord of the arc that the present twist drives; spread: that of the speed and half the turn."""
        config = self._config
        duration_s = config.horizon_steps * config.dt_s
        v, w = _prior_twist(config, initial_twist)
        half_turn = 0.5 * w * duration_s
        step = v * config.dt_s
        mean = torch.stack([step * torch.cos(half_turn), step * torch.sin(half_turn), half_turn])
        spread = config.prior_v_std_mps * config.dt_s
        std = torch.tensor([spread, spread, 0.5 * config.prior_w_std_radps * duration_s])
        return _clamp(mean, self.lower, self.upper), std

    def poses(self, parameters: torch.Tensor, initial_twist: torch.Tensor | None) -> torch.Tensor:
        """See :class:`Parameterisation`. The speed changes at once: acceleration limits apply to arc and spline."""
        config = self._config
        bounded = _clamp(parameters, self.lower, self.upper)
        step_m = bounded[:, :2]
        longest = config.limits.v_max_mps * config.dt_s
        length = torch.linalg.vector_norm(step_m, dim=-1, keepdim=True)
        step_m = step_m * (longest / length.clamp(min=longest))
        heading = torch.atan2(step_m[:, 1], step_m[:, 0])
        heading = torch.where(step_m[:, 0] < 0, se2.wrap_angle(heading + torch.pi), heading)
        heading = heading.clamp(-self._turn, self._turn)
        yaw = heading[:, None].repeat(1, config.horizon_steps)
        yaw[:, -1] = (heading + bounded[:, 2]).clamp(-self._turn, self._turn)
        count = torch.arange(1, config.horizon_steps + 1, dtype=step_m.dtype, device=step_m.device)
        position = count[None, :, None] * step_m[:, None, :]
        return torch.cat([position, se2.wrap_angle(yaw)[..., None]], dim=-1)

    def fit(self, poses_xyyaw: torch.Tensor, initial_twist: torch.Tensor | None = None) -> torch.Tensor:
        """Return (dx, dy, turn) from the last pose."""
        last = poses_xyyaw[-1]
        step_m = last[:2] / len(poses_xyyaw)
        heading = torch.atan2(step_m[1], step_m[0])
        if step_m[0] < 0:
            heading = heading + torch.pi
        return torch.cat([step_m, se2.wrap_angle(last[2] - heading)[None]])


class Spline:
    """The twist goes from the present one through knots, driven as exact arcs step by step.

    The parameters are the speeds at V knots and the yaw rates at W knots, evenly spaced up to the end of the horizon
    (P = V + W). Knot 0, at the start, is the present twist, for a twist does not jump; where it is unknown, the first
    knot holds from the start. An arc is the special case of one knot each that holds all along.
    """

    def __init__(self, config: PlannerSettings, v_basis: torch.Tensor, w_basis: torch.Tensor) -> None:
        """Take the matrices (T, 1 + V) and (T, 1 + W) that map the present twist and the knots to the steps."""
        self._config = config
        self._bases = (v_basis, w_basis)
        self._knots = (v_basis.shape[1] - 1, w_basis.shape[1] - 1)
        limits = config.limits
        self.lower = self._spread(limits.v_min_mps, -limits.w_max_radps)
        self.upper = self._spread(limits.v_max_mps, limits.w_max_radps)

    def prior(self, initial_twist: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean: the present twist at every knot."""
        v, w = _prior_twist(self._config, initial_twist)
        mean = self._spread(float(v), float(w))
        return _clamp(mean, self.lower, self.upper), self._spread(
            self._config.prior_v_std_mps, self._config.prior_w_std_radps
        )

    def poses(self, parameters: torch.Tensor, initial_twist: torch.Tensor | None) -> torch.Tensor:
        """See :class:`Parameterisation`."""
        return path_from_twists(self.twists(parameters, initial_twist), self._config.dt_s)

    def twists(self, parameters: torch.Tensor, initial_twist: torch.Tensor | None) -> torch.Tensor:
        """Return the twists (S, T, 2) that are driven in each step, after all limits."""
        wanted = []
        for axis, (knots, basis) in enumerate(
            zip(torch.split(parameters, list(self._knots), dim=1), self._bases, strict=True)
        ):
            first = knots[:, :1] if initial_twist is None else initial_twist[axis].to(knots).expand(len(knots), 1)
            wanted.append(torch.cat([first, knots], dim=1) @ basis.T.to(knots))
        return limit_twists(torch.stack(wanted, dim=-1), self._config.limits, self._config.dt_s, initial_twist)

    def fit(self, poses_xyyaw: torch.Tensor, initial_twist: torch.Tensor | None = None) -> torch.Tensor:
        """Return the knots by least squares on the twists between the poses."""
        twists = twists_of_path(poses_xyyaw, self._config.dt_s)
        knots = []
        for axis, basis in enumerate(self._bases):
            free, wanted = basis[:, 1:].to(twists).clone(), twists[:, axis]
            if initial_twist is None:
                free[:, 0] += basis[:, 0].to(twists)
            else:
                wanted = wanted - basis[:, 0].to(twists) * initial_twist[axis].to(twists)
            knots.append(torch.linalg.lstsq(free, wanted[:, None]).solution[:, 0])
        return torch.cat(knots)

    def _spread(self, v: float, w: float) -> torch.Tensor:
        return torch.tensor([v] * self._knots[0] + [w] * self._knots[1])


def knot_basis(steps: int, knots: int, interpolation: str) -> torch.Tensor:
    """Return the (T, K) matrix from knot values to values in the middle of each step.

    Knots lie evenly from the start to the end of the horizon; ``cubic`` is the natural cubic spline (its second
    derivative vanishes at both ends), ``linear`` joins the knots by lines.
    """
    position = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps * (knots - 1)
    left = position.floor().clamp(max=knots - 2).long()
    fraction = position - left
    rows = torch.arange(steps)
    basis = torch.zeros(steps, knots, dtype=torch.float64)
    basis[rows, left] = 1.0 - fraction
    basis[rows, left + 1] = fraction
    if interpolation == "linear" or knots < 3:
        return basis.float()
    # Second derivatives m of a natural spline with unit spacing:
    # m_{i-1} + 4 m_i + m_{i+1} = 6 (y_{i-1} - 2 y_i + y_{i+1})
    inner = knots - 2
    system = 4.0 * torch.eye(inner, dtype=torch.float64)
    system += torch.diag(torch.ones(inner - 1, dtype=torch.float64), 1)
    system += torch.diag(torch.ones(inner - 1, dtype=torch.float64), -1)
    second_difference = torch.zeros(inner, knots, dtype=torch.float64)
    for row in range(inner):
        second_difference[row, row : row + 3] = torch.tensor([6.0, -12.0, 6.0], dtype=torch.float64)
    curvature = torch.zeros(knots, knots, dtype=torch.float64)
    curvature[1:-1] = torch.linalg.solve(system, second_difference)
    weight_left = ((1.0 - fraction) ** 3 - (1.0 - fraction)) / 6.0
    weight_right = (fraction**3 - fraction) / 6.0
    return (basis + weight_left[:, None] * curvature[left] + weight_right[:, None] * curvature[left + 1]).float()


def limit_twists(
    wanted: torch.Tensor, limits: RobotLimits, dt_s: float, initial_twist: torch.Tensor | None
) -> torch.Tensor:
    """Return the twists (S, T, 2) nearest to ``wanted`` that the robot can drive, step after step."""
    low = wanted.new_tensor([limits.v_min_mps, -limits.w_max_radps])
    high = wanted.new_tensor([limits.v_max_mps, limits.w_max_radps])
    bounded = _clamp(wanted, low, high)
    if limits.a_max_mps2 is None and limits.alpha_max_radps2 is None:
        return bounded
    change = [torch.inf if limit is None else limit * dt_s for limit in (limits.a_max_mps2, limits.alpha_max_radps2)]
    most = wanted.new_tensor(change)
    previous = bounded[:, 0] if initial_twist is None else _clamp(initial_twist.to(bounded), low, high)
    steps = []
    for step in range(bounded.shape[1]):
        previous = _clamp(bounded[:, step], previous - most, previous + most)
        steps.append(previous)
    return torch.stack(steps, dim=1)


def path_from_twists(twists: torch.Tensor, dt_s: float) -> torch.Tensor:
    """Integrate twists (..., T, 2), each constant for ``dt_s``, exactly to poses (..., T, 3) at each step's end."""
    delta = se2.integrate_twist(twists[..., 0], twists[..., 1], dt_s)
    turn = twists[..., 1] * dt_s
    yaw_after = torch.cumsum(turn, dim=-1)
    yaw_before = yaw_after - turn
    cosine, sine = torch.cos(yaw_before), torch.sin(yaw_before)
    x = torch.cumsum(cosine * delta[..., 0] - sine * delta[..., 1], dim=-1)
    y = torch.cumsum(sine * delta[..., 0] + cosine * delta[..., 1], dim=-1)
    return torch.stack([x, y, se2.wrap_angle(yaw_after)], dim=-1)


def twists_of_path(poses_xyyaw: torch.Tensor, dt_s: float) -> torch.Tensor:
    """Return the twists (..., T, 2) that drive from the origin along poses (..., T, 3)."""
    before = torch.cat([torch.zeros_like(poses_xyyaw[..., :1, :]), poses_xyyaw[..., :-1, :]], dim=-2)
    return torch.stack(se2.twist_between(before, poses_xyyaw, dt_s), dim=-1)


def shift_path(poses_xyyaw: torch.Tensor, steps: int, dt_s: float) -> torch.Tensor:
    """Return what is left of a path (T, 3) after ``steps`` steps, seen from there and extended at its last twist."""
    twists = twists_of_path(poses_xyyaw, dt_s)
    kept = twists[min(steps, len(twists) - 1) :]
    tail = kept[-1:].expand(len(twists) - len(kept), 2)
    return path_from_twists(torch.cat([kept, tail]), dt_s)


def _prior_twist(config: PlannerSettings, initial_twist: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    if initial_twist is None:
        return torch.tensor(config.prior_v_mps), torch.tensor(0.0)
    present = initial_twist.detach().to("cpu", torch.float32)
    return present[0], present[1]


def _clamp(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.minimum(torch.maximum(values, low.to(values)), high.to(values))
