"""Readers over rosbags that seek in ROS 1 bags, unpack compressed files and read cut-off mcap files."""

from __future__ import annotations

import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Collection, Generator
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import Any

from rosbags.rosbag1 import Reader as RosbagReader1
from rosbags.rosbag2 import Reader as RosbagReader2
from rosbags.rosbag2.reader import DirectoryReader

from come_nav.data.bags.mcap_reader import AnyProfileMcapReader
from come_nav.data.bags.sqlite_reader import SqliteReader


class SeekingReader1(RosbagReader1):
    """ROS 1 reader whose time ranges start by bisection; the base class walks the whole index each time."""

    def messages(
        self, connections: Collection[Any] = (), start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Any, int, bytes], None, None]:
        """Yield (connection, time, bytes) in time order; several iterations may run at once."""
        view = copy(self)
        view.current_chunk = (-1, BytesIO())  # the chunk cache is per iteration
        view.indexes = {key: _between(entries, start, stop) for key, entries in self.indexes.items()}
        return RosbagReader1.messages(view, connections)


class FolderReader(DirectoryReader):
    """rosbag2 folder with metadata.yaml."""

    STORAGE_PLUGINS = {"mcap": AnyProfileMcapReader, "sqlite3": SqliteReader}  # noqa: RUF012 - as in the base class


class BagReader2(RosbagReader2):
    """rosbag2 folder or one of its storage files."""

    STORAGE_PLUGINS = {  # noqa: RUF012 - as in the base class
        "dir": FolderReader,
        ".mcap": AnyProfileMcapReader,
        ".db3": SqliteReader,
    }


class UnpackingReader2(BagReader2):
    """rosbag2 reader of a single zstd-compressed storage file named without its metadata.yaml."""

    def __init__(self, path: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="come_nav_bag_")
        unpacked = Path(self._folder.name) / path.stem
        from backports import zstd

        try:
            with path.open("rb") as packed, zstd.open(packed, "rb") as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target)
            super().__init__(unpacked)
        except BaseException:
            self._folder.cleanup()
            raise

    def close(self) -> None:
        """Close and delete the unpacked copy."""
        super().close()
        self._folder.cleanup()


def open_reader(path: Path, recover: bool) -> Any:
    """Open one rosbag2 folder or storage file, or one ROS 1 bag; ``recover`` reads cut-off mcap files."""
    reader: Any
    if path.suffix == ".bag":
        reader = SeekingReader1(path)
    elif path.suffix == ".zstd":
        reader = UnpackingReader2(path)
    elif path.suffix == ".mcap" and recover:
        from come_nav.data.bags.mcap_recovery import RecoveringReader2

        reader = RecoveringReader2(path)
    else:
        reader = BagReader2(path)
    reader.open()
    return reader


def _between(entries: list[Any], start: int | None, stop: int | None) -> list[Any]:
    first = 0 if start is None else bisect_left(entries, start, key=_entry_time)
    last = len(entries) if stop is None else bisect_left(entries, stop, key=_entry_time)
    return entries[first:last]


def _entry_time(entry: Any) -> int:
    return int(entry.time)
