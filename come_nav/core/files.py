"""Atomic writes: a kill or a full disk at any moment leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from come_nav.core.errors import ComeNavError, StorageError

LOCK_POLL_S = 0.02


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it over ``path``.

    Raises:
        StorageError: when the folder cannot be written or the disk is full; ``path`` is then unchanged.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with suppress(OSError):  # absent after a success; its folder may not even exist after a failure
            temporary.unlink()


def temporary_beside(path: Path) -> Path:
    """Return this process's temporary name for ``path``; processes of other hosts may have the same number."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40]
    return path.with_name(f".{path.name}.{host}.{os.getpid()}.tmp")


def atomic_write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 ``text`` to ``path`` atomically (see :func:`atomic_path`).

    Bytes of file names that are no UTF-8 are spelled ``\xfc``.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")


def printable(name: str) -> str:
    r"""Return a file name that any encoder takes: bytes that are no UTF-8 are spelled ``\xfc``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def writable_folder(path: Path) -> Path:
    """Create ``path`` if need be and check that a file can be written in it; raise StorageError otherwise."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = temporary_beside(path / "probe")
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise storage_error(path, error) from error
    return path


@contextmanager
def one_writer(lock: Path, refused: ComeNavError, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the file ``lock`` while the block runs; the system lets go of it when the process dies.

    Raises:
        ComeNavError: ``refused``, where another process held it for ``wait_s``.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as handle:
        give_up_s = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_s:
                    raise refused from None
                time.sleep(LOCK_POLL_S)
        yield


def storage_error(path: Path, error: OSError) -> StorageError:
    """Translate an OSError of a write into one line that names the file and the way out."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{path}: no space left on the disk; free some or choose another folder")
    reason = error.strerror or str(error)
    return StorageError(f"{path}: cannot be written ({reason}); choose a folder you may write to")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
