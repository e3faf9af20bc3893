"""A simulated robot with the topics of a real one: camera, depth, calibration, odometry, clock and cmd_vel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry as OdometryMessage
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Int32

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se3
from come_nav.core.protocols import Simulator
from come_nav.core.types import CameraIntrinsics, Odometry
from come_nav.ros import messages
from come_nav.ros.diagnostics import Level, Report
from come_nav.ros.node import ManagedNode
from come_nav.ros.parameters import Parameter
from come_nav.ros.qos import COMMAND, SENSOR
from come_nav.ros.transforms import optional_module
from come_nav.ros.worker import Worker
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.sensors.settings import DEFAULT_SENSORS, PRESETS, sensor_settings
from come_nav.sim.world_sets import BUILT_IN, WORLD_SETS, world_set

BACKENDS = ("builtin", "habitat")


class SimulatorNode(ManagedNode):
    """Steps a simulator in real time (or slower, or faster) and publishes what its robot senses."""

    PARAMETERS = (
        Parameter("backend", "builtin", "which simulator", choices=BACKENDS, when="start"),
        Parameter("world_seed", 20000, "built-in world; 20000-20099 are the test worlds", 0, 99999, when="start"),
        Parameter(
            "set_of_worlds",
            BUILT_IN,
            "how the built-in world is drawn; photographed and furnished ones need come-nav assets collect",
            choices=tuple(WORLD_SETS),
            when="start",
        ),
        Parameter("scene", "", "habitat: path of the scene file", when="start"),
        Parameter("habitat_python", "python3", "habitat: the Python that has habitat-sim", when="start"),
        Parameter("seed", 0, "of start pose and noise", 0, 2**31 - 1, when="start"),
        Parameter(
            "start_pose", [float("nan")] * 3, "x m, y m, yaw rad in the world; NaN = a random free pose", when="start"
        ),
        Parameter("image_width", 320, "camera columns, px", 8, 4096, when="start"),
        Parameter("image_height", 240, "camera rows, px", 8, 4096, when="start"),
        Parameter("horizontal_fov_deg", 106.26, "camera's width of view, degrees", 10.0, 170.0, when="start"),
        Parameter(
            "sensors",
            DEFAULT_SENSORS,
            "errors of the built-in robot's sensors; realistic: the seed draws the camera, too",
            choices=tuple(PRESETS),
            when="start",
        ),
        Parameter(
            "odometry_noise_percent",
            0.0,
            "errors of wheel odometry, percent; 0 = those of the sensors",
            0.0,
            50.0,
            when="start",
        ),
        Parameter(
            "odometry_rate_hz", 20.0, "odometry, clock and physics, Hz of simulated time", 1.0, 200.0, when="start"
        ),
        Parameter("camera_rate_hz", 8.0, "camera, Hz of simulated time", 0.1, 60.0, when="start"),
        Parameter("real_time_factor", 1.0, "simulated seconds per second", 0.01, 100.0),
        Parameter("publish_clock", False, "publish /clock and stamp with simulated time", when="start"),
        Parameter("publish_depth", True, "publish depth images"),
        Parameter("depth_encoding", "32FC1", "of depth images", choices=("32FC1", "16UC1")),
        Parameter("cmd_vel_stamped", False, "cmd_vel is a TwistStamped (Twist otherwise)", when="start"),
        Parameter("cmd_vel_timeout_s", 0.5, "stand still without a command for this long, s", 0.05, 10.0),
        Parameter("odom_frame", "odom", "parent frame of odometry", when="start"),
        Parameter("base_frame", "base_link", "frame of the robot", when="start"),
        Parameter("camera_frame", "camera_color_optical_frame", "optical frame of the camera", when="start"),
    )

    def __init__(self, **keywords: Any) -> None:
        super().__init__("simulator", **keywords)
        self._worker = Worker("simulator", self._tick, lambda error: self.diagnose(error, "step"))
        self._simulator: Simulator | None = None
        self._command = (0.0, 0.0)
        self._command_steady_s = float("-inf")

    def setup(self) -> None:
        """Build the world and its robot."""
        self._simulator = make_simulator(self.values)
        make = self.advertise
        self._image = make(Image, "camera/color/image_raw", SENSOR)
        self._depth = make(Image, "camera/depth/image_raw", SENSOR)
        self._info = make(CameraInfo, "camera/color/camera_info", SENSOR)
        self._odom = make(OdometryMessage, "odom", COMMAND)
        self._truth = make(OdometryMessage, "ground_truth/odom", COMMAND)
        self._collisions = make(Int32, "collisions", COMMAND)
        self._clock_out = make(Clock, "/clock", SENSOR) if self.values["publish_clock"] else None
        self._transforms = self._transform_publisher()
        kind = TwistStamped if self.values["cmd_vel_stamped"] else Twist
        self._commands = self.watch("cmd_vel", "cmd_vel", self.values["cmd_vel_timeout_s"], required=False)
        self.subscribe(kind, "cmd_vel", self._take_command, COMMAND)
        self._ticks, self._hits, self._next_camera_s = 0, 0, 0.0
        self._newest_frame_s = float("-inf")

    def start(self) -> None:
        """Let time run."""
        self._due_s = time.monotonic()
        self._worker.start()

    def stop(self) -> None:
        """Stop time."""
        self._worker.stop()

    def teardown(self) -> None:
        """End the simulator's process, where it has one."""
        close = getattr(self._simulator, "close", None)
        if close is not None:
            close()
        self._simulator = None

    def reports(self) -> Sequence[Report]:
        """Return the robot's state."""
        simulator = self._simulator
        if simulator is None:
            return ()
        x, y, yaw = simulator.pose_world_xyyaw
        values = {"time_s": simulator.time_s, "x_m": x, "y_m": y, "yaw_rad": yaw, "collisions": self._hits}
        return [Report("robot", Level.OK, "running", values)]

    def _take_command(self, message: Any) -> None:
        twist = message.twist if self.values["cmd_vel_stamped"] else message
        v, w = float(twist.linear.x), float(twist.angular.z)
        if not np.isfinite([v, w]).all():
            raise ConfigError(f"cmd_vel must be finite, got ({v}, {w}); the robot keeps its last command")
        self._command, self._command_steady_s = (v, w), time.monotonic()
        self._commands.received(self._command_steady_s)

    def _tick(self) -> float:
        """Advance one step and publish; return the real time until the next."""
        simulator = self._simulator
        if simulator is None:
            return 1.0
        period_s = 1.0 / self.values["odometry_rate_hz"]
        fresh = time.monotonic() - self._command_steady_s < self.values["cmd_vel_timeout_s"]
        v, w = self._command if fresh else (0.0, 0.0)
        self._hits += int(simulator.step(v, w, period_s))
        self._publish(simulator)
        self._due_s = max(self._due_s + period_s / self.values["real_time_factor"], time.monotonic() - 0.2)
        return max(1e-4, self._due_s - time.monotonic())

    def _publish(self, simulator: Simulator) -> None:
        values = self.values
        stamp_s = 1.0 + simulator.time_s if self._clock_out is not None else self.now_s()
        if self._clock_out is not None:
            self._clock_out.publish(Clock(clock=messages.stamp_from_seconds(stamp_s)))
        frames = (values["odom_frame"], values["base_frame"])
        due = simulator.time_s >= self._next_camera_s - 1e-9
        if due:
            self._next_camera_s = simulator.time_s + 1.0 / values["camera_rate_hz"]
        frame = simulator.observe()[0] if due else None
        believed = odometry_of(simulator)
        odometry = Odometry(stamp_s, believed.T_odom_base, believed.v_mps, believed.w_radps)
        self._odom.publish(messages.odometry_message(odometry, frames))
        truth = Odometry(stamp_s, se3.transform_from_xyyaw(simulator.pose_world_xyyaw))
        self._truth.publish(messages.odometry_message(truth, ("world", values["base_frame"])))
        if self._transforms is not None:
            self._transforms(messages.transform_message(odometry.T_odom_base, stamp_s, frames))
        if frame is None:
            return
        self._collisions.publish(Int32(data=self._hits))
        if frame.stamp_s <= self._newest_frame_s:  # the next one was lost
            return
        self._newest_frame_s = frame.stamp_s
        stamp_s -= simulator.time_s - frame.stamp_s  # it may have been taken a little earlier
        optical = values["camera_frame"]
        self._image.publish(messages.image_message(frame.rgb, stamp_s, optical))
        if frame.intrinsics is not None:
            self._info.publish(messages.camera_info_message(frame.intrinsics, stamp_s, optical))
        if frame.depth_m is not None and values["publish_depth"]:
            self._depth.publish(messages.depth_message(frame.depth_m, stamp_s, optical, values["depth_encoding"]))

    def _transform_publisher(self) -> Any | None:
        """Return a function that publishes one transform, where the message type exists."""
        tf2_messages = optional_module("tf2_msgs.msg")
        if tf2_messages is None:
            return None
        publisher = self.advertise(tf2_messages.TFMessage, "/tf", COMMAND)
        return lambda stamped: publisher.publish(tf2_messages.TFMessage(transforms=[stamped]))


