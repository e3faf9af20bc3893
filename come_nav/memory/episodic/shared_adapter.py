"""An episode's adapter in a memory store: one process trains and saves it, others use the newest one that fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from come_nav.core.errors import ComeNavError, MemoryStoreError
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory, disagreement
from come_nav.memory.store.files import ADAPTER
from come_nav.memory.store.store import MemoryStore

EPISODE = "episode"  # the published adapter, for whoever imagines
TRAINING = "episode-training"  # frames, optimiser and counters, for the process that goes on training
FACTS = "episodic"  # what ``about`` says of both


def save_episode(store: MemoryStore, memory: EpisodicMemory, training: bool = True) -> Adapter | None:
    """Write the published adapter, and what is needed to go on training; return what was written, None = nothing yet.

    Args:
        store: shared with other processes, whose parts stay.
        memory: may train meanwhile.
        training: also write frames and optimiser, which grow with the episode; False leaves those saved before.

    Raises:
        MemoryStoreError: no space or no permission; the versions from before stay.
    """
    adapter = memory.newest
    if not training:
        if adapter is not None:
            facts = {**_facts(store), "adapter": adapter.metadata}
            store.save(adapters={EPISODE: adapter.tensors}, about={FACTS: facts})
        return adapter
    tensors, state = memory.state()
    published = {name[10:]: tensor for name, tensor in tensors.items() if name.startswith("published.")}
    adapter = Adapter(published, state["published"]) if published else None
    facts = {"adapter": state["published"], "training": state}
    store.save(adapters={EPISODE: published or None, TRAINING: tensors}, about={FACTS: facts})
    return adapter


def load_episode(store: MemoryStore, memory: EpisodicMemory) -> bool:
    """Go on where the last process stopped, or was killed; return whether anything was found.

    Raises:
        MemoryStoreError: no valid version, or an episode of another model or shape of adapter.
    """
    if store.newest() is None:
        return False
    found = store.load(parts=(ADAPTER,), adapters=(EPISODE, TRAINING))
    facts = found.about.get(FACTS) or {}
    training, adapter = found.adapters.get(TRAINING), _adapter(found.adapters.get(EPISODE), facts)
    if training is not None:
        memory.load_state(training, facts["training"])
    if adapter is not None and int(adapter.metadata["steps"]) > memory.steps:
        memory.resume(adapter)
    return training is not None or adapter is not None


def forget_episode(store: MemoryStore) -> None:
    """Take the episode out of the store; what other processes keep there stays. Raises MemoryStoreError."""
    if store.newest() is not None:
        store.save(adapters={EPISODE: None, TRAINING: None}, about={FACTS: None})


class SharedAdapter:
    """The newest adapter of a store that another process writes. Ask as often as you like: news are cheap to rule out.

    Attributes:
        adapter: in use, or None.
        diagnosis: why the newest one is not, or None.
    """

    def __init__(self, store: MemoryStore, expected: Mapping[str, Any], use: Callable[[Adapter | None], None]) -> None:
        """Take the store, the facts that an adapter must agree with, and who is handed each new one (and None).

        ``use`` may raise a ComeNavError for an adapter that does not fit; the one before then stays.
        """
        self.store, self._expected, self._use = store, dict(expected), use
        self.adapter: Adapter | None = None
        self.diagnosis: str | None = None
        self._version: int | None = None
        self._mark: str | None = None

    def poll(self) -> bool:
        """Take over a newer adapter, if there is one that fits; return whether the adapter in use changed."""
        version = self.store.newest()
        if version is None or version == self._version:
            return False
        try:
            mark = self.store.mark(ADAPTER, version, EPISODE)
            changed = mark != self._mark and self._take()
        except ComeNavError as error:  # pruned while it was read, damaged, or of another model
            self.diagnosis = str(error)
            self._version = version
            return False
        self._version, self._mark = version, mark
        return changed

    def _take(self) -> bool:
        found = self.store.load(parts=(ADAPTER,), adapters=(EPISODE,))
        adapter = _adapter(found.adapters.get(EPISODE), found.about.get(FACTS) or {})
        if adapter is not None and (reason := disagreement(self._expected, adapter.metadata)) is not None:
            raise MemoryStoreError(f"{self.store.path}: the adapter does not fit: {reason}")
        self._use(adapter)
        self.adapter, self.diagnosis = adapter, None
        return True


def _adapter(tensors: Mapping[str, Any] | None, facts: Mapping[str, Any]) -> Adapter | None:
    metadata = facts.get("adapter")
    return Adapter(dict(tensors), dict(metadata)) if tensors is not None and metadata else None


def _facts(store: MemoryStore) -> dict[str, Any]:
    """Return what the newest valid version says of the episode."""
    try:
        return dict(store.load(parts=()).about.get(FACTS) or {})
    except MemoryStoreError:
        return {}
