"""A fake robot that moves: a built-in world behind the names, frames, encodings, QoS and rates of a real robot.

It takes commands as its base would, tells where it is on /tf where tf2_msgs is installed, and its sensors can be made
to fail while it runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import torch
from geometry_msgs.msg import Twist, TwistStamped
from numpy.typing import NDArray
from ros_driver import Driver, RobotFacts
from ros_harness import Bench
from rosgraph_msgs.msg import Clock

from come_nav.core.geometry import se2, se3
from come_nav.core.types import CameraIntrinsics, Odometry
from come_nav.ros import messages
from come_nav.ros.qos import COMMAND, SENSOR, STATIC_TRANSFORMS
from come_nav.ros.transforms import optional_module
from come_nav.sim.builtin import BuiltInSimulator
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.worlds import generate_world

BASE_TIMEOUT_S = 0.5  # of real time, after which the base stands still without a command
EPOCH_S = 1000.0  # where /clock begins
LOCALISER_PERIOD_S = 0.1
FAULTS = ("camera silent", "odometry silent", "image damaged", "odometry nan", "odometry anew")


def simulator_of(facts: RobotFacts, seed: int, noise_percent: float = 0.0) -> BuiltInSimulator:
    """Return a simulator in a built-in world with the robot's camera."""
    camera = CameraIntrinsics.from_field_of_view(*facts.size, float(np.radians(facts.fov_deg)))
    noise = OdometrySettings.from_percent(noise_percent) if noise_percent else None
    renderer = Raycaster([generate_world(seed)], camera, facts.height_m)
    return BuiltInSimulator(renderer, odometry_noise=noise, seed=seed)


def stand_with_space_ahead(simulator: BuiltInSimulator, ahead_m: float, clearance_m: float = 0.5) -> None:
    """Begin where nothing stands within ``clearance_m`` of the way straight ahead."""
    steps_m = np.linspace(0.0, ahead_m, 30)
    for _ in range(1000):
        simulator.reset()
        x, y, yaw = simulator.pose_world_xyyaw
        line = np.column_stack([x + steps_m * np.cos(yaw), y + steps_m * np.sin(yaw)])
        if bool(simulator.world.free(torch.from_numpy(line).float(), clearance_m).all()):
            return
    raise RuntimeError("no place of that world has so much space ahead")


