"""Bags as people's tools and killed recorders leave them: read whole, or refused with a way out that works."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct

import pytest
from data_samples import SECOND, START_NS, BagMaker

from come_nav.core.errors import DataError
from come_nav.data import open_recording
from come_nav.data.bags.bag import open_bag
from come_nav.data.bags.ros_types import typestore


def killed_recorder(folder, tmp_path, count=12):
    """Write a sqlite3 bag whose second half is only in the write-ahead log; return the number of messages."""
    whole = BagMaker().drive(count).write(tmp_path / "whole", "sqlite3")
    source = sqlite3.connect(next(whole.glob("*.db3")))
    writer = sqlite3.connect(tmp_path / "live.db3")
    writer.execute("pragma journal_mode=wal")
    writer.execute("pragma wal_autocheckpoint=0")
    for (statement,) in source.execute("select sql from sqlite_master where sql is not null"):
        writer.execute(statement)
    for table in ("schema", "metadata", "topics", "message_definitions"):
        rows = source.execute(f"select * from {table}").fetchall()
        writer.executemany(f"insert into {table} values ({','.join('?' * len(rows[0]))})", rows)
    rows = source.execute("select * from messages order by timestamp").fetchall()
    half = len(rows) // 2
    writer.executemany("insert into messages values (?,?,?,?)", rows[:half])
    writer.commit()
    writer.execute("pragma wal_checkpoint(TRUNCATE)")
    writer.executemany("insert into messages values (?,?,?,?)", rows[half:])
    writer.commit()
    folder.mkdir()
    for ending in ("", "-wal", "-shm"):
        shutil.copy(tmp_path / f"live.db3{ending}", folder / f"run_0.db3{ending}")
    source.close()
    writer.close()
    return len(rows)


def test_messages_in_the_log_of_a_killed_recorder_are_read(tmp_path):
    count = killed_recorder(tmp_path / "run", tmp_path)
    before = {item.name: item.read_bytes() for item in (tmp_path / "run").iterdir()}
    for path in (tmp_path / "run", tmp_path / "run" / "run_0.db3"):
        with open_bag(path) as bag:
            assert bag.message_count == count == 24
            assert len(list(bag.messages())) == count
            assert any("run_0.db3-wal" in warning for warning in bag.warnings)
    assert {item.name: item.read_bytes() for item in (tmp_path / "run").iterdir()} == before
    with open_recording(tmp_path / "run") as recording:
        assert len(recording) == 12
        assert recording.frame(11).rgb[0, 0, 0] == 11


def test_an_unfinished_transaction_is_told(tmp_path):
    folder = BagMaker().drive(4).write(tmp_path / "run", "sqlite3")
    (folder / "run.db3-journal").write_bytes(b"x" * 512)
    with open_bag(folder) as bag:
        assert any("run.db3-journal" in warning for warning in bag.warnings)


@pytest.mark.parametrize("name", ["run#3", "run?mode=rw", "50%25 done", "a b"])
def test_any_sign_may_be_in_the_path_of_a_sqlite_bag(tmp_path, name):
    folder = BagMaker().drive(4).write(tmp_path / "run", "sqlite3")
    folder = folder.rename(tmp_path / name)
    for path in (folder, folder / "run.db3"):
        with open_recording(path) as recording:
            assert recording.frame(3).rgb[0, 0, 0] == 3


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_an_empty_storage_identifier_is_read_by_the_files_names(tmp_path, storage):
    folder = BagMaker().drive(4).write(tmp_path / "run", storage)
    facts = folder / "metadata.yaml"
    facts.write_text(facts.read_text().replace(f"storage_identifier: {storage}", 'storage_identifier: ""'))
    with open_recording(folder) as recording:
        assert recording.bag.storage == storage
        assert len(recording) == 4
        assert any("storage_identifier is empty" in warning for warning in recording.report.warnings)
    facts.write_text(facts.read_text().replace('storage_identifier: ""', "storage_identifier: rosbag_v9"))
    with pytest.raises(DataError, match="storage_identifier 'rosbag_v9' is not mcap or sqlite3"):
        open_bag(folder)


@pytest.mark.parametrize("compression", ["NONE", "FILE", "MESSAGE"])
def test_newer_metadata_is_passed_by(tmp_path, compression):
    folder = BagMaker().drive(4).write(tmp_path / "run", "mcap", compression)
    facts = folder / "metadata.yaml"
    facts.write_text(facts.read_text().replace("version: 9", "version: 12"))
    with open_recording(folder) as recording:
        assert [int(recording.frame(index).rgb[0, 0, 0]) for index in range(4)] == [0, 1, 2, 3]
        assert any("version 12 is newer" in warning for warning in recording.report.warnings)


def test_a_foreign_compression_is_not_called_damaged(tmp_path):
    folder = BagMaker().drive(4).write(tmp_path / "run", "mcap", "MESSAGE")
    facts = folder / "metadata.yaml"
    facts.write_text(facts.read_text().replace("compression_format: zstd", "compression_format: brotli"))
    with pytest.raises(DataError, match=r"of a kind that is not read .*brotli.*ros2 bag convert"):
        open_bag(folder)


def without_profile(path):
    """Empty the profile of an mcap file; the library's name takes its bytes."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data, 9)
    data[17 : 17 + length] = struct.pack("<II", 0, length - 8) + b"x" * (length - 8)
    path.write_bytes(data)


