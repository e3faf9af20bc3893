"""Where a loop's library lies, how it is made the first time, and how it is called.

A compiler in memory costs a process 130 MB, and a robot runs many processes. So another process compiles a loop, links
it with the system's linker (``ld``, part of binutils) and leaves the library where numba keeps machine code; whoever
comes later loads a few kilobytes. Where there is no linker, or anything else is not as expected, there is no library,
and loops are compiled in the process that runs them.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from come_nav.core.machine_code import signature
from come_nav.core.machine_code.signature import Description

ENTRY = "come_nav_loop"  # what the function is called in its library
LONGEST_S = 300.0  # that compiling and linking may take


def library_call(function: Callable[..., Any], wanted: Description) -> Callable[..., None] | None:
    """Return a function that runs the machine code of ``function``; None where there is none.

    Args:
        function: a loop at the top level of a module that can be imported by its name.
        wanted: the tuple of its arguments, described. The function must be called with such arguments.
    """
    if not _can_be_linked(function):
        return None
    arguments = wanted[-1]
    try:
        path = _library(function, arguments)
    except (OSError, RuntimeError, importlib.metadata.PackageNotFoundError):  # no source, no home, no versions
        return None
    return _loaded(path, arguments) if path is not None else None


def _can_be_linked(function: Callable[..., Any]) -> bool:
    by_name = function.__module__ != "__main__" and function.__qualname__.isidentifier()
    return by_name and bool(sys.executable) and sys.platform == "linux" and shutil.which("ld") is not None


def _library(function: Callable[..., Any], wanted: Sequence[Description]) -> Path | None:
    """Return the library's file, made if need be; None where it cannot be made."""
    source = Path(function.__code__.co_filename)
    name = f"{source.stem}.{function.__name__}-{_key(source, function.__name__, wanted)}.so"
    folders = [folder for folder in _folders(source) if folder.is_dir() or os.access(folder.parent, os.W_OK)]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    for folder in folders:
        refused = folder / f"{name}.none"
        if refused.exists():
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if _made(function, wanted, folder / name):
                return folder / name
            refused.touch()  # the next process need not try again
        except (OSError, subprocess.SubprocessError):  # another folder may have room
            continue
    return None


def _folders(source: Path) -> Iterator[Path]:
    """Yield where machine code is kept, as numba does: what its variable names, beside the source, the user's cache."""
    if own := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(own)
        return
    yield source.parent / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "come_nav"


def _key(source: Path, name: str, wanted: Sequence[Description]) -> str:
    """Return a name for all that machine code depends on."""
    versions = [importlib.metadata.version(package) for package in ("numba", "llvmlite")]
    here = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))]
    parts = [source.read_text(encoding="utf-8"), name, wanted, versions, _processor(), here]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@cache
def _processor() -> str:
    """Return what tells processors apart whose machine code differs."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    first = {line.split(":")[0].strip(): line for line in reversed(lines) if ":" in line}
    told = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join([platform.machine(), *(first.get(key, "") for key in told)])


def _made(function: Callable[..., Any], wanted: Sequence[Description], path: Path) -> bool:
    """Let another process compile and link; say whether there is a library now."""
    order = {"module": function.__module__, "name": function.__name__, "arguments": wanted, "path": str(path)}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "come_nav.core.machine_code.linking", json.dumps(order)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=LONGEST_S, check=False)
    return done.returncode == 0 and path.is_file()


def sealed(code: bytes) -> bytes:
    """Return a library with its digest behind it, which loaders skip: half of a file would end the process."""
    return code + hashlib.sha256(code).digest()


def _is_whole(path: Path) -> bool:
    content = path.read_bytes()
    return content == sealed(content[:-32])


def _loaded(path: Path, wanted: Sequence[Description]) -> Callable[..., None] | None:
    try:
        if not _is_whole(path):
            return None
        entry = getattr(ctypes.CDLL(str(path)), ENTRY)
    except (OSError, AttributeError):  # of another system
        return None
    entry.restype, entry.argtypes = ctypes.c_int, [ctypes.c_void_p] * 2 + signature.ctypes_of(wanted)

    def call(*arguments: Any) -> None:
        nothing, problem = ctypes.c_void_p(), ctypes.c_void_p()
        status = entry(ctypes.byref(nothing), ctypes.byref(problem), *signature.flatten(arguments))
        if status:
            raise MemoryError(f"{path.name} ended with status {status}: no memory was left")

    return call
