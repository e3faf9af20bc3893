"""A spatial memory's cloud in a memory store: one process fills and saves it, others look at the newest one."""

from __future__ import annotations

from come_nav.core.errors import ComeNavError
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.store.files import CLOUD
from come_nav.memory.store.store import MemoryStore


class SharedCloud:
    """Follows the newest cloud of a store that another process writes. Ask as often as you like: no news cost little.

    Attributes:
        store: where the cloud comes from.
        diagnosis: why the newest cloud is not in use, or None.
    """

    def __init__(self, store: MemoryStore, memory: SpatialMemory) -> None:
        """Take the store, and the memory whose cloud is replaced by each newer one."""
        self.store, self._memory = store, memory
        self.diagnosis: str | None = None
        self._version: int | None = None
        self._mark: str | None = None

    def poll(self) -> bool:
        """Take over a newer cloud, if there is one that fits; return whether the cloud changed."""
        version = self.store.newest()
        if version is None or version == self._version:
            return False
        try:
            mark = self.store.mark(CLOUD, version)
            changed = mark is not None and mark != self._mark
            if changed:
                cloud = self.store.load(version, parts=(CLOUD,)).cloud
                if cloud is not None:
                    self._memory.load_state(cloud)
            self.diagnosis = None
        except ComeNavError as error:  # pruned while it was read, damaged, or of another voxel size
            self.diagnosis = str(error)
            self._version = version
            return False
        self._version, self._mark = version, mark
        return changed
