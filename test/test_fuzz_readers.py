"""A short run of benchmarks/fuzz_readers.py: mutated files are read or refused in one line, soon, and run nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_readers.py"
SPEC = importlib.util.spec_from_file_location("fuzz_readers", SCRIPT)
fuzzer = importlib.util.module_from_spec(SPEC)
sys.modules["fuzz_readers"] = fuzzer
SPEC.loader.exec_module(fuzzer)

COUNTS = {"mcap": 30, "sqlite3": 30, "camera_info": 100, "trajectory": 150, "nwm": 110, "checkpoint": 25}


@pytest.mark.parametrize("name", COUNTS)
def test_mutated_files(name):
    tally = fuzzer.fuzz(name, fuzzer.TARGETS[name], COUNTS[name], seed=1)
    assert not tally.tracebacks
    assert not tally.hangs
    assert tally.code_run == 0
    assert tally.read + tally.refused == COUNTS[name]


def test_the_fuzzer_sees_faults(tmp_path):
    def make(folder: Path) -> list[Path]:
        (folder / "file").write_bytes(b"0123456789")
        return [folder / "file"]

    tally = fuzzer.fuzz("file", fuzzer.Target(make, lambda folder: int((folder / "file").read_bytes())), 40, seed=0)
    assert tally.tracebacks
    assert "ValueError" in tally.tracebacks[0]["error"]
    assert fuzzer.mutate(b"0123456789", np.random.default_rng(0)) != b"0123456789"
