"""Benchmarks are run seldom: what they import from the package must still be there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").startswith("come_nav"):
            print(f"{name}: {error}")
"""


def test_every_benchmark_can_be_imported():
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert len(names) > 10
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == ""


def test_the_robot_is_not_asked_in_mazes_that_were_recorded_without_depth(tmp_path):
    command = [sys.executable, "sequence_memories.py", "--recorded", str(tmp_path), "--robot", "tiny"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert "--robot needs depth and a calibrated camera" in done.stderr


def test_documents_that_share_trainings_keep_records_of_their_own(tmp_path):
    code = f"""
import argparse, json
from pathlib import Path
import sequence_memories as own
work = Path({str(tmp_path)!r})
files = [own.records_file(argparse.Namespace(work=work, out=work / name)) for name in ("built_in.json", "real.json")]
print(json.dumps([str(file.name) for file in files]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.strip() == '["records_built_in.json", "records_real.json"]'
