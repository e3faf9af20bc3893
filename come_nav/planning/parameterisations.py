"""Shapes of candidate paths: a few numbers become the poses at the end of each step, within the robot's limits.

Letters: S candidates, P parameters, T steps of ``dt_s``. Poses are in the start frame (base_link when planning starts).
A twist is (vx m/s, vy m/s, w rad/s); ``initial_twist`` (3,) is the robot's present one, where known: a robot keeps
moving. Paths of robots that cannot move sideways ignore its vy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from come_nav.core.checks import check_choice
from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.planning.settings import PARAMETERISATIONS, KinematicsSettings, PlannerSettings
from come_nav.planning.twists import clamp, limit_twists, path_from_twists, twists_of_path

VX, VY, W = range(3)


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


def make_parameterisation(config: PlannerSettings, robot: KinematicsSettings | None = None) -> Parameterisation:
    """Return the path shape that ``config.parameterisation`` names, for a differential drive or ``robot``.

    Raises:
        ConfigError: for straight lines of a car, which cannot turn on the spot.
    """
    robot = robot or KinematicsSettings()
    name = check_choice("planner.parameterisation", config.parameterisation, PARAMETERISATIONS)
    if name == "straight" and robot.kinematics == "car":
        raise ConfigError("planner.parameterisation straight turns on the spot, which a car cannot; take arc or spline")
    if name == "straight":
        return Straight(config, robot)
    steps, kind = config.horizon_steps, config.interpolation
    if name == "arc":
        speed = turn = torch.cat([torch.zeros(steps, 1), torch.ones(steps, 1)], dim=1)
    else:
        speed, turn = (knot_basis(steps, knots + 1, kind) for knots in (config.v_knots, config.w_knots))
    return Spline(config, robot, {VX: speed, VY: speed, W: turn} if robot.sideways else {VX: speed, W: turn})


class Straight:
    """NWM's shape: one step (dx m, dy m) repeated, looking along the path, plus a last turn (P = 3).

    The poses are (k dx, k dy, heading) with heading = atan2(dy, dx), and the last yaw is heading + turn. It is an
    idealisation that ignores how the robot gets to its heading: speed and total turn are limited, the yaw rate of
    the first step is not. A holonomic robot keeps its heading (0) instead of looking along the path.
    """

    def __init__(self, config: PlannerSettings, robot: KinematicsSettings) -> None:
        self._config, self._sideways = config, robot.sideways
        limits, dt_s = config.limits, config.dt_s
        self._turn = min(limits.w_max_radps * config.horizon_steps * dt_s, torch.pi)
        fastest = robot.vy_max_mps if robot.sideways else max(limits.v_max_mps, -limits.v_min_mps)
        reach = fastest * dt_s
        self.lower = torch.tensor([limits.v_min_mps * dt_s, -reach, -self._turn])
        self.upper = torch.tensor([limits.v_max_mps * dt_s, reach, self._turn])

    def prior(self, initial_twist: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean: the chord of what the present twist drives; spread: that of the speed and half the turn."""
        config = self._config
        duration_s = config.horizon_steps * config.dt_s
        v, vy, w = _prior_twist(config, initial_twist)
        half_turn = 0.5 * w * duration_s
        step = v * config.dt_s
        cosine, sine = torch.cos(half_turn), torch.sin(half_turn)
        if self._sideways:
            left = vy * config.dt_s
            mean = torch.stack([step * cosine - left * sine, step * sine + left * cosine, 2.0 * half_turn])
        else:
            mean = torch.stack([step * cosine, step * sine, half_turn])
        spread = config.prior_v_std_mps * config.dt_s
        std = torch.tensor([spread, spread, 0.5 * config.prior_w_std_radps * duration_s])
        return clamp(mean, self.lower, self.upper), std

    def poses(self, parameters: torch.Tensor, initial_twist: torch.Tensor | None) -> torch.Tensor:
        """See :class:`Parameterisation`. The speed changes at once: acceleration limits apply to arc and spline."""
        config = self._config
        bounded = clamp(parameters, self.lower, self.upper)
        step_m = bounded[:, :2]
        if self._sideways:
            heading = torch.zeros_like(step_m[:, 0])
        else:
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
        if self._sideways:
            return torch.cat([step_m, last[2:]])
        heading = torch.atan2(step_m[1], step_m[0])
        if step_m[0] < 0:
            heading = heading + torch.pi
        return torch.cat([step_m, se2.wrap_angle(last[2] - heading)[None]])


