"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from come_nav.core.errors import StorageError
from come_nav.core.files import storage_error


@contextmanager
def atomic_folder(target: Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a path at which to make a folder; on success fsync its files and rename it to ``target``.

    Args:
        target: final path. An empty folder there is replaced; one that ``is_ours`` only with ``overwrite``.
        overwrite: the user asked to replace what is there.
        is_ours: tells whether an existing folder is of the kind that is written, so that no other data is deleted.

    Raises:
        StorageError: ``target`` exists, cannot be written, or the disk is full; ``target`` is then as it was.
    """
    _check_free(target, overwrite, is_ours)
    workplace = target.parent / f".{target.name}.{os.getpid()}.tmp"
    try:
        _remove_leftovers(target)
        workplace.mkdir(parents=True)
        made = workplace / target.name
        yield made
        for item in made.iterdir():
            with item.open("rb") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            target.rename(workplace / "replaced")
        made.rename(target)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _check_free(target: Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target.is_dir() and is_ours(target)):
        raise StorageError(f"{target}: exists and is something else, so it is not replaced; choose another name")
    if not overwrite:
        raise StorageError(f"{target}: exists already; choose another name or replace it with --overwrite")


def _remove_leftovers(target: Path) -> None:
    """Delete hidden folders of writers that were killed."""
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        process = leftover.name.split(".")[-2]
        if leftover.is_dir() and process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(leftover, ignore_errors=True)
