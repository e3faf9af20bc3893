"""One reader for rosbag2 (mcap, sqlite3, zstd-compressed) and ROS 1 bags, without a ROS installation.

Formats are read by ``rosbags``; this file adds what a user needs around it: any spelling of the path, one kind of
error, seeking, and handles that survive a fork, so that data-loader workers can share a recording.
"""

from __future__ import annotations

import errno
import heapq
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from come_nav.core.errors import ComeNavError, DataError, suggest
from come_nav.data.bags.ros_types import MessageDecoder, header_stamp_ns
from come_nav.data.bags.storage import BagFiles, locate_bag, open_readers

READABLE = ("cdr", "ros1")  # serialisation formats
CDR_LITTLE_ENDIAN = b"\x00\x01\x00\x00"
FOREIGN_WORDS = ("not supported", "Unsupported", "not implemented")  # of rosbags, for what is sound but of another kind
KINDS = "write it anew as mcap or sqlite3 with CDR messages, uncompressed or zstd (ros2 bag convert)"


@dataclass(frozen=True)
class TopicInfo:
    """One line of the topic table; ``rate_hz`` is the mean over the bag's duration."""

    name: str
    type: str
    count: int
    rate_hz: float


@dataclass(frozen=True)
class BagMessage:
    """One recorded message, still serialised. ``log_ns`` is when the recorder wrote it."""

    topic: str
    type: str
    log_ns: int
    raw: bytes
    decoder: MessageDecoder

    @property
    def header_ns(self) -> int:
        """Acquisition time in the header, read without decoding the body; ``log_ns`` where the header holds zero."""
        return header_stamp_ns(self.raw, self.decoder.is_ros1) or self.log_ns

    @property
    def has_stamp(self) -> bool:
        """Whether the header holds a time."""
        return header_stamp_ns(self.raw, self.decoder.is_ros1) != 0

    def decode(self) -> Any:
        """Return the message object; raise DataError when the bytes do not fit the type."""
        return self.decoder.decode(self.raw, self.type)


