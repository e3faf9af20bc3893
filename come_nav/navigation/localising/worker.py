"""Work that must not hold up the camera: done by one thread, in order, with a bounded number of things waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class BoundedWorker:
    """Runs tasks one after the other. A full queue refuses: whoever offers goes on without.

    Attributes:
        failure: the newest task that raised, in words; None after one that did not.
        refused: tasks that found the queue full.
    """

    def __init__(self, name: str, waiting: int) -> None:
        self.failure: str | None = None
        self.refused = 0
        self._name = name
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(waiting)
        self._thread: threading.Thread | None = None

    def offer(self, task: Callable[[], object]) -> bool:
        """Take a task, unless too many are waiting; return whether it was taken."""
        self.start()
        try:
            self._queue.put_nowait(task)
        except queue.Full:
            self.refused += 1
            return False
        return True

    def start(self) -> None:
        """Begin to work, if that has not begun."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Return when everything that was taken is done."""
        self._queue.join()

    def stop(self) -> None:
        """Do what was taken, then end."""
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        self._thread = None

    def _run(self) -> None:
        while True:
            task = self._queue.get()
            try:
                if task is None:
                    return
                task()
                self.failure = None
            except Exception as error:  # one bad image must not end localisation for good
                self.failure = f"{type(error).__name__}: {error}"
            finally:
                self._queue.task_done()
