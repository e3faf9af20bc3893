"""Loops from libraries that another process linked: the numbers, no compiler loaded, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from come_nav.core import compiled
from come_nav.core.machine_code import libraries
from come_nav.core.machine_code.signature import ctypes_of, describe, flatten

needs_linker = pytest.mark.skipif(
    not compiled.available() or shutil.which("ld") is None or sys.platform != "linux",
    reason="numba or a linker is missing",
)
LOOPS = """
    from typing import NamedTuple
    import numpy as np
    from come_nav.core.compiled import Compiled, inlined

    class Pair(NamedTuple):
        values: np.ndarray
        factor: np.float32

    @inlined
    def scaled(value, factor):
        return value * factor

    @Compiled
    def sums(pair, windows, kept, found):
        '''Write running sums of scaled rows where kept, through memory of its own.'''
        own = np.zeros(pair.values.shape[1], np.float32)
        for row in range(len(pair.values)):
            for column in range(len(own)):
                own[column] += scaled(pair.values[row, column], pair.factor)
                found[row, column] = own[column] if kept[row] else np.float32(np.nan)
        for window in windows:
            found[0, 0] += np.float32(window)

    @Compiled
    def speaks(array):
        array[0] = len(str(array[0]))
"""
PROGRAM = """
    import sys
    import numpy as np
    import loops
    values = np.random.default_rng(0).random((5, 7), np.float32)
    kept, found = np.array([True, False, True, True, False]), np.zeros((5, 7), np.float32)
    for _ in range(2):
        loops.sums(loops.Pair(values, np.float32(0.5)), (1, 2), kept, found)
    wanted = np.cumsum(np.float32(0.5) * values, axis=0)
    wanted[~kept] = np.nan
    wanted[0, 0] += 3
    assert np.allclose(found, wanted, rtol=1e-6, equal_nan=True), found - wanted
    print("numba" in sys.modules, "torch" in sys.modules)
"""


def run(folder: Path, program: str, **environment: str) -> str:
    (folder / "loops.py").write_text(textwrap.dedent(LOOPS))
    own = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)]), **environment}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=own, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_linker
def test_a_loop_runs_without_the_compiler_in_its_process(tmp_path: Path) -> None:
    assert run(tmp_path, PROGRAM) == "False False"
    (library,) = (tmp_path / "__pycache__").glob("loops.sums-*.so")
    made = library.stat().st_mtime_ns
    assert run(tmp_path, PROGRAM) == "False False"
    assert library.stat().st_mtime_ns == made  # found, not made again


@needs_linker
def test_without_a_linker_or_with_a_broken_library_numba_compiles_here(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    assert run(tmp_path, PROGRAM, PATH=str(tmp_path / "bin"), NUMBA_CACHE_DIR=str(tmp_path / "a")) == "True False"
    assert run(tmp_path, PROGRAM, NUMBA_CACHE_DIR=str(tmp_path / "b")) == "False False"
    (library,) = (tmp_path / "b").glob("*.so")
    library.write_bytes(library.read_bytes()[:1000])
    assert run(tmp_path, PROGRAM, NUMBA_CACHE_DIR=str(tmp_path / "b")) == "True False"


@needs_linker
def test_what_needs_python_is_compiled_here_and_not_tried_again(tmp_path: Path) -> None:
    program = """
        import numpy as np
        import loops
        array = np.array([12345])
        loops.speaks(array)
        print(array[0])
    """
    assert run(tmp_path, program) == "5"
    (refused,) = (tmp_path / "__pycache__").glob("loops.speaks-*.so.none")
    assert not list((tmp_path / "__pycache__").glob("loops.speaks-*.so"))
    before = refused.stat().st_mtime_ns
    assert run(tmp_path, program) == "5"
    assert refused.stat().st_mtime_ns == before


class Pair(NamedTuple):
    values: Any
    number: Any


def test_arguments_are_described_and_flattened() -> None:
    array = np.zeros((2, 3), np.float32)
    given = (Pair(array, np.float32(2.5)), (1, True), 0.5)
    told = describe(given)
    assert told is not None
    assert told[-1][0] == ("tuple", __name__, "Pair", (("array", "float32", 2), ("number", "float32")))
    flat = flatten(given)
    assert flat == [array.ctypes.data, 2, 3, 2.5, 1, True, 0.5]
    assert len(ctypes_of(told[-1])) == len(flat)


@pytest.mark.parametrize(
    "odd",
    [np.zeros((4, 4))[:, ::2], np.zeros(3, complex), np.array(["a"]), np.array(1.0), "text", None, [1, 2]],
    ids=["strided", "complex", "text array", "no axis", "text", "none", "list"],
)
def test_what_a_library_cannot_take_is_none(odd: Any) -> None:
    assert describe((np.zeros(3), odd)) is None


def test_other_sources_arguments_and_processors_have_other_libraries(tmp_path: Path, monkeypatch) -> None:
    source = tmp_path / "loops.py"
    source.write_text("1")
    first = libraries._key(source, "f", [("number", "int64")])
    assert first == libraries._key(source, "f", [("number", "int64")])
    others = {libraries._key(source, "g", [("number", "int64")]), libraries._key(source, "f", [("number", "float32")])}
    source.write_text("2")
    others.add(libraries._key(source, "f", [("number", "int64")]))
    source.write_text("1")
    monkeypatch.setattr(libraries, "_processor", lambda: "another one")
    others.add(libraries._key(source, "f", [("number", "int64")]))
    assert len(others | {first}) == 5


@pytest.mark.parametrize("problem", [OSError("no source"), RuntimeError("no home"), PackageNotFoundError("numba")])
def test_what_cannot_be_told_is_no_library(monkeypatch, problem: Exception) -> None:
    def raises(*arguments: Any) -> None:
        raise problem

    monkeypatch.setattr(libraries, "_can_be_linked", lambda function: True)
    monkeypatch.setattr(libraries, "_key", raises)
    assert libraries.library_call(raises, describe((np.zeros(3),)) or ()) is None


def test_functions_of_the_main_program_and_of_functions_are_not_linked() -> None:
    def inner(array: Any) -> None:
        array[0] = 1

    assert not libraries._can_be_linked(inner)
    assert libraries.library_call(inner, describe((np.zeros(3),)) or ()) is None
