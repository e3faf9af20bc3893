"""What goes wrong on a robot, live: it stands still when blind, diagnostics name the cause, and it recovers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'come_nav[ros]'")
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry as OdometryMessage
from ros_harness import Bench, Received
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Bool

from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Odometry
from come_nav.ros import messages
from come_nav.ros.qos import LATCHED, SENSOR

pytestmark = pytest.mark.slow
PLANNER = {
    "device": "cpu",
    "max_failures": 10000,
    "time_limit_s": 86000.0,
    "plan_rate_hz": 4.0,
    "use_places": False,
    "use_obstacles": False,
    "experts": {"use": ["spatial"]},
    "max_input_age_s": 1.5,
    "max_sensor_age_s": 3.0,
    "planner": {"initial_samples": 40, "samples": 20, "iterations": 2, "elites": 4},
}


TICK_S = 0.05


class FakeRobot:
    """A robot that obeys at once and publishes what a healthy one would, until a test breaks something."""

    def __init__(self, bench: Bench) -> None:
        make = bench.publisher
        self.clock, self.odom = make(Clock, "/clock", SENSOR), make(OdometryMessage, "odom", SENSOR)
        self.image, self.depth = make(Image, "camera/color/image_raw"), make(Image, "camera/depth/image_raw")
        self.info = make(CameraInfo, "camera/color/camera_info")
        self.rng = np.random.default_rng(0)
        self.commands: Received = bench.listen(Twist, "cmd_vel")
        self.pose, self.twist, self.origin = np.zeros(3), (0.0, 0.0), np.zeros(3)
        self.heal()
        self.time_s, self._running = 100.0, True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def heal(self) -> None:
        self.silent: set[str] = set()
        self.size, self.encoding, self.depth_m = 64, "rgb8", 2.0
        self.yaw_error_rad = 0.0

    def reset_odometry(self) -> None:
        self.origin = self.pose.copy()

    def close(self) -> None:
        self._running = False
        self._thread.join(5.0)

    def _run(self) -> None:
        tick = 0
        while self._running:
            self.time_s += TICK_S
            self._drive()
            self.clock.publish(Clock(clock=messages.stamp_from_seconds(self.time_s)))
            if "odom" not in self.silent:
                believed = np.add(se2.relative(self.origin, self.pose), (0.0, 0.0, self.yaw_error_rad))
                T = se3.transform_from_xyyaw(believed)
                odometry = Odometry(self.time_s, T, *self.twist)
                self.odom.publish(messages.odometry_message(odometry, ("odom", "base_link")))
            if tick % 4 == 0:
                self._look()
            tick += 1
            time.sleep(2 * TICK_S)  # half of real time, for loaded machines

    def _drive(self) -> None:
        if self.commands:
            last = self.commands[-1]
            self.twist = (last.linear.x, last.angular.z)
        moved = se2.integrate_twist(*map(np.asarray, self.twist), TICK_S)
        self.pose = se2.compose(self.pose, moved)

    def _look(self) -> None:
        size, stamp_s = self.size, self.time_s
        if "camera" not in self.silent:
            rgb = self.rng.integers(0, 255, (size, size, 3), np.uint8)
            message = messages.image_message(rgb, stamp_s, "camera")
            message.encoding = self.encoding
            self.image.publish(message)
        if "info" not in self.silent:
            camera = CameraIntrinsics.from_field_of_view(size, size, np.pi / 2)
            self.info.publish(messages.camera_info_message(camera, stamp_s, "camera"))
        depth = np.full((size, size), self.depth_m, np.float32)
        self.depth.publish(messages.depth_message(depth, stamp_s, "camera"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = Bench(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def robot(bench: Bench):
    made = FakeRobot(bench)
    yield made
    made.close()


@pytest.fixture(scope="module")
def nodes(bench: Bench, robot: FakeRobot):
    """Three nodes composed in one process, driving towards a far pose."""
    process = bench.start(
        "come_nav_nodes",
        {
            "/**": {"use_sim_time": True, "diagnostics_rate_hz": 5.0},
            "/planner": PLANNER,
            "/controller": {"max_odometry_age_s": 1.5, "max_silence_s": 10.0},
        },
        words=("spatial_memory", "planner", "controller"),
    )
    goal = bench.publisher(PoseStamped, "goal_pose")
    bench.wait("nodes", lambda: bench.said("planner", "node") == "active")
    bench.wait_for_context()
    bench.connected(goal).publish(far_goal())
    yield process
    assert process.alive()
    assert process.stop() == 0


def far_goal() -> PoseStamped:
    return messages.pose_list(np.array([[500.0, 0.0, 0.0]]), [0.0], "odom")[0]


def moves(command) -> bool:
    """Whether a command drives or turns: where to is the planner's business."""
    return abs(command.linear.x) + abs(command.angular.z) > 0.05


