"""How training keeps up with what is seen: steps per second, and the time until a frame is part of a usable adapter."""

from __future__ import annotations

from collections import deque

SPAN_S = 20.0
KEPT = 4096


class TrainingProgress:
    """Counts for an episodic memory that trains in the background. Times are steady seconds of one process.

    A frame counts as learnt once an adapter can be used that has all steps which were due when the frame had come.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin a new episode."""
        self._waiting: deque[tuple[int, float]] = deque(maxlen=KEPT)  # (steps that make it usable, seen at)
        self._steps: deque[tuple[float, int]] = deque()

    def observed(self, steps: int, steps_due: int, steady_s: float) -> None:
        """Note a frame, received at ``steady_s``, and the steps done and due after it."""
        self._waiting.append((steps + max(steps_due, 1), steady_s))

    def trained(self, steps: int, steady_s: float) -> None:
        """Note how many steps were done by now; fewer than before begin a new count."""
        if self._steps and steps < self._steps[-1][1]:
            self._steps.clear()
        self._steps.append((steady_s, steps))
        while self._steps[0][0] < steady_s - SPAN_S:
            self._steps.popleft()

    def steps_per_s(self) -> float:
        """Return the rate over the last 20 s; 0 while there is nothing to tell."""
        if len(self._steps) < 2 or self._steps[-1][0] <= self._steps[0][0]:
            return 0.0
        return (self._steps[-1][1] - self._steps[0][1]) / (self._steps[-1][0] - self._steps[0][0])

    def usable(self, steps: int, steady_s: float) -> list[float]:
        """Note that an adapter of so many steps can be used; return the delay, s, of each frame that it has learnt."""
        delays_s = []
        while self._waiting and self._waiting[0][0] <= steps:
            delays_s.append(steady_s - self._waiting.popleft()[1])
        return delays_s
