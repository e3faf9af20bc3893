"""Paths as twists: how a robot moves in each step, what it can do, and where that leads.

A twist is (vx m/s, vy m/s, w rad/s) in base_link, vy to the left; letters: S candidates, T steps of ``dt_s``.
"""

from __future__ import annotations

import torch

from come_nav.core.geometry import se2
from come_nav.planning.settings import KinematicsSettings, RobotLimits


def limit_twists(
    wanted: torch.Tensor,
    limits: RobotLimits,
    robot: KinematicsSettings,
    dt_s: float,
    initial_twist: torch.Tensor | None,
) -> torch.Tensor:
    """Return the twists (S, T, 3) nearest to ``wanted`` that the robot can drive, step after step.

    ``initial_twist`` (3,) is what the first step's acceleration is counted from; None leaves it free.
    """
    vy = robot.vy_max_mps if robot.sideways else 0.0
    low = wanted.new_tensor([limits.v_min_mps, -vy, -limits.w_max_radps])
    high = wanted.new_tensor([limits.v_max_mps, vy, limits.w_max_radps])
    bounded = within_curvature(clamp(wanted, low, high), robot)
    if limits.a_max_mps2 is None and limits.alpha_max_radps2 is None:
        return bounded
    rates = (limits.a_max_mps2, limits.a_max_mps2, limits.alpha_max_radps2)
    most = wanted.new_tensor([torch.inf if rate is None else rate * dt_s for rate in rates])
    previous = bounded[:, 0] if initial_twist is None else clamp(initial_twist.to(bounded), low, high)
    steps = []
    for step in range(bounded.shape[1]):
        previous = within_curvature(clamp(bounded[:, step], previous - most, previous + most), robot)
        steps.append(previous)
    return torch.stack(steps, dim=1)


def within_curvature(twists: torch.Tensor, robot: KinematicsSettings) -> torch.Tensor:
    """Return twists (..., 3) whose turn a car can drive at their speed; those of other robots as they are."""
    if robot.kinematics != "car":
        return twists
    most = twists[..., 0].abs() / robot.min_turn_radius_m
    turn = torch.minimum(torch.maximum(twists[..., 2], -most), most)
    return torch.stack([twists[..., 0], twists[..., 1], turn], dim=-1)


def path_from_twists(twists: torch.Tensor, dt_s: float) -> torch.Tensor:
    """Integrate twists (..., T, 3), each constant for ``dt_s``, exactly to poses (..., T, 3) at each step's end."""
    delta = se2.integrate_twist(twists[..., 0], twists[..., 2], dt_s, twists[..., 1])
    turn = twists[..., 2] * dt_s
    yaw_after = torch.cumsum(turn, dim=-1)
    yaw_before = yaw_after - turn
    cosine, sine = torch.cos(yaw_before), torch.sin(yaw_before)
    x = torch.cumsum(cosine * delta[..., 0] - sine * delta[..., 1], dim=-1)
    y = torch.cumsum(sine * delta[..., 0] + cosine * delta[..., 1], dim=-1)
    return torch.stack([x, y, se2.wrap_angle(yaw_after)], dim=-1)


def twists_of_path(poses_xyyaw: torch.Tensor, dt_s: float, sideways: bool = True) -> torch.Tensor:
    """Return the twists (..., T, 3) that drive from the origin along poses (..., T, 3).

    Without ``sideways`` they are those of a robot that only drives forward and turns: vy is zero.
    """
    before = torch.cat([torch.zeros_like(poses_xyyaw[..., :1, :]), poses_xyyaw[..., :-1, :]], dim=-2)
    vx, vy, w = se2.planar_twist_between(before, poses_xyyaw, dt_s)
    return torch.stack([vx, vy if sideways else torch.zeros_like(vy), w], dim=-1)


def shift_path(poses_xyyaw: torch.Tensor, steps: int, dt_s: float, sideways: bool = True) -> torch.Tensor:
    """Return what is left of a path (T, 3) after ``steps`` steps, seen from there and extended at its last twist."""
    twists = twists_of_path(poses_xyyaw, dt_s, sideways)
    kept = twists[min(steps, len(twists) - 1) :]
    tail = kept[-1:].expand(len(twists) - len(kept), 3)
    return path_from_twists(torch.cat([kept, tail]), dt_s)


def clamp(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return ``values`` within ``low`` and ``high``, which broadcast."""
    return torch.minimum(torch.maximum(values, low.to(values)), high.to(values))