@pytest.mark.parametrize("cut", [False, True])
def test_an_mcap_without_a_profile_is_read(tmp_path, cut):
    folder = BagMaker().drive(4).write(tmp_path / "run")
    path = folder / "run.mcap"
    without_profile(path)
    if cut:
        os.truncate(path, path.stat().st_size - 40)
    with open_recording(path, recover=cut) as recording:
        assert len(recording) == 4
        assert recording.frame(2).rgb[0, 0, 0] == 2


def text(value):
    return struct.pack("<I", len(value)) + value.encode()


def record(kind, payload):
    return struct.pack("<BQ", kind, len(payload)) + payload


def plain_mcap(path, profile, encodings, messages):
    """Write messages (ns, topic, type name, bytes) into an mcap without index; (schema, message) encoding."""
    parts, numbers = [record(1, text(profile) + text("test"))], {}
    for log_ns, topic, type_name, raw in messages:
        if topic not in numbers:
            number = numbers[topic] = len(numbers) + 1
            schema, encoding = encodings(topic)
            parts.append(record(3, struct.pack("<H", number) + text(type_name) + text(schema) + text("")))
            parts.append(record(4, struct.pack("<HH", number, number) + text(topic) + text(encoding) + text("")))
        parts.append(record(5, struct.pack("<HIQQ", numbers[topic], 0, log_ns, log_ns) + raw))
    magic = b"\x89MCAP0\r\n"
    path.write_bytes(magic + b"".join(parts) + record(15, bytes(4)) + record(2, bytes(20)) + magic)
    return path


def test_ros1_messages_in_an_mcap_are_read(tmp_path):
    maker = BagMaker().drive(5)
    messages = [
        (log_ns, topic, type_name.replace("/msg/", "/"), bytes(typestore(False).cdr_to_ros1(raw, type_name)))
        for log_ns, topic, type_name, raw in maker.messages
    ]
    path = plain_mcap(tmp_path / "run.mcap", "ros1", lambda topic: ("ros1msg", "ros1"), messages)
    with open_recording(path) as recording:
        assert len(recording) == 5
        assert recording.stamps_s[1] == (START_NS + SECOND // 4) / SECOND
        assert recording.frame(4).rgb[0, 0, 0] == 4
        assert recording.poses_xyyaw[4, 0] == pytest.approx(0.4)


def test_topics_of_other_formats_are_named_and_left_out(tmp_path):
    maker = BagMaker().drive(5)
    messages = [*maker.messages, (START_NS, "/log", "foxglove.Log", b'{"a": 1}')]
    path = plain_mcap(
        tmp_path / "run.mcap", "", lambda topic: ("protobuf", "protobuf") if topic == "/log" else ("", "cdr"), messages
    )
    with open_recording(path) as recording:
        assert len(recording) == 5
        assert "/log" not in recording.bag.topics
        assert any("/log (protobuf)" in warning for warning in recording.report.warnings)


def test_an_unfinished_ros1_bag_names_the_way_out(tmp_path):
    path = tmp_path / "run.bag.active"
    path.write_bytes(b"#ROSBAG V2.0\n" + bytes(100))
    with pytest.raises(DataError, match=r"rosbag reindex run\.bag\.active .* rosbag fix run\.bag\.active"):
        open_bag(path)
    with pytest.raises(DataError, match="rosbag reindex"):
        open_bag(tmp_path)
