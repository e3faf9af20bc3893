"""sqlite3 storage of rosbag2: paths with any sign in them, and what a killed recorder left in its write-ahead log."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from come_nav.data.bags.sqlite_beside import WAL_SUFFIX, beside, has_wal


class _UriPath(type(Path())):  # type: ignore[misc]
    """A path that is written into an SQLite URI, where '#', '?' and '%' would mean something else."""

    def __format__(self, spec: str) -> str:
        return format(quote(str(self)), spec)


class SqliteReader(Sqlite3Reader):
    """Reads one .db3 file. Messages that are still in its write-ahead log are read too, from a copy.

    SQLite would write into the user's folder to read the log in place.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_UriPath(path))
        self._named = path
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    def open(self) -> None:
        """Open; raise what the base class raises."""
        if has_wal(self._named):
            self._copy = tempfile.TemporaryDirectory(prefix="come_nav_bag_")
            self.path = _UriPath(_merged_copy(self._named, Path(self._copy.name)))
        try:
            super().open()
        except BaseException:
            self._forget_copy()
            raise

    def close(self) -> None:
        """Close and delete the copy, if one was made."""
        super().close()
        self._forget_copy()

    def _forget_copy(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None


def check_sqlite_length(path: Path) -> None:
    """Raise OSError when a database is shorter than its header says: sqlite itself reads a cut last page as zeros."""
    if has_wal(path):
        return  # pages may still be in the log; sqlite checks them there
    with path.open("rb") as handle:
        header = handle.read(100)
    if len(header) < 100 or not header.startswith(b"SQLite format 3"):
        return  # rosbags says what is wrong with it
    page_bytes = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big") if header[24:28] == header[92:96] else 0  # else the count is stale
    expected = pages * (65536 if page_bytes == 1 else page_bytes)
    if path.stat().st_size < expected:
        raise OSError(f"{path.stat().st_size} of {expected} bytes")


def _merged_copy(path: Path, folder: Path) -> Path:
    import apsw

    target = folder / "bag.db3"
    shutil.copyfile(path, target)
    shutil.copyfile(beside(path, WAL_SUFFIX), beside(target, WAL_SUFFIX))
    connection: Any = apsw.Connection(str(target))
    try:
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()  # moves the log into the database
    finally:
        connection.close()
    return target
