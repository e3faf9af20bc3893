"""``come-nav memory`` as a user types it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from data_samples import SampleRecording

from come_nav.cli.main import main
from come_nav.core.types import Frame
from come_nav.data.bags.writer import write_bag
from come_nav.memory.keyframes import Keyframes, KeyframesSettings
from come_nav.memory.store.store import MemoryStore


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", SampleRecording(12))


@pytest.fixture
def store(bag, tmp_path, capsys):
    assert main(["memory", "build", str(bag), "--out", str(tmp_path / "memory"), "--spacing", "0.25"]) == 0
    capsys.readouterr()
    return tmp_path / "memory"


def run_json(capsys, *words: str) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_build_says_what_was_remembered(bag, tmp_path, capsys):
    out = str(tmp_path / "memory")
    words = ["memory", "build", str(bag), "--out", out, "--first", "50", "--voxel", "0.1", "--max-keyframes", "4"]
    facts = run_json(capsys, *words, "--spacing", "0.05")
    assert facts["frames"] == facts["cloud"]["frames"] == 6
    assert facts["cloud"]["voxel_m"] == 0.1
    assert facts["keyframes"]["count"] == 4
    assert facts["version"] == 1
    assert facts["recording"] == "drive"
    assert main(["memory", "build", str(bag), "--out", out]) == 0
    assert "memory: version 2, " in capsys.readouterr().out


def test_latents_are_remembered_where_they_are_asked_for(bag, tmp_path, capsys):
    out = str(tmp_path / "latents")
    assert main(["memory", "build", str(bag), "--out", out, "--features", "latent", "--model", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cloud"]["features"] == 32
    assert main(["memory", "info", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cloud"]["features"] == 32
    assert main(["memory", "export", out, str(tmp_path / "cloud.ply")]) == 1
    assert "has no colours to export" in capsys.readouterr().err


def test_frames_without_depth_are_noted_with_the_way_out(tmp_path, capsys):
    blind = write_bag(tmp_path / "blind", SampleRecording(4, with_depth=False))
    assert main(["memory", "build", str(blind), "--out", str(tmp_path / "memory")]) == 0
    assert "4 frames gave no points (no_depth); name the depth topic with --depth-topic" in capsys.readouterr().err
    assert main(["memory", "info", str(tmp_path / "memory")]) == 0


def test_info_as_text_and_json(store, capsys):
    MemoryStore(store).save(adapters={"home": {"w": torch.zeros(3, 4)}})
    assert main(["memory", "info", str(store)]) == 0
    text = capsys.readouterr().out
    for part in ("version 2", "recording: drive", "cloud: points ", "adapter home: 1 tensors, 12 parameters", "sound"):
        assert part in text
    facts = run_json(capsys, "memory", "info", str(store), "--version", "1")
    assert facts["version"] == 1
    assert facts["adapters"] == {}
    assert [row["version"] for row in facts["versions"]] == [1, 2]


def test_export_of_the_cloud(store, tmp_path, capsys):
    open3d = pytest.importorskip("open3d")
    path = tmp_path / "cloud.ply"
    facts = run_json(capsys, "memory", "export", str(store), str(path))
    assert len(open3d.io.read_point_cloud(str(path)).points) == facts["count"] > 50
    assert main(["memory", "export", str(store), str(path)]) == 1
    assert "replace it with --overwrite" in capsys.readouterr().err
    again = run_json(capsys, "memory", "export", str(store), str(path), "--overwrite", "--min-hits", "1")
    assert 0 < again["count"] < facts["count"], "some points were seen through later, and count less than one look"
    assert main(["memory", "export", str(store), str(path), "--overwrite", "--min-hits", "99"]) == 1
    assert "none was seen 99 times" in capsys.readouterr().err


def test_export_of_key_frames(store, tmp_path, capsys):
    import cv2

    folder = tmp_path / "images"
    for words in ([], ["--overwrite"]):
        if words:  # images of before make room, what somebody put beside them stays
            (folder / "labels.csv").write_text("a label")
            (folder / "999998.jpg").write_text("of a longer export")
            with (folder / "keyframes.csv").open("a") as table:
                table.write("999998.jpg,1.0,0.0,0.0,0.0\n../outside.jpg,1.0,0.0,0.0,0.0\n")
            (tmp_path / "outside.jpg").write_text("not of the export")
        facts = run_json(capsys, "memory", "export", str(store), str(folder), *words)
    assert (folder / "labels.csv").is_file() and (tmp_path / "outside.jpg").is_file()
    assert not (folder / "999998.jpg").exists()
    with (folder / "keyframes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == facts["count"] > 2
    assert cv2.imread(str(folder / rows[0]["file"])).shape == (16, 24, 3)
    stamps_s, x_m = (np.array([float(row[name]) for row in rows]) for name in ("stamp_s", "x_m"))
    np.testing.assert_allclose(x_m, np.interp(stamps_s, *_x_over_time()), atol=0.01)


def test_all_key_frames_of_a_store_are_shown_however_many(tmp_path, capsys):
    """More than a robot keeps by default; and a robot that keeps fewer says what it leaves out."""
    keyframes = Keyframes(KeyframesSettings(spacing_m=1e-6, max_count=2000))
    for step in range(1100):
        keyframes.observe(Frame(float(step), np.zeros((2, 2, 3), np.uint8)), np.array([0.01 * step, 0.0, 0.0]))
    MemoryStore(tmp_path / "store").save(keyframes=keyframes.state())
    assert run_json(capsys, "memory", "info", str(tmp_path / "store"))["keyframes"]["count"] == 1100
    facts = run_json(capsys, "memory", "export", str(tmp_path / "store"), str(tmp_path / "out"), "--what", "keyframes")
    assert facts["count"] == 1100


def test_key_frames_that_do_not_fit_are_told_of(caplog):
    many, few = Keyframes(KeyframesSettings(spacing_m=1e-6)), Keyframes(KeyframesSettings(max_count=5))
    for step in range(8):
        many.observe(Frame(float(step), np.zeros((2, 2, 3), np.uint8)), np.array([step, 0.0, 0.0]))
    few.load_state(many.state())
    assert "5 of 8 saved key frames are kept" in caplog.text and "keyframes.max_count is 5" in caplog.text


def _x_over_time() -> tuple[np.ndarray, np.ndarray]:
    recording = SampleRecording(12)
    return recording.stamps_s, recording.poses_xyyaw[:, 0] - recording.poses_xyyaw[0, 0]


def test_export_of_an_adapter(store, tmp_path, capsys):
    from safetensors.torch import load_file

    weights = {"a": torch.arange(4.0), "b": torch.ones(2, 2)}
    MemoryStore(store).save(adapters={"home": weights, "office": {"a": torch.zeros(1)}})
    path = tmp_path / "home.safetensors"
    assert main(["memory", "export", str(store), str(path)]) == 1
    assert "holds the adapters home, office; choose one with --name" in capsys.readouterr().err
    assert main(["memory", "export", str(store), str(path), "--name", "hoem"]) == 1
    assert "did you mean 'home'?" in capsys.readouterr().err
    assert run_json(capsys, "memory", "export", str(store), str(path), "--name", "home")["count"] == 2
    assert torch.equal(load_file(path)["a"], weights["a"])


def test_verify_finds_damage_and_says_so_with_its_status(store, capsys):
    MemoryStore(store).save(about={"note": "second"}, carry=False)
    facts = run_json(capsys, "memory", "verify", str(store))
    assert facts["ok"] is True
    cloud = store / "v000001" / "cloud.npz"
    content = bytearray(cloud.read_bytes())
    content[100] ^= 1
    cloud.write_bytes(content)
    assert main(["memory", "verify", str(store)]) == 1
    assert "cloud.npz differs from what was written" in capsys.readouterr().out
    (store / "v000002" / "version.json").write_text("{}")
    assert main(["memory", "verify", str(store)]) == 1
    assert "holds no valid version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "absent"], "absent: holds no memory; 'come-nav memory build'"),
        (["verify", "absent"], "absent: holds no memory"),
        (["export", "absent", "x.ply"], "absent: holds no memory"),
        (["build", "absent", "--out", "memory"], "absent"),
        (["build", "absent", "--out", "memory", "--first", "0"], "--first must be in (0, 100], got 0"),
        (["build", "absent", "--out", "memory", "--voxel", "-1"], "spatial.voxel_m must be > 0, got -1"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["memory", *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_what_a_version_lacks_is_named(tmp_path, capsys):
    MemoryStore(tmp_path / "memory").save(about={})
    for out, what in [("x.ply", "cloud"), ("folder", "key frames"), ("x.safetensors", "adapter")]:
        assert main(["memory", "export", str(tmp_path / "memory"), str(tmp_path / out)]) == 1
        assert f"version 1 holds no {what}" in capsys.readouterr().err


@pytest.mark.shared_data
def test_a_real_recording_is_remembered(shared_data, tmp_path, capsys):
    words = ["memory", "build", str(shared_data / "bags" / "cabinet"), "--out", str(tmp_path / "memory")]
    facts = run_json(capsys, *words)
    assert facts["rejected"] == {}
    assert facts["cloud"]["points"] > 2000
    assert 5 < facts["keyframes"]["count"] < facts["frames"]
