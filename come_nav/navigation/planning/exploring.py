"""Plans without a goal: a policy's own paths, of which the first that keeps clear of obstacles is driven."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.types import Imagination, Plan, PlanStatus
from come_nav.planning.objectives import Clearance

OFFERED = 0.05  # m of nearly touching that two paths may differ by and count as equally clear


def clearest(paths_xyyaw: NDArray[np.float64], clearance: Clearance | None, plan: Plan) -> Plan:
    """Return ``plan`` with the first of the proposed paths (S, T, 3) that is as clear as any.

    Without obstacles that is the first one, as the authors drive it. A plan whose paths all touch something is
    ALL_IN_COLLISION.
    """
    costs = np.zeros(len(paths_xyyaw))
    if clearance is not None:
        costs = clearance(Imagination(torch.from_numpy(paths_xyyaw).float())).double().cpu().numpy()
    best = float(costs.min())
    if not np.isfinite(best):
        message = f"all {len(costs)} proposed paths touch an obstacle"
        return replace(plan, status=PlanStatus.ALL_IN_COLLISION, message=message)
    chosen = int(np.argmax(costs <= best + OFFERED))
    return replace(plan, status=PlanStatus.OK, poses_xyyaw=paths_xyyaw[chosen], cost=float(costs[chosen]))
