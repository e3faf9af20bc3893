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

OTHER_CLOCK_NS = 10_000_000_000  # stamps and log times further apart than any latency are of different clocks


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
        self._publishers_by_topic, self._skipped, kinds = {}, [], {}
        for topic in bag.topics.values():
            if wanted and topic.name not in wanted:
                continue
            kind = message_class(topic.type)
            if topic.name == "/clock" and self.values["publish_clock"]:
                continue  # two clocks would contradict each other
            if kind is None:
                self._skipped.append(f"{topic.name} ({topic.type})")
                continue
            kinds[topic.name] = kind
            qos = STATIC_TRANSFORMS if topic.name.endswith("tf_static") else COMMAND
            self._publishers_by_topic[topic.name] = self.advertise(kind, topic.name, qos)
        self._clock_out = self.advertise(Clock, "/clock", SENSOR) if self.values["publish_clock"] else None
        self._bag_clock = BagClock(bag, [name for name, kind in kinds.items() if has_header(kind)])
        self._bag, self._sent, self._loops, self._finished = bag, 0, 0, False

    def start(self) -> None:
        """Play from the beginning."""
        self._play, self._finished = self._messages(), False
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
        self._bag_clock.begin()
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
            self._clock_out.publish(Clock(clock=messages.stamp_from_seconds(self._bag_clock.time_ns(message) * 1e-9)))
        self._publishers_by_topic[message.topic].publish(message.raw)
        self._sent += 1


class BagClock:
    """Time of a recording on the clock of its headers; never runs back.

    It is when messages were written, which are ordered by that, moved to the headers' clock where the two are of
    different clocks. Only messages that have a header are asked for its stamp: the bytes of others are none.
    """

    def __init__(self, bag: Bag, stamped: Sequence[str]) -> None:
        """Take the bag, and the topics whose messages have a header."""
        first = (
            next((message for message in bag.messages(list(stamped)) if message.has_stamp), None) if stamped else None
        )
        offset_ns = 0 if first is None else first.header_ns - first.log_ns
        self._offset_ns = offset_ns if abs(offset_ns) > OTHER_CLOCK_NS else 0
        self._newest_ns = 0

    def begin(self) -> None:
        """Begin at the beginning of the bag."""
        self._newest_ns = 0

    def time_ns(self, message: BagMessage) -> int:
        """Return the time at which a message is sent."""
        self._newest_ns = max(self._newest_ns, message.log_ns + self._offset_ns)
        return self._newest_ns


def has_header(kind: Any) -> bool:
    """Whether a message class begins with a std_msgs/Header."""
    return next(iter(kind.get_fields_and_field_types().values()), "") == "std_msgs/Header"


def message_class(type_name: str) -> Any | None:
    """Return the class of a message type such as "sensor_msgs/msg/Image", or None where it is not installed."""
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None
