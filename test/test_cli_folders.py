"""The verbs take published folders like bags: bag info, convert, memory build and evaluate."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data_folders import drive, write_euroc, write_kitti, write_tum

from come_nav.cli.main import main
from come_nav.data import open_recording
from come_nav.data.trajectories import read_trajectory


@pytest.fixture
def tum(tmp_path):
    return write_tum(tmp_path / "rgbd_dataset_freiburg3_x", drive(16), size=(160, 120))


def test_bag_info(tum, tmp_path, capsys):
    assert main(["bag", "info", str(tum), "--image", str(tmp_path / "sheet.png")]) == 0
    text = capsys.readouterr().out
    assert "TUM RGB-D folder, 1.9 s, 48 messages" in text
    assert "9 of 160x120 at 4.00 Hz" in text
    assert "fx 133.8 fy 134.8" in text  # a quarter of what is published for 640x480
    assert "depth   100 %" in text
    assert "known from the calibration" in text
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize("write", [write_kitti, lambda folder: write_euroc(folder, drive())])
def test_bag_info_as_json(tmp_path, capsys, write):
    assert main(["bag", "info", str(write(tmp_path / "run")), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recording"]["association"]["matched"] == 24
    assert found["recording"]["depth_known_in_first_frame"] is None
    assert [topic["count"] for topic in found["topics"]] == [24, 24]


def test_bag_info_of_a_folder_without_poses_is_one_line(tum, capsys):
    (tum / "groundtruth.txt").unlink()
    assert main(["bag", "info", str(tum)]) == 1
    error = capsys.readouterr().err.strip()
    assert "groundtruth.txt: no such file" in error
    assert len(error.splitlines()) == 1


def test_convert_to_a_bag_keeps_everything(tum, tmp_path, capsys):
    out = tmp_path / "bag"
    assert main(["convert", str(tum), str(out), "--to", "mcap", "--rate", "all"]) == 0
    with open_recording(tum, rate_hz=None, quiet=True) as folder, open_recording(out, rate_hz=None) as bag:
        assert len(bag) == len(folder) == 16
        np.testing.assert_allclose(bag.T_odom_base, folder.T_odom_base, atol=1e-6)
        np.testing.assert_allclose(bag.T_base_camera, folder.T_base_camera, atol=1e-9)
        np.testing.assert_array_equal(bag.frame(7).rgb, folder.frame(7).rgb)
        np.testing.assert_allclose(bag.frame(7).depth_m, folder.frame(7).depth_m, atol=6e-4)
        assert bag.intrinsics == folder.intrinsics


def test_convert_to_a_trajectory_has_all_poses(tmp_path):
    root = write_kitti(tmp_path / "run")
    assert main(["convert", str(root), str(tmp_path / "poses.txt"), "--to", "tum"]) == 0
    np.testing.assert_allclose(read_trajectory(tmp_path / "poses.txt").T_world_body, drive(), atol=1e-7)


def test_memory_build(tum, tmp_path, capsys):
    assert main(["memory", "build", str(tum), "--out", str(tmp_path / "memory"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cloud"]["points"] > 100


def test_evaluate_without_depth(shared_data, tmp_path, capsys):
    words = ["evaluate", str(shared_data / "kitti00"), "--windows", "2", "--rows", "trivial", "--no-report"]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["table"]
    ate_m = {row["row"]: row["ate_m"]["value"] for row in table["rows"]}
    assert ate_m["constant velocity"] < 0.5 * ate_m["stand still"]
