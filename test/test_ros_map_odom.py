"""map -> odom of another localiser reaches what the nodes remember; it is published only where nobody else does.

The transforms come from a buffer that the tests fill: what tf2_ros or /tf would tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from ros_harness import private_environment
from std_srvs.srv import Trigger

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2, se3
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings
from come_nav.ros import map_odom, messages
from come_nav.ros.inputs.odometry_reset import OdometryReset, ResetAwareness
from come_nav.ros.map_odom import AHEAD_S, MapOdomFollower, MapOdomPublisher
from come_nav.ros.nodes.planner_node import PlannerNode
from come_nav.ros.nodes.spatial_memory_node import SpatialMemoryNode
from come_nav.ros.transforms import TransformBuffer
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.worlds import generate_world

FIRST, SECOND = np.array([3.0, -1.0, 0.7]), np.array([3.4, -1.1, 0.65])
GOAL_MAP = np.array([2.0, 1.0, 0.3])


def say(transforms: TransformBuffer, T_map_odom_xyyaw: np.ndarray, stamp_s: float, tilt: bool = False) -> None:
    T_map_odom = se3.transform_from_xyyaw(T_map_odom_xyyaw)
    T_map_odom[2, 3] = 0.2 if tilt else 0.0
    transforms.add("map", "odom", stamp_s, T_map_odom)


class FakeNode:
    """What the two classes use of a node."""

    def __init__(self, mode: str) -> None:
        self.values = {"map_frame": "map", "odom_frame": "odom", "map_odom": mode}
        self.sent: list = []
        self.errors: list[str] = []
        self.log = SimpleNamespace(error=self.errors.append)

    def advertise(self, kind, topic, qos):
        assert topic == "/tf"
        return SimpleNamespace(publish=self.sent.append)


# -- following -----------------------------------------------------------------------------------------------------


def test_changes_are_passed_on_once_and_again_after_a_reset():
    transforms, localisation = TransformBuffer(), RobotLocalisation(LocalisationSettings(use=False))
    follower = MapOdomFollower(FakeNode("follow"), transforms, localisation)
    assert not follower.update()
    assert follower.reports()[0].message == "tf does not tell map -> odom"
    say(transforms, FIRST, 1.0, tilt=True)  # a map of three dimensions: the planar part counts
    assert [follower.update(), follower.update()] == [True, False]
    np.testing.assert_allclose(localisation.outside_xyyaw, FIRST)
    say(transforms, FIRST + np.array([0.004, 0.0, 0.001]), 2.0)  # below what moves anything
    assert not follower.update()
    say(transforms, SECOND, 3.0)
    assert follower.update()
    np.testing.assert_allclose(localisation.outside_xyyaw, SECOND)
    localisation.reset()
    assert follower.update()
    assert follower.reports()[0].values["corrections"] == 3


def test_a_localiser_that_has_not_noticed_that_odometry_began_anew_is_not_followed():
    transforms, localisation = TransformBuffer(), RobotLocalisation(LocalisationSettings(use=False))
    resets = ResetAwareness()
    follower = MapOdomFollower(FakeNode("follow"), transforms, localisation, resets=resets)
    say(transforms, FIRST, 1.0)
    assert follower.update()
    T_before_after = np.array([2.0, 1.0, 0.8])
    for _ in range(2):  # twice before the localiser finds the robot
        localisation.rebase(T_before_after)  # as the nodes do
        resets.rebase(T_before_after)
        assert not follower.update()
    moved = se2.compose(se2.compose(FIRST, T_before_after), T_before_after)
    np.testing.assert_allclose(localisation.outside_xyyaw, moved)
    assert "before it began anew" in follower.reports()[0].message
    say(transforms, FIRST + np.array([0.1, 0.0, 0.02]), 2.0)  # it goes on about the odom before
    assert not follower.update()
    say(
        transforms, se2.compose(FIRST, T_before_after) + np.array([0.1, 0.1, 0.0]), 2.5
    )  # the first, but not the second
    assert not follower.update()
    noticed = se2.compose(se2.compose(FIRST, T_before_after), T_before_after) + np.array([0.05, -0.05, 0.02])
    say(transforms, noticed, 3.0)
    assert follower.update()
    np.testing.assert_allclose(localisation.outside_xyyaw, noticed)
    assert follower.reports()[0].message == "follows map -> odom"


def test_a_large_memory_is_not_moved_all_the_time(monkeypatch):
    clock = {"s": 100.0}
    monkeypatch.setattr(map_odom, "time", SimpleNamespace(monotonic=lambda: clock["s"]))
    transforms, localisation = TransformBuffer(), RobotLocalisation(LocalisationSettings(use=False))

    def slow(T_map_odom_xyyaw: np.ndarray) -> None:
        clock["s"] += 0.5
        localisation.correct(T_map_odom_xyyaw)

    follower = MapOdomFollower(FakeNode("follow"), transforms, localisation, slow)
    say(transforms, FIRST, 1.0)
    assert follower.update()
    say(transforms, SECOND, 2.0)
    clock["s"] += 4.4
    assert not follower.update()
    clock["s"] += 0.2
    assert follower.update()
    np.testing.assert_allclose(localisation.outside_xyyaw, SECOND)


def test_nothing_is_followed_unless_asked_to():
    transforms, localisation = TransformBuffer(), RobotLocalisation(LocalisationSettings(use=False))
    say(transforms, FIRST, 1.0)
    for mode in ("off", "publish"):
        follower = MapOdomFollower(FakeNode(mode), transforms, localisation)
        assert not follower.update()
        assert not follower.reports()
    assert localisation.outside_xyyaw is None


# -- publishing ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tf2(monkeypatch) -> None:
    monkeypatch.setattr(map_odom, "optional_module", lambda name: SimpleNamespace(TFMessage=SimpleNamespace))
    monkeypatch.setattr(map_odom, "LISTEN_S", 0.0)


def test_publishing_without_tf2_msgs_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(map_odom, "optional_module", lambda name: None)
    with pytest.raises(ConfigError, match=r"map_odom is 'publish', but tf2_msgs is not installed.*tf2-msgs"):
        MapOdomPublisher(FakeNode("publish"), TransformBuffer())
    assert not MapOdomPublisher(FakeNode("off"), TransformBuffer()).update(1.0, FIRST)


def test_what_is_published_is_map_to_odom_ahead_of_odometry(tf2):
    node, transforms = FakeNode("publish"), TransformBuffer()
    publisher = MapOdomPublisher(node, transforms)
    assert not publisher.update(None, FIRST), "no odometry yet"
    for stamp_s, pose in ((1.0, FIRST), (2.0, SECOND)):
        assert publisher.update(stamp_s, pose)
        say(transforms, pose, stamp_s)  # the node hears itself
    assert not publisher.update(2.0, SECOND), "tf2 has this stamp already"
    assert len(node.sent) == 2
    (stamped,) = node.sent[-1].transforms
    assert (stamped.header.frame_id, stamped.child_frame_id) == ("map", "odom")
    assert messages.seconds_from_stamp(stamped.header.stamp) == pytest.approx(2.0 + AHEAD_S)
    move, turn = stamped.transform.translation, stamped.transform.rotation
    T = messages.transform_from_parts(np.array([move.x, move.y, move.z]), np.array([turn.x, turn.y, turn.z, turn.w]))
    np.testing.assert_allclose(se3.xyyaw_from_transform(T), SECOND, atol=1e-9)
    assert not node.errors


@pytest.mark.parametrize("later", [False, True])
def test_publishing_ends_where_another_node_does_with_one_line(tf2, later: bool):
    node, transforms = FakeNode("publish"), TransformBuffer()
    publisher = MapOdomPublisher(node, transforms)
    if later:
        assert publisher.update(1.0, FIRST)
    say(transforms, SECOND, 1.0)
    sent = len(node.sent)
    assert not publisher.update(2.0, FIRST)
    assert not publisher.update(3.0, FIRST)
    assert len(node.sent) == sent
    (line,) = node.errors
    assert "another node publishes map -> odom already" in line and "'follow'" in line
    assert publisher.reports()[0].message == line


def test_others_are_listened_for_before_the_first_is_published(tf2, monkeypatch):
    monkeypatch.setattr(map_odom, "LISTEN_S", 60.0)
    node, transforms = FakeNode("publish"), TransformBuffer()
    publisher = MapOdomPublisher(node, transforms)
    assert not publisher.update(1.0, FIRST)
    assert not node.sent
    assert not node.errors


# -- in the nodes --------------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch) -> Iterator:
    for key, value in private_environment().items():
        monkeypatch.setenv(key, value)
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(kind, **values):
        overrides = [RosParameter(name, value=value) for name, value in values.items()]
        node = kind(context=context, parameter_overrides=overrides)
        nodes.append(node)
        assert node.on_configure(None) == TransitionCallbackReturn.SUCCESS
        node._camera.transforms = transforms = TransformBuffer()  # tf2_ros may be installed where this runs
        node._map_odom._transforms = transforms
        return node, transforms

    yield make
    for node in nodes:
        node.close()
        node.destroy_node()
    context.try_shutdown()


@pytest.fixture(scope="module")
def seen() -> tuple:
    simulator = BuiltInSimulator.in_world(generate_world(10001), seed=3)
    return simulator.observe()


def send(node, frame, odometry, stamp_s: float, forward_m: float = 0.0) -> None:
    camera, T = node._camera, odometry.T_odom_base.copy()
    T[0, 3] += forward_m
    camera._take_info(messages.camera_info_message(frame.intrinsics, stamp_s, "camera"))
    camera._take_image(messages.image_message(frame.rgb, stamp_s, "camera"))
    if hasattr(camera, "depth"):
        take_depth = camera._takes(camera.depth, camera._sync.add_depth)
        take_depth(messages.depth_message(frame.depth_m, stamp_s, "camera"))
    now = type(odometry)(stamp_s, T)
    node._take_odometry(messages.odometry_message(now, ("odom", "base_link")))


def test_the_spatial_memory_moves_and_is_saved_for_those_who_follow_it(made, seen, tmp_path):
    node, transforms = made(SpatialMemoryNode, map_odom="follow", memory_folder=str(tmp_path), save_period_s=0.5)
    for stamp_s in (1.0, 2.0):
        say(transforms, FIRST, stamp_s)
        node._map_odom._rests_until_s = 0.0
        send(node, *seen, stamp_s, forward_m=stamp_s)
        node._work()
    memory = node._memory
    assert memory.frames == 2
    before_map = memory.voxels.xyz.copy()
    say(transforms, SECOND, 3.0)
    node._due["save"] = node._map_odom._rests_until_s = 0.0
    node._work()
    np.testing.assert_allclose(memory.map_frame.T_map_odom_xyyaw, SECOND)
    assert len(before_map) != len(memory.voxels) or np.abs(memory.voxels.xyz - before_map).max() > 0.05
    saved = MemoryStore(tmp_path).load().cloud
    np.testing.assert_allclose(saved["T_map_odom_xyyaw"], SECOND)
    node._requests.append("reset")
    node._work()
    assert not len(memory)
    node._map_odom._rests_until_s = 0.0  # however long the correction took on this machine
    node._work()
    np.testing.assert_allclose(node._localisation.outside_xyyaw, SECOND)


def test_no_reset_of_odometry_is_lost_among_other_requests(made, seen, tmp_path):
    node, _ = made(SpatialMemoryNode, memory_folder=str(tmp_path), save_period_s=3600.0)
    send(node, *seen, 1.0)
    node._work()
    for T_before_after in (FIRST, SECOND):  # both before the worker comes to them
        node._camera.on_reset(OdometryReset(T_before_after, 3.0, 0.7))
    assert node._save_now(None, Trigger.Response()).success
    node._work()
    now = se2.compose(FIRST, SECOND)
    np.testing.assert_allclose(node._memory.map_frame.T_map_odom_xyyaw, now)
    np.testing.assert_allclose(MemoryStore(tmp_path).load().cloud["T_map_odom_xyyaw"], now)


def test_the_planner_moves_places_and_its_goal(made, seen):
    node, transforms = made(PlannerNode, map_odom="follow", device="cpu", **{"experts.use": [""]})
    say(transforms, FIRST, 1.0)
    node._watch()
    send(node, *seen, 1.0)
    node._watch()
    assert len(node._navigator.places) == 1
    place = node._navigator.places.keyframes.poses_xyyaw[0].copy()
    goal = messages.pose_list(GOAL_MAP[None], [1.0], "map")[0]
    assert isinstance(goal, PoseStamped)
    node._requests.post("pose", goal)
    node._requests.obey()
    navigator = node._navigator
    np.testing.assert_allclose(
        navigator.mission.goal.pose_odom_xyyaw, se2.compose(se2.inverse(FIRST), GOAL_MAP), atol=1e-9
    )
    say(transforms, SECOND, 2.0)
    node._watch()
    np.testing.assert_allclose(navigator.places.T_map_odom_xyyaw, SECOND)
    moved = se2.compose(se2.inverse(SECOND), se2.compose(FIRST, place))
    np.testing.assert_allclose(navigator.places.keyframes.poses_xyyaw[0], moved, atol=1e-9)
    navigator.step(99.0)
    np.testing.assert_allclose(
        navigator.mission.goal.pose_odom_xyyaw, se2.compose(se2.inverse(SECOND), GOAL_MAP), atol=1e-9
    )
    node._forget("forget")  # the clock jumped back: the localiser is heard anew
    node._watch()
    np.testing.assert_allclose(node._stack.localisation.outside_xyyaw, SECOND)
    np.testing.assert_allclose(navigator.places.keyframes.poses_xyyaw[0], moved, atol=1e-9)


def test_after_odometry_began_anew_goals_in_map_wait_for_a_localiser_that_knows(made, seen):
    node, transforms = made(PlannerNode, map_odom="follow", device="cpu", **{"experts.use": [""]})
    say(transforms, FIRST, 1.0)
    node._watch()
    send(node, *seen, 1.0)
    node._watch()
    navigator, goal = node._navigator, messages.pose_list(GOAL_MAP[None], [1.0], "map")[0]
    node._requests.post("pose", goal)
    node._requests.obey()
    place = navigator.places.keyframes.poses_xyyaw[0].copy()  # in odom
    send(node, *seen, 1.1, forward_m=-6.0)  # 7 m and more in 0.1 s: odometry began anew
    node._watch()
    T_map_odom = navigator.places.T_map_odom_xyyaw
    T_before_after = se2.compose(se2.inverse(FIRST), T_map_odom)
    assert np.hypot(*T_before_after[:2]) > 4.0
    goal_odom = se2.compose(se2.inverse(T_map_odom), GOAL_MAP)
    for _ in range(2):
        node._watch()
        navigator.step(99.0)
        np.testing.assert_allclose(navigator.mission.goal.pose_odom_xyyaw, goal_odom, atol=1e-6)
        moved = se2.compose(se2.inverse(T_before_after), place)
        np.testing.assert_allclose(navigator.places.keyframes.poses_xyyaw[0], moved, atol=1e-6)
    node._requests.post("pose", goal)
    node._requests.obey()
    assert "of the odometry before it began anew" in node._output.refused
    noticed = se2.compose(T_map_odom, np.array([0.1, 0.0, 0.02]))
    say(transforms, noticed, 2.0)
    node._watch()
    np.testing.assert_allclose(navigator.places.T_map_odom_xyyaw, noticed, atol=1e-9)
    node._requests.post("pose", goal)
    node._requests.obey()
    navigator.step(99.0)
    wanted = se2.compose(se2.inverse(noticed), GOAL_MAP)
    np.testing.assert_allclose(navigator.mission.goal.pose_odom_xyyaw, wanted, atol=1e-9)
