"""Two processes evaluate half of the windows each; the table is that of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from come_nav.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["evaluate", "--suite", "planning", "--worlds", "10000-10001", "--windows", "6", "--rows", "trivial,model"]
SEARCH = ["planner.initial_samples=12", "planner.samples=6", "planner.elites=3", "planner.iterations=2"]
WORDS += ["--no-report", "--device", "cpu", *(word for own in SEARCH for word in ("--set", own))]


def start(out: Path, share: str) -> subprocess.Popen[str]:
    """Start what evaluates a share, as a user would on each of two machines."""
    command = [sys.executable, "-m", "come_nav", *WORDS, "--out", str(out), "--share", share]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def records(path: Path) -> dict[tuple[str, int, str], dict[str, float]]:
    """Return the records of a file of results without what differs from run to run."""
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    timing = ("duration_s", "seconds", "wall_s", "cpu_s", "plan_s")
    return {
        (own["recording"], own["start"], own["row"]): {key: own[key] for key in own if key not in timing}
        for own in lines
    }


def test_two_processes_evaluate_what_one_does(tmp_path: Path) -> None:
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    running = [start(shared, f"{number}/2") for number in (1, 2)]
    for process in running:
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
    halves = [records(shared / f"share-{number}-of-2" / "results.jsonl") for number in (1, 2)]
    assert not set(halves[0]) & set(halves[1])
    assert main([*WORDS, "--out", str(shared)]) == 0
    assert main([*WORDS, "--out", str(alone)]) == 0
    found, wanted = (records(folder / "results.jsonl") for folder in (shared, alone))
    assert set(found) == set(wanted) == set(halves[0]) | set(halves[1])
    for key, record in wanted.items():
        assert found[key]["ate_m"] == pytest.approx(record["ate_m"], abs=1e-6), key


@pytest.mark.parametrize("share", ["0/2", "3/2", "half"])
def test_a_share_that_is_none_is_refused(share, tmp_path, capsys) -> None:
    assert main([*WORDS, "--out", str(tmp_path / "out"), "--share", share]) == 1
    assert "--share must be K/N" in capsys.readouterr().err


def test_a_share_of_other_settings_is_refused(tmp_path, capsys) -> None:
    trivial = ["evaluate", "--suite", "planning", "--worlds", "10000", "--rows", "trivial", "--no-report"]
    out = ["--out", str(tmp_path / "out")]
    assert main([*trivial, "--windows", "2", *out, "--share", "1/2"]) == 0
    assert main([*trivial, "--windows", "2", *out, "--horizon", "1"]) == 1
    assert "holds results of other settings" in capsys.readouterr().err
