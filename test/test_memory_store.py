"""The memory store: round trips, bounds, damage, full disks, two writers."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from come_nav.core.errors import MemoryStoreError
from come_nav.memory.store import files as store_files
from come_nav.memory.store.store import MANIFEST, MemoryStore, StoreSettings


def cloud(value: float = 0.0, count: int = 50) -> dict[str, np.ndarray]:
    return {"xyz": np.full((count, 3), value, np.float32), "voxel_m": np.asarray(0.05)}


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.unlink()  # versions may share a file by a hard link
    path.write_bytes(content)


def test_what_is_saved_comes_back_exactly(tmp_path):
    store = MemoryStore(tmp_path / "store")
    weights = {"lora.a": torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), "b": torch.ones(3).half()}
    frames = {"stamps_s": np.arange(3.0), "images": np.arange(7, dtype=np.uint8)}
    about = {"recording": "kitchen", "stamp_s": 12.5, "frames": 3}
    assert store.save(cloud=cloud(1.5), keyframes=frames, adapters={"home": weights}, about=about) == 1
    stored = MemoryStore(tmp_path / "store").load()
    assert stored.version == 1
    assert stored.about == about
    assert stored.cloud is not None
    assert stored.keyframes is not None
    np.testing.assert_array_equal(stored.cloud["xyz"], cloud(1.5)["xyz"])
    assert stored.cloud["xyz"].dtype == np.float32
    np.testing.assert_array_equal(stored.keyframes["images"], frames["images"])
    assert stored.adapters["home"].keys() == weights.keys()
    for key, tensor in weights.items():
        assert torch.equal(stored.adapters["home"][key], tensor)
        assert stored.adapters["home"][key].dtype == tensor.dtype


def test_manifest_and_description_state_size_and_checksum(tmp_path):
    import hashlib

    store = MemoryStore(tmp_path)
    store.save(cloud=cloud())
    assert json.loads((tmp_path / MANIFEST).read_text())["versions"] == [1]
    entry = json.loads((tmp_path / "v000001" / "version.json").read_text())["files"]["cloud.npz"]
    content = (tmp_path / "v000001" / "cloud.npz").read_bytes()
    assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_parts_that_are_not_given_are_carried_over(tmp_path):
    store = MemoryStore(tmp_path)
    store.save(cloud=cloud(1.0), adapters={"a": {"w": torch.zeros(2)}, "b": {"w": torch.ones(2)}}, about={"x": 1})
    store.save(adapters={"b": {"w": torch.full((2,), 7.0)}, "a": None}, about={"y": 2})
    stored = store.load()
    assert stored.about == {"x": 1, "y": 2}
    assert stored.cloud is not None
    assert float(stored.cloud["xyz"][0, 0]) == 1.0
    assert set(stored.adapters) == {"b"}
    assert stored.adapters["b"]["w"].tolist() == [7.0, 7.0]
    store.save(keyframes={"stamps_s": np.zeros(0)}, carry=False)
    fresh = store.load()
    assert fresh.cloud is None
    assert fresh.adapters == {}
    assert fresh.about == {}


def test_only_the_parts_asked_for_are_read(tmp_path):
    store = MemoryStore(tmp_path)
    store.save(cloud=cloud(), adapters={"a": {"w": torch.zeros(2)}})
    damage(tmp_path / "v000001" / "adapter-a.safetensors")
    assert store.load(parts=("cloud",)).cloud is not None
    with pytest.raises(MemoryStoreError, match=r"adapter-a\.safetensors differs"):
        store.load()


def test_old_versions_go_and_the_newest_stays(tmp_path):
    store = MemoryStore(tmp_path, StoreSettings(keep_versions=2))
    for number in range(1, 6):
        assert store.save(cloud=cloud(number)) == number
    assert sorted(item.name for item in tmp_path.glob("v*")) == ["v000004", "v000005"]
    assert store.load(4).cloud["xyz"][0, 0] == 4.0
    with pytest.raises(MemoryStoreError, match="version 2 cannot be read: there is no such version"):
        store.load(2)


def test_the_bound_in_bytes_prunes_and_refuses(tmp_path):
    size = len(store_files.encode(cloud(count=1000), None, {})["cloud.npz"])
    store = MemoryStore(tmp_path, StoreSettings(keep_versions=10, max_bytes=int(2.5 * size)))
    for number in range(4):
        store.save(cloud=cloud(number, 1000), carry=False)
    assert [report.version for report in store.verify()] == [3, 4]
    with pytest.raises(MemoryStoreError, match=r"does not fit into the store's .*; raise store\.max_bytes"):
        store.save(cloud=cloud(9.0, 4000))
    assert store.load().version == 4
    assert store.leftovers() == []


def test_damage_falls_back_to_the_version_before(tmp_path):
    store = MemoryStore(tmp_path)
    for number in range(1, 4):
        store.save(cloud=cloud(number), carry=False)
    damage(tmp_path / "v000003" / "cloud.npz")
    (tmp_path / "v000002" / "cloud.npz").unlink()
    assert store.load().version == 1
    diagnosis = {report.version: report.diagnosis for report in store.verify()}
    assert diagnosis[1] is None
    assert "is missing" in diagnosis[2]
    assert "SHA-256" in diagnosis[3]
    store.save(adapters={"a": {"w": torch.zeros(1)}})
    assert store.load().cloud["xyz"][0, 0] == 1.0, "a damaged version must not be carried over"


@pytest.mark.parametrize("manifest", [None, "", "{", '{"format": "other", "versions": [1]}', '{"versions": 3}', "[]"])
def test_without_a_manifest_the_folders_speak(tmp_path, manifest):
    store = MemoryStore(tmp_path)
    store.save(cloud=cloud(1.0))
    store.save(cloud=cloud(2.0))
    (tmp_path / MANIFEST).unlink()
    if manifest is not None:
        (tmp_path / MANIFEST).write_text(manifest)
    assert store.load().version == 2
    assert store.save(cloud=cloud(3.0)) == 3
    assert json.loads((tmp_path / MANIFEST).read_text())["versions"] == [1, 2, 3]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 1, "about": {}, "files": {"../x": {"bytes": 1, "sha256": ""}}}', "null"]
)
def test_a_damaged_description_is_no_version(tmp_path, text):
    store = MemoryStore(tmp_path)
    store.save(cloud=cloud())
    (tmp_path / "v000001" / "version.json").write_text(text)
    with pytest.raises(MemoryStoreError, match=r"holds no valid version \(version 1: version\.json"):
        store.load()


def test_an_empty_store_says_how_to_fill_it(tmp_path):
    store = MemoryStore(tmp_path / "absent")
    assert store.newest() is None
    assert store.verify() == []
    with pytest.raises(MemoryStoreError, match="holds no memory; 'come-nav memory build'"):
        store.load()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101])
def test_adapter_names_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(MemoryStoreError, match="adapter name"):
        MemoryStore(tmp_path).save(adapters={name: {"w": torch.zeros(1)}})


def test_what_cannot_be_stored_leaves_the_store_as_it_was(tmp_path):
    store = MemoryStore(tmp_path)
    store.save(cloud=cloud(1.0))
    with pytest.raises(MemoryStoreError, match="plain finite JSON"):
        store.save(cloud=cloud(2.0), about={"x": float("nan")})
    with pytest.raises(MemoryStoreError, match="Python objects"):
        store.save(cloud={"xyz": np.array([object()])})
    assert store.load().version == 1
    assert store.leftovers() == []


@pytest.mark.parametrize("failing_call", range(1, 8))
def test_a_full_disk_at_any_write_keeps_the_old_version(tmp_path, monkeypatch, failing_call):
    store = MemoryStore(tmp_path)
    store.save(cloud=cloud(1.0))
    calls = 0
    real = os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    try:
        store.save(cloud=cloud(2.0))
        failed = False
    except MemoryStoreError as error:
        failed = True
        assert "no space left on the disk" in str(error)
        assert "\n" not in str(error)
    monkeypatch.undo()
    assert failed == (calls >= failing_call)
    assert store.load().version == (1 if failed else 2)
    assert store.leftovers() == []
    assert store.save(cloud=cloud(3.0)) >= 2
    assert store.load().cloud["xyz"][0, 0] == 3.0


def _save_with_limit(path: Path, limit_bytes: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
    try:
        MemoryStore(path).save(cloud=cloud(2.0, 100_000))
    except MemoryStoreError:
        os._exit(7)
    os._exit(0)


def test_a_write_that_the_kernel_cuts_short_keeps_the_old_version(tmp_path):
    MemoryStore(tmp_path).save(cloud=cloud(1.0))
    process = multiprocessing.get_context("fork").Process(target=_save_with_limit, args=(tmp_path, 100_000))
    process.start()
    process.join()
    assert process.exitcode == 7
    assert MemoryStore(tmp_path).load().version == 1


def test_no_permission_is_one_line(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(MemoryStoreError, match=f"^{blocked}/store: cannot be written"):
        MemoryStore(blocked / "store").save(cloud=cloud())


def test_a_writer_waits_for_the_other_and_gives_up_in_one_line(tmp_path):
    store = MemoryStore(tmp_path, StoreSettings(lock_timeout_s=0.1))
    with store_files.writing(tmp_path, 1.0), pytest.raises(MemoryStoreError, match="another process has been"):
        store.save(cloud=cloud())
    assert store.save(cloud=cloud()) == 1


def test_writers_in_threads_keep_each_others_parts(tmp_path):
    def write(name: str) -> None:
        for step in range(4):
            MemoryStore(tmp_path, StoreSettings(keep_versions=20)).save(adapters={name: {"w": torch.full((1,), step)}})

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = MemoryStore(tmp_path)
    assert store.newest() == 12
    assert {name: int(tensors["w"]) for name, tensors in store.load().adapters.items()} == {"a": 3, "b": 3, "c": 3}
