"""What a node says about itself on /diagnostics: rates and ages of its inputs, the causes of faults, figures."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

WINDOW = 50


class Level(IntEnum):
    """Levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True)
class Report:
    """One line of diagnostics: a name, a level, a sentence, and values."""

    name: str
    level: Level
    message: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def to_message(self, hardware_id: str) -> DiagnosticStatus:
        """Return the ROS message."""
        return DiagnosticStatus(
            level=bytes([self.level]),
            name=self.name,
            message=self.message,
            hardware_id=hardware_id,
            values=[KeyValue(key=key, value=_text(value)) for key, value in self.values.items()],
        )


def diagnostic_array(node_name: str, reports: Sequence[Report], stamp: Time) -> DiagnosticArray:
    """Return an array whose entries are named ``node: entry``, as aggregators expect."""
    message = DiagnosticArray()
    message.header.stamp = stamp
    for report in reports:
        status = report.to_message(node_name)
        status.name = f"{node_name}: {report.name}"
        message.status.append(status)
    return message


class Latency:
    """The last durations of one kind of work."""

    def __init__(self, capacity: int = 1000) -> None:
        self._seconds: deque[float] = deque(maxlen=capacity)

    def add(self, seconds: float) -> None:
        """Remember one duration."""
        self._seconds.append(seconds)

    def values(self, name: str) -> dict[str, float]:
        """Return p50, p95, p99 in seconds, named after ``name``; empty before the first."""
        if not self._seconds:
            return {}
        p50, p95, p99 = np.percentile(self._seconds, [50, 95, 99])
        return {f"{name}_p50_s": float(p50), f"{name}_p95_s": float(p95), f"{name}_p99_s": float(p99)}


class Stream:
    """Watches one input: how many, how often, how old, and what was wrong with it.

    Times are steady seconds (``time.monotonic``), so that a clock that jumps or stops cannot hide a silent sensor.

    Attributes:
        kind: type of its messages, empty where it is not known.
        hint: why it may be silent; shown while it is.
    """

    def __init__(self, name: str, topic: str, limit_s: float, required: bool = True) -> None:
        self.name, self.topic = name, topic
        self.limit_s, self.required = limit_s, required
        self.count, self.kind, self.hint = 0, "", ""
        self.errors: Counter[str] = Counter()
        self._receipts: deque[float] = deque(maxlen=WINDOW)
        self._delays, self._waits = Latency(), Latency()
        self._last_error: tuple[float, str] | None = None

    def received(self, steady_s: float, delay_s: float | None = None) -> None:
        """Count a message; ``delay_s`` is now minus its stamp."""
        self.count += 1
        self._receipts.append(steady_s)
        if delay_s is not None:
            self._delays.add(delay_s)

    def waited(self, seconds: float) -> None:
        """Note how long a message that had reached this process waited for its callback."""
        self._waits.add(seconds)

    def failed(self, steady_s: float, cause: str) -> None:
        """Count a message that could not be used."""
        self.errors[cause[:80]] += 1
        self._last_error = (steady_s, cause)

    def age_s(self, steady_s: float) -> float:
        """Return the time since the last message; infinite before the first."""
        return steady_s - self._receipts[-1] if self._receipts else float("inf")

    def alive(self, steady_s: float) -> bool:
        """Whether a message came within the limit."""
        return self.age_s(steady_s) <= self.limit_s

    def rate_hz(self) -> float:
        """Return the rate over the last messages."""
        span_s = self._receipts[-1] - self._receipts[0] if len(self._receipts) > 1 else 0.0
        return (len(self._receipts) - 1) / span_s if span_s > 0 else 0.0

    def report(self, steady_s: float) -> Report:
        """Return the state of the input in one line."""
        age_s = self.age_s(steady_s)
        values: dict[str, Any] = {"topic": self.topic, "received": self.count, "rate_hz": self.rate_hz()}
        if self.count:
            values["age_s"] = age_s
        values |= self._delays.values("delay") | self._waits.values("callback")
        for cause, count in self.errors.most_common(5):
            values[f"refused: {cause}"] = count
        diagnosis = Level.ERROR if self.required else Level.WARN
        if self._last_error is not None and steady_s - self._last_error[0] <= max(2.0, self.limit_s):
            return Report(self.name, diagnosis, self._last_error[1], values)
        if self.count == 0:
            level = diagnosis if self.required else Level.OK
            return Report(self.name, level, f"nothing received on {self.topic} yet{self._because()}", values)
        if age_s > self.limit_s:
            text = f"nothing received on {self.topic} for {age_s:.1f} s{self._because()}"
            return Report(self.name, diagnosis, text, values)
        return Report(self.name, Level.OK, "receiving", values)

    def _because(self) -> str:
        return f": {self.hint}" if self.hint else ""


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
