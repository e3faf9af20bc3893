"""A node's parameters, clock, diagnostics, and errors that never become tracebacks."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter as RosParameter

from come_nav.core.errors import ComeNavError
from come_nav.ros.diagnostics import Level, Report, Stream, diagnostic_array
from come_nav.ros.inputs.silence import cause_of_silence
from come_nav.ros.messages import seconds_from_stamp, stamp_from_seconds
from come_nav.ros.parameters import Parameter, declare, evaluate, values_of

SILENT_S = 3.0  # after activation, before an input that has not come is looked for
COMMON = (
    Parameter("autostart", True, "configure and activate at start, without a lifecycle manager", when="start"),
    Parameter("diagnostics_rate_hz", 1.0, "how often the node reports on /diagnostics, Hz", 0.1, 20.0, when="start"),
)


class ReportingNode(LifecycleNode):
    """Declares ``PARAMETERS``, keeps their ``values``, counts and logs errors, and reports on /diagnostics."""

    PARAMETERS: ClassVar[tuple[Parameter, ...]] = ()

    def __init__(self, name: str, **keywords: Any) -> None:
        super().__init__(name, **keywords)
        self.log: Any = LifecycleNode.get_logger(self)
        self.declared = (*COMMON, *self.PARAMETERS)
        declare(self, self.declared)
        self.values = values_of(self, self.declared)
        self.add_on_set_parameters_callback(self._evaluate_parameters)
        self.add_post_set_parameters_callback(self._take_parameters)
        self.active, self.active_since_s = False, float("inf")
        self.configured = False
        self.streams: list[Stream] = []
        self.errors: dict[str, int] = {}
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._reporter = self.create_timer(
            1.0 / self.values["diagnostics_rate_hz"],
            lambda: self.guard("diagnostics", self._publish_diagnostics),
            clock=self.steady,
        )

    def reports(self) -> Sequence[Report]:
        """Return diagnostics besides those of the inputs."""
        return ()

    def parameters_changed(self, names: set[str]) -> None:
        """React to accepted changes; ``self.values`` holds them already."""

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

    def guard(self, where: str, action: Callable[..., None], *arguments: Any) -> None:
        """Call; one bad message or a defect must not end the process that holds the robot's watchdog."""
        try:
            action(*arguments)
        except Exception as error:
            self.diagnose(error, where)

    def _look_for_silence(self, steady_s: float) -> None:
        """Find out why inputs are silent; log it once for each time that they fall silent."""
        for stream in self.streams:
            if (stream.count and stream.alive(steady_s)) or not stream.required:
                stream.hint = ""
            elif steady_s - self.active_since_s > SILENT_S:
                hint = cause_of_silence(self, stream.topic, stream.kind)
                if hint != stream.hint:
                    self.log.warning(f"nothing received on {stream.topic}: {hint}")
                stream.hint = hint

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
            self._look_for_silence(steady_s)
            reports += [stream.report(steady_s) for stream in self.streams]
            reports += self.reports()
        stamp = stamp_from_seconds(self.now_s())
        self._diagnostics.publish(diagnostic_array(self.get_fully_qualified_name().strip("/"), reports, stamp))
