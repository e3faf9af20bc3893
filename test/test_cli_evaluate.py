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

from come_nav.cli.main import main
from come_nav.data.bag_writer import write_bag

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


def test_the_perfect_model_sees_what_the_recording_saw(simulated):
    """Rendered at the pose really driven, the view is the goal frame but for rounding to 8 bits."""
    import torch

    from come_nav.cli.evaluate_inputs import open_input
    from come_nav.cli.evaluate_rows import RenderedImaginer, unit_image
    from come_nav.config import Config
    from come_nav.evaluation.protocol import ProtocolConfig, choose_windows

    class Args:
        suite, image_topic, pose_topic = None, None, None
        input = str(simulated)

    source = open_input(Args, Config(device="cpu"), 4.0)
    for window in choose_windows(source.recordings, ProtocolConfig(), 3):
        imaginer = RenderedImaginer(source.places[window.recording_id], window.start, None)
        path = torch.from_numpy(window.driven_xyyaw)[None]
        view = imaginer.imagine(path, torch.Generator()).images[0]
        assert float((view - unit_image(window.goal_frame())).abs().mean()) < 0.01


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
        (["--rows", "trivial", "--horizon", "0"], "horizon_steps"),
        (["--rows", "trivial", "--set", "planner.sampels=3"], "did you mean 'samples'"),
        (["--rows", "trivial", "--pose-topic", "/odon"], "/odom"),
        (["--rows", "trivial", "--config", "missing.yaml"], "missing.yaml"),
        (["--rows", "trivial", "--seed", "-1"], "seed must be"),
        (["--model", "no_such_model"], "no_such_model"),
        (["--rows", "trivial", "--out", "/proc/none"], "cannot be written"),
        (["--suite", "planning"], "not both"),
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
        ([], "not both or neither"),
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
    from come_nav.evaluation import results

    judged, original = [], results.judge

    def interrupted(row, window):
        if len(judged) == 5:
            raise KeyboardInterrupt
        judged.append(row.name)
        return original(row, window)

    words = ["evaluate", str(bag), "--rows", "trivial", "--windows", "6", "--out", str(tmp_path), "--no-report"]
    monkeypatch.setattr(results, "judge", interrupted)
    assert main(words) == 130
    assert "same command" in capsys.readouterr().err
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 6
    monkeypatch.setattr(results, "judge", original)
    assert main(words) == 0
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 13


def test_help_shows_the_defaults_and_examples(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    out = capsys.readouterr().out
    for words in ("--suite planning --worlds 20000-20019", "default 50; suite 200", "goes on where it stopped"):
        assert words in out


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "available"), [("kitchen", 123), ("cabinet", 52)])
def test_recorded_bags_have_windows(shared_data, tmp_path, capsys, name, available):
    words = ["evaluate", str(shared_data / "bags" / name), "--rows", "trivial", "--windows", "1000"]
    result = document(capsys, *words, "--out", str(tmp_path), "--no-report")
    assert {line["n"] for line in result["table"]["rows"]} == {available}
    assert 0.1 < mean_ate(result, "stand still") < 0.6
