"""Places on disk: found again after a restart, saved while the robot drives."""

from __future__ import annotations

import time
from collections.abc import Callable

from come_nav.core.errors import ComeNavError, DataError, MemoryStoreError
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.places import Places


class PlaceStore:
    """Keeps a store up to date with the places; without a store it does nothing.

    Attributes:
        failure: what went wrong last, or None; cleared by the next success.
    """

    def __init__(self, places: Places, store: MemoryStore | None, diagnose: Callable[[Exception, str], None]) -> None:
        self._places, self._store, self._diagnose = places, store, diagnose
        self._saved = 0
        self._next_s = 0.0
        self.failure: str | None = None

    def load(self) -> str | None:
        """Take over what was saved, if it can be read; return what to log."""
        if self._store is None:
            return None
        try:
            self._places.load(self._store)
        except (MemoryStoreError, DataError) as error:
            self._diagnose(error, "memory")
            return None
        self._saved = len(self._places)
        return f"{self._saved} places remembered from {self._store.path}"

    def save(self, period_s: float = 0.0) -> None:
        """Save where places have come since the last time, at most every ``period_s``."""
        now = time.monotonic()
        if self._store is None or (period_s and now < self._next_s):
            return
        self._next_s = now + period_s
        count = len(self._places)
        if count == self._saved:
            return
        try:
            self._places.save(self._store)
            self._saved, self.failure = count, None
        except ComeNavError as error:
            self.failure = str(error)
            self._diagnose(error, "memory")

    def forget(self) -> None:
        """Save at the next occasion, however few places there are."""
        self._saved = -1
