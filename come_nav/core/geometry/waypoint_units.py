"""NWM's units of actions: waypoint spacings, and the range that its networks are told them in.

A spacing is the mean distance between waypoints of a data set at 4 Hz. Forward -2.5 .. 5 and left -4 .. 4 spacings
become -1 .. 1, for all data sets alike; yaw stays in radians. So the normalised zero is NOT standing still: it is 1.25
spacings ahead, and standing still is (-1/3, 0).
"""

from __future__ import annotations

from come_nav.core.geometry.backend import ArrayT, stack_last

MIN_XY_SPACINGS = (-2.5, -4.0)
MAX_XY_SPACINGS = (5.0, 4.0)
WIDTH_XY_SPACINGS = (MAX_XY_SPACINGS[0] - MIN_XY_SPACINGS[0], MAX_XY_SPACINGS[1] - MIN_XY_SPACINGS[1])


def normalised_from_spacings(actions: ArrayT) -> ArrayT:
    """Map actions (..., 3), x and y in spacings and yaw in radians, to NWM's range."""
    x, y = (2.0 * (actions[..., axis] - MIN_XY_SPACINGS[axis]) / WIDTH_XY_SPACINGS[axis] - 1.0 for axis in (0, 1))
    return stack_last([x, y, actions[..., 2]])  # type: ignore[no-any-return]


def spacings_from_normalised(actions: ArrayT) -> ArrayT:
    """Map actions (..., 3) in NWM's range back to spacings and radians."""
    x, y = ((actions[..., axis] + 1.0) / 2.0 * WIDTH_XY_SPACINGS[axis] + MIN_XY_SPACINGS[axis] for axis in (0, 1))
    return stack_last([x, y, actions[..., 2]])  # type: ignore[no-any-return]
