"""A spatial memory's cloud in a memory store: one process fills and saves it, others look at the newest one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
        self._T_map_odom_xyyaw: NDArray[np.float64] | None = None

    def locate(self, T_map_odom_xyyaw: NDArray[np.float64]) -> None:
        """Take where odom lies now in the cloud's map (3,); from then on that of a newer cloud is older news."""
        self._T_map_odom_xyyaw = T_map_odom_xyyaw
        self._memory.move(np.zeros((0, 3)), T_map_odom_xyyaw)

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
                    if self._T_map_odom_xyyaw is not None:
                        self.locate(self._T_map_odom_xyyaw)
            self.diagnosis = None
        except ComeNavError as error:  # pruned while it was read, damaged, or of another voxel size
            self.diagnosis = str(error)
            self._version = version
            return False
        self._version, self._mark = version, mark
        return changed
