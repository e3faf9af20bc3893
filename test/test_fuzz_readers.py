"""A short run of benchmarks/fuzz_readers.py: mutated files are read or refused in one line, soon, and run nothing."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_readers.py"
SPEC = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
fuzzer = importlib.util.module_from_spec(SPEC)
sys.modules["fuzz_readers"] = fuzzer
SPEC.loader.exec_module(fuzzer)

COUNTS = {"mcap": 30, "sqlite3": 30, "rosbag1": 30, "camera_info": 100, "trajectory": 150, "nwm": 110, "nwm_index": 110}
COUNTS |= {"video": 30, "checkpoint": 26, "official": 60, "training": 60}
EXTRAS = {"training": "pytorch_lightning"}


@pytest.mark.parametrize("name", fuzzer.TARGETS)
def test_mutated_files(name):
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    tally = fuzzer.fuzz(fuzzer.TARGETS[name], COUNTS[name], seed=1)
    assert not tally.tracebacks
    assert not tally.hangs
    assert tally.code_run == 0
    assert tally.read + tally.refused == COUNTS[name]
    assert tally.attacks == (0 if fuzzer.TARGETS[name].attack is None else -(-COUNTS[name] // fuzzer.ATTACK_EVERY))


def make(folder: Path) -> list[Path]:
    (folder / "file").write_bytes(b"0123456789")
    return [folder / "file"]


def test_the_fuzzer_sees_faults():
    tally = fuzzer.fuzz(fuzzer.Target(make, lambda folder: int((folder / "file").read_bytes())), 40, seed=0)
    assert tally.tracebacks
    assert "ValueError" in tally.tracebacks[0]["error"]
    assert fuzzer.mutate(b"0123456789", np.random.default_rng(0)) != b"0123456789"


def test_the_fuzzer_sees_code_that_ran():
    import pickle

    def unguarded(folder: Path) -> None:
        pickle.loads((folder / "file").read_bytes())

    def attack(mark: Path, rng: np.random.Generator) -> bytes:
        return pickle.dumps(sys.modules["fuzz_targets"].attacks(mark)[0])

    tally = fuzzer.fuzz(fuzzer.Target(make, unguarded, attack, "file"), 51, seed=3)
    assert tally.attacks == 3
    assert tally.code_run == 3


def test_a_process_that_dies_is_counted_and_gone_on_from(monkeypatch):
    def dies(folder: Path) -> None:
        if (folder / "file").read_bytes().startswith(b"\xff"):
            os._exit(7)

    monkeypatch.setitem(fuzzer.TARGETS, "file", fuzzer.Target(make, dies))
    monkeypatch.setattr(fuzzer, "mutate", lambda data, rng: b"\xff" if rng.integers(20) == 0 else data)
    monkeypatch.setattr(fuzzer.multiprocessing, "get_context", lambda kind: multiprocessing_fork())
    tally = fuzzer.fuzz_apart("file", 60, seed=0)
    assert tally.mutations == 60
    assert tally.died
    assert tally.read + len(tally.died) == 60


def multiprocessing_fork():
    import multiprocessing

    return multiprocessing.context.ForkContext()
