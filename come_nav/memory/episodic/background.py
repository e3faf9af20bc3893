"""Trains an episodic memory in the background, within a budget of steps per second."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from come_nav.memory.episodic.memory import EpisodicMemory
from come_nav.memory.episodic.settings import BudgetSettings


class BackgroundTrainer:
    """A thread that trains what is due, round by round. Use it as a context manager, or call ``start`` and ``stop``.

    An exception of the loss ends the thread and is kept in ``failure``; the last published adapter stays in use.
    """

    def __init__(
        self,
        memory: EpisodicMemory,
        budget: BudgetSettings | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the memory; ``clock_s`` measures the budget in real time, never anything about the episode."""
        self.memory, self.budget = memory, budget or BudgetSettings()
        self.failure: Exception | None = None
        self._clock_s = clock_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin; does nothing where it runs already."""
        if self.running:
            return
        self._stop.clear()
        self.failure = None
        self._thread = threading.Thread(target=self._run, name="episodic memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish the running step, publish what was trained, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> BackgroundTrainer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        step_back(self.budget.nice)
        try:
            while not self._stop.is_set():
                due = min(self.memory.steps_due, self.memory.settings.round_steps)
                if due == 0 or not self._round(due):
                    self._stop.wait(self.budget.idle_s)
        except Exception as error:
            self.failure = error

    def _round(self, due: int) -> bool:
        """Train ``due`` steps one by one, none before its time; publish at the end."""
        done = 0
        for _ in range(due):
            started_s = self._clock_s()
            if self._stop.is_set() or not self.memory.train_steps(1, publish=False):
                break
            done += 1
            self._stop.wait(max(0.0, started_s + 1.0 / self.budget.steps_per_s - self._clock_s()))
        self.memory.publish()
        return done > 0


def step_back(nice: int) -> None:
    """Lower the priority of the calling thread, and of threads that it starts, where the system has such a thing."""
    if sys.platform == "linux" and nice > 0:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
