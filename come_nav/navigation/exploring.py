"""Plans without a goal: a policy's own paths where one is set, else a search for where the robot was least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Objective
from come_nav.core.types import Goal, Imagination, Plan, PlanStatus
from come_nav.memory.short_term import Remembered
from come_nav.navigation.planning.imagining import PathsOnly
from come_nav.navigation.planning.proposing import Proposer
from come_nav.navigation.planning.refusals import no_plan, refusal
from come_nav.navigation.stack import ClearanceFrom, NavStack
from come_nav.planning.cem import CemPlanner
from come_nav.planning.novelty import Familiarity
from come_nav.planning.objectives import Clearance, Smoothness
from come_nav.policies.model import LearnedPolicy

EQUALLY_CLEAR_M = 0.05  # of nearly touching, by which two paths may differ
Visited = Callable[[], NDArray[np.float64]]


class Explorer:
    """Plans for a robot that has no goal, from what its stack has seen.

    With ``planner.proposals`` that is the policy's path with its goal masked, as NoMaD's authors explore. Without, the
    search looks for paths that end where, and facing how, memory knows least.
    """

    def __init__(self, stack: NavStack, visited: Visited = lambda: np.zeros((0, 3))) -> None:
        """Take the stack and what tells the remembered poses (N, 3) in odom."""
        settings = stack.settings
        self._stack, self._visited, self._proposer = stack, visited, Proposer(settings.device)
        self._generator = torch.Generator().manual_seed(settings.seed)

    def policy(self) -> LearnedPolicy | None:
        """Return the policy that explores, None where the search does.

        Raises:
            ConfigError: ``planner.proposals`` names a policy that needs a goal.
            CheckpointError: it holds no policy.
        """
        policy = self._proposer.policy(self._stack.settings.planner)
        if policy is not None and policy.settings.kind != "nomad":
            raise ConfigError(
                f"planner.proposals: '{policy.name}' is a {policy.settings.kind}, which needs a goal; exploring "
                "takes a nomad, or none: planner.proposals=''"
            )
        return policy

    def plan(self, now_s: float | None = None, clearance: Clearance | ClearanceFrom | None = None) -> Plan:
        """Return a path from the newest remembered frame; the arguments are those of ``NavStack.plan``.

        Raises:
            ConfigError: the policy cannot do without a goal.
        """
        settings, memory = self._stack.settings, self._stack.memory
        policy = self.policy()
        seen = memory.newest_frames(1 if policy is None else policy.frames)
        anywhere = Goal(pose_odom_xyyaw=np.zeros(3))  # what refuses a plan to there refuses any
        refused = refusal(anywhere, memory, 1, now_s, settings.max_sensor_age_s)
        if refused is not None or not seen:
            return replace(refused or no_plan(PlanStatus.NO_CONTEXT, "", None), dt_s=settings.planner.dt_s)
        if clearance is not None and not isinstance(clearance, Clearance):
            clearance = clearance(seen[-1].pose_odom_xyyaw)
        if policy is None:
            return self._searched(seen[-1], clearance)
        twist = self._stack.present_twist()
        images = [own.frame.rgb for own in seen]
        paths = self._proposer.paths(images, None, settings.planner, settings.robot, twist, self._generator)
        assert paths is not None  # there is a policy, and an image
        newest = seen[-1]
        blank = Plan(PlanStatus.OK, newest.stamp_s, settings.planner.dt_s, np.zeros((0, 3)), newest.pose_odom_xyyaw)
        return clearest(paths, clearance, blank)

    def _searched(self, newest: Remembered, clearance: Clearance | None) -> Plan:
        """Return the path that leads away most from what is remembered; nothing needs to be imagined for it."""
        settings, twist = self._stack.settings, self._stack.present_twist()
        search, start = settings.pose_search.instead_of(settings.planner), newest.pose_odom_xyyaw
        visited = torch.from_numpy(se2.relative(start[None], self._visited()))
        known_twist = None if twist is None else torch.from_numpy(twist)
        smooth = Smoothness(search.dt_s, initial_twist=known_twist, sideways=settings.robot.sideways)
        objectives: list[Objective] = [Familiarity(visited), smooth]
        weights = {smooth.name: settings.objective.smoothness_weight}
        if clearance is not None:
            objectives.append(clearance)
            weights[clearance.name] = settings.objective.clearance_weight
        return CemPlanner(search, objectives, weights, robot=settings.robot).plan(
            PathsOnly(), self._generator, stamp_s=newest.stamp_s, start_odom_xyyaw=start, initial_twist=twist
        )


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
