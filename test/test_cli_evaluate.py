"""``come-nav evaluate``: recordings and the built-in suite, resumption after a kill, and one-line errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_samples import SampleRecording
from model_samples import small_model

from come_nav.cli.main import main
from come_nav.data.bags.writer import write_bag

QUICK = ["--rows", "perfect", "--set", "planner.samples=6", "--set", "planner.initial_samples=12"]
QUICK += ["--set", "planner.iterations=1", "--set", "planner.elites=3", "--no-report", "--device", "cpu"]
SUITE = ["evaluate", "--suite", "planning", "--worlds", "10003", "--windows", "4", *QUICK]


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bags") / "drive", SampleRecording(40))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """A bag of a simulated drive with drifting odometry and ground truth."""
    from come_nav.core.types import CameraIntrinsics, Trajectory
    from come_nav.sim.episodes import EpisodeRecording, simulate_episode
    from come_nav.sim.raycaster import Raycaster
    from come_nav.sim.worlds import generate_world

    world = generate_world(10003)
    raycaster = Raycaster([world], CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2))
    episode = simulate_episode(world, "wander", 8.0, 4.0, seed=1)
    recording = EpisodeRecording(episode, raycaster)
    truth = Trajectory.from_xyyaw(episode.stamps_s, episode.poses_world_xyyaw, "world")
    return write_bag(tmp_path_factory.mktemp("bags") / "episode", recording, ground_truth=truth)


def document(capsys, *words) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def mean_ate(result: dict, row: str) -> float:
    return next(line["ate_m"]["value"] for line in result["table"]["rows"] if line["row"] == row)


def test_the_baselines_of_a_bag(bag, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "evaluate",
        str(bag),
        "--rows",
        "trivial",
        "--windows",
        "10",
        "--out",
        str(out),
        "--seed",
        "3",
        "--no-report",
    ]
    result = document(capsys, *words)
    assert [line["row"] for line in result["table"]["rows"]] == ["stand still", "constant velocity"]
    assert {line["n"] for line in result["table"]["rows"]} == {10}
    assert mean_ate(result, "constant velocity") < mean_ate(result, "stand still")
    assert result["settings"]["protocol"]["seed"] == 3
    assert result["settings"]["windows"] == 10
    assert {path.name for path in out.iterdir()} == {"results.jsonl", "results.json", "table.csv"}
    assert document(capsys, *words)["table"] == result["table"]
    assert main(words) == 0
    assert "constant velocity" in capsys.readouterr().out


def test_other_settings_need_another_folder_or_fresh(bag, tmp_path, capsys):
    words = ["evaluate", str(bag), "--rows", "trivial", "--out", str(tmp_path), "--no-report"]
    assert main([*words, "--seed", "1"]) == 0
    assert main([*words, "--seed", "2"]) == 1
    error = capsys.readouterr().err
    assert "protocol.seed 1 -> 2" in error
    assert "--fresh" in error
    assert main([*words, "--seed", "2", "--fresh"]) == 0


def test_a_simulated_bag_is_recognised_and_rendered_true(simulated, tmp_path, capsys):
    words = ["evaluate", str(simulated), "--windows", "3", "--out", str(tmp_path), *QUICK]
    result = document(capsys, *words)
    rows = [line["row"] for line in result["table"]["rows"]]
    assert rows == ["stand still", "constant velocity", "perfect model", "best candidate in hindsight"]
    assert mean_ate(result, "best candidate in hindsight") <= mean_ate(result, "perfect model")
    assert result["facts"]["candidates_per_plan"]["perfect model"] >= 12


def test_the_horizon_is_in_seconds(bag, tmp_path, capsys):
    words = ["evaluate", str(bag), "--rows", "trivial", "--windows", "3", "--no-report"]
    result = document(capsys, *words, "--horizon", "4", "--out", str(tmp_path / "4"))
    assert result["table"]["steps_s"] == pytest.approx([0.25 * step for step in range(1, 17)], abs=1e-3)
    assert len(document(capsys, *words, "--out", str(tmp_path / "2"))["table"]["steps_s"]) == 8


def test_several_horizons_are_evaluated_in_one_run(bag, tmp_path, capsys):
    words = ["evaluate", str(bag), "--rows", "trivial", "--windows", "3", "--no-report", "--out", str(tmp_path)]
    result = document(capsys, *words, "--horizon", "2,4,8", "--success-m", "0.1", "--success-deg", "180")
    assert [found["table"]["steps_s"][-1] for found in result["horizons"]] == pytest.approx([2.0, 4.0, 8.0], abs=1e-3)
    assert {path.name for path in tmp_path.iterdir()} == {"2s", "4s", "8s"}
    for found in result["horizons"]:
        windows = json.loads((Path(found["out"]) / "results.json").read_text())["windows"]
        seconds = found["table"]["steps_s"][-1]
        assert all(window["goal"] - window["start"] == round(4 * seconds) for window in windows)
        assert found["table"]["success_settings"] == {"within_m": 0.1, "within_deg": 180.0}
    alone = document(capsys, *words[:-1], str(tmp_path / "alone"), "--horizon", "8")
    assert mean_ate(alone, "constant velocity") == mean_ate(result["horizons"][2], "constant velocity")
    assert main([*words, "--horizon", "2,4", "--success-m", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "success (0.1 m, 15 deg)" in printed
    assert "ATE at 4 s [m]" in printed


def test_a_horizon_without_a_window_is_told_before_any_plan(bag, tmp_path, capsys):
    words = ["evaluate", str(bag), "--rows", "trivial", "--no-report", "--out", str(tmp_path), "--horizon", "2,16"]
    assert main(words) == 1
    assert "16 s ahead without a gap" in capsys.readouterr().err
    assert not list(tmp_path.rglob("results.json*"))


def test_parts_of_a_recording_share_no_frame(bag, tmp_path, capsys):
    seen = {}
    for part in ("0-0.6", "0.6-1.0"):
        words = ["evaluate", str(bag), "--rows", "trivial", "--part", part, "--horizon", "1", "--no-report"]
        document(capsys, *words, "--out", str(tmp_path / part))
        windows = json.loads((tmp_path / part / "results.json").read_text())["windows"]
        seen[part] = (min(w["start"] for w in windows) - 3, max(w["goal"] for w in windows))
    assert seen == {"0-0.6": (0, 23), "0.6-1.0": (24, 39)}


def test_several_recordings_are_evaluated_together(bag, tmp_path, capsys):
    second = write_bag(tmp_path / "second", SampleRecording(30))
    words = ["evaluate", str(bag), str(second), "--rows", "trivial", "--windows", "6", "--no-report"]
    result = document(capsys, *words, "--out", str(tmp_path / "out"))
    assert {line["n"] for line in result["table"]["rows"]} == {6}
    assert list(result["table"]["ate_m_by_group"]) == ["drive", "second"]
    again = document(capsys, "evaluate", str(bag), str(bag), *words[3:], "--out", str(tmp_path / "twice"))
    assert len(again["table"]["ate_m_by_group"]) == 2


def test_gap_closure_and_paired_differences_are_in_every_output(simulated, tmp_path, capsys):
    words = ["evaluate", str(simulated), "--windows", "3", "--out", str(tmp_path), *QUICK]
    table = document(capsys, *words)["table"]
    assert table["gap_closure"] == {}  # nothing lies between constant velocity and the perfect model here
    pairs = {(line["row"], line["reference"]): line for line in table["differences"]}
    found = pairs["perfect model", "constant velocity"]
    expected = mean_ate({"table": table}, "perfect model") - mean_ate({"table": table}, "constant velocity")
    assert found["ate_m"]["value"] == pytest.approx(expected)
    assert found["rpe_m"]["low"] <= found["rpe_m"]["value"] <= found["rpe_m"]["high"]
    assert main(words) == 0
    assert "RPE difference [m]" in capsys.readouterr().out
    assert "gap_closure_high" in (tmp_path / "table.csv").read_text().splitlines()[0]


QUALITY = ["--suite", "quality", "--device", "cpu", "--no-report"]


def test_quality_in_a_built_in_world_without_a_model(tmp_path, capsys):
    words = ["evaluate", *QUALITY, "--worlds", "10003", "--windows", "6", "--rows", "copy,depth"]
    result = document(capsys, *words, "--out", str(tmp_path))
    table = result["table"]
    assert table["horizons_s"] == [1.0, 2.0, 4.0, 8.0]
    assert table["windows"] == 6
    assert result["planning"] is None
    gains = {line["horizon_s"]: line["psnr_db"]["value"] for line in table["gains_over_copy"]}
    assert gains[1.0] > 2.0  # true depth and poses tell most of the next second
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 6 * 2
    (tmp_path / "results.jsonl").write_text("\n".join(lines[:6]) + "\n")
    assert document(capsys, *words, "--out", str(tmp_path))["table"] == table
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert "gain over 'copy the last frame'" in capsys.readouterr().out


def test_quality_of_a_recording_and_its_depth(bag, tmp_path, capsys):
    words = ["evaluate", str(bag), *QUALITY, "--horizon", "0.5,1", "--windows", "3"]
    result = document(capsys, *words, "--rows", "copy,depth", "--out", str(tmp_path / "depth"))
    names = {line["row"] for line in result["table"]["rows"]}
    assert names == {"copy the last frame", "nearest context frame warped by depth"}
    blind = [*words, "--depth-topic", "none", "--out", str(tmp_path / "blind")]
    assert main([*blind, "--rows", "copy,depth"]) == 1
    error = capsys.readouterr().err
    assert "take 'depth' out of --rows" in error
    assert error.count("\n") == 1


def test_quality_with_a_model_evaluates_jump_rollout_and_autoencoder(tmp_path, capsys):
    model = small_model(tmp_path / "model")
    words = ["evaluate", *QUALITY, "--worlds", "10003", "--windows", "3", "--horizon", "0.5,1", "--model", str(model)]
    quick = ["--set", "planner.samples=4", "--set", "planner.initial_samples=4", "--set", "planner.elites=2"]
    quick += ["--set", "planner.iterations=1"]
    result = document(capsys, *words, *quick, "--planning-windows", "2", "--out", str(tmp_path / "out"))
    rows = list(dict.fromkeys(line["row"] for line in result["table"]["rows"]))
    assert rows == [
        "copy the last frame",
        "nearest context frame warped by depth",
        "autoencoder of the truth",
        "world model, jump",
        "world model, rollout",
    ]
    assert all(np.isfinite(line["psnr_db"]["value"]) for line in result["table"]["rows"])
    closure = result["planning"]["table"]["gap_closure"]
    assert list(closure) == ["world model"]
    ates = {line["row"]: line["ate_m"]["value"] for line in result["planning"]["table"]["rows"]}
    gap = ates["constant velocity"] - ates["perfect model"]
    assert closure["world model"]["value"] == pytest.approx((ates["constant velocity"] - ates["world model"]) / gap)


@pytest.mark.slow
def test_a_killed_evaluation_resumes_to_the_same_table(tmp_path):
    command = [sys.executable, "-m", "come_nav", *SUITE, "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    results = tmp_path / "killed" / "results.jsonl"
    process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (results.is_file() and results.read_bytes().count(b"\n") >= 6):
        assert process.poll() is None, "the evaluation ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = results.read_bytes()
    assert not (tmp_path / "killed" / "table.csv").exists()
    for name in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / name)], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert results.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    tables = [(tmp_path / name / "table.csv").read_bytes() for name in ("killed", "whole")]
    assert tables[0] == tables[1]
    documents = [json.loads((tmp_path / name / "results.json").read_text())["table"] for name in ("killed", "whole")]
    assert documents[0] == documents[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "trivial,wrong"], "--rows takes"),
        (["--rows", "perfect"], "was not made in a built-in world"),
        (["--rows", "trivial", "--windows", "0"], "windows must be"),
        (["--rows", "trivial", "--horizon", "400"], "no window fits: 40 frames"),
        (["--rows", "trivial", "--horizon", "0"], "whole frames at 4 Hz"),
        (["--rows", "trivial", "--horizon", "2.1"], "whole frames at 4 Hz"),
        (["--rows", "trivial", "--horizon", "1,2.1"], "whole frames at 4 Hz"),
        (["--suite", "memory-planning", "--horizon", "1,2"], "one number of seconds"),
        (["--rows", "trivial", "--success-m", "0"], "success_m must be"),
        (["--rows", "trivial", "--success-deg", "200"], "success_deg must be"),
        (["--rows", "trivial", "--part", "0.6"], "--part must look like 0.6-1.0"),
        (["--rows", "trivial", "--part", "0.9-0.2"], "0 <= first < last <= 1"),
        (["--rows", "trivial", "--part", "0.9-1"], "in its part 0.9-1"),
        (["--rows", "trivial", "--rate", "8"], "the model's rate, 4 Hz"),
        (["--rows", "trivial", "--info-topic", "/none"], "/none"),
        (["--suite", "quality", "--rows", "copy,jumps"], "did you mean 'jump'"),
        (["--suite", "quality", "--rows", "copy", "--horizon", "2,1"], "increase"),
        (["--suite", "qualty"], "did you mean 'quality'"),
        (["--rows", "trivial", "--set", "planner.sampels=3"], "did you mean 'samples'"),
        (["--rows", "trivial", "--pose-topic", "/odon"], "/odom"),
        (["--rows", "trivial", "--config", "missing.yaml"], "missing.yaml"),
        (["--rows", "trivial", "--seed", "-1"], "seed must be"),
        (["--model", "no_such_model"], "no_such_model"),
        (
            ["--rows", "trivial", "--drift", "5", "--rgb-only"],
            "--drift, --rgb-only: says something only with --suite recall",
        ),
        (
            ["--rows", "trivial", "--samples", "7", "--top-k", "3"],
            "--samples, --top-k: says something only with --protocol",
        ),
        (["--rows", "trivial", "--out", "/proc/none"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line(bag, tmp_path, capsys, words, message):
    out = [] if "--out" in words else ["--out", str(tmp_path)]
    assert main(["evaluate", str(bag), *out, *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing_bag"], "missing_bag"),
        ([], "give a recording to evaluate"),
        (["--suite", "planing"], "did you mean 'planning'"),
        (["--suite", "planning", "--worlds", "9-3"], "20000-20019"),
        (["--suite", "planning", "--worlds", "all"], "20000-20019"),
    ],
)
def test_inputs_that_are_none_are_one_line(tmp_path, capsys, words, message):
    assert main(["evaluate", *words, "--rows", "trivial", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_too_few_frames_is_one_line(tmp_path, capsys):
    short = write_bag(tmp_path / "short", SampleRecording(9))
    assert main(["evaluate", str(short), "--rows", "trivial", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "9 frames over 2.0 s" in error
    assert error.count("\n") == 1


def test_ctrl_c_keeps_what_is_there(bag, tmp_path, capsys, monkeypatch):
    from come_nav.evaluation.protocols import results

    evaluated, original = [], results.evaluate

    def interrupted(row, window):
        if len(evaluated) == 5:
            raise KeyboardInterrupt
        evaluated.append(row.name)
        return original(row, window)

    words = ["evaluate", str(bag), "--rows", "trivial", "--windows", "6", "--out", str(tmp_path), "--no-report"]
    monkeypatch.setattr(results, "evaluate", interrupted)
    assert main(words) == 130
    assert "same command" in capsys.readouterr().err
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 6
    monkeypatch.setattr(results, "evaluate", original)
    assert main(words) == 0
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 13


def test_help_shows_the_defaults_and_examples(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    out = capsys.readouterr().out
    for words in (
        "--suite planning --worlds 20000-20019",
        "default 50; suite 200",
        "goes on where it stopped",
        "--part",
    ):
        assert words in out


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "available"), [("kitchen", 123), ("cabinet", 52)])
def test_recorded_bags_have_windows(shared_data, tmp_path, capsys, name, available):
    words = ["evaluate", str(shared_data / "bags" / name), "--rows", "trivial", "--windows", "1000"]
    result = document(capsys, *words, "--out", str(tmp_path), "--no-report")
    assert {line["n"] for line in result["table"]["rows"]} == {available}
    assert 0.1 < mean_ate(result, "stand still") < 0.6
