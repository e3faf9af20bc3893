"""What the nodes that keep a memory share: requests of services, work that is due from time to time, and the store."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from come_nav.core.errors import ComeNavError
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.store.files import CLOUD
from come_nav.memory.store.store import MemoryStore
from come_nav.ros.inputs.odometry_reset import OdometryReset
from come_nav.ros.node import ManagedNode
from come_nav.ros.worker import Worker


def store_of(values: Mapping[str, Any]) -> MemoryStore | None:
    """Return the store that the parameter memory_folder names; None where it is empty."""
    folder = str(values["memory_folder"])
    return MemoryStore(Path(folder).expanduser()) if folder else None


def load_cloud(node: ManagedNode, memory: SpatialMemory) -> None:
    """Begin with the cloud that was saved in memory_folder, if any; say so, or why it cannot be used."""
    store = store_of(node.values)
    if store is None or store.newest() is None:
        return
    try:
        cloud = store.load(parts=(CLOUD,)).cloud
        if cloud is not None:
            memory.load_state(cloud)
            node.log.info(f"{len(memory)} points remembered from {store.path}")
    except ComeNavError as error:  # damaged, or of another voxel size
        node.diagnose(error, "memory")


class MemoryNode(ManagedNode, ABC):
    """A node whose worker remembers. Has a parameter memory_folder.

    Services leave it requests, "reset" or "save", and odometry its resets, which are obeyed in the order they came.
    """

    FORGOTTEN: ClassVar[str]

    def __init__(self, name: str, **keywords: Any) -> None:
        super().__init__(name, **keywords)
        self._worker = Worker(name, self._work, lambda error: self.diagnose(error, "memory"))
        self._requests: deque[str | OdometryReset] = deque()
        self._due: dict[str, float] = {}

    @abstractmethod
    def _work(self) -> float:
        """Do what is to be done; return how long to wait, s."""

    @abstractmethod
    def _obey(self, request: str | OdometryReset) -> None:
        """Forget, or take it that odometry began anew."""

    def _obey_all(self) -> bool:
        """Do what was asked for; return whether to save as well."""
        save = False
        while self._requests:
            request = self._requests.popleft()
            if isinstance(request, OdometryReset):
                self.log.warning(f"{request}; {request.consequence}")
            if request == "save":
                save = True
            else:
                self._obey(request)
        return save

    def _reset(self, request: Any, response: Any) -> Any:
        self._requests.append("reset")
        self._worker.wake()
        response.success, response.message = True, self.FORGOTTEN
        return response

    def _save_now(self, request: Any, response: Any) -> Any:
        if not self.values["memory_folder"]:
            response.success, response.message = False, "memory_folder is empty, so there is nowhere to save to"
            return response
        self._requests.append("save")
        self._worker.wake()
        response.success, response.message = True, "saving"
        return response

    def _time_for(self, what: str, period_s: float) -> bool:
        now = time.monotonic()
        due = now >= self._due[what]
        if due:
            self._due[what] = now + period_s
        return due
