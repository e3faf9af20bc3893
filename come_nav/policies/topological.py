"""Localisation in a topological map by predicted distance, and the next subgoal, as the authors' navigate.py does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range
from come_nav.core.errors import ConfigError
from come_nav.core.protocols import Policy


@dataclass(frozen=True)
class TopologicalSettings:
    """How nodes are chosen; the defaults are the authors'.

    Attributes:
        radius: nodes to either side of the last one that are looked at, >= 1.
        close_frames: a node that is nearer than this counts as passed, and the next one is the subgoal, frames, >= 0.
    """

    radius: int = 4
    close_frames: float = 3.0

    def __post_init__(self) -> None:
        check_range("topological.radius", self.radius, 1)
        check_range("topological.close_frames", self.close_frames, 0.0)


@dataclass(frozen=True)
class Located:
    """Where the robot is in a map.

    Attributes:
        node: nearest node.
        subgoal: node to head for.
        distances_frames: predicted distance of each node that was looked at, from ``first`` on.
        first: of them.
        reached: whether the nearest node is the goal.
    """

    node: int
    subgoal: int
    distances_frames: NDArray[np.float64]
    first: int
    reached: bool


class TopologicalLocaliser:
    """Follows the robot along the nodes of one map.

    Attributes:
        node: the nearest one at the last update; where to begin, before.
    """

    def __init__(
        self,
        policy: Policy,
        images_rgb: Sequence[NDArray[np.uint8]],
        goal: int = -1,
        settings: TopologicalSettings | None = None,
        start: int = 0,
    ) -> None:
        """Take the images of the nodes; ``goal`` is a node's number, -1 the last one.

        Raises:
            ConfigError: a goal or start that is no node.
        """
        count = len(images_rgb)
        if not -1 <= goal < count:
            raise ConfigError(f"the goal must be a node of 0 to {count - 1}, or -1 for the last, got {goal}")
        if not 0 <= start < count:
            raise ConfigError(f"the start must be a node of 0 to {count - 1}, got {start}")
        self.policy, self.images_rgb, self.settings = policy, images_rgb, settings or TopologicalSettings()
        self.goal, self.node = (count - 1 if goal == -1 else goal), start

    def update(self, context: Sequence[NDArray[np.uint8]]) -> Located:
        """Return where the newest of the ``context``'s images was taken, and which node is next."""
        first = max(self.node - self.settings.radius, 0)
        last = max(first, min(self.node + self.settings.radius + 1, self.goal))
        distances = self.policy.distances_frames(context, self.images_rgb[first : last + 1])
        nearest = int(np.argmin(distances))
        passed = distances[nearest] < self.settings.close_frames
        self.node = first + nearest
        subgoal = first + min(nearest + int(passed), len(distances) - 1)
        return Located(self.node, subgoal, distances, first, self.node == self.goal)
