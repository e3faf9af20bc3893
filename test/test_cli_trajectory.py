"""``come-nav trajectory`` on files of every format, its numbers, its plot and its one-line errors."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from data_samples import BagMaker

from come_nav.cli.main import main
from come_nav.core.geometry import se3
from come_nav.core.types import Trajectory
from come_nav.data.bags.ros_types import ODOMETRY
from come_nav.data.trajectories import write_kitti, write_tum


def arc(count: int = 50, offset_m: float = 0.0, start_s: float = 100.0) -> Trajectory:
    yaw = np.linspace(0.0, 3.0, count)
    poses = np.stack([2 * np.sin(yaw), 2 - 2 * np.cos(yaw) + offset_m, yaw], axis=1)
    return Trajectory.from_xyyaw(start_s + 0.1 * np.arange(count), poses)


@pytest.fixture
def files(tmp_path):
    write_tum(tmp_path / "ref.txt", arc())
    write_tum(tmp_path / "est.txt", arc(offset_m=0.25))
    return str(tmp_path / "ref.txt"), str(tmp_path / "est.txt")


def document(capsys, *words) -> dict:
    assert main(["trajectory", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_known_numbers(files, capsys):
    plain = document(capsys, *files)
    assert plain["ate"]["translation_m"]["rmse"] == pytest.approx(0.25)
    assert plain["ate"]["rotation_deg"]["max"] == pytest.approx(0.0, abs=1e-6)
    assert plain["rpe"]["translation_m"]["rmse"] == pytest.approx(0.0, abs=1e-9)
    assert plain["rpe"]["translation_m"]["n"] == 49
    assert plain["association"]["matched"] == 50
    assert plain["path_length_m"]["reference"] == pytest.approx(6.0, rel=1e-3)
    aligned = document(capsys, *files, "--align", "se3")
    assert aligned["ate"]["translation_m"]["rmse"] == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(aligned["alignment"]["translation"], [0.0, -0.25, 0.0], atol=1e-9)


def test_delta_in_metres_and_all_pairs(files, capsys):
    one = document(capsys, *files, "--delta", "1", "--delta-unit", "m")
    every = document(capsys, *files, "--delta", "1", "--delta-unit", "m", "--all-pairs", "--pairs-from-reference")
    assert one["rpe"]["translation_m"]["n"] == 5
    assert every["rpe"]["translation_m"]["n"] > 30


def test_text_names_the_match_and_the_alignment(files, capsys):
    assert main(["trajectory", *files, "--align", "sim3"]) == 0
    out = capsys.readouterr().out
    assert "matched 50 of 50" in out
    assert "scale 1.000000" in out
    assert "RPE unaligned [m]" in out


def test_kitti_is_matched_by_index(tmp_path, capsys):
    write_kitti(tmp_path / "a.txt", arc())
    write_kitti(tmp_path / "b.txt", arc(offset_m=0.5))
    result = document(capsys, str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
    assert result["ate"]["translation_m"]["mean"] == pytest.approx(0.5)


def test_euroc_is_recognised(tmp_path, capsys, files):
    lines = ["#timestamp [ns], x, y, z, qw, qx, qy, qz"]
    start = 1_400_000_000
    poses = arc(start_s=float(start)).poses_xyyaw
    for index, (x, y, yaw) in enumerate(poses):
        stamp_ns = start * 10**9 + index * 10**8
        lines.append(f"{stamp_ns},{x},{y},0,{np.cos(yaw / 2)},0,0,{np.sin(yaw / 2)}")
    (tmp_path / "euroc.csv").write_text("\n".join(lines))
    result = document(capsys, files[0], str(tmp_path / "euroc.csv"), "--offset", str(100.0 - start))
    assert result["association"]["matched"] == 50
    assert result["ate"]["translation_m"]["rmse"] == pytest.approx(0.0, abs=1e-6)


def test_nearest_poses_may_serve_twice(tmp_path, capsys, files):
    dense = arc()
    doubled = np.sort(np.concatenate([dense.stamps_s, dense.stamps_s + 0.004]))
    write_tum(tmp_path / "dense.txt", Trajectory(doubled, np.repeat(dense.T_world_body, 2, axis=0)))
    sparse = Trajectory(dense.stamps_s[::5], dense.T_world_body[::5])
    write_tum(tmp_path / "sparse.txt", sparse)
    for pair in (("dense.txt", "sparse.txt"), ("sparse.txt", "dense.txt")):
        result = document(capsys, *(str(tmp_path / name) for name in pair))
        assert result["association"]["matched"] == 10
        assert result["ate"]["translation_m"]["max"] == pytest.approx(0.0, abs=1e-9)


def test_the_plot_is_a_png(files, tmp_path, capsys):
    assert main(["trajectory", *files, "--align", "se3", "--plot", str(tmp_path / "plot.png")]) == 0
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--offset", "1000"], "matched 0 of 50.*offset of"),
        (["--delta", "999"], "no pair 999 f apart"),
        (["--delta", "0"], "delta must be > 0"),
        (["--max-diff", "-1"], "--max-diff"),
        (["--plot", "/proc/none/plot.png"], "cannot be written"),
        (["--ref-format", "kitti"], "kitti needs 12"),
    ],
)
def test_mistakes_are_one_line(files, capsys, words, message):
    assert main(["trajectory", *files, *words]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("come-nav: ")
    assert re.search(message, error), error


def test_files_that_are_no_trajectories_are_one_line(tmp_path, capsys, files):
    (tmp_path / "words.txt").write_text("hello world\n")
    (tmp_path / "empty.txt").write_text("")
    for name in ("words.txt", "empty.txt", "missing.txt"):
        assert main(["trajectory", files[0], str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1


def test_positions_on_a_line_cannot_be_aligned(tmp_path, capsys):
    line = Trajectory.from_xyyaw(np.arange(5.0), np.stack([np.arange(5.0), np.zeros(5), np.zeros(5)], axis=1))
    write_tum(tmp_path / "line.txt", line)
    assert main(["trajectory", str(tmp_path / "line.txt"), str(tmp_path / "line.txt"), "--align", "se3"]) == 1
    assert "on one line" in capsys.readouterr().err


@pytest.mark.shared_data
def test_figures_of_evo_through_the_command(shared_data, capsys):
    folder = shared_data / "trajectories"
    pair = json.loads((folder / "evo_reference.json").read_text())["pairs"]["fr1_xyz RGBDSLAM"]
    words = [str(folder / pair["ref"]), str(folder / pair["est"]), "--delta", "1", "--delta-unit", "m", "--all-pairs"]
    for mode, figures in pair["APE"].items():
        result = document(capsys, *words, "--align", mode)
        assert result["ate"]["translation_m"] == pytest.approx(figures["translation_part_m"], abs=1e-6)
        assert result["ate"]["rotation_deg"] == pytest.approx(figures["rotation_angle_deg"], rel=1e-6, abs=1e-6)
        unaligned = result.get("rpe_unaligned", result["rpe"])
        expected = pair["RPE"]["1_m_all_pairs"]["translation_part_m"]
        assert unaligned["translation_m"] == pytest.approx(expected, abs=1e-6)


def test_several_estimates_and_bags_make_one_table(files, tmp_path, capsys):
    maker = BagMaker()
    for index, pose in enumerate(arc().poses_xyyaw):
        stamp_ns = 100_000_000_000 + index * 100_000_000
        for topic, offset in (("/odom", 0.5), ("/filtered", 0.1)):
            transform = se3.transform_from_xyyaw(pose + np.array([0.0, offset, 0.0]))
            maker.add(
                stamp_ns, topic, ODOMETRY, maker.make.odometry(stamp_ns, ("odom", "base_link"), transform, (0, 0))
            )
    bag = str(maker.write(tmp_path / "drive"))
    words = [*files, bag, "--est-topic", "/odom", "--est-topic", "/filtered"]
    result = document(capsys, *words)["estimates"]
    assert [row["estimate"] for row in result] == [files[1], f"{bag} /odom", f"{bag} /filtered"]
    assert [row["ate"]["translation_m"]["rmse"] for row in result] == pytest.approx([0.25, 0.5, 0.1])
    assert main(["trajectory", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:3] == ["estimate", "ATE", "m"]
    assert [line.split()[-2] for line in lines[-3:]] == ["50"] * 3
    assert main(["trajectory", *files, files[1]]) == 1
    assert "is named twice" in capsys.readouterr().err


def test_drift_through_the_command(tmp_path, capsys):
    x = np.arange(251.0)
    for name, scale in (("ref.txt", 1.0), ("est.txt", 1.1)):
        poses = np.stack([scale * x, np.zeros_like(x), np.zeros_like(x)], axis=1)
        write_tum(tmp_path / name, Trajectory.from_xyyaw(x, poses))
    words = (str(tmp_path / "ref.txt"), str(tmp_path / "est.txt"), "--drift")
    result = document(capsys, *words)["drift"]
    assert [row["length_m"] for row in result["lengths"]] == [100.0, 200.0]
    assert result["lengths"][0]["t_rel_percent"] == pytest.approx(10.1)
    assert main(["trajectory", *words]) == 0
    assert "10.1000" in capsys.readouterr().out
