"""The learned planner whose paths the search tries first, where one is set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.resources import find_resource
from come_nav.core.types import Proposals
from come_nav.navigation.device import choose_device
from come_nav.planning.proposals import drivable_paths
from come_nav.planning.settings import KinematicsSettings, PlannerSettings
from come_nav.policies.model import LearnedPolicy


class Proposer:
    """Loads the policy that the settings name, once, and asks it.

    Args:
        device: where it runs: auto, cpu, cuda or cuda:N.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._loaded: tuple[tuple[str, float | None], LearnedPolicy] | None = None

    def policy(self, config: PlannerSettings) -> LearnedPolicy | None:
        """Return the policy that ``planner.proposals`` names, None where it is empty.

        Raises:
            ConfigError, CheckpointError: it is not there, or holds no policy.
        """
        if not config.proposals:
            return None
        key = (config.proposals, config.proposal_spacing_m)
        if self._loaded is None or self._loaded[0] != key:
            folder, device = find_resource("models", config.proposals), choose_device(self._device)
            self._loaded = key, LearnedPolicy.load(folder, device, config.proposal_spacing_m)
        return self._loaded[1]

    def paths(
        self,
        images_rgb: Sequence[NDArray[np.uint8]],
        goal_rgb: NDArray[np.uint8] | None,
        config: PlannerSettings,
        robot: KinematicsSettings,
        twist: NDArray[np.float64] | None,
        generator: torch.Generator,
    ) -> NDArray[np.float64] | None:
        """Return drivable paths (S, T, 3) to the goal, or without one where it is None; None without a policy."""
        policy = self.policy(config)
        if policy is None or not images_rgb:
            return None
        found: Proposals = policy.propose(images_rgb, goal_rgb, config.proposed_paths, generator)
        return drivable_paths(found, config, robot, twist)


def suggestions(*paths_xyyaw: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Return all paths (S, T, 3) that there are together, None without any."""
    found = [paths for paths in paths_xyyaw if paths is not None and len(paths)]
    return np.concatenate(found) if found else None
