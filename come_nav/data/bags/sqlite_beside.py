"""What SQLite keeps beside a database while it writes, and a killed recorder leaves there."""

from __future__ import annotations

from pathlib import Path

WAL_SUFFIX, JOURNAL_SUFFIX = "-wal", "-journal"


def has_wal(path: Path) -> bool:
    """Tell whether a write-ahead log with content lies beside a .db3 file."""
    log = beside(path, WAL_SUFFIX)
    return path.suffix == ".db3" and log.is_file() and log.stat().st_size > 0


def beside(path: Path, suffix: str) -> Path:
    """Return the file that SQLite keeps beside ``path``."""
    return path.with_name(path.name + suffix)
