"""Plays a bag over DDS at its own pace without ROS tools: for tests, demonstrations and replays on bare machines."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rosgraph_msgs.msg import Clock

from come_nav.core.errors import ConfigError, DataError
from come_nav.data.bags.bag import Bag, BagMessage, open_bag
from come_nav.ros import messages
from come_nav.ros.diagnostics import Level, Report
from come_nav.ros.node import ManagedNode
from come_nav.ros.parameters import Parameter
from come_nav.ros.qos import COMMAND, SENSOR, STATIC_TRANSFORMS
from come_nav.ros.worker import Worker


class BagPlayerNode(ManagedNode):
    """Publishes the recorded bytes under the recorded names; remap them with ``-r old:=new`` as for any node."""

    PARAMETERS = (
        Parameter("bag", "", "path of a rosbag2 folder or file", when="start"),
        Parameter("rate", 1.0, "recorded seconds per second", 0.01, 100.0),
        Parameter("topics", [""], "topics to play; an empty word = all", when="start"),
        Parameter("loop", False, "begin again at the end; stamps then jump back"),
        Parameter("publish_clock", True, "publish /clock from the recording's times", when="start"),
        Parameter("wait_for_topic", "", "begin when somebody has subscribed to this topic", when="start"),
        Parameter("start_delay_s", 1.0, "then wait for this long, s", 0.0, 60.0, when="start"),
    )

    def __init__(self, **keywords: Any) -> None:
        super().__init__("bag_player", **keywords)
        self._worker = Worker("bag_player", self._step, lambda error: self.diagnose(error, "play"))
        self._bag: Bag | None = None

    def setup(self) -> None:
        """Open the bag and advertise its topics."""
        if not self.values["bag"]:
            raise ConfigError("the parameter 'bag' is missing: give the path of a bag")
        bag = open_bag(self.values["bag"])
        if bag.storage == "rosbag1":
            raise DataError(f"{bag.path}: ROS 1 bags hold other bytes; convert it first:  come-nav convert IN OUT")
        wanted = [topic for topic in self.values["topics"] if topic]
        for topic in wanted:
            bag.topic(topic)
        self._publishers_by_topic, self._skipped = {}, []
        for topic in bag.topics.values():
            if wanted and topic.name not in wanted:
                continue
            kind = message_class(topic.type)
            if kind is None:
                self._skipped.append(f"{topic.name} ({topic.type})")
                continue
            qos = STATIC_TRANSFORMS if topic.name.endswith("tf_static") else COMMAND
            self._publishers_by_topic[topic.name] = self.advertise(kind, topic.name, qos)
        self._clock_out = self.advertise(Clock, "/clock", SENSOR) if self.values["publish_clock"] else None
        self._bag, self._sent, self._loops, self._finished = bag, 0, 0, False

    def start(self) -> None:
        """Play from the beginning."""
        self._play = self._messages()
        self._worker.start()

    def stop(self) -> None:
        """Stop playing."""
        self._worker.stop()

    def teardown(self) -> None:
        """Close the bag."""
        if self._bag is not None:
            self._bag.close()
            self._bag = None

    def reports(self) -> Sequence[Report]:
        """Return what was sent."""
        values = {"sent": self._sent, "loops": self._loops}
        if self._skipped:
            values["skipped, no such message type here"] = ", ".join(self._skipped)  # type: ignore[assignment]
        return [Report("playback", Level.OK, "finished" if self._finished else "playing", values)]

    def _step(self) -> float:
        next(self._play, None)
        return 0.5 if self._finished else 1e-4

    def _messages(self) -> Iterator[None]:
        """Send one message per ``next``, when it is due."""
        topic = self.values["wait_for_topic"]
        while topic and self.count_subscribers(self.resolve_topic_name(topic)) == 0:
            time.sleep(0.05)
            yield
        time.sleep(self.values["start_delay_s"])
        while self._bag is not None:
            yield from self._once(self._bag)
            self._loops += 1
            if not self.values["loop"]:
                break
        self._finished = True

    def _once(self, bag: Bag) -> Iterator[None]:
        recorded_s, steady_s = bag.start_ns * 1e-9, time.monotonic()
        for message in bag.messages(list(self._publishers_by_topic)):
            due_s = steady_s + (message.log_ns * 1e-9 - recorded_s) / self.values["rate"]
            if due_s > time.monotonic():
                time.sleep(due_s - time.monotonic() if due_s - time.monotonic() > 0 else 0.0)
            else:  # late, or the rate changed: go on from here
                steady_s += max(0.0, time.monotonic() - due_s - 0.5)
            self._send(message)
            yield

    def _send(self, message: BagMessage) -> None:
        if self._clock_out is not None:
            self._clock_out.publish(Clock(clock=messages.stamp_from_seconds(message.header_ns * 1e-9)))
        self._publishers_by_topic[message.topic].publish(message.raw)
        self._sent += 1


def message_class(type_name: str) -> Any | None:
    """Return the class of a message type such as "sensor_msgs/msg/Image", or None where it is not installed."""
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None
