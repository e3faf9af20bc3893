"""Atomic writes: whatever goes wrong, the old file or the new one stands, and nothing lies beside it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from come_nav.core import files
from come_nav.core.errors import StorageError


def only_entry(folder: Path) -> str:
    (entry,) = [path.name for path in folder.iterdir()]
    return entry


def test_write_creates_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b.txt"
    files.atomic_write_text(path, "first")
    files.atomic_write_text(path, "zweite Zeile: ä\n")
    assert path.read_text(encoding="utf-8") == "zweite Zeile: ä\n"
    assert only_entry(path.parent) == "b.txt"


def test_failure_inside_the_block_keeps_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    files.atomic_write_text(path, "old")
    with pytest.raises(ValueError, match="half way"), files.atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise ValueError("half way")
    assert path.read_text() == "old"
    assert only_entry(tmp_path) == "result.json"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch, code):
    path = tmp_path / "result.json"
    files.atomic_write_text(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left on the disk") as caught:
        files.atomic_write_text(path, "new")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert only_entry(tmp_path) == "result.json"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the /dev/full of Linux")
def test_a_really_full_device_is_told_apart(tmp_path):
    path = tmp_path / "result.bin"
    with pytest.raises(StorageError, match="no space left"), files.atomic_path(path) as temporary:
        temporary.write_bytes(b"")
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "plain").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        files.atomic_write_text(tmp_path / "plain" / "inner.txt", "x")
    with pytest.raises(StorageError, match="choose a folder you may write to"):
        files.writable_folder(tmp_path / "plain" / "inner")


def test_writable_folder_creates_and_leaves_no_probe(tmp_path):
    folder = files.writable_folder(tmp_path / "new" / "deep")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        files.writable_folder(tmp_path)


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    files.atomic_write_text(path, "old")
    program = textwrap.dedent(
        f"""
        import os, signal
        from pathlib import Path
        from come_nav.core.files import atomic_path
        with atomic_path(Path({str(path)!r})) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = subprocess.run([sys.executable, "-c", program], check=False)
    assert result.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_folder_has_one_writer_until_the_block_ends(tmp_path):
    lock, busy = tmp_path / "run" / ".lock", StorageError("run: busy")
    refused = pytest.raises(StorageError, match="run: busy")
    with files.one_writer(lock, busy), refused, files.one_writer(lock, busy):
        pass
    with files.one_writer(lock, busy):
        pass