class Bag:
    """A bag open for reading. Use as a context manager, or call :meth:`close`.

    Attributes:
        path: what the user named.
        storage: ``mcap``, ``sqlite3`` or ``rosbag1``.
        topics: topic name -> :class:`TopicInfo`, only topics with messages.
        custom_data: free facts of metadata.yaml, decoded.
        warnings: what was repaired or assumed while opening.
    """

    def __init__(self, files: BagFiles, recover: bool = False) -> None:
        self.path = files.path
        self.storage = files.storage
        self.custom_data = dict(files.custom_data)
        self.warnings = list(files.warnings)
        self._files, self._recover = files, recover
        self._decoders = {is_ros1: MessageDecoder(is_ros1) for is_ros1 in (False, True)}
        self._is_ros1: dict[str, bool] = {}
        self._readers: list[Any] = []
        self._process = -1
        self._open()
        self._note_unreadable()
        filled = [reader for reader in self._readers if reader.message_count]
        self.message_count = sum(reader.message_count for reader in filled)
        if not filled:
            self.close()
            raise DataError(f"{self.path}: the bag is empty (0 messages); record it again")
        self.start_ns = min(reader.start_time for reader in filled)
        self.end_ns = max(reader.end_time for reader in filled) - 1
        self.topics = self._topic_table()

    @property
    def duration_s(self) -> float:
        """Time from the first to the last message."""
        return float((self.end_ns - self.start_ns) * 1e-9)

    def topic(self, name: str) -> TopicInfo:
        """Return the topic ``name``; raise DataError with the near name when the bag has none such."""
        if name not in self.topics:
            raise DataError(f"{self.path}: no topic '{name}' in the bag{suggest(name, self.topics)}")
        return self.topics[name]

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Stream messages in order of recording time, ``start_ns <= log_ns < stop_ns``, of all or the named topics.

        Raises:
            DataError: for an unknown topic, or bytes that cannot be read.
        """
        for name in topics or ():
            self.topic(name)
        if topics is not None and not topics:
            return
        self._open()
        streams = []
        for reader in self._readers:
            wanted = [
                link
                for link in reader.connections
                if _format_of(link) in READABLE and (topics is None or link.topic in topics)
            ]
            if wanted:
                streams.append(reader.messages(wanted, start=start_ns, stop=stop_ns))
        with bag_errors(self._files, self._recover):
            for link, log_ns, raw in heapq.merge(*streams, key=_log_time):
                plain = _plain(raw)
                yield BagMessage(link.topic, link.msgtype, log_ns, plain, self._decoder(link, plain))

    def close(self) -> None:
        """Close the files; reading again reopens them."""
        readers, self._readers = self._readers, []
        if self._process == os.getpid():
            for reader in readers:
                reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": [], "_process": -1}

    def _open(self) -> None:
        if self._readers and self._process == os.getpid():
            return
        with bag_errors(self._files, self._recover):  # a forked worker must not share the parent's file positions
            self._readers = open_readers(self._files, self._recover)
        self._process = os.getpid()

    def _decoder(self, link: Any, raw: bytes) -> MessageDecoder:
        """Return the decoder of a topic; some tools write CDR under the name of ROS 1, so its first message decides."""
        if link.topic not in self._is_ros1:
            is_ros1 = _format_of(link) == "ros1"
            if is_ros1 and raw[:4] == CDR_LITTLE_ENDIAN:
                is_ros1 = self._decoders[True].knowing(link).fits(raw, link.msgtype)
            self._is_ros1[link.topic] = is_ros1
        return self._decoders[self._is_ros1[link.topic]].knowing(link)

    def _note_unreadable(self) -> None:
        links = [link for reader in self._readers for link in reader.connections]
        other = sorted({f"{link.topic} ({_format_of(link)})" for link in links if _format_of(link) not in READABLE})
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            self.warnings.append(f"not read, as they are neither CDR nor ROS 1: {', '.join(other[:3])}{more}")

    def _topic_table(self) -> dict[str, TopicInfo]:
        counts: dict[str, int] = {}
        types: dict[str, str] = {}
        for reader in self._readers:
            for link in (link for link in reader.connections if _format_of(link) in READABLE):
                counts[link.topic] = counts.get(link.topic, 0) + link.msgcount
                types.setdefault(link.topic, link.msgtype)
        duration_s = max(self.duration_s, 1e-9)
        return {
            name: TopicInfo(name, types[name], count, (count - 1) / duration_s if count > 1 else 0.0)
            for name, count in sorted(counts.items())
            if count
        }


def open_bag(path: str | os.PathLike[str], *, recover: bool = False) -> Bag:
    """Open a rosbag2 folder, its metadata.yaml, a single .mcap or .db3 (also .zstd), or a ROS 1 .bag.

    Args:
        path: what the user typed.
        recover: read an mcap that a killed recorder left without its index, as far as it is whole.

    Raises:
        DataError: missing, empty, cut off, damaged or of an unknown kind; one line with the way out.
    """
    return Bag(locate_bag(Path(path)), recover)


@contextmanager
def bag_errors(files: BagFiles, recover: bool) -> Iterator[None]:
    """Turn whatever a damaged file makes the parsers raise into one DataError; defects of come_nav pass through."""
    try:
        yield
    except (ComeNavError, GeneratorExit):
        raise
    except PermissionError as error:
        raise DataError(f"{files.path}: no permission to read; check the owner of the file") from error
    except Exception as error:  # rosbags, zstd, sqlite and struct raise dozens of kinds on damaged bytes
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{files.path}: no space to unpack it in {tempfile.gettempdir()}; set TMPDIR") from error
        told = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("rosbags", "apsw")
        reason = " ".join(str(error).split()) if told else f"unreadable bytes, {type(error).__name__}"
        if told and any(word in reason for word in FOREIGN_WORDS):
            raise DataError(f"{files.path}: of a kind that is not read ({reason[:100]}); {KINDS}") from error
        raise DataError(f"{files.path}: damaged or cut off ({reason[:100]}); {_way_out(files, recover)}") from error


def _way_out(files: BagFiles, recover: bool) -> str:
    name = files.files[0].name if files.files else ""  # metadata.yaml may name none
    if name.endswith(".zstd"):
        return "copy it again"
    if files.storage == "rosbag1":
        return f"copy it again or run  rosbag reindex {name}"
    if files.storage == "sqlite3":
        return f"copy it again or run  sqlite3 {name} .recover | sqlite3 repaired.db3"
    return "copy it again" if recover else "copy it again or save what is whole with  come-nav convert IN OUT --recover"


def _format_of(link: Any) -> str:
    return str(
        getattr(link.ext, "serialization_format", "")
        or ("cdr" if hasattr(link.ext, "offered_qos_profiles") else "ros1")
    )


def _log_time(entry: tuple[Any, int, bytes]) -> int:
    return entry[1]


def _plain(raw: bytes) -> bytes:
    """Decompress a message of a message-compressed file that was named without its metadata.yaml."""
    if raw[:4] != b"\x28\xb5\x2f\xfd":  # zstd's magic number; a serialised message starts with 00 0x
        return raw
    from come_nav.data.bags.storage import decompress

    return decompress(raw)
