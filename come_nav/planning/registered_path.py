"""A smooth path to a pose that is known, within what the robot can do, in closed form or by a few least-squares steps.

Of all motions that begin with the present twist and end at the pose, the one with the smallest mean squared
acceleration is a cubic whose acceleration falls to zero at the end: the natural cubic Hermite path. Robots that move
sideways drive it as it is, cut to their limits. Of the others the knots of speed and turn are searched (Gauss-Newton)
that end nearest to the pose and change least.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.checks import check_shape
from come_nav.core.geometry import se2
from come_nav.planning.parameterisations import Parameterisation, make_parameterisation
from come_nav.planning.settings import KinematicsSettings, PlannerSettings
from come_nav.planning.twists import limit_twists, path_from_twists, twists_of_path

KNOTS = 3
YAW_M_PER_RAD = 0.3  # what a turn counts against a distance at the end
CHANGE = 0.02  # and what a change of speed by 1 m/s, or of the turn by 1 rad/s, from knot to knot counts
ROUNDS, STEP, DAMPING = 12, 1e-4, 1e-4


def natural_cubic(
    goal_xyyaw: NDArray[np.float64], twist: NDArray[np.float64], times_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return poses (T, 3) at ``times_s`` (T,) of the smoothest motion that is at a goal (3,) at the last of them.

    It begins at the origin with ``twist`` (3,) vx, vy, w; yaw is not wrapped on the way.
    """
    share = times_s / times_s[-1]
    going_on = times_s[:, None] * twist
    missing = (
        np.array([*goal_xyyaw[:2], going_on[-1, 2] + se2.wrap_angle(goal_xyyaw[2] - going_on[-1, 2])]) - going_on[-1]
    )
    return np.asarray(going_on + (0.5 * (3.0 * share**2 - share**3))[:, None] * missing)


def path_to_pose(
    goal_xyyaw: NDArray[np.float64],
    twist: NDArray[np.float64] | None,
    config: PlannerSettings,
    robot: KinematicsSettings | None = None,
) -> NDArray[np.float64]:
    """Return a smooth path (T, 3) that ends at a pose, or as near to it as the robot's limits allow.

    Args:
        goal_xyyaw: (3,) in the start frame.
        twist: (3,) present (vx m/s, vy m/s, w rad/s); None takes a robot that stands.
        config: steps and limits.
        robot: how it moves; a differential drive when None.
    """
    check_shape("goal_xyyaw", goal_xyyaw, "3")
    robot = robot or KinematicsSettings()
    present = np.zeros(3) if twist is None else np.asarray(twist, float)
    if not robot.sideways:
        present = present * [1.0, 0.0, 1.0]
    first = torch.from_numpy(present)
    times_s = config.dt_s * np.arange(1, config.horizon_steps + 1, dtype=np.float64)
    cubic = natural_cubic(np.asarray(goal_xyyaw, float), present, times_s)
    if robot.sideways:
        twists = twists_of_path(torch.from_numpy(cubic), config.dt_s)[None]
        limited = limit_twists(twists, config.limits, robot, config.dt_s, first)
        return np.asarray(path_from_twists(limited, config.dt_s)[0].numpy())
    knots = min(KNOTS, config.horizon_steps)
    smooth = replace(config, parameterisation="spline", v_knots=knots, w_knots=knots, interpolation="cubic")
    return _searched(make_parameterisation(smooth, robot), torch.from_numpy(cubic), first)


def _searched(shape: Parameterisation, cubic: torch.Tensor, twist: torch.Tensor) -> NDArray[np.float64]:
    """Return the path (T, 3) of the shape that ends nearest to where ``cubic`` ends, by Levenberg and Marquardt."""
    low, high = shape.lower.double(), shape.upper.double()
    parameters = shape.fit(cubic, twist).double().clamp(low, high)
    half = len(parameters) // 2
    best, damping = _residuals(shape, parameters[None], cubic, twist, half)[0], DAMPING
    for _ in range(ROUNDS):
        moved = parameters[None] + STEP * torch.cat([torch.eye(len(parameters)), -torch.eye(len(parameters))]).double()
        forward, backward = _residuals(shape, moved, cubic, twist, half).chunk(2)
        jacobian = ((forward - backward) / (2.0 * STEP)).T
        hessian = jacobian.T @ jacobian
        step = torch.linalg.solve(hessian + damping * torch.eye(len(hessian)).double(), -jacobian.T @ best)
        trial = (parameters + step).clamp(low, high)
        there = _residuals(shape, trial[None], cubic, twist, half)[0]
        if there.square().sum() >= best.square().sum():
            damping *= 10.0
            continue
        parameters, best, damping = trial, there, 0.3 * damping
    return np.asarray(shape.poses(parameters[None], twist)[0].numpy())


def _residuals(
    shape: Parameterisation, parameters: torch.Tensor, cubic: torch.Tensor, twist: torch.Tensor, half: int
) -> torch.Tensor:
    """Return (S, R): how far the ends of paths are from the goal, and how much their knots change."""
    last = shape.poses(parameters, twist)[:, -1]
    turn = YAW_M_PER_RAD * se2.wrap_angle(last[:, 2:] - cubic[-1, 2])
    speeds, turns = parameters[:, :half], parameters[:, half:]
    first = twist.expand(len(parameters), 3)
    changes = [
        torch.cat([first[:, axis : axis + 1], knots], 1).diff(dim=1) for axis, knots in ((0, speeds), (2, turns))
    ]
    return torch.cat([last[:, :2] - cubic[-1, :2], turn, *(CHANGE * change for change in changes)], dim=1)
