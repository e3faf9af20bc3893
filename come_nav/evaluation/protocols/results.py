"""Results on disk: one JSON line per window and row, written as it is computed, so that a killed run resumes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from come_nav.core.errors import ConfigError, DataError, StorageError
from come_nav.core.files import storage_error, writable_folder
from come_nav.evaluation.protocols.protocol import Window
from come_nav.evaluation.protocols.rows import Row, evaluate

Record = dict[str, Any]


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits that name ``settings`` (JSON values), whatever the order of its keys."""
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class ResultStore:
    """The file ``results.jsonl`` of one evaluation: its settings in the first line, then one record per line.

    A record is kept under (recording, start frame, goal frame, row): another number of windows may pair a start with
    another goal. Opening the file again gives back what is there; a last line that a kill tore is dropped. One process
    at a time may hold the file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], fresh: bool = False) -> None:
        """Open or create ``path``.

        Args:
            path: the JSON lines file.
            settings: all that a record depends on, as JSON values; not the number of windows, nor timing.
            fresh: forget what is there.

        Raises:
            ConfigError: when the file holds results of other settings, naming the first differences.
            StorageError: when it cannot be written, or another process is writing it.
            DataError: when a line inside the file is damaged.
        """
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self.hash = settings_hash(self.settings)
        self._records: dict[tuple[str, int, int | None, str], Record] = {}
        writable_folder(path.parent)
        try:
            self._file = path.open("ab+")
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            self._lock()
            if fresh:
                self._file.truncate(0)
            if not self._load():
                self._write({"hash": self.hash, "settings": self.settings})
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ResultStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, window: Window, row: str) -> Record | None:
        """Return the record of ``row`` on ``window``, or None."""
        return self._records.get((window.recording_id, window.start, window.goal, row))

    def add(self, record: Record) -> None:
        """Append one record; it is on the disk when this returns."""
        self._write(record)
        self._keep(record)

    def take(self, path: Path) -> int:
        """Take over the records of another file of the same settings that are not here; return how many.

        Raises:
            ConfigError: when it holds results of other settings.
            DataError: when a line inside it is damaged.
        """
        with ResultStore(path, self.settings) as other:
            missing = [record for key, record in other._records.items() if key not in self._records]
        for record in missing:
            self.add(record)
        return len(missing)

    def table(self, windows: Sequence[Window], row: str) -> list[Record]:
        """Return the records of ``row`` on those of ``windows`` that have one, in the order of ``windows``."""
        found = (self.get(window, row) for window in windows)
        return [record for record in found if record is not None]

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(
                f"{self.path}: another evaluation is writing it; wait, or choose another --out"
            ) from error

    def _load(self) -> bool:
        """Read what is there and cut off a torn last line; return False for a file without a whole first line."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = json.loads(line)
                if number == 1:
                    self._check_settings(record["settings"])
                else:
                    self._keep(record)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}: line {number} is damaged; delete that line, or start over with --fresh"
                ) from error
        return bool(whole)

    def _check_settings(self, there: Mapping[str, Any]) -> None:
        if there == self.settings:
            return
        before, now = flat(there), flat(self.settings)
        changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        shown = ", ".join(f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ConfigError(
            f"{self.path} holds results of other settings ({shown}{more}); choose another --out, "
            "or --fresh to start over"
        )

    def _keep(self, record: Record) -> None:
        goal = record["targets"][-1] if "targets" in record else record.get("goal")  # without one it counts for none
        self._records[str(record["recording"]), int(record["start"]), goal, str(record["row"])] = record

    def _write(self, record: Record) -> None:
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_error(self.path, error) from error


def evaluate_windows(
    windows: Sequence[Window],
    rows: Sequence[Row],
    store: ResultStore,
    on_record: Callable[[Record], None] = lambda record: None,
) -> None:
    """Evaluate every row on every window that ``store`` does not have yet.

    ``on_record`` is called with every record, those found in the store included, for a progress bar.
    """
    for window in windows:
        for row in rows:
            records = [record for name in row.names if (record := store.get(window, name)) is not None]
            if len(records) < len(row.names):
                records = evaluate(row, window)
                for record in records:
                    if store.get(window, record["row"]) is None:  # a kill may have kept the first of two
                        store.add(record)
            for record in records:
                on_record(record)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as dotted keys with their values."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
