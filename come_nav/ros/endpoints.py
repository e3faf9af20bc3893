"""What a node subscribes to, publishes, serves and calls, each until clean-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from come_nav.ros.diagnostics import Stream
from come_nav.ros.reporting_node import ReportingNode


def type_name(kind: Any) -> str:
    """Return the ROS name of a message class, such as sensor_msgs/msg/Image."""
    package, _, rest = str(kind.__module__).partition(".")
    return f"{package}/{rest.partition('.')[0]}/{kind.__name__}"


class EndpointsNode(ReportingNode):
    """Makes endpoints that live until :meth:`release_endpoints`; what their callbacks raise is counted and logged."""

    def __init__(self, name: str, **keywords: Any) -> None:
        self._entities: list[tuple[str, Any]] = []
        super().__init__(name, **keywords)

    def subscribe(self, kind: Any, topic: str, callback: Any, qos: Any) -> None:
        """Subscribe until clean-up; what a callback raises is counted and logged, and the node goes on.

        The time from a message's arrival in this process to its callback is noted with the topic's watched input.
        """
        name = self.resolve_topic_name(topic)
        stream = next((own for own in self.streams if own.topic == name), None)
        if stream is not None:
            stream.kind = type_name(kind)

        def guarded(message: Any, info: Mapping[str, Any]) -> None:
            arrived_ns = info.get("received_timestamp") or 0  # not every middleware knows
            if stream is not None and arrived_ns > 0:
                stream.waited(max(0.0, (time.time_ns() - arrived_ns) * 1e-9))
            self.guard(topic, callback, message)

        with_facts: Any = guarded  # rclpy's annotations know callbacks of one argument only
        self._entities.append(("subscription", self.create_subscription(kind, topic, with_facts, qos)))

    def advertise(self, kind: Any, topic: str, qos: Any) -> Any:
        """Return a publisher that lives until clean-up; it publishes in every state (zero velocity, for one)."""
        publisher = self.create_publisher(kind, topic, qos)
        self._entities.append(("publisher", publisher))
        return publisher

    def serve(self, kind: Any, name: str, callback: Any) -> None:
        """Offer a service until clean-up."""
        self._entities.append(("service", self.create_service(kind, name, callback)))

    def keep(self, close: Callable[[], object]) -> None:
        """Call ``close`` at clean-up."""
        self._entities.append(("kept", close))

    def destroy_kept(self, close: Callable[[], object]) -> None:
        """End what was kept."""
        close()

    def keep_action(self, server: Any) -> None:
        """Keep an action server until clean-up."""
        self._entities.append(("action", server))

    def destroy_action(self, server: Any) -> None:
        """End an action server."""
        server.destroy()

    def every(self, period_s: float, callback: Any) -> None:
        """Call back in steady time until clean-up: a clock that stops must not stop a watchdog."""

        def guarded() -> None:
            self.guard("timer", callback)

        self._entities.append(("timer", self.create_timer(period_s, guarded, clock=self.steady)))

    def watch(self, name: str, topic: str, limit_s: float, required: bool = True) -> Stream:
        """Return a watched input, which appears in the diagnostics."""
        stream = Stream(name, self.resolve_topic_name(topic), limit_s, required)
        self.streams.append(stream)
        return stream

    def release_endpoints(self) -> None:
        """End everything that was made."""
        for kind, entity in self._entities:
            getattr(self, f"destroy_{kind}")(entity)
        self._entities.clear()
        self.streams.clear()