class MovingRobot(Driver):
    """Drives as told.

    Attributes:
        simulator: world and truth.
        hits: steps that touched something.
        trace: real time (s of time.monotonic), true x, y, yaw and what nodes (no hand) command, v, w, each tick.
        pace: simulated seconds per second of a robot with /clock.
        by_hand: an operator's command v, w in the place of what comes on cmd_vel; None = nobody's hand.
        correct_every_s: how often the localiser corrects map -> odom, simulated s; 0 = there is no localiser.
    """

    def __init__(
        self,
        bench: Bench,
        facts: RobotFacts,
        simulator: BuiltInSimulator,
        clock: bool = False,
        correct_every_s: float = 0.0,
        frames: tuple[str, str] = ("odom", "base_link"),
    ) -> None:
        self.simulator, self.hits, self.pace, self.correct_every_s = simulator, 0, 1.0, correct_every_s
        self.by_hand: tuple[float, float] | None = None
        self.trace: list[tuple[float, ...]] = []
        self._until_s: dict[str, float] = {}  # fault -> real time of its end
        self._command, self._command_s = (0.0, 0.0), -np.inf
        self._T_now_old = np.zeros(3)  # where simulated odometry's frame lies in the frame that is told
        self._T_map_odom = None
        self._clock = bench.publisher(Clock, "/clock", SENSOR) if clock else None
        self._tf = self._transforms(bench, facts)
        topic, kind = f"{facts.space}/{facts.cmd_vel}", TwistStamped if facts.stamped else Twist
        bench.node.create_subscription(kind, topic, self._take, COMMAND)
        self._lock = threading.Lock()
        super().__init__(bench, facts, *frames)

    def fail(self, fault: str, duration_s: float) -> None:
        """Let a sensor fail for so long, real s; odometry begins anew at once."""
        if fault == "odometry anew":
            with self._lock:
                self._T_now_old = se2.inverse(self.simulator.odometry().pose_xyyaw)
        else:
            self._until_s[fault] = time.monotonic() + duration_s

    def failing(self, fault: str) -> bool:
        """Whether a sensor fails at present."""
        return time.monotonic() < self._until_s.get(fault, -np.inf)

    @property
    def pose(self) -> NDArray[np.float64]:
        """True pose (3,)."""
        return self.simulator.pose_world_xyyaw

    def _take(self, message: Twist | TwistStamped) -> None:
        twist = message.twist if self.facts.stamped else message
        self._command, self._command_s = (twist.linear.x, twist.angular.z), time.monotonic()

    def _now_s(self) -> float:
        return time.time() if self._clock is None else EPOCH_S + self.simulator.time_s

    def _run(self) -> None:
        facts, simulator = self.facts, self.simulator
        period_s, camera = 1.0 / facts.odometry_rate_hz, simulator.renderer.intrinsics
        next_image_s, next_localiser_s, corrected_s = 0.0, 0.0, -np.inf
        due_s = time.monotonic()
        while self._running:
            fresh = time.monotonic() - self._command_s < BASE_TIMEOUT_S
            own = self._command if fresh else (0.0, 0.0)
            self.hits += int(simulator.step(*(self.by_hand or own), period_s))
            self.trace.append((time.monotonic(), *self.pose.tolist(), *own))
            now_s = self._now_s()
            if self._clock is not None:
                self._clock.publish(Clock(clock=messages.stamp_from_seconds(now_s)))
            told = self._tell_odometry(now_s)
            if self.correct_every_s and simulator.time_s >= next_localiser_s:
                next_localiser_s = simulator.time_s + LOCALISER_PERIOD_S
                if simulator.time_s - corrected_s >= self.correct_every_s:
                    corrected_s = simulator.time_s
                    self._T_map_odom = se2.compose(self.pose, se2.inverse(told))
                self._transform(self._T_map_odom, now_s, ("map", self.odom_frame))
            if simulator.time_s >= next_image_s - 1e-9:
                next_image_s = simulator.time_s + 1.0 / facts.rate_hz
                self._see(now_s, camera)
            due_s = max(due_s + period_s / (1.0 if self._clock is None else self.pace), time.monotonic() - 0.2)
            time.sleep(max(1e-4, due_s - time.monotonic()))

    def _tell_odometry(self, now_s: float) -> NDArray[np.float64]:
        """Publish odometry and its transform; return its pose (3,)."""
        found = self.simulator.odometry()
        with self._lock:
            pose = se2.compose(self._T_now_old, found.pose_xyyaw)
        if self.failing("odometry silent"):
            return pose
        T = se3.transform_from_xyyaw(pose)
        message = messages.odometry_message(
            Odometry(now_s, T, found.v_mps, found.w_radps), (self.odom_frame, self.child)
        )
        if self.failing("odometry nan"):
            message.pose.pose.position.x = float("nan")
        self.odom.publish(message)
        self._transform(pose, now_s, (self.odom_frame, self.child))
        return pose

    def _see(self, now_s: float, camera: CameraIntrinsics) -> None:
        if self.failing("camera silent"):
            return
        frame = self.simulator.observe()[0]
        if self.info is not None:
            self.info.publish(messages.camera_info_message(camera, now_s, self.facts.frame))
        if self.failing("image damaged") and self.facts.encoding == "rgb8":
            message = messages.image_message(frame.rgb, now_s, self.facts.frame)
            message.data = message.data[: len(message.data) // 3]
            self.colour.publish(message)
            return
        self._look(frame.rgb, frame.depth_m, now_s)

    def _transforms(self, bench: Bench, facts: RobotFacts):
        """Return a publisher of transforms, where their type is installed; tell where the camera sits."""
        tf2_messages = optional_module("tf2_msgs.msg")
        if tf2_messages is None:
            return None
        static = bench.publisher(tf2_messages.TFMessage, f"{facts.space}/tf_static", STATIC_TRANSFORMS)
        T = self.simulator.observe()[0].T_base_camera
        static.publish(
            tf2_messages.TFMessage(transforms=[messages.transform_message(T, 0.0, ("base_link", facts.frame))])
        )
        moving = bench.publisher(tf2_messages.TFMessage, f"{facts.space}/tf", COMMAND)
        return lambda stamped: moving.publish(tf2_messages.TFMessage(transforms=[stamped]))

    def _transform(self, pose_xyyaw: NDArray[np.float64], now_s: float, frames: Sequence[str]) -> None:
        if self._tf is not None:
            self._tf(messages.transform_message(se3.transform_from_xyyaw(pose_xyyaw), now_s, tuple(frames)))
