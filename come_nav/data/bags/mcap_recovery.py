"""Reads an mcap file whose end is missing: a killed recorder writes no index, but all chunks before that are whole."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from rosbags.rosbag2 import Reader as RosbagReader2
from rosbags.rosbag2.errors import ReaderError
from rosbags.rosbag2.storage_mcap import ChunkInfo

from come_nav.data.bags.mcap_reader import MAGIC, AnyProfileMcapReader

CHUNK, DATA_END, FOOTER = 0x06, 0x0F, 0x02


class CutMcapReader(AnyProfileMcapReader):
    """mcap storage without a footer: walks the records and indexes every chunk that is complete."""

    def _open(self) -> None:
        assert self.bio is not None
        self.bio.seek(0)
        if self.bio.read(8) != MAGIC:
            raise ReaderError("file magic is invalid")
        records = list(_whole_records(self.bio))
        self.data_start = 8
        self.data_end = records[-1][1] if records else 8
        self.meta_scan()
        self.name_types_as_ros2()
        assert self.statistics is not None
        counts = self.statistics.channel_message_counts
        self.connections = [link._replace(msgcount=counts.get(link.id, 0)) for link in self.connections]
        self.chunks = [_chunk_info(self.bio, first, last, counts) for first, last, kind in records if kind == CHUNK]
        count, start, end = self.statistics.message_count, self.statistics.start_time, self.statistics.end_time
        self.metadata = self.metadata._replace(
            duration=end - start + 1 if count else 0,
            start_time=start if count else 2**63 - 1,
            end_time=end + 1 if count else 0,
            message_count=count,
        )


class RecoveringReader2(RosbagReader2):
    """rosbag2 reader of one mcap file that tolerates a missing end."""

    STORAGE_PLUGINS = {**RosbagReader2.STORAGE_PLUGINS, ".mcap": CutMcapReader}  # noqa: RUF012 - as in the base class

    def __init__(self, path: Path) -> None:
        super().__init__(path)


def _whole_records(bio: BinaryIO) -> Any:
    """Yield (first byte, byte after, kind) of each complete record of the data section."""
    bio.seek(0, 2)
    size = bio.tell()
    position = 8
    while position + 9 <= size:
        bio.seek(position)
        kind, length = struct.unpack("<BQ", bio.read(9))
        end = position + 9 + length
        if end > size or kind in (DATA_END, FOOTER):
            return
        yield position, end, kind
        position = end


def _chunk_info(bio: BinaryIO, first: int, last: int, counts: dict[int, int]) -> ChunkInfo:
    """Describe a chunk as the missing index would; which channels it holds is not known, so all are claimed."""
    bio.seek(first + 9)
    start, end, uncompressed, _ = struct.unpack("<QQQI", bio.read(28))
    head = BytesIO(bio.read(64))
    (name_length,) = struct.unpack("<I", head.read(4))
    compression = head.read(name_length).decode()
    (compressed,) = struct.unpack("<Q", head.read(8))
    return ChunkInfo(start, end, first, last - first, {}, 0, compression, compressed, uncompressed, dict(counts))
