"""``come-nav simulate``: the bag can be read back, the image is there, mistakes are told in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from come_nav.cli.main import main
from come_nav.core.geometry import se2
from come_nav.data.opening import open_recording
from come_nav.data.trajectories import read_trajectory
from come_nav.sim.builtin import default_camera
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.odometry import OdometrySettings
from come_nav.sim.worlds import generate_world


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bag_holds_the_drive(tmp_path, capsys, storage):
    out = tmp_path / "episode"
    words = ["simulate", "--world", "20003", "--driver", "wander", "--duration", "5", "--rate", "8", "--seed", "2"]
    assert main([*words, "--noise", "2", "--storage", storage, "--out", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["frames"] == 41 and facts["world"] == 20003 and facts["split"] == "test"
    assert facts["storage"] == storage and facts["collisions"] == 0
    world = generate_world(20003)
    episode = simulate_episode(world, "wander", 5.0, 8.0, seed=2, odometry_noise=OdometrySettings.from_percent(2.0))
    assert (default_camera().width, default_camera().height) == (320, 240)
    made = EpisodeRecording(episode, Raycaster([world], default_camera()))
    with open_recording(out, rate_hz=4.0) as recording:
        assert len(recording) == 21
        assert recording.metadata["world"] == 20003 and recording.metadata["driver"] == "wander"
        np.testing.assert_allclose(recording.metadata["pose_world_start"], episode.poses_world_xyyaw[0])
        expected = se2.relative(episode.odometry_xyyaw[:1], episode.odometry_xyyaw[::2])
        read = se2.relative(recording.poses_xyyaw[:1], recording.poses_xyyaw)
        np.testing.assert_allclose(read, expected, atol=1e-6)
        for index in (0, 11, 20):
            frame, mine = recording.frame(index), made.frame(2 * index)
            assert np.abs(frame.rgb.astype(int) - mine.rgb.astype(int)).max() <= 1
            np.testing.assert_allclose(frame.depth_m, mine.depth_m, atol=6e-4)
        assert recording.intrinsics == default_camera()
        np.testing.assert_allclose(recording.T_base_camera, made.T_base_camera, atol=1e-9)
    truth = read_trajectory(out, "bag", topic="/ground_truth/odom")
    np.testing.assert_allclose(truth.poses_xyyaw[:, :2], episode.poses_world_xyyaw[:, :2], atol=1e-6)
    image = (tmp_path / "episode.png").read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n" and len(image) > 10000


def test_text_output_tells_what_to_do_next(tmp_path, capsys):
    out = tmp_path / "drive"
    assert main(["simulate", "--duration", "2", "--size", "40x24", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "17 frames of 40x24" in text and "world 0 (train)" in text and f"come-nav evaluate {out}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--driver", "tuor"], "did you mean 'tour'"),
        (["--size", "64x"], "--camera"),
        (["--camera", "100000"], "--camera"),
        (["--noise", "-1"], "--noise"),
        (["--world", "-3"], "world seed"),
        (["--seed", "-3"], "--seed"),
        (["--rate", "0"], "rate_hz"),
        (["--device", "tpu"], "--device"),
        (["--mesh", "nowhere.ply"], "no such file"),
        (["--worlds", "3-5"], "--worlds is for --nwm-dataset"),
        (["--nwm-dataset", "recon", "--rate", "8"], "--rate is of bags"),
    ],
)
def test_mistakes(tmp_path, capsys, words, message):
    assert main(["simulate", "--duration", "2", "--out", str(tmp_path / "x"), *words]) == 1
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_an_existing_bag_is_kept_unless_told(tmp_path, capsys):
    out = tmp_path / "drive"
    words = ["simulate", "--duration", "1", "--camera", "64", "--out", str(out)]
    assert main(words) == 0
    assert main(words) == 1 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    (tmp_path / "photo.png").write_text("precious")
    assert main([*words[:-1], str(tmp_path / "photo")]) == 1 and "photo.png: exists already" in capsys.readouterr().err
    assert (tmp_path / "photo.png").read_text() == "precious" and not (tmp_path / "photo").exists()
