"""A thread that does the slow work of a node, so that its executor never waits."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Worker:
    """Calls ``step`` again and again until stopped; ``step`` returns how long to wait, or 0.0 to go on at once.

    :meth:`wake` cuts a wait short. What ``step`` raises goes to ``on_error``, and work goes on after a short pause:
    one bad input must not end the thread.
    """

    def __init__(self, name: str, step: Callable[[], float], on_error: Callable[[Exception], None]) -> None:
        self._name, self._step, self._on_error = name, step, on_error
        self._wake = threading.Event()
        self._end = threading.Event()  # of the present thread alone: one that hangs must not be revived by the next
        self._own = threading.local()
        self._thread: threading.Thread | None = None

    @property
    def stopping(self) -> bool:
        """Whether a long step should end soon."""
        own: threading.Event = getattr(self._own, "end", self._end)  # of the thread that asks, if it is a worker's
        return own.is_set()

    def start(self) -> None:
        """Start the thread."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._end,), name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Let a waiting step begin now."""
        self._wake.set()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End after the present step; return False if it did not end in time."""
        self._end.set()
        self._wake.set()
        thread, self._thread = self._thread, None
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def _run(self, end: threading.Event) -> None:
        self._own.end = end
        while not end.is_set():
            try:
                wait_s = self._step()
            except Exception as error:
                self._on_error(error)
                wait_s = 0.5
            if wait_s > 0 and not end.is_set():
                self._wake.wait(wait_s)
                self._wake.clear()
