"""Paths that somebody proposes, made such that this robot can drive them: on the planner's steps, within its limits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.types import Proposals
from come_nav.planning.settings import KinematicsSettings, PlannerSettings
from come_nav.planning.twists import limit_twists, path_from_twists, twists_of_path


def drivable_paths(
    proposals: Proposals,
    config: PlannerSettings,
    robot: KinematicsSettings,
    twist: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return proposed paths (S, T, 3) on the steps of ``config`` as ``robot`` can drive them.

    A path that is shorter than the horizon goes on as it ended.

    Args:
        proposals: paths (S, T', 3) on steps of their own.
        config: steps and limits.
        robot: how it moves.
        twist: (3,) present (vx m/s, vy m/s, w rad/s), which limited accelerations count from.
    """
    paths = torch.from_numpy(np.asarray(proposals.poses_xyyaw, float))
    if len(paths) == 0:
        return np.zeros((0, config.horizon_steps, 3))
    twists = _on_steps(twists_of_path(paths, proposals.dt_s, robot.sideways), proposals.dt_s, config)
    first = None if twist is None else torch.from_numpy(np.asarray(twist, float))
    limited = limit_twists(twists, config.limits, robot, config.dt_s, first)
    return np.asarray(path_from_twists(limited, config.dt_s).numpy())


def _on_steps(twists: torch.Tensor, dt_s: float, config: PlannerSettings) -> torch.Tensor:
    """Return the mean twist (S, T, 3) in each of the planner's steps of twists (S, T', 3) that last ``dt_s`` each."""
    edges = config.dt_s * torch.arange(config.horizon_steps + 1, dtype=twists.dtype)
    missing = int(np.ceil(float(edges[-1]) / dt_s)) - twists.shape[1]
    if missing > 0:
        twists = torch.cat([twists, twists[:, -1:].expand(-1, missing, -1)], dim=1)
    gone = torch.cat([torch.zeros_like(twists[:, :1]), torch.cumsum(twists * dt_s, dim=1)], dim=1)
    place = (edges / dt_s).clamp(max=twists.shape[1])
    before = place.floor().long().clamp(max=twists.shape[1] - 1)
    share = (place - before)[None, :, None]
    at_edges = gone[:, before] * (1.0 - share) + gone[:, before + 1] * share
    return torch.diff(at_edges, dim=1) / config.dt_s