@pytest.fixture
def drive(bench: Bench, robot: FakeRobot, nodes):
    """The robot drives before and after each test."""

    def driving() -> bool:
        return robot.commands.newest(moves)

    bench.wait("driving", driving)
    yield bench
    robot.heal()
    bench.wait("driving again", driving)
    assert nodes.alive()


def stands(bench: Bench, robot: FakeRobot) -> None:
    """Wait until the robot stands, and see that it goes on standing; cmd_vel is then left to others."""
    commands = robot.commands

    def zero(message: Twist) -> bool:
        return message.linear.x == 0.0 and message.angular.z == 0.0

    bench.wait("standing", lambda: commands.newest(zero))
    bench.wait("control", lambda: bench.said("controller", "control") != "driving")
    del commands[:-1]
    now_s = robot.time_s
    bench.wait("two seconds", lambda: robot.time_s > now_s + 2.0)
    assert all(map(zero, commands))
    if "e-stop" not in bench.said("controller", "control"):
        assert len(commands) <= 2  # the last of before, and one of a controller that had something to say


def says(bench: Bench, node: str, entry: str, words: str) -> Callable[[], bool]:
    return lambda: words in bench.said(node, entry)


def test_camera_stops(drive: Bench, robot: FakeRobot):
    robot.silent = {"camera"}
    drive.wait("cause", says(drive, "planner", "camera", "nothing received on /camera/color/image_raw for"))
    drive.wait("status", says(drive, "planner", "mission", "STALE_SENSOR"))
    stands(drive, robot)


def test_odometry_stops(drive: Bench, robot: FakeRobot):
    robot.silent = {"odom"}
    drive.wait("cause", says(drive, "controller", "odometry", "nothing received on /odom for"))
    drive.wait("reason", says(drive, "controller", "control", "no odometry"))
    stands(drive, robot)


def test_odometry_is_not_a_number(drive: Bench, robot: FakeRobot):
    robot.yaw_error_rad = float("nan")
    drive.wait("cause", says(drive, "controller", "odometry", "a pose holds NaN"))
    stands(drive, robot)


def test_clock_jumps_back_and_forth(drive: Bench, robot: FakeRobot):
    jumps = int(drive.told("controller", "control").get("clock_jumps", 0))
    robot.time_s -= 50.0
    drive.wait("notice", lambda: int(drive.told("controller", "control").get("clock_jumps", 0)) > jumps)
    drive.wait("driving", lambda: robot.commands.newest(moves))
    robot.time_s += 80.0
    drive.wait("a gap in memory", lambda: int(drive.told("planner", "memory").get("resets: gap", 0)) > 0)


def test_odometry_begins_anew(drive: Bench, robot: FakeRobot, nodes):
    """As a driver's reset_pose does: what is remembered stays where it is in the world."""
    drive.wait("some way", lambda: np.hypot(*se2.relative(robot.origin, robot.pose)[:2]) > 2.0)
    points = int(drive.told("spatial_memory", "memory")["points"])
    places = int(drive.told("planner", "memory")["places"])
    robot.reset_odometry()
    drive.wait("notice", lambda: "it began anew; memory and goal are moved to the new odom" in nodes.log())
    drive.wait("notice of the cloud", lambda: nodes.log().count("memory and goal are moved to the new odom") == 2)
    drive.wait("notice of the controller", lambda: "it began anew; plans from before do not count" in nodes.log())
    drive.wait("driving on", lambda: np.hypot(*se2.relative(robot.origin, robot.pose)[:2]) > 0.5)
    drive.wait("a report", lambda: int(drive.told("planner", "memory")["places"]) >= places)
    assert int(drive.told("spatial_memory", "memory")["points"]) > 0.5 * points
    assert drive.told("planner", "mission")["state"] == "ACTIVE"


def test_camera_stops_as_odometry_begins_anew(drive: Bench, robot: FakeRobot):
    """No frame of the new odometry has come: the robot waits for one, longer than it has patience with itself."""
    drive.wait("some way", lambda: np.hypot(*se2.relative(robot.origin, robot.pose)[:2]) > 2.0)  # a jump that shows
    robot.silent = {"camera"}
    robot.reset_odometry()
    drive.wait("status", says(drive, "planner", "mission", "NO_CONTEXT"))
    blind_s = robot.time_s
    stands(drive, robot)
    drive.wait("a while", lambda: robot.time_s > blind_s + 12.0)  # progress_patience_s is 10
    assert drive.told("planner", "mission")["activity"] == "DRIVING"


