"""Drives the plan: follows the path within limits, and stands still whenever anything it relies on is missing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
from nav_msgs.msg import Odometry as OdometryMessage
from nav_msgs.msg import Path as PathMessage
from numpy.typing import NDArray
from std_msgs.msg import Bool

from come_nav.core.errors import DataError
from come_nav.core.geometry import se2
from come_nav.core.types import Odometry, PlanStatus
from come_nav.planning.follower import PathFollower
from come_nav.planning.retiming import retimed
from come_nav.planning.stall import StallDetector
from come_nav.ros import messages
from come_nav.ros.diagnostics import Latency, Level, Report
from come_nav.ros.inputs.odometry_frames import check_base, check_odometry_frame
from come_nav.ros.inputs.odometry_reset import ResetDetector
from come_nav.ros.node import ManagedNode
from come_nav.ros.parameters import Parameter, config_from, config_parameters
from come_nav.ros.qos import COMMAND, SENSOR

FUTURE_S = 1.0


def cmd_vel_report(node: ManagedNode, topic: str, stamped: bool) -> Report:
    """Compare the types of everybody on cmd_vel: two types on one topic, and the robot never moves."""
    own = "geometry_msgs/msg/" + ("TwistStamped" if stamped else "Twist")
    ends = [*node.get_subscriptions_info_by_topic(topic), *node.get_publishers_info_by_topic(topic)]
    others = sorted({f"{end.node_name} uses {end.topic_type}" for end in ends if end.topic_type != own})
    publishers = sum(end.topic_type == own for end in node.get_publishers_info_by_topic(topic))
    if others:
        text = f"two types on {topic}: this node publishes {own}, {', '.join(others)}; set cmd_vel_stamped"
        return Report("cmd_vel", Level.ERROR, text)
    if publishers > 1:
        return Report("cmd_vel", Level.WARN, f"{publishers} nodes publish on {topic}; remap one or use a multiplexer")
    return Report("cmd_vel", Level.OK, f"{own} on {topic}")


def follower_of(values: Mapping[str, Any]) -> PathFollower:
    """Return the follower that parameters describe."""
    config = config_from(values)
    return PathFollower(config.follower, config.robot)


def stall_detector_of(values: Mapping[str, Any]) -> StallDetector | None:
    """Return what notices that the robot is stuck; None where the parameters switch it off."""
    return StallDetector(values["stall_s"]) if values["stall_s"] > 0.0 else None


class ControllerNode(ManagedNode):
    """Turns plan and odometry into cmd_vel. Every reason to stand still is a word in the diagnostics."""

    PARAMETERS = (
        Parameter("rate_hz", 20.0, "commands per second, Hz", 1.0, 100.0, when="start"),
        Parameter("cmd_vel_stamped", False, "publish TwistStamped (Kilted's Nav2) instead of Twist", when="start"),
        Parameter("base_frame", "base_link", "frame of stamped commands"),
        Parameter("odom_frame", "odom", "frame that plans must be in"),
        Parameter("max_odometry_age_s", 0.5, "stand still without odometry for this long, s", 0.05, 10.0),
        Parameter("max_silence_s", 5.0, "stand still without a new plan for this long, s of real time", 0.2, 60.0),
        Parameter("stall_s", 1.0, "blocked: told to drive for so long without moving, s; 0 = do not look", 0.0, 60.0),
        Parameter("nominal_v_mps", 0.3, "speed on paths without times, m/s", 0.01, 5.0),
        *config_parameters("follower", "robot"),
    )

    def __init__(self, **keywords: Any) -> None:
        super().__init__("controller", **keywords)

    def setup(self) -> None:
        """Subscribe to plan, odometry and e-stop."""
        values = self.values
        self._follower = follower_of(self.values)
        self._odometry: Odometry | None = None
        self._e_stop, self._has_plan = False, False
        self._state = self._why_no_plan = "no plan"
        self._last_now_s = self._counts_from_s = float("-inf")  # plans from before do not count
        self._standing = False  # whether the base has been told to, so that others may have cmd_vel
        self._jumps = self._stalls = 0
        self._stall = stall_detector_of(self.values)
        self._latency, self._resets = Latency(), ResetDetector()
        kind = TwistStamped if values["cmd_vel_stamped"] else Twist
        self._commands = self.advertise(kind, "cmd_vel", COMMAND)
        self._blocked = self.advertise(PoseStamped, "blocked", COMMAND)
        self._odometry_stream = self.watch("odometry", "odom", values["max_odometry_age_s"])
        self._plan_stream = self.watch("plan", "plan", values["max_silence_s"], required=False)
        self.subscribe(OdometryMessage, "odom", self._take_odometry, SENSOR)
        self.subscribe(PathMessage, "plan", self._take_plan, COMMAND)
        self.subscribe(Bool, "e_stop", self._take_e_stop, COMMAND)
        self.every(1.0 / values["rate_hz"], self._tick)

    def start(self) -> None:
        """Begin standing still: plans from before do not count."""
        self._drop_plan("no plan")
        self._follower.stood(self.now_s())
        self._standing = False  # whoever drove before may have been killed

    def stop(self) -> None:
        """Stand still."""
        self._drop_plan("inactive")
        self._stand()

    def parameters_changed(self, names: set[str]) -> None:
        """Follow with new gains and limits from the next plan on."""
        if self.configured and any(name.startswith(("follower.", "robot.")) for name in names):
            self._follower = follower_of(self.values)
            self._follower.stood(self.now_s())
            self._drop_plan("parameters changed")
        if self.configured and "stall_s" in names:
            self._stall = stall_detector_of(self.values)
        if self.configured:
            self._odometry_stream.limit_s = self.values["max_odometry_age_s"]
            self._plan_stream.limit_s = self.values["max_silence_s"]

    def reports(self) -> Sequence[Report]:
        """Return what the robot does, and whether anybody expects another type on cmd_vel."""
        counts = {"clock_jumps": self._jumps, "stalls": self._stalls}
        values: dict[str, Any] = {**counts, **self._latency.values("odometry_latency")}
        level = Level.OK if self._state in ("driving", "no plan", "arrived") else Level.ERROR
        return [
            Report("control", level, self._state, values),
            cmd_vel_report(self, self._commands.topic_name, self.values["cmd_vel_stamped"]),
        ]

    def _take_odometry(self, message: OdometryMessage) -> None:
        steady_s = time.monotonic()
        delay_s = self.delay_s(message.header.stamp)
        try:
            check_odometry_frame(message, self.values["odom_frame"])
            check_base(message, self.values["base_frame"])
            self._odometry = messages.odometry_from_message(message)
        except DataError as error:
            self._odometry = None
            self._odometry_stream.failed(steady_s, str(error))
            return
        reset = self._resets.update(self._odometry)
        if reset is not None:
            self._drop_plan("odometry began anew")
            self._counts_from_s = self._odometry.stamp_s
            self.log.warning(f"{reset}; plans from before do not count")
        self._odometry_stream.received(steady_s, delay_s)
        self._latency.add(delay_s)

    def _take_plan(self, message: PathMessage) -> None:
        steady_s = time.monotonic()
        frame = message.header.frame_id.lstrip("/")
        if frame != self.values["odom_frame"].lstrip("/"):
            self._plan_stream.failed(steady_s, f"plan is in frame '{frame}', must be '{self.values['odom_frame']}'")
            self._drop_plan("plan in a wrong frame")
            return
        try:
            plan = messages.plan_from_path(message, self.values["nominal_v_mps"])
        except DataError as error:
            self._plan_stream.failed(steady_s, str(error))
            self._drop_plan("plan not finite")
            return
        self._plan_stream.received(steady_s, self.delay_s(message.header.stamp))
        if self._e_stop or plan.stamp_s < self._counts_from_s:
            return  # it does not know yet of the stop, or of what blocks the robot
        now_s, odometry = self.now_s(), self._odometry
        self._follower.set_plan(plan if odometry is None else retimed(plan, now_s, odometry.pose_xyyaw))
        self._has_plan = plan.status is PlanStatus.OK
        self._why_no_plan = "no plan"

    def _take_e_stop(self, message: Bool) -> None:
        if self._e_stop and not message.data:
            self._counts_from_s = self.now_s()
            self._why_no_plan = "no plan"  # given since
        self._e_stop = bool(message.data)
        if self._e_stop:
            self._drop_plan("e-stop")
            self._publish(0.0, 0.0)

    def _tick(self) -> None:
        if not self.active:
            return
        now_s, steady_s = self.now_s(), time.monotonic()
        if now_s < self._last_now_s - 1e-3:
            self._jumps += 1
            self._drop_plan("clock jumped back")
            self._odometry, self._counts_from_s = None, float("-inf")
        self._last_now_s = now_s
        hindrance = self._hindrance(now_s, steady_s)
        odometry = self._odometry
        if hindrance or odometry is None:
            self._state = hindrance or "no odometry"
            self._stand(again=self._e_stop)
            return
        v, vy, w = self._follower.command(now_s, odometry.pose_xyyaw)
        if self._stall is not None and self._stall.update(now_s, v, odometry.pose_xyyaw, vy):
            self._give_way(now_s, odometry.pose_xyyaw, self._stall.bearing_rad)
            return
        if self._follower.done:
            self._state = "arrived"
            self._stand()
            return
        self._state = "driving"
        self._publish(v, w, vy)

    def _give_way(self, now_s: float, pose_odom_xyyaw: NDArray[np.float64], bearing_rad: float) -> None:
        """Stop pushing, and tell where the robot stands and which way it could not go."""
        self._drop_plan("blocked: told to drive, but odometry stands still")
        self._stand()
        self._stalls, self._counts_from_s = self._stalls + 1, now_s
        facing = se2.compose(pose_odom_xyyaw, np.array([0.0, 0.0, bearing_rad]))
        self._blocked.publish(messages.pose_list(facing[None], [now_s], self.values["odom_frame"])[0])
        self.log.warning(f"blocked at ({facing[0]:.2f}, {facing[1]:.2f}) m", throttle_duration_sec=5.0)

    def _hindrance(self, now_s: float, steady_s: float) -> str:
        """Return why the robot must stand still, or an empty string."""
        odometry, limit_s = self._odometry, self.values["max_odometry_age_s"]
        if self._e_stop:
            return "e-stop"
        if odometry is None or not self._odometry_stream.alive(steady_s):
            return "no odometry"
        if not -FUTURE_S < now_s - odometry.stamp_s <= limit_s:
            return f"odometry is {now_s - odometry.stamp_s:.1f} s old"
        if not self._has_plan:
            return self._why_no_plan
        if not self._plan_stream.alive(steady_s):
            return "plan is stale"
        return ""

    def _drop_plan(self, why: str) -> None:
        self._follower.set_plan(messages.plan_from_path(PathMessage(), 1.0))
        self._has_plan = False
        self._why_no_plan = self._state = why
        if self._stall is not None:
            self._stall.clear()

    def _stand(self, again: bool = False) -> None:
        """Tell the base once to stand still, then leave cmd_vel to others; during an e-stop tell it ``again``.

        What was commanded before does not go on meanwhile: a robot that is told to stand is not blocked.
        """
        if self._stall is not None:
            self._stall.clear()
        self._follower.stood(self.now_s())
        if again or not self._standing:
            self._publish(0.0, 0.0)
        self._standing = True

    def _publish(self, v_mps: float, w_radps: float, vy_mps: float = 0.0) -> None:
        self._standing = False
        if self.values["cmd_vel_stamped"]:
            stamped = messages.stamped_twist_message(v_mps, w_radps, self.now_s(), self.values["base_frame"], vy_mps)
            self._commands.publish(stamped)
        else:
            self._commands.publish(messages.twist_message(v_mps, w_radps, vy_mps))