def odometry_of(simulator: Simulator) -> Odometry:
    """Return what odometry believes, without rendering where the simulator can."""
    odometry = getattr(simulator, "odometry", None)
    found: Odometry = odometry() if odometry is not None else simulator.observe()[1]
    return found


def make_simulator(values: dict[str, Any]) -> Simulator:
    """Return the simulator that the parameters describe; raise ConfigError for what it cannot be."""
    size = (values["image_width"], values["image_height"])
    camera = CameraIntrinsics.from_field_of_view(*size, float(np.radians(values["horizontal_fov_deg"])))
    sensors = sensor_settings(values["sensors"])
    pose = np.array(values["start_pose"], float)
    if pose.shape != (3,):
        raise ConfigError(f"start_pose must be x, y, yaw, got {values['start_pose']}")
    start = pose if np.isfinite(pose).all() else None
    percent = values["odometry_noise_percent"]
    noise = OdometrySettings.from_percent(percent) if percent > 0 else None
    if values["backend"] == "habitat":
        from come_nav.sim.habitat.simulator import HabitatSimulator

        if values["sensors"] != "ideal":
            raise ConfigError(f"sensors: {values['sensors']} is of the backend builtin; set sensors: ideal for habitat")

        simulator: Simulator = HabitatSimulator(
            values["scene"], camera, python=values["habitat_python"], seed=values["seed"], odometry_noise=noise
        )
    else:
        from come_nav.sim.builtin import BuiltInSimulator
        from come_nav.sim.worlds import generate_world

        simulator = BuiltInSimulator.in_world(
            generate_world(values["world_seed"], world_set(values["set_of_worlds"])),
            None if sensors.camera.hfov_deg[1] else camera,
            odometry_noise=noise,
            seed=values["seed"],
            sensors=sensors,
            size_px=size,
        )
    if start is not None:
        simulator.reset(start)
    return simulator