class Spline:
    """The twist goes from the present one through knots, driven as exact arcs step by step.

    The parameters are the speeds at V knots (forward; then, of a holonomic robot, to the side) and the yaw rates at W
    knots, evenly spaced up to the end of the horizon (P = V + W, or 2 V + W). Knot 0, at the start, is the present
    twist, for a twist does not jump; where it is unknown, the first knot holds from the start. An arc is the special
    case of one knot each that holds all along.
    """

    def __init__(self, config: PlannerSettings, robot: KinematicsSettings, bases: dict[int, torch.Tensor]) -> None:
        """Take, for each axis that the robot moves along, the matrix (T, 1 + K) from present twist and knots to steps.

        Axes are the columns of a twist: 0 forward, 1 to the side, 2 the turn.
        """
        self._config, self._robot, self._bases = config, robot, bases
        limits = config.limits
        vy = robot.vy_max_mps
        self.lower = self._spread((limits.v_min_mps, -vy, -limits.w_max_radps))
        self.upper = self._spread((limits.v_max_mps, vy, limits.w_max_radps))

    def prior(self, initial_twist: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean: the present twist at every knot."""
        config = self._config
        mean = self._spread(_prior_twist(config, initial_twist).tolist())
        std = self._spread((config.prior_v_std_mps, config.prior_v_std_mps, config.prior_w_std_radps))
        return clamp(mean, self.lower, self.upper), std

    def poses(self, parameters: torch.Tensor, initial_twist: torch.Tensor | None) -> torch.Tensor:
        """See :class:`Parameterisation`."""
        return path_from_twists(self.twists(parameters, initial_twist), self._config.dt_s)

    def twists(self, parameters: torch.Tensor, initial_twist: torch.Tensor | None) -> torch.Tensor:
        """Return the twists (S, T, 3) that are driven in each step, after all limits."""
        wanted = parameters.new_zeros(len(parameters), self._config.horizon_steps, 3)
        sizes = [basis.shape[1] - 1 for basis in self._bases.values()]
        for (axis, basis), knots in zip(self._bases.items(), torch.split(parameters, sizes, dim=1), strict=True):
            first = knots[:, :1] if initial_twist is None else initial_twist[axis].to(knots).expand(len(knots), 1)
            wanted[..., axis] = torch.cat([first, knots], dim=1) @ basis.T.to(knots)
        return limit_twists(wanted, self._config.limits, self._robot, self._config.dt_s, initial_twist)

    def fit(self, poses_xyyaw: torch.Tensor, initial_twist: torch.Tensor | None = None) -> torch.Tensor:
        """Return the knots by least squares on the twists between the poses."""
        twists = twists_of_path(poses_xyyaw, self._config.dt_s)
        knots = []
        for axis, basis in self._bases.items():
            free, wanted = basis[:, 1:].to(twists).clone(), twists[:, axis]
            if initial_twist is None:
                free[:, 0] += basis[:, 0].to(twists)
            else:
                wanted = wanted - basis[:, 0].to(twists) * initial_twist[axis].to(twists)
            knots.append(torch.linalg.lstsq(free, wanted[:, None]).solution[:, 0])
        return torch.cat(knots)

    def _spread(self, twist: Sequence[float]) -> torch.Tensor:
        """Return parameters (P,) with the same twist at every knot."""
        return torch.tensor([twist[axis] for axis, basis in self._bases.items() for _ in range(basis.shape[1] - 1)])


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


def _prior_twist(config: PlannerSettings, initial_twist: torch.Tensor | None) -> torch.Tensor:
    if initial_twist is None:
        return torch.tensor([config.prior_v_mps, 0.0, 0.0])
    return initial_twist.detach().to("cpu", torch.float32)
