"""From waypoints to paths: headings where a policy predicts none, and metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se2

STILL = 0.02  # spacings; a shorter step tells no direction


def poses_of_waypoints(waypoints: NDArray[np.float64], spacing_m: float) -> NDArray[np.float64]:
    """Return poses (S, T, 3) of waypoints (S, T, 2 or 4) in spacings; the last two are cos and sin of the yaw.

    Without them, a pose heads along the chord between its neighbours, which is where an arc through the three points
    heads; the last one turns on as the last chord does. A robot that stands keeps its heading.
    """
    places = waypoints[..., :2]
    if waypoints.shape[-1] == 4:
        yaw = np.arctan2(waypoints[..., 3], waypoints[..., 2])
    else:
        yaw = np.stack([_headings(path) for path in places]) if len(places) else np.zeros(places.shape[:2])
    return np.concatenate([places * spacing_m, yaw[..., None]], axis=-1)


def _headings(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the heading (T,) at each waypoint (T, 2) of one path."""
    path = np.concatenate([np.zeros((1, 2)), places])
    before, after = path[1:] - path[:-1], np.concatenate([path[2:] - path[1:-1], np.zeros((1, 2))])
    headings = np.zeros(len(places))
    heading = 0.0
    for index, chord in enumerate(before + after):
        last = index == len(places) - 1
        step = before[index] if last else chord
        if np.hypot(*step) >= STILL and np.hypot(*before[index]) >= STILL:
            direction = np.arctan2(step[1], step[0])
            # the last chord points half a turn short of where its arc ends
            heading = direction + float(se2.wrap_angle(direction - heading)) if last else direction
        headings[index] = heading
    return se2.wrap_angle(headings)
