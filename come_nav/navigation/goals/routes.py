"""Whole ways over everything that is known: obstacles that are seen and remembered, and where the robot drove."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2
from come_nav.navigation.goals.guide import resampled
from come_nav.navigation.goals.obstacles import ObstacleMap
from come_nav.navigation.goals.places import Places
from come_nav.navigation.memories.episode_memories import EpisodeMemories
from come_nav.planning.grid_route import Known, Route, grid_route

FAR_M = 1e4
DRIVEN_STEP_M = 0.3


class Routes:
    """Plans from one pose to another, farther than the search that drives the robot looks."""

    def __init__(self, places: Places, obstacles: ObstacleMap, episode: EpisodeMemories) -> None:
        """Take key frames, what is seen, and the memories of the episode, which may have a cloud."""
        self._places, self._obstacles, self._episode = places, obstacles, episode

    def known(self, here_odom_xyyaw: NDArray[np.float64], goal_odom_xyyaw: NDArray[np.float64]) -> Known:
        """Return what is known of the plane, in odom, on the way from one pose (3,) to another."""
        own = self._obstacles.settings
        points = self._obstacles.points_odom_xy if own.use else np.zeros((0, 2))
        space = self._episode.space
        if own.use and space is not None and space.is_dense and len(space.cloud):
            local = space.cloud.points_near(here_odom_xyyaw, FAR_M, (own.min_height_m, own.max_height_m))
            points = np.vstack([points, se2.transform_points(here_odom_xyyaw, local[:, :2].astype(np.float64))])
        way = self._places.way(here_odom_xyyaw, goal_odom_xyyaw)
        driven = np.zeros((0, 2)) if way is None or len(way) < 2 else resampled(way, DRIVEN_STEP_M)
        return Known(points, own.radius_m, own.margin_m, driven)

    def route(
        self,
        start_odom_xyyaw: NDArray[np.float64],
        goal_odom_xyyaw: NDArray[np.float64],
        tolerance_m: float = 0.0,
        leaves: bool = True,
    ) -> Route:
        """Return the cheapest way between two poses (3,) in odom; see :func:`grid_route`."""
        known = self.known(start_odom_xyyaw, goal_odom_xyyaw)
        return grid_route(known, start_odom_xyyaw, goal_odom_xyyaw, tolerance_m, leaves)
