"""map -> odom (REP-105), taken from another localiser or published for others; never odom -> base_link."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2, se3
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.ros import messages
from come_nav.ros.diagnostics import Level, Report
from come_nav.ros.inputs.odometry_reset import ResetAwareness
from come_nav.ros.parameters import Parameter
from come_nav.ros.qos import COMMAND
from come_nav.ros.transforms import Transforms, optional_module

FOLLOW, PUBLISH, OFF = "follow", "publish", "off"
MAP_FRAME = Parameter("map_frame", "map", "frame of the map that map_odom is about", when="start")
FOLLOW_PARAMETERS = (
    Parameter(
        "map_odom",
        OFF,
        "follow: memory moves with the map_frame -> odom_frame that another localiser publishes on tf",
        choices=(OFF, FOLLOW),
        when="start",
    ),
    MAP_FRAME,
)
MAP_PARAMETERS = (
    Parameter(
        "map_odom",
        OFF,
        "follow: memory moves with the map_frame -> odom_frame that another localiser publishes on tf; publish: that "
        "transform is published, as key frames tell it",
        choices=(OFF, FOLLOW, PUBLISH),
        when="start",
    ),
    MAP_FRAME,
)
AHEAD_S = 0.3  # a transform is stamped ahead of its odometry by this, so that the newest images lie before it (AMCL)
LISTEN_S = 2.0  # how long to listen for somebody else who publishes before the first transform is
LONG_S = 0.05  # a correction that takes longer is followed by a rest
REST = 9.0  # so many times as long: large memories move a tenth of the time
SAME = 1e-6  # m and rad: what our own transforms may differ by when they are heard
Located = Callable[[NDArray[np.float64]], object]


class MapOdomFollower:
    """Passes on where another localiser says that odom lies in map, whenever that has changed enough."""

    def __init__(
        self,
        node: Any,
        transforms: Transforms,
        localisation: RobotLocalisation,
        correct: Located | None = None,
        resets: ResetAwareness | None = None,
    ) -> None:
        """Take what hears tf, and who is told.

        Args:
            node: with MAP_PARAMETERS or FOLLOW_PARAMETERS, and ``odom_frame``.
            transforms: hear tf.
            localisation: knows what it was told last; its settings say what is too little to be passed on.
            correct: takes where odom lies in map (3,); ``localisation`` does when None.
            resets: whether the localiser knows of odometry that began anew; told of each by whoever owns it.
        """
        self._transforms, self._localisation = transforms, localisation
        self._correct = correct or localisation.correct
        self._frames = node.values["map_frame"], node.values["odom_frame"]
        self.on = node.values["map_odom"] == FOLLOW
        self._heard, self._rests_until_s = False, 0.0
        self._resets, self._believed = resets or ResetAwareness(), True
        self.passed_on = 0

    def update(self) -> bool:
        """Pass on a change; return whether there was one. May take as long as memories take to move."""
        started_s = time.monotonic()
        if not self.on or started_s < self._rests_until_s:
            return False
        T_map_odom = self._transforms.lookup(*self._frames)
        self._heard = T_map_odom is not None
        if T_map_odom is None or not np.isfinite(T_map_odom).all():
            return False
        found, told = se3.xyyaw_from_transform(T_map_odom), self._localisation.outside_xyyaw
        self._believed = self._resets.believes(found)
        if not self._believed:
            return False
        if told is not None:  # None after a reset as well
            away, settings = se2.relative(told, found), self._localisation.settings
            if np.hypot(*away[:2]) <= settings.move_m and abs(away[2]) <= settings.move_rad:
                return False
        self._correct(found)
        took_s = time.monotonic() - started_s
        self._rests_until_s = started_s + took_s * (1.0 + REST) if took_s > LONG_S else 0.0
        self.passed_on += 1
        return True

    def reports(self) -> Sequence[Report]:
        """Return whether the localiser is heard."""
        if not self.on:
            return []
        level, what = (Level.OK, "follows") if self._heard else (Level.WARN, "tf does not tell")
        text = f"{what} {self._frames[0]} -> {self._frames[1]}"
        if not self._believed:
            level, text = Level.WARN, f"{text}, which is of the odometry before it began anew: it is not followed"
        return [Report("map_odom", level, text, {"corrections": self.passed_on})]


class MapOdomPublisher:
    """Publishes where odom lies in map, unless somebody else does: a frame has one parent, and one who tells it."""

    def __init__(self, node: Any, transforms: Transforms) -> None:
        """Advertise /tf where the parameters say so.

        Raises:
            ConfigError: where transforms cannot be published on this machine.
        """
        self._node, self._transforms = node, transforms
        self._frames = node.values["map_frame"], node.values["odom_frame"]
        self.on = node.values["map_odom"] == PUBLISH
        self._sent: deque[NDArray[np.float64]] = deque(maxlen=100)
        self._listens_until_s: float | None = None
        self._stamp_s: float | None = None
        self._refused = ""
        self._tf2_messages = optional_module("tf2_msgs.msg") if self.on else None
        if self.on and self._tf2_messages is None:
            raise ConfigError(
                "map_odom is 'publish', but tf2_msgs is not installed, without which there is no /tf: install it "
                "(ros-<distro>-tf2-msgs), or set map_odom to 'off'"
            )
        self._publisher = node.advertise(self._tf2_messages.TFMessage, "/tf", COMMAND) if self._tf2_messages else None

    def update(self, stamp_s: float | None, T_map_odom_xyyaw: NDArray[np.float64]) -> bool:
        """Publish where odom lies in map (3,) at the newest odometry's time; return whether it was published."""
        if not self.on or stamp_s is None or stamp_s == self._stamp_s or self._refused:
            return False  # tf2 warns of a stamp that it has already
        now_s = time.monotonic()
        if self._listens_until_s is None:
            self._listens_until_s = now_s + LISTEN_S
        if self._others():
            parent, child = self._frames
            self._refused = (
                f"another node publishes {parent} -> {child} already, so this one does not: set map_odom to 'follow', "
                "or end the other"
            )
            self._node.log.error(self._refused)
            return False
        if now_s < self._listens_until_s:
            return False
        T_map_odom = se3.transform_from_xyyaw(T_map_odom_xyyaw)
        self._sent.append(T_map_odom)
        self._stamp_s = stamp_s
        assert self._publisher is not None and self._tf2_messages is not None
        stamped = messages.transform_message(T_map_odom, stamp_s + AHEAD_S, self._frames)
        self._publisher.publish(self._tf2_messages.TFMessage(transforms=[stamped]))
        return True

    def reports(self) -> Sequence[Report]:
        """Return whether it is published."""
        if not self.on:
            return []
        text = self._refused or ("published" if self._sent else "listens for others who publish it")
        return [Report("map_odom", Level.ERROR if self._refused else Level.OK, text, {})]

    def _others(self) -> bool:
        """Whether tf tells a transform between the two frames that was not published here."""
        heard = self._transforms.lookup(*self._frames)
        return heard is not None and not any(np.abs(heard - own).max() < SAME for own in self._sent)
