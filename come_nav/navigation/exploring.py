"""Plans without a goal: a policy's own paths, of which the first that keeps clear of obstacles is driven."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.types import Goal, Imagination, Plan, PlanStatus
from come_nav.navigation.planning.proposing import Proposer
from come_nav.navigation.planning.refusals import no_plan, refusal
from come_nav.navigation.stack import ClearanceFrom, NavStack
from come_nav.planning.objectives import Clearance

EQUALLY_CLEAR_M = 0.05  # of nearly touching, by which two paths may differ


class Explorer:
    """Plans for a robot that has no goal, from what its stack has seen.

    Raises:
        ConfigError: ``planner.proposals`` of the stack's settings is empty, or names no policy.
    """

    def __init__(self, stack: NavStack) -> None:
        settings = stack.settings
        self._stack, self._proposer = stack, Proposer(settings.device)
        if self._proposer.policy(settings.planner) is None:
            raise ConfigError("exploring needs planner.proposals to name a nomad, e.g. planner.proposals=nomad")
        self._generator = torch.Generator().manual_seed(settings.seed)

    def plan(self, now_s: float | None = None, clearance: Clearance | ClearanceFrom | None = None) -> Plan:
        """Return a path from the newest remembered frame; the arguments are those of ``NavStack.plan``.

        Raises:
            ConfigError: the policy cannot do without a goal.
        """
        settings, memory = self._stack.settings, self._stack.memory
        search, twist = settings.planner, self._stack.present_twist()
        policy = self._proposer.policy(search)
        seen = memory.newest_frames(1 if policy is None else policy.frames)
        anywhere = Goal(pose_odom_xyyaw=np.zeros(3))  # what refuses a plan to there refuses any
        refused = refusal(anywhere, memory, 1, now_s, settings.max_sensor_age_s)
        if refused is not None or not seen:
            return replace(refused or no_plan(PlanStatus.NO_CONTEXT, "", None), dt_s=search.dt_s)
        newest, images = seen[-1], [own.frame.rgb for own in seen]
        paths = self._proposer.paths(images, None, search, settings.robot, twist, self._generator)
        if paths is None:
            raise ConfigError("exploring needs planner.proposals to name a nomad, e.g. planner.proposals=nomad")
        if clearance is not None and not isinstance(clearance, Clearance):
            clearance = clearance(newest.pose_odom_xyyaw)
        blank = Plan(PlanStatus.OK, newest.stamp_s, search.dt_s, np.zeros((0, 3)), newest.pose_odom_xyyaw)
        return clearest(paths, clearance, blank)


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
    chosen = int(np.argmax(costs <= best + EQUALLY_CLEAR_M))
    return replace(plan, status=PlanStatus.OK, poses_xyyaw=paths_xyyaw[chosen], cost=float(costs[chosen]))
