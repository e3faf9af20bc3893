"""Whole paths on a grid: lengths known in closed form, walls with and without a door, ends that are occupied."""

from __future__ import annotations

import numpy as np
import pytest

from come_nav.planning.grid_route import Known, RouteStatus, grid_route, occupied

NOTHING = np.zeros((0, 2))
START, GOAL = np.array([0.0, 0.0, 0.3]), np.array([4.0, 0.0, -1.0])


def wall(x: float, low: float, high: float) -> np.ndarray:
    y = np.arange(low, high + 1e-9, 0.05)
    return np.column_stack([np.full(len(y), x), y])


def box(half: float) -> np.ndarray:
    side = wall(half, -half, half)
    return np.vstack([side, -side, side[:, ::-1], -side[:, ::-1]])


def length_m(path: np.ndarray) -> float:
    return float(np.hypot(*np.diff(path[:, :2], axis=0).T).sum())


def test_a_free_plane_is_crossed_straight():
    route = grid_route(Known(NOTHING, 0.25), START, GOAL)
    assert route.status is RouteStatus.OK
    np.testing.assert_allclose(route.path_xyyaw[[0, -1]], [START, GOAL], atol=1e-9)
    assert length_m(route.path_xyyaw) == pytest.approx(4.0, abs=1e-3)
    np.testing.assert_allclose(route.path_xyyaw[1:-1, 2], 0.0, atol=1e-6)  # looking along it


def test_a_wall_is_passed_round_its_end_at_the_robots_radius():
    known = Known(wall(2.0, -5.0, 1.0), 0.25, 0.2)
    route = grid_route(known, START, GOAL)
    gap_m = np.linalg.norm(route.path_xyyaw[:, None, :2] - known.points_xy[None], axis=-1)
    assert gap_m.min() >= 0.25
    shortest_m = 2 * np.hypot(2.0, 1.25)
    assert shortest_m - 0.1 < length_m(route.path_xyyaw) < shortest_m + 0.5


def test_ways_that_were_driven_are_preferred_to_what_nobody_has_seen():
    way = np.array([[x, 0.5 * np.sin(np.pi * x / 4.0)] for x in np.arange(0.0, 4.01, 0.1)])
    along = grid_route(Known(NOTHING, 0.25, driven_xy=way), START, GOAL).path_xyyaw
    assert along[:, 1].max() > 0.1
    detour = np.vstack([wall(0.0, 0.0, 8.0), wall(4.0, 0.0, 8.0)])  # not to any price
    assert np.abs(grid_route(Known(NOTHING, 0.25, driven_xy=detour), START, GOAL).path_xyyaw[:, 1]).max() < 0.2


@pytest.mark.parametrize(("door_m", "found"), [(0.9, True), (0.3, False)])
def test_a_closed_room_has_no_way_out_and_one_with_a_door_has(door_m, found):
    points = box(2.0)
    points = points[~((points[:, 0] > 1.9) & (np.abs(points[:, 1] - 1.0) < door_m / 2))]
    route = grid_route(Known(points, 0.25, 0.2), START, GOAL)
    assert (route.status is RouteStatus.OK) is found
    if not found:
        assert route.status is RouteStatus.NO_ROUTE and "no way" in route.message
        assert len(route.path_xyyaw) == 0


def test_an_occupied_goal_is_refused_unless_a_place_within_the_tolerance_is_free():
    known = Known(wall(4.1, -2.0, 2.0), 0.25)
    assert occupied(known, GOAL[:2]) and not occupied(known, GOAL[:2], 0.25)
    assert grid_route(known, START, GOAL).status is RouteStatus.GOAL_OCCUPIED
    near = grid_route(known, START, GOAL, tolerance_m=0.25)
    assert near.status is RouteStatus.OK
    assert 0.1 < np.hypot(*(near.path_xyyaw[-1] - GOAL)[:2]) <= 0.25


@pytest.mark.parametrize("tolerance_m", [0.0, 0.5])
def test_a_free_goal_close_to_a_wall_is_reached_wherever_its_cell_lies(tolerance_m):
    for step in range(40):
        clear_m, x = 0.001 + 0.0007 * step, 2.0 + 0.00125 * step
        route = grid_route(
            Known(wall(x, -3.0, 3.0), 0.25), START, np.array([x - 0.25 - clear_m, 0.4, 0.0]), tolerance_m
        )
        assert route.status is RouteStatus.OK, (step, route.message)
        gap_m = np.linalg.norm(route.path_xyyaw[:, None, :2] - wall(x, -3.0, 3.0)[None], axis=-1)
        assert gap_m.min() >= 0.25 - 1e-9
        behind = np.array([x + 0.25 + clear_m, 0.4, 0.0])
        closed = np.vstack([wall(x, -3.0, 3.0), box(3.0) + START[:2]])
        assert grid_route(Known(closed, 0.25), START, behind, tolerance_m).status is RouteStatus.NO_ROUTE


def test_a_start_that_touches_something_may_be_left_by_the_robot_but_is_no_start_for_others():
    known = Known(wall(-0.2, -2.0, 2.0), 0.25)
    assert grid_route(known, START, GOAL).status is RouteStatus.OK
    assert grid_route(known, START, GOAL, leaves=False).status is RouteStatus.START_OCCUPIED


def test_what_a_grid_cannot_hold_is_refused_and_a_large_one_takes_seconds():
    assert grid_route(Known(NOTHING, 0.25), START, np.array([5000.0, 0.0, 0.0])).status is RouteStatus.TOO_FAR
    far = grid_route(Known(wall(20.0, -20.0, 20.0), 0.25), START, np.array([40.0, 0.0, 0.0]))
    assert far.status is RouteStatus.OK