def test_colour_has_an_unknown_encoding(drive: Bench, robot: FakeRobot):
    robot.encoding = "banana8"
    drive.wait("cause", says(drive, "planner", "camera", "image encoding 'banana8' is not supported"))
    drive.wait("status", says(drive, "planner", "mission", "STALE_SENSOR"))  # a plan of before may still come
    stands(drive, robot)


def test_depth_is_unknown_everywhere(drive: Bench, robot: FakeRobot):
    robot.depth_m = float("nan")
    drive.wait("cause", says(drive, "spatial_memory", "memory", "not remembered: no_points"))
    robot.heal()
    drive.wait("recovery", says(drive, "spatial_memory", "memory", " points"))


def test_calibration_is_missing(drive: Bench, robot: FakeRobot):
    robot.silent = {"info"}
    drive.wait(
        "cause", says(drive, "spatial_memory", "calibration", "nothing received on /camera/color/camera_info for")
    )


def test_resolution_changes(drive: Bench, robot: FakeRobot):
    kept = int(drive.told("planner", "memory")["frames kept"])  # there since the nodes had a context
    robot.size = 96
    drive.wait("frames", lambda: int(drive.told("planner", "memory")["frames kept"]) > kept + 8)


def test_emergency_stop(drive: Bench, robot: FakeRobot):
    stop = drive.connected(drive.publisher(Bool, "e_stop"))
    stop.publish(Bool(data=True))
    stands(drive, robot)
    drive.wait("cause", lambda: drive.said("controller", "control") == "e-stop")
    drive.wait("the end of the mission", lambda: drive.told("planner", "mission")["state"] == "CANCELLED")
    goal = drive.connected(drive.publisher(PoseStamped, "goal_pose"))
    goal.publish(far_goal())
    drive.wait("a refusal", says(drive, "planner", "goal", "release it, then give a goal anew"))
    stop.publish(Bool(data=False))
    drive.wait("the release", lambda: drive.said("controller", "control") == "no plan")
    stands(drive, robot)  # until somebody commands anew
    goal.publish(far_goal())


def test_goal_image_of_another_size_and_of_no_image(drive: Bench, robot: FakeRobot):
    send = drive.connected(drive.publisher(Image, "goal_image"))
    odd = messages.image_message(np.zeros((48, 120, 3), np.uint8), 0.0, "camera")
    odd.encoding = "banana8"
    send.publish(odd)  # refused: the mission before goes on
    drive.wait("cause", says(drive, "planner", "goal", "image encoding 'banana8' is not supported"))
    status = drive.listen(DiagnosticStatus, "navigation_status", LATCHED)  # what came before is told to who comes late
    drive.wait("the refusal", lambda: status.newest(lambda last: "goal refused: image encoding" in last.message))
    assert drive.told("planner", "mission")["state"] == "ACTIVE"
    send.publish(messages.image_message(np.zeros((48, 120, 3), np.uint8), 0.0, "camera"))
    drive.wait("a plan for the image", lambda: drive.told("planner", "mission").get("difference"))
    goal = drive.connected(drive.publisher(PoseStamped, "goal_pose"))
    goal.publish(far_goal())


def test_somebody_expects_another_type_of_command(drive: Bench, robot: FakeRobot):
    context = rclpy.Context()  # one DDS participant cannot hold two types on one topic, two can
    rclpy.init(context=context)
    base = rclpy.create_node("base", context=context)
    base.create_subscription(TwistStamped, "cmd_vel", lambda message: None, 10)
    drive.wait("report", says(drive, "controller", "cmd_vel", "base uses geometry_msgs/msg/TwistStamped"))
    base.destroy_node()
    context.try_shutdown()
    drive.wait("recovery", says(drive, "controller", "cmd_vel", "geometry_msgs/msg/Twist on"))


def test_disk_is_full(drive: Bench, robot: FakeRobot):
    """A limit on the size of files stands for a full disk: writing fails in the middle of a version."""
    folder = drive.folder / "full"
    process = drive.start(
        "spatial_memory",
        {"use_sim_time": True, "memory_folder": str(folder), "save_period_s": 0.5, "diagnostics_rate_hz": 5.0},
        largest_file_kb=20,
        __ns="/full",
        **{f"/full/{name}": f"/{name}" for name in ("camera/color/image_raw", "camera/color/camera_info", "odom")},
        **{"/full/camera/depth/image_raw": "/camera/depth/image_raw"},
    )
    drive.wait("cause", says(drive, "full/spatial_memory", "memory", str(folder)))
    assert process.alive()
    assert not [path for path in folder.glob("v*") if path.is_dir()]
    process.stop()
