"""Places and key frames with features on disk: found again after a restart, saved while the robot drives."""

from __future__ import annotations

import time
from collections.abc import Callable

from come_nav.core.errors import ComeNavError, DataError, MemoryStoreError
from come_nav.memory.store.feature_files import FeatureFiles
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.goals.places import Places
from come_nav.navigation.localising.robot_localisation import RobotLocalisation

FORGOTTEN = -1  # in place of the revision that was saved: whatever is there is saved next


class PlaceStore:
    """Keeps a store up to date with the places and the key frames' features; without a store it does nothing.

    Features are written by the thread that makes them, so that nobody waits for them.

    Attributes:
        failure: what went wrong last, or None; cleared by the next success.
    """

    def __init__(
        self,
        places: Places,
        store: MemoryStore | None,
        diagnose: Callable[[Exception, str], None],
        localisation: RobotLocalisation,
    ) -> None:
        self._places, self._store, self._diagnose, self._localisation = places, store, diagnose, localisation
        self._files = None if store is None else FeatureFiles(store.path)
        self._saved, self._features_saved = places.revision, localisation.revision
        self._next_s, self._told = 0.0, ""
        self.failure: str | None = None

    def load(self) -> str | None:
        """Take over what was saved, if it can be read; return what to log."""
        if self._store is None or self._files is None:
            return None
        try:
            self._places.load(self._store)
        except (MemoryStoreError, DataError) as error:
            self._diagnose(error, "memory")
            return None
        self._saved = self._places.revision
        try:
            if self._localisation.settings.use and (saved := self._files.load()) is not None:
                self._localisation.reset(saved)
        except ComeNavError as error:  # places can be driven to without
            self._diagnose(error, "memory")
        features, self._features_saved = len(self._localisation), self._localisation.revision
        return f"{len(self._places)} places remembered from {self._store.path}, and {features} key frames with features"

    def news(self) -> str | None:
        """Return where the robot is in what it remembers of before this start, once that is known; None else."""
        before, self._told = self._told, self._localisation.resumed
        resumed = self._told
        return None if resumed in ("", before) else f"what is remembered of before this start: the robot is {resumed}"

    def save(self, period_s: float = 0.0) -> None:
        """Save where places have come since the last time, at most every ``period_s``; at once and all without one."""
        now, store = time.monotonic(), self._store
        if store is None or (period_s and now < self._next_s):
            return
        self._next_s = now + period_s
        places, revision = self._places.revision, self._localisation.revision
        worth = len(self._places) > 0 or self._saved == FORGOTTEN
        if places != self._saved and worth and self._attempt(lambda: self._places.save(store)):
            self._saved = places
        if revision == self._features_saved:
            return
        self._features_saved = revision
        worker = self._localisation.worker
        if worker is None or not period_s:
            self._save_features()
        else:
            worker.offer(self._save_features)

    def forget(self) -> None:
        """Save at the next occasion, however few places there are."""
        self._saved = FORGOTTEN

    def _save_features(self) -> None:
        files, saved = self._files, self._localisation.state()
        if files is not None:
            self._attempt(lambda: files.save(*(saved or ([], {}))))

    def _attempt(self, save: Callable[[], object]) -> bool:
        try:
            save()
        except ComeNavError as error:
            self.failure = str(error)
            self._diagnose(error, "memory")
            return False
        self.failure = None
        return True
