"""What the robot ran into is kept away from, and it backs off before it plans anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from come_nav.core.geometry import se2
from come_nav.core.types import Imagination, PlanStatus
from come_nav.navigation.goals.obstacles import ObstacleMap, line_is_clear
from come_nav.navigation.goals.retreat import DISTANCE_M, Retreat
from come_nav.navigation.goals.settings import ObstacleSettings

HERE = np.array([1.0, 2.0, 0.5])


def ahead(distance_m: float, start=HERE) -> np.ndarray:
    return se2.compose(start, np.array([distance_m, 0.0, 0.0]))


def line(*distances_m: float) -> Imagination:
    return Imagination(torch.tensor([[[x, 0.0, 0.0] for x in distances_m]]))


def test_points_stay_where_they_were_measured():
    obstacles = ObstacleMap()
    cloud = np.array([[1.012, 2.049, 0.5], [1.04, 2.01, 0.6], [3.0, 0.0, 0.02], [3.0, 0.0, 2.0]], np.float32)
    obstacles.see(cloud)
    np.testing.assert_allclose(obstacles.points_odom_xy, [[1.012, 2.049]], atol=1e-6)  # one of a cell; floor, ceiling


def test_a_touched_place_is_not_approached_again_but_may_be_left():
    obstacles = ObstacleMap()
    assert obstacles.clearance(HERE) is None
    obstacles.touch(HERE, 10.0)
    clearance = obstacles.clearance(HERE)
    assert clearance is not None
    assert torch.isinf(clearance(line(0.05, 0.1))).all()
    assert torch.isfinite(clearance(line(-0.05, -0.1))).all()
    away = ahead(-0.3)
    assert not obstacles.clear(away[:2], ahead(0.3)[:2])
    assert obstacles.clear(away[:2], ahead(-1.0)[:2])
    assert obstacles.touched_count == 1


def test_touched_places_are_forgotten_in_time_and_on_demand():
    obstacles = ObstacleMap()
    obstacles.touch(HERE, 10.0)
    obstacles.expire(9.0 + ObstacleSettings().blocked_memory_s)
    assert len(obstacles.points_odom_xy) > 0
    obstacles.expire(11.0 + ObstacleSettings().blocked_memory_s)
    assert len(obstacles.points_odom_xy) == 0
    obstacles.touch(HERE, 10.0)
    obstacles.forget()
    assert len(obstacles.points_odom_xy) == 0


@pytest.mark.parametrize("turn", [0.0, np.pi])
def test_the_robot_backs_off_the_way_it_came(turn):
    obstacles, retreat = ObstacleMap(), Retreat()
    blocked = se2.compose(HERE, np.array([0.0, 0.0, turn]))  # pi: it drove backwards into something
    obstacles.touch(blocked, 10.0)
    retreat.request(10.0, blocked)
    plan = retreat.plan(9.98, HERE, obstacles.clear)
    assert plan is not None and plan.status is PlanStatus.OK
    assert plan.stamp_s == 10.0  # older plans do not count for a controller that was blocked at 10.0
    end = plan.poses_odom_xyyaw()[-1]
    np.testing.assert_allclose(end, se2.compose(blocked, np.array([-DISTANCE_M, 0.0, -turn])), atol=1e-9)
    clearance = obstacles.clearance(HERE)
    assert torch.isfinite(clearance(Imagination(torch.from_numpy(plan.poses_xyyaw[None])))).all()
    assert retreat.lasts(10.5, HERE)
    assert not retreat.lasts(10.5, end)
    assert not retreat.lasts(60.0, HERE) and not retreat.lasts(5.0, HERE)
    assert retreat.plan(10.5, HERE, obstacles.clear) is None


def test_no_way_back_no_retreat():
    retreat = Retreat()
    retreat.request(10.0, HERE)
    assert retreat.plan(10.0, HERE, lambda start, end: False) is None
    assert not retreat.lasts(10.1, HERE)
    retreat.request(10.0, HERE)
    retreat.cancel()
    assert retreat.plan(10.0, HERE, lambda start, end: True) is None


def test_a_line_is_clear_of_points_except_those_that_the_robot_touches_already():
    start, end = np.zeros(2), np.array([2.0, 0.0])
    for point, free in (([1.0, 0.3], True), ([1.0, 0.1], False), ([2.15, 0.0], False), ([-0.1, 0.05], True)):
        assert line_is_clear(np.array([point]), start, end, 0.2) is free
    assert line_is_clear(np.zeros((0, 2)), start, end, 0.2)
