"""What all nodes share: lifecycle, parameters, the clock, diagnostics, and errors that never become tracebacks."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter

from come_nav.core.errors import ComeNavError
from come_nav.ros.diagnostics import Level, Report, Stream, diagnostic_array
from come_nav.ros.messages import seconds_from_stamp, stamp_from_seconds
from come_nav.ros.parameters import Parameter, declare, evaluate, values_of

COMMON = (
    Parameter("autostart", True, "configure and activate at start, without a lifecycle manager", when="start"),
    Parameter("diagnostics_rate_hz", 1.0, "how often the node reports on /diagnostics, Hz", 0.1, 20.0, when="start"),
)


class ManagedNode(LifecycleNode):
    """A lifecycle node whose subclasses fill in ``setup``, ``start``, ``stop``, ``teardown`` and ``reports``.

    ``setup`` runs at configure, ``start`` at activate, ``stop`` at deactivate, ``teardown`` at clean-up. A ComeNavError
    in them fails the transition with its one line; anything else is a defect and is logged with its traceback.
    """

    PARAMETERS: ClassVar[tuple[Parameter, ...]] = ()

    def __init__(self, name: str, **keywords: Any) -> None:
        super().__init__(name, **keywords)
        self.log: Any = LifecycleNode.get_logger(self)
        self.declared = (*COMMON, *self.PARAMETERS)
        declare(self, self.declared)
        self.values = values_of(self, self.declared)
        self.add_on_set_parameters_callback(self._evaluate_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self.active = False
        self.configured = False
        self.streams: list[Stream] = []
        self.errors: dict[str, int] = {}
        self._entities: list[tuple[str, Any]] = []
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._reporter = self.create_timer(
            1.0 / self.values["diagnostics_rate_hz"],
            lambda: self._guard("diagnostics", self._publish_diagnostics),
            clock=self._steady,
        )

    # -- for subclasses ----------------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Make what the node needs: load models, open files, subscribe."""

    def start(self) -> None:
        """Begin to work."""

    def stop(self) -> None:
        """Cease to work; must be safe to call twice."""

    def teardown(self) -> None:
        """Release what ``setup`` made; what :meth:`subscribe`, :meth:`every` and the like made goes by itself."""

    def reports(self) -> Sequence[Report]:
        """Return diagnostics besides those of the inputs."""
        return ()

    def parameters_changed(self, names: set[str]) -> None:
        """React to accepted changes; ``self.values`` holds them already."""

    def subscribe(self, kind: Any, topic: str, callback: Any, qos: Any) -> None:
        """Subscribe until clean-up; what a callback raises is counted and logged, and the node goes on.

        The time from a message's arrival in this process to its callback is noted with the topic's watched input.
        """
        name = self.resolve_topic_name(topic)
        stream = next((own for own in self.streams if own.topic == name), None)

        def guarded(message: Any, info: Mapping[str, Any]) -> None:
            arrived_ns = info.get("received_timestamp") or 0  # not every middleware knows
            if stream is not None and arrived_ns > 0:
                stream.waited(max(0.0, (time.time_ns() - arrived_ns) * 1e-9))
            self._guard(topic, callback, message)

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

    def keep_action(self, server: Any) -> None:
        """Keep an action server until clean-up."""
        self._entities.append(("action", server))

    def destroy_action(self, server: Any) -> None:
        """End an action server."""
        server.destroy()

    def every(self, period_s: float, callback: Any) -> None:
        """Call back in steady time until clean-up: a clock that stops must not stop a watchdog."""

        def guarded() -> None:
            self._guard("timer", callback)

        self._entities.append(("timer", self.create_timer(period_s, guarded, clock=self._steady)))

    def watch(self, name: str, topic: str, limit_s: float, required: bool = True) -> Stream:
        """Return a watched input, which appears in the diagnostics."""
        stream = Stream(name, self.resolve_topic_name(topic), limit_s, required)
        self.streams.append(stream)
        return stream

    def now_s(self) -> float:
        """Return the node's time: the wall clock, or /clock with use_sim_time."""
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def delay_s(self, stamp: Any) -> float:
        """Return now minus a message's stamp."""
        return self.now_s() - seconds_from_stamp(stamp)

    def diagnose(self, error: Exception, where: str) -> None:
        """Count an error and log it, at most once in five seconds for each place."""
        text = str(error) if isinstance(error, ComeNavError) else "".join(traceback.format_exception(error))
        self.errors[where] = self.errors.get(where, 0) + 1
        self.log.error(f"{where}: {text}", throttle_duration_sec=5.0)

    def _guard(self, where: str, action: Callable[..., None], *arguments: Any) -> None:
        """Call; one bad message or a defect must not end the process that holds the robot's watchdog."""
        try:
            action(*arguments)
        except Exception as error:
            self.diagnose(error, where)

    # -- lifecycle ---------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Set up."""
        found = self._attempt("configure", self.setup)
        self.configured = found == TransitionCallbackReturn.SUCCESS
        if not self.configured:
            self._release()
        return found

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start."""
        found = self._attempt("activate", self.start)
        self.active = found == TransitionCallbackReturn.SUCCESS
        return super().on_activate(state) if self.active else found

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop."""
        self.active = False
        self._attempt("deactivate", self.stop)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Tear down."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and tear down from any state."""
        self.close()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Stop and release everything, in whatever state; called at the end of the process as well."""
        if self.active:
            self.active = False
            self._attempt("shutdown", self.stop)
        if self.configured:
            self._release()

    def _release(self) -> None:
        self._attempt("clean-up", self.teardown)
        for kind, entity in self._entities:
            getattr(self, f"destroy_{kind}")(entity)
        self._entities.clear()
        self.streams.clear()
        self.configured = False

    def _attempt(self, what: str, action: Any) -> TransitionCallbackReturn:
        try:
            action()
        except ComeNavError as error:
            self.log.error(f"{what}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:
            self.log.error(f"{what}: {traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    # -- parameters and diagnostics ----------------------------------------------------------------------------------

    def _evaluate_parameters(self, changed: list[RosParameter]) -> Any:
        return evaluate(self.declared, changed, self.values, self.configured)

    def _take_parameters(self, changed: list[RosParameter]) -> None:
        self.values = values_of(self, self.declared)
        self.parameters_changed({parameter.name for parameter in changed})

    def _publish_diagnostics(self) -> None:
        steady_s = time.monotonic()
        state = "active" if self.active else "inactive" if self.configured else "unconfigured"
        level = Level.OK if self.active or not self.values["autostart"] else Level.WARN
        counts = {f"errors: {where}": count for where, count in self.errors.items()}
        reports = [Report("node", level, state, counts)]
        if self.active:
            reports += [stream.report(steady_s) for stream in self.streams]
            reports += self.reports()
        stamp = stamp_from_seconds(self.now_s())
        self._diagnostics.publish(diagnostic_array(self.get_fully_qualified_name().strip("/"), reports, stamp))
