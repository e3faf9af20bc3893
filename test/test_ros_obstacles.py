"""What the robot ran into is kept away from, and it backs off before it plans anew."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
from come_nav.core.geometry import se2
from come_nav.core.types import Imagination, PlanStatus
from come_nav.navigation.retreat import DISTANCE_M, Retreat
from come_nav.ros import messages
from come_nav.ros.obstacles import OBSTACLE_PARAMETERS, Obstacles

HERE = np.array([1.0, 2.0, 0.5])


class FakeNode:
    """As much of a node as obstacles ask for."""

    def __init__(self) -> None:
        self.values = {parameter.name: parameter.default for parameter in OBSTACLE_PARAMETERS} | {"odom_frame": "odom"}
        self.time_s = 10.0

    def watch(self, *facts, **more):
        return SimpleNamespace(failed=lambda *words: None, received=lambda *words: None)

    def now_s(self) -> float:
        return self.time_s


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


def ahead(distance_m: float, start=HERE) -> np.ndarray:
    return se2.compose(start, np.array([distance_m, 0.0, 0.0]))


def line(*distances_m: float) -> Imagination:
    return Imagination(torch.tensor([[[x, 0.0, 0.0] for x in distances_m]]))


def test_points_stay_where_they_were_measured(node):
    obstacles = Obstacles(node)
    cloud = np.array([[1.012, 2.049, 0.5], [1.04, 2.01, 0.6], [3.0, 0.0, 0.02], [3.0, 0.0, 2.0]], np.float32)
    obstacles.take(messages.cloud_message(cloud, None, 0.0, "odom"))
    np.testing.assert_allclose(obstacles.points_odom_xy, [[1.012, 2.049]], atol=1e-6)  # one of a cell; floor, ceiling


def test_a_touched_place_is_not_approached_again_but_may_be_left(node):
    obstacles = Obstacles(node)
    assert obstacles.clearance(HERE) is None
    obstacles.touch(HERE, node.now_s())
    clearance = obstacles.clearance(HERE)
    assert clearance is not None
    assert torch.isinf(clearance(line(0.05, 0.1))).all()
    assert torch.isfinite(clearance(line(-0.05, -0.1))).all()
    away = ahead(-0.3)
    assert not obstacles.clear(away[:2], ahead(0.3)[:2])
    assert obstacles.clear(away[:2], ahead(-1.0)[:2])
    assert obstacles.reports()[0].values["places_where_blocked"] == 1


def test_touched_places_are_forgotten_in_time_and_on_demand(node):
    obstacles = Obstacles(node)
    obstacles.touch(HERE, node.now_s())
    node.time_s += node.values["blocked_memory_s"] - 1.0
    assert len(obstacles.points_odom_xy) > 0
    node.time_s += 2.0
    assert len(obstacles.points_odom_xy) == 0
    obstacles.touch(HERE, node.now_s())
    obstacles.forget()
    assert len(obstacles.points_odom_xy) == 0


@pytest.mark.parametrize("turn", [0.0, np.pi])
def test_the_robot_backs_off_the_way_it_came(node, turn):
    obstacles, retreat = Obstacles(node), Retreat()
    blocked = se2.compose(HERE, np.array([0.0, 0.0, turn]))  # pi: it drove backwards into something
    obstacles.touch(blocked, node.now_s())
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


def test_no_way_back_no_retreat(node):
    retreat = Retreat()
    retreat.request(10.0, HERE)
    assert retreat.plan(10.0, HERE, lambda start, end: False) is None
    assert not retreat.lasts(10.1, HERE)
    retreat.request(10.0, HERE)
    retreat.cancel()
    assert retreat.plan(10.0, HERE, lambda start, end: True) is None
