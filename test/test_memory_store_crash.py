"""The memory store under fire: writers killed at random moments, readers beside writers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from come_nav.memory.store.store import MemoryStore, StoreSettings

FORK = multiprocessing.get_context("fork")
CELLS = 20_000


def contents(number: int) -> dict[str, np.ndarray]:
    """A cloud whose every value tells which save it belongs to."""
    return {"xyz": np.full((CELLS, 3), number, np.float32), "stamp_s": np.full(CELLS, number, np.float64)}


def whole(arrays: dict[str, np.ndarray]) -> int:
    """Return the save that the arrays belong to; fail if they are a mixture."""
    values = {float(value) for array in arrays.values() for value in np.unique(array)}
    assert len(values) == 1
    return int(values.pop())


def _write_forever(path: Path, first: int, committed: int) -> None:
    store = MemoryStore(path, StoreSettings(keep_versions=2))
    for number in range(first, first + 100_000):
        store.save(cloud=contents(number), keyframes=contents(number))
        os.write(committed, number.to_bytes(8, "little"))


def test_kill_9_at_any_moment_leaves_a_loadable_store(tmp_path):
    rng = np.random.default_rng(0)
    store = MemoryStore(tmp_path)
    store.save(cloud=contents(0), keyframes=contents(0))
    last = 0
    for trial in range(12):
        reading, writing = os.pipe()
        writer = FORK.Process(target=_write_forever, args=(tmp_path, 1000 * (trial + 1), writing))
        writer.start()
        os.close(writing)
        time.sleep(float(rng.uniform(0.005, 0.12)))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        with os.fdopen(reading, "rb") as pipe:
            reported = pipe.read()
        if reported:
            last = int.from_bytes(reported[-8:], "little")
        stored = store.load()
        assert whole(stored.cloud) == whole(stored.keyframes)
        assert whole(stored.cloud) in (last, last + 1) or whole(stored.cloud) == 1000 * (trial + 1), (
            "the newest version that save() returned from, or one that was complete before the kill"
        )
        last = whole(stored.cloud)
    number = store.save(about={"after": "crashes"})
    assert store.load().version == number
    assert store.leftovers() == []
    assert all(report.diagnosis is None for report in store.verify())
    assert len(store.verify()) <= 3


@pytest.mark.parametrize("writers", [1, 2])
def test_readers_beside_writers_see_whole_versions_only(tmp_path, writers):
    store = MemoryStore(tmp_path)
    store.save(cloud=contents(0), keyframes=contents(0))
    processes, pipes = [], []
    for index in range(writers):
        reading, writing = os.pipe()
        processes.append(FORK.Process(target=_write_forever, args=(tmp_path, 1_000_000 * (index + 1), writing)))
        processes[-1].start()
        os.close(writing)
        pipes.append(reading)
    seen = set()
    try:
        end_s = time.monotonic() + 1.0
        while time.monotonic() < end_s:
            stored = store.load()
            assert whole(stored.cloud) == whole(stored.keyframes)
            seen.add(stored.version)
    finally:
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        for pipe in pipes:
            os.close(pipe)
    assert len(seen) > 1
