"""Follows a topological map: where the robot is by predicted distance, and a path to the next node's image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.types import Goal, Plan, PlanStatus
from come_nav.navigation.exploring import clearest
from come_nav.navigation.planning.proposing import Proposer
from come_nav.navigation.planning.refusals import refusal
from come_nav.navigation.stack import ClearanceFrom, NavStack
from come_nav.planning.objectives import Clearance
from come_nav.policies.topological import Located, TopologicalLocaliser, TopologicalSettings


class MapFollower:
    """Plans along the nodes of one map, as visualnav-transformer's navigate.py does.

    Attributes:
        located: where it was at the last plan; None before the first.
    """

    def __init__(
        self,
        stack: NavStack,
        images_rgb: Sequence[NDArray[np.uint8]],
        searches: bool = False,
        settings: TopologicalSettings | None = None,
    ) -> None:
        """Take the stack, whose ``planner.proposals`` names the policy, and the nodes' images; the last is the goal.

        With ``searches`` the world model searches the path to the node's image, the policy's paths among what it tries;
        else the policy's first clear path is driven.

        Raises:
            ConfigError: ``planner.proposals`` is empty.
            CheckpointError: it names no policy.
        """
        self._stack, self._searches, self._proposer = stack, searches, Proposer(stack.settings.device)
        policy = self._proposer.policy(stack.settings.planner)
        if policy is None:
            raise ConfigError("following a map needs planner.proposals to name a gnm, vint or nomad")
        self._policy, self._localiser = policy, TopologicalLocaliser(policy, images_rgb, settings=settings)
        self._generator = torch.Generator().manual_seed(stack.settings.seed)
        self.located: Located | None = None

    @property
    def reached(self) -> bool:
        """Whether the nearest node is the goal."""
        return self.located is not None and self.located.reached

    def plan(self, now_s: float | None = None, clearance: Clearance | ClearanceFrom | None = None) -> Plan:
        """Return a path from the newest remembered frame to the next node; arguments as of ``NavStack.plan``."""
        stack, settings = self._stack, self._stack.settings
        goal = Goal(image_rgb=self._localiser.images_rgb[self._localiser.goal])
        refused = refusal(goal, stack.memory, 1, now_s, settings.max_sensor_age_s)
        if refused is not None:
            return replace(refused, dt_s=settings.planner.dt_s)
        seen = stack.memory.newest_frames(self._policy.frames)
        images, newest = [own.frame.rgb for own in seen], seen[-1]
        self.located = self._localiser.update(images)
        subgoal = self._localiser.images_rgb[self.located.subgoal]
        if self._searches:
            return stack.plan(Goal(image_rgb=subgoal), now_s, clearance)
        twist = stack.present_twist()
        paths = self._proposer.paths(images, subgoal, settings.planner, settings.robot, twist, self._generator)
        assert paths is not None  # there is a policy, and an image
        if clearance is not None and not isinstance(clearance, Clearance):
            clearance = clearance(newest.pose_odom_xyyaw)
        blank = Plan(PlanStatus.OK, newest.stamp_s, settings.planner.dt_s, np.zeros((0, 3)), newest.pose_odom_xyyaw)
        return clearest(paths, clearance, blank)
